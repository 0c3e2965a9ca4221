//! One simulation: a server with its faults and its foreign actor, a gateway before it, and clients, on lines in memory and
//! on a clock that stands still until everybody waits. At its end nothing is wrong any more, and everybody must get what
//! there is; then the history is judged.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use popgate::{
    gateway::{self, Routes},
    net::{Dial, Endpoint, Pending, Wire},
    upstream::imap::Deleted,
};
use tokio::{
    io::BufReader,
    runtime,
    time::{sleep, timeout},
};

use super::{
    actor::{self, DEEDS, Deed},
    chance::Chance,
    client::{self, Behaviour, Client, Temper},
    plan::{self, Plan},
    trace::Trace,
};
use crate::support::{
    checker::{Finding, History},
    gate::{self, Gate, route},
    script::{Account, Mailbox, Message, Server},
};

/// What everybody in a simulation has.
pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) plan: Plan,
    pub(super) trace: Trace,
    pub(super) deliveries: AtomicU64,
    history: Mutex<History>,
    counts: Mutex<Counts>,
}

/// What happened, in numbers.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) sessions: u64,
    pub(super) logins: u64,
    pub(super) fetches: u64,
    pub(super) peeks: u64,
    pub(super) deliveries: u64,
    pub(super) confirmed: u64,
    pub(super) possible: u64,
    pub(super) connections: u64,
    pub(super) faults: BTreeMap<&'static str, u64>,
}

/// What came of a simulation.
pub(super) struct Outcome {
    pub(super) hash: u64,
    pub(super) text: String,
    pub(super) counts: Counts,
    pub(super) findings: Vec<Finding>,
}

impl Shared {
    pub(super) fn history<T>(&self, tell: impl FnOnce(&mut History) -> T) -> T {
        tell(&mut self.history.lock().unwrap())
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts.lock().unwrap());
    }
}

/// Runs the simulation of a seed. `kept`: its trace can be read.
pub(super) fn run(seed: u64, kept: bool) -> Outcome {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed, kept))
}

async fn simulate(seed: u64, kept: bool) -> Outcome {
    let mut chance = Chance::new(seed);
    let plan = Plan::draw(&mut chance);
    let hides = plan.options.deleted == Deleted::Hide;
    let shared = Arc::new(Shared {
        seed,
        plan,
        trace: Trace::new(kept),
        deliveries: AtomicU64::new(0),
        history: Mutex::new(History::new(hides)),
        counts: Mutex::default(),
    });
    let plan = &shared.plan;
    let mut manner = plan.manner.clone();
    let mut names = Vec::new();
    for _ in 0..plan.faults {
        let (on, nth, what, name) = plan::fault(&mut chance, &shared);
        manner = manner.deviating(on, nth, what);
        names.push(name);
    }
    let accounts = plan.users.iter().map(|user| account(user, plan)).collect();
    let server = Server::new(manner, accounts);
    for user in &plan.users {
        for _ in 0..chance.below(8) {
            let which = chance.below(100);
            server.with(user, "INBOX", |inbox| actor::act(Deed::Deliver, which, user, inbox, &shared));
        }
    }
    let healed = Arc::new(Mutex::new(false));
    let lines = Lines {
        server: server.clone(),
        shared: Arc::clone(&shared),
        healed: Arc::clone(&healed),
        chance: Mutex::new(chance.fork()),
    };
    let route = route(plan.options.memory, Arc::new(lines), &|to, maildrops| plan.options.apply(to, maildrops));
    // How long a refusal takes is left to chance, and not to a seed's.
    let settings = gateway::Settings { failure_delay: Duration::ZERO, ..gate::settings() };
    let mut gate = Gate::set(Routes::new(Some(route), None), settings, None);
    gate.capacity = plan.room.0;
    let gate = Arc::new(gate);

    let mut tasks = Vec::new();
    for _ in 0..plan.clients {
        let temper = Plan::temper(&mut chance);
        let user = chance.pick(&plan.users);
        let late = Duration::from_millis(chance.below(20_000));
        let (gate, shared, server) = (Arc::clone(&gate), Arc::clone(&shared), server.clone());
        let chance = chance.fork();
        tasks.push(tokio::spawn(async move {
            sleep(late).await;
            converse(&gate, &shared, &server, &user, temper, chance).await;
        }));
    }
    for user in plan.users.clone() {
        let (server, shared, mut chance) = (server.clone(), Arc::clone(&shared), chance.fork());
        let deeds = chance.below(8);
        tasks.push(tokio::spawn(async move {
            for _ in 0..deeds {
                sleep(Duration::from_millis(chance.below(6_000))).await;
                let (deed, which) = (chance.pick(&DEEDS), chance.below(100));
                server.with(&user, "INBOX", |inbox| actor::act(deed, which, &user, inbox, &shared));
            }
        }));
    }
    for task in tasks {
        if let Err(error) = task.await {
            shared.history(|history| history.stuck(&format!("an actor panicked: {error}")));
        }
    }

    server.heal();
    *healed.lock().unwrap() = true;
    for user in &plan.users {
        let temper = Plan::temper(&mut chance);
        let temper = Temper { behaviour: Behaviour::Finish, patience: None, slow: None, ..temper };
        if !converse(&gate, &shared, &server, user, temper, chance.fork()).await {
            shared.history(|history| history.stuck(&format!("{user}, when nothing was wrong any more")));
        }
    }
    judge(&shared, &server, &names)
}

