//! Back-off: how long a seat stays empty after its worker has died.
//!
//! Part of the manager's [`roster`](super::roster), and pure as that is.

use std::time::{Duration, Instant};

/// The first delay; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);

/// The longest delay.
const LONGEST: Duration = Duration::from_secs(10);

/// A worker of this age did not die young.
const GROWN: Duration = Duration::from_secs(1);

/// The least time between two forks in a seat of workers that die in callbacks: clients that cause that
/// cannot make the manager do nothing but fork.
const FLOOR: Duration = Duration::from_millis(10);

/// How far a worker came in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// It was asked to leave, and left.
    Complete,
    /// It had begun a callback: the crash policy decides about that callback, and other clients wait for
    /// the next worker.
    Served,
    /// It died before its first callback.
    Idle,
    /// It was ready, and another process killed it before its first callback: no fault of its own.
    Killed,
}

/// Counts the consecutive workers of one seat that died young and before their first callback: the more,
/// the longer the delay before the next one.
#[derive(Default, Debug)]
pub(crate) struct Backoff {
    useless: u32,
    /// When it began to delay.
    since: Option<Instant>,
}

impl Backoff {
    /// Returns the delay before the next worker, after one that ended now, `age` after it got ready.
    pub(crate) fn after(&mut self, life: Life, age: Duration, now: Instant) -> Duration {
        match life {
            Life::Idle if age < GROWN => {
                self.useless = self.useless.saturating_add(1);
                let Some(doublings) = self.useless.checked_sub(2) else {
                    return Duration::ZERO;
                };
                self.since.get_or_insert(now);
                (FIRST * (1 << doublings.min(16))).min(LONGEST)
            }
            Life::Served | Life::Complete | Life::Idle => {
                *self = Backoff::default();
                FLOOR.saturating_sub(age)
            }
            // It says nothing about the next one.
            Life::Killed => FLOOR.saturating_sub(age),
        }
    }

    /// Returns when the first delay began; `None` once a worker has begun a callback or has grown old,
    /// the `current` one included.
    pub(crate) fn since(&self, current: Option<(Life, Duration)>) -> Option<Instant> {
        self.since
            .filter(|_| !current.is_some_and(|(life, age)| is_useful(life, age)))
    }

    /// A worker has handed its seat over and ended. A useful one resets the count.
    pub(crate) fn replaced(&mut self, life: Life, age: Duration) {
        if is_useful(life, age) {
            *self = Backoff::default();
        }
    }
}

fn is_useful(life: Life, age: Duration) -> bool {
    match life {
        Life::Idle | Life::Killed => age >= GROWN,
        Life::Served | Life::Complete => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::from_millis(20);

    fn after(backoff: &mut Backoff, life: Life, age: Duration) -> Duration {
        backoff.after(life, age, Instant::now())
    }

    #[test]
    fn useless_deaths_are_followed_by_growing_delays() {
        let mut backoff = Backoff::default();
        let mut delay = || after(&mut backoff, Life::Idle, YOUNG).as_millis();
        let delays: Vec<u128> = (0..11).map(|_| delay()).collect();
        let expected = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000];
        assert_eq!(delays, expected);
    }

    #[test]
    fn one_that_served_or_grew_old_is_replaced_at_once_and_resets_the_count() {
        for (life, age) in [
            (Life::Served, YOUNG),
            (Life::Idle, GROWN),
            (Life::Complete, YOUNG),
        ] {
            let mut backoff = Backoff::default();
            for _ in 0..5 {
                after(&mut backoff, Life::Idle, YOUNG);
            }
            assert_eq!(after(&mut backoff, life, age), Duration::ZERO);
            assert_eq!(after(&mut backoff, Life::Idle, YOUNG), Duration::ZERO);
        }
    }

    #[test]
    fn a_kill_from_outside_is_followed_by_the_floor_alone() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            let pause = after(&mut backoff, Life::Killed, Duration::from_millis(3));
            assert_eq!(pause, Duration::from_millis(7));
        }
        let useless = |backoff: &mut Backoff| after(backoff, Life::Idle, YOUNG).as_millis();
        let (first, second) = (useless(&mut backoff), useless(&mut backoff));
        after(&mut backoff, Life::Killed, YOUNG);
        assert_eq!((first, second, useless(&mut backoff)), (0, 100, 200));
    }

    #[test]
    fn one_that_was_replaced_after_it_had_served_resets_the_count() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            after(&mut backoff, Life::Idle, YOUNG);
        }
        backoff.replaced(Life::Idle, YOUNG);
        assert!(backoff.since(None).is_some());
        backoff.replaced(Life::Complete, YOUNG);
        assert_eq!(backoff.since(None), None);
        assert_eq!(after(&mut backoff, Life::Idle, YOUNG), Duration::ZERO);
    }

    #[test]
    fn it_delays_until_a_worker_is_useful() {
        let mut backoff = Backoff::default();
        after(&mut backoff, Life::Idle, YOUNG);
        assert_eq!(backoff.since(None), None);
        after(&mut backoff, Life::Idle, YOUNG);
        let since = backoff.since(None);
        assert!(since.is_some());
        after(&mut backoff, Life::Idle, YOUNG);
        assert_eq!(backoff.since(Some((Life::Idle, YOUNG))), since);
        assert_eq!(backoff.since(Some((Life::Idle, GROWN))), None);
        assert_eq!(backoff.since(Some((Life::Served, YOUNG))), None);
        after(&mut backoff, Life::Served, YOUNG);
        assert_eq!(backoff.since(None), None);
    }

    #[test]
    fn clients_that_kill_every_worker_do_not_make_the_manager_fork_without_pause() {
        let mut backoff = Backoff::default();
        let delay = after(&mut backoff, Life::Served, Duration::from_millis(2));
        assert_eq!(delay, Duration::from_millis(8));
    }
}
