//! One maildrop for one session. It owns the line and makes a new one when the old is lost, so that
//! nobody above sees a reconnection: only that a message came, is gone, or cannot be had.

use std::{
    future::{Future, pending},
    iter::once,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tracing::info;

use super::{
    Server,
    body::Reading,
    conn::Conn,
    fault::{Phase, Trouble},
    listing::{self, Ground, Listing, Renewed},
    login, settle,
    stash::{Claim, GROUP},
};
use crate::{
    mail::{Changes, Credentials, Deletion, Snapshot, Uid},
    upstream::{
        Body, Fault, Mailbox, Piece, Settled, Verdict, Window,
        cache::{Known, Slot},
        warm::Renew,
    },
};

/// An opened IMAP mailbox.
pub struct ImapMailbox {
    pub(super) server: Arc<Server>,
    /// For a new line; nobody's while the line waits for the next session.
    who: Option<Arc<Credentials>>,
    /// Where the listing is remembered.
    slot: Option<Slot>,
    /// In a box, as it is much to be moved about, and to be held twice meanwhile.
    pub(super) conn: Option<Box<Conn>>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) ground: Ground,
    pub(super) reading: Reading,
    /// When a lost line was last replaced.
    reconnected: Option<Instant>,
    /// A line was replaced since the listing, so deletions are verified first.
    pub(super) must_verify: bool,
    /// Messages up to this one are listed as an earlier session knew them, so they are verified before they are deleted.
    pub(super) remembered: Option<Uid>,
    /// Of these, those that came whole in this session, with the size that was listed.
    pub(super) proved: Vec<Uid>,
    /// What the next listing on this line may start from.
    known: Option<Arc<Known>>,
    /// A command that removes messages was sent.
    pub(super) has_removed: bool,
    /// What was fetched ahead has kept the client waiting: nothing is, any more.
    is_slow: bool,
    /// Why this mailbox cannot be trusted to be the one that was listed. Nothing is asked of it any more.
    changed: Option<String>,
}

impl ImapMailbox {
    pub(super) fn new(
        server: Arc<Server>,
        who: Arc<Credentials>,
        slot: Option<Slot>,
        listing: Listing,
        known: Option<Arc<Known>>,
    ) -> Self {
        let Listing { conn, snapshot, ground, remembered, .. } = listing;
        Self {
            server,
            who: Some(who),
            slot,
            conn: Some(Box::new(conn)),
            snapshot,
            ground,
            reading: Reading::Nothing,
            reconnected: None,
            must_verify: false,
            remembered,
            proved: Vec::new(),
            known,
            has_removed: false,
            is_slow: false,
            changed: None,
        }
    }

    /// A line that is free for a command: the old one, or a new one if it is lost and may be replaced.
    pub(super) async fn line(&mut self) -> Result<&mut Conn, Fault> {
        self.reading = Reading::Nothing;
        if self.changed.is_none() {
            let is_replaceable = self.may_reconnect();
            let ready = match &mut self.conn {
                // It is given up below, whatever is still to come.
                Some(conn) if conn.view.changed.is_some() => Ok(()),
                Some(conn) => conn.ready(is_replaceable).await,
                None => Err(Trouble::Lost),
            };
            if let Err(trouble) = ready {
                self.is_slow |= matches!(trouble, Trouble::Slow);
                self.conn = None;
                // In a box, like all that is rare and large: each session has room for the largest of what it waits for.
                Box::pin(self.reconnect()).await?;
            }
        }
        self.line_in_use()
    }

    /// The line as it is, whatever is open on it.
    pub(super) fn line_in_use(&mut self) -> Result<&mut Conn, Fault> {
        if let Some(why) = self.conn.as_ref().and_then(|conn| conn.view.changed) {
            self.distrust(why.to_owned());
        }
        match (&self.changed, &mut self.conn) {
            (Some(why), _) => Err(Fault::new(Verdict::Changed, why.clone())),
            (None, Some(conn)) => Ok(conn),
            (None, None) => Err(Trouble::Lost.into_fault(Phase::Use, false)),
        }
    }

    /// All messages that exist, as far as is known, ascending.
    pub(super) fn known(&self) -> Vec<Uid> {
        let mut known = [self.snapshot.uids(), &self.ground.hidden].concat();
        known.sort_unstable();
        known
    }

    /// The mailbox is not as it is remembered: another session asks for all of it.
    pub(super) fn forget(&mut self) {
        self.known = None;
        if let Some(slot) = &self.slot {
            slot.forget();
        }
    }

