//! The text of a transcript, read into steps. What a line may be stands in `tests/README.md`.

use std::{fs, path::Path, time::Duration};

use super::mail::{mail, stuffed, top};

/// A transcript.
pub(crate) struct Score {
    pub(crate) options: Options,
    pub(crate) steps: Vec<Step>,
}

/// What the `with` lines say.
#[derive(Default)]
pub(crate) struct Options(Vec<(String, String)>);

/// One line of a transcript.
pub(crate) struct Step {
    /// Where it stands, to be shown.
    pub(crate) place: String,
    /// The line itself.
    pub(crate) text: String,
    pub(crate) act: Act,
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Act {
    /// Time passes; on this leg nothing is heard.
    Wait(Leg, Duration),
    /// `C:` or `s:`: octets are sent to popgate.
    Send(Leg, Vec<Piece>),
    /// `S:` or `c:`: octets come from popgate.
    Expect(Leg, Vec<Piece>),
    /// `C: !close`, `s: !close`: the peer hangs up.
    HangUp(Leg),
    /// `C: !end`: the peer says that it sends no more, and goes on reading.
    End(Leg),
    /// `C: !reset`, `s: !reset`: the line breaks.
    Reset(Leg),
    /// `S: !close`, `c: !close`: popgate hangs up in good order.
    Closed(Leg),
    /// `S: !abort`, `c: !abort`: popgate breaks the line.
    Aborted(Leg),
    /// `C: !tls`, `s: !tls`: the peer's side of a TLS handshake.
    Tls(Leg),
    /// `s: !tls refused`: the same, and popgate does not want to go on.
    TlsRefused(Leg),
    /// `C: !deaf`, `C: !hear`: the peer reads no more, and reads again.
    Hear(Leg, bool),
    /// `C: !connect`: another client connects.
    Connect,
    /// `s: !refuse`: popgate dials, and nobody answers.
    Refuse,
}

/// Which side of popgate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leg {
    Pop3,
    Imap,
}

/// Part of a line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    Octets(Vec<u8>),
    /// `…`
    Any,
    /// `$` at the beginning: the tag of a command; answering takes the oldest that is open.
    Tag,
    /// `$=`: the tag of the oldest open command, which stays open.
    OpenTag,
}

impl Options {
    /// The last value given for a key.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// All keys, for a check that each is known.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }
}

impl Score {
    /// Reads `tests/transcripts/NAME.txt`.
    pub(crate) fn load(name: &str) -> Result<Self, String> {
        let path = Path::new("tests/transcripts").join(name).with_extension("txt");
        let text = fs::read_to_string(&path).map_err(|fault| format!("{}: {fault}", path.display()))?;
        Self::parse(name, &text)
    }

    /// Reads a text; `name` is for the places.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut score = Self { options: Options::default(), steps: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let place = format!("{name}:{}", number + 1);
            score.line(&place, line).map_err(|fault| format!("{place}: {fault}: {line}"))?;
        }
        Ok(score)
    }

    fn line(&mut self, place: &str, line: &str) -> Result<(), String> {
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            return Ok(());
        }
        if let Some(name) = line.strip_prefix("use ") {
            let used = Self::load(name)?;
            self.options.0.extend(used.options.0);
            self.steps.extend(used.steps);
            return Ok(());
        }
        if let Some(options) = line.strip_prefix("with ") {
            for option in options.split_whitespace() {
                let (key, value) = option.split_once('=').ok_or("an option is KEY=VALUE")?;
                self.options.0.push((key.into(), value.into()));
            }
            return Ok(());
        }
        let act = act(trimmed, trimmed.len() < line.len())?;
        self.steps.push(Step { place: place.into(), text: line.into(), act });
        Ok(())
    }
}

