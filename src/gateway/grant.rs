//! From credentials to a mailbox, or to the reason why not.

use std::sync::Arc;

use super::{Gateway, Lock, lock::Held};
use crate::{
    mail::{Credentials, Snapshot},
    upstream::{Fault, Mailbox, Upstream, Verdict},
};

/// A mailbox that is this session's.
pub(super) struct Granted<M> {
    pub(super) mailbox: M,
    pub(super) snapshot: Arc<Snapshot>,
    /// Where users may have one session only, that this is it.
    pub(super) held: Option<Held>,
}

/// Opens the mailbox. That the maildrop is in use is told to those only who have shown that it is theirs.
pub(super) async fn grant<U: Upstream>(
    gateway: &Gateway<U>,
    who: &Arc<Credentials>,
) -> Result<Granted<U::Mailbox>, Fault> {
    let (mailbox, snapshot) = gateway.upstream.open(who).await?;
    let held = match gateway.settings.lock {
        Lock::None => None,
        Lock::Gateway => match gateway.locks.hold(&who.user) {
            Some(held) => Some(held),
            None => {
                mailbox.leave().await;
                return Err(Fault::new(Verdict::Busy, "the user has another session"));
            }
        },
    };
    Ok(Granted { mailbox, snapshot, held })
}
