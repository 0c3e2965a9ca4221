//! The client's side of a session: lines come in, octets are collected and go out, and the timers that concern the client
//! run here. What the lines mean is not known here.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use zeroize::{Zeroize, Zeroizing};

use super::summary::End;
use crate::{
    net::{Accept, Wire},
    pop3::{
        line::{Expects, Input, Lines},
        reply::Reply,
    },
};

/// A client on its line.
pub(super) struct Client {
    wire: Box<dyn Wire>,
    lines: Lines,
    /// What is to be sent.
    out: Vec<u8>,
    /// How many octets the kernel has taken over, all in all.
    handed_over: u64,
    /// The client has closed its half of the line. It may still read.
    ended: bool,
    /// No wait for the client goes on beyond this.
    deadline: Option<Instant>,
}

/// A place in what is sent.
#[derive(Clone, Copy)]
pub(super) struct Mark(u64);

impl Client {
    pub(super) fn new(wire: Box<dyn Wire>) -> Self {
        Self { wire, lines: Lines::new(), out: Vec::new(), handed_over: 0, ended: false, deadline: None }
    }

    /// From now on the client has until `deadline` for all that it says and reads; `None`: it is not hurried any more.
    pub(super) const fn hurry(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// The next line. If none is there yet, what has been collected is sent first, and then the client has `patience` to
    /// complete one; octets without an end do not extend it. A server that is being stopped answers commands that have
    /// arrived, and leaves without a word if none has (RFC 1939 has no replies but to commands).
    pub(super) async fn listen(
        &mut self,
        expects: Expects,
        patience: Duration,
        shutdown: &CancellationToken,
    ) -> Result<Input, End> {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.flush().await?;
            return Err(End::Idle);
        }
        let input = match self.lines.next(expects) {
            Some(input) => input,
            None => {
                self.flush().await?;
                tokio::select! {
                    biased;
                    heard = self.hear_patiently(expects, patience) => heard?,
                    () = shutdown.cancelled() => return Err(End::Shutdown),
                }
            }
        };
        if shutdown.is_cancelled() {
            self.say(&Reply::shutting_down()).await?;
            return Err(End::Shutdown);
        }
        Ok(input)
    }

    /// Whether there is anything behind the line that was taken out last, as far as has arrived.
    pub(super) async fn has_more(&mut self) -> bool {
        if self.lines.buffered() == 0 {
            poll_fn(|cx| Poll::Ready(self.poll_hear(cx).is_ready())).await;
        }
        self.lines.buffered() > 0
    }

    /// What has arrived behind that line.
    pub(super) fn waiting(&self) -> &[u8] {
        self.lines.waiting()
    }

    /// Collects a reply.
    pub(super) async fn say(&mut self, reply: &Reply) -> Result<(), End> {
        self.write(|out| out.extend_from_slice(reply.octets())).await
    }

    /// Collects what `compose` appends, and sends it if it has become much.
    pub(super) async fn write(&mut self, compose: impl FnOnce(&mut Vec<u8>)) -> Result<(), End> {
        compose(&mut self.out);
        if self.out.len() >= ENOUGH { self.flush().await } else { Ok(()) }
    }

    /// Collects what `compose` appends, whose end is near.
    pub(super) fn collect(&mut self, compose: impl FnOnce(&mut Vec<u8>)) {
        compose(&mut self.out);
    }

    /// A reply is complete. It is sent, unless the client has said more already and would be woken for each of many.
    pub(super) async fn pause(&mut self) -> Result<(), End> {
        if self.out.len() < PLENTY && memchr::memchr(b'\n', self.lines.waiting()).is_some() {
            return Ok(());
        }
        self.flush().await
    }

    /// Whether everything before the mark has been sent.
    pub(super) const fn has_sent(&self, mark: Mark) -> bool {
        mark.0 <= self.handed_over
    }