    /// Whether the line is still the one on which the messages were listed.
    pub(super) const fn is_first_line(&self) -> bool {
        self.reconnected.is_none()
    }

    /// Whether the line is lost, as opposed to not trusted.
    pub(super) const fn is_lost(&self) -> bool {
        self.conn.is_none() && self.changed.is_none()
    }

    /// Whether the mailbox is not the one that was listed.
    pub(super) const fn is_changed(&self) -> bool {
        self.changed.is_some()
    }

    /// Whether a lost line may be replaced now.
    pub(super) fn may_reconnect(&self) -> bool {
        self.ground.uid_validity.is_some() && self.reconnected.is_none_or(|last| last.elapsed() >= RECONNECT)
    }

    /// Drops the line without a word.
    pub(super) fn hang_up(&mut self) {
        if let Some(conn) = self.conn.take() {
            conn.abort();
        }
    }

    pub(super) async fn reconnect(&mut self) -> Result<(), Fault> {
        if self.ground.uid_validity.is_none() {
            // Nothing says that the UIDs on a new line would be the same.
            self.distrust("the line is lost, and the UIDs do not outlive it".to_owned());
            return Ok(());
        }
        if !self.may_reconnect() {
            return Err(Fault::new(Verdict::Passing, "the line was lost again shortly after it was replaced"));
        }
        let Some(who) = self.who.clone() else { return Err(Trouble::Lost.into_fault(Phase::Use, false)) };
        let server = Arc::clone(&self.server);
        let pass = server.pass().await?;
        self.reconnected = Some(Instant::now());
        let mut conn = login::login(&server, pass, &who).await.map_err(after_login)?;
        let trusted = self.server.trusted();
        match listing::reopen(&self.server, &mut conn, &self.ground).await {
            Ok(()) => {
                info!("the line was lost and has been replaced");
                self.must_verify = true;
                self.conn = Some(Box::new(conn));
            }
            Err(trouble @ (Trouble::Changed(_) | Trouble::Malformed(_))) => self.distrust(trouble.to_string()),
            Err(trouble) => return Err(trouble.into_fault(Phase::Use, trusted)),
        }
        Ok(())
    }

    fn distrust(&mut self, why: String) {
        info!(why, "the mailbox is not used any more in this session");
        self.changed.get_or_insert(why);
        self.hang_up();
    }

    /// Notes what a trouble means for the rest of the session.
    pub(super) fn fault(&mut self, trouble: Trouble) -> Fault {
        self.is_slow |= matches!(trouble, Trouble::Slow);
        match &trouble {
            Trouble::Malformed(_) | Trouble::Changed(_) => self.distrust(trouble.to_string()),
            trouble if trouble.is_lost_line() => self.hang_up(),
            _ => {}
        }
        trouble.into_fault(Phase::Use, self.server.trusted())
    }
}

