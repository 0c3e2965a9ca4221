//! A line that remembers every octet popgate wrote on it, whoever read them, and a way to a server over such lines.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use popgate::net::{Dial, Endpoint, Pending, Wire};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// What popgate wrote, on all lines in turn.
pub(crate) type Written = Arc<Mutex<Vec<u8>>>;

/// Lines to whoever `serve` puts at their other end.
pub(crate) struct Recorded<F> {
    pub(crate) written: Written,
    /// Octets of room in each direction.
    pub(crate) capacity: usize,
    pub(crate) serve: F,
}

struct Recorder {
    line: DuplexStream,
    written: Written,
}

impl<F: Fn(DuplexStream) + Send + Sync + 'static> Dial for Recorded<F> {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        let (line, theirs) = tokio::io::duplex(self.capacity);
        (self.serve)(theirs);
        let written = Arc::clone(&self.written);
        Box::pin(async { Ok(Box::new(Recorder { line, written }) as Box<dyn Wire>) })
    }
}

impl Wire for Recorder {
    fn abort(&mut self) {}
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

impl AsyncRead for Recorder {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_read(cx, buf)
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.line).poll_write(cx, octets);
        if let Poll::Ready(Ok(taken)) = taken {
            self.written.lock().unwrap().extend_from_slice(&octets[..taken]);
        }
        taken
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}
