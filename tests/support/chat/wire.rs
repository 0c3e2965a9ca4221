//! In-memory lines that remember how they ended, and a [`Dial`] that hands them out when the transcript says so.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use popgate::net::{Dial, Endpoint, Pending, Wire};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::{mpsc, oneshot},
};

/// popgate's end of a line. The other end is an ordinary [`DuplexStream`].
pub(super) struct Pipe {
    /// `None` after [`Wire::abort`].
    stream: Option<DuplexStream>,
    fate: Arc<Fate>,
}

/// How a line ended.
#[derive(Default)]
pub(super) struct Fate {
    aborted: AtomicBool,
    reset: AtomicBool,
}

impl Pipe {
    /// A line on which so many octets may be under way in each direction.
    pub(super) fn pair(capacity: usize) -> (Self, DuplexStream, Arc<Fate>) {
        let (ours, theirs) = tokio::io::duplex(capacity);
        let fate = Arc::<Fate>::default();
        (Self { stream: Some(ours), fate: Arc::clone(&fate) }, theirs, fate)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut DuplexStream>> {
        if self.fate.reset.load(Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Fate {
    /// Whether popgate broke the line on purpose.
    pub(super) fn aborted(&self) -> bool {
        self.aborted.load(Relaxed)
    }

    /// From now on popgate finds the line reset. Drop the other end to wake it.
    pub(super) fn reset(&self) {
        self.reset.store(true, Relaxed);
    }
}

impl Wire for Pipe {
    fn abort(&mut self) {
        self.fate.aborted.store(true, Relaxed);
        self.stream = None;
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

/// Somebody wants a line to a server, and waits for one.
pub(super) type Request = oneshot::Sender<io::Result<Box<dyn Wire>>>;

/// Passes each wish for a line on to the player.
pub(super) struct Exchange(mpsc::UnboundedSender<Request>);

impl Exchange {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }
}

impl Dial for Exchange {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let (request, answer) = oneshot::channel();
            let gone = || io::Error::from(io::ErrorKind::ConnectionRefused);
            self.0.send(request).map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        })
    }
}
