//! One maildrop for one session. It owns the line and makes a new one when the old is lost, so that
//! nobody above sees a reconnection: only that a message came, is gone, or cannot be had.

use std::{
    future::{Future, pending},
    iter::{Peekable, once},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, info};

use super::{
    Server,
    conn::{Answer, Conn, Tag},
    fault::{Phase, Trouble},
    listing::{self, Ground, Renewed},
    login, settle,
    stash::{Arrived, GROUP, GROUP_MESSAGES, Item},
    tap::{Malformed, Opened},
};
use crate::{
    mail::{Changes, Credentials, Deletion, Snapshot, Uid},
    upstream::{Body, Extent, Fault, Mailbox, Piece, Settled, Verdict, Window, cache::Known, warm::Renew},
};

/// An opened IMAP mailbox.
pub struct ImapMailbox {
    pub(super) server: Arc<Server>,
    who: Arc<Credentials>,
    conn: Option<Conn>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) ground: Ground,
    reading: Reading,
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
    /// Why this mailbox cannot be trusted to be the one that was listed. Nothing is asked of it any more.
    changed: Option<String>,
}

/// The body that is being read.
enum Reading {
    Nothing,
    /// It is here and proved.
    Held {
        octets: Vec<u8>,
        given: bool,
    },
    /// It is on the line. `given` octets have been handed out and wait to be consumed.
    Stream {
        tag: Tag,
        uid: Uid,
        given: usize,
        /// As many octets were announced as the listing has.
        as_listed: bool,
        /// What is missing, that which is given included. `None` where a part of a message is read, which is not resumed.
        left: Option<Left>,
    },
}

/// What is missing of a whole message: its last `octets` octets, which begin at `from`.
#[derive(Clone, Copy)]
struct Left {
    from: u64,
    octets: u64,
}

/// How a question for a body was answered.
enum Asked {
    Body { octets: u64, extent: Extent },
    Gone,
}

impl ImapMailbox {
    pub(super) fn new(
        server: Arc<Server>,
        who: Arc<Credentials>,
        conn: Conn,
        snapshot: Arc<Snapshot>,
        ground: Ground,
        remembered: Option<Uid>,
        known: Option<Arc<Known>>,
    ) -> Self {
        Self {
            server,
            who,
            conn: Some(conn),
            snapshot,
            ground,
            reading: Reading::Nothing,
            reconnected: None,
            must_verify: false,
            remembered,
            proved: Vec::new(),
            known,
            has_removed: false,
            changed: None,
        }
    }

