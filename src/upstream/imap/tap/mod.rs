//! The tap: the transport between a wire and async-imap.
//!
//! What comes from the server passes through here first, octet by octet. It is cut into responses, bounded, vetted, and
//! sorted: status lines, EXISTS and EXPUNGE go on to async-imap in a form its parser is known to take; the octets of a
//! message go to whoever reads its body, listing rows and search results into compact tables, and everything that
//! nobody asked for is swallowed. What async-imap writes is gathered and goes out in one piece; the log-in command is
//! replaced on the way by the true one, so that no secret passes through a library that logs.
//!
//! A line it cannot make sense of ends the connection. Commands, tags and outcomes are none of its business.

use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use memchr::memchr;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tokio_util::io::poll_read_buf;
use zeroize::{Zeroize, Zeroizing};

use self::numbers::Numbers;
pub(super) use self::{
    fetch::{BodyItem, Fetch},
    numbers::Found,
};
use super::name;
use crate::{
    mail::{Message, Secret, Uid},
    net::Wire,
};

mod fetch;
mod numbers;
mod vet;

/// The transport under async-imap.
pub(super) struct Tap {
    wire: Box<dyn Wire>,
    /// Read from the wire, not yet understood.
    input: BytesMut,
    /// So many octets of `input` are known to hold no LF.
    scanned: usize,
    within: Within,
    /// The FETCH response that is being read; it may be open across literals.
    fetch: Option<Fetch>,
    /// Vetted, for async-imap.
    passed: BytesMut,
    /// Written by async-imap, not yet flushed.
    gathered: Vec<u8>,
    /// Flushed; from `sent` on it has not been taken by the wire yet. It may hold a password.
    output: Zeroizing<Vec<u8>>,
    sent: usize,
    /// When the server was last heard: what shows that it still makes progress.
    heard: Instant,
    /// Lines and octets since the last command that nobody asked for.
    chatter: (u32, u64),
    /// Responses since the last command that carry a message number, or name a mailbox that was asked for.
    numbered: u32,
    /// Octets of search results since the last command.
    searched: u64,
    ended: bool,
    login: Option<Login>,
    /// What arrived beside the line, for those who asked for it.
    pub(super) aside: Aside,
}

/// What the tap keeps for others to take.
#[derive(Default)]
pub(super) struct Aside {
    /// The message whose body is expected; bodies of others are not delivered.
    pub(super) wanted: Option<Uid>,
    /// A body whose octets wait to be read, until it is taken.
    pub(super) opened: Option<Opened>,
    /// A FETCH response with a body, complete.
    pub(super) body: Option<Fetch>,
    /// The rows of a listing, while one is expected.
    pub(super) rows: Option<Vec<Message>>,
    /// The result of a search, while one is expected.
    pub(super) found: Option<Found>,
    /// The mailbox that LIST responses call the trash, while they are expected; empty before one does.
    pub(super) trash: Option<String>,
    /// The newest list of capabilities, as words.
    pub(super) capabilities: Option<String>,
    /// The newest tagged response, as async-imap saw it: what async-imap makes of a refused log-in does not hold its code.
    pub(super) tagged: Option<Vec<u8>>,
    /// The server's farewell, likewise.
    pub(super) bye: Option<Vec<u8>>,
    /// The flags defined in the mailbox (RFC 3501 §7.2.6).
    pub(super) flags: Option<String>,
}

/// A body literal of which no octet has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    /// Where in the message it begins, if the server says that it is a part.
    pub(super) offset: Option<u64>,
    /// How many octets were announced.
    pub(super) octets: u64,
}

/// A log-in: the command that stands in for the next one async-imap sends, and the answers to the server's challenges.
pub(super) struct Login {
    /// The command's text behind the tag.
    pub(super) command: Secret<Vec<u8>>,
    /// The lines that answer challenges, in order, without their ends.
    pub(super) answers: VecDeque<Secret<Vec<u8>>>,
    /// The line that answers one challenge too many: it explains a refusal (RFC 7628 §3.2.3) or asks for nothing we know.
    pub(super) surrender: &'static [u8],
    /// The challenge too many.
    pub(super) explained: Option<Vec<u8>>,
    /// The tag it was sent with.
    tag: Option<Vec<u8>>,
}

