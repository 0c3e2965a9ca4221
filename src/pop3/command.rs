//! A line becomes a command (RFC 1939 §3, with the lexical rules that real clients call for). Which state a command
//! belongs to is not decided here, and what USER, PASS and AUTH carry is not judged here.

use std::{fmt, num::NonZeroU32};

use super::reply::Reply;

/// A command with its arguments. It borrows from the line, so that a password is not copied; it has no `Debug`, so that
/// one is not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// RFC 2449 §5.
    Capa,
    /// RFC 2595 §4.
    Stls,
    /// The rest of the line without the spaces around it; it may be empty.
    User(&'a [u8]),
    /// Everything after exactly one space: spaces belong to a password (RFC 1939 §7).
    Pass(&'a [u8]),
    /// AUTH without an argument asks for the mechanisms (how Outlook discovers them).
    Mechanisms,
    /// RFC 5034 §4.
    Auth {
        /// The name of the mechanism.
        mechanism: &'a [u8],
        /// The initial response, still in base64.
        initial: Option<&'a [u8]>,
    },
    /// Ends the session, or before log-in the connection.
    Quit,
    /// Nothing.
    Noop,
    /// Count and size.
    Stat,
    /// Sizes, of all messages or of one.
    List(Option<Number>),
    /// Unique ids, of all messages or of one.
    Uidl(Option<Number>),
    /// A whole message.
    Retr(Number),
    /// A message's header and this many lines of its body.
    Top(Number, u64),
    /// Marks a message for deletion.
    Dele(Number),
    /// Takes all marks back.
    Rset,
}

/// A message number: 1 is the first message of the maildrop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Number(NonZeroU32);

impl Number {
    /// The number after this one.
    pub(super) fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// Where the message stands in the snapshot.
    pub(super) const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a line is not a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mistake {
    /// No such keyword, or none at all.
    #[error("unknown command")]
    Unknown,
    /// An argument is missing or is no number, or there is an octet that no command may have.
    #[error("syntax error")]
    Syntax,
    /// Not a message number.
    #[error("invalid message number")]
    Number,
    /// A number that no message can have: 0, or 2^31 and above.
    #[error("no such message")]
    Range,
    /// More arguments than the command has.
    #[error("unexpected argument")]
    Argument,
}

impl From<Mistake> for Reply {
    fn from(mistake: Mistake) -> Self {
        Self::err(mistake)
    }
}

impl<'a> Command<'a> {
    /// Parses a line that has lost its end.
    pub fn parse(line: &'a [u8]) -> Result<Self, Mistake> {
        let (keyword, rest) = line.split_at(line.iter().position(|octet| *octet == b' ').unwrap_or(line.len()));
        let is = |name: &str| keyword.eq_ignore_ascii_case(name.as_bytes());
        if is("USER") {
            return Ok(Self::User(trim(rest)));
        }
        if is("PASS") {
            return Ok(Self::Pass(rest.get(1..).unwrap_or_default()));
        }
        if is("AUTH") {
            return Ok(Self::auth(trim(rest)));
        }
        if !line.iter().all(|octet| matches!(octet, b' '..=b'~')) {
            return Err(Mistake::Syntax);
        }
        let mut arguments = rest.split(|octet| *octet == b' ').filter(|argument| !argument.is_empty());
        let command = match () {
            () if is("CAPA") => Self::Capa,
            () if is("STLS") => Self::Stls,
            () if is("QUIT") => Self::Quit,
            () if is("NOOP") => Self::Noop,
            () if is("STAT") => Self::Stat,
            () if is("RSET") => Self::Rset,
            () if is("LIST") => Self::List(arguments.next().map(number).transpose()?),
            () if is("UIDL") => Self::Uidl(arguments.next().map(number).transpose()?),
            () if is("RETR") => Self::Retr(number(arguments.next().ok_or(Mistake::Syntax)?)?),
            () if is("DELE") => Self::Dele(number(arguments.next().ok_or(Mistake::Syntax)?)?),
            () if is("TOP") => {
                let message = number(arguments.next().ok_or(Mistake::Syntax)?);
                let lines = digits(arguments.next().ok_or(Mistake::Syntax)?).ok_or(Mistake::Syntax)?;
                Self::Top(message?, lines)
            }
            () => return Err(Mistake::Unknown),
        };
        // For QUIT this means that no UPDATE happens: who cannot say QUIT correctly may not have meant it.
        arguments.next().map_or(Ok(command), |_| Err(Mistake::Argument))
    }

    fn auth(arguments: &'a [u8]) -> Self {
        match arguments.iter().position(|octet| *octet == b' ') {
            _ if arguments.is_empty() => Self::Mechanisms,
            None => Self::Auth { mechanism: arguments, initial: None },
            Some(at) => Self::Auth { mechanism: &arguments[..at], initial: Some(trim(&arguments[at..])) },
        }
    }
}

/// A message number: leading zeros are allowed, signs and everything else are not.
fn number(argument: &[u8]) -> Result<Number, Mistake> {
    let value = digits(argument).ok_or(Mistake::Number)?;
    let value = i32::try_from(value).map_err(|_| Mistake::Range)?;
    NonZeroU32::new(value.unsigned_abs()).map(Number).ok_or(Mistake::Range)
}

/// Decimal digits alone; what is too large for any use is as good as 2^63-1.
fn digits(argument: &[u8]) -> Option<u64> {
    const MOST: u64 = i64::MAX as u64;
    argument.iter().try_fold(0_u64, |value, octet| {
        let digit = octet.is_ascii_digit().then(|| u64::from(octet - b'0'))?;
        Some(value.saturating_mul(10).saturating_add(digit).min(MOST))
    })
}

/// Without the spaces around it; a tab is no space.
fn trim(octets: &[u8]) -> &[u8] {
    let Some(first) = octets.iter().position(|octet| *octet != b' ') else { return &[] };
    let last = octets.iter().rposition(|octet| *octet != b' ').unwrap_or(first);
    &octets[first..=last]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(value: u32) -> Number {
        Number(NonZeroU32::new(value).unwrap())
    }

    #[test]
    fn commands() {
        let auth = |mechanism, initial| Command::Auth { mechanism, initial };
        let cases: [(&[u8], Command<'_>); 33] = [
            (b"quit", Command::Quit), // T003
            (b"sTaT", Command::Stat), // T007
            (b"NOOP  ", Command::Noop),
            (b"CAPA", Command::Capa),
            (b"STLS", Command::Stls),
            (b"RSET", Command::Rset),
            (b"LIST", Command::List(None)),
            (b"LIST   ", Command::List(None)),
            (b"LIST 1  ", Command::List(Some(n(1)))), // T011
            (b"LIST  2", Command::List(Some(n(2)))),
            (b"LIST 002", Command::List(Some(n(2)))),
            (b"uidl 2147483647", Command::Uidl(Some(n(i32::MAX as u32)))),
            (b"UIDL", Command::Uidl(None)),
            (b"RETR 3", Command::Retr(n(3))),
            (b"DELE 3", Command::Dele(n(3))),
            (b"TOP 1 0", Command::Top(n(1), 0)),
            (b"TOP  1   2 ", Command::Top(n(1), 2)),
            (b"TOP 1 99999999999999999999999", Command::Top(n(1), i64::MAX as u64)),
            (b"USER tim", Command::User(b"tim")),
            (b"USER   a b  ", Command::User(b"a b")),
            (b"USER", Command::User(b"")), // T043
            (b"USER   ", Command::User(b"")),
            (b"USER \xff\x01", Command::User(b"\xff\x01")),
            (b"PASS sec ret", Command::Pass(b"sec ret")),
            (b"pass  sec  ", Command::Pass(b" sec  ")), // T040
            (b"PASS", Command::Pass(b"")),
            (b"PASS ", Command::Pass(b"")),
            (b"AUTH", Command::Mechanisms), // T065
            (b"AUTH ", Command::Mechanisms),
            (b"auth PLAIN", auth(b"PLAIN", None)),
            (b"AUTH PLAIN ", auth(b"PLAIN", None)),
            (b"AUTH  PLAIN  =  ", auth(b"PLAIN", Some(b"="))),
            (b"AUTH PLAIN a b", auth(b"PLAIN", Some(b"a b"))),
        ];
        for (line, expected) in cases {
            assert!(Command::parse(line) == Ok(expected), "{:?}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn mistakes() {
        let cases: [(&[u8], Mistake); 41] = [
            (b"", Mistake::Unknown), // T006
            (b"unkn", Mistake::Unknown),
            (b" LIST", Mistake::Unknown), // T013
            (b"LIST\t1", Mistake::Syntax),
            (b"LAST", Mistake::Unknown),      // T205
            (b"XTND XMIT", Mistake::Unknown), // T206
            (b"RPOP x", Mistake::Unknown),
            (b"*ENV 1", Mistake::Unknown),
            (b"HELP", Mistake::Unknown),
            (b"UTF8", Mistake::Unknown),                                      // T028
            (b"APOP tim c4c9334bac560ecc979e58001b3e22fb", Mistake::Unknown), // T076
            (b"LISTx", Mistake::Unknown),
            (b"STAT x", Mistake::Argument), // T009
            (b"NOOP x", Mistake::Argument),
            (b"RSET x", Mistake::Argument),
            (b"CAPA x", Mistake::Argument),
            (b"STLS x", Mistake::Argument), // T032
            (b"QUIT now", Mistake::Argument),
            (b"LIST 0", Mistake::Range), // T012
            (b"LIST -1", Mistake::Number),
            (b"LIST +1", Mistake::Number),
            (b"LIST 1xyz", Mistake::Number),
            (b"LIST 0x1", Mistake::Number),
            (b"LIST 1.0", Mistake::Number),
            (b"LIST 4294967297", Mistake::Range),
            (b"LIST 2147483648", Mistake::Range),
            (b"LIST 99999999999999999999", Mistake::Range),
            (b"LIST 1 2", Mistake::Argument),
            (b"LIST 1\0", Mistake::Syntax), // T016
            (b"LIST \x80", Mistake::Syntax),
            (b"LIST 1\r", Mistake::Syntax),
            (b"RETR", Mistake::Syntax),
            (b"DELE", Mistake::Syntax), // T201
            (b"DELE x", Mistake::Number),
            (b"DELE 1 2", Mistake::Argument),
            (b"TOP", Mistake::Syntax), // T183
            (b"TOP 1", Mistake::Syntax),
            (b"TOP 1xyz 2", Mistake::Number),
            (b"TOP 1 2xyz", Mistake::Syntax),
            (b"TOP 1 -1", Mistake::Syntax),
            (b"TOP 1 2 3", Mistake::Argument),
        ];
        for (line, expected) in cases {
            assert!(Command::parse(line) == Err(expected), "{:?}", String::from_utf8_lossy(line));
        }
    }
}
