//! What all sessions of a process have come to since it began: numbers and no names. What one of them did is in its
//! summary.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::upstream::Verdict;

/// The numbers, as they grow.
#[derive(Default)]
pub struct Counters {
    log_ins: [AtomicU64; OUTCOMES.len()],
    beyond_limit: AtomicU64,
    retr: Handed,
    top: Handed,
    removed: AtomicU64,
    unconfirmed: AtomicU64,
}

#[derive(Default)]
struct Handed {
    messages: AtomicU64,
    octets: AtomicU64,
}

/// The numbers at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Log-ins that were answered, by their outcome; `None`: the client is logged in.
    pub log_ins: [(Option<Verdict>, u64); OUTCOMES.len()],
    /// Those of them that were refused for the other sessions of their user.
    pub beyond_limit: u64,
    /// By RETR.
    pub retr: Tally,
    /// By TOP.
    pub top: Tally,
    /// Messages with which was done what the policy says, on the server's own word: removed, hidden or left alone.
    pub removed: u64,
    /// Messages that were to be removed and may still be there.
    pub unconfirmed: u64,
}

/// Messages that were given to clients, and the octets of them without the dots of POP3.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// How many of them, of each at least its first part.
    pub count: u64,
    /// How many octets.
    pub octets: u64,
}

impl Tally {
    pub(super) const fn add(&mut self, octets: u64) {
        self.count += 1;
        self.octets = self.octets.saturating_add(octets);
    }
}

impl Counters {
    pub(super) fn log_in(&self, outcome: Option<Verdict>) {
        for (_, count) in OUTCOMES.iter().zip(&self.log_ins).filter(|(other, _)| **other == outcome) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn beyond_limit(&self) {
        self.beyond_limit.fetch_add(1, Relaxed);
    }

    /// A message was given to a client, all of it or its top.
    pub(super) fn handed_out(&self, whole: bool, octets: u64) {
        let handed = if whole { &self.retr } else { &self.top };
        handed.messages.fetch_add(1, Relaxed);
        handed.octets.fetch_add(octets, Relaxed);
    }

    /// Messages were to be removed, and so many may be left.
    pub(super) fn settled(&self, messages: usize, left: usize) {
        self.removed.fetch_add(messages.saturating_sub(left) as u64, Relaxed);
        self.unconfirmed.fetch_add(left as u64, Relaxed);
    }

    /// How things stand.
    pub fn counts(&self) -> Counts {
        let tally =
            |handed: &Handed| Tally { count: handed.messages.load(Relaxed), octets: handed.octets.load(Relaxed) };
        let mut log_ins = OUTCOMES.map(|outcome| (outcome, 0));
        for ((_, count), counted) in log_ins.iter_mut().zip(&self.log_ins) {
            *count = counted.load(Relaxed);
        }
        Counts {
            log_ins,
            beyond_limit: self.beyond_limit.load(Relaxed),
            retr: tally(&self.retr),
            top: tally(&self.top),
            removed: self.removed.load(Relaxed),
            unconfirmed: self.unconfirmed.load(Relaxed),
        }
    }
}

/// How log-ins end.
const OUTCOMES: [Option<Verdict>; 6] = [
    None,
    Some(Verdict::Denied),
    Some(Verdict::Busy),
    Some(Verdict::Passing),
    Some(Verdict::Lasting),
    Some(Verdict::Changed),
];
