//! A server that goes down under many sessions. Only these show how often it is tried by sessions that had a line, and what
//! their clients hear.

use std::{
    fs, io,
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use popgate::{
    gateway::{Route, Routes},
    net::{Dial, Endpoint, Pending, Wire},
    upstream::{
        imap::{AHEAD, Budget, Imap},
        sparing::Sparing,
    },
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::support::{
    gate::{self, Gate, Memory},
    pop3::Pop3,
    script::{Manner, Server},
    serve::Popgate,
};

/// C.8, F40: a line that is lost and replaced is a line like any other.
#[tokio::test(start_paused = true)]
async fn lines_that_are_replaced_are_counted() {
    const SESSIONS: usize = 12;
    let grid = Arc::new(Grid { server: Server::fixture(Manner::default()), state: Mutex::default() });
    let gate = gate(&grid, 500);
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let mut session = gate.connect();
        assert!(session.log_in().await.unwrap().starts_with("+OK"));
        sessions.push(session);
    }
    grid.fails();
    let began = Instant::now();
    for session in &mut sessions {
        let reply = session.ask("RETR 1").await.unwrap();
        assert_eq!(reply, "-ERR [SYS/TEMP] message unavailable, try again later");
    }
    assert_eq!((grid.tries(), began.elapsed().as_secs()), (5, 0), "five in a row are no accident");
    let mut newcomer = gate.connect();
    assert!(newcomer.log_in().await.unwrap().starts_with("-ERR [SYS/TEMP]"));
    assert_eq!(grid.tries(), 5);
    // Those who were told so have not used up their try: with the one that finds the server again all can go on.
    grid.is_repaired();
    sleep(Duration::from_secs(5)).await;
    for session in &mut sessions[5..] {
        assert!(session.ask("RETR 1").await.unwrap().starts_with("+OK"));
        assert!(!session.body().await.unwrap().is_empty());
    }
    assert_eq!(grid.tries(), SESSIONS - 5);
    for session in sessions {
        session.leave().await;
    }
}

/// T40: a process without descriptors has not found out anything about the server.
#[tokio::test(start_paused = true)]
async fn what_is_wanting_here_is_not_held_against_the_server() {
    const EMFILE: i32 = 24;
    let grid = Arc::new(Grid { server: Server::fixture(Manner::default()), state: Mutex::default() });
    let gate = gate(&grid, 500);
    grid.fails_by(|| io::Error::from_raw_os_error(EMFILE));
    for _ in 0..8 {
        let mut session = gate.connect();
        assert!(session.log_in().await.unwrap().starts_with("-ERR [SYS/TEMP]"));
    }
    assert_eq!(grid.tries(), 8);
    grid.is_repaired();
    assert!(gate.connect().log_in().await.unwrap().starts_with("+OK"));
}

/// All come back at once, and the server sees them one after the other.
#[tokio::test(start_paused = true)]
async fn lines_are_replaced_no_faster_than_may_be() {
    let grid = Arc::new(Grid { server: Server::fixture(Manner::default()), state: Mutex::default() });
    let gate = gate(&grid, 2);
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let mut session = gate.connect();
        assert!(session.log_in().await.unwrap().starts_with("+OK"));
        sessions.push(session);
    }
    sleep(Duration::from_secs(10)).await;
    grid.fails();
    grid.is_repaired();
    let began = Instant::now();
    for session in &mut sessions {
        session.send("RETR 1\r\n").await;
    }
    for session in &mut sessions {
        assert!(session.hear().await.unwrap().starts_with("+OK"));
        session.body().await.unwrap();
    }
    let tried: Vec<_> = grid.state.lock().unwrap().tries.iter().map(|at| (*at - began).as_millis() / 100).collect();
    assert_eq!(tried, [0, 0, 0, 5, 10, 15]);
}

/// C.8: what is found out on one route holds for all that lead to the same server; the program itself knows which do.
#[test]
fn a_server_of_two_routes_is_one_server() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("imap://localhost:{}", server.local_addr().unwrap().port());
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    thread::spawn(move || {
        for line in server.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(line);
        }
    });
    let route = |domain, url| format!("[[route]]\ndomains = [\"{domain}\"]\n[route.upstream]\nurl = \"{url}\"\n");
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    fs::write(
        &file,
        [route("one.example", &url), route("two.example", &url.replace("localhost", "LOCALHOST"))].concat(),
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let popgate = Popgate::start(&["serve", "--listen", "pop3://127.0.0.1:0", "--config", path]);
    for user in [["tim@one.example"; 5], ["tim@two.example"; 5]].concat() {
        let reply = Pop3::connect(popgate.port).pass(user, "sec ret");
        assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{reply}");
    }
    assert_eq!(tries.load(Ordering::Relaxed), 5);
    popgate.stop();
}

/// A server that can be cut off from the world.
struct Grid {
    server: Server,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What becomes of whoever dials, if it is cut off.
    down: Option<fn() -> io::Error>,
    lines: Vec<AbortHandle>,
    /// When it was dialled since it went down or up last.
    tries: Vec<Instant>,
}

impl Grid {
    /// All lines end, and there are no new ones.
    fn fails(&self) {
        self.fails_by(|| io::ErrorKind::ConnectionRefused.into());
    }

    fn fails_by(&self, error: fn() -> io::Error) {
        let mut state = self.state.lock().unwrap();
        state.lines.drain(..).for_each(|line| line.abort());
        (state.down, state.tries) = (Some(error), Vec::new());
    }

    fn is_repaired(&self) {
        let mut state = self.state.lock().unwrap();
        (state.down, state.tries) = (None, Vec::new());
    }

    fn tries(&self) -> usize {
        self.state.lock().unwrap().tries.len()
    }
}

impl Dial for Grid {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        let mut state = self.state.lock().unwrap();
        state.tries.push(Instant::now());
        if let Some(error) = state.down {
            return Box::pin(async move { Err(error()) });
        }
        let (ours, theirs) = tokio::io::duplex(1024);
        let server = self.server.clone();
        state.lines.push(tokio::spawn(async move { drop(server.serve(theirs).await) }).abort_handle());
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Wire>) })
    }
}

/// A popgate that spares the server as the daemon does.
fn gate(grid: &Arc<Grid>, rate: u32) -> Gate {
    let dial = Arc::clone(grid) as Arc<dyn Dial>;
    let imap = Imap::with(gate::upstream(), dial, None, Budget::new(AHEAD), Some(Arc::new(Sparing::new(rate))));
    Gate::to(Routes::new(Some(Route::new(gate::way(Memory::Nothing, imap), gate::maildrops())), None))
}
