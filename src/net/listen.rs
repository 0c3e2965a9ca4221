//! Ports that clients connect to: taking a connection, learning who is behind a trusted proxy, starting TLS. The loop
//! around it, and what a connection is for, are the caller's.

use std::{io, net::SocketAddr, time::Duration};

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    time::timeout,
};
use tracing::debug;

use super::{Accept, Endpoint, Wire, proxy_protocol, tcp, tls::Acceptor};

/// An open port.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// How connections begin.
pub struct Terms {
    tls: Option<Acceptor>,
    proxies: Vec<IpNet>,
}

/// A connection of which no line has been read.
pub struct Knock {
    stream: TcpStream,
    /// The other end of the line.
    pub peer: SocketAddr,
    /// Where the client is: the same, until a trusted proxy says something else.
    pub client: SocketAddr,
}

/// A connection that is ready for its first line.
pub struct Arrival {
    /// The line.
    pub wire: Box<dyn Wire>,
    /// Where the client is: what a trusted proxy says, else the other end of the line.
    pub client: SocketAddr,
    /// The other end of the line.
    pub peer: SocketAddr,
    /// TLS is up.
    pub encrypted: bool,
}

impl Listener {
    /// Opens a port. The host's first address is taken; port 0 is any free one.
    pub async fn bind(at: &Endpoint) -> io::Result<Self> {
        let address = lookup_host((at.host.as_str(), at.port)).await?.next();
        let address = address.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // `[::]` is every address; somebody who wants IPv6 alone names one.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        Ok(Self { address: socket.local_addr()?, socket })
    }

    /// The address that was bound.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next connection. An error is one of this process, such as too few descriptors: a connection that
    /// broke before anybody looked at it is passed over. Cancel-safe.
    pub async fn accept(&self) -> io::Result<Knock> {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    let peer = canonical(peer);
                    return Ok(Knock { stream, peer, client: peer });
                }
                Err(error) if is_of_the_connection(&error) => debug!(%error, "a connection broke at once"),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Terms {
    /// TLS from the first octet with `tls`, if it is there. Who connects from a network of `proxies` begins with a PROXY
    /// header.
    pub const fn new(tls: Option<Acceptor>, proxies: Vec<IpNet>) -> Self {
        Self { tls, proxies }
    }

    /// Whether TLS comes first.
    pub const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Learns who is behind a trusted proxy. The header is never guessed: from a proxy there is one, or there is no
    /// connection.
    pub async fn introduce(&self, knock: &mut Knock) -> io::Result<()> {
        if self.is_proxy(knock.peer) {
            // LOCAL is the proxy itself, asking whether we are well.
            knock.client = proxy_protocol::read(&mut knock.stream).await?.map_or(knock.peer, canonical);
        }
        Ok(())
    }

    /// Does what else comes before the first line. Every step has its time.
    pub async fn open(&self, knock: Knock) -> io::Result<Arrival> {
        let Knock { stream, peer, client } = knock;
        tcp::prepare(&stream)?;
        let wire = match &self.tls {
            Some(tls) => {
                timeout(HANDSHAKE, tls.accept(Box::new(stream))).await.map_err(|_| io::ErrorKind::TimedOut)??
            }
            None => Box::new(stream),
        };
        Ok(Arrival { wire, client, peer, encrypted: self.tls.is_some() })
    }

    fn is_proxy(&self, peer: SocketAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&peer.ip()))
    }
}

impl Knock {
    /// Waits until there is something to be read: what the client says, or that it has gone. Cancel-safe.
    pub async fn speaks(&self) {
        // Whatever is wrong with the line is found out by reading.
        let _ = self.stream.peek(&mut [0]).await;
    }

    /// Turns a connection away with a line for it to read, if it can take one at once.
    pub fn refuse(self, line: &[u8]) {
        // A client that cannot take a line now gets none.
        let _ = self.stream.try_write(line);
    }
}

/// An IPv4 client on an IPv6 socket is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Errors that accept(2) passes on from the connection it was about to give.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
    )
}

const BACKLOG: i32 = 1024;

/// A slow client must not hold a connection for ever before it has said anything.
const HANDSHAKE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_is_behind_a_proxy_is_known_from_its_header_alone() {
        let here = || Endpoint { host: "127.0.0.1".into(), port: 0 };
        let loopback: IpNet = "127.0.0.0/8".parse().unwrap();
        for (proxies, sent, client) in [
            (vec![loopback], "PROXY TCP4 192.0.2.7 192.0.2.1 4711 110\r\nQUIT", Some("192.0.2.7:4711")),
            (vec![loopback], "PROXY TCP6 2001:db8::7 2001:db8::1 4711 110\r\nQUIT", Some("[2001:db8::7]:4711")),
            (vec![loopback], "QUIT\r\nQUIT\r\nQUIT\r\n", None),
            (vec![], "QUIT", Some("")),
        ] {
            let listener = Listener::bind(&here()).await.unwrap();
            let terms = Terms::new(None, proxies);
            let mut stream = TcpStream::connect(listener.address()).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let mut knock = listener.accept().await.unwrap();
            let introduced = terms.introduce(&mut knock).await;
            let Some(client) = client else {
                assert!(introduced.is_err(), "{sent}");
                continue;
            };
            let mut arrival = terms.open(knock).await.unwrap();
            let expected = if client.is_empty() { stream.local_addr().unwrap() } else { client.parse().unwrap() };
            assert_eq!((arrival.client, arrival.peer), (expected, stream.local_addr().unwrap()));
            let mut line = [0; 4];
            arrival.wire.read_exact(&mut line).await.unwrap();
            assert_eq!(&line, b"QUIT");
        }
    }

    #[tokio::test]
    async fn an_aborted_line_is_reset() {
        let here = Endpoint { host: "127.0.0.1".into(), port: 0 };
        let listener = Listener::bind(&here).await.unwrap();
        let terms = Terms::new(None, Vec::new());
        for orderly in [true, false] {
            let mut stream = TcpStream::connect(listener.address()).await.unwrap();
            let mut arrival = terms.open(listener.accept().await.unwrap()).await.unwrap();
            if !orderly {
                arrival.wire.abort();
            }
            drop(arrival);
            let end = stream.read(&mut [0; 1]).await.map_err(|error| error.kind());
            assert_eq!(end, if orderly { Ok(0) } else { Err(io::ErrorKind::ConnectionReset) });
        }
    }
}
