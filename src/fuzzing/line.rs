//! Octets from a client: lexer and parser.

use crate::pop3::{
    command::Command,
    line::{BOUND, Expects, Input, Lines},
};

/// What comes out of the lexer where commands are expected, and what the parser makes of it.
pub(super) fn commands(pieces: &[&[u8]]) -> Vec<String> {
    lines(pieces, Expects::Command, |line| {
        let long = [b"USER ", b"PASS ", b"APOP ", b"AUTH "];
        let long = line.get(..5).is_some_and(|begin| long.iter().any(|name| begin.eq_ignore_ascii_case(*name)));
        assert!(line.len() < if long { 16_384 } else { 255 }, "a line of {} octets", line.len());
        let shouted = without_case(line);
        match Command::parse(line) {
            Ok(command) => {
                let written = written(&command);
                assert!(Command::parse(&written) == Ok(command), "{} is another command", written.escape_ascii());
                written.escape_ascii().to_string()
            }
            Err(mistake) => {
                assert!(Command::parse(&shouted) == Err(mistake), "{} is another mistake", shouted.escape_ascii());
                mistake.to_string()
            }
        }
    })
}

/// What comes out of the lexer where responses are expected.
pub(super) fn responses(pieces: &[&[u8]]) -> Vec<String> {
    lines(pieces, Expects::Response, |line| line.escape_ascii().to_string())
}

/// Reads as a session does: never more than there is room for, and not beyond what ends it.
fn lines(pieces: &[&[u8]], expects: Expects, each: impl Fn(&[u8]) -> String) -> Vec<String> {
    let mut lines = Lines::new();
    let mut seen = Vec::new();
    for mut piece in pieces.iter().copied() {
        while !piece.is_empty() {
            let (now, later) = piece.split_at(piece.len().min(lines.room()));
            assert!(!now.is_empty(), "no room, and nothing comes out");
            lines.push(now);
            piece = later;
            assert!(lines.buffered() <= BOUND);
            while let Some(input) = lines.next(expects) {
                match input {
                    Input::Line(line) => {
                        assert!(!line.expose().contains(&b'\n'));
                        seen.push(each(line.expose()));
                    }
                    Input::TooLong if expects == Expects::Command => seen.push("<too long>".to_owned()),
                    Input::TooLong | Input::Endless | Input::Foreign => {
                        seen.push("<the end>".to_owned());
                        return seen;
                    }
                }
            }
        }
    }
    seen
}

/// The one way to write a command.
fn written(command: &Command<'_>) -> Vec<u8> {
    let words = |words: &[&[u8]]| words.join(&b' ');
    let with = |keyword: &str, argument: String| format!("{keyword} {argument}").into_bytes();
    match command {
        Command::Capa => b"CAPA".to_vec(),
        Command::Stls => b"STLS".to_vec(),
        Command::User(user) => words(&[b"USER", user]),
        Command::Pass(password) => words(&[b"PASS", password]),
        Command::Mechanisms => b"AUTH".to_vec(),
        Command::Auth { mechanism, initial: None } => words(&[b"AUTH", mechanism]),
        Command::Auth { mechanism, initial: Some(initial) } => words(&[b"AUTH", mechanism, initial]),
        Command::Quit => b"QUIT".to_vec(),
        Command::Noop => b"NOOP".to_vec(),
        Command::Stat => b"STAT".to_vec(),
        Command::List(None) => b"LIST".to_vec(),
        Command::List(Some(number)) => with("LIST", number.to_string()),
        Command::Uidl(None) => b"UIDL".to_vec(),
        Command::Uidl(Some(number)) => with("UIDL", number.to_string()),
        Command::Retr(number) => with("RETR", number.to_string()),
        Command::Top(number, lines) => with("TOP", format!("{number} {lines}")),
        Command::Dele(number) => with("DELE", number.to_string()),
        Command::Rset => b"RSET".to_vec(),
    }
}

/// The line with its keyword in the other case: no letter's case makes a difference there.
fn without_case(line: &[u8]) -> Vec<u8> {
    let end = line.iter().position(|octet| *octet == b' ').unwrap_or(line.len());
    let swapped = line[..end].iter().map(|octet| match octet {
        b'a'..=b'z' => octet.to_ascii_uppercase(),
        octet => octet.to_ascii_lowercase(),
    });
    swapped.chain(line[end..].iter().copied()).collect()
}
