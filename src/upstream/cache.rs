//! Listings remembered from one session to the next, so that a poll without news lists nothing. A decorator: whoever is
//! logged in was let in by the upstream itself, and whether what is remembered still holds is for the upstream's own room
//! to prove. Losing any of it costs time only. Not here: lines that stay open, and how listings are kept on disk.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    mem::size_of,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use self::disk::Disk;
pub use self::disk::{Unusable, usable};
use super::{Fault, Mailbox, Upstream};
use crate::mail::{Credentials, Snapshot, Uid};

mod disk;
mod format;

/// How much is remembered, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// About so many octets of memory, and so many of disk where there is a path; 0: nothing is remembered.
    pub size: usize,
    /// A directory, where it shall outlive the process.
    pub path: Option<PathBuf>,
}

/// What a complete listing knew of a mailbox. It has at least one message, and UIDs that outlive a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// All messages, those that are not shown included.
    listing: Arc<Snapshot>,
    /// UIDNEXT, where the server tells it.
    uid_next: Option<u32>,
}

/// A server that can build a listing on an earlier one.
pub trait Relist: Upstream {
    /// As [`Upstream::open`], and with the same result: what is in the `slot` saves work and decides nothing. It is looked at
    /// when the user has been let in, and left with what the next listing may start from.
    fn relist(
        &self,
        who: &Arc<Credentials>,
        slot: Slot,
    ) -> impl Future<Output = Result<(Self::Mailbox, Arc<Snapshot>), Fault>> + Send;
}

/// Where it is remembered what is known of one mailbox.
pub struct Slot {
    listings: Arc<Listings>,
    key: Arc<Key>,
}

/// An upstream whose listings are remembered.
pub struct Cached<U> {
    upstream: U,
    /// Names server and mailbox: what is remembered of others is not for this one.
    place: Arc<str>,
    listings: Arc<Listings>,
}

/// The listings of all upstreams, within a limit; those that were not used for the longest time make room.
pub struct Listings {
    limit: usize,
    held: Mutex<Held>,
    disk: Option<Arc<Disk>>,
    in_memory: AtomicU64,
    on_disk: AtomicU64,
    unknown: AtomicU64,
}

/// How often it was asked what is known of a mailbox, and where that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// In memory.
    pub in_memory: u64,
    /// On disk.
    pub on_disk: u64,
    /// Nowhere.
    pub unknown: u64,
}

/// Server and mailbox, and the name that the user has there.
type Key = (Arc<str>, String);

#[derive(Default)]
struct Held {
    by_key: HashMap<Arc<Key>, Entry>,
    by_use: BTreeMap<u64, Arc<Key>>,
    uses: u64,
    octets: usize,
}

struct Entry {
    known: Arc<Known>,
    used: u64,
    octets: usize,
}

impl Known {
    /// What `listing` tells the next one; `None` if that is nothing.
    pub(super) fn new(listing: Arc<Snapshot>, uid_next: Option<u32>) -> Option<Self> {
        (listing.uid_validity().is_some() && !listing.is_empty()).then_some(Self { listing, uid_next })
    }

    /// All messages.
    pub(super) const fn listing(&self) -> &Arc<Snapshot> {
        &self.listing
    }

    /// UIDNEXT, where the server tells it.
    pub(super) const fn uid_next(&self) -> Option<u32> {
        self.uid_next
    }

    /// The last message.
    pub(super) fn last(&self) -> Option<Uid> {
        self.listing.uids().last().copied()
    }

    /// About as much memory as it needs.
    fn octets(&self) -> usize {
        self.listing.len() * (size_of::<Uid>() + size_of::<u32>()) + size_of::<Self>() + size_of::<Snapshot>()
    }
}

impl<U> Cached<U> {
    /// Remembers the listings of `upstream` in `listings`. `place` names the server and the mailbox that it opens.
    pub fn new(upstream: U, place: impl Into<Arc<str>>, listings: Arc<Listings>) -> Self {
        Self { upstream, place: place.into(), listings }
    }
}

impl<U: Relist> Upstream for Cached<U>
where
    U::Mailbox: Mailbox,
{
    type Mailbox = U::Mailbox;

    async fn open(&self, who: &Arc<Credentials>) -> Result<(U::Mailbox, Arc<Snapshot>), Fault> {
        let key = Arc::new((Arc::clone(&self.place), who.user.clone()));
        self.upstream.relist(who, Slot { listings: Arc::clone(&self.listings), key }).await
    }
}

impl Slot {
    /// What is known.
    pub(super) async fn recall(&self) -> Option<Arc<Known>> {
        self.listings.recall(&self.key).await
    }

    /// What is known now, and was `before`.
    pub(super) fn renew(&self, before: Option<&Arc<Known>>, known: Option<Arc<Known>>) {
        if let Some(disk) = self.listings.disk.as_ref().filter(|_| known.as_ref() != before) {
            disk.keep((*self.key).clone(), known.clone());
        }
        self.listings.remember(Arc::clone(&self.key), known);
    }

    /// What is known leads astray.
    pub(super) fn forget(&self) {
        if let Some(disk) = &self.listings.disk {
            disk.keep((*self.key).clone(), None);
        }
        self.listings.remember(Arc::clone(&self.key), None);
    }
}

