//! Log-ins of every kind under an allocator that looks into every block that is given back: no buffer of popgate's leaves a
//! password or a token behind. T34. Not judged are the client and the server here, and the lines between: a real line's
//! buffers are the kernel's or the TLS library's.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use canary_alloc::{Canary, Exempt, exempt, watch};
use popgate::{
    gateway::{Gateway, Peer, Routes, serve},
    net::{Dial, Endpoint, Pending, Wire},
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, ReadBuf, duplex};
use tokio_util::sync::CancellationToken;

use crate::support::{
    gate,
    script::{Account, Manner, Server, What},
};

#[allow(dead_code, unused_imports, reason = "the other tests use the rest")]
mod support {
    pub(crate) mod gate;
    pub(crate) mod script;
    pub(crate) mod tls;
}

#[global_allocator]
static ALLOCATOR: Canary = Canary;

const PASSWORD: &str = "Kanarien=Vogel 7/\"x\\";
const TOKEN: &str = "ya29.Kanarien-Schein~7";

#[test]
fn what_is_left_behind_is_found() {
    let leave = |octets: &[u8]| drop(octets.to_vec());
    for shown in [PASSWORD.to_owned(), STANDARD.encode(format!("\0tim\0{PASSWORD}")), STANDARD.encode(PASSWORD)] {
        assert_eq!(watch(forms(), || leave(shown.as_bytes())).len(), 1, "{shown}");
        assert_eq!(watch(forms(), || exempt(|| leave(shown.as_bytes()))).len(), 0, "{shown}");
    }
    let grown = watch(forms(), || {
        let mut grown = Vec::with_capacity(PASSWORD.len());
        grown.extend_from_slice(PASSWORD.as_bytes());
        grown.push(0);
        grown.fill(0);
    });
    assert_eq!(grown.len(), 1, "a copy that a growing buffer leaves");
    assert_eq!(watch(forms(), || leave(b"Kanarien are birds")).len(), 0);
}

#[test]
fn no_log_in_leaves_a_secret_behind() {
    let plain = |user: &str| STANDARD.encode(format!("\0{user}\0{PASSWORD}"));
    let bearer = |user: &str| STANDARD.encode(format!("user={user}\u{1}auth=Bearer {TOKEN}\u{1}\u{1}"));
    let header = STANDARD.encode(format!("n,a=tim,\u{1}auth=Bearer {TOKEN}\u{1}\u{1}"));
    let (name, stranger, password) = (STANDARD.encode("tim"), STANDARD.encode("tom"), STANDARD.encode(PASSWORD));
    let pass = format!("PASS {PASSWORD}");
    let plain_line = |user: &str| format!("AUTH PLAIN {}", plain(user));
    let rows: [(&str, Vec<String>); 10] = [
        ("USER and PASS", vec!["USER tim".into(), pass.clone()]),
        ("wrong USER and PASS, twice", vec!["USER tom".into(), pass.clone(), "USER tim".into(), format!("{pass}!")]),
        ("PASS without USER", vec![pass.clone()]),
        ("AUTH PLAIN", vec![plain_line("tim")]),
        ("wrong AUTH PLAIN", vec![plain_line("tom"), format!("AUTH PLAIN {}=", plain("tim"))]),
        ("AUTH PLAIN in two lines", vec!["AUTH PLAIN".into(), plain("tim")]),
        (
            "AUTH LOGIN, wrong and right",
            vec!["AUTH LOGIN".into(), stranger, password.clone(), "AUTH LOGIN".into(), name, password],
        ),
        (
            "AUTH XOAUTH2, wrong and right",
            vec![format!("AUTH XOAUTH2 {}", bearer("tom")), String::new(), format!("AUTH XOAUTH2 {}", bearer("tim"))],
        ),
        (
            "lines that are too long",
            vec![format!("{pass}{}", PASSWORD.repeat(99)), "AUTH PLAIN".into(), PASSWORD.repeat(4_000)],
        ),
        ("AUTH OAUTHBEARER", vec![format!("AUTH OAUTHBEARER {header}")]),
    ];
    let mut left = Vec::new();
    for (kind, manner) in manners() {
        for (row, lines) in &rows {
            for room in [1024, 8] {
                let places = session(manner.clone(), lines, room);
                left.extend(places.into_iter().map(|place| format!("{row}, {kind}, lines of {room}: {place}")));
            }
        }
    }
    let shown: Vec<_> = left.iter().take(3).map(String::as_str).collect();
    assert!(left.is_empty(), "{} blocks, the first of them:\n{}", left.len(), shown.join("\n"));
}

