//! The one maker of replies (RFC 1939 §3, RFC 2449 §6.4, RFC 3206): octets that are complete, that hold nothing but
//! printable ASCII, and whose words some clients decide by. Listings and messages are not made here.

use std::fmt::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};

/// Response codes (RFC 2449 §8, RFC 3206 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// The credentials are at fault, and nothing else: Eudora erases the stored password.
    Auth,
    /// The maildrop is in use.
    InUse,
    /// Trouble that will pass.
    SysTemp,
    /// Trouble that somebody must see to.
    SysPerm,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auth => "AUTH",
            Self::InUse => "IN-USE",
            Self::SysTemp => "SYS/TEMP",
            Self::SysPerm => "SYS/PERM",
        })
    }
}

/// A complete reply, ready to be sent: one line, but for the short lists that answer CAPA and AUTH.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    octets: Vec<u8>,
    code: Option<Code>,
}

impl Reply {
    /// `+OK` with a text.
    pub fn ok(text: impl fmt::Display) -> Self {
        Self::line("+OK ", None, text)
    }

    /// `-ERR` with a text and without a code.
    pub fn err(text: impl fmt::Display) -> Self {
        Self::line("-ERR ", None, text)
    }

    /// `-ERR` with a code and a text.
    pub fn coded(code: Code, text: impl fmt::Display) -> Self {
        Self::line(&format!("-ERR [{code}] "), Some(code), text)
    }

    /// The same with a few words of the upstream's own, for the cases in which they are meant for a person. At most 300
    /// octets of them are kept.
    #[must_use]
    pub fn noting(mut self, notice: &str) -> Self {
        self.octets.truncate(self.octets.len() - END.len());
        let end = TEXT_LIMIT.min(self.octets.len() + NOTICE_LIMIT);
        // Writing into a Vec cannot fail; what is over the limit is left out.
        let _ = write!(Text { octets: &mut self.octets, begin: 0, end }, ": {notice}");
        self.octets.extend_from_slice(END);
        self
    }

    /// The reply as it goes over the line, with its CRLF.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Whether it says `+OK`.
    pub fn is_ok(&self) -> bool {
        self.octets.starts_with(b"+OK")
    }

    /// Its response code.
    pub const fn code(&self) -> Option<Code> {
        self.code
    }

    fn line(status: &str, code: Option<Code>, text: impl fmt::Display) -> Self {
        let mut octets = status.as_bytes().to_vec();
        let begin = octets.len();
        let _ = write!(Text { octets: &mut octets, begin, end: TEXT_LIMIT }, "{text}");
        octets.extend_from_slice(END);
        Self { octets, code }
    }

    /// `+OK` with a text, a few lines, and the dot. The lines are ours: printable, and none begins with a dot.
    pub(super) fn list<'a>(text: &str, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut reply = Self::ok(text);
        for line in lines {
            reply.octets.extend_from_slice(line.as_bytes());
            reply.octets.extend_from_slice(END);
        }
        reply.octets.extend_from_slice(b".\r\n");
        reply
    }

    /// A SASL challenge (RFC 5034 §4): `+`, a space even if nothing follows, and base64. It is no reply line, so that the
    /// limit of 512 octets does not apply.
    pub(super) fn challenge(challenge: &[u8]) -> Self {
        Self { octets: format!("+ {}\r\n", STANDARD.encode(challenge)).into_bytes(), code: None }
    }
}

/// The canonical replies; translation into words happens nowhere else. fetchmail takes `lock` and `wait` for a maildrop
/// in use and `service` with `unavailable` for trouble that passes, whatever the code; anything else about a log-in is a
/// wrong password to it.
impl Reply {
    /// The credentials are wrong.
    pub fn denied() -> Self {
        Self::coded(Code::Auth, "invalid user name or password")
    }

    /// The service is not to be had at the moment: at log-in, or at once after connecting.
    pub fn unavailable() -> Self {
        Self::coded(Code::SysTemp, "mail service temporarily unavailable, try again later")
    }

    /// The mailbox cannot be opened until somebody sees to it.
    pub fn cannot_open() -> Self {
        Self::coded(Code::SysPerm, "mailbox cannot be opened, contact the administrator")
    }

    /// Another session has the maildrop.
    pub fn in_use() -> Self {
        Self::coded(Code::InUse, "maildrop is locked by another session")
    }

    /// The answer to a command that comes while the server is being stopped.
    pub fn shutting_down() -> Self {
        Self::coded(Code::SysTemp, "server shutting down, try again later")
    }

    /// The message could not be fetched this time.
    pub fn message_unavailable() -> Self {
        Self::coded(Code::SysTemp, "message unavailable, try again later")
    }

