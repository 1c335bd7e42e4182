//! The arena: the memory that the processes of a server share, and the part of it that each process has.
//!
//! Its one rule: a process maps its own part and keeps no descriptor of any other. A worker can't reach a
//! neighbour's memory, nor write what is read-only for it, whatever it does:
//!
//! - each worker process has files of its own, new for each incarnation, so that neither a mapping that it
//!   grows nor a process that it has left behind finds anybody else's bytes;
//! - what it may only read is in a file of its own, which it maps from a description that can't write;
//! - it has doorbells of its own, which no other worker can swallow or fill. It does not have the one that
//!   wakes itself, which it could make block for the master: it has an epoll that watches that one.
//!
//! The manager makes the files of a worker right before its fork, and sends them to the master.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::files::FileInbox;
use super::layout::{LinkWords, OrderWords, ReactorWords, Shared, SlotWords};
use super::memory::Ring;
use crate::config::Config;
use crate::sys::doorbell::Doorbell;
use crate::sys::memory::{Mapping, SharedFile, page, reserve};
use crate::sys::parcel::{self, Receiver, Sender};

/// The number of reactors, and the bytes of each ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sizes {
    pub(crate) reactors: usize,
    pub(crate) inbox: usize,
    pub(crate) outbox: usize,
}

/// The memory of one link.
#[derive(Clone)]
pub(crate) struct LinkMemory {
    pub(crate) words: Shared<LinkWords>,
    /// Read-only in the worker.
    pub(crate) inbox: Arc<Ring>,
    /// Read-only in the master.
    pub(crate) outbox: Arc<Ring>,
    /// Wakes the reactor. Only this worker has it, so that no other one can swallow its rings.
    pub(crate) bell: Doorbell,
}

/// The memory of one worker process, as manager and master have it.
#[derive(Clone)]
pub(crate) struct SlotMemory {
    pub(crate) words: Shared<SlotWords>,
    /// Written by the manager alone.
    pub(crate) orders: Shared<OrderWords>,
    /// Wakes the worker.
    pub(crate) bell: Doorbell,
    /// By reactor; none in the manager.
    pub(crate) links: Vec<LinkMemory>,
    /// The files that the worker sends; only in the master.
    pub(crate) files: Option<Arc<FileInbox>>,
}

/// The memory of one worker process, as that process has it.
pub(crate) struct WorkerMemory {
    pub(crate) words: Shared<SlotWords>,
    pub(crate) orders: Shared<OrderWords>,
    /// By reactor.
    pub(crate) links: Vec<LinkMemory>,
}

/// The files and doorbells of one worker process of process mode, from which each process maps its part.
#[derive(Debug)]
pub(crate) struct SlotFiles {
    sizes: Sizes,
    /// The slot's words, those of its links, and the outboxes: the worker writes them.
    written: SharedFile,
    /// The orders, and the inboxes: the worker reads them.
    read: SharedFile,
    bell: Doorbell,
    /// By reactor.
    reactor_bells: Vec<Doorbell>,
    /// For the descriptors of files: the worker's end, which only it has after its fork, and the master's.
    sender: Option<Sender>,
    receiver: Receiver,
}

impl Sizes {
    pub(crate) fn of(config: &Config) -> Sizes {
        Sizes {
            reactors: config.reactors,
            inbox: config.inbox,
            outbox: config.outbox,
        }
    }

    fn words(self) -> usize {
        (size_of::<SlotWords>() + self.reactors * size_of::<LinkWords>()).next_multiple_of(page())
    }

    /// Returns the bytes of the file that the worker writes.
    fn written(self) -> io::Result<usize> {
        total(self.words(), self.reactors, self.outbox)
    }

    /// Returns the bytes of the file that the worker reads.
    fn read(self) -> io::Result<usize> {
        total(orders_len(1), self.reactors, self.inbox)
    }

    /// Checks that one process can map the rings of all slots.
    pub(crate) fn check(self, slots: usize) -> io::Result<()> {
        let rings = total(0, self.reactors, self.inbox.saturating_add(self.outbox))?;
        let twice = rings.checked_mul(2).ok_or(io::ErrorKind::OutOfMemory)?;
        let len = total(page(), slots, twice)?;
        reserve(len).map(drop)
    }
}

fn orders_len(slots: usize) -> usize {
    (slots * size_of::<OrderWords>()).next_multiple_of(page())
}

