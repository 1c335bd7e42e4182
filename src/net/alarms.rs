//! The timers that callbacks have set for their connections: by connection and tag, in one wheel.
//!
//! Its one rule: setting, cancelling and firing take constant time, however many timers there are, and a
//! connection's timers are found without looking at others.

use std::collections::{HashMap, VecDeque};

use super::wheel::{Key, Wheel};
use crate::conn_id::ConnId;

/// What a timer counts against the memory of its owner: its place in the wheel, in the map and in the list of its
/// connection, and the room that growing tables leave.
pub(crate) const TIMER_BYTES: usize = 192;

/// The first timer of a connection, in a list of all that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct First(u32);

impl First {
    pub(crate) const NONE: First = First(NIL);
}

const NIL: u32 = u32::MAX;

/// The timers of a connection that have fired and have no place for their callbacks yet. Usually there are none.
#[derive(Default, Debug)]
pub(crate) struct Fired(Option<Box<Queue>>);

/// A timer that has fired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Due {
    pub(crate) tag: u64,
    /// The attempts of its callback so far.
    pub(crate) attempts: u8,
}

#[derive(Default, Debug)]
struct Queue {
    /// In order, each with its number. Cancelled ones stay until they are first: cancelling takes constant time.
    dues: VecDeque<(Due, Number)>,
    /// The number of the one with this tag that is not cancelled.
    valid: HashMap<u64, u64>,
    fired: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Number {
    Fired(u64),
    /// A worker had it already: it can't be cancelled any more.
    Returned,
}

impl Fired {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the number of entries, cancelled ones included.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.dues.len())
    }

    pub(crate) fn push(&mut self, tag: u64) {
        let queue = self.0.get_or_insert_default();
        queue.fired += 1;
        queue.valid.insert(tag, queue.fired);
        let due = Due { tag, attempts: 0 };
        queue.dues.push_back((due, Number::Fired(queue.fired)));
    }

    /// Puts one before all others: it was submitted before them.
    pub(crate) fn put_back(&mut self, due: Due) {
        let queue = self.0.get_or_insert_default();
        queue.dues.push_front((due, Number::Returned));
    }

    /// Returns the next one, and drops cancelled ones before it.
    pub(crate) fn first(&mut self) -> Option<Due> {
        let queue = self.0.as_mut()?;
        while let Some((due, number)) = queue.dues.front().copied() {
            let is_valid = match number {
                Number::Fired(number) => queue.valid.get(&due.tag) == Some(&number),
                Number::Returned => true,
            };
            if is_valid {
                return Some(due);
            }
            queue.dues.pop_front();
        }
        self.0 = None;
        None
    }

    /// Removes the one that [`first`](Self::first) has returned.
    pub(crate) fn pop(&mut self) {
        let Some(queue) = &mut self.0 else { return };
        if let Some((due, Number::Fired(_))) = queue.dues.pop_front() {
            queue.valid.remove(&due.tag);
        }
        if queue.dues.is_empty() {
            self.0 = None;
        }
    }

    pub(crate) fn cancel(&mut self, tag: u64) {
        if let Some(queue) = &mut self.0 {
            queue.valid.remove(&tag);
        }
    }
}

/// A timer: its number is its index.
struct Alarm {
    conn: ConnId,
    tag: u64,
    key: Key,
    next: u32,
    prev: u32,
}

pub(crate) struct Alarms {
    wheel: Wheel<u32>,
    alarms: Vec<Alarm>,
    unused: Vec<u32>,
    numbers: HashMap<(ConnId, u64), u32>,
}

