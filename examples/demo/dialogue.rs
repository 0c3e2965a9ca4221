//! The screen: two dialogues in two columns, line by line as they happen. It knows who speaks and where, and hardly
//! anything of what is said; of a long reply it shows how it begins and how it ends.

use std::{
    env,
    io::{self, IsTerminal, Write},
    mem,
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::timeout,
};

use super::terminal::{Paint, columns, fit, printable, width};

/// Where everybody sends what is to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Screen(pub(crate) UnboundedSender<Event>);

/// Something to show.
#[derive(Debug)]
pub(crate) enum Event {
    /// A line of a dialogue.
    Line(Line),
    /// A paragraph over the whole width.
    Note(String),
}

/// A line of a dialogue, without its end.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) session: usize,
    pub(crate) leg: Leg,
    pub(crate) speaker: Speaker,
    pub(crate) octets: Vec<u8>,
}

/// Which of the two lines that a session has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leg {
    Pop3,
    Imap,
}

/// Who has said something on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speaker {
    Client,
    Server,
}

impl Screen {
    pub(crate) fn line(&self, line: Line) {
        // A screen that is gone, such as the pipe to a program that has ended, misses nothing.
        let _ = self.0.send(Event::Line(line));
    }

    pub(crate) fn note(&self, text: &str) {
        let _ = self.0.send(Event::Note(text.to_owned()));
    }
}

/// Draws the dialogues.
pub(crate) struct Dialogue<W> {
    out: W,
    width: usize,
    colours: bool,
    /// The session whose lines stood there last.
    session: Option<usize>,
    /// How many lines of the reply that is going on were shown, by leg.
    shown: [usize; 2],
    /// Further lines of a reply, until it is known which is the last.
    rest: Vec<Line>,
}

impl Dialogue<io::Stdout> {
    /// As wide as the terminal, and in colours if there is one and NO_COLOR (no-color.org) is not set.
    pub(crate) fn on_standard_output() -> Self {
        let terminal = io::stdout().is_terminal();
        let colours = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self::new(io::stdout(), columns(terminal).unwrap_or(WIDTH), colours)
    }
}

impl<W: Write> Dialogue<W> {
    fn new(out: W, width: usize, colours: bool) -> Self {
        Self { out, width: width.max(NARROWEST), colours, session: None, shown: [0; 2], rest: Vec::new() }
    }

    /// Shows what comes until nobody is left who could send something. If it cannot be shown, nothing more is.
    pub(crate) async fn show(mut self, mut events: UnboundedReceiver<Event>) -> io::Result<()> {
        loop {
            match timeout(QUIET, events.recv()).await {
                Ok(Some(Event::Line(line))) => self.line(line)?,
                Ok(Some(Event::Note(text))) => self.note(&text)?,
                Ok(None) => return self.show_rest(),
                // Whoever has been silent for so long has come to the end of a reply.
                Err(_) => self.show_rest()?,
            }
        }
    }

    fn line(&mut self, line: Line) -> io::Result<()> {
        if self.session != Some(line.session) {
            self.show_rest()?;
            self.heading(line.session)?;
        }
        if self.rest.last().is_some_and(|last| (last.leg, last.speaker) != (line.leg, line.speaker)) {
            self.show_rest()?;
        }
        let shown = &mut self.shown[line.leg as usize];
        match line.speaker {
            Speaker::Client => *shown = 0,
            Speaker::Server if *shown == BEGINNING => {
                self.rest.push(line);
                return Ok(());
            }
            Speaker::Server => *shown += 1,
        }
        self.row(&line)
    }

    /// Shows the end of a reply, and how much of it is left out.
    fn show_rest(&mut self) -> io::Result<()> {
        let mut rest = mem::take(&mut self.rest);
        if rest.len() > 2
            && let Some(last) = rest.pop()
        {
            let octets: usize = rest.iter().map(|line| line.octets.len() + CRLF).sum();
            self.cell(last.leg, "⋮", &format!("{} more lines, {octets} octets", rest.len()), Paint::Faint)?;
            rest = vec![last];
        }
        rest.iter().try_for_each(|line| self.row(line))
    }

    fn row(&mut self, line: &Line) -> io::Result<()> {
        let arrow = match line.speaker {
            Speaker::Client => "→",
            Speaker::Server => "←",
        };
        self.cell(line.leg, arrow, &printable(&line.octets), paint(line))
    }

