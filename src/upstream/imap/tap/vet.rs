//! Rewrites a status line (RFC 3501 §7.1) so that async-imap's parser takes it whatever the server's habits: printable
//! ASCII, one space between words, a space behind the response code, flags that are flags. Everything it cannot parse
//! ends the connection, and some things would end the process.

use super::Malformed;

/// A status line, read and rewritten.
#[derive(Debug)]
pub(super) struct Status {
    /// `OK`, `NO`, `BAD`, `BYE` or `PREAUTH`.
    word: &'static str,
    /// The response code with its brackets; may be empty.
    code: String,
    text: String,
}

impl Status {
    /// Reads what follows the tag or the `*`. `None`: it is no status at all.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let end = line.iter().position(|octet| *octet == b' ').unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let word = WORDS.into_iter().find(|known| word.eq_ignore_ascii_case(known.as_bytes()))?;
        let rest = rest.trim_ascii_start();
        let (code, text) = match code_end(rest) {
            Some(end) => (code(&rest[1..end]), &rest[end + 1..]),
            None => (String::new(), rest),
        };
        let text = printable(text.trim_ascii()).chars().take(TEXT).collect();
        Some(Self { word, code, text })
    }

    /// Writes the line for async-imap, behind `tag` (which may be `*`).
    pub(super) fn write(&self, tag: &[u8], out: &mut impl Extend<u8>) {
        // imap-proto drops the octet behind a code unseen, and wants some text behind it.
        let text = if self.text.is_empty() { "." } else { &self.text };
        for part in [tag, b" ", self.word.as_bytes(), b" ", self.code.as_bytes()] {
            out.extend(part.iter().copied());
        }
        if !self.code.is_empty() {
            out.extend(*b" ");
        }
        out.extend(text.bytes());
        if text.ends_with('}') {
            // In an argument of BADCHARSET it would announce a literal, of half a gigabyte or of the responses behind it.
            out.extend(*b" ");
        }
        out.extend(*b"\r\n");
    }

    /// The names in a `[CAPABILITY …]` code.
    pub(super) fn capabilities(&self) -> Option<&str> {
        self.code.strip_prefix("[CAPABILITY ")?.strip_suffix(']')
    }
}

/// The tag of a tagged response: `1*<any ASTRING-CHAR except "+">` (RFC 3501 §9), and popgate's own are only letters and
/// digits.
pub(super) fn tag(line: &[u8]) -> Result<&[u8], Malformed> {
    let end = line.iter().position(|octet| *octet == b' ').ok_or(Malformed("a line that is no response"))?;
    let tag = &line[..end];
    if tag.is_empty() || !tag.iter().all(u8::is_ascii_alphanumeric) {
        return Err(Malformed("a line that is no response"));
    }
    Ok(tag)
}

/// Words joined by single spaces.
pub(super) fn words(text: &[u8]) -> String {
    let printable = printable(text);
    let mut words = String::with_capacity(printable.len());
    for word in printable.split_ascii_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    words
}

/// Where the response code ends: at the first `]` outside a quoted string.
fn code_end(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'[') {
        return None;
    }
    let mut quoted = false;
    text.iter().position(|octet| {
        quoted ^= *octet == b'"';
        !quoted && *octet == b']'
    })
}

fn code(inner: &[u8]) -> String {
    let words = words(inner);
    let (name, arguments) = words.split_once(' ').unwrap_or((&words, ""));
    let name = name.to_ascii_uppercase();
    match (name.as_str(), arguments) {
        (_, "") => format!("[{name}]"),
        ("PERMANENTFLAGS", flags) => format!("[{name} ({})]", flag_list(flags)),
        (_, arguments) => format!("[{name} {arguments}]"),
    }
}

/// The flags that are atoms, with or without a backslash, and `\*`; single spaces between.
fn flag_list(flags: &str) -> String {
    let is_flag = |flag: &&str| {
        let atom = flag.strip_prefix('\\').unwrap_or(flag);
        *flag == "\\*" || !atom.is_empty() && atom.bytes().all(|octet| !b"(){%*\"\\]".contains(&octet))
    };
    let flags = flags.trim_start_matches('(').trim_end_matches(')');
    flags.split(' ').filter(is_flag).collect::<Vec<_>>().join(" ")
}

fn printable(text: &[u8]) -> String {
    text.iter().map(|octet| if matches!(octet, b' '..=b'~') { char::from(*octet) } else { '?' }).collect()
}