impl Alarms {
    pub(crate) fn new() -> Alarms {
        Alarms {
            wheel: Wheel::new(0),
            alarms: Vec::new(),
            unused: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Sets a timer of a connection, whether or not it has one with this tag. `first` is that connection's.
    pub(crate) fn set(&mut self, first: &mut First, conn: ConnId, tag: u64, at: u64) {
        if let Some(number) = self.numbers.get(&(conn, tag)) {
            let key = self.alarms[*number as usize].key;
            return self.wheel.restart(key, at);
        }
        let number = self.unused.pop().unwrap_or(self.alarms.len() as u32);
        let alarm = Alarm {
            conn,
            tag,
            key: self.wheel.set(at, number),
            next: first.0,
            prev: NIL,
        };
        if let Some(after) = self.alarms.get_mut(first.0 as usize) {
            after.prev = number;
        }
        match self.alarms.get_mut(number as usize) {
            Some(unused) => *unused = alarm,
            None => self.alarms.push(alarm),
        }
        first.0 = number;
        self.numbers.insert((conn, tag), number);
    }

    /// Removes a timer. Returns whether there was one.
    pub(crate) fn cancel(&mut self, first: &mut First, conn: ConnId, tag: u64) -> bool {
        let Some(number) = self.numbers.remove(&(conn, tag)) else {
            return false;
        };
        self.wheel.remove(self.alarms[number as usize].key);
        self.unlink(first, number);
        true
    }

    /// Removes all timers of a connection. Returns how many there were.
    pub(crate) fn cancel_all(&mut self, first: &mut First) -> usize {
        let mut count = 0;
        while let Some(alarm) = self.alarms.get(first.0 as usize) {
            let (conn, tag) = (alarm.conn, alarm.tag);
            self.cancel(first, conn, tag);
            count += 1;
        }
        count
    }

    /// Returns the tags of a connection's timers, with their times.
    pub(crate) fn of(&self, first: First) -> impl Iterator<Item = (u64, u64)> {
        let get = |number: u32| self.alarms.get(number as usize);
        let all = std::iter::successors(get(first.0), move |alarm| get(alarm.next));
        all.map(|alarm| (alarm.tag, self.wheel.time_of(alarm.key)))
    }

    /// Returns the time at which [`pop`](Self::pop) is to be called.
    pub(crate) fn next(&self) -> Option<u64> {
        self.wheel.next()
    }

    /// Removes and returns a timer that has fired, while there is work left ([`Wheel::pop`]). `first_of` finds the
    /// first timer of its connection.
    pub(crate) fn pop<'a>(
        &mut self,
        now: u64,
        work: &mut usize,
        first_of: impl FnOnce(ConnId) -> Option<&'a mut First>,
    ) -> Option<(ConnId, u64)> {
        let number = self.wheel.pop(now, work)?;
        let alarm = &self.alarms[number as usize];
        let (conn, tag) = (alarm.conn, alarm.tag);
        self.numbers.remove(&(conn, tag));
        // A connection takes its timers along when it goes.
        match first_of(conn) {
            Some(first) => self.unlink(first, number),
            None => self.unused.push(number),
        }
        Some((conn, tag))
    }

    fn unlink(&mut self, first: &mut First, number: u32) {
        let alarm = &self.alarms[number as usize];
        let (next, prev) = (alarm.next, alarm.prev);
        match self.alarms.get_mut(prev as usize) {
            Some(before) => before.next = next,
            None => first.0 = next,
        }
        if let Some(after) = self.alarms.get_mut(next as usize) {
            after.prev = prev;
        }
        self.unused.push(number);
        if self.numbers.is_empty() {
            // Those of a flood are not kept.
            *self = Alarms {
                wheel: std::mem::replace(&mut self.wheel, Wheel::new(0)),
                ..Alarms::new()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn conn(number: u32) -> ConnId {
        ConnId::new(0, number, NonZeroU32::MIN)
    }

    /// Returns the timers that have fired by `now`, in order.
    fn fired(alarms: &mut Alarms, firsts: &mut [First], now: u64) -> Vec<(u32, u64)> {
        let (mut all, mut work) = (Vec::new(), usize::MAX);
        while let Some((id, tag)) = alarms.pop(now, &mut work, |id| firsts.get_mut(id.key())) {
            all.push((id.key() as u32, tag));
        }
        all
    }

    #[test]
    fn a_timer_fires_once_and_not_early() {
        let (mut alarms, mut firsts) = (Alarms::new(), [First::NONE; 2]);
        alarms.set(&mut firsts[0], conn(0), 7, 100);
        alarms.set(&mut firsts[0], conn(0), 8, 50);
        alarms.set(&mut firsts[1], conn(1), 7, 70);
        assert_eq!((alarms.len(), alarms.next()), (3, Some(50)));
        assert_eq!(fired(&mut alarms, &mut firsts, 49), []);
        assert_eq!(fired(&mut alarms, &mut firsts, 70), [(0, 8), (1, 7)]);
        assert_eq!(fired(&mut alarms, &mut firsts, 1000), [(0, 7)]);
        assert_eq!((alarms.len(), firsts), (0, [First::NONE; 2]));
    }

    #[test]
    fn a_timer_of_nobody_leaves_nothing() {
        let mut alarms = Alarms::new();
        for round in 0..100 {
            alarms.set(&mut First::NONE.clone(), conn(0), round, round);
            assert_eq!(
                alarms.pop(round, &mut 1000, |_| None),
                Some((conn(0), round))
            );
        }
        assert_eq!((alarms.len(), alarms.alarms.len()), (0, 1));
    }

    #[test]
    fn a_fired_timer_can_be_cancelled_until_a_worker_has_it() {
        let mut fired = Fired::default();
        for tag in [1, 2, 3, 2] {
            fired.cancel(tag);
            fired.push(tag);
        }
        fired.cancel(3);
        assert_eq!(fired.len(), 4);
        let due = |tag, attempts| Some(Due { tag, attempts });
        assert_eq!(fired.first(), due(1, 0));
        fired.pop();
        fired.put_back(Due {
            tag: 1,
            attempts: 1,
        });
        fired.cancel(1);
        assert_eq!(fired.first(), due(1, 1), "a worker had it");
        fired.pop();
        assert_eq!(fired.first(), due(2, 0), "the second one of this tag");
        fired.pop();
        assert_eq!((fired.first(), fired.is_empty()), (None, true));
    }

    #[test]
    fn setting_a_timer_again_changes_its_time() {
        let (mut alarms, mut firsts) = (Alarms::new(), [First::NONE]);
        alarms.set(&mut firsts[0], conn(0), 7, 100);
        alarms.set(&mut firsts[0], conn(0), 7, 300);
        assert_eq!(fired(&mut alarms, &mut firsts, 299), []);
        alarms.set(&mut firsts[0], conn(0), 7, 299);
        assert_eq!(fired(&mut alarms, &mut firsts, 299), [(0, 7)]);
    }

    #[test]
    fn a_timer_is_cancelled_alone_or_with_its_connection() {
        let (mut alarms, mut firsts) = (Alarms::new(), [First::NONE; 2]);
        for tag in 0..5 {
            alarms.set(&mut firsts[0], conn(0), tag, 10 + tag);
            alarms.set(&mut firsts[1], conn(1), tag, 10 + tag);
        }
        for tag in [2, 0, 4] {
            assert!(alarms.cancel(&mut firsts[0], conn(0), tag));
            assert!(!alarms.cancel(&mut firsts[0], conn(0), tag));
        }
        let left: Vec<(u64, u64)> = alarms.of(firsts[0]).collect();
        assert_eq!(left, [(3, 13), (1, 11)]);
        assert_eq!(alarms.cancel_all(&mut firsts[1]), 5);
        assert_eq!(fired(&mut alarms, &mut firsts, 100), [(0, 1), (0, 3)]);
        assert_eq!(alarms.len(), 0);
    }

    proptest::proptest! {
        /// Against a list.
        #[test]
        fn timers_fire_as_a_plain_list_of_them_says(
            steps in proptest::collection::vec((0u8..4, 0u32..3, 0u64..5, 0u64..2000), 0..300)
        ) {
            let (mut alarms, mut firsts) = (Alarms::new(), [First::NONE; 3]);
            let (mut model, mut now) = (HashMap::new(), 0u64);
            for (step, number, tag, time) in steps {
                let first = &mut firsts[number as usize];
                match step {
                    0 | 1 => {
                        alarms.set(first, conn(number), tag, now + time);
                        model.insert((number, tag), now + time);
                    }
                    2 => {
                        let had = model.remove(&(number, tag)).is_some();
                        proptest::prop_assert_eq!(alarms.cancel(first, conn(number), tag), had);
                    }
                    _ => {
                        now += time;
                        let mut due = fired(&mut alarms, &mut firsts, now);
                        due.sort_unstable();
                        let mut expected: Vec<(u32, u64)> =
                            model.extract_if(|_, at| *at <= now).map(|(it, _)| it).collect();
                        expected.sort_unstable();
                        proptest::prop_assert_eq!(due, expected);
                    }
                }
                proptest::prop_assert_eq!(alarms.len(), model.len());
                for (number, first) in firsts.iter().enumerate() {
                    let own = model.keys().filter(|(it, _)| *it as usize == number).count();
                    proptest::prop_assert_eq!(alarms.of(*first).count(), own);
                }
            }
        }
    }
}
