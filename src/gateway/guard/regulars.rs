//! Who has come in lately: with which credentials, and from where. Who comes in the same way again is no guesser, however
//! many guess at the same user or from the same address. Nobody is let in by it: the server is asked as ever.

use std::{collections::HashSet, mem, time::Duration};

use tokio::time::Instant;

use super::fingerprint::Fingerprint;

/// Who has come in, in two halves: those of now, and those of some time ago, which are forgotten next.
pub(super) struct Regulars {
    now: HashSet<Fingerprint>,
    before: HashSet<Fingerprint>,
    turned: Instant,
}

impl Regulars {
    pub(super) fn new(now: Instant) -> Self {
        Self { now: HashSet::new(), before: HashSet::new(), turned: now }
    }

    /// These have come in.
    pub(super) fn welcome(&mut self, who: Fingerprint, now: Instant) {
        self.turn(now);
        if self.now.len() >= MOST {
            self.before = mem::take(&mut self.now);
        }
        self.now.insert(who);
    }

    /// Whether these have come in lately.
    pub(super) fn knows(&mut self, who: Fingerprint, now: Instant) -> bool {
        self.turn(now);
        self.now.contains(&who) || self.before.contains(&who)
    }

    /// These were refused.
    pub(super) fn forget(&mut self, who: Fingerprint) {
        self.now.remove(&who);
        self.before.remove(&who);
    }

    fn turn(&mut self, now: Instant) {
        if now >= self.turned + HALF {
            let half = mem::take(&mut self.now);
            self.before = if now < self.turned + 2 * HALF { half } else { HashSet::new() };
            self.turned = now;
        }
    }
}

/// Mail programs come back more often than that.
const HALF: Duration = Duration::from_secs(3600);

/// Of each half; both are about 2 MiB.
const MOST: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::{super::fingerprint::Key, *};

    #[test]
    fn who_has_come_in_is_known_for_an_hour_at_least() {
        let (key, began) = (Key::new(), Instant::now());
        let [tim, tom] = ["tim", "tom"].map(|user| key.fingerprint(&[user.as_bytes()]));
        let at = |minutes: u64| began + Duration::from_secs(60 * minutes);
        let mut regulars = Regulars::new(began);
        assert!(!regulars.knows(tim, began));
        regulars.welcome(tim, at(50));
        regulars.welcome(tom, at(50));
        assert!(regulars.knows(tim, at(119)));
        regulars.welcome(tim, at(119));
        assert!(regulars.knows(tim, at(179)) && !regulars.knows(tom, at(179)));
        regulars.forget(tim);
        assert!(!regulars.knows(tim, at(179)));
        regulars.welcome(tim, at(180));
        assert!(!regulars.knows(tim, at(300)));
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let (key, now) = (Key::new(), Instant::now());
        let who = |number: usize| key.fingerprint(&[&number.to_ne_bytes()]);
        let mut regulars = Regulars::new(now);
        for number in 0..3 * MOST {
            regulars.welcome(who(number), now);
        }
        assert!(regulars.now.len() + regulars.before.len() <= 2 * MOST);
        assert!(!regulars.knows(who(0), now) && regulars.knows(who(2 * MOST), now));
    }
}
