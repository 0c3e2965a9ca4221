//! The judge of a run: what was delivered, shown, deleted and promised, against what is left. It knows nothing of popgate and
//! of IMAP, only what a mailbox owes to its user, and takes every doubt for the gateway: a deletion that was asked for and
//! not confirmed may have happened or not. The idea is Jepsen's: operations that are done, failed, or unknown.
//!
//! Events are told in the order in which they happened; messages have ids of the teller's choice, unique over all users.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// All that happened, in order.
#[derive(Default)]
pub(crate) struct History {
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
    /// Another actor has flagged it so that it need not be listed.
    hidden: bool,
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
    /// With `-ERR` and the promise that nothing was deleted.
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
    /// Said to be the password's fault.
    FalselyDenied,
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
    /// A message arrives; `shown` is what RETR must make of it.
    pub(crate) fn delivered(&mut self, id: u64, user: &str, shown: Vec<u8>) {
        let at = self.tick();
        let delivery = Delivery {
            user: user.into(),
            shown,
            at,
            removed: None,
            risked: BTreeMap::new(),
            hidden: false,
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

    /// Another actor removes a message, or has begun to.
    pub(crate) fn removed(&mut self, id: u64) {
        let at = self.tick();
        self.messages.get_mut(&id).unwrap().removed.get_or_insert(at);
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
            let may_be_gone = message.removed.is_some() || !message.risked.is_empty() || message.hidden;
            if !may_be_gone && !ids.contains(id) {
                found.push((Kind::Unlisted, format!("{id} of {user} is there and not in a listing")));
            }
        }
        found.into_iter().for_each(|(kind, what)| self.find(kind, what));
        ids
    }

    /// RETR was answered to its final dot.
    pub(crate) fn fetched(&mut self, session: SessionId, id: u64, octets: &[u8]) {
        let user = &self.sessions[session.0].user;
        let message = self.messages.get(&id).filter(|message| message.user == *user);
        if message.is_some_and(|message| message.shown == octets) {
            return;
        }
        let others = self.messages.values().find(|other| other.user != *user && shares(&other.shown, octets));
        let (kind, what) = match others {
            Some(other) => (Kind::Foreign, format!("{user} was shown octets of a message of {}", other.user)),
            None => (Kind::Truncated, format!("{id} of {user} was shown with {} octets, not its own", octets.len())),
        };
        self.find(kind, what);
    }

    /// TOP was answered to its final dot: with the beginning of a message that ends with a line.
    pub(crate) fn peeked(&mut self, session: SessionId, id: u64, octets: &[u8]) {
        let user = &self.sessions[session.0].user;
        let begins = |message: &Delivery| message.user == *user && message.shown.starts_with(octets);
        if !(self.messages.get(&id).is_some_and(begins) && octets.ends_with(b"\r\n")) {
            self.fetched(session, id, octets);
        }
    }

    /// A client with the right password was told that it is wrong.
    pub(crate) fn accused(&mut self, session: SessionId, reply: &str) {
        self.find(Kind::FalselyDenied, format!("{} was told: {reply}", self.sessions[session.0].user));
    }

    /// Another actor has flagged a message `\Deleted` where such messages are not shown.
    pub(crate) fn hidden(&mut self, id: u64) {
        self.messages.get_mut(&id).unwrap().hidden = true;
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
mod tests {
    use super::*;

    /// Tim has messages 1 to 3, Ann has 4. Tim has logged in.
    fn history() -> (History, SessionId) {
        let mut history = History::default();
        for (id, user) in [(1, "tim"), (2, "tim"), (3, "tim"), (4, "ann")] {
            history.delivered(id, user, shown(id));
            history.named(id, &format!("u{id}"));
        }
        let tim = history.began("tim");
        (history, tim)
    }

    fn shown(id: u64) -> Vec<u8> {
        format!("X-Id: {id}\r\n\r\nBody\r\n").into_bytes()
    }

    fn all() -> Vec<(&'static str, Vec<u64>)> {
        vec![("tim", vec![1, 2, 3]), ("ann", vec![4])]
    }

    /// The kinds of what is found when that happens and this is left.
    fn found(happens: impl FnOnce(&mut History, SessionId), tims: &[u64]) -> Vec<Kind> {
        let (mut history, tim) = history();
        happens(&mut history, tim);
        history.check(&[("tim", tims.to_vec()), ("ann", vec![4])]).into_iter().map(|finding| finding.kind).collect()
    }

    fn quit(history: &mut History, session: SessionId, ids: &[u64], answer: Quit) {
        ids.iter().for_each(|id| history.deleted(session, *id));
        history.quitting(session);
        history.quit(session, answer);
    }

    #[test]
    fn a_good_session_is_good() {
        let happens = |history: &mut History, tim: SessionId| {
            assert_eq!(history.listed(tim, &["u1", "u2", "u3"]), [1, 2, 3]);
            history.fetched(tim, 1, &shown(1));
            quit(history, tim, &[1], Quit::Done);
            let again = history.began("tim");
            history.listed(again, &["u2", "u3"]);
            assert_eq!(history.deletions(), (1, 0));
        };
        assert_eq!(found(happens, &[2, 3]), []);
    }

    #[test]
    fn lost() {
        assert_eq!(found(|_, _| {}, &[1, 3]), [Kind::Lost]);
        // DELE alone, DELE and RSET, and QUIT alone remove nothing (RFC 1939 §6).
        assert_eq!(found(|history, tim| history.deleted(tim, 2), &[1, 3]), [Kind::Lost]);
        let reset = |history: &mut History, tim| {
            history.deleted(tim, 2);
            history.reset(tim);
            quit(history, tim, &[1], Quit::Done);
        };
        assert_eq!(found(reset, &[3]), [Kind::Lost]);
        assert_eq!(found(|history, tim| quit(history, tim, &[], Quit::Done), &[1, 3]), [Kind::Lost]);
        // What is deleted once QUIT has been sent is too late.
        let late = |history: &mut History, tim| {
            quit(history, tim, &[], Quit::Done);
            history.deleted(tim, 2);
        };
        assert_eq!(found(late, &[1, 3]), [Kind::Lost]);
        assert_eq!(found(|history, _| history.removed(2), &[1, 3]), []);
        // A promise, and a DELE that was refused behind the QUIT.
        assert_eq!(found(|history, tim| quit(history, tim, &[2], Quit::Nothing), &[1, 3]), [Kind::Lost]);
        let refused = |history: &mut History, tim| {
            history.deleted(tim, 2);
            history.quitting(tim);
            history.refused(tim, 2);
            history.quit(tim, Quit::Done);
        };
        assert_eq!(found(refused, &[1, 3]), [Kind::Lost]);
        for answer in [Quit::Refused, Quit::Unanswered] {
            for left in [&[1, 2, 3][..], &[1, 3]] {
                assert_eq!(found(|history, tim| quit(history, tim, &[2], answer), left), [], "{answer:?}");
            }
        }
    }

    #[test]
    fn zombie() {
        assert_eq!(found(|history, tim| quit(history, tim, &[2], Quit::Done), &[1, 2, 3]), [Kind::Zombie]);
        let again = |history: &mut History, tim| {
            let meanwhile = history.began("tim");
            quit(history, tim, &[2], Quit::Done);
            history.listed(meanwhile, &["u1", "u2", "u3"]);
            let later = history.began("tim");
            history.listed(later, &["u1", "u2", "u3"]);
        };
        assert_eq!(found(again, &[1, 3]), [Kind::Zombie]);
    }

    #[test]
    fn phantom() {
        assert_eq!(found(|_, _| {}, &[1, 2, 3, 5]), [Kind::Phantom]);
        assert_eq!(found(|_, _| {}, &[1, 2, 3, 3]), [Kind::Phantom]);
        assert_eq!(found(|_, _| {}, &[1, 2, 3, 4])[0], Kind::Phantom);
        let listed = |history: &mut History, tim| {
            history.listed(tim, &["u1", "u2", "u3", "u4"]);
        };
        assert_eq!(found(listed, &[1, 2, 3]), [Kind::Phantom]);
    }

    #[test]
    fn truncated() {
        for octets in [&shown(1)[..10], b"", &shown(2), &[shown(1), shown(1)].concat()] {
            assert_eq!(found(|history, tim| history.fetched(tim, 1, octets), &[1, 2, 3]), [Kind::Truncated]);
        }
        for (octets, kinds) in
            [(&shown(1)[..9], &[][..]), (&shown(1)[..10], &[Kind::Truncated]), (&shown(2), &[Kind::Truncated])]
        {
            assert_eq!(found(|history, tim| history.peeked(tim, 1, octets), &[1, 2, 3]), kinds);
        }
    }

    #[test]
    fn foreign() {
        assert_eq!(found(|history, tim| history.fetched(tim, 1, &shown(4)), &[1, 2, 3]), [Kind::Foreign]);
        let mixed = [&shown(1)[..], &shown(4)[..9]].concat();
        assert_eq!(found(|history, tim| history.fetched(tim, 1, &mixed), &[1, 2, 3]), [Kind::Foreign]);
        assert_eq!(found(|history, tim| history.fetched(tim, 4, &shown(4)), &[1, 2, 3])[0], Kind::Foreign);
    }

    #[test]
    fn uidl_conflict() {
        assert_eq!(found(|history, _| history.named(1, "u2"), &[1, 2, 3]), [Kind::UidlConflict]);
        let listed = |history: &mut History, tim| {
            history.listed(tim, &["u1", "u2", "u2", "u3"]);
        };
        assert_eq!(found(listed, &[1, 2, 3]), [Kind::UidlConflict]);
        // Another user may have the same.
        assert_eq!(found(|history, _| history.named(4, "u2"), &[1, 2, 3]), []);
    }

    #[test]
    fn unlisted() {
        let short = |history: &mut History, tim| {
            history.listed(tim, &["u1", "u3"]);
        };
        assert_eq!(found(short, &[1, 2, 3]), [Kind::Unlisted]);
        let new = |history: &mut History, tim| {
            history.removed(1);
            history.delivered(7, "tim", shown(7));
            history.listed(tim, &["u2", "u3"]);
        };
        assert_eq!(found(new, &[2, 3, 7]), []);
        let hidden = |history: &mut History, tim| {
            history.hidden(1);
            history.listed(tim, &["u2", "u3"]);
        };
        assert_eq!(found(hidden, &[1, 2, 3]), []);
        assert_eq!(found(hidden, &[2, 3]), [Kind::Lost]);
    }

    #[test]
    fn falsely_gone() {
        assert_eq!(found(|history, tim| history.told_gone(tim, 2), &[1, 2, 3]), [Kind::FalselyGone]);
        let gone = |history: &mut History, tim| {
            history.removed(2);
            history.told_gone(tim, 2);
        };
        assert_eq!(found(gone, &[1, 3]), []);
    }

    #[test]
    fn falsely_denied() {
        assert_eq!(found(|history, tim| history.accused(tim, "-ERR [AUTH]"), &[1, 2, 3]), [Kind::FalselyDenied]);
    }

    #[test]
    fn stuck() {
        assert_eq!(found(|history, _| history.stuck("tim's last session"), &[1, 2, 3]), [Kind::Stuck]);
        let (history, _) = history();
        assert_eq!(history.check(&all()), []);
    }
}
