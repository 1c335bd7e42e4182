//! Which worker of base mode takes a client that waits: one that is free, and not always the same.
//!
//! The kernel tells one worker of each client, the first in its queue that sleeps (EPOLLEXCLUSIVE,
//! epoll_ctl(2)). Here that one decides whether it takes the client or tells another, by what the
//! workers say of themselves in their slots.
//!
//! Runs in each worker. Its one rule: it only guides. What it sees of another may be stale, or said
//! by a worker that is dead, stopped or wild; a worker that tells another looks again itself.

use std::time::{Duration, Instant};

use crate::ipc::layout::{Shared, SlotMemory, SlotWords};
use crate::ipc::sleeper::Sleep;
use crate::ipc::sync::{Ordering, fence};
use crate::sys::doorbell::Doorbell;

/// How long a worker that was told of a client has to look, before the one that told it does.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1);

/// How often one that does not look is told all the same: on a machine that is busy, a worker may
/// take its time to wake up.
const TRIES: u32 = 4;

/// How long it is told of nothing then.
const SHUNNED: Duration = Duration::from_millis(100);

/// How many others are compared for one client; the next ones for the next. Each costs a few cache
/// misses.
const COMPARED: usize = 16;

pub(crate) struct Balance {
    own: Shared<SlotWords>,
    others: Vec<Other>,
    turnover: Turnover,
    sleep: Sleep,
    /// Where the next comparison begins.
    from: usize,
    /// The number of the last pending accept.
    pending: u64,
    /// The worker that was told of the last client, if that was not this one.
    told: Option<usize>,
    /// A pending accept of another worker: which worker, and its number.
    noticed: Option<(usize, u64)>,
}

/// How many of this worker's connections have lately come, and gone.
#[derive(Default)]
struct Turnover {
    came: u64,
    gone: u64,
    /// Of all times.
    total: (u64, u64),
}

impl Turnover {
    /// How many are remembered.
    const LATELY: u64 = 256;

    /// `came` and `gone` have come and gone since the worker was started.
    fn count(&mut self, came: u64, gone: u64) {
        let last = std::mem::replace(&mut self.total, (came, gone));
        self.came += came - last.0;
        self.gone = (self.gone + gone - last.1).min(self.came);
        while self.came > Self::LATELY {
            self.came /= 2;
            self.gone /= 2;
        }
    }

    /// How many of these connections are going to stay, if what comes next is like what came lately.
    fn lasting(&self, connections: u64) -> u64 {
        connections - connections * self.gone / self.came.max(1)
    }
}

/// Another slot. Its words are read-only here.
struct Other {
    words: Shared<SlotWords>,
    bell: Doorbell,
    told: Option<Told>,
    /// The number of its last pending accept that was looked into.
    settled: u64,
}

/// Of the last time that a worker was told of a client.
#[derive(Clone, Copy)]
struct Told {
    at: Instant,
    /// How often it had looked by then.
    looks: u64,
    /// How often it had been told since it looked last.
    tries: u32,
}

impl Other {
    fn looks(&self) -> u64 {
        self.words.looks.load(Ordering::Relaxed)
    }

    /// Whether it was told of a client and has not looked since.
    fn is_silent(&self) -> bool {
        self.told.is_some_and(|told| told.looks == self.looks())
    }

    /// Whether it was told again and again, and is not to be counted on.
    fn is_shunned(&self) -> bool {
        let is_given_up = |told: Told| told.tries >= TRIES && told.at.elapsed() < SHUNNED;
        self.is_silent() && self.told.is_some_and(is_given_up)
    }

    fn tell(&mut self) {
        let silent = self.told.filter(|_| self.is_silent());
        self.told = Some(Told {
            at: Instant::now(),
            looks: self.looks(),
            tries: silent.map_or(1, |told| told.tries % TRIES + 1),
        });
        self.bell.ring();
    }

    fn sight(&self) -> Option<Sight> {
        let words = &self.words;
        if words.accepting.load(Ordering::Relaxed) == 0 || self.is_shunned() {
            return None;
        }
        let doing = if words.activity.is_busy() {
            Doing::Callback
        } else if words.sleeper.is_asleep() {
            Doing::Nothing
        } else {
            Doing::Something
        };
        Some(Sight {
            connections: words.connections.load(Ordering::Relaxed),
            doing,
            is_told: self.is_silent(),
        })
    }
}

