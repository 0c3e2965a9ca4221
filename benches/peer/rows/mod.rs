//! The rows of the table: each does one kind of work with one target, and notes how it went.

use std::time::{Duration, Instant};

use crate::{
    consumption,
    scene::{Place, Scene, Target},
    sheet::Sheet,
};

pub(crate) mod delete;
pub(crate) mod memory;
pub(crate) mod poll;
pub(crate) mod retr;
pub(crate) mod top;
pub(crate) mod verify;

/// A kind of work.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The mailbox that it is done in.
    pub(crate) mailbox: &'static str,
    pub(crate) run: fn(&Round<'_>, &mut Sheet),
}

/// All kinds, in the order in which they are run.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "large", mailbox: "large", run: retr::large },
    Row { name: "growth", mailbox: "large", run: memory::growth },
    Row { name: "many", mailbox: "many", run: retr::many },
    Row { name: "few-far", mailbox: "few", run: retr::far },
    Row { name: "poll-near", mailbox: "few", run: poll::near },
    Row { name: "poll-far", mailbox: "few", run: poll::far },
    Row { name: "huge-near", mailbox: "huge", run: poll::huge_near },
    Row { name: "huge-far", mailbox: "huge", run: poll::huge_far },
    Row { name: "delete-near", mailbox: "many", run: delete::near },
    Row { name: "delete-far", mailbox: "few", run: delete::far },
    Row { name: "top-large", mailbox: "large", run: top::large },
    Row { name: "top-near", mailbox: "many", run: top::near },
    Row { name: "top-far", mailbox: "few", run: top::far },
];

/// One time that a kind of work is done.
pub(crate) struct Round<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) target: &'a Target,
    /// How often it was done before.
    pub(crate) repetition: u32,
    /// Only whether it works is wanted.
    pub(crate) smoke: bool,
}

impl Round<'_> {
    /// IMAP itself, which has no commands of POP3.
    fn raw(&self) -> bool {
        self.target.name == "raw"
    }

    fn peer(&self) -> bool {
        self.target.name == "peer"
    }

    fn note(&self, sheet: &mut Sheet, key: &'static str, value: f64) {
        sheet.note(key, self.target.name, value);
    }
}

/// Larger mailboxes are not verified message by message.
pub(crate) const VERIFIED: usize = 10_000;

/// How long something took, and how much processor the gateway took for it; both in seconds.
struct Effort {
    seconds: f64,
    processor: Option<f64>,
}

fn effort<T>(place: Place, work: impl FnOnce() -> T) -> (T, Effort) {
    let processor = || place.gateway.map(consumption::processor_seconds);
    let before = processor();
    let begin = Instant::now();
    let done = work();
    let seconds = begin.elapsed().as_secs_f64();
    let processor = processor().zip(before).map(|(after, before)| after - before);
    (done, Effort { seconds, processor })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
