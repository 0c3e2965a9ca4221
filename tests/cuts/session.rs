//! One session over lines of which one goes wrong, and what became of it.

use std::{
    io,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use popgate::{
    gateway::Routes,
    net::{Accept, Dial, Endpoint, Pending, Wire, tls::Acceptor},
    upstream::imap::Security,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::recordings::{Recording, Tls};
use crate::support::{
    faulty::{Faulty, Plan, Tape},
    gate::{self, Gate, Memory},
    script::{Line, Manner, Message, Order, Server},
    tls,
};

/// Which line goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leg {
    Client,
    /// The how many-th to the server, from 0.
    Upstream(usize),
}

/// One fault on one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    pub(super) leg: Leg,
    pub(super) plan: Plan,
    /// Once it has happened, no other line can be made to the server.
    pub(super) for_good: bool,
}

/// What there is of a session before, in which somebody only looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Past {
    /// Nothing, and nothing is read ahead either.
    Nothing,
    /// The listing.
    Listing,
    /// The listing, and its line to the server, which is line 0. What was said on it before does not count.
    Line,
}

impl Past {
    /// What to say of it in front of something else.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Listing => "remembering, ",
            Self::Line => "on a kept line, ",
        }
    }
}

/// How a session went.
pub(super) struct Played {
    pub(super) past: Past,
    pub(super) client: Tape,
    /// What of it was heard and said before TLS; all of it if there is none.
    pub(super) client_clear: Tape,
    /// The same line below TLS; the same as `client` if there is none.
    pub(super) client_wire: Tape,
    /// In the order in which they were made.
    pub(super) upstream: Vec<Tape>,
    /// What was in the mailbox at the end.
    pub(super) inbox: Vec<Message>,
    pub(super) trash: Vec<Message>,
    /// How often each deviation of the server struck.
    pub(super) struck: Vec<usize>,
    /// What the second session, on good lines, found wrong.
    pub(super) second: Vec<String>,
    /// By the paused clock.
    pub(super) lasted: Duration,
}

/// Plays a session with a server that answers in this order, after one that leaves what `past` says; then a second one, on
/// good lines.
pub(super) async fn play(recording: &Recording, past: Past, order: Order, cut: Option<Cut>) -> Played {
    let memory = if past == Past::Nothing { Memory::Nothing } else { Memory::Everything };
    let server = Server::new(Manner { order, ..recording.manner.clone() }, vec![recording.account.clone()]);
    let way = Arc::new(Way::new(server.clone(), cut, recording.tls == Tls::Everywhere));
    let handshakes = Arc::<Handshakes>::default();
    let route = gate::route(memory, way.clone(), &|upstream, maildrops| {
        // Everything that saves work, or nothing of it.
        upstream.read_ahead = memory == Memory::Everything;
        (recording.change)(upstream, maildrops);
        upstream.security = match recording.tls {
            Tls::Nowhere | Tls::Client => Security::Plain,
            Tls::Everywhere => Security::Implicit,
            Tls::Upstream => Security::StartTls,
        };
    });
    let stls = (recording.tls == Tls::Client).then(|| handshakes.clone() as Arc<dyn Accept>);
    let mut gate = Gate::set(Routes::new(Some(route), None), gate::settings(), stls);
    gate.capacity = ROOM;
    if past != Past::Nothing {
        server.heal();
        converse(&gate, &handshakes, recording, recording.look, None).await;
        server.relapse();
    }
    if past == Past::Listing {
        let (_, kept) = memory.limits();
        sleep(kept + Duration::from_secs(1)).await;
    }
    way.begin(past);
    let begun = Instant::now();
    let client = converse(&gate, &handshakes, recording, recording.script, cut).await;
    let lasted = begun.elapsed();
    // What was sent to the server before the end may still be carried out.
    sleep(Duration::from_secs(1)).await;
    let inbox = server.with("tim", "INBOX", |inbox| inbox.messages.clone());
    let trash = server.with("tim", "Trash", |trash| trash.messages.clone());
    let tapes = way.tapes.lock().unwrap().clone();
    let upstream = tapes.iter().map(|tape| tape.lock().unwrap().clone()).collect();
    let struck = server.struck();
    way.heal();
    // Whatever keeps clients away from a server that was gone must have let go by then.
    sleep(Duration::from_secs(60)).await;
    let second = super::second::session(&gate, &server, recording, &client.all).await;
    let ClientTapes { all: client, clear: client_clear, wire: client_wire } = client;
    Played { past, client, client_clear, client_wire, upstream, inbox, trash, struck, second, lasted }
}

