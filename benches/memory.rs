//! How much memory popgate takes, of the release build in front of a real Dovecot: while sixteen clients read a large
//! message slowly, and while a client lists a large mailbox. Prints both figures; fails when one is over its bound.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends with a panic")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]
#![allow(unreachable_pub, reason = "a benchmark exports nothing")]

use std::{
    io::BufRead as _,
    process::ExitCode,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use support::{
    dovecot::{Dovecot, PASSWORD},
    serve::Popgate,
};

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

/// How many read at once.
const READERS: usize = 16;
/// The size of their message.
const LARGE: usize = 50_000_000;
/// What popgate may take in all while they read.
const READING_BOUND: u64 = 32 << 20;

/// How many messages the large mailbox has.
const MANY: usize = 100_000;
/// By how much popgate may grow from log-in to the end of UIDL.
const LISTING_BOUND: u64 = 8 << 20;

fn main() -> ExitCode {
    let Some(dovecot) = Dovecot::start("memory") else { return ExitCode::FAILURE };
    let line = [&[b'x'; 75][..], b"\n"].concat();
    dovecot.fill("alice", &[&b"Subject: large\n\n"[..], &line.repeat(LARGE / 77)].concat(), 1);
    dovecot.fill("bob", b"Subject: one of many\n\nbody\n", MANY);

    let reading = reading(&dovecot);
    let listing = listing(&dovecot);
    let mut exit = ExitCode::SUCCESS;
    for (what, octets, bound) in [
        (format!("{READERS} slow readers of a message of {} MB, peak", LARGE / 1_000_000), reading, READING_BOUND),
        (format!("log-in to UIDL list of {MANY} messages, growth"), listing, LISTING_BOUND),
    ] {
        let verdict = if octets < bound { "ok" } else { "OVER" };
        println!("{what}: {:.1} MiB (bound {} MiB) {verdict}", octets as f64 / f64::from(1 << 20), bound >> 20);
        if octets >= bound {
            exit = ExitCode::FAILURE;
        }
    }
    exit
}

/// The peak of a process in which all readers are in the midst of their message at the same time.
fn reading(dovecot: &Dovecot) -> u64 {
    let popgate = Popgate::serve(&format!("imap://127.0.0.1:{}", dovecot.imap_port), &[]);
    let port = popgate.port;
    let together = Arc::new(Barrier::new(READERS));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let together = Arc::clone(&together);
            thread::spawn(move || read_slowly(port, &together))
        })
        .collect();
    for reader in readers {
        let octets = reader.join().unwrap();
        assert!(octets > LARGE - 1000, "a reader got {octets} octets");
    }
    let peak = popgate.peak_memory();
    popgate.stop();
    peak
}

/// Reads the message at about 12 MB a second, a tenth of what popgate could give; gives its octets. All readers wait for
/// one another when they have a tenth of it, so that popgate is at work for all of them, and each is blocked for a while.
fn read_slowly(port: u16, together: &Barrier) -> usize {
    let mut pop3 = support::pop3::Pop3::log_in(port, "alice", PASSWORD);
    let reply = pop3.command("RETR 1");
    assert!(reply.starts_with("+OK"), "{reply}");
    let line = pop3.line();
    let mut octets = 0;
    let mut end = Vec::new();
    let mut waited = false;
    while end != b"\r\n.\r\n" {
        let chunk = line.fill_buf().unwrap();
        assert!(!chunk.is_empty(), "the line ends within the message");
        end = [&end, chunk].concat();
        end.drain(..end.len().saturating_sub(5));
        let length = chunk.len();
        line.consume(length);
        octets += length;
        if octets > LARGE / 10 && !waited {
            waited = true;
            together.wait();
            thread::sleep(Duration::from_millis(500));
        }
        thread::sleep(Duration::from_micros(600));
    }
    octets
}

/// By how much the process grows while one client logs in to the large mailbox and asks for all unique-ids. What any first
/// session costs is left out: another session on an empty mailbox goes before.
fn listing(dovecot: &Dovecot) -> u64 {
    // Dovecot makes its index first, so that the figure does not depend on how fast that goes.
    assert_eq!(dovecot.imap("bob").search("ALL").len(), MANY);
    let popgate = Popgate::serve(&format!("imap://127.0.0.1:{}", dovecot.imap_port), &[]);
    popgate.pop3("carol", PASSWORD).quit();

    let before = popgate.forget_peak_memory();
    let mut pop3 = popgate.pop3("bob", PASSWORD);
    assert_eq!(pop3.list("UIDL").len(), MANY);
    let growth = popgate.peak_memory() - before;
    pop3.quit();
    popgate.stop();
    growth
}
