//! Messages on their way to a client: whoever reads them gets the message and ends where it ends.

use super::same_however_cut;
use crate::pop3::{stuff::Stuffer, top::Top};

/// A message, and its beginning as TOP sends it; how many lines of it, its length decides.
pub(super) fn stuffer(octets: &[u8]) {
    let (stuffed, announced) = same_however_cut(octets, stuffed);
    let message = normalised(octets);
    assert_eq!(announced, message.len() as u64, "LIST would have lied");
    reads_as(&stuffed, &message);

    let body_lines = octets.len() as u64 % 5;
    let (kept, finished) = same_however_cut(octets, |pieces| top(pieces, body_lines));
    assert!(octets.starts_with(&kept) && (finished || kept == octets));
    reads_as(&self::stuffed(&[&kept]).0, &first_lines(&message, body_lines));
}

fn stuffed(pieces: &[&[u8]]) -> (Vec<u8>, u64) {
    let (mut stuffer, mut out) = (Stuffer::new(), Vec::new());
    pieces.iter().for_each(|piece| stuffer.push(piece, &mut out));
    let octets = stuffer.octets();
    stuffer.finish(&mut out);
    (out, octets)
}

fn top(pieces: &[&[u8]], body_lines: u64) -> (Vec<u8>, bool) {
    let (mut top, mut kept) = (Top::new(body_lines), Vec::new());
    pieces.iter().for_each(|piece| kept.extend(&piece[..top.push(piece)]));
    (kept, top.finished())
}

/// The reader of RFC 1939 gets the message; those who end a line at LF or at CR as well end at the same place.
fn reads_as(stuffed: &[u8], message: &[u8]) {
    let stream = [stuffed, b"+OK next\r\n.\r\n"].concat();
    let ends: [fn(&[u8]) -> usize; 3] = [
        |rest| if rest.starts_with(b"\r\n") { 2 } else { 0 },
        |rest| if rest.starts_with(b"\r\n") { 2 } else { usize::from(rest.starts_with(b"\n")) },
        |rest| {
            if rest.starts_with(b"\r\n") { 2 } else { usize::from(rest.starts_with(b"\n") || rest.starts_with(b"\r")) }
        },
    ];
    for (leniency, ends) in ends.into_iter().enumerate() {
        let (read, end) = read(&stream, ends);
        assert_eq!(end, stuffed.len(), "the reader with leniency {leniency} ends elsewhere");
        if leniency == 0 {
            assert_eq!(read, message);
        }
    }
}

/// What a client makes of a multi-line reply, and where it takes it to end. `ends` says how many octets of a line's end
/// stand at the beginning of what it is given.
fn read(stream: &[u8], ends: fn(&[u8]) -> usize) -> (Vec<u8>, usize) {
    let (mut message, mut line, mut at) = (Vec::new(), Vec::new(), 0);
    while at < stream.len() {
        let end = ends(&stream[at..]);
        if end == 0 {
            line.push(stream[at]);
            at += 1;
            continue;
        }
        if line == b"." {
            return (message, at + end);
        }
        message.extend(line.strip_prefix(b".").unwrap_or(&line));
        message.extend(&stream[at..at + end]);
        line.clear();
        at += end;
    }
    panic!("no end")
}

/// The message with every line ended by CRLF, and with CRLF for a CR that stands before a dot.
fn normalised(body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for (at, octet) in body.iter().enumerate() {
        match (octet, at.checked_sub(1).map(|before| body[before])) {
            (b'\n', before) if before != Some(b'\r') => message.extend(b"\r\n"),
            (b'.', Some(b'\r')) => message.extend(b"\n."),
            _ => message.push(*octet),
        }
    }
    match message.last() {
        None | Some(b'\n') => {}
        Some(b'\r') => message.push(b'\n'),
        Some(_) => message.extend(b"\r\n"),
    }
    message
}

/// The header, the blank line and so many lines more.
fn first_lines(message: &[u8], body_lines: u64) -> Vec<u8> {
    let mut past_header = None;
    let wanted = message.split_inclusive(|octet| *octet == b'\n').take_while(|line| {
        let before = past_header;
        past_header = past_header.map(|lines| lines + 1).or_else(|| (*line == b"\r\n").then_some(0));
        before.is_none_or(|lines| lines < body_lines)
    });
    wanted.flatten().copied().collect()
}
