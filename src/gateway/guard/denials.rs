//! Passwords that a server has just refused. Programs go on trying the password that was good last year, and servers
//! close accounts for it; so for a while the answer is given here. Nothing is kept of tokens: nobody closes an account
//! for an old one, and the server's explanation is worth having each time.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::fingerprint::{Fingerprint, Key};
use crate::{
    mail::{Credentials, Proof},
    pop3::reply::NOTICE_LIMIT,
    upstream::{Fault, Verdict},
};

/// What was refused lately.
pub(in crate::gateway) struct Denials {
    key: Key,
    /// How long it is remembered.
    ttl: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    denials: HashMap<Fingerprint, Denial>,
    /// In the order in which they came, which is that in which they are forgotten. Those that were taken back are still
    /// in here.
    order: VecDeque<(Instant, Fingerprint)>,
}

struct Denial {
    at: Instant,
    /// As much of it as goes to a client.
    notice: Option<String>,
}

impl Denials {
    pub(in crate::gateway) fn new(ttl: Duration) -> Self {
        Self { key: Key::new(), ttl, known: Mutex::default() }
    }

    /// The refusal, word for word, if the server `upstream` has refused this lately.
    pub(in crate::gateway) fn find(&self, upstream: &str, who: &Credentials, now: Instant) -> Option<Fault> {
        let tried = self.fingerprint(upstream, who)?;
        self.with(|known| {
            let denial = known.denials.get(&tried).filter(|denial| now < denial.at + self.ttl)?;
            let fault = Fault::new(Verdict::Denied, "the server refused the same a short time ago");
            Some(Fault { notice: denial.notice.clone(), ..fault })
        })
    }

    /// What the server said to this: a refusal is remembered from now on, and a welcome takes back what was before.
    /// Everything else says nothing about the password.
    pub(in crate::gateway) fn learn<T>(
        &self,
        upstream: &str,
        who: &Credentials,
        outcome: &Result<T, Fault>,
        now: Instant,
    ) {
        let Some(tried) = self.fingerprint(upstream, who) else { return };
        match outcome {
            Ok(_) => self.with(|known| drop(known.denials.remove(&tried))),
            Err(fault) if fault.verdict == Verdict::Denied => {
                let notice = fault.notice.as_ref().map(|notice| notice.chars().take(NOTICE_LIMIT).collect());
                let denial = Denial { at: now, notice };
                self.with(|known| known.remember(tried, denial, self.ttl));
            }
            Err(_) => {}
        }
    }

    fn fingerprint(&self, upstream: &str, who: &Credentials) -> Option<Fingerprint> {
        match &who.proof {
            Proof::Password(password) if !self.ttl.is_zero() => {
                Some(self.key.fingerprint(&[upstream.as_bytes(), who.user.as_bytes(), password.expose()]))
            }
            _ => None,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        // Whatever is half done in there costs the server a question.
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn remember(&mut self, tried: Fingerprint, denial: Denial, ttl: Duration) {
        let now = denial.at;
        while let Some((at, oldest)) = self.order.front().copied()
            && (now >= at + ttl || self.order.len() >= MOST)
        {
            self.order.pop_front();
            if self.denials.get(&oldest).is_some_and(|denial| denial.at == at) {
                self.denials.remove(&oldest);
            }
        }
        self.order.push_back((now, tried));
        self.denials.insert(tried, denial);
    }
}

/// About 4 MiB, and at most 16 more if the server has something to say to each. Who fills it makes the server answer again,
/// no more.
const MOST: usize = 1 << 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Secret, TokenMechanism};

    const TTL: Duration = Duration::from_secs(60);

    fn who(user: &str, password: &str) -> Credentials {
        Credentials::new(user.to_owned(), Proof::Password(Secret::new(password.into())))
    }

    fn denied() -> Result<(), Fault> {
        Err(Fault::new(Verdict::Denied, "wrong"))
    }

    #[test]
    fn the_same_is_known_for_a_while() {
        let (denials, now) = (Denials::new(TTL), Instant::now());
        let fault = Fault { notice: Some("see the web".to_owned()), ..Fault::new(Verdict::Denied, "wrong") };
        denials.learn::<()>("here", &who("tim", "old"), &Err(fault), now);
        for (upstream, user, password, after, found) in [
            ("here", "tim", "old", 0, true),
            ("here", "tim", "old", 59, true),
            ("here", "tim", "old", 60, false),
            ("here", "tim", "new", 1, false),
            ("here", "tom", "old", 1, false),
            ("there", "tim", "old", 1, false),
        ] {
            let found_there = denials.find(upstream, &who(user, password), now + Duration::from_secs(after));
            assert_eq!(found_there.is_some(), found, "{upstream} {user} {password} {after}");
            assert!(found_there.is_none_or(|fault| fault.notice.as_deref() == Some("see the web")));
        }
    }

    #[test]
    fn only_a_refusal_is_remembered_and_a_welcome_ends_it() {
        let (denials, now) = (Denials::new(TTL), Instant::now());
        let tim = who("tim", "old");
        for verdict in [Verdict::Busy, Verdict::Passing, Verdict::Lasting, Verdict::Changed] {
            denials.learn::<()>("here", &tim, &Err(Fault::new(verdict, "trouble")), now);
            assert!(denials.find("here", &tim, now).is_none(), "{verdict}");
        }
        denials.learn("here", &tim, &denied(), now);
        denials.learn("here", &tim, &Ok(()), now);
        assert!(denials.find("here", &tim, now).is_none());
        let token = Proof::Token { token: Secret::new("T".to_owned()), mechanism: TokenMechanism::XOAuth2 };
        let token = Credentials::new("tim".to_owned(), token);
        denials.learn("here", &token, &denied(), now);
        assert!(denials.find("here", &token, now).is_none());
        let never = Denials::new(Duration::ZERO);
        never.learn("here", &tim, &denied(), now);
        assert!(never.find("here", &tim, now).is_none());
    }

    #[test]
    fn a_long_notice_takes_no_more_than_is_said_of_it() {
        let (denials, now, tim) = (Denials::new(TTL), Instant::now(), who("tim", "old"));
        let fault = Fault { notice: Some("x".repeat(1 << 16)), ..Fault::new(Verdict::Denied, "wrong") };
        denials.learn::<()>("here", &tim, &Err(fault), now);
        let kept =
            denials.with(|known| known.denials.values().filter_map(|denial| denial.notice.clone()).next()).unwrap();
        assert_eq!((kept.len(), kept.capacity() <= 2 * NOTICE_LIMIT), (NOTICE_LIMIT, true));
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let (denials, now) = (Denials::new(TTL), Instant::now());
        let guess = |number: usize| who("tim", &number.to_string());
        for number in 0..=MOST {
            denials.learn("here", &guess(number), &denied(), now);
        }
        assert!(denials.find("here", &guess(0), now).is_none(), "the oldest is forgotten first");
        assert!(denials.find("here", &guess(1), now).is_some() && denials.find("here", &guess(MOST), now).is_some());
        assert_eq!(denials.with(|known| (known.denials.len(), known.order.len())), (MOST, MOST));
        // Refused, taken back and refused again: the old entry must not take the new one with it.
        denials.learn("here", &guess(1), &Ok(()), now);
        denials.learn("here", &guess(1), &denied(), now + Duration::from_secs(30));
        denials.learn("here", &guess(0), &denied(), now + TTL);
        assert!(denials.find("here", &guess(1), now + TTL).is_some());
        assert_eq!(denials.with(|known| (known.denials.len(), known.order.len())), (2, 2));
    }
}
