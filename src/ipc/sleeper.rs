//! Sleeping and waking: the protocol by which a doorbell is rung only for a side that has announced
//! its sleep.
//!
//! Arm, full fence, look again, sleep. Publish, full fence, look whether the other side sleeps,
//! ring.

use super::sync::{AtomicU64, Ordering, fence};

/// Whether a side sleeps: 0 while it is awake, the number of its sleep while it sleeps. Lives in
/// the arena; the sleeper alone writes it, so a ringer that is killed half way changes nothing for
/// the other ringers.
#[derive(Default)]
pub(crate) struct Sleeper {
    sleep: AtomicU64,
}

impl Sleeper {
    #[cfg(loom)]
    pub(crate) fn new() -> Sleeper {
        Sleeper {
            sleep: AtomicU64::new(0),
        }
    }

    /// Announces that this side is about to sleep. It must look at every ring again before it does.
    pub(crate) fn arm(&self, sleep: &mut Sleep) {
        sleep.0 += 1;
        self.sleep.store(sleep.0, Ordering::Relaxed);
        // SYNC POINT with `Ringer::due`: of two sides that each write and then read, at least one
        // sees the other's word. Either the ringer sees the sleep, or the second look sees the
        // published frames.
        fence(Ordering::SeqCst);
    }

    /// Announces that this side is awake, and will look at every ring before it sleeps again.
    pub(crate) fn disarm(&self) {
        self.sleep.store(0, Ordering::Relaxed);
    }

    /// Whether this side sleeps, or is about to.
    pub(crate) fn is_asleep(&self) -> bool {
        self.sleep.load(Ordering::Relaxed) != 0
    }
}

/// The sleeper's own count of its sleeps. No two incarnations in a slot ever have a number in
/// common: a ringer that has rung for the last sleep of one must not take the first sleep of the
/// next for the same.
pub(crate) struct Sleep(u64);

impl Sleep {
    /// The sleeps of one generation: 2^40 of them, enough for years.
    pub(crate) fn of(generation: u32) -> Sleep {
        Sleep(u64::from(generation) << 40)
    }
}

/// A ringer's memory of the last sleep it rang for: it rings once a sleep.
#[derive(Default)]
pub(crate) struct Ringer(u64);

impl Ringer {
    /// Whether the bell must be rung for the frames published before this call.
    pub(crate) fn due(&mut self, sleeper: &Sleeper) -> bool {
        // SYNC POINT with `Sleeper::arm`.
        fence(Ordering::SeqCst);
        let sleep = sleeper.sleep.load(Ordering::Relaxed);
        if sleep == 0 || sleep == self.0 {
            return false;
        }
        self.0 = sleep;
        true
    }
}
