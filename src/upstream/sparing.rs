//! What spares a server when it is down, or has just come up again. After several lines in a row on which it has not even
//! said what it can do, one every few seconds finds out whether it is there again, and the others are not tried. And lines
//! do not reach it faster than so many a second, however many clients come back at once: they wait in a short queue. It
//! makes no difference whether they are for new sessions or take the place of lines that were lost.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{Fault, Verdict};

/// What is known of a server that is spared.
pub struct Sparing {
    /// The time between two lines when many wait.
    interval: Duration,
    state: Mutex<State>,
}

/// The right to try the server, once.
pub(super) struct Pass<'a>(&'a Sparing);

#[derive(Default)]
struct State {
    /// When the newest lines failed to reach the server, and none has reached it since.
    failures: VecDeque<Instant>,
    /// The breaker is open: the next one to find out may go then.
    probe: Option<Instant>,
    /// When there would be nothing left to wait for if lines came evenly.
    even: Option<Instant>,
}

impl Sparing {
    /// `rate` lines reach the server in a second, at least one, as many of which may come at the same moment.
    pub fn new(rate: u32) -> Self {
        Self { interval: SECOND / rate.max(1), state: Mutex::default() }
    }

    /// Waits until the server may be tried.
    pub(super) async fn pass(&self) -> Result<Pass<'_>, Fault> {
        let now = Instant::now();
        let at = self.state().pass(self.interval, now).map_err(|cause| Fault::new(Verdict::Passing, cause))?;
        sleep_until(at).await;
        Ok(Pass(self))
    }

    /// Whether the server is left alone, but for one line now and then that finds out whether it is there again.
    pub fn is_open(&self) -> bool {
        self.state().probe.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever is half done in there costs a line too many or too few.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// The server was there, or could not be reached.
    pub(super) fn learn(self, reached: bool) {
        self.0.state().learn(reached, Instant::now());
    }
}

impl State {
    /// When the server may be tried, or why not.
    fn pass(&mut self, interval: Duration, now: Instant) -> Result<Instant, &'static str> {
        if let Some(probe) = self.probe {
            if now < probe {
                return Err("the server could not be reached lately");
            }
            self.probe = Some(now + PROBE);
        }
        // The generic cell rate algorithm (ITU-T I.371): a leaky bucket that is one point in time.
        let even = self.even.map_or(now, |even| even.max(now));
        let at = now.max(even.checked_sub(SECOND).unwrap_or(now));
        if at > now + QUEUE {
            return Err("too many lines to the server wait");
        }
        self.even = Some(even + interval);
        Ok(at)
    }

    fn learn(&mut self, reached: bool, now: Instant) {
        if reached {
            self.failures.clear();
            self.probe = None;
            return;
        }
        self.failures.push_back(now);
        if self.failures.len() > ENOUGH {
            self.failures.pop_front();
        }
        let oldest = self.failures.front().filter(|_| self.failures.len() == ENOUGH);
        if self.probe.is_none() && oldest.is_some_and(|oldest| now < *oldest + LATELY) {
            self.probe = Some(now + PROBE);
        }
    }
}

/// So many failures in a row…
const ENOUGH: usize = 5;

/// …within this time are no accident.
const LATELY: Duration = Duration::from_secs(30);

/// How often somebody finds out whether the server is there again.
const PROBE: Duration = Duration::from_secs(5);

/// How long a line may wait for those before it; clients give up after half a minute.
const QUEUE: Duration = Duration::from_secs(5);

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::ZERO;

    #[test]
    fn five_failures_in_a_row_open_it_and_one_success_closes_it() {
        let (mut state, began) = (State::default(), Instant::now());
        // When; `-`, `+` for a line that does not reach the server, or does; `?` and `!` for one that may or may not try.
        for (second, what) in [
            (0, "----+"),
            (1, "----?"),
            (2, "-!"),
            (6, "!"),
            (7, "?!"),
            (8, "-!"),
            (11, "!"),
            (12, "?!+??"),
            (13, "----?+"),
            (20, "----"),
            (50, "-?---?"),
            (51, "-!"),
        ] {
            let now = began + Duration::from_secs(second);
            for event in what.chars() {
                match event {
                    '-' | '+' => state.learn(event == '+', now),
                    _ => assert_eq!(state.pass(NEVER, now).is_ok(), event == '?', "{second}: {what}"),
                }
            }
        }
    }

    #[test]
    fn a_crowd_is_spread_out_and_what_would_wait_too_long_is_turned_away() {
        let (mut state, began) = (State::default(), Instant::now());
        let interval = SECOND / 100;
        let crowd = |state: &mut State, now| -> Vec<_> {
            (0..10_000).map_while(|_| state.pass(interval, now).ok()).map(|at| at - now).collect()
        };
        let waits = crowd(&mut state, began);
        // A second's worth at once, then evenly, and five seconds' worth of them.
        assert_eq!(waits.len(), 100 + 1 + 500);
        assert!(waits[..101].iter().all(Duration::is_zero));
        assert!(waits[100..].windows(2).all(|pair| pair[1] - pair[0] == interval));
        assert_eq!(waits.last(), Some(&QUEUE));
        // Those who were turned away have not used anything up.
        assert_eq!(crowd(&mut state, began + SECOND).len(), 100);
        assert_eq!(crowd(&mut state, began + 60 * SECOND).len(), 601);
    }
}
