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

/// Whether popgate wrote at most STARTTLS, and then at most a handshake and what ends it. In TLS 1.3 an alert looks like
/// data from outside (RFC 8446 §5.2): 2 octets, 1 for what they are, and 16 that prove them.
pub(crate) fn handshake_only(written: &[u8]) -> Result<(), String> {
    let mut rest = written;
    if rest.first().is_some_and(u8::is_ascii_alphanumeric) {
        // Whoever gives up while it is written leaves part of it.
        let end = rest.iter().position(|octet| *octet == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, records) = rest.split_at(end);
        let tag = line.iter().take_while(|octet| octet.is_ascii_alphanumeric()).count();
        if !b" STARTTLS\r\n".starts_with(&line[tag..]) {
            return Err(line.escape_ascii().to_string());
        }
        rest = records;
    }
    while let [kind, 3, _, high, low, records @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (record, records) = records.split_at_checked(length).ok_or("half a record")?;
        match (kind, length) {
            // ChangeCipherSpec, alert, handshake.
            (20..=22, _) => {}
            (23, 19) if records.is_empty() => {}
            _ => return Err(format!("a record of kind {kind}: {}", record.escape_ascii())),
        }
        rest = records;
    }
    if rest.is_empty() { Ok(()) } else { Err(rest.escape_ascii().to_string()) }
}
