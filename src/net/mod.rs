//! Wires: what carries octets to a client or to a server, and how one is made. TLS, listening and dialling; no protocol.

use std::{fmt, future::Future, io, net::IpAddr, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};

pub mod counted;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod limits;
pub mod listen;
mod proxy_protocol;
pub mod tcp;
pub mod tls;

/// A two-way line of octets.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {
    /// Breaks the line so that the peer cannot take it for an orderly end: no `close_notify`, and a reset where TCP can
    /// send one (zero linger). Nothing may be written afterwards.
    fn abort(&mut self);
}

impl Wire for Box<dyn Wire> {
    fn abort(&mut self) {
        (**self).abort();
    }
}

/// In-memory lines, for tests and for the demonstration.
impl Wire for tokio::io::DuplexStream {
    fn abort(&mut self) {}
}

/// A host and a port, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// Whether what goes there does not leave this machine.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse().map(|address: IpAddr| address.to_canonical());
        self.host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A future that is handed on without its type.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes plain lines to servers. The one seam through which tests replace the network.
pub trait Dial: Send + Sync + 'static {
    /// Resolves the host and connects to the first address that answers.
    fn dial<'a>(&'a self, to: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>>;
}

/// Begins TLS on lines from clients.
pub trait Accept: Send + Sync + 'static {
    /// Shakes hands. If that fails, the line is gone.
    fn accept(&self, wire: Box<dyn Wire>) -> Pending<'_, io::Result<Box<dyn Wire>>>;
}
