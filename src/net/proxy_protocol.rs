//! The PROXY protocol, versions 1 and 2 (HAProxy, proxy-protocol.txt): what a load balancer says first, on whose behalf it
//! connects. Whom to believe is the caller's business; the header is never guessed, it is there or the line is refused.

use std::{io, net::SocketAddr, time::Duration};

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

/// Reads the header and nothing behind it. `None`: the proxy speaks for itself (a health check), or does not know for
/// whom. Takes three seconds at most; a peer that sends anything else is refused as [`io::ErrorKind::InvalidData`].
pub(super) async fn read(wire: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    timeout(PATIENCE, header(wire)).await?
}

/// The same, with all the time that it takes.
pub(super) async fn header(wire: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let octets = octets(wire).await?;
    match ProxyHeader::parse(&octets, PARSE) {
        Ok((header, _)) => {
            Ok(header.proxied_address().filter(|it| it.protocol == Protocol::Stream).map(|it| it.source))
        }
        Err(_) => Err(no_header()),
    }
}

/// The octets of one header. It is cut off exactly, so that no wire has to hold back what was read too much.
async fn octets(wire: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; BINARY.len()];
    wire.read_exact(&mut octets).await?;
    if octets == BINARY {
        octets.extend([0; 4]);
        wire.read_exact(&mut octets[BINARY.len()..]).await?;
        let length = usize::from(u16::from_be_bytes([octets[14], octets[15]]));
        if length > LONGEST_BINARY {
            return Err(no_header());
        }
        octets.resize(BINARY.len() + 4 + length, 0);
        wire.read_exact(&mut octets[BINARY.len() + 4..]).await?;
        return Ok(octets);
    }
    // The other form is a line.
    while octets.starts_with(b"PROXY ") && octets.len() < LONGEST_LINE {
        octets.push(wire.read_u8().await?);
        if octets.ends_with(b"\n") {
            return Ok(octets);
        }
    }
    Err(no_header())
}

fn no_header() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY header")
}

/// What version 2 begins with.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with CRLF, as the specification counts it.
const LONGEST_LINE: usize = 107;
/// Addresses take 36 octets; what follows them are notes that we do not read, and no proxy writes this many.
const LONGEST_BINARY: usize = 4096;
/// A proxy sends its header with the first packet.
const PATIENCE: Duration = Duration::from_secs(3);
const PARSE: ParseConfig = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };

#[cfg(test)]
mod tests {
    use proxy_header::ProxiedAddress;
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    const SOURCE: &str = "192.0.2.7:40000";

    fn binary(header: &ProxyHeader<'_>) -> Vec<u8> {
        let mut octets = [0; 256];
        let length = header.encode_to_slice_v2(&mut octets).unwrap();
        octets[..length].to_vec()
    }

    async fn outcome(sent: &[u8]) -> Result<(Option<String>, String), io::ErrorKind> {
        let (mut proxy, mut wire) = duplex(1 << 16);
        proxy.write_all(sent).await.unwrap();
        proxy.write_all(b"CAPA\r\n").await.unwrap();
        let source = read(&mut wire).await.map_err(|error| error.kind())?;
        drop(proxy);
        let mut rest = String::new();
        wire.read_to_string(&mut rest).await.unwrap();
        Ok((source.map(|source| source.to_string()), rest))
    }

    #[tokio::test]
    async fn a_header_names_the_client_and_what_follows_is_left_alone() {
        let proxied = ProxiedAddress::stream(SOURCE.parse().unwrap(), "192.0.2.1:110".parse().unwrap());
        let rows = [
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 110\r\n".to_vec(), Some(SOURCE)),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 110\r\n".to_vec(), Some("[2001:db8::7]:40000")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN whatever it is\r\n".to_vec(), None),
            (binary(&ProxyHeader::with_address(proxied)), Some(SOURCE)),
            (binary(&ProxyHeader::with_local()), None),
        ];
        for (sent, source) in rows {
            let expected = (source.map(str::to_owned), "CAPA\r\n".to_owned());
            assert_eq!(outcome(&sent).await, Ok(expected), "{}", sent.escape_ascii());
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let long = |length: u16| [BINARY, &[0x21, 0x11], &length.to_be_bytes(), &[0; 5000]].concat();
        let rows = [
            b"USER alice\r\nPASS secret\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 192.0.2.1 40000\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 110\n".to_vec(),
            b"PROXY TCP4 mail.example.com 192.0.2.1 40000 110\r\n".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100], b"\r\n"].concat(),
            long(11),
            long(4097),
            [BINARY, &[0x31, 0x11, 0, 0]].concat(),
        ];
        for sent in rows {
            assert_eq!(outcome(&sent).await, Err(io::ErrorKind::InvalidData), "{}", sent.escape_ascii());
        }
        let (_proxy, mut wire) = duplex(64);
        drop(_proxy);
        assert_eq!(read(&mut wire).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_is_not_awaited_for_ever() {
        let (mut proxy, mut wire) = duplex(64);
        proxy.write_all(b"PROXY TCP4 192.0.2.7").await.unwrap();
        assert_eq!(read(&mut wire).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
