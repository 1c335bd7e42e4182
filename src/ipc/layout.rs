//! The arena: all memory that the processes of a server share, made before the first fork.
//!
//! Its one rule: a worker can be given its own slot's part and no other, so that a stray write
//! reaches none of its neighbours.

use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use super::activity::Activity;
use super::claim::Claim;
use super::memory::Ring;
use super::sleeper::Sleeper;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::sys::doorbell::Doorbell;
use crate::sys::memory::{Mapping, SharedFile, page};

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
}

impl SlotWords {
    /// Forgets the words of the last worker in the slot about accepting. Called by the next worker,
    /// and by the manager when it has reaped the last one.
    pub(crate) fn void_accepting(&self) {
        self.accepting.store(0, Ordering::Relaxed);
        self.pending_accept.store(0, Ordering::Relaxed);
        self.connections.store(0, Ordering::Relaxed);
    }
}

/// The manager's orders to the worker in a slot; read-only in a worker, so that a stray write can't
/// send its successors away.
#[repr(C)]
pub(crate) struct OrderWords {
    /// Workers up to this generation finish their frame and leave.
    pub(crate) leave: Line<AtomicU32>,
    /// Not 0 when the whole server stops: nothing is worth waiting for.
    pub(crate) stopping: Line<AtomicU32>,
    /// The worker's seat plus 1; 0 while it stands by.
    pub(crate) seat: Line<AtomicU32>,
}

/// The words of one reactor, read-only in a worker.
#[repr(C)]
pub(crate) struct ReactorWords {
    pub(crate) sleeper: Line<Sleeper>,
    /// How many connections it has.
    pub(crate) connections: Line<AtomicU64>,
    /// How many connections it has accepted since the start.
    pub(crate) accepted: Line<AtomicU64>,
    /// How many messages have killed as many workers as the policy allows.
    pub(crate) poisoned: Line<AtomicU64>,
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

/// The memory of one link.
#[derive(Clone)]
pub(crate) struct LinkMemory {
    pub(crate) words: Shared<LinkWords>,
    pub(crate) inbox: Arc<Ring>,
    pub(crate) outbox: Arc<Ring>,
}

/// The memory that the worker in a slot shares with the master and the manager.
#[derive(Clone)]
pub(crate) struct SlotMemory {
    pub(crate) words: Shared<SlotWords>,
    pub(crate) orders: Shared<OrderWords>,
    pub(crate) bell: Doorbell,
    /// By reactor.
    pub(crate) links: Vec<LinkMemory>,
    mapping: Arc<Mapping>,
}

/// The place of a slot's rings in the file, one after the other, and the length of each.
struct Rings<'a> {
    file: &'a SharedFile,
    offset: usize,
    inbox: usize,
    outbox: usize,
}

impl SlotMemory {
    fn new(
        mapping: Arc<Mapping>,
        orders: Shared<OrderWords>,
        reactors: usize,
        rings: Rings<'_>,
    ) -> io::Result<SlotMemory> {
        let Rings {
            file,
            mut offset,
            inbox,
            outbox,
        } = rings;
        let mut links = Vec::new();
        for reactor in 0..reactors {
            let words_at = size_of::<SlotWords>() + reactor * size_of::<LinkWords>();
            links.push(LinkMemory {
                words: place(&mapping, words_at),
                inbox: Arc::new(Ring::map(file, offset, inbox)?),
                outbox: Arc::new(Ring::map(file, offset + inbox, outbox)?),
            });
            offset += inbox + outbox;
        }
        let words = place(&mapping, 0);
        Ok(SlotMemory {
            words,
            orders,
            bell: Doorbell::new()?,
            links,
            mapping,
        })
    }

    /// Called in a worker: the memory that the reactors write becomes read-only, and no child of the
    /// worker gets any of it.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.mapping.keep_from_children()?;
        for link in &self.links {
            link.inbox.forbid_writing()?;
            link.inbox.keep_from_children()?;
            link.outbox.keep_from_children()?;
        }
        Ok(())
    }
}

/// The memory that a reactor shares with the processes that wake it.
#[derive(Clone)]
pub(crate) struct ReactorMemory {
    pub(crate) words: Shared<ReactorWords>,
    pub(crate) bell: Doorbell,
}

/// The arena of a server in process mode.
pub(crate) struct Arena {
    pub(crate) slots: Vec<SlotMemory>,
    pub(crate) reactors: Vec<ReactorMemory>,
    master_mapping: Arc<Mapping>,
}

