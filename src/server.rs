//! The daemon: opens what the configuration names, does as a new one says when it is told to read it again, and ends in
//! good order. It knows the protocols by name only, and the signals of the system.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Display,
    future::pending,
    io,
    sync::Arc,
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info, warn};

use self::ports::{Port, Sessions};
use crate::{
    admin,
    config::{self, Config},
    gateway::{Gateway, Route, Routes},
    net::{
        Accept, Endpoint,
        counted::Counted,
        limits::{Affordable, Limits},
        tcp::Tcp,
        tls::{self, Acceptor, Connector},
    },
    upstream::{
        cache::{Cached, Listings},
        imap::{self, Budget, Imap, Security},
        sparing::Sparing,
        warm::{Room, Warm},
    },
};

mod farewell;
mod ports;

/// Why the daemon does not start, or does not do as a new configuration says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A port cannot be opened.
    #[error("cannot listen on {at}: {error}")]
    Port {
        /// Where.
        at: Endpoint,
        /// Why.
        error: io::Error,
    },
    /// TLS cannot be had with these files.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The process cannot be told to stop.
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
    /// A defect. Where it is has been logged when it happened.
    #[error("the configuration could not be read: there was a panic")]
    Panic,
}

/// Reads the configuration.
type Load = dyn Fn() -> Result<Config, config::Error> + Send + Sync;

/// Does what `config` says until the process is told to stop. Nothing is started if anything is wrong. `load` reads the
/// configuration once more, after SIGHUP.
pub async fn run(
    config: Config,
    load: impl Fn() -> Result<Config, config::Error> + Send + Sync + 'static,
) -> Result<(), Error> {
    let mut stop = Stop::new().map_err(Error::Signals)?;
    let mut again = signal(SignalKind::hangup()).map_err(Error::Signals)?;
    let mut daemon = Daemon::start(config).await?;
    let load: Arc<Load> = Arc::new(load);
    let reloads = async {
        while again.recv().await.is_some() {
            daemon.reload(Arc::clone(&load)).await;
        }
        pending().await
    };
    tokio::select! {
        biased;
        () = stop.told() => {}
        () = reloads => {}
    }
    daemon.drain(&mut stop).await;
    Ok(())
}

/// What serves, and what a reload leaves as it is.
struct Daemon {
    /// What holds now.
    config: Config,
    gateway: Arc<Gateway<Way>>,
    ports: Vec<Port>,
    sessions: Sessions,
    memory: Memory,
    /// The servers that are in use.
    spared: watch::Sender<Vec<Arc<Sparing>>>,
    /// Tells the administrator's port that it is being stopped.
    stopping: CancellationToken,
    /// The administrator's port, which stays to the end.
    admin: Option<AbortOnDropHandle<()>>,
}

/// A server as sessions have it: lines are kept open, and what was listed before is not listed again.
type Way = Warm<Cached<Imap>>;

/// What all upstreams share, whatever configuration they are of.
#[derive(Clone)]
struct Memory {
    lines: Arc<Counted<Tcp>>,
    budget: Budget,
    listings: Arc<Listings>,
    room: Room,
}

impl Daemon {
    async fn start(config: Config) -> Result<Self, Error> {
        tell(&config);
        let affordable = affordable(&config);
        let memory = Memory {
            lines: Arc::new(Counted::new(Tcp)),
            budget: Budget::new(imap::AHEAD),
            listings: Listings::open(&config.cache),
            room: Room::new(affordable.spare),
        };
        let Files { acceptor, routes, spared } = Files::read(&config, &memory)?;
        let admin = match &config.admin {
            Some(at) => Some(ports::bind(at, "http").await?),
            None => None,
        };
        let ports = ports::open(&config.listeners, acceptor.as_ref(), &[]).await?;
        let gateway = Arc::new(Gateway::new(routes, config.gateway.clone(), stls(acceptor)));
        let limits = limits(&config, affordable);
        let mut sessions = Sessions::new(limits.clone());
        sessions.take(&ports, &gateway).await;
        let (spared, watched) = watch::channel(spared);
        let stopping = CancellationToken::new();
        let process = admin::Process {
            stopping: stopping.clone(),
            limits,
            sessions: Arc::clone(gateway.counters()),
            lines: Arc::clone(&memory.lines),
            room: memory.room.clone(),
            listings: Arc::clone(&memory.listings),
            spared: watched,
        };
        // Who has come before is answered now, when there are sessions to be ready for.
        let admin = admin.map(|port| AbortOnDropHandle::new(tokio::spawn(admin::serve(port, process))));
        for (upstream, users) in upstreams(&config) {
            info!(upstream, users, "serving");
        }
        info!("ready");
        Ok(Self { config, gateway, ports, sessions, memory, spared, stopping, admin })
    }

