//! Many clients at once, a server with faults drawn by lot, and another program in the same mailboxes: what nobody has
//! thought of. Each seed is a world of its own and plays the same every time. No mail may be lost, come back, be cut or be
//! shown to others, whatever happens; nobody gets in with a wrong password, and no right one is logged; and when faults stop
//! everybody gets what there is.
//!
//! `SWARM_SESSIONS=1000000` runs so many sessions, from `SWARM_FROM` on; `SWARM_SEED` plays one seed and shows what is wrong
//! in it.

mod actor;
mod chance;
mod client;
mod plan;
mod trace;
mod world;

use std::{
    collections::BTreeSet,
    env, fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use self::{
    client::SECRETS,
    world::{Counts, Outcome, run},
};
use crate::support::overheard::Overheard;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    Some(env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Sums over many simulations.
#[derive(Default)]
struct Sums {
    seeds: u64,
    twice: u64,
    /// Worlds of which all was logged.
    overheard: u64,
    counts: Counts,
    /// Seeds that went wrong, and how.
    wrong: Vec<(u64, Vec<String>)>,
}

/// What a world was like the second time.
struct Again {
    outcome: Outcome,
    /// What is in the log and must not be, and how long the log is; if there is one.
    log: Option<(BTreeSet<String>, usize)>,
}

impl Again {
    /// Plays it. Of every tenth all is logged, which changes nothing else.
    fn play(seed: u64, kept: bool) -> Self {
        let log = seed.is_multiple_of(10).then(|| Overheard::begin(&SECRETS));
        let outcome = run(seed, kept);
        Self { outcome, log: log.map(Overheard::end) }
    }
}

impl Sums {
    fn add(&mut self, seed: u64, outcome: Outcome, again: Option<Again>) {
        self.seeds += 1;
        let mut wrong: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
        if let Some(again) = again {
            self.twice += 1;
            if again.outcome.hash != outcome.hash {
                wrong.push("played differently the second time".into());
            }
            if let Some((secrets, logged)) = again.log {
                self.overheard += 1;
                wrong.extend(secrets.iter().map(|form| format!("logged: {form}")));
                wrong.extend((logged == 0).then(|| "nothing was logged".to_owned()));
            }
        }
        if !wrong.is_empty() {
            self.wrong.push((seed, wrong));
        }
        self.counts.add(outcome.counts);
    }
}

impl Counts {
    fn add(&mut self, more: Self) {
        self.sessions += more.sessions;
        self.logins += more.logins;
        self.fetches += more.fetches;
        self.peeks += more.peeks;
        self.deliveries += more.deliveries;
        self.confirmed += more.confirmed;
        self.possible += more.possible;
        self.connections += more.connections;
        for (name, times) in more.faults {
            *self.faults.entry(name).or_default() += times;
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { sessions, logins, fetches, peeks, deliveries, confirmed, possible, connections, faults } =
            &self.counts;
        let (twice, overheard) = (self.twice, self.overheard);
        for (name, count) in [
            ("worlds", &self.seeds),
            ("… played twice", &twice),
            ("… and searched for secrets at TRACE", &overheard),
            ("POP3 sessions", sessions),
            ("… that logged in", logins),
            ("IMAP connections", connections),
            ("messages delivered", deliveries),
            ("messages retrieved whole", fetches),
            ("TOP answered", peeks),
            ("deletions confirmed", confirmed),
            ("… carried out and not confirmed", possible),
        ] {
            writeln!(f, "{count:>10}  {name}")?;
        }
        for (name, times) in faults {
            writeln!(f, "{times:>10}  fault: {name}")?;
        }
        write!(f, "{:>10}  worlds that went wrong", self.wrong.len())
    }
}

#[test]
fn no_mail_is_lost_cut_or_shown_to_others() {
    if let Some(seed) = number("SWARM_SEED") {
        return replay(seed);
    }
    let sessions = number("SWARM_SESSIONS");
    let wanted = sessions.unwrap_or(SESSIONS);
    let first = number("SWARM_FROM").unwrap_or(1);
    let next = AtomicU64::new(first);
    let enough = AtomicBool::new(false);
    let sums = Mutex::new(Sums::default());
    let threads = if sessions.is_some() { thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !enough.load(Relaxed) {
                    let seed = next.fetch_add(1, Relaxed);
                    let outcome = run(seed, false);
                    // In a very long run every tenth is enough to see that chance is the seed's alone.
                    let is_played_twice = wanted <= TWICE || seed.is_multiple_of(10);
                    let again = is_played_twice.then(|| Again::play(seed, false));
                    let mut sums = sums.lock().unwrap();
                    let before = sums.counts.sessions;
                    sums.add(seed, outcome, again);
                    let now = sums.counts.sessions;
                    if now / PROGRESS > before / PROGRESS && now < wanted {
                        let (seconds, wrong) = (began.elapsed().as_secs(), sums.wrong.len());
                        report(&format!("{now} of {wanted} sessions, {seconds} s, {wrong} worlds went wrong"));
                    }
                    let done = sums.counts.sessions >= wanted || sums.wrong.len() >= 20;
                    enough.fetch_or(done, Relaxed);
                }
            });
        }
    });
    let sums = sums.into_inner().unwrap();
    let seconds = began.elapsed().as_secs();
    report(&format!("seeds {first} to {}, {seconds} s\n{sums}", next.into_inner() - 1));
    let mut wrong = sums.wrong;
    wrong.sort();
    for (seed, what) in &wrong {
        report(&format!("{}\n  {}", command(*seed), what.join("\n  ")));
    }
    let idle: Vec<_> = sums.counts.faults.iter().filter(|(_, times)| **times == 0).collect();
    assert!(wanted < TWICE || idle.is_empty(), "faults that never strike show nothing: {idle:?}");
    assert!(wrong.is_empty(), "{} worlds went wrong; replay: {}", wrong.len(), command(wrong[0].0));
}

/// Plays one seed twice, and shows the whole trace if something is wrong.
fn replay(seed: u64) {
    let (outcome, again) = (run(seed, true), Again::play(seed, true));
    let mut sums = Sums::default();
    let (text, other) = (outcome.text.clone(), again.outcome.text.clone());
    sums.add(seed, outcome, Some(again));
    report(&sums.to_string());
    let Some((_, what)) = sums.wrong.first() else { return };
    report(&text);
    if text != other {
        let differs = text.lines().zip(other.lines()).find(|(one, two)| one != two);
        report(&format!("the second time: {differs:?}"));
    }
    panic!("seed {seed}:\n{}", what.join("\n"));
}

/// The command that plays a seed again.
fn command(seed: u64) -> String {
    format!("SWARM_SEED={seed} cargo test --locked --test main swarm -- --nocapture")
}

#[allow(clippy::print_stdout, reason = "what a long run was is to be read")]
fn report(text: &str) {
    println!("{text}");
}

/// After so many sessions it is said how far it is.
const PROGRESS: u64 = 100_000;

/// Up to so many sessions every seed is played twice.
const TWICE: u64 = 100_000;

/// As many as an ordinary run of all tests has time for.
const SESSIONS: u64 = 2_000;
