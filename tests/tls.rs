//! TLS towards clients. Only these show the program with a certificate: what it offers to clients of every kind. That no
//! password goes to a server that cannot prove its name is shown by `certificates`.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{serve::Popgate, tls::identity};

/// T037: whoever speaks only something else is refused (ALPACA); whoever says nothing is welcome.
#[tokio::test]
async fn clients_that_speak_pop3_or_do_not_say_are_welcome() {
    let (_popgate, address) = popgate();
    for version in [&TLS12, &TLS13] {
        for (offered, chosen) in [
            (&[][..], Ok(None)),
            (&["pop3"], Ok(Some("pop3"))),
            (&["imap", "pop3"], Ok(Some("pop3"))),
            (&["http/1.1"], Err(AlertDescription::NoApplicationProtocol)),
            (&["h2", "http/1.1", "imap"], Err(AlertDescription::NoApplicationProtocol)),
        ] {
            let got = match greeted(&client(version, offered), address).await {
                Ok(stream) => {
                    Ok(stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8(name.into()).unwrap()))
                }
                Err(error) => match error.get_ref().unwrap().downcast_ref() {
                    Some(rustls::Error::AlertReceived(alert)) => Err(*alert),
                    error => panic!("{error:?}"),
                },
            };
            assert_eq!(got, chosen.map(|name| name.map(str::to_owned)), "{version:?} {offered:?}");
        }
    }
}

/// A client that comes every few minutes need not be shown the certificate each time.
#[tokio::test]
async fn sessions_are_resumed() {
    let (_popgate, address) = popgate();
    for version in [&TLS12, &TLS13] {
        let client = client(version, &[]);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let stream = greeted(&client, address).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
        }
    }
}

/// A line that breaks off during the handshake, or that is no TLS at all, harms nobody else.
#[tokio::test]
async fn what_is_no_handshake_ends_only_its_own_line() {
    let (_popgate, address) = popgate();
    for sent in ["", "CAPA\r\n", "\u{16}\u{3}\u{1}", "GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut said = Vec::new();
        // An alert, a reset or nothing; never a word of POP3.
        let _ = stream.read_to_end(&mut said).await;
        assert!(!said.windows(3).any(|octets| octets == b"+OK" || octets == b"-ER"), "{}", said.escape_ascii());
    }
    greeted(&client(&TLS13, &[]), address).await.unwrap();
}

/// The program on a port that speaks TLS from the first octet.
fn popgate() -> (Popgate, SocketAddr) {
    let identity = identity();
    let [certificate, key] = [("certificate", &identity.certificate), ("key", &identity.key)]
        .map(|(name, file)| format!("tls.{name}={}", file.display()));
    let arguments = ["--listen", "pop3s://127.0.0.1:0", "--set", &certificate, "--set", &key];
    let popgate = Popgate::serve("imap://127.0.0.1:9", &arguments);
    let log = popgate.wait_for("ready");
    let (_, port) = log.split_once("pop3s://127.0.0.1:").unwrap();
    let port = port.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    (popgate, SocketAddr::from(([127, 0, 0, 1], port)))
}

fn client(version: &'static SupportedProtocolVersion, offered: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&identity().certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// A line on which the greeting was read and QUIT answered.
async fn greeted(client: &TlsConnector, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let line = TcpStream::connect(address).await?;
    let mut line = client.connect(ServerName::try_from("localhost").unwrap(), line).await?;
    line.write_all(b"QUIT\r\n").await?;
    let mut said = String::new();
    line.read_to_string(&mut said).await?;
    assert_eq!(said, "+OK POP3 server ready\r\n+OK POP3 server signing off\r\n");
    Ok(line)
}
