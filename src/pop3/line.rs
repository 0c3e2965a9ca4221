//! Octets from a client become lines of bounded length. How the octets were cut into pieces on their way makes no
//! difference, and what has been taken out is overwritten, since any line may hold a password.

use zeroize::{Zeroize, Zeroizing};

use crate::mail::Secret;

/// What kind of line comes next. It decides how long the line may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expects {
    /// A command.
    Command,
    /// A response within a SASL exchange (RFC 5034 §4), which is no command and has a limit of its own.
    Response,
}

/// What the client sent.
pub enum Input {
    /// A line, without its end.
    Line(Secret<Vec<u8>>),
    /// A line over its limit. A command has been swallowed to its end; a response may still be coming, so it must be the
    /// last thing that is read.
    TooLong,
    /// Commands have ends; this has none within [`BOUND`] octets.
    Endless,
    /// Another protocol: the octets are a TLS handshake, or a first line of HTTP, SMTP or SSH. Its client would take our
    /// replies for something else, or somebody makes a browser speak to us.
    Foreign,
}

/// How many octets wait here at most, and within how many a line has to end.
pub const BOUND: usize = 65_536;

/// What has arrived and is not yet taken out.
pub struct Lines {
    octets: Zeroizing<Vec<u8>>,
    /// Where the first line that is not yet taken out begins; what lies before is overwritten.
    start: usize,
    /// How much of that line is known to hold no LF, so that an octet is looked at once however slowly a line drips in.
    searched: usize,
    /// Whether no line has been taken out yet.
    first: bool,
}

impl Lines {
    /// Nothing has arrived yet.
    pub fn new() -> Self {
        Self { octets: Zeroizing::default(), start: 0, searched: 0, first: true }
    }

    /// Adds what has arrived. The caller keeps to [`room`](Self::room).
    pub fn push(&mut self, octets: &[u8]) {
        if self.start > 0 || self.octets.capacity() - self.octets.len() < octets.len() {
            // A Vec that grew by itself would leave its old memory behind as it was.
            let wanted = (self.buffered() + octets.len()).next_power_of_two().max(SMALL);
            let mut roomier = Zeroizing::new(Vec::with_capacity(wanted));
            roomier.extend_from_slice(self.waiting());
            self.octets = roomier;
            self.start = 0;
        }
        self.octets.extend_from_slice(octets);
    }

    /// Takes out the next line, if it is complete. After [`Input::Endless`], [`Input::Foreign`] and a response that is too
    /// long, nothing else ever comes.
    pub fn next(&mut self, expects: Expects) -> Option<Input> {
        if self.first && expects == Expects::Command && is_foreign(self.waiting()) {
            return Some(Input::Foreign);
        }
        let waiting = self.waiting();
        let within = waiting.len().min(BOUND);
        let Some(at) = memchr::memchr(b'\n', &waiting[self.searched..within]) else {
            self.searched = within;
            return (within == BOUND).then_some(match expects {
                Expects::Command => Input::Endless,
                Expects::Response => Input::TooLong,
            });
        };
        let length = self.searched + at + 1;
        let line = &waiting[..length];
        let input = if length > limit(expects, line) {
            Input::TooLong
        } else {
            Input::Line(Secret::new(without_end(line).to_vec()))
        };
        self.consume(length);
        Some(input)
    }

    /// How many octets wait.
    pub fn buffered(&self) -> usize {
        self.octets.len() - self.start
    }

    /// How many more may wait. While there is no room the socket is not read, so that the client has to wait too.
    pub fn room(&self) -> usize {
        BOUND.saturating_sub(self.buffered())
    }

    /// Forgets everything, as if nothing had ever arrived.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// What has arrived and is not taken out, for whoever wants to know what comes next.
    pub fn waiting(&self) -> &[u8] {
        &self.octets[self.start..]
    }

