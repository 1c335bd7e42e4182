//! The balance of base mode: which worker accepts the next client. A free one, and not always the same.
//!
//! The kernel notifies one worker of each client, the first sleeping one in its queue (EPOLLEXCLUSIVE,
//! epoll_ctl(2)). That worker decides here whether it accepts the client or notifies another worker, by
//! the words that each worker publishes in its slot. A *pending accept* is a client in a listener's
//! queue that a worker was notified of and has not accepted.
//!
//! Runs in each base mode worker. Its one rule: it only guides. The words of another worker may be
//! stale, and that worker dead, stopped or faulty; a worker that notifies another one checks the queue
//! again itself.

use std::time::{Duration, Instant};

use crate::ipc::arena::SlotMemory;
use crate::ipc::layout::{Shared, SlotWords};
use crate::ipc::sleeper::Sleep;
use crate::ipc::sync::{Ordering, fence};
use crate::sys::doorbell::Doorbell;

/// How long a notified worker has to check the queue, before the worker that notified it does.
pub(crate) const HANDOFF_TIMEOUT: Duration = Duration::from_millis(1);

/// How many times a worker that does not check is notified all the same: on a busy machine, waking up
/// may take a while.
const NOTIFICATIONS: u32 = 4;

/// How long it is not notified after that.
const AVOIDED_FOR: Duration = Duration::from_millis(100);

/// How many other workers are compared for one client; for the next client, the next ones. Each costs
/// a few cache misses.
const COMPARED: usize = 16;

/// One worker's part in the balance.
pub(crate) struct Balance {
    own: Shared<SlotWords>,
    others: Vec<Other>,
    turnover: Turnover,
    sleep: Sleep,
    /// Where the next comparison begins.
    from: usize,
    /// The number of this worker's last pending accept.
    pending: u64,
    /// The worker that the last client was handed off to.
    notified: Option<usize>,
    /// Another worker's pending accept, seen before this one was to sleep: which worker, and the number.
    seen: Option<(usize, u64)>,
}

/// How many of this worker's connections were opened and closed lately.
#[derive(Default)]
struct Turnover {
    opened: u64,
    closed: u64,
    /// Opened and closed since the worker was started.
    total: (u64, u64),
}

impl Turnover {
    /// The number of opened connections at which both counts are halved.
    const WINDOW: u64 = 256;

    /// Records the connections opened and closed since the worker was started.
    fn count(&mut self, opened: u64, closed: u64) {
        let last = std::mem::replace(&mut self.total, (opened, closed));
        self.opened += opened - last.0;
        self.closed = (self.closed + closed - last.1).min(self.opened);
        while self.opened > Self::WINDOW {
            self.opened /= 2;
            self.closed /= 2;
        }
    }

    /// Returns how many of `connections` will stay open, if they are like the latest ones.
    fn lasting(&self, connections: u64) -> u64 {
        connections - connections * self.closed / self.opened.max(1)
    }
}

/// Another slot. Its words are read-only here.
struct Other {
    words: Shared<SlotWords>,
    bell: Doorbell,
    notified: Option<Notification>,
    /// The number of its last pending accept for which this worker has checked the queue.
    settled: u64,
}

/// The last notification of a worker.
#[derive(Clone, Copy)]
struct Notification {
    at: Instant,
    /// The worker's count of checks at that time.
    checks: u64,
    /// How many times it was notified since its last check.
    count: u32,
}

impl Other {
    fn checks(&self) -> u64 {
        self.words.checks.load(Ordering::Relaxed)
    }

    /// Whether it was notified and has not checked the queue since.
    fn is_outstanding(&self) -> bool {
        self.notified
            .is_some_and(|notified| notified.checks == self.checks())
    }

    /// Whether it was notified repeatedly without a check, and gets none for a while.
    fn is_unresponsive(&self) -> bool {
        let is_given_up = |notified: Notification| {
            notified.count >= NOTIFICATIONS && notified.at.elapsed() < AVOIDED_FOR
        };
        self.is_outstanding() && self.notified.is_some_and(is_given_up)
    }

    fn notify(&mut self) {
        let outstanding = self.notified.filter(|_| self.is_outstanding());
        self.notified = Some(Notification {
            at: Instant::now(),
            checks: self.checks(),
            count: outstanding.map_or(1, |last| last.count % NOTIFICATIONS + 1),
        });
        self.bell.ring();
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let words = &self.words;
        if words.accepting.load(Ordering::Relaxed) == 0 || self.is_unresponsive() {
            return None;
        }
        let phase = if words.activity.is_busy() {
            Phase::InCallback
        } else if words.sleeper.is_asleep() {
            Phase::Asleep
        } else {
            Phase::Awake
        };
        Some(Snapshot {
            connections: words.connections.load(Ordering::Relaxed),
            phase,
            is_notified: self.is_outstanding(),
        })
    }
}

/// The published state of another worker that accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Snapshot {
    connections: u64,
    phase: Phase,
    /// It was notified and has not checked the queue yet.
    is_notified: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Asleep,
    /// Awake, and in no callback.
    Awake,
    InCallback,
}

impl Snapshot {
    /// Whether it should accept a client in place of a worker with `lasting` lasting connections.
    fn should_accept_for(self, lasting: u64) -> bool {
        let slack = (self.connections / 4).max(4);
        self.phase != Phase::InCallback && lasting > self.connections + slack
    }
}

impl Balance {
    /// Called by a new worker: clears the words of the worker before it in the slot.
    pub(crate) fn new(slots: &[SlotMemory], slot: usize, generation: u32) -> Balance {
        let own = slots[slot].words.clone();
        own.void_accepting();
        own.sleeper.disarm();
        let other = |(_, memory): (usize, &SlotMemory)| Other {
            words: memory.words.clone(),
            bell: memory.bell.clone(),
            notified: None,
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
            notified: None,
            seen: None,
        }
    }