/// What one worker sees of another that accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sight {
    connections: u64,
    doing: Doing,
    /// It was told of a client and has not looked yet.
    is_told: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    /// It sleeps.
    Nothing,
    /// It is awake and in no callback.
    Something,
    Callback,
}

impl Sight {
    /// Whether it should take a client that a worker with `lasting` lasting connections was told of.
    fn should_take_it_from(self, lasting: u64) -> bool {
        let slack = (self.connections / 4).max(4);
        self.doing != Doing::Callback && lasting > self.connections + slack
    }
}

impl Balance {
    /// Called by a new worker: of the last one in its slot, nothing holds any more.
    pub(crate) fn new(slots: &[SlotMemory], slot: usize, generation: u32) -> Balance {
        let own = slots[slot].words.clone();
        own.void_accepting();
        own.sleeper.disarm();
        let other = |(_, memory): (usize, &SlotMemory)| Other {
            words: memory.words.clone(),
            bell: memory.bell.clone(),
            told: None,
            settled: 0,
        };
        let others = slots.iter().enumerate().filter(|(at, _)| *at != slot);
        Balance {
            own,
            others: others.map(other).collect(),
            turnover: Turnover::default(),
            sleep: Sleep::of(generation),
            from: 0,
            pending: u64::from(generation) << 32,
            told: None,
            noticed: None,
        }
    }

    // What this worker says of itself.

    /// How many connections it has and had, and whether it takes more.
    pub(crate) fn publish(&mut self, connections: u64, ever: u64, accepts: bool) {
        let accepts = u32::from(accepts);
        self.turnover.count(ever, ever - connections);
        self.own.connections.store(connections, Ordering::Relaxed);
        // Others look at it all the time, and a store takes the cache line from them.
        if self.own.accepting.load(Ordering::Relaxed) != accepts {
            self.own.accepting.store(accepts, Ordering::Relaxed);
        }
    }

    /// It is about to look whether a client waits.
    pub(crate) fn looks(&self) {
        let looks = self.own.looks.load(Ordering::Relaxed);
        self.own.looks.store(looks + 1, Ordering::Relaxed);
    }

    /// It was told of a client and has callbacks to run first, which may take their time: the accept
    /// is pending, and a worker that sleeps is told too.
    pub(crate) fn postpones(&mut self) {
        self.pending += 1;
        self.own.owes.store(self.pending, Ordering::Relaxed);
        // SYNC POINT with `falls_asleep`: of two workers that each write and then read, at least
        // one sees what the other wrote. Either this one sees that the other sleeps, and tells it,
        // or the other sees the pending accept, and looks before it sleeps.
        fence(Ordering::SeqCst);
        self.tell_any(|sight| sight.doing == Doing::Nothing && !sight.is_told);
    }

    /// Whether this worker has told another one of a client, stands aside, and that one has not
    /// looked yet: until it has, the client is this worker's to see to.
    pub(crate) fn awaits_another(&self) -> bool {
        self.told.is_some_and(|told| self.others[told].is_silent())
    }

    /// The callbacks are through, and it looks itself now.
    pub(crate) fn has_accepted(&self) {
        if self.own.owes.load(Ordering::Relaxed) != 0 {
            self.own.owes.store(0, Ordering::Relaxed);
        }
    }

    /// It is about to sleep. Not while an accept of another worker is pending, which may be stuck in a
    /// callback: then this worker is to look first. Returns whether it may sleep.
    pub(crate) fn falls_asleep(&mut self) -> bool {
        // Its fence is a SYNC POINT with `postpones`.
        self.own.sleeper.arm(&mut self.sleep);
        self.noticed = self.others.iter().enumerate().find_map(|(at, other)| {
            let pending = other.words.owes.load(Ordering::Relaxed);
            (pending != 0 && pending != other.settled).then_some((at, pending))
        });
        if self.noticed.is_some() {
            self.wakes();
        }
        self.noticed.is_none()
    }

    pub(crate) fn wakes(&self) {
        self.own.sleeper.disarm();
    }