const WORDS: [&str; 5] = ["OK", "NO", "BAD", "BYE", "PREAUTH"];

/// Longer texts are cut; nothing popgate decides by stands that far behind.
const TEXT: usize = 1_000;

#[cfg(test)]
mod tests {
    use async_imap::imap_proto::{Response, ResponseCode};
    use proptest::prelude::*;

    use super::*;

    fn rewritten(line: &str) -> String {
        let mut out = Vec::new();
        Status::read(line.as_bytes()).expect(line).write(b"A1", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_imap_proto_stumbles_over_is_mended() {
        for (line, expected) in [
            ("OK", "A1 OK .\r\n"),
            ("ok done", "A1 OK done\r\n"),
            ("OK [ALERT]\u{e9}x", "A1 OK [ALERT] ??x\r\n"),
            ("OK [ALERT]", "A1 OK [ALERT] .\r\n"),
            ("OK  [capability IMAP4rev1  SASL-IR ] in", "A1 OK [CAPABILITY IMAP4rev1 SASL-IR] in\r\n"),
            ("OK [PERMANENTFLAGS (\\Seen  \\* $a (x) %b)] .", "A1 OK [PERMANENTFLAGS (\\Seen \\* $a)] .\r\n"),
            ("OK [PERMANENTFLAGS ()] .", "A1 OK [PERMANENTFLAGS ()] .\r\n"),
            ("NO [X \"a]b\"] text {12}", "A1 NO [X \"a]b\"] text {12} \r\n"),
            ("NO [open", "A1 NO [open\r\n"),
            // It would take what follows for a literal, be it half a gigabyte or the next response.
            ("NO [BADCHARSET ({536862720}", "A1 NO [BADCHARSET ({536862720} \r\n"),
            (r#"NO [BADCHARSET ("a\"]" {9}"#, "A1 NO [BADCHARSET (\"a\\\"] \" {9} \r\n"),
            ("NO [BADCHARSET ({9}]", "A1 NO [BADCHARSET ({9}] .\r\n"),
            ("OK [PERMANENTFLAGS (* \\Seen)] .", "A1 OK [PERMANENTFLAGS (\\Seen)] .\r\n"),
            ("OK [UIDVALIDITY 4294967296] .", "A1 OK [UIDVALIDITY 4294967296] .\r\n"),
            ("OK [HIGHESTMODSEQ 18446744073709551616] .", "A1 OK [HIGHESTMODSEQ 18446744073709551616] .\r\n"),
            ("OK [COPYUID 1 1:4294967295,7 0] .", "A1 OK [COPYUID 1 1:4294967295,7 0] .\r\n"),
            ("BYE \u{7}bell", "A1 BYE ?bell\r\n"),
        ] {
            assert_eq!(rewritten(line), expected);
            assert!(Response::parse(expected.as_bytes()).is_ok(), "{expected}");
        }
        assert!(Status::read(b"SEARCH 1").is_none());
        assert!(Status::read(b"").is_none());
    }

    #[test]
    fn codes_reach_the_parser() {
        let line = rewritten("OK [UIDVALIDITY 17] .");
        let Ok((_, Response::Done { outcome, .. })) = Response::parse(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(outcome.code, Some(ResponseCode::UidValidity(17)));
    }

    proptest! {
        /// Whatever is in a status line, the parser takes it as one response and waits for nothing behind it.
        #[test]
        fn every_status_line_is_one_response(
            code in "(BADCHARSET|CAPABILITY|PERMANENTFLAGS|COPYUID|UIDNEXT|ALERT|X)?",
            rest in r#"([ ()\[\]"\\\*%a=:,7\x7f-\xff]|\{9\}){0,8}"#,
        ) {
            for line in [format!("OK [{code} {rest}"), format!("OK [{code}]{rest}"), format!("OK [{code} ({rest}")] {
                let line = rewritten(&line);
                prop_assert!(Response::parse(line.as_bytes()).is_ok_and(|(rest, _)| rest.is_empty()), "{}", line);
            }
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let line = format!("NO {}", "x".repeat(60_000));
        assert!(rewritten(&line).len() < 1_100);
    }

    #[test]
    fn tags_are_plain() {
        assert_eq!(tag(b"A0001 OK"), Ok(&b"A0001"[..]));
        for line in ["", " OK", "A+1 OK", "A1", "\x16\x03 x", "<html> x"] {
            assert!(tag(line.as_bytes()).is_err(), "{line}");
        }
    }
}