impl Mailbox for ImapMailbox {
    async fn fetch(&mut self, uid: Uid) -> Result<Option<Body<'_, Self>>, Fault> {
        let piece = Piece { uid, window: None };
        let asked = match self.stashed(piece).await? {
            None => self.ask(piece).await?,
            stashed => stashed,
        };
        Ok(asked.map(|(octets, extent)| Body::new(self, octets, extent)))
    }

    async fn peek(&mut self, uid: Uid, window: Window) -> Result<Option<Body<'_, Self>>, Fault> {
        let piece = Piece { uid, window: Some(window) };
        let asked = match self.stashed(piece).await? {
            None => self.ask(piece).await?,
            stashed => stashed,
        };
        Ok(asked.map(|(octets, extent)| Body::new(self, octets, extent)))
    }

    fn ahead(&mut self, mut certain: impl Iterator<Item = Piece>, likely: impl Iterator<Item = Piece>) {
        let Some(conn) = &self.conn else { return };
        if !self.server.settings.read_ahead || self.is_slow || self.changed.is_some() || !conn.is_usable() {
            return;
        }
        // What Gmail sends is counted against the user, so that nothing is fetched there which may not be wanted.
        let metered = conn.capabilities.gmail;
        let Some(first) = certain.next() else { return };
        let (first_known, is_here) = (conn.stash.knows(first.uid), conn.stash.has(first));
        let likely = likely.take_while(|_| !metered).map(|piece| (piece, Claim::Guessed));
        let mut pieces = certain.map(|piece| (piece, Claim::Asked)).chain(likely).peekable();
        // One message alone is asked for when its turn comes, and is dealt with there whatever comes of it.
        let mut alone = once((first, Claim::Asked)).peekable();
        if !first_known && (pieces.peek().is_none() || !self.ask_group(&mut alone, 1)) {
            return;
        }
        // It is worth while for a whole group, or before a wait; then all the room is used.
        self.ask_groups(&mut pieces, if is_here { GROUP } else { 0 });
    }

    fn is_here(&self, piece: Piece) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.is_usable() && conn.stash.has(piece))
    }

    async fn chunk(&mut self) -> Result<Option<&[u8]>, Fault> {
        loop {
            let trouble = match self.next_octets().await {
                Ok(0) => {
                    self.reading = Reading::Nothing;
                    return Ok(None);
                }
                Ok(octets) => return Ok(self.octets_given(octets)),
                Err(trouble) => trouble,
            };
            let resumed = match std::mem::replace(&mut self.reading, Reading::Nothing) {
                Reading::Stream { uid, left: Some(left), .. } if trouble.is_lost_line() => {
                    Box::pin(self.resume(uid, left, trouble)).await
                }
                _ => Err(trouble),
            };
            if let Err(trouble) = resumed {
                self.reading = Reading::Nothing;
                return Err(self.fault(trouble));
            }
        }
    }

    fn forsake(&mut self) {
        let reading = std::mem::replace(&mut self.reading, Reading::Nothing);
        if let (Reading::Stream { given, .. }, Some(conn)) = (reading, &mut self.conn) {
            conn.consume(given);
            // A little is read off before the next command; much is not worth the wait.
            if conn.unread() > WORTH_DRAINING {
                self.hang_up();
            }
        }
    }

    async fn rest(&mut self) -> Fault {
        let Some(conn) = &mut self.conn else { return pending().await };
        let trouble = conn.idle().await;
        self.fault(trouble)
    }

    async fn mark_seen(&mut self, uids: &[Uid]) -> Result<(), Fault> {
        match self.ground.seen && !uids.is_empty() {
            true => Box::pin(settle::mark_seen(self, uids)).await,
            false => Ok(()),
        }
    }

    fn settle(&mut self, changes: &Changes) -> impl Future<Output = Settled> + Send {
        Box::pin(settle::settle(self, changes))
    }

    async fn leave(mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        match conn.unread() {
            0 => conn.leave().await,
            _ => conn.abort(),
        }
    }
}

impl Renew for ImapMailbox {
    async fn lay_down(&mut self) -> bool {
        // Nobody's password is kept for longer than his session.
        self.who = None;
        let is_first = self.reconnected.is_none() && self.changed.is_none() && !self.must_verify;
        let is_idle = matches!(self.reading, Reading::Nothing);
        // That nothing can be removed may have had a reason that passes.
        let is_able = self.snapshot.deletion() == Deletion::Allowed;
        // Where UIDs do not last, a new session needs a new line.
        let is_steady = self.ground.uid_validity.is_some();
        match &mut self.conn {
            Some(conn) if is_first && is_idle && is_able && is_steady => conn.lay_down().await,
            _ => false,
        }
    }

    async fn renew(&mut self, who: &Arc<Credentials>) -> Result<Arc<Snapshot>, Fault> {
        let conn = self.conn.as_mut().ok_or_else(|| Trouble::Lost.into_fault(Phase::Use, false))?;
        let deletion = self.snapshot.deletion();
        let renewed = listing::renew(&self.server, conn, &self.ground, deletion, self.known.clone()).await;
        let Renewed { snapshot, ground, known, remembered } = renewed.map_err(|trouble| self.fault(trouble))?;
        self.who = Some(Arc::clone(who));
        self.snapshot = snapshot;
        self.ground = ground;
        self.known = known.map(Arc::new);
        self.remembered = remembered;
        self.proved.clear();
        self.has_removed = false;
        Ok(Arc::clone(&self.snapshot))
    }
}

/// A log-in that worked before and does not now is no reason to call the credentials wrong.
fn after_login(fault: Fault) -> Fault {
    match fault.verdict {
        Verdict::Denied => Fault { verdict: Verdict::Passing, ..fault },
        _ => fault,
    }
}

/// A forsaken body with no more than this to come is read to its end.
const WORTH_DRAINING: u64 = 256 * 1024;

/// A line that is lost is replaced at most once in this time.
const RECONNECT: Duration = Duration::from_secs(60);
