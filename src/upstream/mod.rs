//! What the gateway needs of the server behind it, and no more: open a mailbox, read messages, settle what QUIT asks for.
//! No POP3 word in here. [`imap`] is the real thing, [`memory`] the twin that tests run against; [`cache`] and
//! [`warm`] go around others and save work; [`sparing`] keeps a server from being overrun.

use std::{fmt, future::Future, sync::Arc};

use crate::mail::{Changes, Credentials, Snapshot, Uid};

pub mod cache;
pub mod imap;
pub mod memory;
pub mod sparing;
pub mod warm;

/// A server that holds mailboxes.
pub trait Upstream: Send + Sync + 'static {
    /// One opened mailbox.
    type Mailbox: Mailbox;

    /// Logs in, opens the mailbox and lists it. The listing is complete, or this is an error.
    fn open(
        &self,
        who: &Arc<Credentials>,
    ) -> impl Future<Output = Result<(Self::Mailbox, Arc<Snapshot>), Fault>> + Send;
}

/// One mailbox, opened for one session. A lost line is its own business: it reconnects within its budget, and what the
/// caller sees is a result or a [`Fault`]. Only [`rest`](Self::rest) and [`Body::next`] may be dropped half-way.
pub trait Mailbox: Send + Sized + 'static {
    /// Begins to read a whole message. `None`: the upstream itself said that the message is gone.
    fn fetch(&mut self, uid: Uid) -> impl Future<Output = Result<Option<Body<'_, Self>>, Fault>> + Send;

    /// Begins to read part of a message. The body says how much of it came, see [`Body::extent`].
    fn peek(&mut self, uid: Uid, window: Window) -> impl Future<Output = Result<Option<Body<'_, Self>>, Fault>> + Send;

    /// What is about to be asked for: `certain` first, which the client has asked for already, then what is `likely` to
    /// come next. It may be fetched ahead or not; nothing is waited for.
    fn ahead(&mut self, certain: impl Iterator<Item = Piece>, likely: impl Iterator<Item = Piece>);

    /// Whether the piece has been fetched ahead, so that asking for it will not take a wait.
    fn is_here(&self, _: Piece) -> bool {
        false
    }

    /// The next octets of the body that is open; `None` after the last, when the upstream has confirmed that they were
    /// all. For [`Body::next`], which is the way to call it; cancel-safe.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<&[u8]>, Fault>> + Send;

    /// The open body is not wanted any more.
    fn forsake(&mut self);

    /// Passes the time while the client thinks: keeps the line alive and notices its end. Returns when the line was lost,
    /// once; cancel-safe.
    fn rest(&mut self) -> impl Future<Output = Fault> + Send;

    /// Flags messages `\Seen`, if the mailbox allows it. A failure here is never worth a client's attention.
    fn mark_seen(&mut self, uids: &[Uid]) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Carries out what a session asks for at its end, within the time an UPDATE may take.
    fn settle(&mut self, changes: &Changes) -> impl Future<Output = Settled> + Send;

    /// Takes leave of the server. Removes nothing.
    fn leave(self) -> impl Future<Output = ()> + Send;
}

/// A message, or a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The message.
    pub uid: Uid,
    /// The part that [`Mailbox::peek`] will be asked for; `None` stands for all of it.
    pub window: Option<Window>,
}

/// Part of a message: `length` octets from `offset`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Octets to skip.
    pub offset: u64,
    /// Octets wanted, at least one.
    pub length: u32,
}

impl Window {
    /// How many octets of it lie within a message of so many.
    pub(crate) fn of(self, octets: u64) -> u64 {
        octets.saturating_sub(self.offset).min(u64::from(self.length))
    }
}

/// How the octets of a body lie in the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// The whole message. Also the answer of servers that do not know how to send a part.
    Whole,
    /// What was asked for, or less at the end of the message.
    Part,
}

/// The octets of one message or of a part of it, on their way. Dropping it before its end forsakes the rest.
pub struct Body<'a, M: Mailbox> {
    mailbox: &'a mut M,
    octets: u64,
    extent: Extent,
    ended: bool,
}

impl<'a, M: Mailbox> Body<'a, M> {
    /// For implementations of [`Mailbox`]: a body of which `octets` will come.
    pub(crate) const fn new(mailbox: &'a mut M, octets: u64, extent: Extent) -> Self {
        Self { mailbox, octets, extent, ended: false }
    }

    /// For implementations of [`Mailbox`] that go around another: what is needed to begin the same body as their own.
    fn handed_on(mut self) -> (u64, Extent) {
        self.ended = true;
        (self.octets, self.extent)
    }

    /// How many octets come in all. The upstream announced them; they are here only when [`next`](Self::next) says so.
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    /// What part of the message they are.
    pub const fn extent(&self) -> Extent {
        self.extent
    }

    /// The next octets; `None` when all have come *and* the upstream has confirmed the command that asked for them.
    /// Anything else is a fault, and what came before it is not a message.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, Fault> {
        let chunk = self.mailbox.chunk().await;
        self.ended = !matches!(chunk, Ok(Some(_)));
        chunk
    }
}

impl<M: Mailbox> Drop for Body<'_, M> {
    fn drop(&mut self) {
        if !self.ended {
            self.mailbox.forsake();
        }
    }
}

/// What became of a session's [`Changes`].
#[derive(Debug)]
pub enum Settled {
    /// Every message to be deleted is gone, or hidden as the policy says, on the upstream's own word.
    Done,
    /// Some are still there, or nobody knows.
    Partly {
        /// How many may still be there.
        left: usize,
        /// Why; its verdict says whether to try again helps.
        fault: Fault,
    },
    /// The mailbox is not the one that was listed; nothing was deleted.
    Changed(Fault),
}

/// What to make of a failure. The gateway turns it into the code a client reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The credentials are wrong.
    Denied,
    /// Somebody else uses the mailbox, or too many do.
    Busy,
    /// Trouble that will pass.
    Passing,
    /// Trouble that somebody must see to.
    Lasting,
    /// The mailbox is not the one that was listed, or cannot be relied on to be. Logging in again helps.
    Changed,
}

/// Why something failed upstream: a verdict for the client, a cause for the log.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Fault {
    /// What to make of it.
    pub verdict: Verdict,
    /// What went wrong, for the administrator. No secret and no mail content.
    pub cause: String,
    /// The upstream's own words to the user, where they are meant for a person (RFC 3501 ALERT, RFC 5530 CONTACTADMIN)
    /// and came over a line that can be trusted. Printable ASCII, one line.
    pub notice: Option<String>,
    /// The SASL challenge that explained a refused token (RFC 7628 §3.2.2), decoded; it is for the client program.
    pub challenge: Option<Vec<u8>>,
}

impl Fault {
    /// A fault with nothing to add to its cause.
    pub fn new(verdict: Verdict, cause: impl Into<String>) -> Self {
        Self { verdict, cause: cause.into(), notice: None, challenge: None }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::Passing => "passing",
            Self::Lasting => "lasting",
            Self::Changed => "changed",
        })
    }
}
