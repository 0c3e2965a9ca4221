//! The messages of `tests/mail`, and what a POP3 client must see of them, written down once more
//! in the plainest way.

use std::{fs, path::Path};

use crate::support::script::Content;

/// A message by its file name. Two kinds are made instead of stored: `filler-N.eml` has N octets, `header-N.eml` has a
/// header of N octets, its blank line included, and three lines of body.
pub(super) fn mail(name: &str) -> Result<Vec<u8>, String> {
    if let Ok(octets) = fs::read(Path::new("tests/mail").join(name)) {
        return Ok(octets);
    }
    let number = |prefix| name.strip_prefix(prefix)?.strip_suffix(".eml")?.parse().ok();
    if let Some(octets) = number("filler-") {
        return Ok(Content::Filler(octets).octets());
    }
    number("header-").map(header).ok_or_else(|| format!("there is no tests/mail/{name}"))
}

fn header(octets: u64) -> Vec<u8> {
    let mut mail = b"Subject: a long header\r\n".to_vec();
    let mut line = 0;
    while (mail.len() as u64) + 40 < octets {
        line += 1;
        mail.extend_from_slice(format!("X-Line-{line:06}: padding\r\n").as_bytes());
    }
    let left = (octets as usize).saturating_sub(mail.len() + 2 + "X: \r\n".len());
    mail.extend_from_slice(format!("X: {}\r\n\r\nOne.\r\nTwo.\r\nThree.\r\n", "x".repeat(left)).as_bytes());
    mail
}

/// The octets between the first line of a RETR reply and the `.` that ends it.
pub(crate) fn stuffed(octets: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for (at, octet) in octets.iter().enumerate() {
        match octet {
            b'\n' if out.last() != Some(&b'\r') => out.extend_from_slice(b"\r\n"),
            b'.' => {
                if out.last() == Some(&b'\r') {
                    out.push(b'\n');
                }
                if at == 0 || out.last() == Some(&b'\n') {
                    out.push(b'.');
                }
                out.push(b'.');
            }
            other => out.push(*other),
        }
    }
    match out.last() {
        None | Some(b'\n') => {}
        Some(b'\r') => out.push(b'\n'),
        Some(_) => out.extend_from_slice(b"\r\n"),
    }
    out
}

/// The same of a TOP reply: the header, the blank line and so many lines of the body.
pub(crate) fn top(octets: &[u8], lines: usize) -> Vec<u8> {
    beginning(&stuffed(octets), lines).to_vec()
}

/// The same of a message as RETR shows it.
pub(crate) fn beginning(stuffed: &[u8], lines: usize) -> &[u8] {
    let mut body_lines = None;
    let mut end = 0;
    for line in stuffed.split_inclusive(|octet| *octet == b'\n') {
        if body_lines == Some(lines) {
            break;
        }
        end += line.len();
        body_lines = match body_lines {
            None if line == b"\r\n" => Some(0),
            None => None,
            Some(body_lines) => Some(body_lines + 1),
        };
    }
    &stuffed[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_c5() {
        for (octets, expected) in [
            ("", ""),
            ("A: b\r\n\r\n.\r\n", "A: b\r\n\r\n..\r\n"),
            ("A: b\n\n.x\n..y", "A: b\r\n\r\n..x\r\n...y\r\n"),
            ("x\r", "x\r\n"),
            ("A\r.b\r\n", "A\r\n..b\r\n"),
            ("a\r\r\n.\r\n", "a\r\r\n..\r\n"),
            ("\r\n.", "\r\n..\r\n"),
        ] {
            assert_eq!(String::from_utf8(stuffed(octets.as_bytes())).unwrap(), expected, "{octets:?}");
        }
    }

    #[test]
    fn top_counts_body_lines_only() {
        let mail = b"A: b\r\n\r\n.one\r\n\r\nthree\r\n";
        for (lines, expected) in [(0, "A: b\r\n\r\n"), (1, "A: b\r\n\r\n..one\r\n"), (2, "A: b\r\n\r\n..one\r\n\r\n")] {
            assert_eq!(top(mail, lines), expected.as_bytes());
        }
        assert_eq!(top(b"A: b\r\n", 3), b"A: b\r\n");
    }

    #[test]
    fn made_messages_have_the_octets_of_their_name() {
        for octets in [120, 4096, 40_000] {
            assert_eq!(mail(&format!("filler-{octets}.eml")).unwrap().len(), octets);
            let header = mail(&format!("header-{octets}.eml")).unwrap();
            assert_eq!(header.windows(4).position(|four| four == b"\r\n\r\n"), Some(octets - 4));
        }
        assert!(mail("no-such.eml").is_err());
    }
}