fn act(line: &str, indented: bool) -> Result<Act, String> {
    let leg = if indented { Leg::Imap } else { Leg::Pop3 };
    if let Some(time) = line.strip_prefix("!wait ") {
        let (number, unit) = time.split_at(time.trim_end_matches(char::is_alphabetic).len());
        let number: u64 = number.parse().map_err(|_| "a time is 600s or 500ms")?;
        return match unit {
            "s" => Ok(Act::Wait(leg, Duration::from_secs(number))),
            "ms" => Ok(Act::Wait(leg, Duration::from_millis(number))),
            _ => Err("a time is 600s or 500ms".into()),
        };
    }
    let (who, text) = line.split_once(':').ok_or("neither C: S: c: s: nor !wait, use, with, #")?;
    let from_popgate = match (who, indented) {
        ("C", false) | ("s", true) => false,
        ("S", false) | ("c", true) => true,
        _ => return Err("POP3 (C: S:) stands at the left edge, IMAP (c: s:) is indented".into()),
    };
    let text = text.strip_prefix(' ').unwrap_or(text);
    match (text, from_popgate) {
        ("!close", false) => Ok(Act::HangUp(leg)),
        ("!end", false) => Ok(Act::End(leg)),
        ("!reset", false) => Ok(Act::Reset(leg)),
        ("!tls", false) => Ok(Act::Tls(leg)),
        ("!tls refused", false) => Ok(Act::TlsRefused(leg)),
        ("!deaf", false) => Ok(Act::Hear(leg, false)),
        ("!hear", false) => Ok(Act::Hear(leg, true)),
        ("!connect", false) if leg == Leg::Pop3 => Ok(Act::Connect),
        ("!refuse", false) if leg == Leg::Imap => Ok(Act::Refuse),
        ("!close", true) => Ok(Act::Closed(leg)),
        ("!abort", true) => Ok(Act::Aborted(leg)),
        _ if text.starts_with('!') => Err("unknown !word here".into()),
        (_, false) => {
            let pieces = pieces(text, leg)?;
            if pieces.contains(&Piece::Any) {
                return Err("what is sent is known: no … here".into());
            }
            Ok(Act::Send(leg, pieces))
        }
        (_, true) => Ok(Act::Expect(leg, pieces(text, leg)?)),
    }
}

/// A line's octets, its line end included.
fn pieces(text: &str, leg: Leg) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut octets = Vec::new();
    let mut rest = text;
    if leg == Leg::Imap
        && let Some(tagged) = rest.strip_prefix("$ ")
    {
        pieces.push(Piece::Tag);
        octets.push(b' ');
        rest = tagged;
    }
    let mut piece = |octets: &mut Vec<u8>, piece| {
        if !octets.is_empty() {
            pieces.push(Piece::Octets(std::mem::take(octets)));
        }
        pieces.extend(piece);
    };
    let mut ends_line = true;
    while let Some(first) = rest.chars().next() {
        let (taken, special) = special(rest, leg)?;
        match special {
            Special::Octets(special) => octets.extend_from_slice(&special),
            Special::Whole(special) => {
                octets.extend_from_slice(&special);
                ends_line &= taken < rest.len();
            }
            Special::Piece(special) => piece(&mut octets, Some(special)),
            Special::NoLineEnd => ends_line = false,
            Special::None => octets.extend_from_slice(first.to_string().as_bytes()),
        }
        rest = &rest[taken.max(first.len_utf8())..];
    }
    if ends_line {
        octets.extend_from_slice(b"\r\n");
    }
    piece(&mut octets, None);
    Ok(pieces)
}

enum Special {
    None,
    Octets(Vec<u8>),
    /// Octets that have their own line end, if they are the last of a line.
    Whole(Vec<u8>),
    Piece(Piece),
    NoLineEnd,
}

/// What the text begins with, and how much of the text that is.
fn special(text: &str, leg: Leg) -> Result<(usize, Special), String> {
    let escape = |octet| Ok((2, Special::Octets(vec![octet])));
    match text.as_bytes() {
        b"\\" => Ok((1, Special::NoLineEnd)),
        [b'\\', b'0', ..] => escape(0),
        [b'\\', b't', ..] => escape(b'\t'),
        [b'\\', b'r', ..] => escape(b'\r'),
        [b'\\', b'n', ..] => escape(b'\n'),
        [b'\\', b'x', ..] => {
            let digits = text.get(2..4).ok_or("\\x needs two digits")?;
            let octet = u8::from_str_radix(digits, 16).map_err(|_| "\\x needs two digits")?;
            Ok((4, Special::Octets(vec![octet])))
        }
        [b'$', b'=', ..] if leg == Leg::Imap => Ok((2, Special::Piece(Piece::OpenTag))),
        [b'<', ..] => {
            let Some(end) = text.find('>') else { return Ok((0, Special::None)) };
            Ok(angle(&text[1..end], leg)?.map_or((0, Special::None), |special| (end + 1, special)))
        }
        _ if text.starts_with('…') => Ok(('…'.len_utf8(), Special::Piece(Piece::Any))),
        _ => Ok((0, Special::None)),
    }
}

