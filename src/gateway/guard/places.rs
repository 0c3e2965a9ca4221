//! How many sessions a user has at a time, where that is limited: to one (RFC 1939 §4), or to a few. It is a courtesy to
//! clients and servers, within this process; nothing relies on it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use super::fingerprint::{Fingerprint, Key};
use crate::mail::Credentials;

/// Who has sessions: users by where they have them. Servers may take large letters for small ones, and then it is one user.
#[derive(Clone)]
pub(in crate::gateway) struct Places(Arc<Taken>);

struct Taken {
    key: Key,
    /// For each session, what its user was let in with.
    by_user: Mutex<HashMap<User, Vec<Fingerprint>>>,
}

type User = (String, String);

/// A user's right to a session. Dropping it lets the next one in.
pub(in crate::gateway) struct Place {
    places: Places,
    user: User,
    proof: Fingerprint,
}

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Taken { key: Key::new(), by_user: Mutex::default() }))
    }
}

impl Places {
    /// Whether the user has `most` sessions, and has been let into one of them with these very credentials, so that the
    /// server need not be asked whether they are right. Whoever has other ones has to show first that the maildrop is
    /// theirs.
    pub(in crate::gateway) fn are_taken(&self, at: &str, who: &Credentials, most: usize) -> bool {
        let (user, proof) = self.identify(at, who);
        self.with(|by_user| by_user.get(&user).is_some_and(|proofs| proofs.len() >= most && proofs.contains(&proof)))
    }

    /// Takes a place for a user who has been let in, unless there are `most` sessions already.
    pub(in crate::gateway) fn take(&self, at: &str, who: &Credentials, most: usize) -> Option<Place> {
        let (user, proof) = self.identify(at, who);
        let taken = self.with(|by_user| {
            let proofs = by_user.entry(user.clone()).or_default();
            let free = proofs.len() < most;
            if free {
                proofs.push(proof);
            }
            free
        });
        taken.then(|| Place { places: self.clone(), user, proof })
    }

    fn identify(&self, at: &str, who: &Credentials) -> (User, Fingerprint) {
        ((at.to_owned(), who.user.to_ascii_lowercase()), self.0.key.fingerprint(&[who.proof.expose()]))
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<User, Vec<Fingerprint>>) -> T) -> T {
        // The map is whole between any two steps, so that a panic elsewhere is no reason to lock everybody out.
        act(&mut self.0.by_user.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let user = std::mem::take(&mut self.user);
        self.places.with(|by_user| {
            let Entry::Occupied(mut proofs) = by_user.entry(user) else { return };
            if let Some(index) = proofs.get().iter().position(|proof| *proof == self.proof) {
                proofs.get_mut().swap_remove(index);
            }
            if proofs.get().is_empty() {
                proofs.remove();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::mail::{Proof, Secret};

    fn who(user: &str, password: &str) -> Credentials {
        Credentials::new(user.to_owned(), Proof::Password(Secret::new(password.into())))
    }

    #[test]
    fn a_few_at_a_time() {
        let (places, tim) = (Places::default(), who("tim", "one"));
        let held = places.take("here", &tim, 2).unwrap();
        assert!(!places.are_taken("here", &tim, 2));
        let other = places.take("here", &who("tim", "two"), 2).unwrap();
        for (password, known) in [("one", true), ("two", true), ("three", false)] {
            let tim = who("tim", password);
            assert_eq!(places.are_taken("here", &tim, 2), known, "{password}");
            assert!(places.take("here", &tim, 2).is_none());
        }
        assert!(places.take("here", &who("Tim", "one"), 2).is_none(), "the server may take him for the same");
        assert!(places.take("here", &who("tom", "one"), 2).is_some() && places.take("there", &tim, 2).is_some());
        drop(other);
        assert!(!places.are_taken("here", &tim, 2) && places.take("here", &tim, 2).is_some());
        drop(held);
        assert!(places.with(|by_user| by_user.is_empty()));
    }

    #[test]
    fn a_session_that_panics_gives_its_place_back() {
        let (places, tim) = (Places::default(), who("tim", "one"));
        let session = || {
            let _held = places.take("here", &tim, 1).unwrap();
            assert!(places.take("here", &tim, 1).is_some(), "this is the panic");
        };
        assert!(catch_unwind(AssertUnwindSafe(session)).is_err());
        assert!(places.take("here", &tim, 1).is_some());
    }
}
