//! The judge of a run: what was delivered, shown, deleted and promised, against what is left. It knows nothing of popgate and
//! of IMAP, only what a mailbox owes to its user, and takes every doubt for the gateway: a deletion that was asked for and
//! not confirmed may have happened or not, until its session is over. The idea is Jepsen's: operations that are done, failed,
//! or unknown.
//!
//! Events are told in the order in which they happened; messages have ids of the teller's choice, unique over all users.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::chat::beginning;

/// All that happened, in order.
#[derive(Default)]
pub(crate) struct History {
    /// What is flagged `\Deleted` need not be listed.
    hides: bool,
    /// Counts events: the time.
    now: u64,
    messages: BTreeMap<u64, Delivery>,
    /// Unique ids by user: the message that each stands for.
    names: BTreeMap<(String, String), u64>,
    sessions: Vec<Session>,
    findings: Vec<Finding>,
}

struct Delivery {
    user: String,
    /// Its octets as RETR shows them, dots stuffed, without the final one.
    shown: Vec<u8>,
    at: u64,
    /// When another actor began to remove it.
    removed: Option<u64>,
    /// When QUITs that may delete it were sent, and in which sessions.
    risked: BTreeMap<usize, u64>,
    /// It is flagged `\Deleted` by somebody who may, so that it goes when another actor purges the mailbox.
    doomed: bool,
    /// It may be flagged `\Seen`: another actor has done it, or it was retrieved.
    seen: bool,
    /// How many octets it has, and how many the server says that it has.
    sizes: Option<(u64, u64)>,
    /// When a QUIT that deletes it was answered `+OK`.
    confirmed: Option<u64>,
}

struct Session {
    user: String,
    began: u64,
    /// Messages whose DELE was answered `+OK`, or may have been carried out though the answer was lost.
    deleted: BTreeSet<u64>,
    quit: bool,
}

/// How a QUIT in TRANSACTION was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quit {
    Done,
    /// With `-ERR`: some may be gone.
    Refused,
    /// With `-ERR` and the promise that nothing was deleted; or it was not said to its end, or not read.
    Nothing,
    Unanswered,
}

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// Delivered, deleted by nobody who may, and not there.
    Lost,
    /// Confirmed as deleted, and still or again there.
    Zombie,
    /// There or listed, and never delivered; or there twice.
    Phantom,
    /// Shown to the final dot with other octets than its own.
    Truncated,
    /// Shown to one user with the octets of another's message.
    Foreign,
    /// One unique id for two messages.
    UidlConflict,
    /// There all the time, and not in a listing.
    Unlisted,
    /// Said to be gone by nobody's doing.
    FalselyGone,
    /// Flagged `\Deleted` or `\Seen` by nobody who may.
    Flagged,
    /// Said to have another size than it has, or the maildrop another number of messages.
    Misstated,
    /// Said to be the password's fault.
    FalselyDenied,
    /// A wrong password was taken for the right one.
    LetIn,
    /// A client that comes to no end although nothing is wrong any more.
    Stuck,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

/// One POP3 session in the history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SessionId(usize);

impl History {
    /// `hides`: what is flagged `\Deleted` need not be listed.
    pub(crate) fn new(hides: bool) -> Self {
        Self { hides, ..Self::default() }
    }

    /// A message arrives; `shown` is what RETR must make of it.
    pub(crate) fn delivered(&mut self, id: u64, user: &str, shown: Vec<u8>) {
        let at = self.tick();
        let delivery = Delivery {
            user: user.into(),
            shown,
            at,
            removed: None,
            risked: BTreeMap::new(),
            doomed: false,
            seen: false,
            sizes: None,
            confirmed: None,
        };
        let before = self.messages.insert(id, delivery);
        assert!(before.is_none(), "message {id} is delivered twice: the ids of a history are unique");
    }

    /// A message has this unique id from now on.
    pub(crate) fn named(&mut self, id: u64, unique_id: &str) {
        let user = self.messages[&id].user.clone();
        let before = self.names.insert((user.clone(), unique_id.into()), id);
        if before.is_some_and(|before| before != id) {
            self.find(Kind::UidlConflict, format!("{unique_id} of {user} is {id} and was {before:?}"));
        }
    }

