//! The ports, and the sessions of those who connect there: a task for each port, and one for each connection. What they are
//! served with is the caller's, and may be replaced while they are open.

use std::{
    future::pending,
    mem,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, info, warn};

use super::{Error, farewell::Farewell};
use crate::{
    config,
    gateway::{self, Gateway, Peer},
    net::{
        Endpoint,
        limits::{Full, Handshake, Limits, Permit},
        listen::{Arrival, Knock, Listener, Terms},
        tls::Acceptor,
    },
    upstream::Upstream,
};

/// An open port. It is closed when nobody has it any more.
#[derive(Clone)]
pub(super) struct Port {
    /// Where it was to be opened.
    at: Endpoint,
    listener: Arc<Listener>,
    terms: Arc<Terms>,
}

/// Opens all ports, or none. Those that are open already stay open, whatever is new about their terms.
pub(super) async fn open(
    listeners: &[config::Listener],
    acceptor: Option<&Acceptor>,
    known: &[Port],
) -> Result<Vec<Port>, Error> {
    let mut known: Vec<_> = known.iter().collect();
    let mut ports = Vec::new();
    for config::Listener { endpoint, tls, proxies } in listeners {
        // The configuration makes sure that there is a certificate where one is needed.
        let terms = Arc::new(Terms::new(acceptor.filter(|_| *tls).cloned(), proxies.clone()));
        // Where the system chooses ports, several are asked for in the same words.
        let same = |port: &&Port| port.at == *endpoint && (endpoint.port != 0 || port.terms.is_tls() == *tls);
        let listener = match known.iter().position(same) {
            Some(index) => Arc::clone(&known.swap_remove(index).listener),
            None => Arc::new(bind(endpoint, if *tls { "pop3s" } else { "pop3" }).await?),
        };
        ports.push(Port { at: endpoint.clone(), listener, terms });
    }
    Ok(ports)
}

/// Opens a port, and says so in a URL with this scheme.
pub(super) async fn bind(at: &Endpoint, scheme: &str) -> Result<Listener, Error> {
    let listener = Listener::bind(at).await.map_err(|error| Error::Port { at: at.clone(), error })?;
    info!(url = %format_args!("{scheme}://{}", listener.address()), "listening");
    Ok(listener)
}

/// All who are connected.
pub(super) struct Sessions {
    limits: Limits,
    tasks: TaskTracker,
    /// The tasks that take connections.
    doors: TaskTracker,
    /// Tells those that are there now to take no more.
    taking: CancellationToken,
    /// Tells sessions to end.
    farewell: Arc<Farewell>,
}

impl Sessions {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            tasks: TaskTracker::new(),
            doors: TaskTracker::new(),
            taking: CancellationToken::new(),
            farewell: Arc::new(Farewell::new()),
        }
    }

    /// From now on connections come from these ports, and are served by this gateway; who is served already does not
    /// notice. This has happened at once, and when it returns nobody is taken any more as it was before.
    pub(super) async fn take<U: Upstream>(&mut self, ports: &[Port], gateway: &Arc<Gateway<U>>) {
        let before = mem::replace(&mut self.doors, TaskTracker::new());
        mem::replace(&mut self.taking, CancellationToken::new()).cancel();
        for port in ports {
            let door = Door {
                port: port.clone(),
                gateway: Arc::clone(gateway),
                limits: self.limits.clone(),
                sessions: self.tasks.clone(),
                farewell: Arc::clone(&self.farewell),
            };
            self.doors.spawn(door.serve(self.taking.clone()));
        }
        before.close();
        before.wait().await;
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Takes no more, and has those that are there end at their next command, or at once if their client is thinking.
    pub(super) fn ask_to_end(&self) {
        self.close();
        self.farewell.say();
    }

    /// The same, but asks one after the other, within this time; and waits for all of them.
    pub(super) async fn end(&self, time: Duration) {
        self.close();
        self.doors.wait().await;
        let asked = async {
            self.farewell.say_over(time).await;
            pending().await
        };
        tokio::select! {
            biased;
            () = asked => {}
            () = self.tasks.wait() => {}
        }
    }

    fn close(&self) {
        self.taking.cancel();
        self.doors.close();
        self.tasks.close();
    }
}