fn total(first: usize, count: usize, each: usize) -> io::Result<usize> {
    let rest = count.checked_mul(each);
    let len = rest.and_then(|rest| rest.checked_add(first));
    Ok(len.ok_or(io::ErrorKind::OutOfMemory)?)
}

impl SlotFiles {
    /// Makes them. Pages are taken from the machine only when they are first touched.
    pub(crate) fn new(sizes: Sizes) -> io::Result<SlotFiles> {
        let bells = (0..sizes.reactors).map(|_| Doorbell::new());
        let (sender, receiver) = parcel::pair()?;
        Ok(SlotFiles {
            sender: Some(sender),
            receiver,
            sizes,
            written: SharedFile::new("tine-worker", sizes.written()?)?,
            read: SharedFile::new("tine-server", sizes.read()?)?,
            bell: Doorbell::new()?,
            reactor_bells: bells.collect::<io::Result<_>>()?,
        })
    }

    /// Returns the number of descriptors that the master gets.
    pub(crate) fn descriptor_count(sizes: Sizes) -> usize {
        4 + sizes.reactors
    }

    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let bells = self.reactor_bells.iter().map(AsFd::as_fd);
        let all = [
            self.written.as_fd(),
            self.read.as_fd(),
            self.bell.as_fd(),
            self.receiver.as_fd(),
        ];
        all.into_iter().chain(bells).collect()
    }

    /// The files of another process, by their [`descriptors`](Self::descriptors); `None` if some are
    /// missing.
    pub(crate) fn received(sizes: Sizes, descriptors: Vec<OwnedFd>) -> Option<SlotFiles> {
        if descriptors.len() != Self::descriptor_count(sizes) {
            return None;
        }
        let mut descriptors = descriptors.into_iter();
        Some(SlotFiles {
            sizes,
            written: SharedFile::received(descriptors.next()?),
            read: SharedFile::received(descriptors.next()?),
            bell: Doorbell::received(descriptors.next()?),
            sender: None,
            receiver: Receiver::received(descriptors.next()?),
            reactor_bells: descriptors.map(Doorbell::received).collect(),
        })
    }

    /// Maps the manager's part: no bytes of any client.
    pub(crate) fn map_for_manager(&self) -> io::Result<SlotMemory> {
        let words = Arc::new(self.written.map(0, self.sizes.words())?);
        let orders = Arc::new(self.read.map(0, orders_len(1))?);
        Ok(SlotMemory {
            words: Shared::place(&words, 0),
            orders: Shared::place(&orders, 0),
            bell: self.bell.clone(),
            links: Vec::new(),
            files: None,
        })
    }

    /// Maps the master's part.
    pub(crate) fn map_for_master(&self) -> io::Result<SlotMemory> {
        let outboxes = self.written.read_only()?;
        let WorkerMemory {
            words,
            orders,
            links,
        } = self.map_all(&outboxes, &self.read)?;
        let inbox = FileInbox::new(self.receiver.try_clone()?, self.sizes.reactors);
        Ok(SlotMemory {
            words,
            orders,
            bell: self.bell.clone(),
            links,
            files: Some(Arc::new(inbox)),
        })
    }

    /// Maps the worker's part, in the worker, and closes the files. The worker sends files by the socket.
    pub(crate) fn map_for_worker(mut self) -> io::Result<(WorkerMemory, Sender)> {
        let read = self.read.read_only()?;
        let sender = self.sender.take().ok_or(io::ErrorKind::NotFound)?;
        sender.keep_from_children();
        Ok((self.map_all(&self.written, &read)?, sender))
    }

    fn map_all(&self, outboxes: &SharedFile, read: &SharedFile) -> io::Result<WorkerMemory> {
        let Sizes { inbox, outbox, .. } = self.sizes;
        let words = Arc::new(self.written.map(0, self.sizes.words())?);
        let orders = Arc::new(read.map(0, orders_len(1))?);
        let link = |(reactor, bell): (usize, &Doorbell)| {
            let words_at = size_of::<SlotWords>() + reactor * size_of::<LinkWords>();
            let outbox_at = self.sizes.words() + reactor * outbox;
            Ok(LinkMemory {
                words: Shared::place(&words, words_at),
                inbox: Arc::new(Ring::map(read, orders_len(1) + reactor * inbox, inbox)?),
                outbox: Arc::new(Ring::map(outboxes, outbox_at, outbox)?),
                bell: bell.clone(),
            })
        };
        let links = self.reactor_bells.iter().enumerate().map(link);
        Ok(WorkerMemory {
            links: links.collect::<io::Result<_>>()?,
            words: Shared::place(&words, 0),
            orders: Shared::place(&orders, 0),
        })
    }
}

