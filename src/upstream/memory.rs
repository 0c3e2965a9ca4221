//! The in-memory twin of an IMAP server: mailboxes, what goes wrong, and a record of what was asked. It behaves as the
//! traits say and no better; for tests, and for trying popgate out. No wire, no protocol, no reconnecting.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use super::{Fault, Upstream, Verdict, Window};
use crate::mail::{Credentials, Deletion, Message, Proof, Snapshot, Uid, UidValidity};

mod opened;

pub use opened::Opened;

/// The server. Clones are the same server.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
    /// How many octets of a body come at once.
    chunk: usize,
    parts: Parts,
    /// How long it takes to refuse credentials.
    refusing: Duration,
}

/// What comes of asking for part of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Parts {
    /// The part.
    #[default]
    Exact,
    /// So many octets more than were asked for, as Exchange 5.5 did.
    More(u32),
    /// The whole message.
    Whole,
    /// The part, but the whole message if it is not the first part.
    WholeLater,
}

struct Shared {
    state: Mutex<State>,
    /// Told when a line is to be lost.
    lines: Notify,
}

#[derive(Default)]
struct State {
    accounts: BTreeMap<String, Account>,
    troubles: Vec<Trouble>,
    deeds: Vec<Deed>,
}

struct Account {
    password: Vec<u8>,
    maildrop: Maildrop,
}

/// What a mailbox holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Maildrop {
    /// The generation of its UIDs; `None` if they do not outlive a session.
    pub uid_validity: Option<UidValidity>,
    /// Whether messages can be deleted.
    pub deletion: Deletion,
    /// The messages.
    pub messages: BTreeMap<Uid, Mail>,
}

/// A message as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mail {
    /// All of it.
    pub octets: Vec<u8>,
    /// The size that the listing gives, right or wrong.
    pub listed: u64,
    /// `\Seen`.
    pub seen: bool,
}

impl Mail {
    /// A message that nobody has seen and that is listed with its size.
    pub fn new(octets: impl Into<Vec<u8>>) -> Self {
        let octets = octets.into();
        Self { listed: octets.len() as u64, octets, seen: false }
    }
}

impl Maildrop {
    /// A mailbox that can be changed.
    pub fn new(uid_validity: u32, messages: impl IntoIterator<Item = (Uid, Mail)>) -> Self {
        Self {
            uid_validity: UidValidity::new(uid_validity),
            deletion: Deletion::Allowed,
            messages: messages.into_iter().collect(),
        }
    }

    fn listing(&self) -> Snapshot {
        let messages = self.messages.iter().map(|(&uid, mail)| Message { uid, octets: mail.listed });
        Snapshot::new(self.uid_validity, self.deletion, messages)
    }
}

/// Something that goes wrong, once.
#[derive(Debug)]
pub enum Trouble {
    /// A log-in fails, although the password is right.
    Open(Fault),
    /// A message is asked for, and there is no answer.
    Fetch(Fault),
    /// A body breaks off after this many octets. If it has no more, they all come, but nobody confirms it.
    Body(u64, Fault),
    /// The line is lost while the client thinks.
    Line(Fault),
    /// Some of the messages that are to be deleted stay.
    Stay(BTreeSet<Uid>, Fault),
    /// When changes are to be made, the mailbox is not the one that was listed.
    Changed(Fault),
}

/// Something the server was asked to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Somebody tried to log in.
    Open(String),
    /// A whole message was asked for.
    Fetch(Uid),
    /// A part of a message was asked for.
    Peek(Uid, Window),
    /// A body was forsaken before its end.
    Forsake(Uid),
    /// Messages were to be flagged `\Seen`, not at the end.
    MarkSeen(Vec<Uid>),
    /// Changes were to be made.
    Settle {
        /// Messages to be deleted.
        delete: Vec<Uid>,
        /// Messages to be flagged `\Seen`.
        seen: Vec<Uid>,
    },
    /// A session took leave.
    Leave,
}

impl Memory {
    /// A server without mailboxes that sends bodies in pieces of `chunk` octets, at least one.
    pub fn new(chunk: usize) -> Self {
        let shared = Shared { state: Mutex::default(), lines: Notify::new() };
        Self { shared: Arc::new(shared), chunk: chunk.max(1), parts: Parts::Exact, refusing: Duration::ZERO }
    }

    /// The same server with a way of its own to send parts.
    #[must_use]
    pub fn sending(self, parts: Parts) -> Self {
        Self { parts, ..self }
    }

    /// The same server, if it is slow to refuse credentials, as many servers are on purpose.
    #[must_use]
    pub fn refusing_after(self, refusing: Duration) -> Self {
        Self { refusing, ..self }
    }

    /// Adds a user with a mailbox.
    #[must_use]
    pub fn with(self, user: &str, password: &[u8], maildrop: Maildrop) -> Self {
        self.state().accounts.insert(user.to_owned(), Account { password: password.to_vec(), maildrop });
        self
    }

    /// Lets something go wrong. Troubles of the same kind come in the order in which they were added.
    pub fn trouble(&self, trouble: Trouble) {
        self.state().troubles.push(trouble);
        self.shared.lines.notify_waiters();
    }

    /// The mailbox of a user as it is now.
    pub fn maildrop(&self, user: &str) -> Option<Maildrop> {
        self.state().accounts.get(user).map(|account| account.maildrop.clone())
    }

