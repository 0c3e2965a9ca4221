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
    /// What is remembered from session to session matters here.
    pub(crate) cold: bool,
    /// Only in the full form, or where it is asked for by name.
    pub(crate) long: bool,
    pub(crate) run: fn(&Round<'_>, &mut Sheet),
}

/// All kinds, in the order in which they are run.
pub(crate) const ROWS: &[Row] = &[
    // First, and once: later it would have room from what was done before.
    Row { long: true, ..row("idle", "few", memory::idle) },
    row("large", "large", retr::large),
    row("growth", "large", memory::growth),
    row("many", "many", retr::many),
    row("few-far/alternating", "few", retr::far_alternating),
    row("few-far/pipelined", "few", retr::far_pipelined),
    Row { long: true, ..row("some", "some", retr::some) },
    Row { long: true, ..row("several", "several", retr::several) },
    Row { cold: true, ..row("poll-near", "few", poll::near) },
    Row { cold: true, ..row("poll-far", "few", poll::far) },
    Row { cold: true, ..row("poll-far-tls", "few", poll::far_secured) },
    Row { cold: true, ..row("huge-near", "huge", poll::huge_near) },
    Row { cold: true, ..row("huge-far", "huge", poll::huge_far) },
    row("delete-near", "many", delete::near),
    row("delete-far", "few", delete::far),
    row("top-large", "large", top::large),
    row("top-near", "many", top::near),
    row("top-far", "few", top::far),
];

const fn row(name: &'static str, mailbox: &'static str, run: fn(&Round<'_>, &mut Sheet)) -> Row {
    Row { name, mailbox, cold: false, long: false, run }
}

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
