//! PROXY headers of any octets, for [`fuzzing`](crate::fuzzing).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use futures_util::FutureExt as _;

use super::proxy_protocol;

/// Whoever is named is named by the header, and what stands behind the header is left alone.
pub(crate) fn proxy_header(octets: &[u8]) {
    let mut rest = octets;
    let read = proxy_protocol::header(&mut rest).now_or_never().expect("octets in memory are not awaited");
    let header = &octets[..octets.len() - rest.len()];
    let expected = if header.starts_with(b"PROXY") { line(header) } else { binary(header) };
    match (read, expected) {
        (Ok(named), Some(expected)) => assert_eq!(named, expected, "{}", header.escape_ascii()),
        (Ok(named), None) => panic!("{} names {named:?}", header.escape_ascii()),
        (Err(_), Some(Some(named))) => panic!("{} does not name {named}", header.escape_ascii()),
        (Err(_), _) => {}
    }
}

/// Version 1, §2.1: whom a line names. Ports are read as Rust reads them, which takes a plus sign.
fn line(header: &[u8]) -> Option<Option<SocketAddr>> {
    let text = header.strip_prefix(b"PROXY ")?.strip_suffix(b"\r\n")?;
    if text.starts_with(b"UNKNOWN") {
        return (!text.contains(&b'\r')).then_some(None);
    }
    let text = std::str::from_utf8(text).ok()?;
    let words: Vec<_> = text.split(' ').collect();
    let [family, source, destination, port, other_port] = words[..] else { return None };
    let (source, destination) = match family {
        "TCP4" => {
            (source.parse::<Ipv4Addr>().map(IpAddr::V4).ok()?, destination.parse::<Ipv4Addr>().map(IpAddr::V4).ok()?)
        }
        "TCP6" => {
            (source.parse::<Ipv6Addr>().map(IpAddr::V6).ok()?, destination.parse::<Ipv6Addr>().map(IpAddr::V6).ok()?)
        }
        _ => return None,
    };
    let _: (IpAddr, u16) = (destination, other_port.parse().ok()?);
    Some(Some(SocketAddr::new(source, port.parse().ok()?)))
}

/// Version 2, §2.2: whom a block names.
fn binary(header: &[u8]) -> Option<Option<SocketAddr>> {
    let (fixed, rest) = header.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n")?.split_at_checked(4)?;
    let [command, family, length @ ..] = fixed else { return None };
    if length != u16::try_from(rest.len()).ok()?.to_be_bytes() {
        return None;
    }
    let port = |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    match (command, family) {
        (0x20, _) => Some(None),
        (0x21, 0x11) => {
            let source: [u8; 4] = rest.get(..4)?.try_into().ok()?;
            let port = port(8)?;
            port_is_there(rest, 12).then(|| Some(SocketAddr::from((source, port))))
        }
        (0x21, 0x21) => {
            let source: [u8; 16] = rest.get(..16)?.try_into().ok()?;
            let port = port(32)?;
            port_is_there(rest, 36).then(|| Some(SocketAddr::from((source, port))))
        }
        // Datagrams, UNIX sockets and unknown families name nobody who could have connected here.
        (0x21, _) => Some(None),
        _ => None,
    }
}

fn port_is_there(addresses: &[u8], length: usize) -> bool {
    addresses.len() >= length
}
