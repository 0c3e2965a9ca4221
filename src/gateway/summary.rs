//! What a session did and how it ended: one line in the log, with counts and no content.

use std::{fmt, net::IpAddr};

use tokio::time::Instant;
use tracing::{debug, info};

use super::counters::Tally;

/// How a session ended. Messages are deleted only on the way to [`End::Quit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The client said QUIT and was answered.
    Quit,
    /// The client went away.
    Disconnected,
    /// The client said nothing for too long.
    Idle,
    /// The client did not read for too long.
    Stalled,
    /// The client was sent away: too many mistakes or wrong passwords, or no POP3 at all.
    Refused,
    /// We are being stopped.
    Shutdown,
    /// A message broke off when part of it had been sent.
    Torn,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quit => "quit",
            Self::Disconnected => "disconnected",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
            Self::Torn => "aborted",
        })
    }
}

/// Counts of one session.
pub(super) struct Summary {
    began: Instant,
    pub(super) user: Option<String>,
    /// Something that it said before log-in was refused, or is half of a log-in.
    pub(super) refused: bool,
    /// The upstream that holds the maildrop, once it is open.
    pub(super) upstream: Option<String>,
    pub(super) top: Tally,
    pub(super) retr: Tally,
    /// Messages that UPDATE was asked to delete, with their listed sizes.
    pub(super) dele: Tally,
    /// How many of them may still be there.
    pub(super) left: usize,
}

impl Summary {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            user: None,
            refused: false,
            upstream: None,
            top: Tally::default(),
            retr: Tally::default(),
            dele: Tally::default(),
            left: 0,
        }
    }

    /// Writes the line. Load balancers and watchdogs come every few seconds to see whether somebody is there, and who reads
    /// the log does not want to know.
    pub(super) fn report(&self, end: End, peer: IpAddr) {
        if self.user.is_none() && !self.refused && matches!(end, End::Quit | End::Disconnected) {
            debug!(%end, %peer, "the session ended before anything was tried");
            return;
        }
        info!(
            user = self.user.as_deref(),
            upstream = self.upstream.as_deref(),
            top = self.top.count,
            top_octets = self.top.octets,
            retr = self.retr.count,
            retr_octets = self.retr.octets,
            dele = self.dele.count,
            dele_octets = self.dele.octets,
            left = self.left,
            end = %end,
            milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            %peer,
            "session ended"
        );
    }
}

/// A user name as a log may show it: printable ASCII, and not without end. Whoever has not logged in may send anything.
pub(super) fn loggable(user: &str) -> String {
    user.chars().flat_map(char::escape_default).take(128).collect()
}
