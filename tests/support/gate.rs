//! A whole popgate before a scripted server, and a POP3 client that talks to it, all over in-memory lines.

use std::{io, sync::Arc, time::Duration};

use popgate::{
    gateway::{self, Gateway, Lock, Maildrops, Peer, Route, Routes, Seen, serve},
    net::{Accept, Dial, Endpoint, Pending, Wire},
    upstream::{
        cache::{Cached, Listings},
        imap::{self, Deleted, Imap, Security},
        warm::{self, Room, Warm},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{script::Server, tls};

/// A popgate and the way to it.
pub(crate) struct Gate {
    gateway: Arc<Gateway<Way>>,
    /// Octets of room in each direction of a client's line.
    pub(crate) capacity: usize,
    pub(crate) shutdown: CancellationToken,
}

/// A server as the daemon's sessions have it.
pub(crate) type Way = Warm<Cached<Imap>>;

/// What a popgate keeps from one session to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    /// Nothing.
    Nothing,
    /// Listings, and lines for two minutes.
    Everything,
}

impl Memory {
    /// Room for listings in octets, and how long a line is kept.
    pub(crate) const fn limits(self) -> (usize, Duration) {
        match self {
            Self::Nothing => (0, Duration::ZERO),
            Self::Everything => (1 << 20, Duration::from_secs(120)),
        }
    }

    /// What to say of it in front of something else.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Everything => "remembering, ",
        }
    }
}

/// What a test changes of the upstream and of what holds for the maildrops there.
pub(crate) type Change<'a> = &'a dyn Fn(&mut imap::Settings, &mut Maildrops);

/// The upstream of all tests: a server on this machine, in the clear.
pub(crate) fn upstream() -> imap::Settings {
    imap::Settings {
        security: Security::Plain,
        endpoint: Endpoint { host: "localhost".into(), port: 143 },
        mailbox: "INBOX".into(),
        on_delete: None,
        deleted: Deleted::Show,
        read_ahead: true,
    }
}

/// Lines to a scripted server, which hold so many octets.
pub(crate) struct Pipes(pub(crate) Server, pub(crate) usize);

impl Dial for Pipes {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        let (ours, theirs) = tokio::io::duplex(self.1);
        let server = self.0.clone();
        tokio::spawn(async move { server.serve(theirs).await });
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Wire>) })
    }
}

/// The defaults of the manual.
pub(crate) fn maildrops() -> Maildrops {
    Maildrops {
        upstream: "localhost:143".into(),
        mailbox: "INBOX".into(),
        strip_domain: false,
        send_client_address: false,
        unique_ids: "dovecot".parse().unwrap(),
        seen: Seen::Quit,
        lock: Lock::None,
    }
}

/// The defaults of the manual.
pub(crate) fn settings() -> gateway::Settings {
    gateway::Settings {
        failure_delay: Duration::from_secs(2),
        denial_ttl: Duration::from_secs(60),
        sessions_per_user: 0,
        plaintext_from: vec!["127.0.0.0/8".parse().unwrap()],
    }
}

impl Gate {
    /// A popgate with the defaults before this server.
    pub(crate) fn new(server: &Server) -> Self {
        Self::with(Arc::new(Lines { server: server.clone(), capacity: 1024 }), &|_, _| {})
    }

    /// One with other settings, on whatever way to the upstream.
    pub(crate) fn with(dial: Arc<dyn Dial>, change: Change<'_>) -> Self {
        Self::remembering(Memory::Nothing, dial, change)
    }

    /// The same, with such a memory.
    pub(crate) fn remembering(memory: Memory, dial: Arc<dyn Dial>, change: Change<'_>) -> Self {
        Self::to(Routes::new(Some(route(memory, dial, change)), None))
    }

    /// One with several upstreams.
    pub(crate) fn to(routes: Routes<Way>) -> Self {
        Self::set(routes, settings(), None)
    }

    /// One with settings of its own, which offers STLS if it can.
    pub(crate) fn set(routes: Routes<Way>, settings: gateway::Settings, stls: Option<Arc<dyn Accept>>) -> Self {
        let gateway = Arc::new(Gateway::new(routes, settings, stls));
        Self { gateway, capacity: 1024, shutdown: CancellationToken::new() }
    }

