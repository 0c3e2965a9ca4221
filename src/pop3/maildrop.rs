//! The numbered maildrop of one session: a snapshot that never changes, and marks on it (RFC 1939 §5). Numbers keep their
//! messages to the end; nothing is renumbered after DELE.

use std::sync::Arc;

use super::{
    command::Number,
    marks::Marks,
    reply::{Code, Reply},
};
use crate::mail::{Changes, Deletion, Message, Snapshot, Uid};

/// The snapshot and what this session has done with it. [`message`](Self::message) is the one door to a message.
pub(super) struct Maildrop {
    snapshot: Arc<Snapshot>,
    deleted: Marks,
    retrieved: Marks,
    /// Sent to the client incompletely or not at all, last time.
    failed: Marks,
    /// Known to have been removed by somebody else.
    ghosts: Marks,
    count: usize,
    octets: u64,
}

/// Why a number names no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Absent {
    #[error("no such message, only {count} messages in maildrop")]
    NoSuch { count: usize },
    #[error("message {0} already deleted")]
    Deleted(Number),
}

impl From<Absent> for Reply {
    fn from(absent: Absent) -> Self {
        Self::err(absent)
    }
}

impl Maildrop {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            deleted: Marks::default(),
            retrieved: Marks::default(),
            failed: Marks::default(),
            ghosts: Marks::default(),
            count: snapshot.len(),
            octets: snapshot.total(),
            snapshot,
        }
    }

    /// How many messages are not deleted.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// The sum of their sizes.
    pub(super) const fn octets(&self) -> u64 {
        self.octets
    }

    /// The message with this number, unless it is deleted.
    pub(super) fn message(&self, number: Number) -> Result<Message, Absent> {
        let message = self.snapshot.message(number.index()).ok_or_else(|| self.no_such())?;
        if self.deleted.contains(number.index()) { Err(Absent::Deleted(number)) } else { Ok(message) }
    }

    /// Why a number out of all bounds names no message.
    pub(super) fn no_such(&self) -> Absent {
        Absent::NoSuch { count: self.snapshot.len() }
    }

    /// All messages that are not deleted, with the index they have and keep.
    pub(super) fn listed(&self) -> Listed {
        Listed { snapshot: Arc::clone(&self.snapshot), deleted: self.deleted.clone(), next: 0 }
    }

    /// The snapshot itself.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Marks a message as deleted, if that can be kept to at the end and the client does have the message.
    pub(super) fn delete(&mut self, number: Number) -> Result<(), Reply> {
        let message = self.message(number)?;
        match self.snapshot.deletion() {
            Deletion::Allowed => {}
            Deletion::ReadOnly => return Err(Reply::coded(Code::SysPerm, "maildrop is read-only")),
            Deletion::Unsupported => {
                return Err(Reply::coded(Code::SysPerm, "this maildrop offers no safe way to delete messages"));
            }
        }
        // For clients that send DELE behind RETR without waiting.
        if self.failed.contains(number.index()) {
            let text = format_args!("message {number} was not delivered, not deleting");
            return Err(Reply::coded(Code::SysTemp, text));
        }
        self.deleted.insert(number.index());
        self.count -= 1;
        self.octets = self.octets.saturating_sub(message.octets);
        Ok(())
    }

    /// RSET: nothing is deleted, and nothing counts as retrieved.
    pub(super) fn restore(&mut self) {
        self.deleted.clear();
        self.retrieved.clear();
        self.count = self.snapshot.len();
        self.octets = self.snapshot.total();
    }

    /// The whole message was sent. `retrieved`: by RETR, so that it counts as read.
    pub(super) fn sent(&mut self, number: Number, retrieved: bool) {
        self.failed.remove(number.index());
        if retrieved {
            self.retrieved.insert(number.index());
        }
    }

    /// The message could not be sent.
    pub(super) fn failed(&mut self, number: Number) {
        self.failed.insert(number.index());
    }

    /// The message is not there any more. There is nothing to lose in deleting it.
    pub(super) fn gone(&mut self, number: Number) {
        self.failed.remove(number.index());
        self.ghosts.insert(number.index());
    }

    /// Whether the message is known to be gone.
    pub(super) fn is_ghost(&self, number: Number) -> bool {
        self.ghosts.contains(number.index())
    }

    /// The messages that were retrieved, ascending, deleted ones included.
    pub(super) fn retrieved(&self) -> Vec<Uid> {
        self.uids(self.retrieved.indices()).collect()
    }

    /// How many messages are marked as deleted.
    pub(super) fn marked(&self) -> usize {
        self.deleted.len()
    }

    /// What UPDATE has to do. The only place where changes come from.
    pub(super) fn changes(&self, seen: bool) -> Changes {
        let delete = self.deleted.indices().filter(|index| !self.ghosts.contains(*index));
        let kept = self.retrieved.indices().filter(|index| seen && !self.deleted.contains(*index));
        Changes { delete: self.uids(delete).collect(), seen: self.uids(kept).collect() }
    }

    fn uids(&self, indices: impl Iterator<Item = usize>) -> impl Iterator<Item = Uid> {
        indices.filter_map(|index| self.snapshot.uids().get(index).copied())
    }
}

/// The messages of a maildrop as they stood when it was asked, one after the other.
pub(super) struct Listed {
    snapshot: Arc<Snapshot>,
    deleted: Marks,
    next: usize,
}

impl Iterator for Listed {
    /// The number and the message.
    type Item = (usize, Message);

    fn next(&mut self) -> Option<Self::Item> {
        while self.deleted.contains(self.next) {
            self.next += 1;
        }
        let message = self.snapshot.message(self.next)?;
        self.next += 1;
        Some((self.next, message))
    }
}
