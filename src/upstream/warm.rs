//! Lines that stay open for a while when their session is over, so that the next one of the same user need not log in
//! again. A decorator, one for each upstream. A line is lent only to who has shown the very credentials that the upstream
//! itself took a short while ago, to one session at a time, and only if nothing ever went wrong on it; whenever there is
//! a doubt the line is dropped, and the session has a new one without noticing.

use std::{
    collections::HashMap,
    future::Future,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{hmac, rand::SystemRandom};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, sleep},
};
use tracing::debug;

use super::{Body, Fault, Mailbox, Piece, Settled, Upstream, Verdict, Window};
use crate::mail::{Changes, Credentials, Proof, Snapshot, TokenMechanism, Uid};

/// A mailbox whose line can serve another session of its user.
pub trait Renew: Mailbox {
    /// Lets go of what only this session needed. Whether the line is then as it was when the session began: nothing is open
    /// on it, nothing lies unread, and it has never been replaced.
    fn lay_down(&mut self) -> impl Future<Output = bool> + Send;

    /// Begins a new session of the same user, with a listing of what is there now. An error says nothing of the user or of
    /// the mailbox, only that this line is of no use.
    fn renew(&mut self, who: &Arc<Credentials>) -> impl Future<Output = Result<Arc<Snapshot>, Fault>> + Send;
}

/// How long lines stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// So long a line waits for its user to come back; zero: no line is kept.
    pub ttl: Duration,
    /// So long credentials are believed that the upstream has taken.
    pub auth_ttl: Duration,
}

/// How many lines may wait, on all upstreams that share it together. Each needs a descriptor, and whoever logs in needs
/// one more than a line that waits for somebody who may never come.
#[derive(Clone)]
pub struct Room(Arc<Shared>);

struct Shared {
    lines: usize,
    places: Arc<Semaphore>,
    lent: AtomicU64,
    dropped: AtomicU64,
}

/// What has become of lines that were kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// They wait now.
    pub waiting: usize,
    /// They served another session.
    pub lent: u64,
    /// They were of no use to anybody, other than by the end of their time: the server ended them, they did not do for
    /// another session, or the server refused who had opened them.
    pub dropped: u64,
}

impl Room {
    /// Room for so many lines.
    pub fn new(lines: usize) -> Self {
        let lines = lines.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(lines));
        Self(Arc::new(Shared { lines, places, lent: AtomicU64::new(0), dropped: AtomicU64::new(0) }))
    }

    /// What has become of the lines of all upstreams that share it.
    pub fn counts(&self) -> Counts {
        let Shared { lines, places, lent, dropped } = &*self.0;
        Counts {
            waiting: lines - places.available_permits(),
            lent: lent.load(Ordering::Relaxed),
            dropped: dropped.load(Ordering::Relaxed),
        }
    }

    fn lent(&self) {
        self.0.lent.fetch_add(1, Ordering::Relaxed);
    }

    fn dropped(&self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// An upstream whose lines stay open for a while.
pub struct Warm<U: Upstream> {
    upstream: U,
    lines: Arc<Lines<U::Mailbox>>,
}

/// A mailbox on a line that may be kept.
pub struct Kept<M: Renew> {
    mailbox: M,
    ticket: Ticket,
    lines: Arc<Lines<M>>,
    /// Nothing has gone wrong.
    sound: bool,
}

/// What is known of a line beside its mailbox.
#[derive(Clone)]
struct Ticket {
    user: String,
    /// A keyed hash of the credentials.
    proof: Vec<u8>,
    /// Where the upstream was told that the client is.
    address: Option<IpAddr>,
    /// When the upstream took them.
    logged_in: Instant,
}

/// The lines that wait, at most one for each user.
struct Lines<M> {
    settings: Settings,
    room: Room,
    /// A key that only this process knows, and only as long as it lives.
    key: Option<hmac::Key>,
    waiting: Mutex<Waiting<M>>,
}

struct Waiting<M> {
    by_user: HashMap<String, Place<M>>,
    /// Numbers places, so that a line that ends does not take another one's place with it.
    parked: u64,
}

struct Place<M> {
    number: u64,
    ticket: Ticket,
    /// Asks whoever minds the line to hand it over.
    demand: oneshot::Sender<oneshot::Sender<M>>,
}

impl<U: Upstream> Warm<U>
where
    U::Mailbox: Renew,
{
    /// Keeps the lines of `upstream`, as far as there is room.
    pub fn new(upstream: U, settings: Settings, room: Room) -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok();
        let waiting = Mutex::new(Waiting { by_user: HashMap::new(), parked: 0 });
        let lines = Lines { settings, room, key, waiting };
        Self { upstream, lines: Arc::new(lines) }
    }

    /// How many lines wait.
    pub fn waiting(&self) -> usize {
        self.lines.waiting().by_user.len()
    }
}