    /// A client connects over a line that counts as encrypted.
    pub(crate) fn connect(&self) -> Client {
        let (line, session) = self.line();
        Client { line, session: tokio::spawn(session) }
    }

    /// The same; the session is run by whoever wants to.
    pub(crate) fn line(&self) -> (BufReader<DuplexStream>, impl Future<Output = ()> + Send + use<>) {
        let (ours, theirs) = tokio::io::duplex(self.capacity);
        (BufReader::new(theirs), self.over(Box::new(ours), true))
    }

    /// A session with a client at the other end of this line, which counts as encrypted or not.
    pub(crate) fn over(&self, wire: Box<dyn Wire>, encrypted: bool) -> impl Future<Output = ()> + Send + use<> {
        let address = "192.0.2.7:50000".parse().unwrap();
        let peer = Peer { address, client: address, encrypted, permit: None };
        serve(Arc::clone(&self.gateway), wire, peer, self.shutdown.clone())
    }
}

/// A way to an upstream, the defaults but for what is changed.
pub(crate) fn route(memory: Memory, dial: Arc<dyn Dial>, change: Change<'_>) -> Route<Way> {
    let (mut upstream, mut maildrops) = (upstream(), maildrops());
    change(&mut upstream, &mut maildrops);
    Route::new(way(memory, Imap::new(upstream, dial, Some(tls::identity().connector.clone()))), maildrops)
}

/// A server with a memory before it.
pub(crate) fn way(memory: Memory, imap: Imap) -> Way {
    let (room, ttl) = memory.limits();
    let settings = warm::Settings { ttl, auth_ttl: Duration::from_secs(300) };
    Warm::new(Cached::new(imap, "here", Listings::new(room)), settings, Room::new(1000))
}

/// Lines to a scripted server.
pub(crate) struct Lines {
    pub(crate) server: Server,
    pub(crate) capacity: usize,
}

impl Dial for Lines {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        let (ours, theirs) = tokio::io::duplex(self.capacity);
        let server = self.server.clone();
        tokio::spawn(async move { server.serve(theirs).await });
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Wire>) })
    }
}

/// A POP3 client.
pub(crate) struct Client {
    pub(crate) line: BufReader<DuplexStream>,
    session: JoinHandle<()>,
}

impl Client {
    /// Sends octets. That nobody takes them is found out by reading.
    pub(crate) async fn send(&mut self, octets: impl AsRef<[u8]>) {
        let _ = self.line.write_all(octets.as_ref()).await;
    }

    /// The next line without its end; `None` when popgate has closed the line.
    pub(crate) async fn hear(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let _ = timeout(LONG, self.line.read_until(b'\n', &mut line)).await.expect("popgate says nothing");
        let line = String::from_utf8(line).expect("a reply is ASCII");
        line.strip_suffix("\r\n").map(String::from)
    }

    /// Says a command and hears one line.
    pub(crate) async fn ask(&mut self, command: &str) -> Option<String> {
        self.send(format!("{command}\r\n")).await;
        self.hear().await
    }

    /// The rest of a multi-line reply as it is on the wire, without the dot; the error is what came of one that broke off.
    pub(crate) async fn body(&mut self) -> Result<Vec<u8>, Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let start = body.len();
            let _ = timeout(LONG, self.line.read_until(b'\n', &mut body)).await.expect("popgate says nothing");
            match &body[start..] {
                b".\r\n" if start == 0 || body[..start].ends_with(b"\r\n") => {
                    body.truncate(start);
                    return Ok(body);
                }
                line if line.ends_with(b"\n") => {}
                _ => return Err(body),
            }
        }
    }

    /// Hears the greeting and logs in as `tim`. The reply to PASS.
    pub(crate) async fn log_in(&mut self) -> Option<String> {
        self.hear().await?;
        self.ask("USER tim").await?;
        self.ask("PASS sec ret").await
    }

    /// Hangs up and waits for popgate to be done. It must not have panicked.
    pub(crate) async fn leave(self) {
        drop(self.line);
        timeout(LONG, self.session).await.expect("the session goes on for ever").expect("the session panicked");
    }
}

/// Longer than anything that popgate waits for.
const LONG: Duration = Duration::from_secs(3_600);
