//! IMAP mailboxes (RFC 3501). async-imap decodes responses; the `tap` below it carries the octets, and the loop above it, in
//! `conn`, sends commands and decides what succeeded. Nothing outside this room sees a type of async-imap.
//!
//! ```text
//!  mailbox   one maildrop: a line when it needs one, and what may be asked of it; its messages are the `body`'s
//!     │      login · listing · settle: the three dialogues that are longer than a command; `complete` proves the second,
//!     │      `removal` knows the means of the third
//!   conn     one line: commands out, outcomes in; beside it the stash, messages that came before they were asked for, and
//!     │      the view, what the server says of the mailbox unasked
//!     │      async_imap::Client
//!    tap     octets: bounded, vetted, sorted
//! ```
//!
//! `survey` goes the way of a log-in for people who ask what a server is like.

use std::{sync::Arc, sync::atomic::AtomicBool, time::Duration};

use tokio::time::sleep;
use tracing::info;

#[cfg(any(test, fuzzing))]
pub(crate) use self::tap::fuzzing;
pub use self::{
    capability::ByPassword,
    mailbox::ImapMailbox,
    removal::Removal,
    stash::Budget,
    survey::{Examined, Offer, Step, Survey},
};
use self::{
    fault::{Phase, Trouble},
    listing::Access,
};
use crate::{
    mail::{Credentials, Snapshot},
    net::{Dial, Endpoint, tls::Connector},
    upstream::{
        Fault, Upstream,
        cache::{Relist, Slot},
        sparing::{Pass, Sparing},
    },
};

mod ask;
mod body;
mod capability;
mod complete;
mod conn;
mod dial;
mod fault;
mod listing;
mod login;
mod mailbox;
mod name;
mod removal;
mod selected;
mod sets;
mod settle;
mod stash;
mod survey;
mod tap;
mod view;

/// An IMAP server.
#[derive(Clone)]
pub struct Imap(Arc<Server>);

/// What all mailboxes of one server share.
struct Server {
    settings: Settings,
    dial: Arc<dyn Dial>,
    /// There is one where the settings ask for TLS.
    tls: Option<Connector>,
    budget: Budget,
    sparing: Option<Arc<Sparing>>,
    /// The server offers UIDPLUS but refused UID EXPUNGE (Proton Bridge did).
    expunge_refused: AtomicBool,
    /// Messages were hidden by a keyword in a session.
    hides: AtomicBool,
}

/// Which server, which mailbox, and what to do with deleted messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How the line is secured.
    pub security: Security,
    /// Where the server is; the host is also the name that its certificate must bear.
    pub endpoint: Endpoint,
    /// The mailbox that is the maildrop.
    pub mailbox: String,
    /// What QUIT does with deleted messages. `None`: expunge, but on Gmail move to the trash, because what becomes of
    /// an expunged message there depends on the user's settings.
    pub on_delete: Option<OnDelete>,
    /// Whether messages that somebody else flagged `\Deleted` are shown.
    pub deleted: Deleted,
    /// Whether messages are fetched before the client asks for them, where it is likely to.
    pub read_ahead: bool,
}

/// How the line to the server is secured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Security {
    /// TLS from the first octet (RFC 8314).
    Implicit,
    /// STARTTLS, required.
    StartTls,
    /// Not at all.
    Plain,
}

/// What QUIT does with deleted messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDelete {
    /// They are removed.
    Expunge,
    /// Nothing: they are gone for this session only.
    Ignore,
}

/// Whether messages that somebody else flagged `\Deleted` are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deleted {
    /// They are, as Dovecot does.
    Show,
    /// They are not, as UW and Cyrus can do.
    Hide,
    /// Only those are hidden that popgate itself flagged.
    Own,
}

impl Imap {
    /// A server that is reached through `dial`, and through `tls` where the settings ask for TLS; without it nobody can
    /// log in there then.
    pub fn new(settings: Settings, dial: Arc<dyn Dial>, tls: Option<Connector>) -> Self {
        Self::with(settings, dial, tls, Budget::new(AHEAD), None)
    }

    /// The same, with a budget for what is fetched ahead that may be shared with other servers, and spared if that is
    /// wanted; what is known of one server is shared by all that lead there.
    pub fn with(
        settings: Settings,
        dial: Arc<dyn Dial>,
        tls: Option<Connector>,
        budget: Budget,
        sparing: Option<Arc<Sparing>>,
    ) -> Self {
        Self(Arc::new(Server {
            settings,
            dial,
            tls,
            budget,
            sparing,
            expunge_refused: AtomicBool::new(false),
            hides: AtomicBool::new(false),
        }))
    }
}

impl Upstream for Imap {
    type Mailbox = ImapMailbox;

    async fn open(&self, who: &Arc<Credentials>) -> Result<(ImapMailbox, Arc<Snapshot>), Fault> {
        open(self.0.clone(), who.clone(), None).await
    }
}

impl Relist for Imap {
    async fn relist(&self, who: &Arc<Credentials>, slot: Slot) -> Result<(ImapMailbox, Arc<Snapshot>), Fault> {
        open(self.0.clone(), who.clone(), Some(slot)).await
    }
}

impl Server {
    /// Whether what the server says is its own: nobody on the way can have written it.
    fn trusted(&self) -> bool {
        self.settings.security != Security::Plain || self.settings.endpoint.is_loopback()
    }

    /// Waits for the right to a new line, if the server is spared.
    async fn pass(&self) -> Result<Option<Pass<'_>>, Fault> {
        match &self.sparing {
            Some(sparing) => sparing.pass().await.map(Some),
            None => Ok(None),
        }
    }
}

/// Logs in and lists. Some troubles pass by themselves at once; then it is done again, once.
async fn open(
    server: Arc<Server>,
    who: Arc<Credentials>,
    slot: Option<Slot>,
) -> Result<(ImapMailbox, Arc<Snapshot>), Fault> {
    let (mut recalled, mut known) = (None, None);
    let mut again = true;
    let mut listing = loop {
        let conn = login::login(&server, server.pass().await?, &who).await?;
        // Not before: nothing is read for those who only guess at passwords.
        if let (Some(slot), true) = (&slot, again) {
            recalled = slot.recall().await;
            known.clone_from(&recalled);
        }
        let trouble = match listing::open(&server, conn, Access::Work, &mut known).await {
            Ok(listing) => break listing,
            Err(trouble) => trouble,
        };
        let led_astray = recalled.is_some() && known.is_none();
        if let (Some(slot), true) = (&slot, led_astray) {
            slot.forget();
            recalled = None;
        }
        let pause = match trouble {
            Trouble::Malformed(_) if led_astray => Some(Duration::ZERO),
            _ if trouble.is_of_this_line() => Some(Duration::ZERO),
            _ => trouble.pause(),
        };
        let Some(pause) = pause.filter(|_| again) else {
            return Err(trouble.into_fault(Phase::Open, server.trusted()));
        };
        info!(%trouble, ?pause, "the mailbox could not be opened, trying once more");
        again = false;
        sleep(pause).await;
    };
    let known = listing.known.take().map(|new| match &recalled {
        Some(recalled) if **recalled == new => Arc::clone(recalled),
        _ => Arc::new(new),
    });
    if let Some(slot) = &slot {
        slot.renew(recalled.as_ref(), known.clone());
    }
    let snapshot = Arc::clone(&listing.snapshot);
    Ok((ImapMailbox::new(server, who, slot, listing, known), snapshot))
}

/// What all sessions together may fetch ahead, in octets.
pub const AHEAD: usize = 64 * 1024 * 1024;