    /// A line that is free for a command: the old one, or a new one if it is lost and may be replaced.
    pub(super) async fn line(&mut self) -> Result<&mut Conn, Fault> {
        self.reading = Reading::Nothing;
        if self.changed.is_none() {
            let ready = match &mut self.conn {
                // It is given up below, whatever is still to come.
                Some(conn) if conn.view.changed.is_some() => true,
                Some(conn) => conn.is_ready().await,
                None => false,
            };
            if !ready {
                self.conn = None;
                self.reconnect().await?;
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

    /// A message has come whole: it is what it was when it was listed, if it has as many octets.
    fn came_whole(&mut self, uid: Uid, octets: u64) {
        if self.remembered.is_some_and(|last| uid <= last) && self.listed(uid) == Some(octets) {
            self.proved.push(uid);
        }
    }

    /// Whether the line is still the one on which the messages were listed.
    pub(super) const fn is_first_line(&self) -> bool {
        self.reconnected.is_none()
    }

    /// How many octets the listing has for a message.
    fn listed(&self, uid: Uid) -> Option<u64> {
        self.snapshot.find(uid).map(|message| message.octets)
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

    async fn reconnect(&mut self) -> Result<(), Fault> {
        if self.ground.uid_validity.is_none() {
            // Nothing says that the UIDs on a new line would be the same.
            self.distrust("the line is lost, and the UIDs do not outlive it".to_owned());
            return Ok(());
        }
        if !self.may_reconnect() {
            return Err(Fault::new(Verdict::Passing, "the line was lost again shortly after it was replaced"));
        }
        let server = Arc::clone(&self.server);
        let pass = server.pass().await?;
        self.reconnected = Some(Instant::now());
        let mut conn = login::login(&server, pass, &self.who).await.map_err(after_login)?;
        let trusted = self.server.trusted();
        match listing::reopen(&self.server, &mut conn, &self.ground).await {
            Ok(()) => {
                info!("the line was lost and has been replaced");
                self.must_verify = true;
                self.conn = Some(conn);
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
        match &trouble {
            Trouble::Malformed(_) | Trouble::Changed(_) => self.distrust(trouble.to_string()),
            trouble if trouble.is_lost_line() => self.hang_up(),
            _ => {}
        }
        trouble.into_fault(Phase::Use, self.server.trusted())
    }

    /// Asks for a body, or for a part of it. A line that breaks before there is anything to show is replaced, once.
    async fn ask(&mut self, piece: Piece) -> Result<Option<(u64, Extent)>, Fault> {
        let mut again = true;
        loop {
            self.line().await?;
            match self.ask_once(piece).await {
                Ok(Asked::Body { octets, extent }) => return Ok(Some((octets, extent))),
                Ok(Asked::Gone) => return Ok(None),
                Err(trouble) if again && trouble.is_lost_line() && self.may_reconnect() => {
                    debug!(%trouble, "a message is asked for again");
                    again = false;
                }
                Err(trouble) => return Err(self.fault(trouble)),
            }
        }
    }

    /// A piece that was fetched ahead, if it is as good as one that is asked for now.
    async fn stashed(&mut self, piece: Piece) -> Result<Option<(u64, Extent)>, Fault> {
        let Some(conn) = &mut self.conn else { return Ok(None) };
        let arrived = conn.stashed(piece).await;
        let Arrived { offset, octets } = match arrived {
            // If the mailbox has become another one, its UIDs mean other messages.
            Ok(Some(arrived)) if conn.view.changed.is_none() => arrived,
            Ok(_) => return Ok(None),
            Err(trouble) => {
                let fault = self.fault(trouble);
                // On a new line it can be asked for as if nothing had been fetched ahead.
                return if self.is_lost() { Ok(None) } else { Err(fault) };
            }
        };
        let extent = match extent(offset, piece.window.map(|window| window.offset)) {
            // What an empty answer means is found out by asking for this message alone.
            Ok(extent) if !octets.is_empty() => extent,
            _ => return Ok(None),
        };
        let length = octets.len() as u64;
        if extent == Extent::Whole {
            self.came_whole(piece.uid, length);
        }
        self.reading = Reading::Held { octets, given: false };
        Ok(Some((length, extent)))
    }

    /// Sends a command for the next pieces, as many as one asks for. `false`: there is nothing more to ask for.
    fn ask_group(&mut self, pieces: &mut Peekable<impl Iterator<Item = Piece>>, most: usize) -> bool {
        let Some(conn) = &mut self.conn else { return false };
        let (mut items, mut octets) = (Vec::new(), 0);
        let mut window = None;
        while items.len() < most && octets < GROUP {
            let Some(piece) = pieces.peek().copied() else { break };
            if conn.stash.knows(piece.uid) || items.iter().any(|item: &Item| item.is_of(piece.uid)) {
                pieces.next();
                continue;
            }
            if !items.is_empty() && piece.window != window {
                break;
            }
            let Some(listed) = self.snapshot.find(piece.uid).map(|message| message.octets) else { return false };
            // A large message goes alone, and what follows it is not ahead of it.
            if listed > SMALL && piece.window.is_none() {
                break;
            }
            let Some(item) = conn.stash.reserve(piece, listed, &self.server.budget) else { break };
            pieces.next();
            window = piece.window;
            octets += item.reserved();
            items.push(item);
        }
        !items.is_empty() && conn.ask_ahead(items).is_ok()
    }

    /// The line broke in the middle of a whole message: goes on behind the octets that have been handed out, if the message
    /// on the new line can only be the same one.
    async fn resume(&mut self, uid: Uid, left: Left, trouble: Trouble) -> Result<(), Trouble> {
        let listed = self.listed(uid);
        let length = u32::try_from(left.octets).unwrap_or_default();
        let end = left.from.saturating_add(left.octets);
        if length == 0 || u32::try_from(end).is_err() || listed.is_none() || !self.may_reconnect() {
            return Err(trouble);
        }
        debug!(%trouble, from = left.from, "a message is asked for from where it broke off");
        self.hang_up();
        if self.reconnect().await.is_err() {
            return Err(trouble);
        }
        let Some(conn) = &mut self.conn else { return Err(trouble) };
        let Left { from, octets } = left;
        // UIDVALIDITY and UID make it the same message (RFC 3501 §2.3.1.1); sizes that differ would show that they do not.
        let rows = listing::fetch(conn, &uid.to_string()).await?;
        if rows.iter().find(|row| row.uid == uid).map(|row| row.octets) != listed {
            return Err(trouble);
        }
        match conn.ask_body(Piece { uid, window: Some(Window { offset: from, length }) }).await? {
            Answer::Stream(tag, Opened { offset, octets: announced })
                if offset == Some(from) && announced == octets =>
            {
                let as_listed = Some(end) == listed;
                self.reading = Reading::Stream { tag, uid, given: 0, as_listed, left: Some(left) };
                Ok(())
            }
            _ => Err(trouble),
        }
    }

    /// How many more octets of the open body are here; 0 when it has ended and is proved.
    async fn next_octets(&mut self) -> Result<usize, Trouble> {
        match (&mut self.reading, &mut self.conn) {
            (Reading::Held { given, octets }, _) => Ok(if std::mem::replace(given, true) { 0 } else { octets.len() }),
            (Reading::Stream { tag, uid, given, as_listed, left }, Some(conn)) => {
                let used = std::mem::take(given);
                conn.consume(used);
                if let Some(left) = left {
                    left.from += used as u64;
                    left.octets -= used as u64;
                }
                *given = conn.more_body().await?;
                if *given > 0 {
                    return Ok(*given);
                }
                conn.end_body(tag, *uid, *as_listed).await?;
                if let (Some(left), uid) = (left, *uid) {
                    let octets = left.from;
                    self.came_whole(uid, octets);
                }
                Ok(0)
            }
            (Reading::Stream { .. }, None) | (Reading::Nothing, _) => Err(Trouble::Lost),
        }
    }

    /// They themselves.
    fn octets_given(&mut self, count: usize) -> Option<&[u8]> {
        match (&self.reading, &mut self.conn) {
            (Reading::Held { octets, .. }, _) => Some(octets),
            (Reading::Stream { .. }, Some(conn)) => Some(conn.body(count)),
            _ => None,
        }
    }

    async fn ask_once(&mut self, piece: Piece) -> Result<Asked, Trouble> {
        let Piece { uid, window } = piece;
        let from = window.map(|window| window.offset);
        let listed = self.listed(uid).unwrap_or_default();
        let expected = window.map_or(listed, |window| window.of(listed));
        let Some(conn) = &mut self.conn else { return Err(Trouble::Lost) };
        // Behind the end of a message there is nothing; some call that NIL, or do not say where it stands.
        let may_end = from.is_some_and(|from| from > 0);
        let (offset, octets) = match conn.ask_body(piece).await? {
            Answer::Stream(tag, Opened { offset, octets }) if octets > SMALL => {
                let extent = extent(offset, from)?;
                let left = (extent == Extent::Whole).then_some(Left { from: 0, octets });
                self.reading = Reading::Stream { tag, uid, given: 0, as_listed: octets == expected, left };
                return Ok(Asked::Body { octets, extent });
            }
            Answer::Stream(tag, Opened { offset, octets }) => {
                (offset, hold(conn, &tag, uid, octets == expected).await?)
            }
            Answer::Held(_, octets) if may_end && octets.is_empty() => (from, octets),
            Answer::Held(offset, octets) => (offset, octets),
            // Either may mean that the message was expunged: Dovecot says `BODY[] NIL`.
            Answer::Nil | Answer::Absent if listing::search(conn, &format!("UID {uid}")).await?.is_empty() => {
                return Ok(Asked::Gone);
            }
            Answer::Nil if may_end => (from, Vec::new()),
            Answer::Nil | Answer::Absent => return Err(Trouble::No(no_body())),
        };
        if octets.is_empty() && listed > 0 && !may_end {
            return Err(Trouble::No(no_body()));
        }
        let (length, extent) = (octets.len() as u64, extent(offset, from)?);
        if extent == Extent::Whole {
            self.came_whole(uid, length);
        }
        self.reading = Reading::Held { octets, given: false };
        Ok(Asked::Body { octets: length, extent })
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
        if !self.server.settings.read_ahead || self.changed.is_some() || !conn.is_usable() {
            return;
        }
        // What Gmail sends is counted against the user, so that nothing is fetched there which may not be wanted.
        let metered = conn.capabilities.gmail;
        let Some(first) = certain.next() else { return };
        let first_known = conn.stash.knows(first.uid);
        let mut pieces = certain.chain(likely.take_while(|_| !metered)).peekable();
        // One message alone is asked for when its turn comes, and is dealt with there whatever comes of it.
        if !first_known && (pieces.peek().is_none() || !self.ask_group(&mut once(first).peekable(), 1)) {
            return;
        }
        while self.conn.as_ref().is_some_and(|conn| conn.stash.is_roomy())
            && self.ask_group(&mut pieces, GROUP_MESSAGES)
        {}
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
                    self.resume(uid, left, trouble).await
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
            true => settle::mark_seen(self, uids).await,
            false => Ok(()),
        }
    }

    fn settle(&mut self, changes: &Changes) -> impl Future<Output = Settled> + Send {
        settle::settle(self, changes)
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
    fn is_in_step(&mut self) -> bool {
        let is_first = self.reconnected.is_none() && self.changed.is_none() && !self.must_verify;
        let is_idle = matches!(self.reading, Reading::Nothing);
        // That nothing can be removed may have had a reason that passes.
        let is_able = self.snapshot.deletion() == Deletion::Allowed;
        // Where UIDs do not last, a new session needs a new line.
        is_first
            && is_idle
            && is_able
            && self.ground.uid_validity.is_some()
            && self.conn.as_mut().is_some_and(Conn::is_in_step)
    }

    async fn renew(&mut self, who: &Arc<Credentials>) -> Result<Arc<Snapshot>, Fault> {
        let conn = self.conn.as_mut().ok_or_else(|| Trouble::Lost.into_fault(Phase::Use, false))?;
        let deletion = self.snapshot.deletion();
        let renewed = listing::renew(&self.server, conn, &self.ground, deletion, self.known.as_deref()).await;
        let Renewed { snapshot, ground, known, remembered } = renewed.map_err(|trouble| self.fault(trouble))?;
        self.who = Arc::clone(who);
        self.snapshot = snapshot;
        self.ground = ground;
        self.known = known.map(Arc::new);
        self.remembered = remembered;
        self.proved.clear();
        self.has_removed = false;
        Ok(Arc::clone(&self.snapshot))
    }
}

/// Receives a small body whole and waits for its proof, so that a failure is an answer and never a torn message.
async fn hold(conn: &mut Conn, tag: &Tag, uid: Uid, as_listed: bool) -> Result<Vec<u8>, Trouble> {
    let mut held = Vec::with_capacity(usize::try_from(conn.unread()).unwrap_or_default());
    loop {
        match conn.more_body().await? {
            0 => break,
            octets => {
                held.extend_from_slice(conn.body(octets));
                conn.consume(octets);
            }
        }
    }
    conn.end_body(tag, uid, as_listed).await?;
    Ok(held)
}

/// A part names its offset, which must be the one that was asked for; a body that names none is the whole message.
fn extent(offset: Option<u64>, from: Option<u64>) -> Result<Extent, Malformed> {
    match offset {
        None => Ok(Extent::Whole),
        Some(_) if offset == from => Ok(Extent::Part),
        Some(_) => Err(Malformed("another part of the message than was asked for")),
    }
}

/// The command succeeded, but there is no message in the answer, and none that is gone either.
fn no_body() -> super::fault::Outcome {
    super::fault::Outcome { text: "(OK, but the message was not in the answer)".to_owned(), ..Default::default() }
}

/// A log-in that worked before and does not now is no reason to call the credentials wrong.
fn after_login(fault: Fault) -> Fault {
    match fault.verdict {
        Verdict::Denied => Fault { verdict: Verdict::Passing, ..fault },
        _ => fault,
    }
}

/// Up to this size a message is received whole and proved before its first octet is shown.
pub(super) const SMALL: u64 = 64 * 1024;

/// A forsaken body with no more than this to come is read to its end.
const WORTH_DRAINING: u64 = 256 * 1024;

/// A line that is lost is replaced at most once in this time.
const RECONNECT: Duration = Duration::from_secs(60);
