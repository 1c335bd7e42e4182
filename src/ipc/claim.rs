//! Which frame a worker has begun, and whether it may begin another: how a reactor takes frames
//! back from a worker that lives, and may be stuck, without waiting for it.
//!
//! The worker says what it begins, full fence, looks whether it is barred. The reactor bars it, full
//! fence, looks what it has begun. Of the two, at least one sees the other: a frame that is taken
//! back is never run by the worker it was taken from.

use super::sync::{AtomicU64, Ordering, fence};

/// No frame begins here.
pub(crate) const NOWHERE: u64 = u64::MAX;

/// The words of both sides; all zero is an initial state, in which nothing is barred.
#[repr(C)]
pub(crate) struct Claim {
    /// Worker: where the frame begins that it has begun last.
    begun: AtomicU64,
    /// The other side's word is on a cache line of its own.
    apart: [u64; 15],
    /// Reactor: not 0 while nothing may be begun.
    barred: AtomicU64,
}

impl Claim {
    #[cfg(loom)]
    pub(crate) fn new() -> Claim {
        Claim {
            begun: AtomicU64::new(NOWHERE),
            apart: [0; 15],
            barred: AtomicU64::new(0),
        }
    }

    /// Worker: begins the frame at `start`. Says whether it may; if not, the frame is not begun, and
    /// its header not to be read.
    pub(crate) fn begin(&self, start: u64) -> bool {
        let last = self.begun.load(Ordering::Relaxed);
        self.begun.store(start, Ordering::Relaxed);
        // SYNC POINT with `bar`. It also keeps the mark before anything that the callback does: a
        // death in the callback finds it.
        fence(Ordering::SeqCst);
        // SYNC POINT with `lift`: who sees the bar lifted sees what was written meanwhile.
        if self.barred.load(Ordering::Acquire) == 0 {
            return true;
        }
        // Not to nothing: the last one is done, and whoever has not read that yet must not take it
        // for one that was never begun.
        self.begun.store(last, Ordering::Relaxed);
        false
    }

    /// Worker: whether it may begin anything. Rings follow a bar that is lifted.
    pub(crate) fn is_barred(&self) -> bool {
        self.barred.load(Ordering::Acquire) != 0
    }

    /// Reactor: lets nothing more be begun, and says what was begun last.
    pub(crate) fn bar(&self) -> u64 {
        self.barred.store(1, Ordering::Relaxed);
        // SYNC POINT with `begin`.
        fence(Ordering::SeqCst);
        self.begun.load(Ordering::Relaxed)
    }

    /// Reactor: the end of [`bar`](Self::bar).
    pub(crate) fn lift(&self) {
        // SYNC POINT with `begin`.
        self.barred.store(0, Ordering::Release);
    }

    /// Reactor: what a worker that is dead had begun last.
    pub(crate) fn last_begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Reactor, while no worker is attached: nothing is begun, and nothing barred.
    pub(crate) fn reset(&self) {
        self.begun.store(NOWHERE, Ordering::Relaxed);
        self.barred.store(0, Ordering::Relaxed);
    }
}
