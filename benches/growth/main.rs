//! How popgate grows: how long a mailbox takes to be listed, and by how much the process grows meanwhile, from a hundred
//! messages to a million; and what a session holds, from ten of them to nine thousand, without TLS and with TLS on both
//! sides. In front of an IMAP server that costs almost nothing. Prints the figures, and draws them where it is asked to.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends with a panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the figures are what it is run for")]
#![allow(unreachable_pub, reason = "a benchmark exports nothing")]

use std::{fs, path::PathBuf, time::Instant};

use clap::Parser;
use tokio::runtime::Runtime;

use crate::{
    chart::{Chart, Curve},
    imap::Mailbox,
    pop3::Pop3,
    support::{serve::Popgate, tls},
};

mod chart;
mod clients;
#[path = "../peer/consumption.rs"]
#[allow(dead_code, reason = "the comparison with the peer uses the rest")]
mod consumption;
mod imap;
#[path = "../peer/pop3.rs"]
#[allow(dead_code, reason = "the comparison with the peer uses the rest")]
mod pop3;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

/// Measures how popgate grows with the messages of a mailbox and with the number of sessions.
#[derive(Parser)]
struct Choice {
    /// Draws listing.svg and sessions.svg in this directory.
    #[arg(long)]
    pictures: Option<PathBuf>,
    /// The most sessions at a time; fewer where the limit of open files (ulimit -n) allows no more.
    #[arg(long, default_value_t = 9000)]
    sessions: usize,
    /// The most messages in a mailbox.
    #[arg(long, default_value_t = 1_000_000)]
    messages: usize,
    /// cargo bench says this.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let choice = Choice::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listing = listing(&runtime, choice.messages);
    let files = rlimit::increase_nofile_limit(20_000).unwrap();
    // Both ends that are not popgate's are in this process: two descriptors a session, and some for itself; and popgate keeps
    // an eighth of its own for lines that wait.
    let most = choice.sessions.min((files as usize * 7 / 8).saturating_sub(200) / 2);
    if most < choice.sessions {
        println!("ulimit -n allows {most} sessions, not {}", choice.sessions);
    }
    let plain = sessions(&runtime, most, false);
    let secured = sessions(&runtime, most, true);
    let Some(directory) = choice.pictures else { return };
    let charts = [
        (
            "listing.svg",
            Chart {
                title: "Log-in to the end of UIDL, near",
                across: "messages in the mailbox",
                up: "ms, and MB",
                curves: &listing,
            },
        ),
        (
            "sessions.svg",
            Chart {
                title: "Memory a session that is idle",
                across: "sessions in one process",
                up: "KB",
                curves: &[
                    Curve { name: "TLS on both sides", points: secured },
                    Curve { name: "no TLS", points: plain },
                ],
            },
        ),
    ];
    for (name, chart) in charts {
        fs::write(directory.join(name), chart.svg()).unwrap();
    }
}

/// The time of the first session of a user and of those that follow, and by how much the process grows in the first.
fn listing(runtime: &Runtime, most: usize) -> Vec<Curve> {
    let mut curves = ["ms, first time", "ms, again", "MB, growth"].map(|name| Curve { name, points: Vec::new() });
    println!("{:>10}  {:>12}  {:>12}  {:>12}", "messages", "ms, first", "ms, again", "MB, growth");
    for messages in [100, 1000, 10_000, 100_000, 1_000_000].into_iter().filter(|messages| *messages <= most) {
        let upstream = runtime.block_on(Mailbox::new(messages).serve(false));
        let [mut first, mut again, mut growth] = [const { Vec::new() }; 3];
        for _ in 0..5 {
            let popgate = Popgate::serve(&format!("imap://127.0.0.1:{upstream}"), &[]);
            // What any first session costs is left out.
            Pop3::log_in(popgate.port, "somebody", PASSWORD).quit();
            let before = popgate.forget_peak_memory();
            first.push(list(popgate.port, messages));
            growth.push(popgate.peak_memory().saturating_sub(before) as f64 / 1e6);
            again.push(list(popgate.port, messages));
            popgate.stop();
        }
        let medians = [first, again, growth].map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            samples[samples.len() / 2]
        });
        println!("{messages:>10}  {:>12.2}  {:>12.2}  {:>12.2}", medians[0], medians[1], medians[2]);
        for (curve, median) in curves.iter_mut().zip(medians) {
            curve.points.push((messages as f64, median.max(0.01)));
        }
    }
    curves.into()
}

/// Milliseconds from the connection to the end of UIDL.
fn list(port: u16, messages: usize) -> f64 {
    let begin = Instant::now();
    let mut pop3 = Pop3::log_in(port, "tim", PASSWORD);
    pop3.send("UIDL\r\n");
    let mut lines = 0;
    pop3.many(|some| lines += memchr::memchr_iter(b'\n', some).count());
    let took = begin.elapsed().as_secs_f64() * 1e3;
    assert_eq!(lines, messages);
    pop3.quit();
    took
}

/// Kilobytes a session, of more and more that have logged in to a mailbox of 200 messages and say nothing.
fn sessions(runtime: &Runtime, most: usize, secured: bool) -> Vec<(f64, f64)> {
    let upstream = runtime.block_on(Mailbox::new(200).serve(secured));
    let identity = tls::identity();
    let [certificate, key] = [&identity.certificate, &identity.key].map(|path| path.to_str().unwrap());
    let keys = [format!("tls.certificate={certificate}"), format!("tls.key={key}")];
    let url = format!("{}://localhost:{upstream}", if secured { "imaps" } else { "imap" });
    let mut arguments = vec!["serve"];
    if secured {
        arguments.extend(["--listen", "pop3s://127.0.0.1:0", "--upstream-ca", certificate]);
        arguments.extend(["--set", &keys[0], "--set", &keys[1]]);
    }
    arguments.extend(["--listen", "pop3://127.0.0.1:0", "--upstream", &url]);
    let popgate = Popgate::start(&arguments);
    let port = if secured { popgate.tls_port() } else { popgate.port };

    // What the first session costs is left out.
    drop(runtime.block_on(clients::open(port, secured, 0..1)));
    let before = consumption::memory(popgate.id());
    let mut open = Vec::new();
    let mut points = Vec::new();
    let words = if secured { "TLS on both sides" } else { "no TLS" };
    for count in [10, 100, 1000, 2000, 5000].into_iter().filter(|count| *count < most).chain([most]) {
        let begin = Instant::now();
        let more = count - open.len();
        open.extend(runtime.block_on(clients::open(port, secured, open.len()..count)));
        let rate = more as f64 / begin.elapsed().as_secs_f64();
        let octets = consumption::memory(popgate.id()).saturating_sub(before);
        let each = octets as f64 / 1e3 / count as f64;
        println!("{count:>10}  sessions, {words}: {each:.1} KB each, opened at {rate:.0}/s");
        points.push((count as f64, each.max(0.1)));
    }
    drop(open);
    popgate.stop();
    points
}

const PASSWORD: &str = "secret";