    /// No client was there: what was pending when this worker was about to sleep is settled.
    pub(crate) fn found_none(&mut self) {
        if let Some((at, pending)) = self.noticed.take() {
            self.others[at].settled = pending;
        }
    }

    // Which worker takes the next one.

    /// Tells another worker of the client that this one was told of, if that one should take it.
    /// Returns whether it has: then this worker is to stand aside for as long as [`PATIENCE`].
    ///
    /// Where connections are short, it does not: they spread by themselves, and standing aside
    /// costs a fifth of the throughput on a machine that is busy, where the other one is late.
    pub(crate) fn passes_on(&mut self, mine: u64) -> bool {
        if let Some(told) = self.told.take()
            && self.others[told].is_silent()
        {
            return false; // It has not come. No more detours for that client.
        }
        let lasting = self.turnover.lasting(mine);
        self.told = self.best_at(|sight| sight.should_take_it_from(lasting));
        match self.told {
            Some(other) => self.others[other].tell(),
            None => return false,
        }
        true
    }

    /// Tells another worker, since this one takes none now: not one that was told already and has
    /// not come, unless there is no other.
    pub(crate) fn declines(&mut self) {
        if !self.tell_any(|sight| sight.doing != Doing::Callback && !sight.is_told) {
            self.tell_any(|sight| sight.doing != Doing::Callback);
        }
    }

    /// Whether a worker with fewer connections sleeps, so that the next client should be its.
    pub(crate) fn gives_way(&mut self, mine: u64) -> bool {
        let is_next = |sight: Sight| sight.doing == Doing::Nothing && sight.connections < mine;
        self.best_at(is_next).is_some()
    }

    /// Tells one that suits, the first that is found however many there are. Returns whether there was
    /// one.
    fn tell_any(&mut self, suits: impl Fn(Sight) -> bool) -> bool {
        for _ in 0..self.others.len().div_ceil(COMPARED) {
            if let Some(at) = self.best_at(&suits) {
                self.others[at].tell();
                return true;
            }
        }
        false
    }

    /// The one with the fewest connections of those that are compared now and suit.
    fn best_at(&mut self, suits: impl Fn(Sight) -> bool) -> Option<usize> {
        let (from, count) = (self.from, self.others.len());
        let compared = count.min(COMPARED);
        if compared < count {
            self.from = (from + compared) % count;
        }
        (from..from + compared)
            .map(|at| at % count)
            .filter_map(|at| Some((self.others[at].sight().filter(|it| suits(*it))?, at)))
            .min_by_key(|(sight, _)| sight.connections)
            .map(|(_, at)| at)
    }
}

#[cfg(all(test, not(miri)))] // Miri has no shared mappings.
mod tests {
    use super::*;
    use crate::conn_id::ConnId;
    use crate::event::Event;
    use crate::ipc::frame::Input;
    use crate::ipc::layout::Arena;
    use crate::peer::Peer;

    /// Workers that accept and sleep, with these numbers of connections.
    fn workers(connections: &[u64]) -> Vec<Balance> {
        let arena = Arena::new(connections.len(), 0, 0, 0).unwrap();
        let balance = |(slot, count): (usize, &u64)| {
            let mut balance = Balance::new(&arena.slots, slot, slot as u32 + 1);
            balance.publish(*count, *count, true);
            assert!(balance.falls_asleep());
            balance
        };
        connections.iter().enumerate().map(balance).collect()
    }

    /// The slot of the worker that was told by the one in slot 0.
    fn told_by_first(workers: &[Balance]) -> Option<usize> {
        workers[0].told.map(|at| at + 1)
    }

    fn begin_a_callback(worker: &Balance) {
        worker.own.activity.begin(&Input {
            kind: Event::Receive.into(),
            conn: ConnId::from_u64(1).unwrap(),
            peer: Peer::Ip(([127, 0, 0, 1], 1).into()),
            listener: 0,
            attempt: 0,
            detail: 0,
            deadline: 0,
            len: 0,
        });
    }

    #[test]
    fn the_one_with_the_fewest_connections_is_told() {
        let mut workers = workers(&[30, 9, 8, 10]);
        assert!(workers[0].passes_on(30));
        assert_eq!(told_by_first(&workers), Some(2));
        assert!(!workers[3].passes_on(10), "two more are no reason");
    }

