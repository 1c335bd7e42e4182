use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A step of a history. A timer is named by its place among those that are set.
#[derive(Clone, Debug)]
enum Step {
    Set { after: u64 },
    Restart { which: usize, after: u64 },
    Remove { which: usize },
    Pass { time: u64, work: usize },
    SleepUntilNext,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let time = || {
        prop_oneof![
            0..3u64,
            0..200u64,
            0..10_000u64,
            0..100_000_000u64,
            Just(u64::MAX)
        ]
    };
    let work = prop_oneof![0..4usize, Just(usize::MAX)];
    let step = prop_oneof![
        4 => time().prop_map(|after| Step::Set { after }),
        4 => (any::<usize>(), time()).prop_map(|(which, after)| Step::Restart { which, after }),
        1 => any::<usize>().prop_map(|which| Step::Remove { which }),
        3 => (0..100_000u64, work).prop_map(|(time, work)| Step::Pass { time, work }),
        3 => Just(Step::SleepUntilNext),
    ];
    prop::collection::vec(step, 0..200)
}

/// A wheel beside its model: for each value, its key and its time.
struct Both {
    now: u64,
    wheel: Wheel<u32>,
    model: BTreeMap<u32, (Key, u64)>,
    next: u32,
}

impl Both {
    fn new(now: u64) -> Both {
        Both {
            now,
            wheel: Wheel::new(now),
            model: BTreeMap::new(),
            next: 0,
        }
    }

    fn named(&self, which: usize) -> Option<u32> {
        let index = which.checked_rem(self.model.len())?;
        self.model.keys().nth(index).copied()
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Set { after } => {
                let at = self.now.saturating_add(after);
                let key = self.wheel.set(at, self.next);
                self.model.insert(self.next, (key, at));
                self.next += 1;
            }
            Step::Restart { which, after } => {
                if let Some(value) = self.named(which)
                    && let Some((key, at)) = self.model.get_mut(&value)
                {
                    *at = self.now.saturating_add(after);
                    self.wheel.restart(*key, *at);
                }
            }
            Step::Remove { which } => {
                if let Some(value) = self.named(which)
                    && let Some((key, at)) = self.model.remove(&value)
                {
                    assert_eq!(self.wheel.time_of(key), at);
                    assert_eq!(self.wheel.remove(key), value);
                }
            }
            Step::Pass { time, work } => {
                self.now += time;
                self.pop(work);
            }
            Step::SleepUntilNext => {
                if let Some(next) = self.wheel.next().filter(|next| *next < 1 << 40) {
                    self.now = self.now.max(next);
                    self.pop(usize::MAX);
                }
            }
        }
    }

    /// With enough work, all timers that have passed come out, and in order; none ever comes too early.
    fn pop(&mut self, mut work: usize) {
        let is_all = work == usize::MAX;
        let mut last = 0;
        while let Some(value) = self.wheel.pop(self.now, &mut work) {
            let (_, at) = self.model.remove(&value).expect("it was set");
            assert!(at <= self.now, "{at} has not passed at {}", self.now);
            assert!(!is_all || last <= at, "{at} comes after {last}");
            last = at;
        }
        if is_all {
            let left = self.model.values().map(|(_, at)| *at).min();
            assert!(left.is_none_or(|at| at > self.now), "{left:?} was left");
        }
    }

    fn check(&self) {
        assert_eq!(self.wheel.len(), self.model.len());
        let earliest = self.model.values().map(|(_, at)| *at).min();
        assert!(
            self.wheel.next() <= earliest,
            "{:?} {earliest:?}",
            self.wheel.next()
        );
        assert_eq!(self.wheel.next().is_none(), earliest.is_none());
    }
}

proptest! {
    /// In every history each timer passes once and in its time, and a loop that sleeps until
    /// [`Wheel::next`] misses none.
    #[test]
    fn every_timer_passes_once_and_in_its_time(begin in 0..1u64 << 38, steps in steps()) {
        let mut both = Both::new(begin);
        for step in &steps {
            both.take(step);
            both.check();
        }
        while let Some(next) = both.wheel.next().filter(|next| *next < 1 << 40) {
            both.now = both.now.max(next);
            both.pop(usize::MAX);
        }
        prop_assert!(both.model.values().all(|(_, at)| *at >= 1 << 40));
    }
}

/// Returns how many times a loop wakes up until no timer is left, and the times at which one passed.
fn sleep_to_the_end(wheel: &mut Wheel<u32>) -> (usize, Vec<u64>) {
    let (mut wakes, mut passed) = (0, Vec::new());
    while let Some(now) = wheel.next() {
        wakes += 1;
        let mut work = usize::MAX;
        while wheel.pop(now, &mut work).is_some() {
            passed.push(now);
        }
    }
    (wakes, passed)
}

#[test]
fn a_loop_wakes_up_at_the_time_of_a_timer_and_at_no_other() {
    let start = 123_456_789;
    let mut wheel = Wheel::new(start);
    let times = [1, 63, 64, 4096, 60_000, 86_400_000, 31_536_000_000].map(|after| start + after);
    for at in times {
        wheel.set(at, 0);
    }
    let (wakes, passed) = sleep_to_the_end(&mut wheel);
    assert_eq!((wakes, passed), (times.len(), times.to_vec()));
}

#[test]
fn a_timer_that_restarts_again_and_again_wakes_the_loop_once_in_its_time() {
    let mut wheel = Wheel::new(0);
    let key = wheel.set(60_000, 7);
    let mut wakes = 0;
    for now in 0..600_000u64 {
        if wheel.next().is_some_and(|next| next <= now) {
            wakes += 1;
            let mut work = usize::MAX;
            assert_eq!(wheel.pop(now, &mut work), None);
        }
        wheel.restart(key, now + 60_000);
    }
    assert_eq!(wakes, 10);
    assert_eq!(wheel.time_of(key), 659_999);
}

#[test]
fn an_empty_wheel_never_wakes_a_loop_and_holds_no_memory() {
    let mut wheel = Wheel::new(5);
    let keys: Vec<Key> = (0..100_000).map(|i| wheel.set(100 + i, 1)).collect();
    assert_eq!(wheel.next(), Some(100));
    for key in keys {
        wheel.remove(key);
    }
    assert_eq!((wheel.next(), wheel.len()), (None, 0));
    assert_eq!(wheel.timers.capacity(), 0);
}

#[test]
fn many_timers_that_pass_together_come_in_portions() {
    let mut wheel = Wheel::new(0);
    for value in 0..100_000 {
        wheel.set(50_000, value);
    }
    let (mut came, mut turns) = (0, 0);
    while !wheel.is_empty() {
        assert_eq!(wheel.next(), Some(50_000), "the rest is due now");
        let mut work = 1000;
        while let Some(value) = wheel.pop(50_000, &mut work) {
            assert_eq!(value, came, "first set, first out");
            came += 1;
        }
        turns += 1;
    }
    assert!(turns >= 100, "{turns} turns");
}