/// Where connections are taken.
struct Door<U> {
    port: Port,
    gateway: Arc<Gateway<U>>,
    limits: Limits,
    sessions: TaskTracker,
    farewell: Arc<Farewell>,
}

impl<U: Upstream> Door<U> {
    /// Takes connections until it is told to take no more.
    async fn serve(self, enough: CancellationToken) {
        tokio::select! {
            biased;
            () = enough.cancelled() => {}
            () = self.take_all() => {}
        }
    }

    async fn take_all(&self) {
        loop {
            match self.port.listener.accept().await {
                Ok(knock) => match self.limits.admit() {
                    Ok(permit) => {
                        let session = session(
                            Arc::clone(&self.port.terms),
                            knock,
                            permit,
                            Arc::clone(&self.gateway),
                            self.farewell.token(),
                        );
                        self.sessions.spawn(lone(session));
                    }
                    Err(full) => turn_away(&self.port.terms, knock, full),
                },
                Err(error) => {
                    // Out of descriptors, say. Those who are connected go on, and the next try is soon.
                    NOT_TAKEN.may_be_said().then(|| error!(%error, "connections cannot be taken"));
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// One connection from its first octet to its last.
async fn session<U: Upstream>(
    terms: Arc<Terms>,
    mut knock: Knock,
    mut permit: Permit,
    gateway: Arc<Gateway<U>>,
    stop: CancellationToken,
) {
    // In a box, as is everything large that is not needed any more while a client thinks: ten thousand may do so.
    let opened = Box::pin(async {
        if let Err(error) = terms.introduce(&mut knock).await {
            debug!(peer = %knock.peer, %error, "no session: the proxy did not say who is behind it");
            return None;
        }
        if let Err(full) = permit.stranger(knock.client.ip()) {
            turn_away(&terms, knock, full);
            return None;
        }
        let client = knock.client;
        let handshake = if terms.is_tls() {
            match timeout(TO_BEGIN, begin(&knock, &permit)).await {
                Ok(Ok(handshake)) => Some(handshake),
                Ok(Err(full)) => {
                    turn_away(&terms, knock, full);
                    return None;
                }
                Err(_) => {
                    debug!(%client, "no session: no handshake was begun in time");
                    return None;
                }
            }
        } else {
            None
        };
        let failed = |error| debug!(%client, %error, "no session: the connection was not opened");
        let arrival = terms.open(knock).await.map_err(failed).ok();
        drop(handshake);
        arrival
    });
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

/// The right to a handshake, once the client begins one: who says nothing takes none from those who do.
async fn begin(knock: &Knock, permit: &Permit) -> Result<Handshake, Full> {
    knock.speaks().await;
    permit.handshake().await
}

fn turn_away(terms: &Terms, knock: Knock, full: Full) {
    TURNED_AWAY.may_be_said().then(|| warn!(client = %knock.client, %full, "connections are turned away"));
    knock.refuse(if terms.is_tls() { b"" } else { FULL });
}

/// A panic is a defect, and it ends one session, not all of them. Where it was has been logged when it happened.
fn lone(session: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
    // Nothing of the session is left to be seen half changed; what sessions share is whole between any two steps.
    AssertUnwindSafe(session).catch_unwind().map(|ended| {
        if ended.is_err() {
            error!("a session ended in a panic");
        }
    })
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

/// How long a client may take until it begins a handshake, and then wait for its turn.
const TO_BEGIN: Duration = Duration::from_secs(10);

const RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    /// And nobody is waited for who has gone by then.
    #[tokio::test(start_paused = true)]
    async fn sessions_are_asked_to_end_one_after_the_other() {
        for (stays, took) in [(3_600, 9), (1, 1)] {
            let sessions = Sessions::new(Limits::new(1, 1, 1));
            for _ in 0..100 {
                let told = sessions.farewell.token();
                sessions.tasks.spawn(async move {
                    // Whichever comes first.
                    let _ = timeout(Duration::from_secs(stays), told.cancelled()).await;
                });
            }
            let began = tokio::time::Instant::now();
            sessions.end(Duration::from_secs(10)).await;
            assert_eq!((began.elapsed().as_secs(), sessions.count()), (took, 0));
        }
    }
}