    /// Reads the configuration and its files again. Connections that come from now on are served as it says, unless
    /// anything is wrong with it: then nothing changes. There is nothing in between, also if the future is dropped.
    async fn reload(&mut self, load: Arc<Load>) {
        let refused = |problem: &dyn Display| error!(%problem, "not reloaded: everything stays as it is");
        match self.succeed(load).await {
            Ok(()) => info!("reloaded"),
            Err(Error::Config(config::Error(problems))) => problems.iter().for_each(|problem| refused(problem)),
            Err(error) => refused(&error),
        }
    }

    async fn succeed(&mut self, load: Arc<Load>) -> Result<(), Error> {
        let memory = self.memory.clone();
        let read = spawn_blocking(move || {
            let config = load()?;
            let files = Files::read(&config, &memory)?;
            Ok::<_, Error>((config, files))
        });
        let (config, Files { acceptor, routes, spared }) = read.await.unwrap_or(Err(Error::Panic))?;
        let ports = ports::open(&config.listeners, acceptor.as_ref(), &self.ports).await?;
        // Nothing can go wrong any more.
        tell(&config);
        // What is known of a server, and its pace, begin anew with the routes.
        let logins_per_second = config.limits.logins_per_second;
        let before = config::Limits { logins_per_second, ..self.config.limits };
        for (section, same) in [
            ("limits", config.limits == before),
            ("cache", config.cache == self.config.cache),
            ("admin", config.admin == self.config.admin),
            ("log", config.log == self.config.log),
        ] {
            if !same {
                warn!(section, "what has changed in this section of the configuration holds from the next start");
            }
        }
        self.gateway = Arc::new(self.gateway.successor(routes, config.gateway.clone(), stls(acceptor)));
        self.spared.send_replace(spared);
        self.ports = ports;
        self.config = config;
        self.sessions.take(&self.ports, &self.gateway).await;
        Ok(())
    }

    /// Ends in the time that the configuration gives. A second signal ends what the first one waits for, but never an
    /// UPDATE.
    async fn drain(self, stop: &mut Stop) {
        let Self { config, gateway, ports, sessions, memory, stopping, admin, .. } = self;
        // Before anything else, so that no more clients are sent here.
        stopping.cancel();
        let config::Drain { accept_grace, deadline } = config.drain;
        let orderly = timeout(deadline, async {
            if !accept_grace.is_zero() {
                info!(seconds = accept_grace.as_secs_f32(), "stopping: connections are still taken for a while");
                sleep(accept_grace).await;
            }
            let count = sessions.count();
            let time = farewell::time(count, config.limits.logins_per_second, deadline.saturating_sub(accept_grace));
            info!(sessions = count, seconds = time.as_secs_f32(), "stopping: sessions are asked to end");
            drop(ports);
            sessions.end(time).await;
        });
        let drained = tokio::select! {
            drained = orderly => drained.is_ok(),
            () = stop.told() => false,
        };
        if !drained {
            warn!(sessions = sessions.count(), "sessions are broken off");
            sessions.ask_to_end();
            // Mail that a client was told is gone must be gone: an UPDATE has its time.
            gateway.updates().close();
            if timeout(UPDATE, gateway.updates().wait()).await.is_err() {
                warn!(updates = gateway.updates().len(), "changes are broken off");
            }
        }
        if timeout(WRITING, memory.listings.written()).await.is_err() {
            warn!("some listings are not on disk");
        }
        drop(admin);
        info!("stopped");
    }
}

/// What a configuration names besides ports, read.
struct Files {
    acceptor: Option<Acceptor>,
    routes: Routes<Way>,
    /// The servers of the routes.
    spared: Vec<Arc<Sparing>>,
}

impl Files {
    fn read(config: &Config, memory: &Memory) -> Result<Self, tls::Error> {
        let acceptor = config.tls.as_ref().map(|tls| Acceptor::load(&tls.certificate, &tls.key)).transpose()?;
        let (routes, spared) = routes(config, memory)?;
        Ok(Self { acceptor, routes, spared })
    }
}

/// The signals that end the process.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Logs what the administrator should know of a configuration that is in force.
fn tell(config: &Config) {
    for option in &config.dangerous {
        warn!(option, "a dangerous option is in force");
    }
    for warning in &config.warnings {
        warn!("{warning}");
    }
}