    /// The mailbox is not the one that was listed; nothing that needs it can be answered any more.
    pub fn maildrop_changed() -> Self {
        Self::coded(Code::SysTemp, "maildrop changed, please log in again")
    }

    pub(super) fn tls_required() -> Self {
        Self::coded(Code::SysPerm, "TLS required, use STLS or port 995")
    }

    pub(super) fn no_login_from_here() -> Self {
        Self::coded(Code::SysPerm, "login without TLS is not allowed from your network")
    }

    pub(super) fn wrong_state() -> Self {
        Self::err("command not valid in this state")
    }

    pub(super) fn line_too_long() -> Self {
        Self::err("line too long")
    }

    pub(super) fn too_many_bad_commands() -> Self {
        Self::err("too many bad commands")
    }
}

/// Lets through what a reply may hold: printable ASCII, no `[` where a code would stand (RFC 2449 §6.4), and no angle
/// brackets, since clients take `<…@…>` for the timestamp of APOP. The rest becomes something harmless.
struct Text<'a> {
    octets: &'a mut Vec<u8>,
    begin: usize,
    end: usize,
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars().take(self.end.saturating_sub(self.octets.len())) {
            self.octets.push(match character {
                '[' if self.octets.len() == self.begin => b'(',
                '<' => b'(',
                '>' => b')',
                ' '..='~' => character as u8,
                _ => b'?',
            });
        }
        Ok(())
    }
}

const END: &[u8] = b"\r\n";

/// RFC 2449 §4: the first line of a reply has 512 octets at most, CRLF included.
const TEXT_LIMIT: usize = 512 - END.len();

/// How much of the upstream's words a client gets to read.
pub const NOTICE_LIMIT: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Reply) -> &str {
        std::str::from_utf8(reply.octets()).unwrap()
    }

    #[test]
    fn texts_cannot_become_protocol() {
        // F-24, T096
        let cases = [
            ("plain words", "-ERR plain words\r\n"),
            ("[IN-USE] trick\r\n+OK", "-ERR (IN-USE] trick??+OK\r\n"),
            ("see [x] <a@b>", "-ERR see [x] (a@b)\r\n"),
            ("für\0\u{7f}", "-ERR f?r??\r\n"),
            ("", "-ERR \r\n"),
        ];
        for (given, expected) in cases {
            assert_eq!(text(&Reply::err(given)), expected);
        }
        assert_eq!(text(&Reply::coded(Code::SysTemp, "[AUTH] no")), "-ERR [SYS/TEMP] (AUTH] no\r\n");
        assert_eq!(text(&Reply::ok(format_args!("{} {}", "[", "["))), "+OK ( [\r\n");
    }

    #[test]
    fn lines_stay_within_512_octets() {
        let long = "x".repeat(2000);
        assert_eq!(Reply::ok(&long).octets().len(), 512);
        assert_eq!(Reply::coded(Code::SysPerm, &long).noting("y").octets().len(), 512);
        let noted = Reply::denied().noting(&format!("[x]\r\n{long}"));
        assert_eq!(noted.octets().len(), Reply::denied().octets().len() + 300);
        assert!(text(&noted).starts_with("-ERR [AUTH] invalid user name or password: [x]??xxx"));
        assert_eq!(noted.code(), Some(Code::Auth));
    }

    #[test]
    fn canonical_texts() {
        // The words of G.2 are fixed.
        let cases = [
            (Reply::denied(), "-ERR [AUTH] invalid user name or password\r\n"),
            (Reply::unavailable(), "-ERR [SYS/TEMP] mail service temporarily unavailable, try again later\r\n"),
            (Reply::cannot_open(), "-ERR [SYS/PERM] mailbox cannot be opened, contact the administrator\r\n"),
            (Reply::in_use(), "-ERR [IN-USE] maildrop is locked by another session\r\n"),
            (Reply::shutting_down(), "-ERR [SYS/TEMP] server shutting down, try again later\r\n"),
            (Reply::message_unavailable(), "-ERR [SYS/TEMP] message unavailable, try again later\r\n"),
            (Reply::maildrop_changed(), "-ERR [SYS/TEMP] maildrop changed, please log in again\r\n"),
            (Reply::challenge(b""), "+ \r\n"), // T061
            (Reply::challenge(b"Username:"), "+ VXNlcm5hbWU6\r\n"),
            (Reply::list("list follows", ["PLAIN", "LOGIN"]), "+OK list follows\r\nPLAIN\r\nLOGIN\r\n.\r\n"),
        ];
        for (reply, expected) in cases {
            assert_eq!(text(&reply), expected);
            assert_eq!(reply.is_ok(), expected.starts_with("+OK"));
        }
    }
}