/// What went over the line of a client.
struct ClientTapes {
    /// In the clear, and then within TLS.
    all: Tape,
    /// Before TLS; the same if there is none.
    clear: Tape,
    /// Below TLS; the same if there is none.
    wire: Tape,
}

/// The client's side of a session.
async fn converse(
    gate: &Gate,
    handshakes: &Handshakes,
    recording: &Recording,
    script: &str,
    cut: Option<Cut>,
) -> ClientTapes {
    let (near, far) = tokio::io::duplex(ROOM);
    let plan = cut.filter(|cut| cut.leg == Leg::Client).map(|cut| cut.plan);
    let (near, wire) = Faulty::new(near, plan);
    handshakes.begin(wire);
    if recording.tls != Tls::Everywhere {
        let session = gate.over(Box::new(near), recording.tls != Tls::Client);
        talk(script, Box::new(far), tokio::spawn(session)).await;
        return handshakes.tapes();
    }
    let (near, far) = tokio::join!(
        timeout(HANDSHAKE, handshakes.accept(Box::new(near))),
        timeout(HANDSHAKE, tls::connect(Box::new(far)))
    );
    if let (Ok(Ok(near)), Ok(Ok(far))) = (near, far) {
        talk(script, far, tokio::spawn(gate.over(near, true))).await;
    }
    handshakes.tapes()
}

/// Begins TLS with the client, and parts what is said before from what is said within.
#[derive(Default)]
struct Handshakes(Mutex<Layers>);

#[derive(Default)]
struct Layers {
    wire: Arc<Mutex<Tape>>,
    /// What was on the wire when TLS began; `None` if it has not.
    clear: Option<Tape>,
    within: Arc<Mutex<Tape>>,
}

impl Handshakes {
    /// The next session is on this line.
    fn begin(&self, wire: Arc<Mutex<Tape>>) {
        *self.0.lock().unwrap() = Layers { wire, ..Layers::default() };
    }

    fn tapes(&self) -> ClientTapes {
        let Layers { wire, clear, within } = &*self.0.lock().unwrap();
        let (wire, within) = (wire.lock().unwrap().clone(), within.lock().unwrap());
        let clear = clear.clone().unwrap_or_else(|| wire.clone());
        let heard = [&clear.heard[..], &within.heard].concat();
        let said = [&clear.said[..], &within.said].concat();
        ClientTapes { all: Tape { heard, said, ..wire.clone() }, clear, wire }
    }
}

impl Accept for Handshakes {
    fn accept(&self, line: Box<dyn Wire>) -> Pending<'_, io::Result<Box<dyn Wire>>> {
        static ACCEPTOR: OnceLock<Acceptor> = OnceLock::new();
        let identity = tls::identity();
        let acceptor = ACCEPTOR.get_or_init(|| Acceptor::load(&identity.certificate, &identity.key).unwrap());
        {
            let layers = &mut *self.0.lock().unwrap();
            layers.clear = Some(layers.wire.lock().unwrap().clone());
        }
        Box::pin(async move {
            let (line, within) = Faulty::new(acceptor.accept(line).await?, None);
            self.0.lock().unwrap().within = within;
            Ok(Box::new(line) as Box<dyn Wire>)
        })
    }
}

/// The client says what it has to say, hangs up, and waits for popgate to be done.
async fn talk(script: &str, line: Box<dyn Line>, session: JoinHandle<()>) {
    let _ = say_all(line, script).await;
    timeout(LONGEST, session).await.expect("the session goes on for ever").expect("the session panicked");
}

/// Says what the script says, reading every reply to its end. If TLS is refused or fails, it goes on in the clear, which
/// a careful client would not. `None`: popgate has hung up, or says nothing any more.
async fn say_all(line: Box<dyn Line>, script: &str) -> Option<()> {
    let mut line = BufReader::new(line);
    hear(&mut line).await?;
    for step in script.split('\n') {
        let said = step.replace(" | ", "\r\n") + "\r\n";
        // That nobody takes it is found out by reading.
        let _ = timeout(PATIENCE, line.write_all(said.as_bytes())).await;
        for command in step.split(" | ") {
            let reply = hear(&mut line).await?;
            let is_ok = reply.starts_with(b"+OK");
            if is_ok && has_body(command) {
                while hear(&mut line).await? != b".\r\n" {}
            }
            if command == "STLS" && is_ok {
                // Whatever stands behind the reply in the clear is not TLS, and the handshake fails.
                let begun = timeout(HANDSHAKE, tls::try_connect(Box::new(line))).await.ok()?;
                line = BufReader::new(begun.unwrap_or_else(|(_, clear)| clear));
            }
        }
    }
    // To the end, as a client that waits for the line to be closed.
    while hear(&mut line).await.is_some() {}
    Some(())
}

