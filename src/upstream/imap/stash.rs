//! Messages that are fetched before they are asked for: what is on its way, what has come, and what has been proved to
//! have come whole. Memory is reserved before anything is asked for; commands and octets on the line are the `conn`'s.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use memchr::memmem;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::conn::Tag;
use crate::{
    mail::Uid,
    upstream::{Piece, Window},
};

/// How many octets all sessions together may keep of what nobody has asked for yet. There is no queue for it: who gets
/// none does without.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<Semaphore>,
    /// So many units are not for guesses.
    spared: usize,
}

/// Why something is fetched ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// The client has asked for it already.
    Asked,
    /// It will probably ask for it.
    Guessed,
}

impl Budget {
    /// A budget of so many octets.
    pub fn new(octets: usize) -> Self {
        let units = (octets / UNIT).min(Semaphore::MAX_PERMITS);
        Self { left: Arc::new(Semaphore::new(units)), spared: units / 4 }
    }

    fn reserve(&self, octets: u64, claim: Claim) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(octets.div_ceil(UNIT as u64)).ok()?;
        let is_spared = claim == Claim::Guessed && self.left.available_permits() < self.spared + units as usize;
        self.left.clone().try_acquire_many_owned(units).ok().filter(|_| !is_spared)
    }
}

/// What one session has fetched ahead.
#[derive(Default)]
pub(super) struct Stash {
    /// Commands that have not been answered, oldest first.
    open: VecDeque<Group>,
    /// What came of commands that were answered with OK.
    proved: HashMap<Uid, Item>,
    /// What is reserved for both.
    reserved: u64,
    /// Something came that could not be kept, and had to be asked for again alone: there would be more of it.
    given_up: bool,
}

/// One command for several messages.
struct Group {
    tag: Tag,
    items: Vec<Item>,
}

/// A message, or a part of one, with the memory reserved for it.
pub(super) struct Item {
    piece: Piece,
    reserved: u64,
    /// Its body has come, to be kept or not.
    came: bool,
    arrived: Option<Arrived>,
    _permit: OwnedSemaphorePermit,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    /// Where in the message it begins, if the server says that it is a part.
    pub(super) offset: Option<u64>,
    pub(super) octets: Vec<u8>,
}

impl Stash {
    /// Reserves memory for a piece of `listed` octets, if there is any left for it.
    pub(super) fn reserve(&mut self, piece: Piece, listed: u64, claim: Claim, budget: &Budget) -> Option<Item> {
        let octets = piece.window.map_or(listed, |window| window.of(listed));
        // Some servers are a little out in what they list.
        let reserved = octets + SLACK;
        if self.given_up || self.reserved + reserved > SESSION {
            return None;
        }
        let permit = budget.reserve(reserved, claim)?;
        self.reserved += reserved;
        Some(Item { piece, reserved, came: false, arrived: None, _permit: permit })
    }

    /// Whether one more command may be sent, for so many octets.
    pub(super) fn is_roomy(&self, octets: u64) -> bool {
        self.open.len() < COMMANDS && self.reserved + octets <= SESSION
    }

    /// A command for these has been sent.
    pub(super) fn asked(&mut self, tag: Tag, items: Vec<Item>) {
        self.open.push_back(Group { tag, items });
    }

    /// Memory is given back for what was not asked for after all.
    pub(super) fn release(&mut self, items: Vec<Item>) {
        self.reserved -= items.iter().map(|item| item.reserved).sum::<u64>();
    }

    /// Whether any command is open.
    pub(super) fn is_expecting(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether nothing is here and nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.proved.is_empty()
    }

    /// Whether the message, or a part of it, is here or on its way.
    pub(super) fn knows(&self, uid: Uid) -> bool {
        self.proved.contains_key(&uid) || self.coming(uid).is_some()
    }

    /// Whether the piece is on its way.
    pub(super) fn expects(&self, piece: Piece) -> bool {
        self.coming(piece.uid).is_some_and(|item| item.holds(piece))
    }

    /// Whether the piece is here and proved.
    pub(super) fn has(&self, piece: Piece) -> bool {
        self.proved.get(&piece.uid).is_some_and(|item| item.holds(piece))
    }

    /// A body came; `None` if it is of no use. It is kept if it was asked for, is no larger than the memory that was reserved
    /// for it, and can be nothing but one message. `false`: one had come before.
    #[must_use]
    pub(super) fn arrived(&mut self, uid: Uid, arrived: Option<Arrived>) -> bool {
        let mut items = self.open.iter_mut().flat_map(|group| &mut group.items);
        let Some(item) = items.find(|item| item.piece.uid == uid) else { return true };
        if std::mem::replace(&mut item.came, true) {
            return false;
        }
        item.arrived = arrived.filter(|arrived| arrived.octets.len() as u64 <= item.reserved);
        self.given_up |= item.arrived.is_none();
        // Asked for alone, a message has no other behind it that could be within it.
        item.arrived.take_if(|arrived| holds_a_response(&arrived.octets));
        true
    }

