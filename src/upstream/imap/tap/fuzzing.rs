//! Octets from a server, through the tap alone and through async-imap behind it, for [`fuzzing`](crate::fuzzing) and for
//! the tap's own tests.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use async_imap::Client;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{BodyItem, Found, Login, Malformed, Next, Tap};
use crate::{
    mail::{Message, Uid},
    net::Wire,
};

/// What the tap has been told to expect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// Status lines, and nothing aside.
    Answers,
    /// The body of UID 7, rows, and the result of a search.
    One,
    /// Bodies of several messages, and the name of the trash, while a log-in is going on.
    All,
}

impl Expected {
    /// Each of them.
    pub(crate) const ALL: [Self; 3] = [Self::Answers, Self::One, Self::All];

    fn tell(self, tap: &mut Tap) {
        match self {
            Self::Answers => {}
            Self::One => {
                tap.aside.wanted = Uid::new(7);
                tap.aside.rows.get_or_insert_default();
                tap.aside.found.get_or_insert_default();
            }
            Self::All => {
                tap.aside.all_wanted = true;
                tap.aside.trash.get_or_insert_default();
            }
        }
    }
}

/// All that comes out of a tap.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Heard {
    pub(super) passed: String,
    pub(super) bodies: Vec<Vec<u8>>,
    pub(super) fetched: Vec<(Option<u32>, Option<BodyItem>)>,
    pub(super) rows: Vec<Message>,
    pub(super) found: Option<Found>,
    pub(super) trash: Option<String>,
    pub(super) capabilities: Option<String>,
    pub(super) flags: Option<String>,
    pub(super) explained: Option<Vec<u8>>,
    pub(super) trouble: Option<String>,
}

impl Heard {
    /// How many lines were passed to async-imap.
    pub(crate) fn lines(&self) -> usize {
        self.passed.lines().count()
    }
}

/// What is made of octets that come in these pieces.
pub(crate) fn heard(pieces: &[&[u8]], expected: Expected) -> Heard {
    let sent: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut tap = Tap::new(Box::new(Pieces::new(pieces)));
    let mut heard = Heard::default();
    let cx = &mut Context::from_waker(Waker::noop());
    if expected == Expected::All {
        tap.log_in("A1", Login::new(b"LOGIN a b".to_vec(), [b"c".to_vec()], b"*"));
        assert!(tap.poll_send(cx).is_ready());
    }
    loop {
        expected.tell(&mut tap);
        let next = loop {
            let next = tap.poll_next(cx);
            is_bounded(&tap, sent);
            if let Poll::Ready(next) = next {
                break next;
            }
        };
        let step = next.and_then(|next| match next {
            Next::Body(_) => body(&mut tap).map(|body| heard.bodies.push(body)).map(|()| true),
            Next::Response => {
                heard.passed.push_str(std::str::from_utf8(&std::mem::take(&mut tap.passed)).expect("ASCII"));
                Ok(true)
            }
            Next::End => Ok(false),
        });
        heard.fetched.extend(tap.aside.body.take().map(|fetch| (fetch.uid, fetch.body)));
        heard.fetched.extend(tap.aside.bodies.drain(..).map(|fetch| (fetch.uid, fetch.body)));
        match step {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                heard.trouble = Some(error.to_string());
                break;
            }
        }
    }
    assert!(heard.passed.is_empty() || heard.passed.ends_with("\r\n"), "half a line is passed");
    heard.rows = tap.aside.rows.take().unwrap_or_default();
    heard.found = tap.aside.found.take();
    heard.trash = tap.aside.trash.take();
    heard.capabilities = tap.aside.capabilities.take();
    heard.flags = tap.aside.flags.take();
    heard.explained = tap.logged_in().and_then(|login| login.explained);
    heard
}

/// How many responses async-imap has parsed when the octets, or the tap's patience with them, are at their end. It has
/// parsed all that the tap passed to it.
pub(crate) fn parsed(pieces: &[&[u8]]) -> usize {
    let mut tap = Tap::new(Box::new(Pieces::new(pieces)));
    let cx = &mut Context::from_waker(Waker::noop());
    let mut count = 0;
    loop {
        match tap.poll_next(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(Next::Response)) => {
                let response = Client::new(&mut tap).read_response().now_or_never();
                let response = response.expect("half a response").expect("what cannot be parsed").expect("no response");
                assert!(!format!("{:?}", response.parsed()).is_empty());
                assert!(tap.passed.is_empty(), "more than a response");
                count += 1;
            }
            Poll::Ready(Ok(Next::Body(_))) => panic!("a body that nobody expected"),
            Poll::Ready(Ok(Next::End)) => return count,
            Poll::Ready(Err(error)) => {
                assert!(error.get_ref().is_some_and(|inner| inner.is::<Malformed>()), "{error}");
                return count;
            }
        }
    }
}

/// The open body to its end.
fn body(tap: &mut Tap) -> io::Result<Vec<u8>> {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut body = Vec::new();
    loop {
        let Poll::Ready(octets) = tap.poll_body(cx) else { continue };
        match octets? {
            0 => return Ok(body),
            octets => {
                body.extend_from_slice(tap.body(octets));
                tap.consume(octets);
            }
        }
    }
}

/// No announcement makes the tap set memory aside, and what has been sent is held at most once.
fn is_bounded(tap: &Tap, sent: usize) {
    const BUFFERS: usize = 512 * 1024;
    assert!(tap.input.capacity() <= BUFFERS && tap.passed.capacity() <= BUFFERS, "the buffers grow");
    let rows = tap.aside.rows.as_ref().map_or(0, Vec::len);
    let ranges = tap.aside.found.as_ref().map_or(0, |found| found.ranges.len());
    assert!(rows + ranges + tap.aside.bodies.len() <= sent, "more is kept than was sent");
}

/// A wire on which nothing is written that matters, and octets come in pieces: each but the first keeps its reader waiting
/// once.
#[derive(Debug)]
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    late: bool,
}

impl Pieces {
    fn new(pieces: &[&[u8]]) -> Self {
        let pieces = pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.to_vec());
        Self { pieces: pieces.collect(), late: false }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.late) {
            return Poll::Pending;
        }
        if let Some(mut piece) = self.pieces.pop_front() {
            let here = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..here]);
            piece.drain(..here);
            if piece.is_empty() {
                self.late = true;
            } else {
                self.pieces.push_front(piece);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Wire for Pieces {
    fn abort(&mut self) {}
}