    #[test]
    fn a_worker_that_can_not_come_is_not_told() {
        let mut workers = workers(&[30, 0, 1, 2, 3]);
        begin_a_callback(&workers[1]);
        workers[2].publish(1, 1, false);
        workers[3].own.void_accepting(); // Its manager has reaped it.
        assert!(workers[0].passes_on(30));
        assert_eq!(told_by_first(&workers), Some(4));
        workers[1].own.activity.end();
        assert!(!workers[0].gives_way(0));
        assert!(workers[0].gives_way(1));
    }

    #[test]
    fn a_worker_that_was_told_and_does_not_come_is_left_alone_after_a_while() {
        let mut workers = workers(&[30, 0]);
        for _ in 0..TRIES {
            assert!(workers[0].passes_on(30), "told");
            assert!(!workers[0].passes_on(30), "one detour for each client");
        }
        // As if it were just now, however long the test takes.
        workers[0].others[0].told.as_mut().unwrap().at += 100 * SHUNNED;
        assert!(!workers[0].passes_on(30), "left alone");
        workers[1].looks();
        assert!(workers[0].passes_on(30), "it has come");
    }

    #[test]
    fn a_worker_that_was_left_alone_is_told_again_later() {
        let mut workers = workers(&[30, 0]);
        workers[0].others[0].told = Some(Told {
            at: Instant::now().checked_sub(SHUNNED).unwrap(),
            looks: 0,
            tries: TRIES,
        });
        assert!(workers[0].passes_on(30));
    }

    #[test]
    fn connections_that_come_and_go_are_kept() {
        let mut workers = workers(&[0, 0]);
        for total in 0..1000 {
            workers[0].publish(40, 40 + total, true);
        }
        assert!(!workers[0].passes_on(40));
        for total in 0..300 {
            workers[0].publish(40 + total, 1040 + total, true);
        }
        assert!(workers[0].passes_on(340), "these have stayed");
    }

    #[test]
    fn a_worker_with_callbacks_to_run_tells_one_that_sleeps() {
        let mut workers = workers(&[0, 7, 5]);
        workers[2].wakes();
        workers[0].postpones();
        let told: Vec<bool> = workers[0].others.iter().map(Other::is_silent).collect();
        assert_eq!(told, [true, false]);
    }

    #[test]
    fn a_worker_does_not_fall_asleep_before_it_has_looked_for_another() {
        let mut workers = workers(&[0, 0]);
        workers[1].wakes();
        workers[0].postpones();
        assert!(!workers[1].falls_asleep());
        assert!(!workers[1].falls_asleep(), "an accept is pending");
        workers[1].found_none();
        assert!(workers[1].falls_asleep(), "once is enough");
        workers[0].postpones();
        assert!(!workers[1].falls_asleep(), "the next client is another");
        workers[0].has_accepted();
        assert!(workers[1].falls_asleep());
    }

    #[test]
    fn of_many_workers_each_has_its_turn_to_be_compared() {
        let mut counts = [30; 3 * COMPARED];
        counts[2 * COMPARED] = 0;
        let mut workers = workers(&counts);
        let passed = (0..3).filter(|_| workers[0].passes_on(30)).count();
        assert_eq!(passed, 1);
    }

    #[test]
    fn a_worker_that_declines_does_not_tell_the_one_again_that_did_not_come() {
        let mut workers = workers(&[100, 0, 50]);
        assert!(workers[0].passes_on(100));
        assert_eq!(told_by_first(&workers), Some(1));
        assert!(workers[0].awaits_another());
        workers[0].declines();
        assert!(workers[0].others[1].is_silent(), "the third one is told");
        // It looks, and the client is no longer this worker's to see to.
        workers[1].looks();
        assert!(!workers[0].awaits_another());
    }

    #[test]
    fn a_worker_that_sleeps_is_found_among_many() {
        let mut workers = workers(&[1; 40]);
        workers[1..39].iter().for_each(begin_a_callback);
        workers[0].postpones();
        assert!(
            workers[0].others[38].is_silent(),
            "the only one that sleeps is told"
        );
    }
}