fn account(user: &str, plan: &Plan) -> Account {
    let mut inbox = Mailbox::new("INBOX", "\\HasNoChildren");
    inbox.read_only = plan.read_only;
    inbox.tells_uid_next = plan.tells_uid_next;
    if !plan.keywords {
        inbox.permanent = "\\Seen \\Deleted \\Flagged".into();
    }
    Account {
        user: user.into(),
        password: Some(client::password(user).into()),
        token: Some(client::token(user)),
        mailboxes: vec![inbox, Mailbox::new("Trash", "\\HasNoChildren \\Trash")],
    }
}

/// One session, until popgate has done all that follows from it. Whether all was well.
async fn converse(gate: &Gate, shared: &Shared, server: &Server, user: &str, temper: Temper, chance: Chance) -> bool {
    shared.count(|counts| counts.sessions += 1);
    let inbox = (temper.behaviour == Behaviour::Finish).then(|| {
        let shown = there(shared, server, user).into_iter();
        let shown = shown.filter(|(_, flagged)| !(*flagged && shared.plan.options.deleted == Deleted::Hide));
        shown.map(|(id, _)| id).collect()
    });
    let (line, session) = gate.line();
    let session = tokio::spawn(session);
    let (reader, writer) = tokio::io::split(shared.trace.line("C", line.into_inner()));
    let (reader, writer) = (BufReader::new(reader), Some(writer));
    let mut client = Client { reader, writer, user, temper, chance, shared, inbox, session: None };
    let well = timeout(LONG, client.run()).await;
    let told = client.session;
    drop(client);
    let over = timeout(LONG, session).await;
    if let (Some(told), Ok(Ok(()))) = (told, &over) {
        sleep(AFTERMATH).await;
        let there = there(shared, server, user);
        shared.history(|history| history.over(told, &there));
    }
    match (&well, over) {
        (Err(_), _) => shared.history(|history| history.stuck(&format!("a client of {user}"))),
        (_, Err(_)) => shared.history(|history| history.stuck(&format!("a session of {user}, without its client"))),
        (_, Ok(Err(error))) => shared.history(|history| history.stuck(&format!("popgate panicked: {error}"))),
        (_, Ok(Ok(()))) => {}
    }
    matches!(well, Ok(Ok(true)))
}

/// The messages of a user's that POP3 is to show, and whether they are flagged `\Deleted`.
fn there(shared: &Shared, server: &Server, user: &str) -> Vec<(u64, bool)> {
    let all = all(shared, server, user).into_iter();
    let shown = all.filter(|(_, message)| !message.has("$POP3Deleted"));
    shown.map(|(id, message)| (id, message.has("\\Deleted"))).collect()
}

/// All messages of a user's; 0 is one that nobody has delivered.
fn all(shared: &Shared, server: &Server, user: &str) -> Vec<(u64, Message)> {
    let (validity, messages) =
        server.with(user, "INBOX", |inbox| (inbox.uid_validity.unwrap_or_default(), inbox.messages.clone()));
    shared.history(|history| {
        let id = |uid| history.which(user, &shared.plan.options.unique_id(validity, uid)).unwrap_or_default();
        messages.into_iter().map(|message| (id(message.uid), message)).collect()
    })
}

fn judge(shared: &Shared, server: &Server, names: &[&'static str]) -> Outcome {
    let mut left = Vec::new();
    for user in &shared.plan.users {
        for (id, message) in all(shared, server, user) {
            for flag in ["\\Deleted", "\\Seen"].into_iter().filter(|flag| message.has(flag)) {
                shared.history(|history| history.flagged(id, flag));
            }
        }
        left.push((user.as_str(), there(shared, server, user).into_iter().map(|(id, _)| id).collect()));
    }
    let history = std::mem::take(&mut *shared.history.lock().unwrap());
    let mut counts = std::mem::take(&mut *shared.counts.lock().unwrap());
    for (name, times) in names.iter().zip(server.struck()) {
        *counts.faults.entry(name).or_default() += times as u64;
    }
    let (confirmed, possible) = history.deletions();
    counts.confirmed = confirmed as u64;
    counts.possible = possible as u64;
    counts.deliveries = shared.deliveries.load(std::sync::atomic::Ordering::Relaxed);
    counts.connections = server.connections() as u64;
    Outcome { hash: shared.trace.hash(), text: shared.trace.text(), counts, findings: history.check(&left) }
}

/// Ways to the server, some of which lead nowhere.
struct Lines {
    server: Server,
    shared: Arc<Shared>,
    healed: Arc<Mutex<bool>>,
    chance: Mutex<Chance>,
}

impl Dial for Lines {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        let Shared { plan, trace, .. } = &*self.shared;
        if !*self.healed.lock().unwrap() && self.chance.lock().unwrap().percent(plan.unreachable) {
            let refused = self.chance.lock().unwrap().percent(50);
            let name = if refused { "connection refused" } else { "no way to the server" };
            trace.note(name);
            self.shared.count(|counts| *counts.faults.entry(name).or_default() += 1);
            return match refused {
                true => Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) }),
                false => Box::pin(std::future::pending()),
            };
        }
        let (ours, theirs) = tokio::io::duplex(plan.room.1);
        let (server, line) = (self.server.clone(), trace.line("U", theirs));
        tokio::spawn(async move { server.serve(line).await });
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Wire>) })
    }
}

/// When a session is over the server may still come to what it was asked for: an update whose time is over is seen through
/// for another minute (E.5).
const AFTERMATH: Duration = Duration::from_secs(90);

/// Longer than anything that popgate and its clients wait for.
const LONG: Duration = Duration::from_secs(20_000_000);
