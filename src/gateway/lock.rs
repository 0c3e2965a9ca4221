//! One session at a time for each user, where that is wanted (RFC 1939 §4). It is a courtesy to clients that expect it,
//! within this process; nothing relies on it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

/// Who has a session.
#[derive(Clone, Default)]
pub(super) struct Locks(Arc<Mutex<HashSet<String>>>);

/// A user's only session. Dropping it lets the next one in.
pub(super) struct Held {
    locks: Locks,
    user: String,
}

impl Locks {
    /// Takes the lock, unless somebody has it.
    pub(super) fn hold(&self, user: &str) -> Option<Held> {
        let new = self.with(|users| users.insert(user.to_owned()));
        new.then(|| Held { locks: self.clone(), user: user.to_owned() })
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashSet<String>) -> T) -> T {
        // A set is never half changed, so that a panic elsewhere is no reason to lock everybody out.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.locks.with(|users| users.remove(&self.user));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let locks = Locks::default();
        let held = locks.hold("tim");
        assert!(held.is_some() && locks.hold("tim").is_none() && locks.hold("tom").is_some());
        drop(held);
        assert!(locks.hold("tim").is_some());
    }
}
