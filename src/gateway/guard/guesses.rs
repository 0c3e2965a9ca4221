//! Slows down guessing, from one address or at one user, one after the other or all at once. Who has come in lately does not
//! notice: the same credentials from the same address wait for nobody. Others who know the password may have to wait for a
//! turn, behind those who guess from the same address, or at the same user from addresses that have not failed yet; who
//! has none in time is told to come again.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use tokio::time::Instant;

use super::{
    fingerprint::{Fingerprint, Key},
    ladder::{Climber, Ladder, delay},
    regulars::Regulars,
    turns::{Turn, Turns},
};
use crate::{
    mail::Credentials,
    net::limits::networks,
    upstream::{Fault, Verdict},
};

/// What has been tried, and what is being tried.
pub(in crate::gateway) struct Guesses {
    key: Key,
    ladder: Mutex<Ladder>,
    regulars: Mutex<Regulars>,
    from: Turns<IpNet>,
    /// By server and user, and whether something has failed lately where the client is.
    at: Turns<(String, String, bool)>,
}

/// Credentials that somebody tries.
pub(in crate::gateway) struct Try {
    /// The smallest first.
    networks: Vec<IpNet>,
    user: Fingerprint,
    all: Fingerprint,
    /// The same with the network.
    here: Fingerprint,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            key: Key::new(),
            ladder: Mutex::default(),
            regulars: Mutex::new(Regulars::new(Instant::now())),
            from: Turns::new(FROM_ONE_ADDRESS),
            at: Turns::new(AT_ONE_USER),
        }
    }
}

impl Guesses {
    /// What is tried, from where. Servers may take large letters for small ones.
    pub(in crate::gateway) fn of(&self, address: IpAddr, who: &Credentials) -> Try {
        let networks: Vec<_> = networks(address).collect();
        let network = networks.first().map(ToString::to_string).unwrap_or_default();
        let user = who.user.to_ascii_lowercase();
        let fingerprint = |texts: &[&[u8]]| self.key.fingerprint(texts);
        Try {
            networks,
            user: fingerprint(&[user.as_bytes()]),
            all: fingerprint(&[user.as_bytes(), who.proof.expose()]),
            here: fingerprint(&[network.as_bytes(), user.as_bytes(), who.proof.expose()]),
        }
    }

    /// Waits until this may be tried. The same that came in lately may be tried at once. An address from which nothing has
    /// failed lately needs no turn either: behind it may be a whole office, and `limits.sessions_per_address` bounds what it
    /// can try at once. The turn lasts until the answer has been given.
    pub(in crate::gateway) async fn turn(&self, tried: &Try) -> Result<Option<Turn>, Fault> {
        let Some(network) = tried.networks.first().copied() else { return Ok(None) };
        if !self.has_failed(network) || self.is_regular(tried) {
            return Ok(None);
        }
        let turn = self.from.take(network).await;
        turn.map(Some).ok_or_else(|| Fault::new(Verdict::Passing, "too many log-ins from this address have failed"))
    }

    /// Waits until the server may be asked about this user, which may be done by a few at a time until the mailbox is open,
    /// and by as many again from where something has failed lately. The same that came in lately may be asked about at once.
    pub(in crate::gateway) async fn turn_at(
        &self,
        upstream: &str,
        user: &str,
        tried: &Try,
    ) -> Result<Option<Turn>, Fault> {
        if self.is_regular(tried) {
            return Ok(None);
        }
        let has_failed = tried.networks.first().is_some_and(|network| self.has_failed(*network));
        let turn = self.at.take((upstream.to_owned(), user.to_ascii_lowercase(), has_failed)).await;
        turn.map(Some).ok_or_else(|| Fault::new(Verdict::Passing, "too many log-ins of this user are going on"))
    }

    /// How long the answer takes to whoever has had no turn at his address: as long as to those who had one and failed, so
    /// that nobody finds out the sooner what is right by trying more at once.
    pub(in crate::gateway) fn delay_without_turn(first_delay: Duration) -> Duration {
        delay(first_delay, u32::MAX)
    }

