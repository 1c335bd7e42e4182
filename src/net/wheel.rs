//! Timers: a hierarchical wheel, in which a timer is set, restarted and removed in constant time, however
//! many there are.
//!
//! Level 0 has a place for each of 64 milliseconds, and each place of the level above it covers all 64 of
//! these, and so on: seven levels hold times up to 139 years. A place is a list of timers. When its time
//! comes, its timers move down a level, at most six times in a timer's life.
//!
//! Its one rule: a restart to a later time is one store. The timer stays in its place, and is filed again
//! when that place's time comes; so a deadline that restarts with each message costs no more than that.

/// The number of a timer in its wheel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key(u32);

impl Key {
    /// No timer.
    pub(crate) const NONE: Key = Key(NIL);
}

const NIL: u32 = u32::MAX;
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 7;

/// The latest time that can be told apart, in milliseconds.
const LATEST: u64 = (1 << (BITS * LEVELS as u32)) - 1;

/// An empty wheel with memory for more timers gives that memory back.
const MOST_KEPT: usize = 1024;

/// Times are in milliseconds of any clock that does not go backwards.
pub(crate) struct Wheel<T> {
    timers: Vec<Timer<T>>,
    /// The first unused one, in a list by `next`.
    unused: u32,
    len: usize,
    /// Level by level.
    places: Vec<Place>,
    /// For each level, the places that are not empty.
    occupied: [u64; LEVELS],
    /// All places that begin up to here have been emptied, except `current`. The others are filed relative
    /// to it.
    elapsed: u64,
    /// The place that is being emptied.
    current: Option<usize>,
}

struct Timer<T> {
    at: u64,
    next: u32,
    prev: u32,
    place: u32,
    value: T,
}

/// A list of timers.
#[derive(Clone, Copy)]
struct Place {
    first: u32,
    /// No timer of it passes earlier. Exact while none is restarted or removed.
    earliest: u64,
}

const EMPTY: Place = Place {
    first: NIL,
    earliest: u64::MAX,
};