impl Login {
    /// A log-in that sends `command`.
    pub(super) fn new(command: Vec<u8>, answers: impl IntoIterator<Item = Vec<u8>>, surrender: &'static [u8]) -> Self {
        let answers = answers.into_iter().map(Secret::new).collect();
        Self { command: Secret::new(command), answers, surrender, explained: None, tag: None }
    }

    /// Whether some of it has not been sent.
    pub(super) fn is_unsaid(&self) -> bool {
        self.tag.is_none() || !self.answers.is_empty()
    }
}

/// What the server sent cannot be a response to what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Where in a response the next octet stands.
#[derive(Debug)]
enum Within {
    /// At its start.
    Line,
    /// In the numbers of a search result.
    Numbers(Numbers),
    /// In the body that was asked for, so many octets before its end.
    Body(u64),
    /// In a literal that nobody asked for.
    Skipped(u64),
    /// Behind a literal.
    Tail,
}

enum Step {
    /// Something was understood.
    On,
    /// More octets are needed.
    Hungry,
    /// A body is open: whoever reads it must go on.
    Body,
}

impl Tap {
    pub(super) fn new(wire: Box<dyn Wire>) -> Self {
        Self {
            wire,
            input: BytesMut::new(),
            scanned: 0,
            within: Within::Line,
            fetch: None,
            passed: BytesMut::new(),
            gathered: Vec::new(),
            output: Zeroizing::default(),
            sent: 0,
            heard: Instant::now(),
            chatter: (0, 0),
            numbered: 0,
            searched: 0,
            ended: false,
            login: None,
            aside: Aside::default(),
        }
    }

    /// The wire, for the TLS handshake. `None` if the server has sent anything behind its last response: after STARTTLS
    /// that would be somebody else's words (RFC 3501 §6.2.1, CVE-2021-33515). Likewise if it has answered what it cannot
    /// have read.
    pub(super) fn into_wire(self) -> Option<Box<dyn Wire>> {
        let said = self.output.is_empty();
        let clean = said && self.input.is_empty() && self.passed.is_empty() && matches!(self.within, Within::Line);
        clean.then_some(self.wire)
    }

    /// Breaks the line.
    pub(super) fn abort(&mut self) {
        self.ended = true;
        self.wire.abort();
    }

    /// A command is about to be sent: what the server may say unasked is counted anew.
    pub(super) fn begin(&mut self) {
        self.chatter = (0, 0);
        self.numbered = 0;
        self.searched = 0;
    }

    /// The next command that async-imap flushes is replaced by this log-in.
    pub(super) fn arm(&mut self, login: Login) {
        self.login = Some(login);
    }

    /// The log-in is over; what has become of it.
    pub(super) fn disarm(&mut self) -> Option<Login> {
        self.login.take()
    }

    /// When octets last came from the server.
    pub(super) const fn heard(&self) -> Instant {
        self.heard
    }

    /// How much of the open body is still to come; 0 when none is open.
    pub(super) const fn remaining(&self) -> u64 {
        match self.within {
            Within::Body(remaining) => remaining,
            _ => 0,
        }
    }

