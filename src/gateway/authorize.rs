//! The AUTHORIZATION state: from the greeting to a mailbox that is open, over TLS if the client asks for it (RFC 1939 §4,
//! RFC 2595).

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::OptionFuture;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::{
    Gateway, Lock, Maildrops, Route, Seen,
    guard::{Guesses, Place, Try, Turn},
    refuse,
    serve::Session,
    summary::{End, loggable},
};
use crate::{
    mail::{Credentials, Proof, Snapshot},
    net::limits::Permit,
    pop3::{
        reply::{Code, Reply},
        session::{Authorization, Before, Channel, Opening, Securing, Transaction},
    },
    upstream::{Fault, Mailbox, Upstream, Verdict},
};

/// A session that has a mailbox.
pub(super) struct Open<M> {
    pub(super) seen: Seen,
    pub(super) mailbox: M,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) place: Option<Place>,
    pub(super) transaction: Transaction,
}

/// A log-in that was refused.
pub(super) struct Refused {
    /// When it was its turn.
    at: Instant,
    /// How long the answer has to take, if the credentials were wrong or had no turn.
    delay: Duration,
    /// Until it is given, somebody else at the same address may have to wait.
    _turn: Option<Turn>,
}

impl<U: Upstream> Session<'_, U> {
    /// The AUTHORIZATION state.
    pub(super) async fn authorize(&mut self) -> Result<Open<U::Mailbox>, End> {
        let channel = self.channel(self.peer.encrypted);
        let (mut session, greeting) = Authorization::new(channel);
        self.client.hurry(Some(Instant::now() + TO_LOG_IN));
        self.client.say(&greeting).await?;
        loop {
            let input = self.client.listen(session.expects(), IDLE_BEFORE_LOGIN, &self.shutdown).await?;
            let mut before = session.line(input);
            session = loop {
                match before {
                    Before::Reply(session, reply) => {
                        self.answer(&reply).await?;
                        break session;
                    }
                    Before::Secure(securing, reply) => break self.secure(securing, &reply).await?,
                    Before::Open(opening, credentials) => match self.open(opening, credentials).await? {
                        Ok(open) => return Ok(open),
                        Err(refusal) => before = refusal,
                    },
                    Before::Close(None) => return Err(End::Refused),
                    Before::Close(Some(reply)) => {
                        self.answer(&reply).await?;
                        return Err(if reply.is_ok() { End::Quit } else { End::Refused });
                    }
                }
            };
        }
    }

    /// What can be said on the line as it is now.
    fn channel(&self, encrypted: bool) -> Channel {
        Channel {
            encrypted,
            stls: self.gateway.acceptor.is_some(),
            login: encrypted || self.peer.is_within(&self.gateway.settings.plaintext_from),
        }
    }

    /// Sends a reply before log-in. Who guesses passwords has to wait for it.
    async fn answer(&mut self, reply: &Reply) -> Result<(), End> {
        let refused = self.refused.take();
        let wait = match (&refused, reply.code()) {
            (Some(refused), Some(Code::Auth | Code::SysTemp)) => Some((refused.at, refused.delay)),
            (None, Some(Code::Auth)) => Some((Instant::now(), self.gateway.settings.failure_delay)),
            // A challenge that explains a refusal tells of it, and is waited for in its place.
            (Some(refused), None) => {
                self.refused = Some(Refused { at: refused.at, delay: Duration::ZERO, _turn: None });
                Some((refused.at, refused.delay))
            }
            _ => None,
        };
        self.summary.refused |= !reply.is_ok();
        if let Some((tried, delay)) = wait.filter(|(_, delay)| !delay.is_zero()) {
            self.client.flush().await?;
            let chance = RandomState::new().hash_one(self.id) % 256;
            // Counted from the question and never sooner, up to a quarter later: what was checked where, or whether it
            // was checked at all, cannot be told from the time it takes. Dovecot takes two seconds for itself.
            tokio::time::sleep_until(tried + delay + delay / 1024 * u32::try_from(chance).unwrap_or_default()).await;
        }
        drop(refused);
        self.client.say(reply).await
    }

    async fn secure(&mut self, securing: Securing, reply: &Reply) -> Result<Authorization, End> {
        let Some(acceptor) = &self.gateway.acceptor else { return Err(End::Refused) };
        // What is owed goes first, so that nothing has to be listened to any more while the last reply in the clear goes out.
        self.client.flush().await?;
        let handshake = async {
            let permit = self.peer.permit.as_ref();
            OptionFuture::from(permit.map(Permit::handshake)).await.transpose()
        };
        let Ok(Ok(handshake)) = timeout(HANDSHAKE, handshake).await else {
            debug!("too many handshakes");
            self.client.say(&Reply::unavailable()).await?;
            return Err(End::Refused);
        };
        if self.client.has_more().await {
            debug!("something was sent behind STLS");
            return Err(End::Refused);
        }
        // A client that does not read the reply has the place of one that shakes hands.
        let begun = async {
            self.client.say(reply).await?;
            self.client.flush_before_tls().await?;
            self.client.secure(&**acceptor).await.map_err(|error| {
                debug!(%error, "no TLS");
                End::Refused
            })
        };
        timeout(HANDSHAKE, begun).await.unwrap_or(Err(End::Idle))?;
        drop(handshake);
        Ok(securing.secured(self.channel(true)))
    }

    /// Tries the credentials. The inner error is the refusal.
    async fn open(
        &mut self,
        opening: Opening,
        credentials: Credentials,
    ) -> Result<Result<Open<U::Mailbox>, Before>, End> {
        // What is owed goes out before a wait.
        self.client.flush().await?;
        let guesses = &self.gateway.lasting.guesses;
        let tried = guesses.of(self.peer.client.ip(), &credentials);
        let user = loggable(&credentials.user);
        // USER and PASS have replies and no challenges, and a mechanism that carries a password has had its own.
        let explainable = matches!(credentials.proof, Proof::Token { .. });
        let turn = guesses.turn(&tried).await;
        // A wait for the turn does not count: the turn would be over before the next ones had waited.
        let at = Instant::now();
        let failure_delay = self.gateway.settings.failure_delay;
        let mut delay = Duration::ZERO;
        let (turn, granted) = match turn {
            Ok(turn) => (turn, grant(self.gateway, credentials, self.peer.client.ip(), &tried).await),
            Err(fault) => {
                delay = Guesses::delay_without_turn(failure_delay);
                (None, Err(fault))
            }
        };
        self.gateway.lasting.counters.log_in(granted.as_ref().err().map(|fault| fault.verdict));
        let refusal = match granted {
            Ok(Granted { route, mailbox, snapshot, place }) => {
                let (transaction, reply) = opening.opened(Arc::clone(&route.session), Arc::clone(&snapshot));
                guesses.succeeded(&tried);
                self.summary.user = Some(user);
                self.summary.upstream = Some(route.maildrops.upstream.clone());
                if let Some(permit) = &mut self.peer.permit {
                    permit.logged_in();
                }
                self.client.hurry(None);
                self.client.say(&reply).await?;
                return Ok(Ok(Open { seen: route.maildrops.seen, mailbox, snapshot, place, transaction }));
            }
            Err(fault) => {
                refuse::log_login(&fault, &user, self.peer.client.ip());
                if fault.verdict == Verdict::Denied {
                    delay = guesses.failed(&tried, failure_delay, Instant::now());
                }
                self.refused = Some(Refused { at, delay, _turn: turn });
                let reply = refuse::login(&fault);
                match fault.challenge.filter(|_| explainable) {
                    Some(challenge) => opening.challenged(&challenge, reply),
                    None => opening.refused(reply),
                }
            }
        };
        self.summary.user = Some(user);
        Ok(Err(refusal))
    }
}

