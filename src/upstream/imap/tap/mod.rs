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

pub(super) use self::{
    aside::{Aside, Opened, Placed},
    fetch::{BodyItem, Fetch, TWICE},
    login::Login,
    numbers::Found,
    sort::ROWS,
};
use self::{numbers::Numbers, sort::Step};
use crate::net::Wire;

mod aside;
mod fetch;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod login;
mod numbers;
mod sort;
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
    /// No buffer is kept while nothing comes.
    idle: bool,
    login: Option<Login>,
    /// The tag of a command whose answer is for nobody, until it is answered.
    unheeded: Option<Vec<u8>>,
    /// What arrived beside the line, for those who asked for it.
    pub(super) aside: Aside,
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
            idle: false,
            login: None,
            unheeded: None,
            aside: Aside::default(),
        }
    }

    /// The wire, for the TLS handshake. `None` if the server has sent anything behind its last response: after STARTTLS
    /// that would be somebody else's words (RFC 3501 §6.2.1, CVE-2021-33515). Likewise if it has answered what it cannot
    /// have read.
    pub(super) fn into_wire(self) -> Option<Box<dyn Wire>> {
        self.is_clean().then_some(self.wire)
    }

    /// Whether everything that was written has been sent, and everything that has come been understood.
    pub(super) fn is_clean(&self) -> bool {
        let said = self.output.is_empty() && self.gathered.is_empty();
        said && self.input.is_empty() && self.passed.is_empty() && matches!(self.within, Within::Line)
    }

    /// Breaks the line.
    pub(super) fn abort(&mut self) {
        self.ended = true;
        self.wire.abort();
    }

    /// A command is about to be sent: what the server may say unasked is counted anew.
    pub(super) fn begin(&mut self) {
        self.idle = false;
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

    /// Whether buffers are kept for what comes next.
    pub(super) const fn is_busy(&self) -> bool {
        !self.idle
    }

    /// Nothing is expected for a while: buffers are given back, until the next command.
    pub(super) fn relax(&mut self) {
        self.idle = true;
        self.gathered.shrink_to_fit();
        if self.passed.is_empty() {
            self.passed = BytesMut::new();
        }
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
            if self.idle && self.input.is_empty() {
                self.input = BytesMut::new(); // An idle line holds no buffer.
            }
            return Poll::Pending;
        };
        self.ended = read == 0;
        self.heard = Instant::now();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.passed.is_empty() {
            match this.step().map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))? {
                Step::On => {}
                Step::Hungry if this.ended => return Poll::Ready(Ok(())),
                Step::Hungry => {
                    let much = this.aside.all_wanted || this.aside.rows.is_some();
                    ready!(this.poll_more(cx, if much { BODY_BUFFER } else { READ_BUFFER }))?;
                }
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
                // It has a tag that async-imap makes for nothing else.
                this.unheeded = login.before.as_ref().map(|_| [b"I", tag].concat());
                let before = this.unheeded.iter().zip(&login.before);
                let parts = before.map(|(tag, text)| [tag, text.as_bytes()]).chain([[tag, command]]);
                this.output.reserve_exact(parts.clone().map(|[tag, text]| tag.len() + text.len() + 3).sum());
                for part in parts.flat_map(|[tag, text]| [tag, b" ", text, b"\r\n"]) {
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

/// Bodies and listings come in large pieces, everything else in small ones.
const BODY_BUFFER: usize = 64 * 1024;
const READ_BUFFER: usize = 8 * 1024;

#[cfg(test)]
mod tests;
