//! Every session of `cuts/recordings.rs`, cut: on each line, in each direction, behind each octet, or within each record of
//! TLS, by each kind of fault; and a second session on good lines. Once with nothing from before and without reading ahead,
//! once by a popgate that remembers the listing of a session before, and once on the line that this one has left. Only this
//! shows that there is no octet of any dialogue at which a fault loses a message, shows half of one, or makes popgate say what
//! is not so.
//!
//! `cargo test` does a share of it that leaves out no fault in any direction of any line of any session, whatever came before
//! and in whatever order the server answers. All of it, and one alone:
//!
//! ```text
//! CUTS=all cargo test --profile sim --locked --test main cuts -- --nocapture
//! CUT='like Gmail, Each, upstream 0 to popgate, octet 123, Reset' cargo test --test main cuts -- --nocapture
//! ```
//!
//! `CUT='like Gmail, Each'` does all whose names begin so.

#![allow(clippy::print_stdout, reason = "what was run is a test's result, too")]

mod clear;
mod judge;
mod owed;
mod recordings;
mod second;
mod session;
mod share;

use std::{
    collections::HashSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use memchr::memmem;

use self::{
    judge::lies,
    recordings::{Recording, Tls, over_tls, recordings},
    session::{Cut, Leg, Past, Played, play},
    share::{Kind, kinds, share},
};
use crate::support::{
    faulty::{Fault, Place, Towards},
    overheard::Overheard,
    script::{Order, SECRETS},
};

/// A session as it goes when nothing happens.
struct Recorded {
    recording: Arc<Recording>,
    past: Past,
    /// For each order of replies that makes a difference.
    played: Vec<(Order, Played)>,
}

/// One fault, and the session that it happens to.
#[derive(Clone, Copy)]
struct Case<'a> {
    recorded: &'a Recorded,
    /// An index into `played`.
    order: usize,
    cut: Cut,
}

const PASTS: [Past; 3] = [Past::Nothing, Past::Listing, Past::Line];

const ORDERS: [Order; 4] = [Order::Each, Order::Fours, Order::End, Order::Reversed];

/// The faults, and whether the server is gone after them.
const FAULTS: [(Fault, bool); 9] = [
    (Fault::End, false),
    (Fault::End, true),
    (Fault::Reset, false),
    (Fault::Stall, false),
    (Fault::Pause(Duration::from_secs(5)), false),
    (Fault::Pause(Duration::from_secs(70)), false),
    (Fault::Garbage, false),
    (Fault::Twice, false),
    (Fault::Doubled, false),
];

#[test]
fn cut_at_every_octet() {
    cut("cut at every octet", recordings(), SHARE);
}

/// Both lines are TLS, or one of them becomes so. Every record is cut: at its ends, in its header and within; and behind every
/// octet what is said in the clear. Nothing that is changed in a record may pass for something that was said.
#[test]
fn cut_at_every_tls_record() {
    cut("cut at every TLS record", over_tls(), TLS_SHARE);
}

/// Cuts these sessions as often as is wanted, `share` times each with each past if nobody says how often.
fn cut(what: &str, recordings: Vec<Recording>, share: usize) {
    let sessions = recordings.len();
    let recorded: Vec<Recorded> = recordings.into_iter().map(Arc::new).flat_map(record).collect();
    let kinds: Vec<Vec<Kind<'_>>> = recorded.iter().map(kinds).collect();
    let all = || kinds.iter().flatten().flat_map(Kind::cases);
    let cases: Vec<Case<'_>> = match (std::env::var("CUT"), std::env::var("CUTS").as_deref()) {
        (Ok(name), _) => all().filter(|case| case.is_named(&name)).collect(),
        (Err(_), Ok("all")) => all().collect(),
        (Err(_), number) => {
            let number =
                number.map_or(share, |number| number.parse().expect("CUTS is `all` or how many of each session"));
            let cases: Vec<Case<'_>> = kinds.iter().flat_map(|kinds| self::share(kinds, number)).collect();
            let drawn: HashSet<String> = cases.iter().map(Case::kind).collect();
            let left_out = |kind: &&Kind<'_>| !kind.cases().take(1).all(|case| drawn.contains(&case.kind()));
            assert_eq!(kinds.iter().flatten().filter(left_out).count(), 0, "some kinds of cuts are left out");
            cases
        }
    };
    let number = kinds.iter().flatten().map(Kind::count).sum();
    judge(what, (sessions, kinds.iter().map(Vec::len).sum()), number, &cases);
}