/// Memory of which one process has a part that it can write, and all its children, to the last, one that
/// they can read.
struct Shown {
    own: Arc<Mapping>,
    shown: Arc<Mapping>,
}

impl Shown {
    /// No descriptor of it is left.
    fn new(name: &str, len: usize) -> io::Result<Shown> {
        Shown::of(&SharedFile::new(name, len)?, len)
    }

    fn of(file: &SharedFile, len: usize) -> io::Result<Shown> {
        let shown = file.read_only()?.map(0, len)?;
        Ok(Shown {
            own: Arc::new(file.map(0, len)?),
            shown: Arc::new(shown.leave_to_children()?),
        })
    }
}

/// The words of all reactors.
pub(crate) struct ReactorsMemory {
    /// For the process that made it.
    pub(crate) own: Vec<Shared<ReactorWords>>,
    /// For its children.
    pub(crate) shown: Vec<Shared<ReactorWords>>,
}

impl ReactorsMemory {
    pub(crate) fn new(reactors: usize) -> io::Result<ReactorsMemory> {
        let len = (reactors * size_of::<ReactorWords>()).next_multiple_of(page());
        let Shown { own, shown } = Shown::new("tine-reactors", len)?;
        let words = |mapping: &Arc<Mapping>| {
            let place = |reactor| Shared::place(mapping, reactor * size_of::<ReactorWords>());
            (0..reactors).map(place).collect()
        };
        Ok(ReactorsMemory {
            own: words(&own),
            shown: words(&shown),
        })
    }
}

/// Called in a worker: no child of it gets the reactors' words.
pub(crate) fn keep_from_children(words: &[Shared<ReactorWords>]) -> io::Result<()> {
    words.iter().try_for_each(Shared::keep_from_children)
}

/// The memory of base mode, in which the workers share out the clients that wait: each can read the words
/// of all slots, and write its own.
pub(crate) struct BaseArena {
    /// For the manager, with doorbells that no worker has.
    pub(crate) slots: Vec<SlotMemory>,
    /// For the workers, with the doorbells that they ring for each other.
    shown: Vec<SlotMemory>,
    /// The words of each slot.
    files: Vec<SharedFile>,
}

impl BaseArena {
    pub(crate) fn new(slots: usize) -> io::Result<BaseArena> {
        let orders = Shown::new("tine-orders", orders_len(slots))?;
        let len = size_of::<SlotWords>().next_multiple_of(page());
        let mut arena = BaseArena {
            slots: Vec::new(),
            shown: Vec::new(),
            files: Vec::new(),
        };
        for slot in 0..slots {
            let file = SharedFile::new("tine-worker", len)?;
            let words = Shown::of(&file, len)?;
            let memory = |words, orders| {
                Ok::<_, io::Error>(SlotMemory {
                    words: Shared::place(words, 0),
                    orders: Shared::place(orders, slot * size_of::<OrderWords>()),
                    bell: Doorbell::new()?,
                    links: Vec::new(),
                    files: None,
                })
            };
            arena.slots.push(memory(&words.own, &orders.own)?);
            arena.shown.push(memory(&words.shown, &orders.shown)?);
            arena.files.push(file);
        }
        Ok(arena)
    }

    /// Called in a worker: all slots, of which it can write its own words.
    pub(crate) fn enter(self, slot: usize) -> io::Result<Vec<SlotMemory>> {
        let len = size_of::<SlotWords>().next_multiple_of(page());
        let own = Arc::new(self.files[slot].map(0, len)?);
        let mut slots = self.shown;
        for memory in &slots {
            memory.words.keep_from_children()?;
            memory.orders.keep_from_children()?;
        }
        slots[slot].words = Shared::place(&own, 0);
        Ok(slots)
    }
}

/// A slot as its worker has it and as the master has it, in one process.
#[cfg(any(test, feature = "test-hooks"))]
pub(crate) struct BothSides {
    pub(crate) master: SlotMemory,
    pub(crate) worker: WorkerMemory,
    #[cfg(test)]
    pub(crate) reactors: ReactorsMemory,
}

