//! popgate as a library: a port, and behind it one session for each client, as configured by default. Both lines of a
//! session are tapped. Left out is what a daemon has besides: TLS, limits, PROXY headers.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, anyhow};
use popgate::{
    config::{CommandLine, Config, Upstream},
    gateway::{self, Gateway, Peer, Route, Routes, Settings},
    net::{Dial, Endpoint, Pending, Wire, tcp},
    upstream::imap::Imap,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    dialogue::{Leg, Screen},
    script::Server,
    tap::Tap,
};

/// popgate in front of a mailbox.
pub(crate) struct Gate {
    port: TcpListener,
    settings: Settings,
    upstream: Upstream,
    mailbox: Server,
    screen: Screen,
    sessions: AtomicUsize,
    stop: CancellationToken,
}

impl Gate {
    /// Opens the port. Nobody is let in yet.
    pub(crate) async fn open(listen: &str, mailbox: Server, screen: Screen) -> anyhow::Result<Self> {
        // What `popgate serve --listen … --upstream …` would be told. Nothing is dialled at this name, see `Pipes`.
        let command_line = CommandLine {
            listen: vec![format!("pop3://{listen}")],
            upstream: Some("imap://localhost:143".into()),
            ..CommandLine::default()
        };
        let config = Config::load(&[], [], &command_line)?;
        let port = TcpListener::bind(listen).await.map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => anyhow!("{listen} is in use; choose another port, as in --listen 127.0.0.1:2110"),
            _ => anyhow!("cannot listen on {listen}: {error}"),
        })?;
        let upstream = config.upstream.context("there is no upstream")?;
        let (sessions, stop) = (AtomicUsize::new(0), CancellationToken::new());
        Ok(Self { port, settings: config.gateway, upstream, mailbox, screen, sessions, stop })
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }

    /// Lets the next client in, and waits for the end of its session.
    pub(crate) async fn admit_one(&self) -> anyhow::Result<()> {
        let (stream, peer) = self.port.accept().await.context("no connection could be taken")?;
        self.session(stream, peer)?.await;
        Ok(())
    }

    /// Lets clients in until `end`, then waits until the last session is over.
    pub(crate) async fn serve_until(self, end: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        let sessions = TaskTracker::new();
        let serve = async {
            loop {
                let (stream, peer) = self.port.accept().await.context("no connection could be taken")?;
                sessions.spawn(self.session(stream, peer)?);
            }
        };
        let ended = tokio::select! {
            ended = end => ended,
            failed = serve => failed,
        };
        self.stop.cancel();
        sessions.close();
        sessions.wait().await;
        ended
    }

    /// One POP3 session on one mailbox.
    fn session(&self, stream: TcpStream, peer: SocketAddr) -> io::Result<impl Future<Output = ()> + use<>> {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let tap = |wire, leg| Tap::new(wire, leg, number, self.screen.clone());
        tcp::prepare(&stream)?;
        let wire = tap(Box::new(stream), Leg::Pop3);
        // A daemon has one gateway for all. Here each session has its own, so that it is known whose the IMAP line is.
        let pipes = Pipes { mailbox: self.mailbox.clone(), number, screen: self.screen.clone() };
        let Upstream { server, maildrops, .. } = self.upstream.clone();
        let route = Route::new(Imap::new(server, Arc::new(pipes), None), maildrops);
        let gateway = Arc::new(Gateway::new(Routes::new(Some(route), None), self.settings.clone(), None));
        let peer = Peer { address: peer, client: peer, encrypted: false, permit: None };
        Ok(gateway::serve(gateway, Box::new(wire), peer, self.stop.clone()))
    }
}

/// Lines to the mailbox. They are pipes in this process, where a daemon dials over TCP and begins TLS.
struct Pipes {
    mailbox: Server,
    number: usize,
    screen: Screen,
}

impl Dial for Pipes {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let mailbox = self.mailbox.clone();
        // When popgate leaves, the server may find the line gone; that is no trouble of anybody's.
        tokio::spawn(async move { mailbox.serve(theirs).await });
        let tap = Tap::new(Box::new(ours), Leg::Imap, self.number, self.screen.clone());
        Box::pin(async { Ok(Box::new(tap) as Box<dyn Wire>) })
    }
}

/// How many octets may be under way in each direction.
const PIPE: usize = 65_536;
