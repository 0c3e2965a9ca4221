//! Ports that clients connect to: taking a connection, learning who is behind a trusted proxy, starting TLS. The loop
//! around it, and what a connection is for, are the caller's.

use std::{io, net::SocketAddr, time::Duration};

use ipnet::IpNet;
use proxy_header::{ParseConfig, io::ProxiedStream};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    time::timeout,
};

use super::{Accept, Endpoint, Wire, tcp, tls::Acceptor};

/// An open port.
pub struct Listener {
    socket: TcpListener,
    /// TLS from the first octet, with this.
    tls: Option<Acceptor>,
    /// Networks of proxies: who connects from there begins with a PROXY header.
    proxies: Vec<IpNet>,
}

/// A connection of which nothing has been read.
pub struct Knock {
    stream: TcpStream,
    /// Where it comes from.
    pub address: SocketAddr,
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
    pub async fn bind(at: &Endpoint, tls: Option<Acceptor>, proxies: Vec<IpNet>) -> io::Result<Self> {
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
        Ok(Self { socket: TcpListener::from_std(socket.into())?, tls, proxies })
    }

    /// The address that was bound.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether TLS comes first.
    pub const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Waits for the next connection. Cancel-safe.
    pub async fn accept(&self) -> io::Result<Knock> {
        let (stream, address) = self.socket.accept().await?;
        Ok(Knock { stream, address: canonical(address) })
    }

    /// Does what comes before the first line. Every step has its time.
    pub async fn open(&self, knock: Knock) -> io::Result<Arrival> {
        let Knock { stream, address: peer } = knock;
        tcp::prepare(&stream)?;
        let (wire, client) = match self.is_proxy(peer) {
            true => introduced(stream, peer).await?,
            false => (Box::new(stream) as Box<dyn Wire>, peer),
        };
        let wire = match &self.tls {
            Some(tls) => timeout(HANDSHAKE, tls.accept(wire)).await.map_err(|_| io::ErrorKind::TimedOut)??,
            None => wire,
        };
        Ok(Arrival { wire, client, peer, encrypted: self.tls.is_some() })
    }

    fn is_proxy(&self, peer: SocketAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&peer.ip()))
    }
}

impl Knock {
    /// Turns a connection away with a line for it to read, if it can take one at once.
    pub fn refuse(self, line: &[u8]) {
        // A client that cannot take a line now gets none.
        let _ = self.stream.try_write(line);
    }
}

/// The client behind a trusted proxy (PROXY protocol, versions 1 and 2). The header is never guessed: from a proxy there
/// is one, or there is no connection.
async fn introduced(stream: TcpStream, peer: SocketAddr) -> io::Result<(Box<dyn Wire>, SocketAddr)> {
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    let header = ProxiedStream::create_from_tokio(stream, config);
    let stream = timeout(PROXY_HEADER, header).await.map_err(|_| io::ErrorKind::TimedOut)??;
    // LOCAL is the proxy itself, asking whether we are well.
    let client = stream.proxy_header().proxied_address().map_or(peer, |address| canonical(address.source));
    Ok((Box::new(stream), client))
}

impl Wire for ProxiedStream<TcpStream> {
    fn abort(&mut self) {
        self.get_mut().abort();
    }
}

/// An IPv4 client on an IPv6 socket is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

const BACKLOG: i32 = 1024;

/// A slow client must not hold a connection for ever before it has said anything.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// A proxy sends its header at once.
const PROXY_HEADER: Duration = Duration::from_secs(3);

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
            let listener = Listener::bind(&here(), None, proxies).await.unwrap();
            let mut stream = TcpStream::connect(listener.address().unwrap()).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let arrival = listener.open(listener.accept().await.unwrap()).await;
            let Some(client) = client else {
                assert!(arrival.is_err(), "{sent}");
                continue;
            };
            let mut arrival = arrival.unwrap();
            let expected = if client.is_empty() { stream.local_addr().unwrap() } else { client.parse().unwrap() };
            assert_eq!((arrival.client, arrival.peer), (expected, stream.local_addr().unwrap()));
            let mut line = [0; 4];
            arrival.wire.read_exact(&mut line).await.unwrap();
            assert_eq!(&line, b"QUIT");
        }
    }
}