/// Servers that make popgate send secrets in every form that it knows, and some that break off around them.
fn manners() -> Vec<(&'static str, Manner)> {
    let before = |before: &str| Manner { before: before.into(), ..Manner::default() };
    vec![
        ("all mechanisms", Manner::default()),
        ("no SASL-IR", before("IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2")),
        ("literals", before("IMAP4rev1 LITERAL+")),
        ("LOGIN", before("IMAP4rev1")),
        ("hangs up", Manner::default().deviating("AUTHENTICATE", 0, What::Close)),
        ("says BAD", Manner::default().deviating("AUTHENTICATE", 0, What::Bad("Command Argument Error".into()))),
        ("talks nonsense", Manner::default().deviating("AUTHENTICATE", 0, What::Say(b"what\0is that\r\n".to_vec()))),
    ]
}

/// One session of a client that says this, on lines with so much room; gives what popgate left behind.
fn session(manner: Manner, lines: &[String], room: usize) -> Vec<String> {
    let account = Account { password: Some(PASSWORD.into()), token: Some(TOKEN.into()), ..Account::fixture() };
    let server = Server::new(manner, vec![account]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let dial = Arc::new(Lines { server: server.clone(), room });
    // What goes before a log-in goes into the same buffer.
    let route = gate::route(gate::Memory::Everything, dial, &|_, maildrops| maildrops.send_client_address = true);
    let routes = Routes::new(Some(route), None);
    let gateway = Arc::new(Gateway::new(routes, gate::settings(), None));
    let (ours, theirs) = duplex(room);
    let address = "192.0.2.7:50000".parse().unwrap();
    let peer = Peer { address, client: address, encrypted: true, permit: None };
    let session = serve(gateway, Box::new(Unjudged(ours)), peer, CancellationToken::new());
    let left = watch(forms(), || {
        runtime.block_on(async {
            let session = tokio::spawn(session);
            Exempt::new(client(theirs, lines)).await;
            session.await.unwrap();
        });
        exempt(|| drop(runtime));
    });
    // It has the password as well, and lives until here.
    drop(server);
    left
}

async fn client(line: DuplexStream, lines: &[String]) {
    let mut line = BufReader::new(line);
    let mut reply = String::new();
    line.read_line(&mut reply).await.unwrap();
    for said in lines.iter().map(String::as_str).chain(["QUIT"]) {
        // That popgate has hung up is found out by reading.
        let _ = line.write_all(format!("{said}\r\n").as_bytes()).await;
        reply.clear();
        if line.read_line(&mut reply).await.unwrap() == 0 {
            return;
        }
    }
}

struct Lines {
    server: Server,
    room: usize,
}

impl Dial for Lines {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        let (ours, theirs) = duplex(self.room);
        let server = self.server.clone();
        tokio::spawn(Exempt::new(async move { server.serve(theirs).await }));
        Box::pin(async { Ok(Box::new(Unjudged(ours)) as Box<dyn Wire>) })
    }
}

/// A line whose own buffers are nobody's.
#[derive(Debug)]
struct Unjudged(DuplexStream);

impl Wire for Unjudged {
    fn abort(&mut self) {}
}

impl AsyncRead for Unjudged {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        exempt(|| Pin::new(&mut self.0).poll_read(context, into))
    }
}

impl AsyncWrite for Unjudged {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        exempt(|| Pin::new(&mut self.0).poll_write(context, octets))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        exempt(|| Pin::new(&mut self.0).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        exempt(|| Pin::new(&mut self.0).poll_shutdown(context))
    }
}

impl Drop for Unjudged {
    fn drop(&mut self) {
        exempt(|| self.0 = duplex(1).0);
    }
}

/// The secrets as they could be in memory: as they are, and in base64, wherever in a group of three they begin, without the
/// octets that depend on their neighbours. Part of a secret is too much as well.
fn forms() -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for secret in [PASSWORD, TOKEN] {
        forms.extend([secret.as_bytes()[..12].to_vec(), secret.as_bytes()[secret.len() - 10..].to_vec()]);
        forms.extend((0..3).map(|shift| {
            let encoded = STANDARD.encode(format!("{}{secret}", "_".repeat(shift)));
            encoded.as_bytes()[4..16].to_vec()
        }));
    }
    forms
}