    /// A command has been answered: what came of it is proved, or nothing. `false`: it is none of these.
    pub(super) fn answered(&mut self, tag: &Tag, ok: bool) -> bool {
        let Some(at) = self.open.iter().position(|group| group.tag == *tag) else { return false };
        for item in self.open.remove(at).into_iter().flat_map(|group| group.items) {
            if ok && item.arrived.is_some() {
                self.proved.insert(item.piece.uid, item);
            } else {
                self.reserved -= item.reserved;
            }
        }
        true
    }

    /// Takes a piece out, if it is here and proved. The whole message is as good as a part of it.
    pub(super) fn take(&mut self, piece: Piece) -> Option<Arrived> {
        if !self.has(piece) {
            return None;
        }
        let item = self.proved.remove(&piece.uid)?;
        self.reserved -= item.reserved;
        item.arrived
    }

    /// Gives up what is here. What is on its way is still to come.
    pub(super) fn discard(&mut self) {
        for (_, item) in self.proved.drain() {
            self.reserved -= item.reserved;
        }
        self.proved.shrink_to_fit();
    }

    fn coming(&self, uid: Uid) -> Option<&Item> {
        self.open.iter().flat_map(|group| &group.items).find(|item| item.piece.uid == uid)
    }
}

impl Item {
    /// What is asked for.
    pub(super) const fn piece(&self) -> Piece {
        self.piece
    }

    /// Whether it is this message, or a part of it.
    pub(super) fn is_of(&self, uid: Uid) -> bool {
        self.piece.uid == uid
    }

    /// How much memory is reserved, in octets.
    pub(super) const fn reserved(&self) -> u64 {
        self.reserved
    }

    fn holds(&self, piece: Piece) -> bool {
        self.piece.uid == piece.uid && (self.piece.window.is_none() || self.piece.window == piece.window)
    }
}

/// Whether this reads like a body, the end of its response and another response to a FETCH. A literal that is announced as too
/// long can reach to the end of the next one, and then there is nothing amiss behind it.
fn holds_a_response(octets: &[u8]) -> bool {
    memmem::find_iter(octets, END).any(|end| {
        let behind = &octets[end + END.len()..];
        let digits = behind.iter().take_while(|octet| octet.is_ascii_digit()).count();
        digits > 0 && behind[digits..].get(..FETCH.len()).is_some_and(|word| word.eq_ignore_ascii_case(FETCH))
    })
}

/// The command for pieces that differ in their UIDs alone.
pub(super) fn command(pieces: &[Piece]) -> String {
    let uids: Vec<_> = pieces.iter().map(|piece| piece.uid.to_string()).collect();
    let part = match pieces.first().and_then(|piece| piece.window) {
        Some(Window { offset, length }) => format!("<{offset}.{length}>"),
        None => String::new(),
    };
    format!("UID FETCH {} (BODY.PEEK[]{part})", uids.join(","))
}

/// What ends a response and begins the next, up to the number of its message.
const END: &[u8] = b")\r\n* ";

/// What follows that number.
const FETCH: &[u8] = b" FETCH (";

/// The budget is counted in these.
const UNIT: usize = 1024;

/// What a session may keep, in octets. Clients have 64 commands on the way, mpop 100; of ordinary mail that much comes in one
/// round trip.
const SESSION: u64 = 1536 * 1024;

/// A command asks for no more than this, or for one message, so that its proof does not keep the first message waiting for long.
pub(super) const GROUP: u64 = 128 * 1024;

/// Likewise, in messages.
pub(super) const GROUP_MESSAGES: usize = 32;

/// So many commands may be open.
const COMMANDS: usize = 12;

pub(super) const SLACK: u64 = 256;

