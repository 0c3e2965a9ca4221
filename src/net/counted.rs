//! Lines to servers, counted: a decorator for any [`Dial`]. What is said on them, and whether TLS comes about, is not
//! known here.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Dial, Endpoint, Pending, Wire};

/// Dials, and counts what comes of it.
#[derive(Debug)]
pub struct Counted<D> {
    dial: D,
    ledger: Arc<Ledger>,
}

/// Lines since the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// They are there now.
    pub open: u64,
    /// They came about.
    pub opened: u64,
    /// They did not, or nobody would wait for them any longer.
    pub failed: u64,
}

#[derive(Default, Debug)]
struct Ledger {
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
}

impl<D> Counted<D> {
    /// Counts the lines that `dial` makes.
    pub fn new(dial: D) -> Self {
        Self { dial, ledger: Arc::default() }
    }

    /// How many there have been.
    pub fn counts(&self) -> Counts {
        let Ledger { opened, closed, failed } = &*self.ledger;
        // In this order, so that no more are closed than were opened.
        let closed = closed.load(Relaxed);
        let opened = opened.load(Relaxed);
        Counts { open: opened.saturating_sub(closed), opened, failed: failed.load(Relaxed) }
    }
}

impl<D: Dial> Dial for Counted<D> {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let attempt = Attempt(Some(&self.ledger));
            let wire = self.dial.dial(to).await?;
            Ok(Box::new(attempt.succeeded(wire)) as Box<dyn Wire>)
        })
    }
}

/// It has failed if it is dropped, by whoever would not wait any longer, say.
struct Attempt<'a>(Option<&'a Arc<Ledger>>);

impl Attempt<'_> {
    fn succeeded(mut self, wire: Box<dyn Wire>) -> Line {
        let ledger = self.0.take().map(Arc::clone).unwrap_or_default();
        ledger.opened.fetch_add(1, Relaxed);
        Line { wire, ledger }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(ledger) = self.0 {
            ledger.failed.fetch_add(1, Relaxed);
        }
    }
}

#[derive(Debug)]
struct Line {
    wire: Box<dyn Wire>,
    ledger: Arc<Ledger>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.ledger.closed.fetch_add(1, Relaxed);
    }
}

impl Wire for Line {
    fn abort(&mut self) {
        self.wire.abort();
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    /// Hosts are called by what becomes of lines to them.
    struct Hosts;

    impl Dial for Hosts {
        fn dial<'a>(&'a self, to: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
            Box::pin(async {
                match to.host.as_str() {
                    "echo" => {
                        let (ours, theirs) = tokio::io::duplex(64);
                        tokio::spawn(async move {
                            let (mut read, mut write) = tokio::io::split(theirs);
                            tokio::io::copy(&mut read, &mut write).await
                        });
                        Ok(Box::new(ours) as Box<dyn Wire>)
                    }
                    "silent" => pending().await,
                    _ => Err(io::ErrorKind::ConnectionRefused.into()),
                }
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_counted_and_carry_what_is_said() {
        let dial = Counted::new(Hosts);
        let host = |host: &str| Endpoint { host: host.to_owned(), port: 143 };
        let counts = |open, opened, failed| Counts { open, opened, failed };
        let (echo, silent, closed) = (host("echo"), host("silent"), host("closed"));
        let mut one = dial.dial(&echo).await.unwrap();
        let other = dial.dial(&echo).await.unwrap();
        assert_eq!(dial.counts(), counts(2, 2, 0));
        assert!(dial.dial(&closed).await.is_err());
        assert!(timeout(Duration::from_secs(10), dial.dial(&silent)).await.is_err());
        assert_eq!(dial.counts(), counts(2, 2, 2));
        drop(other);
        one.write_all(b"* OK\r\n").await.unwrap();
        one.shutdown().await.unwrap();
        let mut said = Vec::new();
        one.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"* OK\r\n");
        assert_eq!(dial.counts(), counts(1, 2, 2));
        drop(one);
        assert_eq!(dial.counts(), counts(0, 2, 2));
    }
}
