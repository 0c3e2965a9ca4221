//! What the rooms have counted, in the text format of Prometheus (version 0.0.4). Counters begin with the process and a
//! reload does not touch them. No label comes from outside: what users, clients and servers are called is not here.

use std::fmt::Write as _;

use super::Process;
use crate::{
    gateway,
    net::{counted, limits},
    upstream::{cache, warm},
};

/// The content type of the page.
pub(super) const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All numbers at this moment.
pub(super) fn page(process: &Process) -> String {
    let mut page = Page(String::new());
    page.sessions(process.limits.counts(), &process.sessions.counts());
    page.upstream(process.lines.counts(), process.room.counts(), process.listings.counts());
    let spared = process.spared.borrow().iter().filter(|server| server.is_open()).count();
    page.gauge(
        "popgate_upstream_breakers_open",
        "IMAP servers that are left alone now because they could not be reached, but for a try every few seconds.",
        spared as u64,
    );
    page.gauge(
        "popgate_draining",
        "1 from the moment that the process is told to stop, else 0.",
        u64::from(process.stopping.is_cancelled()),
    );
    page.0
}

struct Page(String);

impl Page {
    fn sessions(&mut self, places: limits::Counts, sessions: &gateway::Counts) {
        self.gauge(
            "popgate_sessions_open",
            "Connections of clients that have one of limits.sessions places now.",
            places.open as u64,
        );
        self.counter(
            "popgate_sessions_accepted_total",
            "Connections of clients that were given a place, counted when they were taken from the port.",
            places.admitted,
        );
        self.counters(
            "popgate_sessions_turned_away_total",
            "Connections, counted when they were turned away because limits.sessions (full), sessions_per_address \
             (address) or handshakes_in_flight (handshakes) was reached; only those of the first were never accepted. And \
             log-ins, counted when they were refused for other sessions of the user (user).",
            "reason",
            [
                ("full", places.full),
                ("address", places.address),
                ("handshakes", places.handshakes),
                ("user", sessions.beyond_limit),
            ],
        );
        self.counters(
            "popgate_logins_total",
            "Log-ins, counted when their outcome was known: ok, or the verdict as the log says it.",
            "outcome",
            sessions
                .log_ins
                .map(|(refused, count)| (refused.map_or_else(|| "ok".to_owned(), |why| why.to_string()), count)),
        );
        let handed = [("retr", sessions.retr), ("top", sessions.top)];
        self.counters(
            "popgate_messages_sent_total",
            "Messages, counted when all of them had come and their end stood ready to be sent. A client that leaves may not \
             have read it.",
            "command",
            handed.map(|(command, tally)| (command, tally.count)),
        );
        self.counters(
            "popgate_messages_sent_bytes_total",
            "Octets of these messages, line ends as CRLF and without stuffed dots, counted with them.",
            "command",
            handed.map(|(command, tally)| (command, tally.octets)),
        );
        self.counter(
            "popgate_messages_removed_total",
            "Messages that QUIT was to remove, counted when that was done as maildrop.on_delete says, on the IMAP server's own \
             word: gone, moved, hidden, or (ignore) left where they are.",
            sessions.removed,
        );
        self.counter(
            "popgate_removals_unconfirmed_total",
            "Messages that QUIT was to remove, counted when it was answered with -ERR because they may still be there.",
            sessions.unconfirmed,
        );
    }

    fn upstream(&mut self, lines: counted::Counts, kept: warm::Counts, listings: cache::Counts) {
        self.gauge(
            "popgate_upstream_connections_open",
            "TCP connections to IMAP servers now, those that wait for their user included.",
            lines.open,
        );
        self.counter(
            "popgate_upstream_connections_opened_total",
            "TCP connections to IMAP servers, counted when they came about, before TLS and log-in.",
            lines.opened,
        );
        self.counter(
            "popgate_upstream_connections_failed_total",
            "TCP connections to IMAP servers that did not come about, counted when that was clear. TLS or a log-in that \
             failed is a log-in with another outcome than ok.",
            lines.failed,
        );
        self.gauge(
            "popgate_warm_lines_parked",
            "Connections to IMAP servers that wait for the next session of their user now (upstream.warm_ttl).",
            kept.waiting as u64,
        );
        self.counter(
            "popgate_warm_hits_total",
            "Log-ins that were given a waiting connection, counted when the IMAP server had listed the mailbox on it.",
            kept.lent,
        );
        self.counter(
            "popgate_warm_discards_total",
            "Waiting connections, counted when they turned out to be of no use, other than by the end of their time.",
            kept.dropped,
        );
        self.counters(
            "popgate_listing_cache_lookups_total",
            "Users that the IMAP server let in on a new connection, counted when a remembered listing of their mailbox was \
             found in memory or on disk, or was not (miss). Whether it still held is not counted.",
            "result",
            [("memory", listings.in_memory), ("disk", listings.on_disk), ("miss", listings.unknown)],
        );
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.sample(name, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.sample(name, value);
    }

    /// One counter for each value of a label.
    fn counters<T: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (T, u64)>,
    ) {
        self.head(name, help, "counter");
        for (of, value) in values {
            self.sample(&format!("{name}{{{label}=\"{}\"}}", of.as_ref()), value);
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a text does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, value: u64) {
        let _ = writeln!(self.0, "{name} {value}");
    }
}