    // The state that this worker publishes.

    /// Publishes how many connections it has, has accepted in all, and whether it accepts more.
    pub(crate) fn publish(&mut self, connections: u64, accepted: u64, accepts: bool) {
        let accepts = u32::from(accepts);
        self.turnover.count(accepted, accepted - connections);
        self.own.connections.store(connections, Ordering::Relaxed);
        // The others read it all the time, and a store takes the cache line from them.
        if self.own.accepting.load(Ordering::Relaxed) != accepts {
            self.own.accepting.store(accepts, Ordering::Relaxed);
        }
    }

    /// Counts a check of the queue, which follows.
    pub(crate) fn record_check(&self) {
        let checks = self.own.checks.load(Ordering::Relaxed);
        self.own.checks.store(checks + 1, Ordering::Relaxed);
    }

    /// Publishes a pending accept: this worker was notified of a client, and has callbacks to run first,
    /// which may take long. A sleeping worker is notified too.
    pub(crate) fn defer_accept(&mut self) {
        self.pending += 1;
        self.own
            .pending_accept
            .store(self.pending, Ordering::Relaxed);
        // SYNC POINT with `try_sleep`: of two workers that each write and then read, at least one reads
        // the other's write. Either this one sees that the other sleeps, and notifies it, or the other
        // sees the pending accept, and checks the queue before it sleeps.
        fence(Ordering::SeqCst);
        self.notify_any(|other| other.phase == Phase::Asleep && !other.is_notified);
    }

    /// Whether the worker that the last client was handed off to has not checked the queue yet. Until it
    /// has, the client remains this worker's pending accept.
    pub(crate) fn is_handoff_outstanding(&self) -> bool {
        self.notified
            .is_some_and(|notified| self.others[notified].is_outstanding())
    }

    /// Clears the pending accept: the callbacks have returned, and this worker checks the queue now.
    pub(crate) fn clear_pending(&self) {
        if self.own.pending_accept.load(Ordering::Relaxed) != 0 {
            self.own.pending_accept.store(0, Ordering::Relaxed);
        }
    }

    /// Marks this worker as asleep and returns true, unless another worker has a pending accept, which
    /// may be stuck in a callback: then this worker has to check the queue first.
    pub(crate) fn try_sleep(&mut self) -> bool {
        // Its fence is a SYNC POINT with `defer_accept`.
        self.own.sleeper.arm(&mut self.sleep);
        self.seen = self.others.iter().enumerate().find_map(|(at, other)| {
            let pending = other.words.pending_accept.load(Ordering::Relaxed);
            (pending != 0 && pending != other.settled).then_some((at, pending))
        });
        if self.seen.is_some() {
            self.wake();
        }
        self.seen.is_none()
    }

    pub(crate) fn wake(&self) {
        self.own.sleeper.disarm();
    }

    /// This worker has checked the queue and found no client: the pending accept that kept it from
    /// sleeping does not do so again.
    pub(crate) fn settle_pending(&mut self) {
        if let Some((at, pending)) = self.seen.take() {
            self.others[at].settled = pending;
        }
    }

    // Which worker accepts the next client.

    /// Hands off the client that this worker was notified of, if another worker with fewer connections
    /// should accept it, and notifies that one. Returns whether it did: then this worker stands aside
    /// for [`HANDOFF_TIMEOUT`].
    ///
    /// Short connections are not handed off: they spread by themselves, and standing aside costs a
    /// fifth of the throughput on a busy machine, where the other worker is late.
    pub(crate) fn hand_off(&mut self, mine: u64) -> bool {
        if let Some(notified) = self.notified.take()
            && self.others[notified].is_outstanding()
        {
            return false; // That worker did not check the queue. One client is handed off once.
        }
        let lasting = self.turnover.lasting(mine);
        self.notified = self.best(|other| other.should_accept_for(lasting));
        match self.notified {
            Some(other) => self.others[other].notify(),
            None => return false,
        }
        true
    }

    /// Notifies another worker, as this one accepts no client now: one without an outstanding
    /// notification, if there is any.
    pub(crate) fn notify_other(&mut self) {
        if !self.notify_any(|other| other.phase != Phase::InCallback && !other.is_notified) {
            self.notify_any(|other| other.phase != Phase::InCallback);
        }
    }

    /// Whether a worker with fewer connections sleeps, which should be the next in the kernel's queue.
    pub(crate) fn should_step_back(&mut self, mine: u64) -> bool {
        let is_next = |other: Snapshot| other.phase == Phase::Asleep && other.connections < mine;
        self.best(is_next).is_some()
    }

    /// Notifies the first suitable worker found among all others. Returns whether there was one.
    fn notify_any(&mut self, suits: impl Fn(Snapshot) -> bool) -> bool {
        for _ in 0..self.others.len().div_ceil(COMPARED) {
            if let Some(at) = self.best(&suits) {
                self.others[at].notify();
                return true;
            }
        }
        false
    }

    /// Returns the suitable worker with the fewest connections, of the next [`COMPARED`] ones.
    fn best(&mut self, suits: impl Fn(Snapshot) -> bool) -> Option<usize> {
        let (from, count) = (self.from, self.others.len());
        let compared = count.min(COMPARED);
        if compared < count {
            self.from = (from + compared) % count;
        }
        (from..from + compared)
            .map(|at| at % count)
            .filter_map(|at| Some((self.others[at].snapshot().filter(|it| suits(*it))?, at)))
            .min_by_key(|(other, _)| other.connections)
            .map(|(_, at)| at)
    }
}

#[cfg(all(test, not(miri)))] // Miri has no shared mappings.
mod tests;
