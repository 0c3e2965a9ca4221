//! Whether it would pay to ask for the next large message while the present one comes, on a second connection to a far
//! upstream or on the same one. Bodies are read as popgate reads them, one after the other, by IMAP in three manners, and
//! through popgate; each in turn, three times. Starts all that takes part, on this machine alone, and ends it.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends with a panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the figures are what it is run for")]
#![allow(unreachable_pub, reason = "a benchmark exports nothing")]

use std::time::Instant;

use crate::{
    dovecot::{Dovecot, PASSWORD},
    imap::Imap,
    pop3::Pop3,
    relay::Relay,
    support::serve::Popgate,
};

#[path = "peer/dovecot.rs"]
#[allow(dead_code, reason = "the comparison with the peer uses the rest")]
mod dovecot;
#[path = "peer/imap.rs"]
#[allow(dead_code, reason = "the comparison with the peer uses the rest")]
mod imap;
#[path = "peer/mail.rs"]
#[allow(dead_code, reason = "the comparison with the peer uses the rest")]
mod mail;
#[path = "peer/pop3.rs"]
#[allow(dead_code, reason = "the comparison with the peer uses the rest")]
mod pop3;
#[path = "peer/relay.rs"]
#[allow(dead_code, reason = "the comparison with the peer uses the rest")]
mod relay;
#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

/// A user, how many messages she has, and of how many octets.
const MAILBOXES: [(&str, usize, usize); 4] =
    [("300kB", 30, 300_000), ("1MB", 15, 1_000_000), ("5MB", 8, 5_000_000), ("50MB", 3, 50_000_000)];

/// Megabits a second that the line carries; none: as much as the machine.
const RATES: [Option<u64>; 3] = [None, Some(1000), Some(100)];

/// How bodies are read.
#[derive(Clone, Copy)]
enum Manner {
    /// Through popgate, each asked for when the one before has come.
    Popgate,
    /// By IMAP on so many connections in turn; the next is asked for when the present one has come, or when it begins.
    Imap { connections: usize, ahead: bool },
}

const MANNERS: [(&str, Manner); 4] = [
    ("popgate", Manner::Popgate),
    ("one by one", Manner::Imap { connections: 1, ahead: false }),
    ("next on the same line", Manner::Imap { connections: 1, ahead: true }),
    ("next on a second line", Manner::Imap { connections: 2, ahead: true }),
];

const REPETITIONS: usize = 3;

fn main() {
    let upstream = Dovecot::upstream();
    let line = Relay::start(upstream.imap_port);
    let popgate = Popgate::serve(&format!("imap://127.0.0.1:{}", line.port), &[]);
    for (user, messages, octets) in MAILBOXES {
        let mut imap = Imap::log_in(upstream.imap_port, user, PASSWORD);
        for number in 1..=messages {
            imap.append([mail::message(number, octets)]);
        }
    }
    let names = MANNERS.map(|(name, _)| name).join(", ms | ");
    println!("| messages | line, Mbit/s | {names}, ms | second to one by one |\n|---|---|---|---|---|---|---|");
    for rate in RATES {
        line.set_rate(rate.map(|megabits| megabits * 1_000_000 / 8));
        for (user, messages, _) in MAILBOXES {
            let mut samples = MANNERS.map(|_| Vec::new());
            for repetition in 0..REPETITIONS {
                for at in (0..MANNERS.len()).map(|at| (at + repetition) % MANNERS.len()) {
                    samples[at].push(match MANNERS[at].1 {
                        Manner::Popgate => by_pop3(popgate.port, user, messages),
                        Manner::Imap { connections, ahead } => by_imap(line.port, user, messages, connections, ahead),
                    });
                }
            }
            eprintln!("{user}: {samples:.1?}");
            let medians = samples.map(|mut samples| {
                samples.sort_by(f64::total_cmp);
                samples[REPETITIONS / 2]
            });
            let cells = medians.map(|median| format!("{median:.1}")).join(" | ");
            let rate = rate.map_or_else(|| "no limit".to_owned(), |megabits| megabits.to_string());
            println!("| {messages} × {user} | {rate} | {cells} | {:.2} |", medians[3] / medians[1]);
        }
    }
    popgate.stop();
}

/// Milliseconds a message, from the first request to the end of the last body.
fn by_pop3(port: u16, user: &str, messages: usize) -> f64 {
    let mut pop3 = Pop3::log_in(port, user, PASSWORD);
    let begin = Instant::now();
    for number in 1..=messages {
        pop3.body(&format!("RETR {number}"));
    }
    let took = begin.elapsed();
    pop3.quit();
    took.as_secs_f64() * 1e3 / messages as f64
}

/// The same by IMAP.
fn by_imap(port: u16, user: &str, messages: usize, connections: usize, ahead: bool) -> f64 {
    let mut lines: Vec<_> = (0..connections).map(|_| Imap::log_in(port, user, PASSWORD)).collect();
    let fetch = |uid: usize| format!("UID FETCH {uid} (BODY.PEEK[])");
    let begin = Instant::now();
    let mut tag = lines[0].send(&fetch(1));
    for uid in 1..=messages {
        let (this, next) = ((uid - 1) % connections, uid % connections);
        let octets = lines[this].begin(tag).unwrap();
        let ask = |lines: &mut [Imap]| if uid < messages { lines[next].send(&fetch(uid + 1)) } else { 0 };
        let asked = ahead.then(|| ask(&mut lines));
        lines[this].body(octets, |_| ());
        assert!(lines[this].begin(tag).is_none());
        tag = asked.unwrap_or_else(|| ask(&mut lines));
    }
    begin.elapsed().as_secs_f64() * 1e3 / messages as f64
}