    /// Waits until octets of the open body are here, and says how many; 0 when the body has ended.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let Within::Body(remaining) = self.within else { return Poll::Ready(Ok(0)) };
            if remaining == 0 {
                self.within = Within::Tail;
            } else if self.input.is_empty() {
                if self.ended {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                ready!(self.poll_more(cx, BODY_BUFFER))?;
            } else {
                let here = usize::try_from(remaining).unwrap_or(usize::MAX).min(self.input.len());
                return Poll::Ready(Ok(here));
            }
        }
    }

    /// The octets of the open body that are here.
    pub(super) fn body(&self, octets: usize) -> &[u8] {
        &self.input[..octets]
    }

    /// They have been used.
    pub(super) fn consume(&mut self, octets: usize) {
        self.input.advance(octets);
        if let Within::Body(remaining) = &mut self.within {
            *remaining -= octets as u64;
        }
    }

    /// Hands the wire what has been flushed, without waiting for anything from the server.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.output.len() {
            match ready!(Pin::new(&mut self.wire).poll_write(cx, &self.output[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        if self.sent > 0 {
            self.output.zeroize();
            self.sent = 0;
        }
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    /// Reads from the wire, and sends what is to be sent meanwhile: a server that waits for us must not wait for ever.
    fn poll_more(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        self.input.reserve(room);
        let Poll::Ready(read) = poll_read_buf(Pin::new(&mut self.wire), cx, &mut self.input)? else {
            if self.input.is_empty() {
                self.input = BytesMut::new(); // An idle line holds no buffer.
            }
            return Poll::Pending;
        };
        self.ended = read == 0;
        self.heard = Instant::now();
        Poll::Ready(Ok(()))
    }

    /// Understands what has been read, one step further.
    fn step(&mut self) -> Result<Step, Malformed> {
        match &mut self.within {
            Within::Line => self.line(),
            Within::Tail => self.tail(),
            Within::Numbers(_) => self.numbers(),
            Within::Body(0) => {
                self.within = Within::Tail;
                Ok(Step::On)
            }
            Within::Body(_) => Ok(Step::Body),
            Within::Skipped(remaining) => {
                let here = usize::try_from(*remaining).unwrap_or(usize::MAX).min(self.input.len());
                *remaining -= here as u64;
                self.input.advance(here);
                match *remaining {
                    0 => self.within = Within::Tail,
                    _ => return Ok(Step::Hungry),
                }
                Ok(Step::On)
            }
        }
    }

    /// The start of a response.
    fn line(&mut self) -> Result<Step, Malformed> {
        if let Some((numbers, used)) = Numbers::begins(&self.input) {
            self.input.advance(used);
            self.scanned = 0;
            self.count_numbers(1, used as u64)?;
            self.within = Within::Numbers(numbers);
            return Ok(Step::On);
        }
        let Some(line) = self.take_line()? else { return Ok(Step::Hungry) };
        if let Some(rest) = line.strip_prefix(b"* ") {
            self.untagged(rest)?;
        } else if line.first() == Some(&b'+') {
            self.challenged(line[1..].trim_ascii())?;
        } else if !line.is_empty() {
            // Some servers put an empty line between responses.
            let tag = vet::tag(&line)?;
            let expected = self.login.as_ref().and_then(|login| login.tag.as_deref());
            if expected.is_some_and(|expected| expected != tag) {
                // async-imap would take a refusal that is not meant for us for the answer.
                return Err(Malformed("a reply to a command that is not open"));
            }
            let status = vet::Status::read(&line[tag.len() + 1..]).ok_or(Malformed("a line that is no response"))?;
            self.note(&status);
            let start = self.passed.len();
            status.write(tag, &mut self.passed);
            self.aside.tagged = Some(self.passed[start..].to_vec());
        }
        Ok(Step::On)
    }

    fn untagged(&mut self, line: &[u8]) -> Result<(), Malformed> {
        if let Some(status) = vet::Status::read(line) {
            self.count(line)?;
            self.note(&status);
            let start = self.passed.len();
            status.write(b"*", &mut self.passed);
            if status.word == "BYE" {
                self.aside.bye = Some(self.passed[start..].to_vec());
            }
            return Ok(());
        }
        let (first, rest) = word(line);
        if first.iter().all(u8::is_ascii_digit) && !first.is_empty() {
            return self.numbered(first, rest, line);
        }
        match (first.to_ascii_uppercase().as_slice(), &mut self.aside.trash) {
            (b"LIST", Some(trash)) => {
                if let Some(name) = name::trash(rest) {
                    *trash = name;
                }
                self.expected()?;
            }
            (b"CAPABILITY", _) => {
                self.aside.capabilities = Some(vet::words(rest));
                self.count(line)?;
            }
            (b"FLAGS", _) => {
                self.aside.flags = Some(vet::words(rest));
                self.count(line)?;
            }
            _ => self.count(line)?,
        }
        self.skip_literal(line)
    }

    /// `* 23 EXISTS` and its like.
    fn numbered(&mut self, number: &[u8], rest: &[u8], line: &[u8]) -> Result<(), Malformed> {
        let (name, items) = word(rest);
        let number = u32::try_from(fetch::number(number)?).map_err(|_| Malformed("a message number too large"))?;
        self.expected()?;
        match name.to_ascii_uppercase().as_slice() {
            b"EXISTS" => self.pass(&format!("* {number} EXISTS\r\n")),
            b"EXPUNGE" | b"FETCH" if number == 0 => return Err(Malformed("a message number 0")),
            b"EXPUNGE" => self.pass(&format!("* {number} EXPUNGE\r\n")),
            b"RECENT" => {}
            b"FETCH" | b"UIDFETCH" => {
                let mut fetch = Fetch::default();
                if name.len() > b"FETCH".len() {
                    fetch.uid = Some(number); // RFC 9586: there are no message numbers any more.
                }
                self.fetch = Some(fetch);
                return self.fetched(items);
            }
            _ => {
                self.count(line)?;
                return self.skip_literal(line);
            }
        }
        Ok(())
    }

    /// The text of a FETCH response, from its start or from behind a literal.
    fn fetched(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let Some(mut fetch) = self.fetch.take() else { return Ok(()) };
        if let Some((text, octets)) = literal(text)? {
            let owner = fetch.until_literal(text, octets)?;
            match (owner, &fetch.body) {
                (fetch::Owner::Body, Some(BodyItem::Literal { offset, .. })) if octets > 0 && self.wants(&fetch) => {
                    self.aside.opened = Some(Opened { offset: *offset, octets });
                    self.within = Within::Body(octets);
                }
                _ => self.skip(octets)?,
            }
            self.fetch = Some(fetch);
            return Ok(());
        }
        fetch.until_end(text)?;
        let uid = fetch.uid.and_then(Uid::new);
        if let (Some(rows), Some(uid), Some(octets)) = (&mut self.aside.rows, uid, fetch.octets) {
            rows.push(Message { uid, octets });
        }
        if fetch.body.is_some() && self.wants(&fetch) {
            self.aside.body = Some(fetch);
            self.aside.wanted = None; // A second body of it would be nobody's.
        }
        Ok(())
    }

    /// Whether this is the message whose body is expected, or may be: its UID can come after the body.
    fn wants(&self, fetch: &Fetch) -> bool {
        self.aside.wanted.is_some_and(|wanted| fetch.uid.is_none_or(|uid| uid == wanted.value()))
    }

    /// What stands behind a literal.
    fn tail(&mut self) -> Result<Step, Malformed> {
        let Some(line) = self.take_line()? else { return Ok(Step::Hungry) };
        self.count(&line)?;
        if line.is_empty() && self.fetch.is_some() {
            return Ok(Step::On); // Some servers end a line behind a literal before they go on.
        }
        self.within = Within::Line;
        match self.fetch.is_some() {
            true => self.fetched(&line)?,
            false => self.skip_literal(&line)?,
        }
        Ok(Step::On)
    }

    fn numbers(&mut self) -> Result<Step, Malformed> {
        let end = memchr(b'\n', &self.input);
        let octets = self.input.split_to(end.unwrap_or(self.input.len()));
        let Within::Numbers(mut numbers) = std::mem::replace(&mut self.within, Within::Line) else {
            return Ok(Step::On);
        };
        self.count_numbers(0, octets.len() as u64)?;
        let mut unwanted = Found::default();
        let found = self.aside.found.as_mut().unwrap_or(&mut unwanted);
        numbers.read(&octets, found)?;
        if end.is_none() {
            self.within = Within::Numbers(numbers);
            return Ok(Step::Hungry);
        }
        self.input.advance(1);
        numbers.end(found)?;
        Ok(Step::On)
    }

    /// Their lines have no bound of their own: what was asked for may be long, what was not is chatter.
    fn count_numbers(&mut self, lines: u32, octets: u64) -> Result<(), Malformed> {
        if self.aside.found.is_none() {
            return self.chat(lines, octets);
        }
        self.searched += octets;
        if self.searched > SEARCHED {
            return Err(Malformed("a search that finds too much"));
        }
        Ok(())
    }

    /// A continuation request (RFC 3501 §7.5). Only a log-in expects one.
    fn challenged(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let Some(login) = self.login.as_mut().filter(|login| login.tag.is_some()) else {
            return Err(Malformed("a continuation request that nothing called for"));
        };
        let answer = match login.answers.pop_front() {
            Some(answer) => answer,
            None if login.explained.is_some() => return Err(Malformed("a challenge after the last one")),
            None => {
                login.explained = Some(text.to_vec());
                Secret::new(login.surrender.to_vec())
            }
        };
        self.output.reserve_exact(answer.expose().len() + 2);
        self.output.extend_from_slice(answer.expose());
        self.output.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// A whole line without its end, once it is here.
    fn take_line(&mut self) -> Result<Option<BytesMut>, Malformed> {
        let Some(end) = memchr(b'\n', &self.input[self.scanned..]) else {
            self.scanned = self.input.len();
            return if self.scanned > LINE { Err(Malformed("a line without an end")) } else { Ok(None) };
        };
        let mut line = self.input.split_to(self.scanned + end + 1);
        self.scanned = 0;
        if line.len() > LINE {
            return Err(Malformed("a line that is too long"));
        }
        line.truncate(line.len() - 1);
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        if memchr(0, &line).is_some() {
            return Err(Malformed("a NUL outside a literal"));
        }
        Ok(Some(line))
    }

    fn pass(&mut self, line: &str) {
        self.passed.extend_from_slice(line.as_bytes());
    }

    fn note(&mut self, status: &vet::Status) {
        if let Some(capabilities) = status.capabilities() {
            self.aside.capabilities = Some(capabilities.to_owned());
        }
    }

    fn skip_literal(&mut self, line: &[u8]) -> Result<(), Malformed> {
        match literal(line)? {
            Some((_, octets)) => self.skip(octets),
            None => Ok(()),
        }
    }

    fn skip(&mut self, octets: u64) -> Result<(), Malformed> {
        if octets > UNWANTED {
            return Err(Malformed("a large literal that nothing called for"));
        }
        self.within = Within::Skipped(octets);
        self.chat(0, octets)
    }

    /// Counts a line that nobody asked for.
    fn count(&mut self, line: &[u8]) -> Result<(), Malformed> {
        self.chat(1, line.len() as u64)
    }

    fn chat(&mut self, lines: u32, octets: u64) -> Result<(), Malformed> {
        self.chatter.0 += lines;
        self.chatter.1 += octets;
        if self.chatter.0 > CHATTER_LINES || self.chatter.1 > CHATTER_OCTETS {
            return Err(Malformed("more than anything called for"));
        }
        Ok(())
    }

    /// Counts a response of which there may be one for every message.
    fn expected(&mut self) -> Result<(), Malformed> {
        self.numbered += 1;
        if self.numbered > ROWS {
            return Err(Malformed("more messages than a maildrop holds"));
        }
        Ok(())
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.passed.is_empty() {
            match this.step().map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))? {
                Step::On => {}
                Step::Hungry if this.ended => return Poll::Ready(Ok(())),
                Step::Hungry => ready!(this.poll_more(cx, READ_BUFFER))?,
                // The reader of the body is polled by the same task, so no waker is needed.
                Step::Body => return Poll::Pending,
            }
        }
        let some = this.passed.len().min(buf.remaining());
        buf.put_slice(&this.passed[..some]);
        this.passed.advance(some);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.gathered.extend_from_slice(octets);
        Poll::Ready(Ok(octets.len()))
    }

    /// Never waits: the octets go out while answers are awaited. So a command is written whole or not at all, whoever
    /// stops waiting for it.
    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match &mut this.login {
            Some(login) if login.tag.is_none() => {
                let tag = word(&this.gathered).0;
                let command = login.command.expose();
                this.output.reserve_exact(tag.len() + command.len() + 3);
                for part in [tag, b" ", command, b"\r\n"] {
                    this.output.extend_from_slice(part);
                }
                login.tag = Some(tag.to_vec());
            }
            _ => this.output.extend_from_slice(&this.gathered),
        }
        this.gathered.clear();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

impl fmt::Debug for Tap {
    /// async-imap wants it; what passes through is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

/// The first word of a line, and what follows the space behind it.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b' ', line) {
        Some(end) => (&line[..end], line[end + 1..].trim_ascii_start()),
        None => (line, b""),
    }
}

/// The literal that a line announces at its end: `{n}`, `{n+}` (RFC 7888), `~{n}` (RFC 3516). The text before it, and its octets.
fn literal(line: &[u8]) -> Result<Option<(&[u8], u64)>, Malformed> {
    let Some(inner) = line.strip_suffix(b"}") else { return Ok(None) };
    let inner = inner.strip_suffix(b"+").unwrap_or(inner);
    let digits = inner.iter().rev().take_while(|octet| octet.is_ascii_digit()).count();
    let (text, digits) = inner.split_at(inner.len() - digits);
    let Some(text) = text.strip_suffix(b"{") else { return Ok(None) };
    if digits.is_empty() {
        return Ok(None);
    }
    Ok(Some((text.strip_suffix(b"~").unwrap_or(text), fetch::number(digits)?)))
}

/// Outside literals and search results no line that popgate asks for comes near this.
const LINE: usize = 64 * 1024;

/// A literal that nobody asked for is skipped up to this size.
const UNWANTED: u64 = 64 * 1024;

/// What a server may say unasked between two commands, in lines and octets.
const CHATTER_LINES: u32 = 10_000;
const CHATTER_OCTETS: u64 = 1024 * 1024;

/// More messages than this are refused rather than listed in part.
pub(super) const ROWS: u32 = 5_000_000;

/// The UIDs of so many messages, each on its own, in octets.
const SEARCHED: u64 = 12 * ROWS as u64;

/// Bodies come in large pieces, everything else in small ones.
const BODY_BUFFER: usize = 64 * 1024;
const READ_BUFFER: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// All that comes out of a tap.
    #[derive(Debug, Default, PartialEq)]
    struct Heard {
        passed: String,
        bodies: Vec<Vec<u8>>,
        fetched: Vec<Option<u32>>,
        rows: Vec<Message>,
        found: Option<Found>,
        capabilities: Option<String>,
        flags: Option<String>,
        trouble: Option<String>,
    }

    /// What is made of `input` when it comes in pieces of `chunk` octets and the body of UID 7 is expected.
    fn heard(input: &[u8], chunk: usize) -> Heard {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = duplex(chunk);
            let input = input.to_vec();
            let server = tokio::spawn(async move {
                let _ = theirs.write_all(&input).await; // The tap may have had enough.
            });
            let mut tap = Tap::new(Box::new(ours));
            let mut heard = Heard::default();
            loop {
                tap.aside.wanted = Uid::new(7);
                tap.aside.rows.get_or_insert_default();
                tap.aside.found.get_or_insert_default();
                let mut octets = [0; 100];
                let mut octets = ReadBuf::new(&mut octets);
                let read = poll_fn(|cx| match Pin::new(&mut tap).poll_read(cx, &mut octets) {
                    Poll::Pending if tap.aside.opened.is_some() => Poll::Ready(Ok(())),
                    polled => polled,
                });
                let read = read.await;
                if tap.aside.opened.take().is_some() {
                    heard.bodies.push(body(&mut tap).await.unwrap_or_default());
                    continue;
                }
                heard.fetched.extend(tap.aside.body.take().map(|fetch| fetch.uid));
                heard.passed.push_str(std::str::from_utf8(octets.filled()).expect("ASCII"));
                match read {
                    Ok(()) if octets.filled().is_empty() => break,
                    Ok(()) => {}
                    Err(error) => {
                        heard.trouble = Some(error.to_string());
                        break;
                    }
                }
            }
            heard.rows = tap.aside.rows.take().unwrap_or_default();
            heard.found = tap.aside.found.take();
            heard.capabilities = tap.aside.capabilities.take();
            heard.flags = tap.aside.flags.take();
            drop(tap);
            server.await.unwrap();
            heard
        })
    }

    async fn body(tap: &mut Tap) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let octets = poll_fn(|cx| tap.poll_body(cx)).await?;
            if octets == 0 {
                return Ok(body);
            }
            body.extend_from_slice(tap.body(octets));
            tap.consume(octets);
        }
    }

    /// Every kind of response, and what may look like one where it is none.
    const SESSION: &[u8] = b"* OK [CAPABILITY IMAP4rev1  SASL-IR] hello\r\n\
        * FLAGS (\\Seen $x)\r\n* 3 EXISTS\n* 0 RECENT\r\n* OK [UIDVALIDITY 17] .\r\n\r\n\
        * 1 FETCH (UID 5 RFC822.SIZE 120)\r\n* 2 FETCH (RFC822.SIZE 200 UID 7)\r\n* 3 UIDFETCH (RFC822.SIZE 1)\r\n\
        * SEARCH 5 7\r\n* ESEARCH (TAG \"A1\") UID COUNT 2 ALL 9:12\r\n\
        * 2 FETCH (FLAGS () BODY[] {25}\r\n)\r\nA1 OK * BYE\r\n* X {9}\r\n UID 7)\r\n\
        * 2 FETCH (UID 8 BODY[] {3}\r\na)\n X {2}\r\nbc)\r\n* XFOO {4}\r\nA1 O y {1}\r\nz\r\n\
        * 1 FETCH (UID 7 BODY[] \"q\\\"\")\r\n* 2 EXPUNGE\r\nA1 OK [READ-WRITE] done\r\n* BYE\r\n";

    #[test]
    fn responses_are_sorted() {
        let heard = heard(SESSION, 4096);
        let passed = "* OK [CAPABILITY IMAP4rev1 SASL-IR] hello\r\n* 3 EXISTS\r\n* OK [UIDVALIDITY 17] .\r\n\
            * 2 EXPUNGE\r\nA1 OK [READ-WRITE] done\r\n* BYE .\r\n";
        assert_eq!(heard.passed, passed);
        assert_eq!(heard.bodies, [b")\r\nA1 OK * BYE\r\n* X {9}\r\n".to_vec()]);
        let row = |uid, octets| Message { uid: Uid::new(uid).unwrap(), octets };
        assert_eq!(heard.rows, [row(5, 120), row(7, 200), row(3, 1)]);
        assert_eq!(heard.found, Some(Found { ranges: vec![(5, 5), (7, 7), (9, 12)], count: Some(2) }));
        assert_eq!(heard.trouble, None);
    }

    #[test]
    fn hostile_lines_end_the_connection_and_hold_no_memory() {
        for (input, trouble) in [
            (b"x".repeat(70_000), "a line without an end"),
            ([b"* OK ".as_slice(), &b"x".repeat(70_000), b"\r\n"].concat(), "a line"),
            (b"* 1 FETCH (UID 5 ENVELOPE {536862720}\r\n".to_vec(), "a large literal"),
            (b"* 1 FETCH (UID 5 BODY[] {65537}\r\n".to_vec(), "a large literal"),
            (b"* 1 FETCH (UID 7 BODY[] {9223372036854775808}\r\n".to_vec(), "a number"),
            (b"* X a\0b\r\n".to_vec(), "a NUL"),
            (b"+ go\r\n".to_vec(), "a continuation"),
            (b"* 0 FETCH (UID 7)\r\n".to_vec(), "a message number 0"),
            (b"* SEARCH 0\r\n".to_vec(), "a search"),
            (b"<html>\r\n".to_vec(), "a line that is no response"),
            (b"* X\r\n".repeat(10_001), "more than anything"),
            ([b"* X ".as_slice(), &b"x".repeat(60_000), b"\r\n"].concat().repeat(20), "more than anything"),
            ([b"* 1 FETCH (".as_slice(), &b"X {0}\r\n ".repeat(10_002)].concat(), "more than anything"),
            ([b"* 1 FETCH (UID 7 BODY[] {1}\r\nx".as_slice(), &b"\r\n".repeat(10_001)].concat(), "more than anything"),
        ] {
            let heard = heard(&input, 4096);
            let shown = String::from_utf8_lossy(&input[..input.len().min(40)]).into_owned();
            assert!(heard.trouble.as_ref().is_some_and(|found| found.contains(trouble)), "{shown}: {heard:?}");
        }
    }

    /// Found or not: search results are bounded although their lines are not.
    #[test]
    fn endless_searches_end() {
        for wanted in [true, false] {
            let mut tap = Tap::new(Box::new(duplex(1).0));
            tap.aside.found = wanted.then(Found::default);
            let pieces = std::iter::once(&b"* VANISHED "[..]).chain(std::iter::repeat_n(&[b'('; 65_536][..], 1_000));
            let mut bounded = pieces.map(|piece| {
                tap.input.extend_from_slice(piece);
                while let Step::On = tap.step()? {}
                Ok::<_, Malformed>(tap.input.len())
            });
            assert!(bounded.any(|kept| kept.is_err()), "wanted: {wanted}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(chunk in 1_usize..40, damage in proptest::option::of((0..SESSION.len(), any::<u8>()))) {
            let mut session = SESSION.to_vec();
            if let Some((at, octet)) = damage {
                session[at] = octet;
            }
            prop_assert_eq!(heard(&session, chunk), heard(&session, 4096));
        }
    }
}
