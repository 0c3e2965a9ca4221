//! The daemon: opens the ports, gives each connection a task, and drains when it is told to stop. What a session says is
//! the gateway's business.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, info, warn};

use crate::{
    config::{self, Config},
    gateway::{self, Gateway, Peer, Route, Routes},
    net::{
        Accept, Endpoint,
        limits::{self, Full, Limits, Permit},
        listen::{Arrival, Knock, Listener},
        tcp::Tcp,
        tls::{self, Acceptor, Connector},
    },
    upstream::{
        Upstream,
        imap::{self, Budget, Imap, Security},
    },
};

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
}

/// Does what `config` says until the process is told to stop. Nothing is started if anything is wrong.
pub async fn run(config: Config) -> Result<(), Error> {
    for option in &config.dangerous {
        warn!(option, "a dangerous option is in force");
    }
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let acceptor = match &config.tls {
        Some(tls) => Some(Acceptor::load(&tls.certificate, &tls.key)?),
        None => None,
    };
    let upstreams = upstreams(&config);
    let routes = routes(config.upstream, config.routes, config.append_domain)?;
    let stls = acceptor.clone().map(|acceptor| Arc::new(acceptor) as Arc<dyn Accept>);
    let ports = Ports::open(&config.listeners, acceptor.as_ref()).await?;
    let sessions = limits::affordable(config.limits.sessions);
    if sessions < config.limits.sessions {
        warn!(sessions, "limits.sessions is lowered to what the limit of open files (ulimit -n, LimitNOFILE=) allows");
    }
    let limits = Limits::new(sessions, config.limits.sessions_per_address);
    for port in &ports.0 {
        let scheme = if port.is_tls() { "pop3s" } else { "pop3" };
        info!(url = %format_args!("{scheme}://{}", port.address()), "listening");
    }
    for (upstream, users) in upstreams {
        info!(upstream, users, "serving");
    }
    info!("ready");
    ports.serve(Arc::new(Gateway::new(routes, config.gateway, stls)), limits).await
}

/// Which upstream serves whom, for the log.
fn upstreams(config: &Config) -> Vec<(String, String)> {
    let routes = config.routes.iter().map(|config::Route { domains, upstream }| {
        let domains: Vec<_> = domains.iter().map(|domain| format!("@{domain}")).collect();
        (upstream.maildrops.upstream.clone(), domains.join(" "))
    });
    let others = if config.routes.is_empty() { "all" } else { "all others" };
    let default = config.upstream.iter().map(|upstream| (upstream.maildrops.upstream.clone(), others.to_owned()));
    routes.chain(default).collect()
}

/// The ways to the upstreams. Root certificates are read where there is TLS alone: a machine that has none, a container of
/// nothing but popgate say, does without them.
fn routes(
    default: Option<config::Upstream>,
    routes: Vec<config::Route>,
    append_domain: Option<String>,
) -> Result<Routes<Imap>, tls::Error> {
    let mut connectors: HashMap<_, Connector> = HashMap::new();
    let budget = Budget::new(imap::AHEAD);
    let mut route = |upstream: config::Upstream| {
        let config::Upstream { server, ca, maildrops } = upstream;
        let connector = match (server.security, connectors.entry(ca)) {
            (Security::Plain, _) => None,
            (_, Entry::Occupied(known)) => Some(known.get().clone()),
            (_, Entry::Vacant(new)) => {
                let connector = Connector::new(new.key().as_deref())?;
                Some(new.insert(connector).clone())
            }
        };
        let imap = Imap::sharing(server, Arc::new(Tcp), connector, budget.clone());
        Ok::<_, tls::Error>(Route::new(imap, maildrops))
    };
    let mut all = Routes::new(default.map(&mut route).transpose()?, append_domain);
    for config::Route { domains, upstream } in routes {
        all.add(domains, route(upstream)?);
    }
    Ok(all)
}

/// Open ports.
struct Ports(Vec<Listener>);

impl Ports {
    /// Opens all ports, or none.
    async fn open(listeners: &[config::Listener], acceptor: Option<&Acceptor>) -> Result<Self, Error> {
        let mut ports = Vec::new();
        for config::Listener { endpoint: at, tls, proxies } in listeners {
            // The configuration makes sure that there is a certificate where one is needed.
            let acceptor = acceptor.filter(|_| *tls).cloned();
            let port = Listener::bind(at, acceptor, proxies.clone())
                .await
                .map_err(|error| Error::Port { at: at.clone(), error })?;
            ports.push(port);
        }
        Ok(Self(ports))
    }