/// Messages that are listed as larger are not fetched ahead. Of 160 KB, over 50 ms, five times as many come for it; of
/// 640 KB no more, since only one fits in beside the next (`benches/README.md`).
pub(super) const LARGEST: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use async_imap::imap_proto::RequestId;

    use super::*;

    const WINDOW: Window = Window { offset: 0, length: 100 };

    fn piece(uid: u32, window: Option<Window>) -> Piece {
        Piece { uid: Uid::new(uid).unwrap(), window }
    }

    fn arrived(octets: &[u8]) -> Arrived {
        Arrived { offset: None, octets: octets.to_vec() }
    }

    fn asking(stash: &mut Stash, tag: &str, pieces: &[Piece], budget: &Budget) {
        let items = pieces.iter().map(|piece| stash.reserve(*piece, 5_000, Claim::Guessed, budget).unwrap()).collect();
        stash.asked(RequestId(tag.to_owned()), items);
    }

    #[test]
    fn only_what_was_asked_for_and_confirmed_is_handed_out() {
        let budget = Budget::new(1 << 20);
        let mut stash = Stash::default();
        asking(&mut stash, "A", &[piece(5, None), piece(7, None)], &budget);
        asking(&mut stash, "B", &[piece(9, Some(WINDOW))], &budget);
        for uid in [5, 6, 9] {
            assert!(stash.arrived(Uid::new(uid).unwrap(), Some(arrived(b"x"))));
        }
        assert!(stash.arrived(Uid::new(7).unwrap(), Some(arrived(&[b'x'; 6_000]))));
        for uid in [5, 7] {
            assert!(!stash.arrived(Uid::new(uid).unwrap(), Some(arrived(b"y"))), "it has come already");
        }
        assert_eq!(stash.take(piece(5, None)), None, "not proved yet");
        assert!(
            stash.expects(piece(5, None)) && stash.expects(piece(5, Some(WINDOW))) && !stash.expects(piece(9, None))
        );
        assert!(stash.answered(&RequestId("A".to_owned()), true));
        assert!(!stash.answered(&RequestId("A".to_owned()), true));
        assert_eq!(stash.take(piece(5, Some(WINDOW))), Some(arrived(b"x")));
        assert_eq!(stash.take(piece(5, None)), None, "taken");
        assert!(!stash.knows(Uid::new(6).unwrap()), "nobody asked for it");
        assert!(!stash.knows(Uid::new(7).unwrap()), "larger than its reservation");
        assert!(stash.answered(&RequestId("B".to_owned()), false));
        assert_eq!(stash.take(piece(9, Some(WINDOW))), None, "refused");
        assert!(stash.is_empty());
        assert_eq!((stash.reserved, budget.left.available_permits()), (0, 1024));
    }

    #[test]
    fn a_body_with_another_response_in_it_is_asked_for_alone() {
        for (octets, is_kept) in [
            ("a)\r\n* 7 FETCH (UID 9 BODY[] {1}\r\nb", false),
            ("a UID 7)\r\n* 12 EXISTS)\r\n* 12 Fetch (", false),
            ("a)\r\n* 7 FETCH", true),
            ("a)\r\n* FETCH (UID 9", true),
            ("a (b)\r\n* c\r\n", true),
            ("* 7 FETCH (UID 9 BODY[] {1}\r\nb", true),
        ] {
            let (budget, mut stash, uid) = (Budget::new(1 << 20), Stash::default(), Uid::new(7).unwrap());
            asking(&mut stash, "A", &[piece(7, None)], &budget);
            assert!(stash.arrived(uid, Some(arrived(octets.as_bytes()))));
            assert!(stash.answered(&RequestId("A".to_owned()), true));
            assert_eq!(stash.take(piece(7, None)).is_some(), is_kept, "{octets:?}");
            assert!(stash.reserve(piece(9, None), 100, Claim::Asked, &budget).is_some(), "others are fetched ahead");
            assert_eq!(stash.reserved, 100 + SLACK);
        }
    }

    #[test]
    fn memory_is_reserved_for_the_session_and_for_all() {
        let budget = Budget::new(1 << 20);
        let (mut one, mut two) = (Stash::default(), Stash::default());
        let fill = |stash: &mut Stash| {
            let reserve = |uid| stash.reserve(piece(uid, None), 60_000, Claim::Asked, &budget);
            let items: Vec<_> = (1..).map_while(reserve).collect();
            stash.asked(RequestId("A".to_owned()), items);
        };
        fill(&mut one);
        fill(&mut two);
        assert_eq!((one.open[0].items.len(), two.open[0].items.len()), (17, 0), "all there is");
        one.answered(&RequestId("A".to_owned()), true);
        fill(&mut two);
        assert_eq!((one.reserved, two.open[1].items.len()), (0, 17));
        drop(two);
        assert_eq!(budget.left.available_permits(), 1024);
        // However much there is for all, a session has its bound.
        let plenty = Budget::new(64 << 20);
        let mut greedy = Stash::default();
        let items: Vec<_> =
            (1..).map_while(|uid| greedy.reserve(piece(uid, None), 60_000, Claim::Asked, &plenty)).collect();
        assert_eq!((items.len() as u64, greedy.reserved <= SESSION), (SESSION / (60_000 + SLACK), true));
        // Guesses leave a quarter to those who have asked.
        let mut three = Stash::default();
        let guesses: Vec<_> =
            (1..).map_while(|uid| three.reserve(piece(uid, None), 60_000, Claim::Guessed, &budget)).collect();
        assert_eq!((guesses.len(), budget.left.available_permits()), (13, 1024 - 13 * 59));
        assert!(three.reserve(piece(99, None), 60_000, Claim::Asked, &budget).is_some());
    }

    #[test]
    fn a_command_names_its_messages_and_their_part() {
        let pieces = |window| [5, 7].map(|uid| piece(uid, window));
        assert_eq!(command(&pieces(None)), "UID FETCH 5,7 (BODY.PEEK[])");
        assert_eq!(command(&pieces(Some(WINDOW))), "UID FETCH 5,7 (BODY.PEEK[]<0.100>)");
    }
}