impl<T: Copy> Wheel<T> {
    pub(crate) fn new(now: u64) -> Wheel<T> {
        Wheel {
            timers: Vec::new(),
            unused: NIL,
            len: 0,
            places: vec![EMPTY; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            elapsed: now,
            current: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a timer.
    pub(crate) fn set(&mut self, at: u64, value: T) -> Key {
        let timer = Timer {
            at,
            next: NIL,
            prev: NIL,
            place: 0,
            value,
        };
        let index = match self.unused {
            NIL => {
                self.timers.push(timer);
                (self.timers.len() - 1) as u32
            }
            index => {
                let unused = std::mem::replace(&mut self.timers[index as usize], timer);
                self.unused = unused.next;
                index
            }
        };
        self.len += 1;
        self.file(index);
        Key(index)
    }

    /// Changes the time of a timer.
    pub(crate) fn restart(&mut self, key: Key, at: u64) {
        let timer = &mut self.timers[key.0 as usize];
        let is_later = at >= timer.at;
        timer.at = at;
        if is_later {
            return;
        }
        let place = timer.place as usize;
        if at >= start_of(place, self.elapsed) {
            // It is found in time where it is.
            let earliest = &mut self.places[place].earliest;
            *earliest = at.min(*earliest);
        } else {
            self.unlink(key.0);
            self.file(key.0);
        }
    }

    /// Returns the time of a timer.
    pub(crate) fn time_of(&self, key: Key) -> u64 {
        self.timers[key.0 as usize].at
    }

    /// Removes a timer.
    pub(crate) fn remove(&mut self, key: Key) -> T {
        self.unlink(key.0);
        self.release(key.0)
    }

    /// Returns a time at which [`pop`](Self::pop) is to be called: no timer passes earlier. It is the time
    /// of the next one, unless that was restarted or removed.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let current = self.current.map(|place| self.places[place].earliest);
        let first = self.first().map(|place| self.places[place].earliest);
        current.into_iter().chain(first).min()
    }

    /// Removes and returns a timer that has passed, the earliest first. Each timer that is looked at takes
    /// one off `work`; with no work left the rest stays for the next call.
    pub(crate) fn pop(&mut self, now: u64, work: &mut usize) -> Option<T> {
        while *work > 0 {
            let Some(place) = self.due(now) else {
                self.elapsed = self.elapsed.max(now);
                return None;
            };
            *work -= 1;
            let index = self.places[place].first;
            self.unlink(index);
            let at = self.timers[index as usize].at;
            // From the lowest level alone, and not if it was restarted, so that they come in order.
            if place < SLOTS && at <= self.elapsed {
                return Some(self.release(index));
            }
            self.file(index);
        }
        None
    }

    /// Returns the place whose turn it is, if its time has come; it is not empty.
    fn due(&mut self, now: u64) -> Option<usize> {
        if let Some(place) = self.current
            && self.places[place].first != NIL
        {
            return Some(place);
        }
        self.current = None;
        let place = self.first()?;
        let start = start_of(place, self.elapsed);
        if start > now {
            return None;
        }
        self.elapsed = self.elapsed.max(start);
        self.current = Some(place);
        Some(place)
    }

    /// Returns the first place that is not empty. What is in lower levels passes earlier.
    fn first(&self) -> Option<usize> {
        let level = self.occupied.iter().position(|places| *places != 0)?;
        Some(level * SLOTS + self.occupied[level].trailing_zeros() as usize)
    }

    /// Puts a timer into the place for its time.
    fn file(&mut self, index: u32) {
        let at = self.timers[index as usize].at;
        let place = place_of(at.clamp(self.elapsed, LATEST), self.elapsed);
        let first = self.places[place].first;
        let prev = match first {
            NIL => index,
            // The list is a circle.
            _ => std::mem::replace(&mut self.timers[first as usize].prev, index),
        };
        let timer = &mut self.timers[index as usize];
        (timer.place, timer.prev) = (place as u32, prev);
        timer.next = if first == NIL { index } else { first };
        if first != NIL {
            self.timers[prev as usize].next = index;
        }
        let list = &mut self.places[place];
        if first == NIL {
            list.first = index;
            self.occupied[place / SLOTS] |= 1 << (place % SLOTS);
        }
        list.earliest = list.earliest.min(at);
    }

    fn unlink(&mut self, index: u32) {
        let Timer {
            next, prev, place, ..
        } = self.timers[index as usize];
        let place = place as usize;
        if next == index {
            self.places[place] = EMPTY;
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
            return;
        }
        self.timers[prev as usize].next = next;
        self.timers[next as usize].prev = prev;
        let list = &mut self.places[place];
        if list.first == index {
            list.first = next;
        }
    }

    /// Takes the value of a timer that is in no list.
    fn release(&mut self, index: u32) -> T {
        let timer = &mut self.timers[index as usize];
        timer.next = std::mem::replace(&mut self.unused, index);
        let value = timer.value;
        self.len -= 1;
        if self.len == 0 && self.timers.capacity() > MOST_KEPT {
            (self.timers, self.unused) = (Vec::new(), NIL);
        }
        value
    }
}

/// Returns the place for a time that is not before `elapsed`: its level is that of the highest digit in
/// which the two differ.
fn place_of(at: u64, elapsed: u64) -> usize {
    let differ = (at ^ elapsed) | (SLOTS as u64 - 1);
    let level = (u64::BITS - 1 - differ.leading_zeros()) / BITS;
    let level = level.min(LEVELS as u32 - 1);
    level as usize * SLOTS + (at >> (level * BITS)) as usize % SLOTS
}

/// Returns the first time of a place, given the digits above it.
fn start_of(place: usize, elapsed: u64) -> u64 {
    let (level, slot) = ((place / SLOTS) as u32, (place % SLOTS) as u64);
    let above = (level + 1) * BITS;
    elapsed >> above << above | slot << (level * BITS)
}

#[cfg(test)]
mod tests;