impl<U: Upstream> Upstream for Warm<U>
where
    U::Mailbox: Renew,
{
    type Mailbox = Kept<U::Mailbox>;

    async fn open(&self, who: &Arc<Credentials>) -> Result<(Self::Mailbox, Arc<Snapshot>), Fault> {
        let proof = self.lines.prove(who);
        if let Some((mut mailbox, ticket)) = self.lines.take(who).await {
            match mailbox.renew(who).await {
                Ok(snapshot) => {
                    self.lines.room.lent();
                    return Ok((Kept { mailbox, ticket, lines: Arc::clone(&self.lines), sound: true }, snapshot));
                }
                Err(fault) => {
                    debug!(%fault, "a line that was kept is of no use");
                    self.lines.room.dropped();
                }
            }
        }
        let opened = self.upstream.open(who).await;
        if opened.as_ref().is_err_and(|fault| fault.verdict == Verdict::Denied) {
            self.lines.revoke(who);
        }
        let (mailbox, snapshot) = opened?;
        let ticket = Ticket { user: who.user.clone(), proof, address: who.address, logged_in: Instant::now() };
        Ok((Kept { mailbox, ticket, lines: Arc::clone(&self.lines), sound: true }, snapshot))
    }
}

impl<M: Renew> Lines<M> {
    /// A keyed hash of who it is and what proves it; empty, which is no hash, if there is no key.
    fn prove(&self, who: &Credentials) -> Vec<u8> {
        let tag = |key| {
            let mut context = hmac::Context::with_key(key);
            said(who, |octets| context.update(octets));
            context.sign().as_ref().to_vec()
        };
        self.key.as_ref().map(tag).unwrap_or_default()
    }

    /// Whether these are the credentials of this ticket; compared in constant time.
    fn is_proved(&self, who: &Credentials, ticket: &Ticket) -> bool {
        let Some(key) = &self.key else { return false };
        let mut message = zeroize::Zeroizing::new(Vec::with_capacity(size(who)));
        said(who, |octets| message.extend_from_slice(octets));
        hmac::verify(key, &message, &ticket.proof).is_ok()
    }

    /// The line that waits for this user, if these are the credentials that the upstream took. Where it was told of an
    /// address, it takes the line for one to a client there, so nobody else has it.
    async fn take(&self, who: &Credentials) -> Option<(M, Ticket)> {
        let place = {
            let mut waiting = self.waiting();
            let ticket = &waiting.by_user.get(&who.user)?.ticket;
            let is_known = ticket.logged_in.elapsed() <= self.settings.auth_ttl && ticket.address == who.address;
            if !is_known || !self.is_proved(who, ticket) {
                return None;
            }
            waiting.by_user.remove(&who.user)?
        };
        let (give, given) = oneshot::channel();
        place.demand.send(give).ok()?;
        Some((given.await.ok()?, place.ticket))
    }

    /// The upstream refused these credentials: a line that was opened with them is not lent any more. One that was opened
    /// with others stays, so that strangers cannot drop it.
    fn revoke(&self, who: &Credentials) {
        let mut waiting = self.waiting();
        if waiting.by_user.get(&who.user).is_some_and(|place| self.is_proved(who, &place.ticket)) {
            waiting.by_user.remove(&who.user);
            self.room.dropped();
        }
    }

    /// Keeps a line until somebody comes for it; `Some` gives it back where it cannot be kept.
    fn park(self: &Arc<Self>, mailbox: M, ticket: Ticket) -> Option<M> {
        // Beyond this time nobody could have the line.
        let left = self.settings.auth_ttl.saturating_sub(ticket.logged_in.elapsed());
        let time = self.settings.ttl.min(left).min(LONGEST.saturating_sub(ticket.logged_in.elapsed()));
        if time.is_zero() || self.key.is_none() {
            return Some(mailbox);
        }
        let Ok(room) = Arc::clone(&self.room.0.places).try_acquire_owned() else { return Some(mailbox) };
        let (demand, demanded) = oneshot::channel();
        let user = ticket.user.clone();
        let number = {
            let mut waiting = self.waiting();
            if waiting.by_user.len() >= MOST && !waiting.by_user.contains_key(&user) {
                return Some(mailbox);
            }
            waiting.parked += 1;
            let number = waiting.parked;
            // One that was there before hears that nobody will ask for it.
            waiting.by_user.insert(user.clone(), Place { number, ticket, demand });
            number
        };
        let minded = mind(Arc::downgrade(self), mailbox, demanded, time, user, number);
        tokio::spawn(async move {
            minded.await;
            // By now the line is closed, or a session's.
            drop(room);
        });
        None
    }

