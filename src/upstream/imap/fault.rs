//! What can go wrong with an IMAP server, and what to make of it.

use std::{borrow::Cow, io, time::Duration};

use async_imap::imap_proto::{self, ResponseCode};

use super::tap::Malformed;
use crate::{
    net::tcp,
    upstream::{Fault, Verdict},
};

/// How a command ended, or what a status line said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The response code's name, in capitals; empty if there is none.
    pub(super) code: String,
    /// What follows the name in the code, where popgate needs it and async-imap leaves it as text.
    pub(super) argument: String,
    /// The human-readable text, printable ASCII.
    pub(super) text: String,
}

impl Outcome {
    /// From async-imap's reading. It knows a dozen codes; the others it leaves in the text.
    pub(super) fn of(outcome: &imap_proto::Outcome<'_>) -> Self {
        let text = outcome.information.as_deref().unwrap_or_default();
        let Some(code) = &outcome.code else {
            let Some((code, text)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) else {
                return Self { text: text.to_owned(), ..Self::default() };
            };
            let (code, argument) = code.split_once(' ').unwrap_or((code, ""));
            return Self {
                code: code.to_ascii_uppercase(),
                argument: argument.to_owned(),
                text: text.trim_start().to_owned(),
            };
        };
        let code = match code {
            ResponseCode::Alert => "ALERT",
            ResponseCode::ReadOnly => "READ-ONLY",
            ResponseCode::ReadWrite => "READ-WRITE",
            ResponseCode::TryCreate => "TRYCREATE",
            ResponseCode::UidNotSticky => "UIDNOTSTICKY",
            _ => "",
        };
        Self { code: code.to_owned(), argument: String::new(), text: text.to_owned() }
    }

    /// The lowest UID that a limited command dealt with (RFC 9738): `[MESSAGELIMIT 1000 23221]`. 0 if the server does not
    /// say, which is no less a limit.
    pub(super) fn message_limit(&self) -> Option<u32> {
        let lowest = || self.argument.split_once(' ').and_then(|(_, lowest)| lowest.parse().ok()).unwrap_or_default();
        (self.code == "MESSAGELIMIT").then(lowest)
    }

    fn says(&self, words: &[&str]) -> bool {
        let text = self.text.to_ascii_lowercase();
        words.iter().any(|word| text.contains(word))
    }
}

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("the server refused: NO {}", show(.0))]
    No(Outcome),
    #[error("the server did not understand: BAD {}", show(.0))]
    Bad(Outcome),
    #[error("the server said farewell: BYE {}", show(.0))]
    Bye(Outcome),
    #[error("the server closed the line")]
    Lost,
    #[error("the line broke: {0}")]
    Broken(io::ErrorKind),
    #[error("the server was silent for too long while {0}")]
    Silent(&'static str),
    /// It keeps the client waiting without anything to show.
    #[error("the server took too long to send what was not to be shown before all of it is here")]
    Slow,
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    #[error("no TLS with this server: {0}")]
    Unacceptable(String),
    #[error("the TLS handshake failed: {0}")]
    NoTls(String),
    /// The server is not what the configuration says, or offers no way that is safe.
    #[error("{0}")]
    Unfit(&'static str),
    /// The mailbox is not the one that was listed.
    #[error("the mailbox changed: {0}")]
    Changed(&'static str),
}

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Up to the tagged OK to LOGIN or AUTHENTICATE.
    Login,
    /// Selecting and listing the mailbox.
    Open,
    /// Everything later.
    Use,
}

impl Trouble {
    /// Whether the line is gone, so that a new one may be tried.
    pub(super) const fn is_lost_line(&self) -> bool {
        matches!(self, Self::Bye(_) | Self::Lost | Self::Broken(_) | Self::Silent(_) | Self::Slow)
    }

    /// How long to wait before the same is tried once more; `None` where that would not help.
    pub(super) fn pause(&self) -> Option<Duration> {
        let (Self::No(outcome) | Self::Bad(outcome)) = self else { return None };
        let (_, backoff) = outcome.text.split_once("Suggested Backoff Time:")?;
        let milliseconds = backoff.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Duration::from_millis(milliseconds).min(LONGEST_PAUSE))
    }

    /// Whether the server may mean one message of those that were asked for.
    pub(super) fn may_mean_one_message(&self) -> bool {
        let Self::No(outcome) = self else { return false };
        let may = matches!(outcome.code.as_str(), "" | "SERVERBUG" | "UNAVAILABLE" | "CORRUPTION" | "EXPUNGEISSUED");
        may && self.pause().is_none()
    }

    /// Whether another line is in order: Microsoft 365 says so now and then, right after a good log-in.
    pub(super) fn is_of_this_line(&self) -> bool {
        let (Self::No(outcome) | Self::Bad(outcome)) = self else { return false };
        outcome.text.contains("authenticated but not connected")
    }

    /// Whether the server is there, if this happened before a log-in; `None` where this process could not even ask.
    pub(super) fn tells_of_a_server(&self) -> Option<bool> {
        match self {
            Self::Unreachable(error) if tcp::is_want_of_descriptors(error) => None,
            _ => Some(self.verdict(Phase::Open) != Verdict::Passing),
        }
    }

    /// The fault to report. `trusted`: nobody on the way can have put words into the server's mouth.
    pub(super) fn into_fault(self, phase: Phase, trusted: bool) -> Fault {
        let verdict = self.verdict(phase);
        let notice = match &self {
            Self::No(outcome) if trusted && is_for_people(outcome, verdict) => Some(outcome.text.clone()),
            _ => None,
        };
        Fault { notice, ..Fault::new(verdict, self.to_string()) }
    }

    /// What it means for the client.
    pub(super) fn verdict(&self, phase: Phase) -> Verdict {
        match self {
            Self::No(outcome) => refusal(outcome, phase),
            Self::Unacceptable(_) | Self::Unfit(_) => Verdict::Lasting,
            Self::Changed(_) => Verdict::Changed,
            _ => Verdict::Passing,
        }
    }
}