#[cfg(any(test, feature = "test-hooks"))]
impl BothSides {
    pub(crate) fn new(sizes: Sizes) -> io::Result<BothSides> {
        let files = SlotFiles::new(sizes)?;
        Ok(BothSides {
            master: files.map_for_master()?,
            worker: files.map_for_worker()?.0,
            #[cfg(test)]
            reactors: ReactorsMemory::new(sizes.reactors)?,
        })
    }
}

#[cfg(all(test, not(miri)))] // Miri has no shared mappings.
mod tests {
    use super::*;
    use crate::ipc::sync::Ordering;

    const SIZES: Sizes = Sizes {
        reactors: 2,
        inbox: 8192,
        outbox: 4096,
    };

    #[test]
    fn every_slot_has_words_and_rings_of_its_own_that_master_and_worker_share() {
        let slots: Vec<BothSides> = (0..2).map(|_| BothSides::new(SIZES).unwrap()).collect();
        for (slot, both) in (0_u8..).zip(&slots) {
            let connections = &both.worker.words.connections;
            connections.store(u64::from(slot) + 1, Ordering::Relaxed);
            for (reactor, number) in (0..2).zip(slot * 2..) {
                both.worker.links[reactor]
                    .words
                    .claim
                    .begin(10 + u64::from(number));
                both.master.links[reactor].inbox.write(0, &[number; 8192]);
                both.worker.links[reactor]
                    .outbox
                    .write(0, &[100 + number; 4096]);
            }
        }
        for (slot, both) in (0_u8..).zip(&slots) {
            let connections = &both.master.words.connections;
            assert_eq!(connections.load(Ordering::Relaxed), u64::from(slot) + 1);
            for (reactor, number) in (0..2).zip(slot * 2..) {
                let (master, worker) = (&both.master.links[reactor], &both.worker.links[reactor]);
                assert_eq!(master.words.claim.last_begun(), 10 + u64::from(number));
                assert_eq!(worker.inbox.read::<8192>(4096), [number; 8192]);
                assert_eq!(master.outbox.read::<4096>(0), [100 + number; 4096]);
            }
        }
    }

    #[test]
    fn the_manager_gives_orders_that_the_worker_reads() {
        let files = SlotFiles::new(SIZES).unwrap();
        let manager = files.map_for_manager().unwrap();
        manager.orders.leave.store(7, Ordering::Relaxed);
        let (worker, _) = files.map_for_worker().unwrap();
        assert_eq!(worker.orders.leave.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn files_arrive_by_their_descriptors_or_not_at_all() {
        let files = SlotFiles::new(SIZES).unwrap();
        let copies = |files: &SlotFiles| -> Vec<OwnedFd> {
            let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
            files.descriptors().into_iter().map(copy).collect()
        };
        let mut few = copies(&files);
        assert_eq!(few.len(), SlotFiles::descriptor_count(SIZES));
        few.pop();
        assert!(SlotFiles::received(SIZES, few).is_none());
        let received = SlotFiles::received(SIZES, copies(&files)).unwrap();
        let master = received.map_for_master().unwrap();
        master.links[1].inbox.write(0, b"sent");
        let (worker, _) = files.map_for_worker().unwrap();
        assert_eq!(worker.links[1].inbox.read::<4>(0), *b"sent");
    }

    #[test]
    fn in_base_mode_each_worker_reads_the_words_of_all() {
        let arena = BaseArena::new(3).unwrap();
        arena.slots[2].orders.seat.store(5, Ordering::Relaxed);
        arena.slots[1].words.connections.store(8, Ordering::Relaxed);
        let slots = arena.enter(2).unwrap();
        assert_eq!(slots[2].orders.seat.load(Ordering::Relaxed), 5);
        assert_eq!(slots[1].words.connections.load(Ordering::Relaxed), 8);
        slots[2].words.checks.store(1, Ordering::Relaxed);
    }

    #[test]
    fn rings_larger_than_memory_are_refused() {
        let sizes = Sizes {
            inbox: usize::MAX / 2,
            ..SIZES
        };
        assert!(SlotFiles::new(sizes).is_err());
        assert!(sizes.check(1).is_err());
        let many = Sizes {
            inbox: 1 << 40,
            ..SIZES
        };
        assert!(many.check(1 << 10).is_err());
        SIZES.check(4).unwrap();
    }
}