    /// One row, of which the other leg's half is empty.
    fn cell(&mut self, leg: Leg, sign: &str, text: &str, paint: Paint) -> io::Result<()> {
        let (left, right) = self.columns();
        let bar = self.painted("│", Paint::Faint);
        match leg {
            Leg::Pop3 => {
                let text = format!("{sign} {}", fit(text, left - SIGN));
                let gap = left - width(&text);
                writeln!(self.out, "{}{:gap$} {bar}", self.painted(&text, paint), "")
            }
            Leg::Imap => {
                let text = format!("{sign} {}", fit(text, right - SIGN));
                writeln!(self.out, "{:left$} {bar} {}", "", self.painted(text.trim_end(), paint))
            }
        }
    }

    /// The rule above the lines of a session.
    fn heading(&mut self, session: usize) -> io::Result<()> {
        let (left, right) = self.columns();
        let (pop3, imap) = (format!(" POP3, session {session} "), " IMAP ");
        let rule = format!("──{pop3:─<0$}┬──{imap:─<1$}", left - 1, right - 1);
        let rule = self.painted(&rule, Paint::Faint);
        (self.session, self.shown) = (Some(session), [0; 2]);
        writeln!(self.out, "{rule}")
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        self.show_rest()?;
        // What follows a note begins with a heading.
        let space = if self.session.take().is_some() { "\n" } else { "" };
        writeln!(self.out, "{space}{text}\n")
    }

    /// The widths of the two columns; between them stands ` │ `. POP3 needs less.
    const fn columns(&self) -> (usize, usize) {
        let left = self.width * 9 / 20;
        (left, self.width - left - 3)
    }

    fn painted(&self, text: &str, paint: Paint) -> String {
        if self.colours { paint.on(text) } else { text.to_owned() }
    }
}

/// Commands stand out, and so does how they end.
fn paint(line: &Line) -> Paint {
    let text = String::from_utf8_lossy(&line.octets);
    let mut words = text.split(' ');
    let first = words.next();
    let status = match line.leg {
        Leg::Pop3 => first,
        Leg::Imap if first == Some("*") => None,
        Leg::Imap => words.next(), // after the tag
    };
    match (line.speaker, status) {
        (Speaker::Client, _) => Paint::Command,
        (Speaker::Server, Some("+OK" | "OK")) => Paint::Success,
        (Speaker::Server, Some("-ERR" | "NO" | "BAD")) => Paint::Failure,
        (Speaker::Server, _) => Paint::Plain,
    }
}

/// How many lines of a reply are shown in any case, and then its last.
const BEGINNING: usize = 4;

/// A reply pauses for less than this, and a person who types commands for longer.
const QUIET: Duration = Duration::from_millis(50);

const WIDTH: usize = 100;
const NARROWEST: usize = 60;
/// The arrow and a space.
const SIGN: usize = 2;
/// What a line was stripped of.
const CRLF: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn said(leg: Leg, speaker: Speaker, text: &str) -> Line {
        Line { session: 1, leg, speaker, octets: text.into() }
    }

    fn drawn(lines: Vec<Line>, colours: bool) -> String {
        let mut dialogue = Dialogue::new(Vec::new(), 60, colours);
        lines.into_iter().for_each(|line| dialogue.line(line).unwrap());
        dialogue.show_rest().unwrap();
        String::from_utf8(dialogue.out).unwrap()
    }

    #[test]
    fn two_dialogues_are_two_columns_and_long_replies_are_cut() {
        let mut lines = vec![
            said(Leg::Pop3, Speaker::Client, "RETR 1"),
            said(Leg::Imap, Speaker::Client, "A1 UID FETCH 301 (BODY.PEEK[])"),
            said(Leg::Imap, Speaker::Server, "A1 OK done"),
            said(Leg::Pop3, Speaker::Server, "+OK 1234567890 octets of a message"),
        ];
        lines.extend((1..=9).map(|line| said(Leg::Pop3, Speaker::Server, &line.to_string())));
        lines.push(said(Leg::Pop3, Speaker::Server, "."));
        assert_eq!(
            drawn(lines, false),
            "\
── POP3, session 1 ─────────┬── IMAP ───────────────────────
→ RETR 1                    │
                            │ → A1 UID FETCH 301 (BODY.PEEK…
                            │ ← A1 OK done
← +OK 1234567890 octets of… │
← 1                         │
← 2                         │
← 3                         │
⋮ 6 more lines, 18 octets   │
← .                         │
"
        );
    }

    #[test]
    fn colours_are_there_if_they_are_wanted() {
        let lines = || vec![said(Leg::Imap, Speaker::Server, "A1 NO such luck")];
        assert!(drawn(lines(), true).contains("\x1b[1;31m← A1 NO such luck\x1b[0m"));
        assert!(!drawn(lines(), false).contains('\x1b'));
    }
}