    /// The message that a user's unique id stands for.
    pub(crate) fn which(&self, user: &str, unique_id: &str) -> Option<u64> {
        self.names.get(&(user.to_owned(), unique_id.to_owned())).copied()
    }

    /// So many octets a message has, and so many the server says that it has.
    pub(crate) fn sized(&mut self, id: u64, octets: u64, reported: u64) {
        self.messages.get_mut(&id).unwrap().sizes = Some((octets, reported));
    }

    /// Another actor removes a message, or has begun to.
    pub(crate) fn removed(&mut self, id: u64) {
        let at = self.tick();
        self.messages.get_mut(&id).unwrap().removed.get_or_insert(at);
    }

    /// Another actor has flagged a message `\Deleted`.
    pub(crate) fn doomed(&mut self, id: u64) {
        self.messages.get_mut(&id).unwrap().doomed = true;
    }

    /// Another actor removes a message because it is flagged `\Deleted`, whoever has done that.
    pub(crate) fn purged(&mut self, id: u64) {
        self.flagged(id, "\\Deleted");
        self.removed(id);
    }

    /// A message may be flagged `\Seen` from now on.
    pub(crate) fn seen(&mut self, id: u64) {
        if let Some(message) = self.messages.get_mut(&id) {
            message.seen = true;
        }
    }

    /// A message is found to have this flag.
    pub(crate) fn flagged(&mut self, id: u64, flag: &str) {
        let Some(message) = self.messages.get(&id) else { return };
        let right = match flag {
            "\\Deleted" => message.doomed || !message.risked.is_empty(),
            _ => message.seen,
        };
        if !right {
            self.find(Kind::Flagged, format!("{id} of {} is flagged {flag} by nobody who may", message.user));
        }
    }

    /// A client is about to log in.
    pub(crate) fn began(&mut self, user: &str) -> SessionId {
        let began = self.tick();
        self.sessions.push(Session { user: user.into(), began, deleted: BTreeSet::new(), quit: false });
        SessionId(self.sessions.len() - 1)
    }

    /// UIDL was answered to its final dot. The ids of the messages in the order of their numbers; 0 is none.
    pub(crate) fn listed(&mut self, session: SessionId, unique_ids: &[&str]) -> Vec<u64> {
        let Session { user, began, .. } = &self.sessions[session.0];
        let (user, began) = (user.clone(), *began);
        let mut ids = Vec::new();
        let mut found = Vec::new();
        for (index, unique_id) in unique_ids.iter().enumerate() {
            let Some(id) = self.which(&user, unique_id) else {
                found.push((Kind::Phantom, format!("{unique_id} in a listing of {user}'s is no message")));
                ids.push(0);
                continue;
            };
            if unique_ids[..index].contains(unique_id) {
                found.push((Kind::UidlConflict, format!("{unique_id} stands twice in a listing of {user}'s")));
            }
            if self.messages[&id].confirmed.is_some_and(|confirmed| confirmed < began) {
                found.push((Kind::Zombie, format!("{id} of {user} is listed after it was deleted")));
            }
            ids.push(id);
        }
        for (id, message) in self.messages.iter().filter(|(_, message)| message.user == user && message.at < began) {
            let hidden = self.hides && message.doomed;
            let may_be_gone = message.removed.is_some() || !message.risked.is_empty() || hidden;
            if !may_be_gone && !ids.contains(id) {
                found.push((Kind::Unlisted, format!("{id} of {user} is there and not in a listing")));
            }
        }
        found.into_iter().for_each(|(kind, what)| self.find(kind, what));
        ids
    }

    /// … where nothing else happens, and these messages are there.
    pub(crate) fn compared(&mut self, session: SessionId, listed: &[u64], there: &[u64]) {
        let user = self.sessions[session.0].user.clone();
        for id in there.iter().filter(|id| !listed.contains(id)) {
            self.find(Kind::Unlisted, format!("{id} of {user} is there at the end and not in a listing"));
        }
        for id in listed.iter().filter(|id| !there.contains(id)) {
            self.find(Kind::Phantom, format!("{id} of {user} is listed at the end and not there"));
        }
    }

