//! The in-memory twin of an IMAP server: mailboxes, what goes wrong, and a record of what was asked. It behaves as the
//! traits say and no better; for tests, and for trying popgate out. No wire, no protocol, no reconnecting.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{Body, Extent, Fault, Mailbox, Settled, Upstream, Verdict, Window};
use crate::mail::{Changes, Credentials, Deletion, Message, Proof, Snapshot, Uid, UidValidity};

/// The server. Clones are the same server.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
    /// How many octets of a body come at once.
    chunk: usize,
    /// Whether a part of a message can be asked for.
    parts: bool,
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
    Settle(Changes),
    /// A session took leave.
    Leave,
}

impl Memory {
    /// A server without mailboxes that sends bodies in pieces of `chunk` octets, at least one.
    pub fn new(chunk: usize) -> Self {
        let shared = Shared { state: Mutex::default(), lines: Notify::new() };
        Self { shared: Arc::new(shared), chunk: chunk.max(1), parts: true }
    }

    /// The same, but it sends the whole message when a part is asked for, as some servers do.
    #[must_use]
    pub fn without_parts(self) -> Self {
        Self { parts: false, ..self }
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
        let mut state = self.state();
        state.deeds.push(Deed::Open(who.user.clone()));
        let right = state.accounts.get(&who.user).filter(|account| match &who.proof {
            Proof::Password(password) => *password.expose() == account.password,
            Proof::Token { token, .. } => token.expose().as_bytes() == account.password,
        });
        let Some(account) = right else { return Err(Fault::new(Verdict::Denied, "no such user and password")) };
        let snapshot = Arc::new(account.maildrop.listing());
        if let Some(Trouble::Open(fault)) = state.take(|trouble| matches!(trouble, Trouble::Open(_))) {
            return Err(fault);
        }
        let opened = Opened {
            server: self.clone(),
            user: who.user.clone(),
            uid_validity: snapshot.uid_validity(),
            sending: None,
        };
        Ok((opened, snapshot))
    }
}

/// A mailbox of [`Memory`], opened for one session.
pub struct Opened {
    server: Memory,
    user: String,
    uid_validity: Option<UidValidity>,
    sending: Option<Sending>,
}

/// A body under way.
struct Sending {
    uid: Uid,
    octets: Vec<u8>,
    at: usize,
    /// Where it breaks off.
    trouble: Option<(usize, Fault)>,
}

impl Opened {
    fn begin(&mut self, deed: Deed, uid: Uid, window: Option<Window>) -> Result<Option<Body<'_, Self>>, Fault> {
        let mut state = self.server.state();
        state.deeds.push(deed);
        if let Some(Trouble::Fetch(fault)) = state.take(|trouble| matches!(trouble, Trouble::Fetch(_))) {
            return Err(fault);
        }
        let mail = state.accounts.get(&self.user).and_then(|account| account.maildrop.messages.get(&uid));
        let Some(mail) = mail else { return Ok(None) };
        let (octets, extent) = match window {
            Some(window) if self.server.parts => {
                let begin = usize::try_from(window.offset).unwrap_or(usize::MAX).min(mail.octets.len());
                let end = begin.saturating_add(window.length as usize).min(mail.octets.len());
                (mail.octets[begin..end].to_vec(), Extent::Part)
            }
            _ => (mail.octets.clone(), Extent::Whole),
        };
        let trouble = match state.take(|trouble| matches!(trouble, Trouble::Body(..))) {
            Some(Trouble::Body(after, fault)) => Some((usize::try_from(after).unwrap_or(usize::MAX), fault)),
            _ => None,
        };
        drop(state);
        let length = octets.len() as u64;
        self.sending = Some(Sending { uid, octets, at: 0, trouble });
        Ok(Some(Body::new(self, length, extent)))
    }
}

impl Mailbox for Opened {
    async fn fetch(&mut self, uid: Uid) -> Result<Option<Body<'_, Self>>, Fault> {
        self.begin(Deed::Fetch(uid), uid, None)
    }

    async fn peek(&mut self, uid: Uid, window: Window) -> Result<Option<Body<'_, Self>>, Fault> {
        self.begin(Deed::Peek(uid, window), uid, Some(window))
    }

    async fn chunk(&mut self) -> Result<Option<&[u8]>, Fault> {
        let Some(sending) = &mut self.sending else { return Ok(None) };
        let begin = sending.at;
        let breaks = sending.trouble.as_ref().map_or(usize::MAX, |(after, _)| *after);
        let end = sending.octets.len().min(breaks).min(begin + self.server.chunk);
        if begin == end {
            return sending.trouble.take().map_or(Ok(None), |(_, fault)| Err(fault));
        }
        sending.at = end;
        Ok(Some(&sending.octets[begin..end]))
    }

    fn forsake(&mut self) {
        if let Some(sending) = self.sending.take() {
            self.server.state().deeds.push(Deed::Forsake(sending.uid));
        }
    }

    async fn rest(&mut self) -> Fault {
        loop {
            // Listening begins before the look, so that nothing is missed in between.
            let told = self.server.shared.lines.notified();
            if let Some(Trouble::Line(fault)) = self.server.state().take(|trouble| matches!(trouble, Trouble::Line(_)))
            {
                return fault;
            }
            told.await;
        }
    }

    async fn mark_seen(&mut self, uids: &[Uid]) -> Result<(), Fault> {
        let mut state = self.server.state();
        state.deeds.push(Deed::MarkSeen(uids.to_vec()));
        if let Some(account) = state.accounts.get_mut(&self.user) {
            account.maildrop.see(uids);
        }
        Ok(())
    }

    async fn settle(&mut self, changes: &Changes) -> Settled {
        let mut state = self.server.state();
        state.deeds.push(Deed::Settle(changes.clone()));
        if let Some(Trouble::Changed(fault)) = state.take(|trouble| matches!(trouble, Trouble::Changed(_))) {
            return Settled::Changed(fault);
        }
        let stay = state.take(|trouble| matches!(trouble, Trouble::Stay(..)));
        let Some(account) = state.accounts.get_mut(&self.user) else { return Settled::Changed(gone()) };
        if account.maildrop.uid_validity != self.uid_validity {
            return Settled::Changed(gone());
        }
        account.maildrop.see(&changes.seen);
        let Some(Trouble::Stay(stay, fault)) = stay else {
            account.maildrop.messages.retain(|uid, _| !changes.delete.contains(uid));
            return Settled::Done;
        };
        account.maildrop.messages.retain(|uid, _| stay.contains(uid) || !changes.delete.contains(uid));
        let left = changes.delete.iter().filter(|uid| account.maildrop.messages.contains_key(uid)).count();
        Settled::Partly { left, fault }
    }

    async fn leave(self) {
        self.server.state().deeds.push(Deed::Leave);
    }
}

impl Maildrop {
    fn see(&mut self, uids: &[Uid]) {
        for uid in uids {
            if let Some(mail) = self.messages.get_mut(uid) {
                mail.seen = true;
            }
        }
    }
}

fn gone() -> Fault {
    Fault::new(Verdict::Changed, "the mailbox is not the one that was listed")
}