    /// Nobody can have this line any more.
    fn withdraw(&self, user: &str, number: u64) {
        let mut waiting = self.waiting();
        if waiting.by_user.get(user).is_some_and(|place| place.number == number) {
            waiting.by_user.remove(user);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<M>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a line alive and hears what comes on it, until it is asked for, until its time is over, or until it ends.
async fn mind<M: Renew>(
    lines: Weak<Lines<M>>,
    mut mailbox: M,
    demanded: oneshot::Receiver<oneshot::Sender<M>>,
    time: Duration,
    user: String,
    number: u64,
) {
    let demand = tokio::select! {
        biased;
        demand = demanded => demand.ok(),
        fault = mailbox.rest() => {
            debug!(%fault, "a line that was kept has ended");
            if let Some(lines) = lines.upgrade() {
                lines.room.dropped();
                lines.withdraw(&user, number);
            }
            return;
        }
        () = sleep(time) => None,
    };
    let mailbox = match demand {
        Some(give) => give.send(mailbox).err(),
        None => Some(mailbox),
    };
    if let Some(lines) = lines.upgrade() {
        lines.withdraw(&user, number);
    }
    if let Some(mailbox) = mailbox {
        mailbox.leave().await;
    }
}

/// Everything in the credentials, each piece with its length before it.
fn said(who: &Credentials, mut say: impl FnMut(&[u8])) {
    let (kind, proof): (u8, &[u8]) = match &who.proof {
        Proof::Password(password) => (0, password.expose()),
        Proof::Token { token, mechanism: TokenMechanism::XOAuth2 } => (1, token.expose().as_bytes()),
        Proof::Token { token, mechanism: TokenMechanism::OAuthBearer } => (2, token.expose().as_bytes()),
    };
    say(&[kind]);
    for piece in [who.user.as_bytes(), proof] {
        say(&(piece.len() as u64).to_be_bytes());
        say(piece);
    }
    // The last block waits in the context as it is, and the context is moved about: this takes its place.
    say(&[0; BLOCK]);
}

/// So many octets at most, so that what holds them need not move them.
fn size(who: &Credentials) -> usize {
    let proof = match &who.proof {
        Proof::Password(password) => password.expose().len(),
        Proof::Token { token, .. } => token.expose().len(),
    };
    32 + who.user.len() + proof + BLOCK
}

impl<M: Renew> Kept<M> {
    /// Whatever fails, the line is not for another session.
    fn judge<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        self.sound &= result.is_ok();
        result
    }

    /// The body that the mailbox has begun, as one of this mailbox.
    fn body(&mut self, begun: Result<Option<(u64, super::Extent)>, Fault>) -> Result<Option<Body<'_, Self>>, Fault> {
        let begun = self.judge(begun)?;
        Ok(begun.map(|(octets, extent)| Body::new(self, octets, extent)))
    }
}

impl<M: Renew> Mailbox for Kept<M> {
    async fn fetch(&mut self, uid: Uid) -> Result<Option<Body<'_, Self>>, Fault> {
        let begun = self.mailbox.fetch(uid).await.map(|body| body.map(Body::handed_on));
        self.body(begun)
    }

    async fn peek(&mut self, uid: Uid, window: Window) -> Result<Option<Body<'_, Self>>, Fault> {
        let begun = self.mailbox.peek(uid, window).await.map(|body| body.map(Body::handed_on));
        self.body(begun)
    }

    fn ahead(&mut self, certain: impl Iterator<Item = Piece>, likely: impl Iterator<Item = Piece>) {
        self.mailbox.ahead(certain, likely);
    }

    fn is_here(&self, piece: Piece) -> bool {
        self.mailbox.is_here(piece)
    }

    async fn chunk(&mut self) -> Result<Option<&[u8]>, Fault> {
        let chunk = self.mailbox.chunk().await;
        self.sound &= chunk.is_ok();
        chunk
    }

    fn forsake(&mut self) {
        self.mailbox.forsake();
    }

    async fn rest(&mut self) -> Fault {
        let fault = self.mailbox.rest().await;
        self.sound = false;
        fault
    }

    async fn mark_seen(&mut self, uids: &[Uid]) -> Result<(), Fault> {
        let marked = self.mailbox.mark_seen(uids).await;
        self.judge(marked)
    }

    async fn settle(&mut self, changes: &Changes) -> Settled {
        let settled = self.mailbox.settle(changes).await;
        self.sound &= matches!(settled, Settled::Done);
        settled
    }

    async fn leave(mut self) {
        let kept = match self.sound && self.mailbox.lay_down().await {
            true => self.lines.park(self.mailbox, self.ticket),
            false => Some(self.mailbox),
        };
        if let Some(mailbox) = kept {
            mailbox.leave().await;
        }
    }
}

/// How many octets SHA-256 takes at once.
const BLOCK: usize = 64;

/// No line is older, whatever the settings say.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// So many lines wait on one upstream.
const MOST: usize = 1024;
