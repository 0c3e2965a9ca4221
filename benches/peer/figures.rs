//! The figures that are taken, and which of them popgate must reach.

/// A figure of the table.
pub(crate) struct Figure {
    /// Its name for machines, `row/what`.
    pub(crate) key: &'static str,
    /// Its name for people.
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
    /// Which popgate the goal is for.
    pub(crate) of: &'static str,
}

/// What must be reached.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// Told for knowledge.
    None,
    /// So many times the peer, or more.
    Times(f64),
    /// So much, or less.
    AtMost(f64),
}

/// popgate as it is configured where nothing is said, but that it does not hold log-ins back.
pub(crate) const POPGATE: &str = "popgate";
/// popgate that logs in upstream for each session; what it knows of a mailbox it remembers, as the peer does.
pub(crate) const COLD: &str = "popgate cold";

const fn figure(key: &'static str, what: &'static str, unit: &'static str, goal: Goal) -> Figure {
    Figure { key, what, unit, goal, of: POPGATE }
}

const fn cold(key: &'static str, what: &'static str, unit: &'static str, goal: Goal) -> Figure {
    Figure { key, what, unit, goal, of: COLD }
}

/// All of them, in the order of the table. One with two goals stands there twice.
pub(crate) const FIGURES: &[Figure] = &[
    figure("large/rate", "RETR 5 × 50 MB near", "MB/s", Goal::Times(2.2)),
    figure("large/processor", "the same, gateway's processor", "s/GB", Goal::AtMost(1.2)),
    figure("large/first", "the same, first octet at the client, p50", "ms", Goal::AtMost(1.0)),
    figure("growth", "4 × RETR 50 MB at once, gateway's memory grows by", "MB", Goal::AtMost(1.0)),
    figure("many/alternating", "RETR 2,000 × 20 KB near, one by one", "msgs/s", Goal::Times(2.3)),
    figure("many/alternating/processor", "the same, gateway's processor", "s/1000", Goal::None),
    figure("many/pipelined", "the same, 64 in flight", "msgs/s", Goal::Times(3.5)),
    figure("many/pipelined/processor", "the same, gateway's processor", "s/1000", Goal::None),
    figure("few-far/alternating", "RETR 200 × 20 KB far, one by one", "msgs/s", Goal::Times(40.0)),
    figure("few-far/alternating/session", "the same, whole session", "s", Goal::AtMost(0.6)),
    figure("few-far/pipelined", "the same, 64 in flight", "msgs/s", Goal::Times(60.0)),
    figure("few-far/pipelined/session", "the same, whole session", "s", Goal::None),
    figure("some/near", "RETR 60 × 160 KB near, one by one", "msgs/s", Goal::None),
    figure("some/far", "the same far", "msgs/s", Goal::None),
    figure("several/near", "RETR 20 × 640 KB near, one by one", "msgs/s", Goal::None),
    figure("several/far", "the same far", "msgs/s", Goal::None),
    cold("poll-near/rate", "poll of 200 near, 8 users at once, cold", "polls/s", Goal::Times(2.3)),
    figure("poll-near/rate", "the same, warm", "polls/s", Goal::Times(8.0)),
    figure("poll-near/processor", "the same, gateway's processor", "s/1000", Goal::None),
    cold("poll-far/time", "poll of 200 far, p50, cold", "ms", Goal::AtMost(215.0)),
    figure("poll-far/time", "the same, warm", "ms", Goal::AtMost(60.0)),
    cold("poll-far/octets", "the same, octets exchanged with the upstream, cold", "octets", Goal::AtMost(1800.0)),
    figure("poll-far/octets", "the same, warm", "octets", Goal::AtMost(400.0)),
    cold("poll-far-tls/time", "poll of 200 far, p50, TLS upstream, cold", "ms", Goal::AtMost(265.0)),
    figure("poll-far/first", "first poll ever of 200 far", "ms", Goal::AtMost(260.0)),
    figure("huge-near/first", "poll of 100,000 near, nothing known", "ms", Goal::AtMost(300.0)),
    figure("huge-near/again", "the same again", "ms", Goal::AtMost(60.0)),
    figure("huge-far/first", "poll of 100,000 far, nothing known", "ms", Goal::AtMost(750.0)),
    figure("huge-far/first/octets", "the same, octets exchanged with the upstream", "octets", Goal::None),
    figure("huge-far/again", "the same again", "ms", Goal::AtMost(200.0)),
    figure("huge-far/again/octets", "the same, octets exchanged with the upstream", "octets", Goal::AtMost(2048.0)),
    figure("delete-near", "RETR + DELE 2,000 × 20 KB near, 64 in flight, session", "s", Goal::AtMost(0.3)),
    figure("delete-far/quit", "QUIT after DELE of 200 far", "ms", Goal::AtMost(61.0)),
    figure("top-near", "TOP n 0 of 2,000 near, 64 in flight", "msgs/s", Goal::Times(4.0)),
    figure("top-large", "TOP n 0 of 50 MB near, p50", "ms", Goal::AtMost(1.0)),
    figure("top-far", "TOP n 0 of 200 far, 64 in flight", "msgs/s", Goal::Times(45.0)),
    figure("idle", "memory a session, 2,000 idle, no TLS", "KB", Goal::AtMost(16.0)),
];