/// A mailbox that the user may use.
struct Granted<'a, U: Upstream> {
    route: &'a Route<U>,
    mailbox: U::Mailbox,
    snapshot: Arc<Snapshot>,
    place: Option<Place>,
}

/// Chooses the upstream, and unless it has just refused the same opens the mailbox. That a user has as many sessions as may
/// be is told to those only who have shown that the maildrop is theirs: by what let them into one of these sessions, which
/// costs the upstream nothing, or else by logging in there.
async fn grant<'a, U: Upstream>(
    gateway: &'a Gateway<U>,
    mut who: Credentials,
    client: IpAddr,
    tried: &Try,
) -> Result<Granted<'a, U>, Fault> {
    let Some((route, name)) = gateway.routes.choose(&who.user) else {
        // Which domains are served here is nobody's business.
        return Err(Fault::new(Verdict::Denied, "no upstream serves the domain of this user"));
    };
    who.user = name;
    who.address = route.maildrops.send_client_address.then_some(client);
    let who = Arc::new(who);
    let upstream = &route.maildrops.upstream;
    if let Some(fault) = gateway.denials.find(upstream, &who, Instant::now()) {
        return Err(fault);
    }
    let places = &gateway.lasting.places;
    let limit = Limit::of(&route.maildrops, gateway.settings.sessions_per_user);
    let reached = |limit: &Limit| {
        gateway.lasting.counters.beyond_limit();
        limit.reached()
    };
    if let Some(limit) = &limit
        && places.are_taken(&limit.at, &who, limit.most)
    {
        return Err(reached(limit));
    }
    let turn = gateway.lasting.guesses.turn_at(upstream, &who.user, tried).await?;
    let opened = timeout(TO_OPEN, route.upstream.open(&who)).await;
    let opened = opened.unwrap_or_else(|_| Err(Fault::new(Verdict::Passing, "the mailbox took too long to open")));
    drop(turn);
    gateway.denials.learn(upstream, &who, &opened, Instant::now());
    let (mailbox, snapshot) = opened?;
    let place = match limit {
        None => None,
        Some(limit) => match places.take(&limit.at, &who, limit.most) {
            Some(place) => Some(place),
            None => {
                mailbox.leave().await;
                return Err(reached(&limit));
            }
        },
    };
    Ok(Granted { route, mailbox, snapshot, place })
}

