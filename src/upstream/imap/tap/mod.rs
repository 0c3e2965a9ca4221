//! The tap: the transport between a wire and async-imap.
//!
//! What comes from the server passes through here first, octet by octet. It is cut into responses, bounded, vetted, and
//! sorted: status lines, EXISTS and EXPUNGE go on to async-imap, one at a time and whole, in a form its parser is known to
//! take; the octets of a message go to whoever reads its body, listing rows and search results into compact tables, and
//! everything that nobody asked for is swallowed. Commands go out while answers are awaited, and past async-imap, so that
//! no secret passes through a library that logs.
//!
//! A line it cannot make sense of ends the connection. Tags and outcomes are none of its business.

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
    /// One response, vetted, for async-imap.
    passed: BytesMut,
    /// Commands; from `sent` on the wire has not taken them yet. They may hold a password.
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
    /// The log-in that is going on.
    login: Option<Login>,
    /// What arrived beside the line, for those who asked for it.
    pub(super) aside: Aside,
}

/// What the server sent cannot be a response to what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// What comes next from the server.
#[derive(Debug)]
pub(super) enum Next {
    /// A response for async-imap, which is here whole.
    Response,
    /// A body of which no octet has been read.
    Body(Opened),
    /// Nothing any more.
    End,
}

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
            output: Zeroizing::default(),
            sent: 0,
            heard: Instant::now(),
            chatter: (0, 0),
            numbered: 0,
            searched: 0,
            ended: false,
            idle: false,
            login: None,
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
        let nothing_waits = self.output.is_empty() && self.input.is_empty() && self.passed.is_empty();
        nothing_waits && matches!(self.within, Within::Line)
    }

    /// Breaks the line.
    pub(super) fn abort(&mut self) {
        self.ended = true;
        self.wire.abort();
    }

    /// Takes a command, whole. It goes out while something is awaited; what the server may say unasked is counted anew.
    pub(super) fn send(&mut self, tag: &str, command: &[u8]) {
        self.idle = false;
        self.chatter = (0, 0);
        self.numbered = 0;
        self.searched = 0;
        self.output.reserve_exact(tag.len() + command.len() + 3);
        for part in [tag.as_bytes(), b" ", command, b"\r\n"] {
            self.output.extend_from_slice(part);
        }
    }

    /// Takes the command that logs in, and what it answers to challenges.
    pub(super) fn log_in(&mut self, tag: &str, login: Login) {
        self.send(tag, login.command.expose());
        self.login = Some(login);
    }

    /// Whether a log-in is going on.
    pub(super) const fn is_logging_in(&self) -> bool {
        self.login.is_some()
    }

    /// The log-in is over; what has become of it.
    pub(super) fn logged_in(&mut self) -> Option<Login> {
        self.login.take()
    }

    /// Whether everything that was to be sent has been taken by the wire.
    pub(super) fn has_sent_all(&self) -> bool {
        self.output.is_empty()
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
        if self.passed.is_empty() {
            self.passed = BytesMut::new();
        }
        if self.output.is_empty() {
            self.output = Zeroizing::default();
        }
    }

    /// Waits for a response, or for a body. While a body is open that has been announced, there is nothing else to wait for.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        while self.passed.is_empty() {
            match self.step().map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))? {
                Step::On => {}
                Step::Hungry if self.ended => return Poll::Ready(Ok(Next::End)),
                Step::Hungry => {
                    let much = self.aside.all_wanted || self.aside.rows.is_some();
                    ready!(self.poll_more(cx, if much { BODY_BUFFER } else { READ_BUFFER }))?;
                }
                // The reader of the body is polled by the same task, so no waker is needed.
                Step::Body => {
                    let opened = self.aside.opened.take();
                    return opened.map_or(Poll::Pending, |opened| Poll::Ready(Ok(Next::Body(opened))));
                }
            }
        }
        Poll::Ready(Ok(Next::Response))
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

    /// Hands the wire what is to be sent, without waiting for anything from the server.
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

/// For async-imap: the response that [`Tap::poll_next`] has found, and then nothing.
impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let some = self.passed.len().min(buf.remaining());
        buf.put_slice(&self.passed[..some]);
        self.passed.advance(some);
        Poll::Ready(Ok(()))
    }
}

/// async-imap asks for it. Nothing is written this way, but the line is shut down.
impl AsyncWrite for Tap {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
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
