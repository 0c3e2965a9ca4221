//! How sessions are told to end: one after the other. If all heard it at the same moment, all their clients would be back
//! in the same second, at whoever serves them next.

use std::{
    array,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What sessions listen for. They do so in groups, which they join in turn.
pub(super) struct Farewell {
    groups: [CancellationToken; GROUPS],
    next: AtomicUsize,
}

impl Farewell {
    pub(super) fn new() -> Self {
        Self { groups: array::from_fn(|_| CancellationToken::new()), next: AtomicUsize::new(0) }
    }

    /// What the next session listens for.
    pub(super) fn token(&self) -> CancellationToken {
        self.groups[self.next.fetch_add(1, Relaxed) % GROUPS].clone()
    }

    /// Tells group after group, evenly over this time.
    pub(super) async fn say_over(&self, time: Duration) {
        let began = Instant::now();
        for (group, number) in self.groups.iter().zip(0..) {
            sleep_until(began + time * number / GROUPS as u32).await;
            group.cancel();
        }
    }

    /// Tells all at once.
    pub(super) fn say(&self) {
        self.groups.iter().for_each(CancellationToken::cancel);
    }
}

/// Over what time so many sessions are told: at the pace at which a server takes back those who were there, as far as the
/// first half of the time that is `left` allows. Whoever is told in the other half has little time to end in.
pub(super) fn time(sessions: usize, logins_per_second: u32, left: Duration) -> Duration {
    let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
    (Duration::from_secs(1) / logins_per_second.max(1)).saturating_mul(sessions).min(left / 2)
}

/// So many that of ten thousand sessions each has 156.
const GROUPS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_told_at_once_and_many_in_half_the_time() {
        for (sessions, per_second, left, milliseconds) in [
            (0, 500, 25, 0),
            (1, 500, 25, 2),
            (1_000, 500, 25, 2_000),
            (10_000, 500, 25, 12_500),
            (usize::MAX, 500, 25, 12_500),
            (10, 1, 4, 2_000),
            (10, 1, 0, 0),
        ] {
            let time = time(sessions, per_second, Duration::from_secs(left));
            assert_eq!(time.as_millis(), milliseconds, "{sessions} {per_second} {left}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_do_not_come_back_in_one_second() {
        let farewell = Farewell::new();
        let began = Instant::now();
        let sessions: Vec<_> = (0..10_000)
            .map(|_| {
                let told = farewell.token();
                tokio::spawn(async move {
                    told.cancelled().await;
                    began.elapsed().as_secs()
                })
            })
            .collect();
        farewell.say_over(Duration::from_secs(10)).await;
        let mut each_second = [0; 10];
        for session in sessions {
            each_second[usize::try_from(session.await.unwrap()).unwrap()] += 1;
        }
        assert!(each_second.iter().all(|told| (900..=1100).contains(told)), "{each_second:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_left_can_be_told_at_once() {
        let farewell = Farewell::new();
        let (first, last) = (farewell.token(), (1..GROUPS).map(|_| farewell.token()).last().unwrap());
        let saying = farewell.say_over(Duration::from_secs(10));
        assert!(tokio::time::timeout(Duration::from_secs(1), saying).await.is_err());
        assert!(first.is_cancelled() && !last.is_cancelled());
        farewell.say();
        assert!(last.is_cancelled() && farewell.token().is_cancelled());
    }
}