/// Does the cuts, on all cores; panics if any of them shows something wrong.
fn judge(what: &str, (sessions, kinds): (usize, usize), all: usize, cases: &[Case<'_>]) {
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let mut faults = HashSet::new();
    let firsts: HashSet<usize> =
        (0..).zip(cases).filter(|(_, case)| faults.insert(case.fault())).map(|(at, _)| at).collect();
    let work = || {
        loop {
            let done = next.fetch_add(1, Relaxed);
            let Some(case) = cases.get(done) else { break };
            if done > 0 && done.is_multiple_of(PROGRESS) {
                let (seconds, failed) = (begun.elapsed().as_secs(), found.lock().unwrap().len());
                println!("{what}: {done} of {} cuts, {seconds} s, {failed} failed", cases.len());
            }
            let lies = || match done.is_multiple_of(OVERHEARD) || firsts.contains(&done) {
                true => case.lies_and_secrets(),
                false => case.lies(),
            };
            let lies = catch_unwind(AssertUnwindSafe(lies)).unwrap_or_else(|_| vec!["a panic".into()]);
            if !lies.is_empty() {
                let again = format!("CUT='{case}' cargo test --test main cuts -- --nocapture");
                found.lock().unwrap().push(format!("{lies:#?}\n  {again}"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let found = found.into_inner().unwrap();
    let (run, seconds) = (cases.len(), begun.elapsed().as_secs_f64());
    println!(
        "{what}: {sessions} sessions, {kinds} kinds of cuts, {run} cuts run of {all}, {seconds:.0} s, {} failed",
        found.len()
    );
    assert!(found.is_empty(), "{}", found.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n"));
}

/// Plays a session with nothing happening to it, in every order of replies that makes a difference; by a popgate that keeps
/// nothing for the next session, and by those that have kept the listing, or listing and line. A long session with a new line
/// differs from one with a kept line only in the log-in, which the short ones show.
fn record(recording: Arc<Recording>) -> Vec<Recorded> {
    let pasts = PASTS.into_iter().filter(|past| match past {
        Past::Nothing => true,
        Past::Listing => !recording.is_long(),
        Past::Line => !recording.needs_new_line,
    });
    pasts
        .map(|past| {
            let played = in_orders(&recording, past);
            Recorded { recording: Arc::clone(&recording), past, played }
        })
        .collect()
}

fn in_orders(recording: &Recording, past: Past) -> Vec<(Order, Played)> {
    let mut played: Vec<(Order, Played)> = Vec::new();
    let own = recording.manner.order;
    for order in [own].into_iter().chain(ORDERS) {
        let new = run(recording, past, order, None);
        let heard = |played: &Played| played.upstream.iter().map(|tape| tape.heard.clone()).collect::<Vec<_>>();
        if played.iter().all(|(_, known)| heard(known) != heard(&new)) {
            played.push((order, new));
        }
    }
    for (order, played) in &played {
        let wrong = not_as_meant(recording, past, played);
        assert!(wrong.is_empty(), "{}, {}{order:?}: {wrong:?}", recording.name, past.words());
    }
    played
}

/// What a session in which nothing happens lacks of what it is recorded for.
fn not_as_meant(recording: &Recording, past: Past, played: &Played) -> Vec<String> {
    let mut wrong = played.second.clone();
    if memmem::find(&played.client.said, b"+OK POP3 server sig").is_none() {
        wrong.push(format!("no good end: {}", played.client.said.escape_ascii()));
    }
    if played.struck.contains(&0) {
        wrong.push("the server was to deviate and did not".into());
    }
    // Below TLS nothing can be read.
    if matches!(recording.tls, Tls::Everywhere | Tls::Upstream) || recording.needs_new_line {
        return wrong;
    }
    let said: Vec<u8> = played.upstream.iter().flat_map(|tape| tape.said.clone()).collect();
    let says = |what: &str| memmem::find(&said, what.as_bytes()).is_some();
    let uids: Vec<u32> = recording.account.mailboxes[0].messages.iter().map(|message| message.uid).collect();
    let is_kept = said.split(|octet| *octet == b'\r').next().is_some_and(|line| line.ends_with(b" NOOP"));
    if is_kept != (past == Past::Line) {
        wrong.push("the line is not of the session that it should be of".into());
    }
    if let Some(last) = uids.last()
        && says("UID FETCH ")
        && says(&format!("UID FETCH {last}:* (RFC822.SIZE)")) == (past == Past::Nothing)
    {
        wrong.push("the listing is not of the session that it should be of".into());
    }
    if recording.script.ends_with("sec ret\nDELE 1\nDELE 3\nQUIT")
        && !recording.keeps
        && says("UID FETCH 5,9 (RFC822.SIZE)") == (past == Past::Nothing)
    {
        wrong.push("what is deleted is verified, or not, against what it should be".into());
    }
    wrong
}

impl Case<'_> {
    /// Its name without the place.
    fn kind(&self) -> String {
        let mut cut = self.cut;
        cut.plan.place = Place::Octet(0);
        Case { cut, ..*self }.to_string()
    }

    /// What happens to which line in which direction, whatever the session.
    const fn fault(&self) -> (bool, Towards, Fault, bool) {
        let Cut { leg, plan, for_good } = self.cut;
        (matches!(leg, Leg::Client), plan.towards, plan.fault, for_good)
    }

    /// Whether this is its name, or the beginning of it up to a comma.
    fn is_named(&self, name: &str) -> bool {
        self.to_string().strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(", "))
    }

    /// The same, and what is in the log at TRACE and must not be (F-19).
    fn lies_and_secrets(&self) -> Vec<String> {
        let log = Overheard::begin(&SECRETS);
        let mut lies = self.lies();
        let (secrets, logged) = log.end();
        lies.extend(secrets.iter().map(|form| format!("logged: {form}")));
        if logged == 0 {
            lies.push("nothing was logged".into());
        }
        lies
    }

    fn lies(&self) -> Vec<String> {
        let (order, recorded) = &self.recorded.played[self.order];
        let played = run(&self.recorded.recording, self.recorded.past, *order, Some(self.cut));
        if std::env::var("CUT").is_ok_and(|name| name == self.to_string()) {
            show(&played);
        }
        let is_sealed = matches!(self.cut.plan.place, Place::Record(..));
        if !(is_sealed && self.cut.plan.fault.alters()) {
            return lies(&self.recorded.recording, self.cut, recorded, &played);
        }
        // Whatever is changed below TLS breaks the line, and does nothing else, unless it is the length of a record: then what
        // follows may be awaited …
        let mut cut = self.cut;
        let in_header = matches!(cut.plan.place, Place::Record(_, inside) if inside < 5);
        cut.plan.fault = if in_header && cut.leg != Leg::Client { Fault::Stall } else { Fault::Reset };
        let mut lies = lies(&self.recorded.recording, cut, recorded, &played);
        // … but the first record is in the clear, and may turn into one that chooses a version or a cipher which nobody offered.
        if matches!(cut.plan.place, Place::Record(0, _)) {
            lies.retain(|lie| !lie.contains("-ERR [SYS/PERM] mailbox cannot be opened"));
        }
        lies
    }
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { leg, plan, for_good } = &self.cut;
        let Recorded { recording, past, played } = self.recorded;
        write!(f, "{}, {}{:?}, ", recording.name, past.words(), played[self.order].0)?;
        match leg {
            Leg::Client => write!(f, "client ")?,
            Leg::Upstream(number) => write!(f, "upstream {number} ")?,
        }
        write!(f, "{} ", if plan.towards == Towards::Popgate { "to popgate," } else { "from popgate," })?;
        match plan.place {
            Place::Octet(octet) => write!(f, "octet {octet}, ")?,
            Place::Record(record, inside) => write!(f, "record {record} octet {inside}, ")?,
        }
        write!(f, "{:?}{}", plan.fault, if *for_good { " for good" } else { "" })
    }
}

/// Prints what went over the lines, as popgate saw it.
fn show(played: &Played) {
    let lines = |octets: &[u8]| octets.escape_ascii().to_string().replace("\\r\\n", "\n    ");
    println!("popgate heard the client say:\n    {}", lines(&played.client.heard));
    println!("popgate said to the client:\n    {}", lines(&played.client.said));
    for (number, tape) in played.upstream.iter().enumerate() {
        println!("popgate said to the server on line {number}:\n    {}", lines(&tape.said));
        println!("popgate heard it say:\n    {}", lines(&tape.heard));
    }
}

fn run(recording: &Recording, past: Past, order: Order, cut: Option<Cut>) -> Played {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(recording, past, order, cut))
}

/// About so many cuts of each session are a share, with each past: of each kind one. TLS has fewer kinds than places.
const SHARE: usize = 1;
const TLS_SHARE: usize = 50;

/// One in so many is logged at TRACE, and the log searched for secrets; and the first of each fault in each direction.
const OVERHEARD: usize = 11;

/// After so many it is said how far it is: about half a minute.
const PROGRESS: usize = 200_000;

/// How many failures are shown in full.
const SHOWN: usize = 10;