/// `dots.eml`, `dots.eml 0.16`, `dots.eml raw 0.16`, `dots.eml stuffed`, `dots.eml top 5`, `x*70000`. Anything else between
/// angle brackets is text.
fn angle(text: &str, leg: Leg) -> Result<Option<Special>, String> {
    if let Some((repeated, times)) = text.rsplit_once('*')
        && let Ok(times) = times.parse()
    {
        return Ok(Some(Special::Octets(repeated.repeat(times).into_bytes())));
    }
    let words: Vec<&str> = text.split(' ').collect();
    if !words[0].ends_with(".eml") {
        return Ok(None);
    }
    let octets = mail(words[0])?;
    let literal = |octets: &[u8]| {
        let mut literal = format!("{{{}}}\r\n", octets.len()).into_bytes();
        literal.extend_from_slice(octets);
        Some(Special::Octets(literal))
    };
    Ok(match (leg, &words[1..]) {
        (Leg::Imap, []) => literal(&octets),
        (Leg::Imap, [window]) if *window != "raw" => literal(part(&octets, window)?),
        (_, ["raw"]) => Some(Special::Whole(octets)),
        (_, ["raw", window]) => Some(Special::Whole(part(&octets, window)?.to_vec())),
        (Leg::Pop3, ["stuffed"]) => Some(Special::Whole(stuffed(&octets))),
        (Leg::Pop3, ["stuffed", window]) => Some(Special::Whole(part(&stuffed(&octets), window)?.to_vec())),
        (Leg::Pop3, ["top", lines]) => {
            Some(Special::Whole(top(&octets, lines.parse().map_err(|_| "top needs a number")?)))
        }
        _ => return Err("a message is <x.eml> on IMAP and <x.eml stuffed> on POP3".into()),
    })
}

/// `offset.length`
fn part<'a>(octets: &'a [u8], window: &str) -> Result<&'a [u8], String> {
    let (offset, length) = window.split_once('.').ok_or("a part is OFFSET.LENGTH")?;
    let number = |text: &str| text.parse::<usize>().map_err(|_| "a part is OFFSET.LENGTH");
    let from = number(offset)?.min(octets.len());
    Ok(&octets[from..(from + number(length)?).min(octets.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(text: &str) -> Piece {
        Piece::Octets(text.into())
    }

    #[test]
    fn every_kind_of_line_is_read() {
        use {Act::*, Leg::*, Piece::*};
        let seconds = Duration::from_secs;
        for (line, expected) in [
            ("C: USER tim", Send(Pop3, vec![octets("USER tim\r\n")])),
            ("C:", Send(Pop3, vec![octets("\r\n")])),
            ("C:  STAT\\n\\", Send(Pop3, vec![octets(" STAT\n")])),
            ("C: A\\x80\\0\\tB<x*3>", Send(Pop3, vec![Octets(b"A\x80\0\tBxxx\r\n".to_vec())])),
            ("S: +OK …", Expect(Pop3, vec![octets("+OK "), Any, octets("\r\n")])),
            ("S: From: <a@example.org>", Expect(Pop3, vec![octets("From: <a@example.org>\r\n")])),
            (" c: $ SELECT INBOX", Expect(Imap, vec![Tag, octets(" SELECT INBOX\r\n")])),
            (" c: $ UID STORE 5 (\\Deleted)", Expect(Imap, vec![Tag, octets(" UID STORE 5 (\\Deleted)\r\n")])),
            (" s: x$= OK", Send(Imap, vec![octets("x"), OpenTag, octets(" OK\r\n")])),
            (" s: * 1 <filler-44.eml 40.4>)", Send(Imap, vec![octets("* 1 {4}\r\n\r\n\r\n)\r\n")])),
            ("S: <filler-44.eml raw 40.4>", Expect(Pop3, vec![octets("\r\n\r\n")])),
            (
                "S: <filler-44.eml top 0>",
                Expect(Pop3, vec![octets("From: tim@example.org\r\nSubject: filler\r\n\r\n")]),
            ),
            ("!wait 600s", Wait(Pop3, seconds(600))),
            (" !wait 600s", Wait(Imap, seconds(600))),
            ("C: !close", HangUp(Pop3)),
            (" s: !close", HangUp(Imap)),
            ("S: !abort", Aborted(Pop3)),
            (" c: !close", Closed(Imap)),
            (" s: !refuse", Refuse),
        ] {
            let score = Score::parse("x", line).unwrap();
            assert_eq!(score.steps[0].act, expected, "{line}");
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let lines = [
            "X: what",
            "QUIT",
            " C: QUIT",
            "c: $ NOOP",
            "C: RETR …",
            "C: !abort",
            "S: !what",
            "!wait long",
            "with speed",
            "use no/such",
            "S: <no-such.eml stuffed>",
            "S: <filler-9.eml>",
        ];
        for line in lines {
            assert!(Score::parse("x", line).is_err(), "{line}");
        }
    }

    #[test]
    fn options_and_comments_are_no_steps() {
        let score = Score::parse("x", "# T001\n\nwith tls=no seen=never\n  # indented\nwith tls=stls\n").unwrap();
        assert!(score.steps.is_empty());
        assert_eq!(score.options.value("tls"), Some("stls"));
        assert_eq!(score.options.value("seen"), Some("never"));
        assert_eq!(score.options.value("lock"), None);
    }
}
