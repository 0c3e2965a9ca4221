//! One session at a time for each user, where that is wanted (RFC 1939 §4). It is a courtesy to clients that expect it,
//! within this process; nothing relies on it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

/// Who has a session: users by upstream.
#[derive(Clone, Default)]
pub(super) struct Locks(Arc<Mutex<HashSet<(String, String)>>>);

/// A user's only session. Dropping it lets the next one in.
pub(super) struct Held {
    locks: Locks,
    user: (String, String),
}

impl Locks {
    /// Takes the lock, unless somebody has it.
    pub(super) fn hold(&self, upstream: &str, user: &str) -> Option<Held> {
        let user = (upstream.to_owned(), user.to_owned());
        let new = self.with(|users| users.insert(user.clone()));
        new.then(|| Held { locks: self.clone(), user })
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashSet<(String, String)>) -> T) -> T {
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
        let held = locks.hold("here", "tim");
        assert!(held.is_some() && locks.hold("here", "tim").is_none());
        assert!(locks.hold("here", "tom").is_some() && locks.hold("there", "tim").is_some());
        drop(held);
        assert!(locks.hold("here", "tim").is_some());
    }
}