    fn consume(&mut self, length: usize) {
        self.octets[self.start..self.start + length].zeroize();
        self.start += length;
        self.searched = 0;
        self.first = false;
        if self.start == self.octets.len() {
            self.start = 0;
            self.octets.clear();
            if self.octets.capacity() > SMALL {
                // Ten thousand idle sessions do not keep what a burst needed.
                self.octets = Zeroizing::default();
            }
        }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

/// The longest line allowed, with its end.
fn limit(expects: Expects, line: &[u8]) -> usize {
    match (expects, line) {
        (Expects::Response, _) => BOUND,
        (Expects::Command, [keyword @ .., _]) if keyword.len() > 4 => {
            let long = keyword[4] == b' ' && LONG.iter().any(|name| keyword[..4].eq_ignore_ascii_case(name));
            if long { LONG_LIMIT } else { ORDINARY_LIMIT }
        }
        (Expects::Command, _) => ORDINARY_LIMIT,
    }
}

/// The line without its LF and without one CR before that.
fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_foreign(begin: &[u8]) -> bool {
    FOREIGN.iter().any(|foreign| begin.get(..foreign.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(foreign)))
}

/// RFC 2449 §4: a command line has 255 octets at most, CRLF included.
const ORDINARY_LIMIT: usize = 255;

/// Real passwords, and OAuth2 tokens as initial responses, are longer than RFC 2449 foresaw: getmail sends 2 to 4 KB.
const LONG_LIMIT: usize = 16_384;

/// The commands whose lines may have [`LONG_LIMIT`] octets.
const LONG: [&[u8]; 4] = [b"USER", b"PASS", b"APOP", b"AUTH"];

/// A first line that begins like this is not POP3. 0x16 is the type of a TLS handshake record, whose client waits for an
/// answer and will not send an LF.
const FOREIGN: [&[u8]; 10] =
    [b"\x16", b"GET ", b"POST ", b"HEAD ", b"PUT ", b"CONNECT ", b"OPTIONS ", b"EHLO", b"HELO", b"SSH-"];

/// What is kept between commands: room for an ordinary command.
const SMALL: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when `octets` arrive in pieces of `size`, up to the first thing that ends the reading.
    fn cut(octets: &[u8], size: usize, expects: Expects) -> Vec<String> {
        let mut lines = Lines::new();
        let mut seen = Vec::new();
        for piece in octets.chunks(size) {
            lines.push(piece);
            while let Some(input) = lines.next(expects) {
                let end = match input {
                    Input::Line(line) => {
                        seen.push(String::from_utf8_lossy(line.expose()).into_owned());
                        continue;
                    }
                    Input::TooLong => "too long",
                    Input::Endless => "endless",
                    Input::Foreign => "foreign",
                };
                seen.push(format!("<{end}>"));
                if end != "too long" || expects == Expects::Response {
                    return seen;
                }
            }
        }
        seen
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let long = |keyword: &str, length: usize| format!("{keyword}{}", "x".repeat(length - keyword.len()));
        let cases: [(Vec<u8>, &[&str]); 12] = [
            (b"STAT\r\nQUIT\r\n".into(), &["STAT", "QUIT"]),
            (b"STAT\nLIST 1\n\r\n".into(), &["STAT", "LIST 1", ""]), // T008
            (b"a\rb\r\r\n\n".into(), &["a\rb\r", ""]),
            (b"no end".into(), &[]),
            (format!("{}\r\nok\n", long("STAT ", 253)).into(), &[&long("STAT ", 253), "ok"]),
            (format!("{}\r\nok\n", long("STAT ", 254)).into(), &["<too long>", "ok"]),
            (format!("{}\nok\n", long("STAT ", 254)).into(), &[&long("STAT ", 254), "ok"]),
            (format!("{}\nok\n", long("pAsS ", 16_383)).into(), &[&long("pAsS ", 16_383), "ok"]),
            (format!("{}\r\nok\n", long("PASS ", 16_383)).into(), &["<too long>", "ok"]),
            (format!("{}\nok\n", long("PASSx ", 300)).into(), &["<too long>", "ok"]),
            (format!("{}\nok\n", long("STAT ", 65_535)).into(), &["<too long>", "ok"]),
            (format!("{}\nok\n", long("USER ", 65_536)).into(), &["<endless>"]), // T015
        ];
        for (octets, expected) in cases {
            for size in [1, 2, 3, 7, 4096, usize::MAX] {
                assert_eq!(cut(&octets, size, Expects::Command), expected, "in pieces of {size}");
            }
        }
    }

    #[test]
    fn responses_have_their_own_limit() {
        // T072
        for (length, accepted) in [(60_000, true), (65_535, true), (65_536, false), (70_000, false)] {
            let line = "A".repeat(length);
            let expected = if accepted { line.clone() } else { "<too long>".to_owned() };
            for size in [1000, usize::MAX] {
                assert_eq!(cut(format!("{line}\n").as_bytes(), size, Expects::Response), [&*expected]);
            }
        }
    }

    #[test]
    fn other_protocols_are_known_by_their_first_octets() {
        // T018. A TLS client sends no LF before it is answered.
        let first =
            ["\x16", "\x16\x03\x01", "GET / HTTP/1.1\r\n", "get /", "EHLO x\r\n", "SSH-2.0-x\r\n", "OPTIONS * "];
        for octets in first {
            for size in [1, usize::MAX] {
                assert_eq!(cut(octets.as_bytes(), size, Expects::Command), ["<foreign>"], "{octets:?}");
            }
        }
        let ours = ["GET\r\n", "GETX\r\n", "CAPA\r\nGET /\r\n", "CAPA\r\n\x16\r\n"];
        for octets in ours {
            assert!(!cut(octets.as_bytes(), 1, Expects::Command).contains(&"<foreign>".to_owned()), "{octets:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(70_000));
        assert_eq!(cut(long.as_bytes(), 4096, Expects::Command), ["<foreign>"]);
    }

    #[test]
    fn nothing_is_left_of_a_line_that_was_taken_out() {
        let mut lines = Lines::new();
        lines.push(b"PASS secret\r\nST");
        assert!(matches!(lines.next(Expects::Command), Some(Input::Line(_))));
        assert_eq!(&lines.octets[..], b"\0\0\0\0\0\0\0\0\0\0\0\0\0ST");
        lines.push(b"AT\n");
        assert_eq!((lines.buffered(), lines.room()), (5, BOUND - 5));
        lines.clear();
        assert_eq!(lines.buffered(), 0);
    }
}
