//! TCP: dialling servers, and TCP streams as wires.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{Dial, Endpoint, Pending, Wire};

/// Dials over TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    /// Tries all addresses of the host in turn, the resolver's order first; the last failure is reported.
    fn dial<'a>(&'a self, to: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
            for address in lookup_host((to.host.as_str(), to.port)).await? {
                match timeout(ONE_ADDRESS, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => {
                        prepare(&stream)?;
                        return Ok(Box::new(stream) as Box<dyn Wire>);
                    }
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::ErrorKind::TimedOut.into(),
                }
            }
            Err(last)
        })
    }
}

impl Wire for TcpStream {
    /// A reset: whoever reads at the other end learns that this is no orderly end.
    fn abort(&mut self) {
        // If this fails the stream is closed all the same, only with more courtesy.
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }
}

/// What every stream of ours is set to: small writes go out at once, and a peer that vanished is noticed in the end.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Whether this process, or the machine, has as many descriptors as it may.
pub fn is_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// errno(3); the same numbers on every Unix.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// An address that does not answer leaves time for the next: connecting has ten seconds in all.
const ONE_ADDRESS: Duration = Duration::from_secs(4);

const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    /// F1. An empty label is in no name, so that nobody is asked for it.
    #[tokio::test]
    async fn a_name_without_an_address_is_no_connection() {
        let nowhere = Endpoint { host: "no..where".into(), port: 143 };
        let error = Tcp.dial(&nowhere).await.err().unwrap();
        assert!(error.to_string().contains("lookup"), "{error}");
        assert!(!is_want_of_descriptors(&error));
    }
}