    /// Where the next octet will stand.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.handed_over + self.out.len() as u64)
    }

    /// Takes back everything from the mark on. `false`: some of it has been sent, and nothing was taken back.
    #[must_use]
    pub(super) fn take_back(&mut self, mark: Mark) -> bool {
        let Some(keep) = mark.0.checked_sub(self.handed_over) else { return false };
        self.out.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        true
    }

    /// Hands everything over to the kernel. Meanwhile it goes on listening as long as there is room: a client may send many
    /// commands before it reads the first reply, and two that only write wait for each other for ever.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        self.hand_over(true).await
    }

    /// The same without listening: what the client says next is for TLS, and a quick one says it as soon as the last octet
    /// has left us.
    pub(super) async fn flush_before_tls(&mut self) -> Result<(), End> {
        self.hand_over(false).await
    }

    async fn hand_over(&mut self, listening: bool) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut sent = 0;
        while sent < self.out.len() {
            sent += self.progress(listening, |client, cx| client.poll_write(cx, sent)).await?;
        }
        // Where the octets were encrypted they may still be on this side: 64 KiB at most, within one such time.
        self.progress(listening, |client, cx| Pin::new(&mut client.wire).poll_flush(cx)).await?;
        self.handed_over += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// Begins TLS, for which the time is the caller's. Nothing that was heard before is remembered.
    pub(super) async fn secure(&mut self, acceptor: &dyn Accept) -> io::Result<()> {
        // While hands are shaken nobody else has the line; if that fails, there is none.
        let wire = std::mem::replace(&mut self.wire, no_wire());
        self.wire = acceptor.accept(wire).await?;
        self.lines.clear();
        self.ended = false;
        Ok(())
    }

    /// Ends the session on the client's side, at once.
    pub(super) async fn part(&mut self, end: End) {
        match end {
            End::Stalled | End::Torn => self.wire.abort(),
            // Perhaps in the middle of a message: nothing may look like its end.
            End::Disconnected if !self.out.is_empty() => self.wire.abort(),
            End::Idle | End::Disconnected => {
                // Whatever comes of it, the line is dropped next.
                let _ = timeout(FAREWELL, self.wire.shutdown()).await;
            }
            End::Quit | End::Refused | End::Shutdown => {
                if self.flush().await.is_ok() {
                    let _ = timeout(FAREWELL, self.see_off()).await;
                }
            }
        }
        // Other things may have to be done before the session is gone; the client is not to wait for them.
        self.wire = no_wire();
    }

    /// Closes our half and waits for the client to close its own: to close a socket in which something is unread resets the
    /// line, and a reset overtakes the last reply.
    async fn see_off(&mut self) -> io::Result<()> {
        self.wire.shutdown().await?;
        // Somebody may have sent the next password already.
        let mut unread = Zeroizing::new([0; 512]);
        while !self.ended && self.wire.read(&mut *unread).await? > 0 {}
        Ok(())
    }

    /// A line that is complete within `patience`.
    async fn hear_patiently(&mut self, expects: Expects, patience: Duration) -> Result<Input, End> {
        let (soon, late) = (self.until(SOON), self.until(patience));
        if let Ok(heard) = timeout_at(soon, self.hear_line(expects)).await {
            return heard;
        }
        // Ten thousand clients that think do not keep what a message needed.
        self.out.shrink_to(THINKING);
        timeout_at(late, self.hear_line(expects)).await.unwrap_or(Err(End::Idle))
    }

    async fn hear_line(&mut self, expects: Expects) -> Result<Input, End> {
        loop {
            if let Some(input) = self.lines.next(expects) {
                return Ok(input);
            }
            if self.ended || poll_fn(|cx| self.poll_hear(cx)).await.is_err() {
                return Err(End::Disconnected);
            }
        }
    }

    /// Waits for a step in sending, and says that the client does not read if there is none for too long.
    async fn progress<T>(
        &mut self,
        listening: bool,
        mut step: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Result<T, End> {
        let end = self.until(WRITE_STALL);
        let step = poll_fn(|cx| {
            while listening && !self.ended && self.lines.room() > 0 {
                match self.poll_hear(cx) {
                    Poll::Ready(heard) => heard?,
                    Poll::Pending => break,
                }
            }
            step(self, cx)
        });
        match timeout_at(end, step).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(End::Disconnected),
            Err(_) => Err(End::Stalled),
        }
    }

    /// The end of a wait for the client.
    fn until(&self, patience: Duration) -> Instant {
        let end = Instant::now() + patience;
        self.deadline.map_or(end, |deadline| end.min(deadline))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: usize) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.wire).poll_write(cx, &self.out[from..]))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(Ok(written)),
        }
    }

    /// Takes in what has arrived, once.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut octets = [0; 4096];
        let room = self.lines.room().min(octets.len());
        let mut heard = ReadBuf::new(&mut octets[..room]);
        let outcome = ready!(Pin::new(&mut self.wire).poll_read(cx, &mut heard));
        self.lines.push(heard.filled());
        let nothing = heard.filled().is_empty();
        octets.zeroize();
        match outcome {
            Ok(()) => self.ended |= nothing,
            // TLS without its farewell. That is how many clients leave, and what they said before was theirs.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.ended = true,
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }
}

/// A line whose other end is closed.
fn no_wire() -> Box<dyn Wire> {
    Box::new(tokio::io::duplex(1).0)
}

/// So much makes a packet worth sending.
const ENOUGH: usize = 16 * 1024;

/// A client that has not gone on within this time is thinking.
const SOON: Duration = Duration::from_secs(1);

/// So much is sent even if more is to follow at once.
const PLENTY: usize = 64 * 1024;

/// What is kept while the client thinks.
const THINKING: usize = 1024;

/// How long a client may refuse to read before it is given up.
const WRITE_STALL: Duration = Duration::from_secs(240);

/// How long a client may take to hang up after us.
const FAREWELL: Duration = Duration::from_secs(2);
