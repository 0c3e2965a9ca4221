//! A few at a time for each of many: who comes when all turns are taken waits for one, in the order of coming.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Whose turns are taken.
pub(super) struct Turns<K> {
    most: usize,
    taken: Mutex<Taken<K>>,
}

struct Taken<K> {
    turns: HashMap<K, Weak<Semaphore>>,
    /// How many there may be before those that nobody uses are swept out.
    sweep_at: usize,
}

/// One turn, until it is dropped.
pub(in crate::gateway) type Turn = OwnedSemaphorePermit;

impl<K: Hash + Eq> Turns<K> {
    /// `most` turns at a time for each.
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::new(Taken { turns: HashMap::new(), sweep_at: FEW }) }
    }

    /// Waits for a turn, but not for ever.
    pub(super) async fn take(&self, whose: K) -> Option<Turn> {
        let turns = self.of(whose);
        timeout(PATIENCE, turns.acquire_owned()).await.ok()?.ok()
    }

    fn of(&self, whose: K) -> Arc<Semaphore> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = taken.turns.get(&whose).and_then(Weak::upgrade) {
            return turns;
        }
        if taken.turns.len() >= taken.sweep_at {
            taken.turns.retain(|_, turns| turns.strong_count() > 0);
            taken.sweep_at = FEW.max(2 * taken.turns.len());
        }
        let turns = Arc::new(Semaphore::new(self.most));
        taken.turns.insert(whose, Arc::downgrade(&turns));
        turns
    }
}

/// Clients give up after half a minute, and the answer to wrong credentials may take the rest of it.
const PATIENCE: Duration = Duration::from_secs(10);

const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_at_a_time_for_each() {
        let turns = Turns::new(2);
        let (one, _two) = (turns.take("tim").await.unwrap(), turns.take("tim").await.unwrap());
        assert!(turns.take("tom").await.is_some());
        let began = Instant::now();
        assert!(turns.take("tim").await.is_none());
        assert_eq!(began.elapsed(), PATIENCE);
        let (next, ()) = tokio::join!(turns.take("tim"), async { drop(one) });
        assert!(next.is_some());
        assert_eq!(began.elapsed(), PATIENCE);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_those_who_have_gone() {
        let turns = Turns::new(2);
        let held = turns.take(0).await.unwrap();
        for whose in 1..10_000 {
            drop(turns.take(whose).await.unwrap());
            assert!(turns.taken.lock().unwrap().turns.len() <= FEW);
        }
        let _second = turns.take(0).await.unwrap();
        assert_eq!(held.semaphore().available_permits(), 0, "the same turns, whatever was swept out");
    }
}