/// What there are descriptors for.
fn affordable(config: &Config) -> Affordable {
    let affordable = Affordable::of(config.limits.sessions);
    if affordable.sessions < config.limits.sessions {
        let Affordable { sessions, spare } = affordable;
        warn!(
            sessions,
            kept_lines = spare,
            "limits.sessions is lowered to what the limit of open files (ulimit -n, LimitNOFILE=) allows"
        );
    }
    affordable
}

/// As many connections as configured, or as many as there can be.
fn limits(config: &Config, Affordable { sessions, .. }: Affordable) -> Limits {
    Limits::new(sessions, config.limits.sessions_per_address, config.limits.handshakes_in_flight)
}

fn stls(acceptor: Option<Acceptor>) -> Option<Arc<dyn Accept>> {
    acceptor.map(|acceptor| Arc::new(acceptor) as Arc<dyn Accept>)
}

/// Which upstream serves whom, for the log.
fn upstreams(config: &Config) -> Vec<(&str, String)> {
    let routes = config.routes.iter().map(|config::Route { domains, upstream }| {
        let domains: Vec<_> = domains.iter().map(|domain| format!("@{domain}")).collect();
        (upstream.maildrops.upstream.as_str(), domains.join(" "))
    });
    let others = if config.routes.is_empty() { "all" } else { "all others" };
    let default = config.upstream.iter().map(|upstream| (upstream.maildrops.upstream.as_str(), others.to_owned()));
    routes.chain(default).collect()
}

/// The ways to the upstreams, and the servers that they lead to. Root certificates are read where there is TLS alone: a
/// machine that has none, a container of nothing but popgate say, does without them.
fn routes(config: &Config, memory: &Memory) -> Result<(Routes<Way>, Vec<Arc<Sparing>>), tls::Error> {
    let mut connectors: HashMap<_, Connector> = HashMap::new();
    let mut spared: HashMap<_, Arc<Sparing>> = HashMap::new();
    let mut route = |upstream: &config::Upstream| {
        let config::Upstream { server, ca, maildrops, warm } = upstream.clone();
        let connector = match (server.security, connectors.entry(ca)) {
            (Security::Plain, _) => None,
            (_, Entry::Occupied(known)) => Some(known.get().clone()),
            (_, Entry::Vacant(new)) => {
                let connector = Connector::new(new.key().as_deref())?;
                Some(new.insert(connector).clone())
            }
        };
        let place = format!("{} {}", server.endpoint, server.mailbox);
        // Several routes may lead to one server, and it is spared by all of them together.
        let sparing = spared.entry(server.endpoint.to_string());
        let sparing = sparing.or_insert_with(|| Arc::new(Sparing::new(config.limits.logins_per_second)));
        let sparing = Some(Arc::clone(sparing));
        let imap = Imap::with(server, memory.lines.clone(), connector, memory.budget.clone(), sparing);
        let cached = Cached::new(imap, place, memory.listings.clone());
        Ok::<_, tls::Error>(Route::new(Warm::new(cached, warm, memory.room.clone()), maildrops))
    };
    let mut all = Routes::new(config.upstream.as_ref().map(&mut route).transpose()?, config.append_domain.clone());
    for config::Route { domains, upstream } in &config.routes {
        all.add(domains.iter().cloned(), route(upstream)?);
    }
    Ok((all, spared.into_values().collect()))
}

/// How long listings may take to be written that no session waits for any more.
const WRITING: Duration = Duration::from_secs(2);

/// How long an UPDATE may take that has begun.
const UPDATE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CommandLine;

    /// It would end everybody's sessions, and an UPDATE in the middle.
    #[tokio::test]
    async fn a_panic_while_files_are_read_changes_nothing() {
        let command_line = CommandLine {
            listen: vec!["pop3://127.0.0.1:0".into()],
            upstream: Some("imap://127.0.0.1".into()),
            ..CommandLine::default()
        };
        let load = move || Config::load(&[], [], &command_line);
        let mut daemon = Daemon::start(load().unwrap()).await.unwrap();
        let before = daemon.config.clone();
        let broken = daemon.succeed(Arc::new(|| panic!("this is the panic"))).await;
        assert!(matches!(broken, Err(Error::Panic)), "{broken:?}");
        assert_eq!(daemon.config, before);
        daemon.succeed(Arc::new(load)).await.unwrap();
    }
}