    /// LIST was answered to its final dot, where UIDL names these messages.
    pub(crate) fn measured(&mut self, session: SessionId, ids: &[u64], sizes: &[u64]) {
        let reported: Option<Vec<u64>> = ids.iter().map(|id| self.reported(*id)).collect();
        if reported.is_some_and(|reported| reported != sizes) {
            let user = &self.sessions[session.0].user;
            self.find(Kind::Misstated, format!("the messages {ids:?} of {user} are said to have {sizes:?} octets"));
        }
    }

    /// STAT was answered with so many messages and octets, where UIDL names these messages.
    pub(crate) fn summed(&mut self, session: SessionId, ids: &[u64], count: u64, octets: u64) {
        let reported: Option<u64> = ids.iter().map(|id| self.reported(*id)).sum();
        if reported.is_some_and(|reported| (ids.len() as u64, reported) != (count, octets)) {
            let user = &self.sessions[session.0].user;
            self.find(Kind::Misstated, format!("{ids:?} of {user} are said to be {count} of {octets} octets"));
        }
    }

    /// RETR announced so many octets, and was answered to its final dot.
    pub(crate) fn announced(&mut self, session: SessionId, id: u64, octets: u64) {
        let sizes = self.messages.get(&id).and_then(|message| message.sizes);
        if sizes.is_some_and(|(right, _)| right != octets) {
            let user = &self.sessions[session.0].user;
            self.find(Kind::Misstated, format!("{id} of {user} is announced with {octets} octets"));
        }
    }

    /// RETR was answered to its final dot.
    pub(crate) fn fetched(&mut self, session: SessionId, id: u64, octets: &[u8]) {
        self.shown(session, id, octets, |shown| shown);
    }

    /// TOP with so many lines was answered to its final dot.
    pub(crate) fn peeked(&mut self, session: SessionId, id: u64, lines: usize, octets: &[u8]) {
        self.shown(session, id, octets, |shown| beginning(shown, lines));
    }

    /// These octets were shown as what `part` makes of a message.
    fn shown(&mut self, session: SessionId, id: u64, octets: &[u8], part: impl Fn(&[u8]) -> &[u8]) {
        let user = &self.sessions[session.0].user;
        let message = self.messages.get(&id).filter(|message| message.user == *user);
        if message.is_some_and(|message| part(&message.shown) == octets) {
            return;
        }
        let others = self.messages.values().find(|other| other.user != *user && shares(&other.shown, octets));
        let (kind, what) = match others {
            Some(other) => (Kind::Foreign, format!("{user} was shown octets of a message of {}", other.user)),
            None => (Kind::Truncated, format!("{id} of {user} was shown with {} octets, not its own", octets.len())),
        };
        self.find(kind, what);
    }

    /// A client with the right password was told that it is wrong.
    pub(crate) fn accused(&mut self, session: SessionId, reply: &str) {
        self.find(Kind::FalselyDenied, format!("{} was told: {reply}", self.sessions[session.0].user));
    }

    /// A client with a wrong password was not refused.
    pub(crate) fn let_in(&mut self, session: SessionId) {
        self.find(Kind::LetIn, format!("somebody who is not {}", self.sessions[session.0].user));
    }

    /// A client was told that a message has been removed by another.
    pub(crate) fn told_gone(&mut self, session: SessionId, id: u64) {
        let message = self.messages.get(&id);
        if message.is_some_and(|message| message.removed.is_none() && message.risked.is_empty()) {
            let user = &self.sessions[session.0].user;
            self.find(Kind::FalselyGone, format!("{user} was told that {id} is gone"));
        }
    }

    /// DELE was answered `+OK`, or not at all.
    pub(crate) fn deleted(&mut self, session: SessionId, id: u64) {
        self.sessions[session.0].deleted.insert(id);
    }

    /// DELE was refused after all: in a pipeline the answer comes behind QUIT.
    pub(crate) fn refused(&mut self, session: SessionId, id: u64) {
        self.sessions[session.0].deleted.remove(&id);
        if let Some(message) = self.messages.get_mut(&id) {
            message.risked.remove(&session.0);
        }
    }

