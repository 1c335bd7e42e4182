//! The frame that a worker has begun, and whether it may begin another: with these words a reactor
//! recalls frames from a worker that lives, and may be stuck, without waiting for it.
//!
//! The worker names the frame that it begins, full fence, looks whether it is barred. The reactor
//! bars it, full fence, looks which frame it has begun. Of the two, at least one sees the other: a
//! recalled frame is never run by the worker that it was recalled from.

use super::sync::{AtomicU64, Ordering, fence};

/// No frame begins here.
pub(crate) const NOWHERE: u64 = u64::MAX;

/// The words of both sides; all zero is an initial state, in which nothing is barred.
#[repr(C)]
pub(crate) struct Claim {
    /// Worker: the position of the frame that it has begun last.
    begun: Apart,
    /// Reactor: not 0 while nothing may be begun.
    barred: Apart,
}

/// Two cache lines, which are fetched as a pair, so that neither side's word slows the other's.
#[repr(C, align(128))]
struct Apart(AtomicU64);

impl Claim {
    #[cfg(loom)]
    pub(crate) fn new() -> Claim {
        Claim {
            begun: Apart(AtomicU64::new(NOWHERE)),
            barred: Apart(AtomicU64::new(0)),
        }
    }

    /// Worker: begins the frame at `start`. Returns whether it may; if not, the frame is not begun,
    /// and its header must not be read.
    pub(crate) fn begin(&self, start: u64) -> bool {
        let last = self.begun.0.load(Ordering::Relaxed);
        self.begun.0.store(start, Ordering::Relaxed);
        // SYNC POINT with `bar`. It also keeps the mark before anything that the callback does: a
        // death in the callback finds it.
        fence(Ordering::SeqCst);
        // SYNC POINT with `lift`: a worker that sees the bar lifted sees the frames as they were
        // changed meanwhile.
        if self.barred.0.load(Ordering::Acquire) == 0 {
            return true;
        }
        // Not to nothing: the last one is done, and a reactor that has not read that yet must not
        // take it for one that was never begun.
        self.begun.0.store(last, Ordering::Relaxed);
        false
    }

    /// Worker: whether it may begin anything. Rings follow a bar that is lifted.
    pub(crate) fn is_barred(&self) -> bool {
        self.barred.0.load(Ordering::Acquire) != 0
    }

    /// Reactor: lets nothing more be begun, and returns the position of the last frame begun.
    pub(crate) fn bar(&self) -> u64 {
        self.barred.0.store(1, Ordering::Relaxed);
        // SYNC POINT with `begin`.
        fence(Ordering::SeqCst);
        self.begun.0.load(Ordering::Relaxed)
    }

    /// Reactor: the end of [`bar`](Self::bar).
    pub(crate) fn lift(&self) {
        // SYNC POINT with `begin`.
        self.barred.0.store(0, Ordering::Release);
    }

    /// Reactor: the position of the last frame that a dead worker had begun.
    pub(crate) fn last_begun(&self) -> u64 {
        self.begun.0.load(Ordering::Relaxed)
    }

    /// Reactor, while no worker is attached: nothing is begun, and nothing barred.
    pub(crate) fn reset(&self) {
        self.begun.0.store(NOWHERE, Ordering::Relaxed);
        self.barred.0.store(0, Ordering::Relaxed);
    }
}
