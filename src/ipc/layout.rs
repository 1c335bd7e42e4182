//! The words that the processes of a server share, as structs of atomics at places in shared memory.
//! Which process has which of them is in [`arena`](super::arena).

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use super::activity::Activity;
use super::answer::Answer;
use super::claim::Claim;
use super::sleeper::Sleeper;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::sys::memory::Mapping;

/// A value on cache lines of its own: two, since processors fetch them in pairs.
#[repr(C, align(128))]
#[derive(Default)]
pub(crate) struct Line<T>(T);

impl<T> Deref for Line<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The words of one slot, written by the worker in it. All zero is their initial state.
#[repr(C)]
pub(crate) struct SlotWords {
    /// Whether the worker sleeps; every reactor looks at it.
    pub(crate) sleeper: Line<Sleeper>,
    /// The callback that it is in, for the watchdog.
    pub(crate) activity: Line<Activity>,
    /// In base mode: the generation of the last connection id. The next worker goes on from it.
    pub(crate) names: Line<AtomicU32>,
    /// In base mode: how many connections it has.
    pub(crate) connections: Line<AtomicU64>,
    /// In base mode: not 0 while it accepts.
    pub(crate) accepting: Line<AtomicU32>,
    /// In base mode: how often it has checked the listeners for a client.
    pub(crate) checks: Line<AtomicU64>,
    /// In base mode: the number of its pending accept, new for each one; 0 while it has none.
    pub(crate) pending_accept: Line<AtomicU64>,
    /// In base mode: how many connections it has taken over from the manager.
    pub(crate) taken: Line<AtomicU64>,
}

impl SlotWords {
    /// In base mode, forgets the words of the last worker in the slot about accepting. Called by the next
    /// worker, and by the manager when it has reaped the last one.
    pub(crate) fn void_accepting(&self) {
        self.accepting.store(0, Ordering::Relaxed);
        self.pending_accept.store(0, Ordering::Relaxed);
        self.taken.store(0, Ordering::Relaxed);
        self.connections.store(0, Ordering::Relaxed);
    }
}

/// The manager's orders to the worker in a slot; read-only in every worker, for good.
#[repr(C)]
pub(crate) struct OrderWords {
    /// Workers up to this generation finish their frame and leave.
    pub(crate) leave: Line<AtomicU32>,
    /// Not 0 when the whole server stops: nothing is worth waiting for.
    pub(crate) stopping: Line<AtomicU32>,
    /// The worker's seat plus 1; 0 while it stands by.
    pub(crate) seat: Line<AtomicU32>,
}

/// The words of one reactor, read-only in every worker, for good.
#[repr(C)]
pub(crate) struct ReactorWords {
    pub(crate) sleeper: Line<Sleeper>,
    /// How many connections it has.
    pub(crate) connections: Line<AtomicU64>,
    /// How many connections it has accepted since the start.
    pub(crate) accepted: Line<AtomicU64>,
    /// How many messages have killed as many workers as the policy allows.
    pub(crate) poisoned: Line<AtomicU64>,
    /// How many bytes it keeps for users: states, timers, groups and posts.
    pub(crate) kept: Line<AtomicU64>,
    /// Of the first reactor, counted by all: the tasks that wait or run, and their bytes.
    pub(crate) tasks: Line<AtomicU64>,
    pub(crate) task_bytes: Line<AtomicU64>,
    /// Of the first reactor, counted by all: the files that are being sent, and how often they became fewer than they
    /// may be.
    pub(crate) files: Line<AtomicU64>,
    pub(crate) files_fell: Line<AtomicU64>,
}

/// The words of one link.
#[repr(C)]
pub(crate) struct LinkWords {
    /// Reactor: the end of the frames that it has published in the inbox.
    pub(crate) inbox_published: Line<AtomicU64>,
    /// Reactor: how far it has read the outbox.
    pub(crate) outbox_consumed: Line<AtomicU64>,
    /// Reactor: the incarnation that the link is open for, and where it begins.
    pub(crate) opening: Line<Opening>,
    /// Worker: the end of the frames that it has published in the outbox. Reactor, while the worker
    /// has nothing to do: where they begin.
    pub(crate) outbox_published: Line<AtomicU64>,
    /// Both: the frame that is handed to a callback, and whether the next one may be.
    pub(crate) claim: Line<Claim>,
    /// Reactor: the answer to a question of the worker.
    pub(crate) answer: Line<Answer>,
    /// Worker: not 0 if it also publishes while it has no frame, so that the rings can't be rewound.
    pub(crate) posts_aside: Line<AtomicU32>,
    /// Worker: that it waits for room in the outbox.
    pub(crate) room: Line<Sleeper>,
    /// Worker: its pid, for the reactor that is to kill it.
    #[cfg(feature = "test-hooks")]
    pub(crate) pid: Line<AtomicU32>,
}

/// Where an incarnation begins to use a link.
#[repr(C)]
pub(crate) struct Opening {
    /// The generation that may use the link; stored last.
    pub(crate) generation: AtomicU32,
    /// The first inbox frame that is not retired.
    pub(crate) inbox: AtomicU64,
    /// The position of the next frame of the outbox.
    pub(crate) outbox: AtomicU64,
}

/// A `T` in shared memory, all of whose fields are atomics.
pub(crate) struct Shared<T> {
    mapping: Arc<Mapping>,
    at: NonNull<T>,
    marker: PhantomData<T>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared {
            mapping: Arc::clone(&self.mapping),
            at: self.at,
            marker: PhantomData,
        }
    }
}

impl<T> Shared<T> {
    /// The `T` at `offset` of a mapping.
    pub(super) fn place(mapping: &Arc<Mapping>, offset: usize) -> Shared<T> {
        assert!(offset + size_of::<T>() <= mapping.len() && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: the offset lies within the mapping.
        let at = unsafe { mapping.start().add(offset) }.cast();
        Shared {
            mapping: Arc::clone(mapping),
            at,
            marker: PhantomData,
        }
    }

    /// Children of this process do not get the memory.
    pub(super) fn keep_from_children(&self) -> std::io::Result<()> {
        self.mapping.keep_from_children()
    }

    /// A part of the same mapping.
    pub(crate) fn project<U>(&self, part: impl FnOnce(&T) -> &U) -> Shared<U> {
        Shared {
            mapping: Arc::clone(&self.mapping),
            at: NonNull::from(part(self)),
            marker: PhantomData,
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: `at` points to a `T` within `mapping`, which lives as long as `self`; every bit
        // pattern of its atomics is valid, so whatever other processes write there is a
        // `T`.
        unsafe { self.at.as_ref() }
    }
}

// SAFETY: a `T` of atomics may be used from everywhere, and the mapping too.
unsafe impl<T: Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Shared<T> {}