    /// Does to a user's mailbox what another client might do.
    pub fn meddle(&self, user: &str, change: impl FnOnce(&mut Maildrop)) {
        if let Some(account) = self.state().accounts.get_mut(user) {
            change(&mut account.maildrop);
        }
    }

    /// What was asked so far.
    pub fn deeds(&self) -> Vec<Deed> {
        self.state().deeds.clone()
    }

    fn lets_in(&self, who: &Credentials) -> bool {
        let mut state = self.state();
        state.deeds.push(Deed::Open(who.user.clone()));
        state.accounts.get(&who.user).is_some_and(|account| match &who.proof {
            Proof::Password(password) => *password.expose() == account.password,
            Proof::Token { token, .. } => token.expose().as_bytes() == account.password,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere has left nothing half done in here.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("chunk", &self.chunk).field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl State {
    /// The first trouble that `pick` wants; the others stay.
    fn take(&mut self, pick: impl Fn(&Trouble) -> bool) -> Option<Trouble> {
        let at = self.troubles.iter().position(pick)?;
        Some(self.troubles.remove(at))
    }
}

impl Upstream for Memory {
    type Mailbox = Opened;

    async fn open(&self, who: &Arc<Credentials>) -> Result<(Opened, Arc<Snapshot>), Fault> {
        if !self.lets_in(who) {
            if !self.refusing.is_zero() {
                sleep(self.refusing).await;
            }
            return Err(Fault::new(Verdict::Denied, "no such user and password"));
        }
        let mut state = self.state();
        let Some(account) = state.accounts.get(&who.user) else { return Err(Fault::new(Verdict::Passing, "gone")) };
        let snapshot = Arc::new(account.maildrop.listing());
        if let Some(Trouble::Open(fault)) = state.take(|trouble| matches!(trouble, Trouble::Open(_))) {
            return Err(fault);
        }
        let opened = Opened::new(self.clone(), who.user.clone(), snapshot.uid_validity());
        Ok((opened, snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mail::{Changes, Secret},
        upstream::{Body, Extent, Mailbox, Settled},
    };

    async fn open(memory: &Memory, password: &[u8]) -> Result<(Opened, Arc<Snapshot>), Fault> {
        let proof = Proof::Password(Secret::new(password.to_vec()));
        memory.open(&Arc::new(Credentials::new("tim".to_owned(), proof))).await
    }

    async fn read(body: Result<Option<Body<'_, Opened>>, Fault>) -> (Vec<Vec<u8>>, Extent, Option<String>) {
        let mut body = body.unwrap().unwrap();
        let mut chunks = Vec::new();
        loop {
            match body.next().await {
                Ok(Some(chunk)) => chunks.push(chunk.to_vec()),
                Ok(None) => return (chunks, body.extent(), None),
                Err(fault) => return (chunks, body.extent(), Some(fault.cause)),
            }
        }
    }

    #[tokio::test]
    async fn it_does_what_the_traits_say() {
        let uid = |value| Uid::new(value).unwrap();
        let fault = || Fault::new(Verdict::Passing, "lost");
        let maildrop = Maildrop::new(1, [(uid(5), Mail::new("0123456789")), (uid(7), Mail::new(""))]);
        let memory = Memory::new(4).with("tim", b"sec ret", maildrop);
        assert_eq!(open(&memory, b"guess").await.err().map(|fault| fault.verdict), Some(Verdict::Denied));
        let (mut opened, snapshot) = open(&memory, b"sec ret").await.unwrap();
        assert_eq!((snapshot.len(), snapshot.total()), (2, 10));

        let chunks = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(read(opened.fetch(uid(5)).await).await, (chunks(&["0123", "4567", "89"]), Extent::Whole, None));
        assert_eq!(read(opened.fetch(uid(7)).await).await, (vec![], Extent::Whole, None));
        assert!(opened.fetch(uid(6)).await.unwrap().is_none());
        for (offset, length, expected) in [(0, 3, &["012"][..]), (5, 100, &["5678", "9"]), (10, 1, &[])] {
            let window = Window { offset, length };
            assert_eq!(read(opened.peek(uid(5), window).await).await, (chunks(expected), Extent::Part, None));
        }
        for (after, expected) in [(0, &[][..]), (5, &["0123", "4"]), (10, &["0123", "4567", "89"])] {
            memory.trouble(Trouble::Body(after, fault()));
            let broken = (chunks(expected), Extent::Whole, Some("lost".to_owned()));
            assert_eq!(read(opened.fetch(uid(5)).await).await, broken);
        }
        memory.trouble(Trouble::Line(fault()));
        assert_eq!(opened.rest().await.cause, "lost");

        let changes = Changes { delete: vec![uid(5), uid(6)], seen: vec![uid(7)] };
        memory.trouble(Trouble::Stay([uid(5)].into(), fault()));
        assert!(matches!(opened.settle(&changes).await, Settled::Partly { left: 1, .. }));
        assert!(matches!(opened.settle(&changes).await, Settled::Done));
        memory.meddle("tim", |maildrop| maildrop.uid_validity = UidValidity::new(2));
        assert!(matches!(opened.settle(&changes).await, Settled::Changed(_)));
        let left = memory.maildrop("tim").unwrap().messages;
        assert_eq!(left, [(uid(7), Mail { seen: true, ..Mail::new("") })].into());
    }
}