    /// Serves until SIGTERM or SIGINT, then drains. A second signal ends what the first one waits for, but never an
    /// UPDATE.
    async fn serve<U: Upstream>(self, gateway: Arc<Gateway<U>>, limits: Limits) -> Result<(), Error> {
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let mut told = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let stop = CancellationToken::new();
        let sessions = TaskTracker::new();
        let ports = self.0.len();
        for port in self.0 {
            sessions.spawn(listen(port, gateway.clone(), limits.clone(), sessions.clone(), stop.clone()));
        }
        told().await;
        info!(sessions = sessions.len().saturating_sub(ports), "stopping: sessions are asked to end");
        stop.cancel();
        sessions.close();
        let drained = async {
            tokio::select! {
                drained = timeout(DRAIN, sessions.wait()) => drained.is_ok(),
                () = told() => false,
            }
        };
        if !drained.await {
            warn!(sessions = sessions.len(), "sessions are broken off");
            // Mail that a client was told is gone must be gone: an UPDATE has its time.
            gateway.updates().close();
            gateway.updates().wait().await;
        }
        info!("stopped");
        Ok(())
    }
}

/// Takes connections until it is told to stop.
async fn listen<U: Upstream>(
    port: Listener,
    gateway: Arc<Gateway<U>>,
    limits: Limits,
    sessions: TaskTracker,
    stop: CancellationToken,
) {
    let port = Arc::new(port);
    loop {
        let knock = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            knock = port.accept() => knock,
        };
        match knock {
            Ok(knock) => match limits.admit() {
                Ok(permit) => {
                    sessions.spawn(lone(session(port.clone(), knock, permit, gateway.clone(), stop.clone())));
                }
                Err(full) => turn_away(&port, knock, full),
            },
            Err(error) => {
                // Out of descriptors, say. Those who are connected go on, and the next try is soon.
                NOT_TAKEN.may_be_said().then(|| error!(%error, "connections cannot be taken"));
                sleep(RETRY).await;
            }
        }
    }
}

/// One connection from its first octet to its last.
async fn session<U: Upstream>(
    port: Arc<Listener>,
    mut knock: Knock,
    mut permit: Permit,
    gateway: Arc<Gateway<U>>,
    stop: CancellationToken,
) {
    let opened = async {
        if let Err(error) = port.introduce(&mut knock).await {
            debug!(peer = %knock.peer, %error, "no session: the proxy did not say who is behind it");
            return None;
        }
        if let Err(full) = permit.stranger(knock.client.ip()) {
            turn_away(&port, knock, full);
            return None;
        }
        let client = knock.client;
        let failed = |error| debug!(%client, %error, "no session: the connection was not opened");
        port.open(knock).await.map_err(failed).ok()
    };
    let opened = tokio::select! {
        biased;
        opened = opened => opened,
        // Nothing has been said yet.
        () = stop.cancelled() => None,
    };
    if let Some(Arrival { wire, client, peer, encrypted }) = opened {
        let peer = Peer { address: peer, client, encrypted, permit: Some(permit) };
        gateway::serve(gateway, wire, peer, stop).await;
    }
}

fn turn_away(port: &Listener, knock: Knock, full: Full) {
    TURNED_AWAY.may_be_said().then(|| warn!(client = %knock.client, %full, "connections are turned away"));
    knock.refuse(if port.is_tls() { b"" } else { FULL });
}

/// A panic is a defect, and it ends one session, not all of them. Where it was has been logged when it happened.
async fn lone(session: impl Future<Output = ()> + Send + 'static) {
    if tokio::spawn(session).await.is_err() {
        error!("a session ended in a panic");
    }
}

/// Something that anybody can make happen any number of times, and that is logged now and then.
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn may_be_said(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() > SELDOM);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

static TURNED_AWAY: Seldom = Seldom::new();
static NOT_TAKEN: Seldom = Seldom::new();
const SELDOM: Duration = Duration::from_secs(10);

/// What a client reads when there is no room for it.
const FULL: &[u8] = b"-ERR [SYS/TEMP] mail service temporarily unavailable, too many connections, try again later\r\n";

/// How long sessions may go on after the signal to stop. Kubernetes kills after 30 seconds.
const DRAIN: Duration = Duration::from_secs(25);

const RETRY: Duration = Duration::from_millis(100);
