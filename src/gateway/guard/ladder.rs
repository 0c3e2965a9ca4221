//! How long the answer to wrong credentials takes: longer with each that is new, up to a quarter of a minute (Dovecot's
//! steps), and as before once it has been quiet. It counts for the network of the client and for the user who was named.
//! Answers to right credentials do not take it.

use std::{collections::HashMap, time::Duration};

use ipnet::IpNet;
use tokio::time::Instant;

use super::fingerprint::Fingerprint;

/// Who is counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Climber {
    /// A network that one party may have as many addresses of as it likes.
    Network(IpNet),
    /// A user name, as a fingerprint: it may be long, and it may be a password that was typed in the wrong place.
    User(Fingerprint),
}

/// Who has failed lately.
#[derive(Default)]
pub(super) struct Ladder(HashMap<Climber, Rung>);

struct Rung {
    failures: u32,
    last: Instant,
    /// The newest tries. A program that goes on with its old password is not guessing.
    tried: [Option<Fingerprint>; TRIED],
}

impl Ladder {
    /// Notes a failure, and says how many different ones there have been.
    pub(super) fn climb(&mut self, climber: Climber, tried: Fingerprint, now: Instant) -> u32 {
        if self.0.len() >= MOST && !self.0.contains_key(&climber) {
            self.make_room(now);
        }
        let new = || Rung { failures: 0, last: now, tried: [None; TRIED] };
        let rung = self.0.entry(climber).or_insert_with(new);
        if now >= rung.last + QUIET {
            *rung = new();
        }
        rung.last = now;
        if !rung.tried.contains(&Some(tried)) {
            rung.tried[rung.failures as usize % TRIED] = Some(tried);
            rung.failures = rung.failures.saturating_add(1);
        }
        rung.failures
    }

    /// Whether anything has failed lately.
    pub(super) fn is_on(&self, climber: Climber, now: Instant) -> bool {
        self.0.get(&climber).is_some_and(|rung| now < rung.last + QUIET)
    }

    /// Forgets what has failed.
    pub(super) fn leave(&mut self, climber: Climber) {
        self.0.remove(&climber);
    }

    /// Those who have been quiet longest are on the ground again: at worst they are answered sooner than they should be,
    /// but never at once.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, rung| now < rung.last + QUIET);
        if self.0.len() >= MOST {
            let mut times: Vec<_> = self.0.values().map(|rung| rung.last).collect();
            let (_, middle, _) = times.select_nth_unstable(MOST / 2);
            let middle = *middle;
            self.0.retain(|_, rung| rung.last > middle);
        }
    }
}

/// How long the answer takes after so many failures, the first taking `first`.
pub(super) fn delay(first: Duration, failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    first.saturating_mul(doubled).min(LONGEST.max(first))
}

/// Clients give up after half a minute.
const LONGEST: Duration = Duration::from_secs(15);

/// After so long without a failure everything is as before.
const QUIET: Duration = Duration::from_secs(600);

/// How many tries are known again.
const TRIED: usize = 4;

/// About 4 MiB.
const MOST: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{super::fingerprint::Key, *};
    use crate::net::limits::networks;

    fn at(address: &str) -> Climber {
        Climber::Network(networks(address.parse().unwrap()).next().unwrap())
    }

    #[test]
    fn each_new_failure_takes_longer() {
        let secs = Duration::from_secs;
        for (first, delays) in [
            (secs(2), [2, 4, 8, 15, 15]),
            (secs(0), [0, 0, 0, 0, 0]),
            (secs(10), [10, 15, 15, 15, 15]),
            (secs(30), [30, 30, 30, 30, 30]),
        ] {
            assert_eq!([1, 2, 3, 4, u32::MAX].map(|failures| delay(first, failures)), delays.map(secs));
        }
    }

    #[test]
    fn only_what_is_new_counts_and_only_for_a_while() {
        let (key, mut ladder, began) = (Key::new(), Ladder::default(), Instant::now());
        // When, what was tried, and how many failures that makes.
        for (second, tried, failures) in [
            (0, "a", 1),
            (0, "a", 1),
            (1, "b", 2),
            (599, "a", 2),
            (1198, "c", 3),
            (1199, "d", 4),
            (1200, "e", 5),
            (1201, "a", 6),
            (1202, "e", 6),
            (1802, "e", 1),
        ] {
            let now = began + Duration::from_secs(second);
            assert_eq!(ladder.climb(at("192.0.2.7"), key.fingerprint(&[tried.as_bytes()]), now), failures, "{second}");
            assert!(ladder.is_on(at("192.0.2.7"), now) && !ladder.is_on(at("192.0.2.8"), now));
        }
        assert!(!ladder.is_on(at("192.0.2.7"), began + Duration::from_secs(2402)));
        ladder.leave(at("192.0.2.7"));
        assert!(!ladder.is_on(at("192.0.2.7"), began + Duration::from_secs(1802)));
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let (key, mut ladder, began) = (Key::new(), Ladder::default(), Instant::now());
        let tried = key.fingerprint(&[b"guess"]);
        let climber = |number: u32| Climber::Network(IpNet::from(IpAddr::from(number.to_be_bytes())));
        let count = u32::try_from(3 * MOST).unwrap();
        for number in 0..count {
            ladder.climb(climber(number), tried, began + Duration::from_millis(number.into()));
            assert!(ladder.0.len() <= MOST);
        }
        let end = began + Duration::from_millis(count.into());
        assert!(!ladder.is_on(climber(0), end) && ladder.is_on(climber(count - 1), end));
        // All at the same moment, too.
        let mut ladder = Ladder::default();
        for number in 0..count {
            ladder.climb(climber(number), tried, began);
            assert!(ladder.0.len() <= MOST && ladder.is_on(climber(number), began));
        }
    }
}