impl Arena {
    /// Makes and maps it. Pages are taken from the machine only when they are first touched.
    pub(crate) fn new(
        slots: usize,
        reactors: usize,
        inbox: usize,
        outbox: usize,
    ) -> io::Result<Arena> {
        // In base mode there are no reactors, and no rings.
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let orders_at = reactors * size_of::<ReactorWords>();
        let orders_len = slots
            .checked_mul(size_of::<OrderWords>())
            .ok_or_else(too_large)?;
        let master_len = (orders_at + orders_len).next_multiple_of(page());
        let words_len =
            (size_of::<SlotWords>() + reactors * size_of::<LinkWords>()).next_multiple_of(page());
        let rings_len = reactors
            .checked_mul(inbox + outbox)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let slot_len = words_len
            .checked_add(rings_len)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let len = slot_len
            .checked_mul(slots)
            .and_then(|len| len.checked_add(master_len));
        let file = SharedFile::new("tine-arena", len.ok_or(io::ErrorKind::OutOfMemory)?)?;

        let master_mapping = Arc::new(file.map(0, master_len)?);
        let mut arena = Arena {
            slots: Vec::new(),
            reactors: Vec::new(),
            master_mapping: Arc::clone(&master_mapping),
        };
        for reactor in 0..reactors {
            let words = place(&master_mapping, reactor * size_of::<ReactorWords>());
            arena.reactors.push(ReactorMemory {
                words,
                bell: Doorbell::new()?,
            });
        }
        for slot in 0..slots {
            let orders = place(&master_mapping, orders_at + slot * size_of::<OrderWords>());
            let offset = master_len + slot * slot_len;
            let mapping = Arc::new(file.map(offset, words_len)?);
            let rings = Rings {
                file: &file,
                offset: offset + words_len,
                inbox,
                outbox,
            };
            arena
                .slots
                .push(SlotMemory::new(mapping, orders, reactors, rings)?);
        }
        Ok(arena)
    }

    /// Called in a worker: keeps this slot's part alone.
    pub(crate) fn enter(self, slot: usize) -> io::Result<(SlotMemory, Vec<ReactorMemory>)> {
        self.master_mapping.forbid_writing()?;
        self.master_mapping.keep_from_children()?;
        let slot = self
            .slots
            .into_iter()
            .nth(slot)
            .expect("a worker's slot is one of the arena's");
        slot.enter()?;
        Ok((slot, self.reactors))
    }

    /// Called in a worker of base mode: the other slots stay readable, so that the workers can share
    /// out the clients that wait.
    pub(crate) fn enter_among(self, slot: usize) -> io::Result<Vec<SlotMemory>> {
        self.master_mapping.forbid_writing()?;
        self.master_mapping.keep_from_children()?;
        for (number, memory) in self.slots.iter().enumerate() {
            memory.enter()?;
            if number != slot {
                memory.mapping.forbid_writing()?;
            }
        }
        Ok(self.slots)
    }
}

/// The `T` at `offset` of a mapping.
fn place<T>(mapping: &Arc<Mapping>, offset: usize) -> Shared<T> {
    assert!(offset + size_of::<T>() <= mapping.len() && offset.is_multiple_of(align_of::<T>()));
    // SAFETY: the offset lies within the mapping.
    let at = unsafe { mapping.start().add(offset) }.cast();
    Shared {
        mapping: Arc::clone(mapping),
        at,
        marker: PhantomData,
    }
}

#[cfg(all(test, not(miri)))] // Miri has no shared mappings.
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_words_and_rings_of_its_own() {
        let arena = Arena::new(2, 2, 8192, 4096).unwrap();
        for (number, slot) in arena.slots.iter().enumerate() {
            slot.words
                .connections
                .store(number as u64 + 1, Ordering::Relaxed);
            for (reactor, link) in slot.links.iter().enumerate() {
                link.words.claim.begin(10 + reactor as u64);
                link.inbox
                    .write(0, &[number as u8 * 2 + reactor as u8; 8192]);
                link.outbox
                    .write(0, &[100 + number as u8 * 2 + reactor as u8; 4096]);
            }
        }
        for (number, slot) in arena.slots.iter().enumerate() {
            assert_eq!(
                slot.words.connections.load(Ordering::Relaxed),
                number as u64 + 1
            );
            for (reactor, link) in slot.links.iter().enumerate() {
                assert_eq!(link.words.claim.last_begun(), 10 + reactor as u64);
                assert_eq!(
                    link.inbox.read::<8192>(4096),
                    [number as u8 * 2 + reactor as u8; 8192]
                );
                assert_eq!(
                    link.outbox.read::<4096>(0),
                    [100 + number as u8 * 2 + reactor as u8; 4096]
                );
            }
        }
    }

    #[test]
    fn an_arena_larger_than_memory_is_refused() {
        assert!(Arena::new(usize::MAX / 2, 2, 4096, 4096).is_err());
    }
}
