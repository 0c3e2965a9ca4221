//! The other client of a mailbox: an IMAP program that delivers, flags and removes while POP3 sessions go on. It tells the
//! history first.

use std::sync::{Arc, OnceLock, atomic::Ordering::Relaxed};

use super::{chance::Chance, world::Shared};
use crate::support::{
    chat::stuffed,
    messages,
    script::{Content, Mailbox},
};

/// What it does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    /// A message arrives.
    Deliver,
    /// A message gets `\Flagged` and `\Seen`.
    Flag,
    /// A message gets `\Deleted`, and stays.
    Doom,
    /// Everything with `\Deleted` goes.
    Purge,
    /// A message goes.
    Expunge,
    /// The mailbox is built anew: another UIDVALIDITY, other UIDs.
    Rebuild,
}

pub(super) const DEEDS: [Deed; 9] = [
    Deed::Deliver,
    Deed::Deliver,
    Deed::Deliver,
    Deed::Flag,
    Deed::Doom,
    Deed::Doom,
    Deed::Purge,
    Deed::Expunge,
    Deed::Rebuild,
];

/// Does it to a user's mailbox; `which` chooses the message.
pub(super) fn act(deed: Deed, which: u64, user: &str, inbox: &mut Mailbox, shared: &Arc<Shared>) {
    shared.trace.note(&format!("{deed:?} {which} {user}"));
    let validity = inbox.uid_validity.unwrap_or_default();
    let id = |uid: u32| {
        let unique_id = shared.plan.options.unique_id(validity, uid);
        shared.history(|history| history.which(user, &unique_id)).unwrap_or_default()
    };
    let uids = inbox.uids();
    let chosen = (!uids.is_empty()).then(|| uids[which as usize % uids.len()]);
    match (deed, chosen) {
        (Deed::Deliver, _) => {
            let number = shared.deliveries.fetch_add(1, Relaxed) + 1;
            let octets = message(number, shared.plan.large, &mut Chance::new(number ^ shared.seed << 20));
            let (shown, length) = (stuffed(&octets), octets.len() as u64);
            let uid = inbox.deliver(Content::new(octets));
            // Some servers do not know how large a message is.
            if which.is_multiple_of(10)
                && let Some(message) = inbox.messages.last_mut()
            {
                message.reported = message.reported.saturating_add_signed(which as i64 - 45).max(1);
            }
            let reported = inbox.message(uid).map_or(length, |message| message.reported);
            shared.history(|history| {
                history.delivered(number, user, shown);
                history.sized(number, length, reported);
                history.named(number, &shared.plan.options.unique_id(validity, uid));
            });
        }
        (Deed::Flag, Some(uid)) => {
            inbox.flag(uid, "\\Flagged");
            inbox.flag(uid, "\\Seen");
            let id = id(uid);
            shared.history(|history| history.seen(id));
        }
        (Deed::Doom, Some(uid)) => {
            let id = id(uid);
            shared.history(|history| history.doomed(id));
            inbox.flag(uid, "\\Deleted");
        }
        (Deed::Purge, _) => {
            for message in inbox.messages.iter().filter(|message| message.has("\\Deleted")) {
                let id = id(message.uid);
                shared.history(|history| history.purged(id));
            }
            inbox.messages.retain(|message| !message.has("\\Deleted"));
        }
        (Deed::Expunge, Some(uid)) => {
            let id = id(uid);
            shared.history(|history| history.removed(id));
            inbox.expunge(uid);
        }
        (Deed::Rebuild, _) => {
            let ids: Vec<u64> = uids.iter().map(|uid| id(*uid)).collect();
            inbox.uid_validity = Some(validity + 1);
            for ((index, message), id) in inbox.messages.iter_mut().enumerate().zip(ids) {
                message.uid = index as u32 + 1;
                let unique_id = shared.plan.options.unique_id(validity + 1, message.uid);
                shared.history(|history| history.named(id, &unique_id));
            }
            inbox.uid_next = uids.len() as u32 + 1;
        }
        (_, None) => {}
    }
}

/// A message that says which one it is; so many in a hundred are large.
fn message(number: u64, large: u64, chance: &mut Chance) -> Vec<u8> {
    static ODD: OnceLock<[Vec<Vec<u8>>; 2]> = OnceLock::new();
    let [small, huge] = ODD.get_or_init(|| {
        let octets = messages::odd().into_iter().map(|sample| sample.octets);
        let (small, large): (Vec<_>, Vec<_>) =
            octets.filter(|octets| octets.len() < 400_000).partition(|octets| octets.len() < 3_000);
        [small, large]
    });
    let mut octets = format!("X-Id: {number}\r\n").into_bytes();
    match chance.below(100) {
        lot if lot < large => octets.extend(chance.pick(huge)),
        ..=50 => octets.extend(chance.pick(small)),
        _ => octets.extend(messages::ordinary(&format!("number {number}"), chance.below(20) as usize)),
    }
    octets
}