fn refusal(outcome: &Outcome, phase: Phase) -> Verdict {
    let connections = outcome.says(&["simultaneous", "connection", "session"]);
    match outcome.code.as_str() {
        "AUTHENTICATIONFAILED" | "EXPIRED" if phase == Phase::Login => Verdict::Denied,
        "ALERT" | "WEBALERT" if connections && outcome.says(&["too many", "maximum", "simultaneous"]) => busy(phase),
        "ALERT" | "WEBALERT" if phase == Phase::Login && !outcome.says(&PASSING) => Verdict::Denied,
        "LIMIT" if connections && phase == Phase::Login => Verdict::Busy,
        "INUSE" => busy(phase),
        "PRIVACYREQUIRED"
        | "AUTHORIZATIONFAILED"
        | "EXPIRED"
        | "REFERRAL"
        | "CONTACTADMIN"
        | "NOPERM"
        | "NONEXISTENT"
        | "CANNOT"
        | "CORRUPTION"
        | "READ-ONLY" => Verdict::Lasting,
        "UNAVAILABLE" | "LIMIT" | "OVERQUOTA" | "SERVERBUG" | "CLIENTBUG" | "EXPUNGEISSUED" | "THROTTLED"
        | "INPROGRESS" => Verdict::Passing,
        // RFC 5530: the same as AUTHENTICATIONFAILED where the server is unwilling to elaborate, unless its text does.
        _ if phase == Phase::Login && !outcome.says(&PASSING) => Verdict::Denied,
        _ => Verdict::Passing,
    }
}

/// A mailbox in use is worth saying at log-in; a message that cannot be read just now is only unavailable.
fn busy(phase: Phase) -> Verdict {
    if phase == Phase::Use { Verdict::Passing } else { Verdict::Busy }
}

fn is_for_people(outcome: &Outcome, verdict: Verdict) -> bool {
    matches!(outcome.code.as_str(), "ALERT" | "WEBALERT" | "CONTACTADMIN") && verdict != Verdict::Busy
}

/// For the log: the code and a bounded text.
fn show(outcome: &Outcome) -> Cow<'_, str> {
    let text: String = outcome.text.chars().take(200).collect();
    if outcome.code.is_empty() { Cow::Owned(text) } else { Cow::Owned(format!("[{}] {text}", outcome.code)) }
}

/// Words of a refusal without a code that speak of the server and not of the password.
const PASSING: [&str; 7] = ["too many", "simultaneous", "limit", "throttl", "unavailable", "temporar", "try again"];

