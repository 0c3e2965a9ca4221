//! The bodies of a maildrop's messages: asked for or fetched ahead, received whole or as a stream, gone on with on a new
//! line. Nothing counts as all of a message before the server has confirmed it.

use std::{iter::Peekable, ops::Range, time::Duration};

use tokio::time::sleep;
use tracing::debug;

use super::{
    ask,
    conn::{Answer, Conn, Tag},
    fault::{Outcome, Trouble},
    mailbox::ImapMailbox,
    stash::{self, Arrived, Claim, GROUP, GROUP_MESSAGES, Item},
    tap::{Malformed, Opened},
};
use crate::{
    mail::Uid,
    upstream::{Extent, Fault, Piece, Window},
};

/// The body that is being read.
pub(super) enum Reading {
    Nothing,
    /// It is here and proved.
    Held {
        octets: Vec<u8>,
        /// What of it was handed out last.
        given: Range<usize>,
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
pub(super) struct Left {
    from: u64,
    octets: u64,
    /// The last octets before that, as they came.
    tail: Vec<u8>,
    /// Where it broke off the last time.
    broke: Option<u64>,
}

impl Left {
    const fn all_of(octets: u64) -> Self {
        Self { from: 0, octets, tail: Vec::new(), broke: None }
    }

    /// These came, and were handed out.
    fn came(&mut self, octets: &[u8]) {
        self.from += octets.len() as u64;
        self.octets -= octets.len() as u64;
        let last = &octets[octets.len().saturating_sub(OVERLAP)..];
        let excess = (self.tail.len() + last.len()).saturating_sub(OVERLAP);
        self.tail.drain(..excess);
        self.tail.extend_from_slice(last);
    }
}

/// How a question for a body was answered.
enum Asked {
    Body { octets: u64, extent: Extent },
    Gone,
}

impl ImapMailbox {
    /// A message has come whole: it is what it was when it was listed, if it has as many octets.
    fn came_whole(&mut self, uid: Uid, octets: u64) {
        if self.remembered.is_some_and(|last| uid <= last) && self.listed(uid) == Some(octets) {
            self.proved.push(uid);
        }
    }

    /// How many octets the listing has for a message.
    fn listed(&self, uid: Uid) -> Option<u64> {
        self.snapshot.find(uid).map(|message| message.octets)
    }

    /// Asks for a body, or for a part of it. A line that breaks before there is anything to show is replaced, once.
    pub(super) async fn ask(&mut self, piece: Piece) -> Result<Option<(u64, Extent)>, Fault> {
        let mut again = true;
        loop {
            self.line().await?;
            match self.ask_once(piece).await {
                Ok(Asked::Body { octets, extent }) => return Ok(Some((octets, extent))),
                Ok(Asked::Gone) => return Ok(None),
                // The client has waited long enough for one that is slow.
                Err(trouble @ Trouble::Slow) => return Err(self.fault(trouble)),
                Err(trouble) => {
                    let pause = match trouble.is_lost_line() {
                        true => self.may_reconnect().then_some(Duration::ZERO),
                        false => trouble.pause(),
                    };
                    let Some(pause) = pause.filter(|_| again) else { return Err(self.fault(trouble)) };
                    debug!(%trouble, ?pause, "a message is asked for again");
                    again = false;
                    sleep(pause).await;
                }
            }
        }
    }

    /// A piece that was fetched ahead, if it is as good as one that is asked for now.
    pub(super) async fn stashed(&mut self, piece: Piece) -> Result<Option<(u64, Extent)>, Fault> {
        let is_replaceable = self.may_reconnect();
        let Some(conn) = &mut self.conn else { return Ok(None) };
        let arrived = conn.stashed(piece, is_replaceable).await;
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
        self.reading = Reading::Held { octets, given: 0..0 };
        Ok(Some((length, extent)))
    }

    /// Sends commands for pieces as long as there is room, for so many octets before the first.
    pub(super) fn ask_groups(&mut self, pieces: &mut Peekable<impl Iterator<Item = (Piece, Claim)>>, mut octets: u64) {
        while self.conn.as_ref().is_some_and(|conn| conn.stash.is_roomy(octets))
            && self.ask_group(pieces, GROUP_MESSAGES)
        {
            octets = 0;
        }
    }

    /// Sends a command for the next pieces, as many as one asks for. `false`: nothing is asked for, because nothing is left
    /// that may be, or there is no room.
    pub(super) fn ask_group(
        &mut self,
        pieces: &mut Peekable<impl Iterator<Item = (Piece, Claim)>>,
        most: usize,
    ) -> bool {
        let Some(conn) = &mut self.conn else { return false };
        let (mut items, mut octets) = (Vec::new(), 0);
        let mut window = None;
        while items.len() < most && octets < GROUP {
            let Some((piece, claim)) = pieces.peek().copied() else { break };
            if conn.stash.knows(piece.uid) || items.iter().any(|item: &Item| item.is_of(piece.uid)) {
                pieces.next();
                continue;
            }
            let Some(listed) = self.snapshot.find(piece.uid).map(|message| message.octets) else { break };
            let more = piece.window.map_or(listed, |window| window.of(listed));
            // A large message goes alone, and what follows it is not ahead of it.
            let is_large = listed > stash::LARGEST && piece.window.is_none();
            let joins = items.is_empty() || piece.window == window && octets + more <= GROUP;
            if is_large || !joins {
                break;
            }
            let Some(item) = conn.stash.reserve(piece, listed, claim, &self.server.budget) else { break };
            pieces.next();
            window = piece.window;
            octets += item.reserved();
            items.push(item);
        }
        !items.is_empty() && conn.ask_ahead(items).is_ok()
    }

    /// The line broke in the middle of a whole message: goes on behind the octets that have been handed out, if the message
    /// on the new line can only be the same one.
    pub(super) async fn resume(&mut self, uid: Uid, left: Left, trouble: Trouble) -> Result<(), Trouble> {
        let listed = self.listed(uid);
        // A server that breaks off may say why, and nothing tells its words from mail but the mail that stands there.
        let offset = left.from - left.tail.len() as u64;
        let end = left.from.saturating_add(left.octets);
        let length = u32::try_from(end - offset).unwrap_or_default();
        // A message that breaks off at the same octet again does so for a reason that a third line would not mend.
        let is_stuck = left.broke == Some(left.from) || left.octets == 0;
        if is_stuck || u32::try_from(end).is_err() || listed.is_none() || !self.may_reconnect() {
            return Err(trouble);
        }
        debug!(%trouble, from = left.from, "a message is asked for from where it broke off");
        self.hang_up();
        if Box::pin(self.reconnect()).await.is_err() {
            return Err(trouble);
        }
        let Some(conn) = &mut self.conn else { return Err(trouble) };
        // UIDVALIDITY and UID make it the same message (RFC 3501 §2.3.1.1); sizes that differ would show that they do not.
        let rows = ask::fetch(conn, &uid.to_string()).await?;
        if rows.iter().find(|row| row.uid == uid).map(|row| row.octets) != listed {
            return Err(trouble);
        }
        match conn.ask_body(Piece { uid, window: Some(Window { offset, length }) }).await? {
            Answer::Stream(tag, opened)
                if opened == (Opened { offset: Some(offset), octets: length.into() })
                    && begins_with(conn, &left.tail).await? =>
            {
                let as_listed = Some(end) == listed;
                self.reading = Reading::Stream {
                    tag,
                    uid,
                    given: 0,
                    as_listed,
                    left: Some(Left { broke: Some(left.from), ..left }),
                };
                Ok(())
            }
            _ => Err(trouble),
        }
    }

    /// How many more octets of the open body are here; 0 when it has ended and is proved.
    pub(super) async fn next_octets(&mut self) -> Result<usize, Trouble> {
        match (&mut self.reading, &mut self.conn) {
            (Reading::Held { octets, given }, _) => {
                *given = given.end..octets.len().min(given.end + PIECE);
                Ok(given.len())
            }
            (Reading::Stream { tag, uid, given, as_listed, left }, Some(conn)) => {
                let used = std::mem::take(given);
                if let Some(left) = left {
                    left.came(conn.body(used));
                }
                conn.consume(used);
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
    pub(super) fn octets_given(&mut self, count: usize) -> Option<&[u8]> {
        match (&self.reading, &mut self.conn) {
            (Reading::Held { octets, given }, _) => octets.get(given.clone()),
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
                let left = (extent == Extent::Whole).then(|| Left::all_of(octets));
                self.reading = Reading::Stream { tag, uid, given: 0, as_listed: octets == expected, left };
                return Ok(Asked::Body { octets, extent });
            }
            Answer::Stream(tag, Opened { offset, octets }) => {
                (offset, hold(conn, &tag, uid, octets == expected).await?)
            }
            Answer::Held(_, octets) if may_end && octets.is_empty() => (from, octets),
            Answer::Held(offset, octets) => (offset, octets),
            answer @ (Answer::Nil | Answer::Absent) => {
                // Either may mean that the message was expunged: Dovecot says `BODY[] NIL`.
                if ask::search(conn, &format!("UID {uid}")).await?.is_empty() {
                    return Ok(Asked::Gone);
                }
                match answer {
                    Answer::Nil if may_end => (from, Vec::new()),
                    _ => return Err(Trouble::No(no_body())),
                }
            }
        };
        if octets.is_empty() && listed > 0 && !may_end {
            return Err(Trouble::No(no_body()));
        }
        let (length, extent) = (octets.len() as u64, extent(offset, from)?);
        if extent == Extent::Whole {
            self.came_whole(uid, length);
        }
        self.reading = Reading::Held { octets, given: 0..0 };
        Ok(Asked::Body { octets: length, extent })
    }
}

/// Receives a small body whole and waits for its proof, so that a failure is an answer and never a torn message.
async fn hold(conn: &mut Conn, tag: &Tag, uid: Uid, as_listed: bool) -> Result<Vec<u8>, Trouble> {
    let mut held = Vec::with_capacity(usize::try_from(conn.unread()).unwrap_or_default());
    conn.hurry(HELD);
    loop {
        match conn.more_body().await? {
            0 => break,
            octets => {
                held.extend_from_slice(conn.body(octets));
                conn.consume(octets);
            }
        }
    }
    conn.unhurry();
    conn.end_body(tag, uid, as_listed).await?;
    Ok(held)
}

/// Whether the body that has just opened begins with these octets. They are passed over.
async fn begins_with(conn: &mut Conn, mut expected: &[u8]) -> Result<bool, Trouble> {
    while !expected.is_empty() {
        let here = conn.more_body().await?.min(expected.len());
        let (now, later) = expected.split_at(here);
        if here == 0 || conn.body(here) != now {
            return Ok(false);
        }
        conn.consume(here);
        expected = later;
    }
    Ok(true)
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
fn no_body() -> Outcome {
    Outcome { text: "(OK, but the message was not in the answer)".to_owned(), ..Default::default() }
}

/// What is held goes out in pieces, so that a client that does not read makes us hold it once and not twice.
const PIECE: usize = 64 * 1024;

/// So much of a message is asked for again when it is gone on with. A server's last words are shorter, and are the last.
const OVERLAP: usize = 1024;

/// So long may it take until all of it is here: a server that shows by an octet now and then that it is alive is not waited
/// for like one that sends.
const HELD: Duration = Duration::from_secs(300);

/// Up to this size a message is received whole and proved before its first octet is shown.
const SMALL: u64 = 64 * 1024;
