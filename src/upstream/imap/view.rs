//! The selected mailbox as its server describes it unasked, and what follows from that.

use async_imap::imap_proto::ResponseCode;

use super::fault::Outcome;
use crate::mail::Uid;

/// The selected mailbox, as the server's untagged responses describe it.
#[derive(Debug, Default)]
pub(super) struct View {
    /// SELECT has succeeded.
    pub(super) selected: bool,
    /// How many messages there are now: the latest EXISTS, less what was expunged since.
    pub(super) exists: Option<u32>,
    /// How many messages were expunged since the mailbox was selected.
    pub(super) expunged: u32,
    /// Their numbers, each of its time; as many as are worth keeping, so fewer where there were more.
    expunged_numbers: Vec<u32>,
    /// EXISTS has gone back without an EXPUNGE, which it must not (RFC 3501 §7.3.1), or messages went by their UIDs: how many
    /// there are nobody knows.
    pub(super) shrunk: bool,
    /// UIDVALIDITY as the wire has it; 0 is no valid one.
    pub(super) uid_validity: Option<u32>,
    /// UIDNEXT.
    pub(super) uid_next: Option<u32>,
    /// PERMANENTFLAGS, if the server lists them.
    pub(super) permanent_flags: Option<Vec<String>>,
    /// The server took back the right to write.
    pub(super) read_only: bool,
    /// The UIDs do not outlive the session (RFC 4315).
    pub(super) uid_not_sticky: bool,
    /// The mailbox is not what it was when it was listed.
    pub(super) changed: Option<&'static str>,
    /// The lowest UID that a limited command dealt with (RFC 9738).
    pub(super) message_limit: Option<u32>,
}

impl View {
    /// Takes in a response code.
    pub(super) fn note(&mut self, code: Option<&ResponseCode<'_>>, outcome: &Outcome) {
        match code {
            Some(ResponseCode::UidValidity(validity)) => {
                if self.uid_validity.is_some_and(|known| known != *validity) {
                    self.changed = Some("its UIDVALIDITY is another");
                }
                self.uid_validity = Some(*validity);
            }
            Some(ResponseCode::UidNext(next)) => self.uid_next = Some(*next),
            Some(ResponseCode::PermanentFlags(flags)) => {
                self.permanent_flags = Some(flags.iter().map(ToString::to_string).collect());
            }
            Some(ResponseCode::ReadOnly) => self.read_only = true,
            Some(ResponseCode::UidNotSticky) => self.uid_not_sticky = true,
            // Before a mailbox is selected, what has been said so far was of another (RFC 7162 §3.2.11).
            None if outcome.code == "CLOSED" && !self.selected => *self = Self::default(),
            None if outcome.code == "CLOSED" => self.changed = Some("it was closed"),
            _ => self.message_limit = outcome.message_limit().or(self.message_limit),
        }
    }

    /// There are so many messages now.
    pub(super) fn exist(&mut self, exists: u32) {
        self.shrunk |= self.exists.is_some_and(|known| exists < known);
        self.exists = Some(exists);
    }

    /// The message with this number is gone (RFC 3501 §7.4.1).
    pub(super) fn expunge(&mut self, number: u32) {
        self.exists = self.exists.map(|exists| exists.saturating_sub(1));
        self.expunged = self.expunged.saturating_add(1);
        if self.expunged_numbers.len() < NUMBERS {
            self.expunged_numbers.push(number);
        }
    }

    /// For a mailbox opened by EXAMINE: what the server says of it holds for this opening, not for one by SELECT. It calls
    /// it read-only, and Dovecot lists no permanent flags; whatever SELECT might allow is taken to be allowed.
    pub(super) fn suppose_writable(&mut self) {
        self.read_only = false;
        // Without any list the rule of SELECT holds: all system flags, no keywords.
        if self.permanent_flags.as_ref().is_some_and(Vec::is_empty) {
            self.permanent_flags = Some(["\\Deleted", "\\Seen", "\\*"].map(str::to_owned).into());
        }
    }

    /// Whether the server has said of each of these messages that it is expunged (RFC 3501 §7.4.1). `all` messages, in this
    /// order, had the numbers from 1 on when `heard` had been expunged. `false` is no statement.
    pub(super) fn are_expunged(&self, uids: &[Uid], all: &[Uid], heard: u32) -> bool {
        let is_logged = self.expunged as usize == self.expunged_numbers.len() && !self.shrunk;
        let since = self.expunged_numbers.get(heard as usize..).unwrap_or_default();
        if !is_logged || since.len().saturating_mul(all.len()) > WORTH_COUNTING {
            return false;
        }
        let mut left = all.to_vec();
        let mut gone = Vec::with_capacity(since.len());
        for number in since {
            let at = (*number as usize).wrapping_sub(1);
            // What has a higher number came after the listing.
            if at < left.len() {
                gone.push(left.remove(at));
            }
        }
        gone.sort_unstable();
        uids.iter().all(|uid| gone.binary_search(uid).is_ok())
    }

    /// Whether the mailbox remembers this flag; without a list of such flags all system flags are remembered
    /// (RFC 3501 §7.1).
    pub(super) fn keeps(&self, flag: &str) -> bool {
        match &self.permanent_flags {
            None => flag.starts_with('\\'),
            Some(flags) => {
                flags.iter().any(|known| known.eq_ignore_ascii_case(flag) || known == "\\*" && !flag.starts_with('\\'))
            }
        }
    }
}

/// More removals than this are counted only.
const NUMBERS: usize = 10_000;

/// Messages times removals: beyond this, asking is quicker than counting.
const WORTH_COUNTING: usize = 50_000_000;