    /// RSET was answered `+OK`.
    pub(crate) fn reset(&mut self, session: SessionId) {
        self.sessions[session.0].deleted.clear();
    }

    /// QUIT is about to be sent: from now on what is deleted may go.
    pub(crate) fn quitting(&mut self, session: SessionId) {
        let now = self.tick();
        self.sessions[session.0].quit = true;
        for id in &self.sessions[session.0].deleted {
            if let Some(message) = self.messages.get_mut(id) {
                message.risked.insert(session.0, now);
            }
        }
    }

    /// … and this came of it.
    pub(crate) fn quit(&mut self, session: SessionId, answer: Quit) {
        let now = self.tick();
        assert!(self.sessions[session.0].quit, "an answer to no QUIT");
        for id in &self.sessions[session.0].deleted {
            let Some(message) = self.messages.get_mut(id) else { continue };
            match answer {
                Quit::Done => _ = message.confirmed.get_or_insert(now),
                Quit::Nothing => _ = message.risked.remove(&session.0),
                Quit::Refused | Quit::Unanswered => {}
            }
        }
    }

    /// A session is over, and so is all that it has asked of the server. What is there now, the flagged ones `\Deleted`, is
    /// not at risk from it any more: nothing is ever finished later.
    pub(crate) fn over(&mut self, session: SessionId, there: &[(u64, bool)]) {
        for (id, flagged) in there {
            let Some(message) = self.messages.get_mut(id) else { continue };
            let risked = message.risked.remove(&session.0).is_some();
            message.doomed |= risked && *flagged;
        }
    }

    /// A client has come to no end, or not to the one it should have come to.
    pub(crate) fn stuck(&mut self, who: &str) {
        self.find(Kind::Stuck, who.to_owned());
    }

    /// How many messages were confirmed as deleted, and how many may be without a confirmation.
    pub(crate) fn deletions(&self) -> (usize, usize) {
        let risked =
            self.messages.values().filter(|message| !message.risked.is_empty() || message.confirmed.is_some()).count();
        let confirmed = self.messages.values().filter(|message| message.confirmed.is_some()).count();
        (confirmed, risked - confirmed)
    }

    /// Everything that was wrong, now that these messages are left, by user. Users who are not named have none.
    pub(crate) fn check(mut self, left: &[(&str, Vec<u64>)]) -> Vec<Finding> {
        let mut there = BTreeSet::new();
        for (user, ids) in left {
            for id in ids {
                let delivered = self.messages.get(id).is_some_and(|message| message.user == *user);
                if !delivered || !there.insert(*id) {
                    self.find(Kind::Phantom, format!("{id} is in the mailbox of {user}"));
                }
            }
        }
        let mut found = Vec::new();
        for (id, message) in &self.messages {
            let user = &message.user;
            match there.contains(id) {
                true if message.confirmed.is_some() => {
                    found.push((Kind::Zombie, format!("{id} of {user} was deleted with +OK and is there")));
                }
                false if message.risked.is_empty() && message.removed.is_none() => {
                    found.push((Kind::Lost, format!("{id} of {user} is gone and nobody asked for it")));
                }
                _ => {}
            }
        }
        found.into_iter().for_each(|(kind, what)| self.find(kind, what));
        self.findings
    }

    /// How large the server says that a message is.
    fn reported(&self, id: u64) -> Option<u64> {
        self.messages.get(&id)?.sizes.map(|(_, reported)| reported)
    }

    fn find(&mut self, kind: Kind, what: String) {
        self.findings.push(Finding { kind, what });
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }
}

/// Whether a line of one message that no other is likely to have stands in the other.
fn shares(message: &[u8], shown: &[u8]) -> bool {
    let telling = message.split(|octet| *octet == b'\n').filter(|line| line.starts_with(b"X-Id: "));
    telling.into_iter().any(|line| shown.split(|octet| *octet == b'\n').any(|other| other == line))
        || !message.is_empty() && message == shown
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

#[cfg(test)]
mod tests;