impl Listings {
    /// Room for about so many octets of memory; without any room nothing is remembered.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self::of(limit, None))
    }

    /// What the settings ask for. If they have a path this must be called within a runtime.
    pub fn open(settings: &Settings) -> Arc<Self> {
        let path = settings.path.clone().filter(|_| settings.size > 0);
        Arc::new(Self::of(settings.size, path.map(|path| Disk::new(path, settings.size))))
    }

    fn of(limit: usize, disk: Option<Arc<Disk>>) -> Self {
        let [in_memory, on_disk, unknown] = [const { AtomicU64::new(0) }; 3];
        Self { limit, held: Mutex::default(), disk, in_memory, on_disk, unknown }
    }

    /// Waits until what is to be on disk is there.
    pub async fn written(&self) {
        if let Some(disk) = &self.disk {
            disk.written().await;
        }
    }

    /// How often something was known.
    pub fn counts(&self) -> Counts {
        let [in_memory, on_disk, unknown] =
            [&self.in_memory, &self.on_disk, &self.unknown].map(|count| count.load(Ordering::Relaxed));
        Counts { in_memory, on_disk, unknown }
    }

    async fn recall(&self, key: &Key) -> Option<Arc<Known>> {
        let (mut known, mut count) = (self.held().touch(key), &self.in_memory);
        if let (None, Some(disk)) = (&known, &self.disk) {
            (known, count) = (disk.recall(key).await, &self.on_disk);
        }
        let count = if known.is_some() { count } else { &self.unknown };
        count.fetch_add(1, Ordering::Relaxed);
        known
    }

    fn remember(&self, key: Arc<Key>, known: Option<Arc<Known>>) {
        let mut held = self.held();
        held.forget(&key);
        let Some(known) = known else { return };
        let octets = known.octets() + size_of::<Key>() + size_of::<Entry>() + key.1.len();
        if octets > self.limit {
            return;
        }
        while held.octets > self.limit - octets {
            let Some(oldest) = held.by_use.values().next().cloned() else { break };
            held.forget(&oldest);
        }
        held.uses += 1;
        held.octets += octets;
        let used = held.uses;
        held.by_use.insert(used, Arc::clone(&key));
        held.by_key.insert(key, Entry { known, used, octets });
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// What is known; it is the last now that will have to make room.
    fn touch(&mut self, key: &Key) -> Option<Arc<Known>> {
        let entry = self.by_key.get_mut(key)?;
        self.uses += 1;
        let key = self.by_use.remove(&entry.used)?;
        entry.used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(Arc::clone(&entry.known))
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.by_key.remove(key) {
            self.by_use.remove(&entry.used);
            self.octets -= entry.octets;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Deletion, Message, UidValidity};

    fn known(messages: u32) -> Option<Arc<Known>> {
        let messages = (1..=messages).filter_map(Uid::new).map(|uid| Message { uid, octets: 100 });
        let listing = Snapshot::new(UidValidity::new(1), Deletion::Allowed, messages);
        Known::new(Arc::new(listing), None).map(Arc::new)
    }

    fn key(place: &str, user: &str) -> Arc<Key> {
        Arc::new((place.into(), user.to_owned()))
    }

    #[tokio::test]
    async fn what_was_not_used_for_the_longest_time_makes_room() {
        let listings = Listings::new(10_000);
        for user in ["a", "b", "c"] {
            listings.remember(key("here", user), known(300));
        }
        assert!(listings.recall(&key("here", "a")).await.is_some());
        listings.remember(key("here", "d"), known(300));
        for (user, kept) in [("a", true), ("b", false), ("c", true), ("d", true)] {
            assert_eq!(listings.recall(&key("here", user)).await.is_some(), kept, "{user}");
        }
        listings.remember(key("here", "e"), known(100_000));
        assert!(listings.recall(&key("here", "e")).await.is_none(), "it is larger than all the room");
        listings.remember(key("here", "a"), None);
        assert!(listings.recall(&key("here", "a")).await.is_none(), "what is not known any more is forgotten");
        assert_eq!(listings.counts(), Counts { in_memory: 4, on_disk: 0, unknown: 3 });
        let held = listings.held();
        assert!(held.octets < 10_000 && held.by_key.len() == held.by_use.len());
        assert_eq!(held.octets, held.by_key.values().map(|entry| entry.octets).sum::<usize>());
    }

    #[tokio::test]
    async fn nothing_is_known_of_another_user_or_place() {
        let listings = Listings::new(1 << 20);
        listings.remember(key("here", "tim"), known(3));
        for (place, user) in [("there", "tim"), ("here", "Tim"), ("here", "tim ")] {
            assert!(listings.recall(&key(place, user)).await.is_none());
        }
    }

    #[test]
    fn nothing_is_known_of_a_mailbox_whose_uids_do_not_last() {
        let one = [Message { uid: Uid::new(5).unwrap(), octets: 1 }];
        for (validity, messages) in [(None, &one[..]), (UidValidity::new(1), &[])] {
            let listing = Snapshot::new(validity, Deletion::Allowed, messages.iter().copied());
            assert_eq!(Known::new(Arc::new(listing), Some(9)), None);
        }
    }
}