async fn hear(line: &mut BufReader<impl Line>) -> Option<Vec<u8>> {
    let mut heard = Vec::new();
    let read = timeout(PATIENCE, line.read_until(b'\n', &mut heard)).await;
    (matches!(read, Ok(Ok(_))) && heard.ends_with(b"\n")).then_some(heard)
}

/// Whether a reply in the affirmative goes on to a line with a dot.
pub(super) fn has_body(command: &str) -> bool {
    let (name, argument) = command.split_once(' ').unwrap_or((command, ""));
    match name.to_ascii_uppercase().as_str() {
        "RETR" | "TOP" | "CAPA" => true,
        "LIST" | "UIDL" | "AUTH" => argument.trim().is_empty(),
        _ => false,
    }
}

/// The way to the server.
struct Way {
    server: Server,
    cut: Option<Cut>,
    tls: bool,
    lines: AtomicUsize,
    /// What may be cut has begun.
    has_begun: AtomicBool,
    /// Nothing goes wrong any more.
    is_good: AtomicBool,
    tapes: Mutex<Vec<Arc<Mutex<Tape>>>>,
}

impl Way {
    fn new(server: Server, cut: Option<Cut>, tls: bool) -> Self {
        let [has_begun, is_good] = [false; 2].map(AtomicBool::new);
        Self { server, cut, tls, lines: AtomicUsize::new(0), has_begun, is_good, tapes: Mutex::default() }
    }

    /// From now on lines are counted, and so are the octets on one that was kept.
    fn begin(&self, past: Past) {
        let mut tapes = self.tapes.lock().unwrap();
        match past {
            Past::Nothing => {}
            Past::Listing => tapes.clear(),
            Past::Line => tapes.iter().for_each(|tape| tape.lock().unwrap().asleep = false),
        }
        self.lines.store(tapes.len(), Relaxed);
        self.has_begun.store(true, Relaxed);
    }

    /// Nothing goes wrong from now on, on old lines neither.
    fn heal(&self) {
        self.is_good.store(true, Relaxed);
        self.server.heal();
        self.tapes.lock().unwrap().iter().for_each(|tape| tape.lock().unwrap().healed = true);
    }

    /// Whether the fault has happened that no other line survives.
    fn is_gone(&self) -> bool {
        let struck = || self.tapes.lock().unwrap().iter().any(|tape| tape.lock().unwrap().struck);
        self.cut.is_some_and(|cut| cut.for_good) && !self.is_good.load(Relaxed) && struck()
    }
}

impl Dial for Way {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        if self.is_gone() {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        let number = self.lines.fetch_add(1, Relaxed);
        let is_good = self.is_good.load(Relaxed);
        let plan = self.cut.filter(|cut| cut.leg == Leg::Upstream(number) && !is_good);
        let (near, far) = tokio::io::duplex(ROOM);
        let (near, tape) = Faulty::new(near, plan.map(|cut| cut.plan));
        tape.lock().unwrap().asleep = !self.has_begun.load(Relaxed);
        self.tapes.lock().unwrap().push(tape);
        let server = self.server.clone();
        let tls = self.tls;
        tokio::spawn(async move {
            match tls {
                true => server.serve(tls::accept(Box::new(far)).await?).await,
                false => server.serve(far).await,
            }
        });
        Box::pin(async { Ok(Box::new(near) as Box<dyn Wire>) })
    }
}

/// Room for everything that the recordings say, so that nobody waits but for what a fault keeps back.
const ROOM: usize = 131_072;

/// How long TLS may take to begin.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// How long a client waits for a line before it hangs up.
const PATIENCE: Duration = Duration::from_secs(300);

/// Longer than the client waits and popgate does, all in all.
const LONGEST: Duration = Duration::from_secs(3_600);
