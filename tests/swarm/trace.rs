//! What went over all lines of a simulation, in order, with the times of the paused clock: as one number, and for people.

use std::{
    hash::{DefaultHasher, Hasher},
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    time::Instant,
};

/// The trace of one simulation. Clones are the same.
#[derive(Clone)]
pub(super) struct Trace(Arc<Mutex<State>>);

struct State {
    began: Instant,
    hash: DefaultHasher,
    lines: u64,
    /// Kept only where somebody will read it.
    text: Option<String>,
}

/// A line that is traced, seen from popgate's peer.
pub(super) struct Traced {
    line: DuplexStream,
    name: String,
    trace: Trace,
}

impl Trace {
    /// `kept`: the whole trace can be read afterwards.
    pub(super) fn new(kept: bool) -> Self {
        let text = kept.then(String::new);
        Self(Arc::new(Mutex::new(State { began: Instant::now(), hash: DefaultHasher::new(), lines: 0, text })))
    }

    /// Traces a line from now on. `kind` is which leg it is.
    pub(super) fn line(&self, kind: &str, line: DuplexStream) -> Traced {
        let number = {
            let mut state = self.0.lock().unwrap();
            state.lines += 1;
            state.lines
        };
        Traced { line, name: format!("{kind}{number}"), trace: self.clone() }
    }

    /// Something that is on no line.
    pub(super) fn note(&self, what: &str) {
        self.add("--", "", what.as_bytes());
    }

    /// The number that stands for everything so far.
    pub(super) fn hash(&self) -> u64 {
        self.0.lock().unwrap().hash.finish()
    }

    /// Everything so far.
    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap().text.clone().unwrap_or_default()
    }

    fn add(&self, name: &str, direction: &str, octets: &[u8]) {
        let mut state = self.0.lock().unwrap();
        let at = state.began.elapsed().as_millis() as u64;
        state.hash.write_u64(at);
        state.hash.write(name.as_bytes());
        state.hash.write(direction.as_bytes());
        state.hash.write(octets);
        if let Some(text) = &mut state.text {
            let shown = &octets[..octets.len().min(200)];
            text.push_str(&format!("{at:>8} ms {name:>4} {direction} {}\n", shown.escape_ascii()));
        }
    }
}

impl AsyncRead for Traced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.line).poll_read(cx, buffer))?;
        self.trace.add(&self.name, ">", &buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Traced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.line).poll_write(cx, octets))?;
        self.trace.add(&self.name, "<", &octets[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}