    /// It was wrong. Says how long the answer must take; to the first failure it takes `first_delay`.
    pub(in crate::gateway) fn failed(&self, tried: &Try, first_delay: Duration, now: Instant) -> Duration {
        self.regulars().forget(tried.here);
        let networks = tried.networks.iter().copied().map(Climber::Network);
        let mut ladder = self.ladder();
        let failures = networks.chain([Climber::User(tried.user)]).map(|climber| ladder.climb(climber, tried.all, now));
        delay(first_delay, failures.max().unwrap_or_default())
    }

    /// It was right, so that this is an address of users. It says nothing about who else tries this user's passwords.
    pub(in crate::gateway) fn succeeded(&self, tried: &Try) {
        self.regulars().welcome(tried.here, Instant::now());
        if let Some(network) = tried.networks.first() {
            self.ladder().leave(Climber::Network(*network));
        }
    }

    fn has_failed(&self, network: IpNet) -> bool {
        self.ladder().is_on(Climber::Network(network), Instant::now())
    }

    fn is_regular(&self, tried: &Try) -> bool {
        self.regulars().knows(tried.here, Instant::now())
    }

    fn regulars(&self) -> MutexGuard<'_, Regulars> {
        // Whatever is half done in there costs somebody a wait.
        self.regulars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ladder(&self) -> MutexGuard<'_, Ladder> {
        // Whatever is half done in there makes an answer come sooner, but not at once.
        self.ladder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const FROM_ONE_ADDRESS: usize = 4;
const AT_ONE_USER: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Proof, Secret};

    #[tokio::test(start_paused = true)]
    async fn a_user_in_large_letters_has_no_turns_of_his_own() {
        let guesses = Guesses::default();
        let proof = Proof::Password(Secret::new("a".into()));
        let tried = guesses.of([192, 0, 2, 7].into(), &Credentials::new("tim".to_owned(), proof));
        let mut turns = Vec::new();
        for user in ["tim", "Tim"] {
            turns.push(guesses.turn_at("here", user, &tried).await.unwrap());
        }
        assert!(guesses.turn_at("here", "TIM", &tried).await.is_err());
        assert!(guesses.turn_at("there", "tim", &tried).await.is_ok());
        // Where something has failed, others wait.
        guesses.failed(&tried, Duration::ZERO, Instant::now());
        assert!(guesses.turn_at("here", "tim", &tried).await.is_ok());
        // Who came in so a short time ago waits for nobody.
        guesses.succeeded(&tried);
        assert!(guesses.turn_at("here", "tim", &tried).await.unwrap().is_none());
    }

    #[test]
    fn what_has_failed_counts_for_the_address_and_for_the_user() {
        const FIRST: Duration = Duration::from_secs(2);
        let guesses = Guesses::default();
        let now = Instant::now();
        let tried = |address: &str, user: &str, password: &str| {
            let proof = Proof::Password(Secret::new(password.into()));
            guesses.of(address.parse().unwrap(), &Credentials::new(user.to_owned(), proof))
        };
        for (address, user, password, seconds) in [
            ("192.0.2.7", "tim", "a", 2),
            ("192.0.2.7", "tim", "a", 2),
            ("192.0.2.7", "tom", "a", 4),
            ("192.0.2.8", "TIM", "b", 4),
            ("192.0.2.9", "Tim", "c", 8),
            ("192.0.2.9", "ann", "c", 4),
            ("2001:db8:0:1::1", "one", "a", 2),
            ("2001:db8:0:2::1", "two", "a", 4),
            ("2001:db8:0:1::2", "six", "a", 8),
            ("2001:db8:1:1::1", "ten", "a", 2),
        ] {
            let delay = guesses.failed(&tried(address, user, password), FIRST, now);
            assert_eq!(delay.as_secs(), seconds, "{address} {user} {password}");
        }
        guesses.succeeded(&tried("192.0.2.7", "tom", "b"));
        assert_eq!(guesses.failed(&tried("192.0.2.7", "eve", "a"), FIRST, now).as_secs(), 2);
        assert_eq!(
            guesses.failed(&tried("192.0.2.7", "tim", "d"), FIRST, now).as_secs(),
            15,
            "the user is still guessed at"
        );
    }
}