/// Clients give up after half a minute or more.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server says, and the verdict at log-in, at opening, later.
    #[test]
    fn refusals_are_judged_by_code_and_phase() {
        use Verdict::{Busy, Denied, Lasting, Passing};
        for (code, text, verdicts) in [
            ("", "LOGIN failed.", [Denied, Passing, Passing]),
            ("", "Server temporarily unavailable", [Passing, Passing, Passing]),
            ("", "Too many simultaneous connections", [Passing, Passing, Passing]),
            ("AUTHENTICATIONFAILED", "no", [Denied, Passing, Passing]),
            ("EXPIRED", "password expired", [Denied, Lasting, Lasting]),
            ("AUTHORIZATIONFAILED", "no", [Lasting, Lasting, Lasting]),
            ("PRIVACYREQUIRED", "no", [Lasting, Lasting, Lasting]),
            ("UNAVAILABLE", "Maximum number of connections from user+IP exceeded", [Passing, Passing, Passing]),
            ("INUSE", "no", [Busy, Busy, Passing]),
            ("LIMIT", "too many sessions", [Busy, Passing, Passing]),
            ("LIMIT", "quota", [Passing, Passing, Passing]),
            ("OVERQUOTA", "Account exceeded command or bandwidth limits.", [Passing, Passing, Passing]),
            ("ALERT", "Too many simultaneous connections. (Failure)", [Busy, Busy, Passing]),
            ("ALERT", "Please log in via your web browser", [Denied, Passing, Passing]),
            ("ALERT", "Service temporarily unavailable", [Passing, Passing, Passing]),
            ("WEBALERT", "Please log in via your web browser", [Denied, Passing, Passing]),
            ("CONTACTADMIN", "no", [Lasting, Lasting, Lasting]),
            ("NONEXISTENT", "no", [Lasting, Lasting, Lasting]),
            ("SERVERBUG", "no", [Passing, Passing, Passing]),
            ("REFERRAL", "no", [Lasting, Lasting, Lasting]),
            ("X-NEW", "no", [Denied, Passing, Passing]),
        ] {
            let outcome = Outcome { code: code.to_owned(), text: text.to_owned(), ..Outcome::default() };
            for (phase, verdict) in [Phase::Login, Phase::Open, Phase::Use].into_iter().zip(verdicts) {
                let fault = Trouble::No(outcome.clone()).into_fault(phase, true);
                assert_eq!(fault.verdict, verdict, "[{code}] {text} in {phase:?}");
            }
            assert_ne!(Trouble::Bad(outcome.clone()).into_fault(Phase::Login, true).verdict, Denied);
            assert_ne!(Trouble::Bye(outcome).into_fault(Phase::Login, true).verdict, Denied);
        }
    }

    #[test]
    fn words_for_people_need_a_line_that_can_be_trusted() {
        let outcome = Outcome { code: "ALERT".to_owned(), text: "log in by web".to_owned(), ..Outcome::default() };
        let notice = |trusted| Trouble::No(outcome.clone()).into_fault(Phase::Login, trusted).notice;
        assert_eq!(notice(true).as_deref(), Some("log in by web"));
        assert_eq!(notice(false), None);
    }

    #[test]
    fn codes_unknown_to_the_parser_are_read_from_the_text() {
        for (line, code, argument, text) in [
            ("A1 NO [AUTHENTICATIONFAILED] bad\r\n", "AUTHENTICATIONFAILED", "", "bad"),
            ("A1 NO [messagelimit 1000 23221] some\r\n", "MESSAGELIMIT", "1000 23221", "some"),
            ("A1 OK [READ-ONLY] done\r\n", "READ-ONLY", "", "done"),
            ("A1 NO plain\r\n", "", "", "plain"),
        ] {
            let Ok((_, imap_proto::Response::Done { outcome, .. })) = imap_proto::Response::parse(line.as_bytes())
            else {
                panic!("{line}");
            };
            let expected = Outcome { code: code.to_owned(), argument: argument.to_owned(), text: text.to_owned() };
            assert_eq!(Outcome::of(&outcome), expected);
        }
    }

    #[test]
    fn a_message_limit_names_the_lowest_uid_or_none() {
        for (code, argument, lowest) in [
            ("MESSAGELIMIT", "1000 23221", Some(23221)),
            ("MESSAGELIMIT", "1000", Some(0)),
            ("MESSAGELIMIT", "", Some(0)),
            ("LIMIT", "1000 23221", None),
        ] {
            let outcome = Outcome { code: code.to_owned(), argument: argument.to_owned(), ..Outcome::default() };
            assert_eq!(outcome.message_limit(), lowest, "{argument}");
        }
    }
}