/// How many sessions a user may have.
struct Limit {
    most: usize,
    /// Of which server, or of which mailbox there.
    at: String,
    verdict: Verdict,
    cause: &'static str,
}

impl Limit {
    /// A lock is one of a mailbox; servers count what a user has on all of them.
    fn of(maildrops: &Maildrops, sessions_per_user: usize) -> Option<Self> {
        let Maildrops { upstream, mailbox, lock, .. } = maildrops;
        match (lock, sessions_per_user) {
            (Lock::Gateway, _) => Some(Self {
                most: 1,
                at: format!("{upstream} {mailbox}"),
                verdict: Verdict::Busy,
                cause: "the user has another session",
            }),
            (Lock::None, 0) => None,
            (Lock::None, most) => Some(Self {
                most,
                at: upstream.clone(),
                verdict: Verdict::Passing,
                cause: "limits.sessions_per_user is reached",
            }),
        }
    }

    fn reached(&self) -> Fault {
        Fault::new(self.verdict, self.cause)
    }
}

/// How long a client may think before log-in. RFC 1939 §3 asks for ten minutes, but only a client that is logged in has
/// something to think about; Dovecot and UW have the same.
const IDLE_BEFORE_LOGIN: Duration = Duration::from_secs(180);

/// How long TLS may take to begin.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long it may take to log in, whatever it says meanwhile. A log-in that has begun by then is carried through.
const TO_LOG_IN: Duration = Duration::from_secs(300);

/// How long a mailbox may take to open, however often the server shows that it is alive: a million messages are listed over
/// a line of one megabit a second in less than seven minutes, and hardly any client waits that long.
const TO_OPEN: Duration = Duration::from_secs(600);
