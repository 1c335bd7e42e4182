//! Output of callbacks for connections of other reactors: on its way from the reactor that reads the commit to the
//! one that owns the connection.
//!
//! What is published to a group goes to the one reactor that puts all of that group into an order, and from there to
//! every reactor with members. Each gets it in that order, since nothing overtakes on a way.
//!
//! Runs in the reactor threads. Its one rule: what is on its way is bounded. A worker whose commit finds no credit is
//! not read until half of the credit is free, and its full outbox then slows it down; no other worker waits.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::reactor::Mailbox;
use crate::conn_id::ConnId;
use crate::ipc::link::charge;
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::Output;
use crate::net::files::FilePart;
use crate::net::groups::Publication;
use crate::sys::doorbell::Doorbell;

/// The most bytes on their way between two reactors; one commit may go beyond that. About as many as an outbox holds.
const CREDIT: usize = 1 << 20;

/// The bytes on their way between any two reactors. The counters only bound memory: relaxed order will do, since the
/// channel orders the outputs themselves.
pub(crate) struct Transit {
    reactors: usize,
    /// By source and destination.
    bytes: Vec<AtomicUsize>,
    /// Of the names of groups.
    hasher: RandomState,
}

impl Transit {
    pub(crate) fn new(reactors: usize) -> Transit {
        Transit {
            reactors,
            bytes: (0..reactors * reactors)
                .map(|_| AtomicUsize::new(0))
                .collect(),
            hasher: RandomState::new(),
        }
    }

    fn between(&self, from: usize, to: usize) -> &AtomicUsize {
        &self.bytes[from * self.reactors + to]
    }

    fn is_full(&self, from: usize, to: usize) -> bool {
        self.between(from, to).load(Ordering::Relaxed) > CREDIT
    }

    /// Whether a worker that was held back for want of credit still is.
    pub(super) fn holds_back(&self, from: usize, to: usize) -> bool {
        self.between(from, to).load(Ordering::Relaxed) > CREDIT / 2
    }

    /// Bytes have arrived. Returns whether the source is to be woken: half of the credit is free again.
    fn arrived(&self, from: usize, to: usize, bytes: usize) -> bool {
        let before = self.between(from, to).fetch_sub(bytes, Ordering::Relaxed);
        before > CREDIT / 2 && before - bytes <= CREDIT / 2
    }
}

/// Outputs for connections of one reactor, in order.
#[derive(Default)]
pub(crate) struct Transfer {
    from: usize,
    bytes: usize,
    items: VecDeque<Item>,
}

/// What is on its way to another reactor.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// For one of its connections.
    Output(Output, Vec<u8>),
    /// A part of a file, for one of its connections.
    File(ConnId, FilePart),
    /// To be put into the order of a group.
    Unordered(Arc<Publication>),
    /// For the members of a group among its connections.
    Ordered(Arc<Publication>),
}

/// One reactor's end of all ways to and from the others.
pub(crate) struct Ways {
    own: usize,
    transit: Arc<Transit>,
    /// By destination: what this turn has brought so far.
    staged: Vec<Transfer>,
    to: Vec<Mailbox<Transfer>>,
    from_all: Receiver<Transfer>,
    /// What has arrived last.
    arrived: Transfer,
    /// What has arrived to be put into the order of a group, and from where. It waits while a way to another reactor is
    /// full, and counts as on its way until then: so that those who publish wait, and no reactor for another.
    unordered: VecDeque<(usize, Arc<Publication>)>,
}

impl Ways {
    /// Makes the ways between reactors with these bells.
    pub(crate) fn between(bells: &[Doorbell]) -> Vec<Ways> {
        let transit = Arc::new(Transit::new(bells.len()));
        let (senders, receivers): (Vec<Sender<Transfer>>, Vec<_>) =
            bells.iter().map(|_| unbounded()).unzip();
        let mailbox = |(sender, bell): (&Sender<Transfer>, &Doorbell)| Mailbox {
            sender: sender.clone(),
            bell: bell.clone(),
        };
        let ways = receivers.into_iter().enumerate();
        ways.map(|(own, from_all)| Ways {
            own,
            transit: Arc::clone(&transit),
            staged: bells.iter().map(|_| Transfer::default()).collect(),
            to: senders.iter().zip(bells).map(mailbox).collect(),
            from_all,
            arrived: Transfer::default(),
            unordered: VecDeque::new(),
        })
        .collect()
    }

    pub(crate) fn transit(&self) -> Arc<Transit> {
        Arc::clone(&self.transit)
    }

    /// Copies an output for another reactor, which gets it at the end of this turn. Returns that
    /// reactor if there is no credit left.
    pub(super) fn stage(
        &mut self,
        to: usize,
        output: Output,
        bytes: SharedBytes<'_>,
    ) -> Option<usize> {
        let mut copy = Vec::with_capacity(bytes.len());
        bytes.append_to(&mut copy);
        let charged = charge(copy.len());
        self.push(to, Item::Output(output, copy), charged)
    }

    /// Keeps a part of a file for a connection of another reactor.
    pub(super) fn stage_file(&mut self, to: usize, id: ConnId, part: FilePart) -> Option<usize> {
        self.push(to, Item::File(id, part), charge(0))
    }

    /// Gives what was published to the reactor that puts it into an order, which may be this one. Returns that reactor if
    /// there is no credit left.
    pub(super) fn publish(&mut self, publication: Arc<Publication>) -> Option<usize> {
        let (to, charged) = (self.owner_of(publication.name()), publication.charge());
        if to != self.own {
            return self.push(to, Item::Unordered(publication), charged);
        }
        self.unordered.push_back((to, publication));
        let way = self.transit.between(to, to);
        way.fetch_add(charged, Ordering::Relaxed);
        self.transit.is_full(to, to).then_some(to)
    }

    /// Whether something is to be put into an order now.
    pub(super) fn has_published(&self) -> bool {
        !self.unordered.is_empty() && !self.is_blocked()
    }

    /// Returns the reactor that puts what is published to a group into an order.
    fn owner_of(&self, group: &[u8]) -> usize {
        match self.staged.len() {
            1 => self.own,
            reactors => self.transit.hasher.hash_one(group) as usize % reactors,
        }
    }

    /// Keeps what was published for another reactor, in this order. While there is no credit left to one of them, nothing
    /// more is [received](Self::receive) to be put into an order.
    pub(super) fn stage_ordered(&mut self, to: usize, publication: &Arc<Publication>) {
        if to != self.own {
            let item = Item::Ordered(Arc::clone(publication));
            self.push(to, item, publication.charge());
        }
    }

    fn push(&mut self, to: usize, item: Item, charged: usize) -> Option<usize> {
        let staged = self.staged.get_mut(to)?;
        staged.items.push_back(item);
        staged.bytes += charged;
        let way = self.transit.between(self.own, to);
        way.fetch_add(charged, Ordering::Relaxed);
        self.transit.is_full(self.own, to).then_some(to)
    }

    /// Sends what was staged.
    pub(super) fn send(&mut self) {
        for (staged, to) in self.staged.iter_mut().zip(&self.to) {
            if !staged.items.is_empty() {
                let transfer = std::mem::take(staged);
                to.send(Transfer {
                    from: self.own,
                    ..transfer
                });
            }
        }
    }

    /// Whether nothing has arrived that is not taken.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_arrived() && self.unordered.is_empty()
    }

    /// Whether something has arrived that can be taken now.
    pub(super) fn has_arrived(&self) -> bool {
        let is_waiting = !self.from_all.is_empty() || !self.arrived.items.is_empty();
        // The credit for items that are all taken is still to be given back: their sender may wait for it.
        is_waiting || self.arrived.bytes > 0 || self.has_published()
    }

    /// Whether no more can be put into the order of a group, since a way to another reactor is full.
    fn is_blocked(&self) -> bool {
        let mut others = (0..self.staged.len()).filter(|to| *to != self.own);
        others.any(|to| self.transit.is_full(self.own, to))
    }

    /// Returns the next item that has arrived. Those that are to be put into the order of a group follow when no way is
    /// full.
    pub(super) fn receive(&mut self) -> Option<Item> {
        if self.has_published() {
            let (from, publication) = self.unordered.pop_front()?;
            self.has_taken(from, publication.charge());
            return Some(Item::Unordered(publication));
        }
        loop {
            match self.arrived.items.pop_front() {
                Some(Item::Unordered(publication)) => {
                    self.arrived.bytes -= publication.charge();
                    let from = self.arrived.from;
                    self.unordered.push_back((from, publication));
                    if !self.is_blocked() {
                        return self.receive();
                    }
                }
                Some(item) => return Some(item),
                None => {
                    // All of the last transfer are taken.
                    let bytes = std::mem::take(&mut self.arrived.bytes);
                    self.has_taken(self.arrived.from, bytes);
                    self.arrived = self.from_all.try_recv().ok()?;
                }
            }
        }
    }

    /// Gives back the credit of what was taken.
    fn has_taken(&self, from: usize, bytes: usize) {
        if bytes > 0 && self.transit.arrived(from, self.own, bytes) {
            self.to[from].bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::ipc::record::Publish;

    fn conn(owner: u16) -> ConnId {
        ConnId::new(owner, 7, NonZeroU32::MIN)
    }

    #[test]
    fn what_is_on_its_way_is_bounded_for_each_pair_of_reactors() {
        let bells: Vec<Doorbell> = (0..3).map(|_| Doorbell::new().unwrap()).collect();
        let mut ways = Ways::between(&bells);
        let chunk = vec![7; CREDIT / 8];
        let mut staged = 0;
        let full = loop {
            staged += 1;
            let bytes = SharedBytes::of(&chunk);
            if let Some(full) = ways[0].stage(2, Output::Send(conn(2)), bytes) {
                break full;
            }
        };
        assert_eq!((full, staged), (2, 8));
        let other = ways[0].stage(1, Output::Close(conn(1)), SharedBytes::of(&[]));
        assert_eq!(other, None, "another reactor has a credit of its own");
        let transit = ways[0].transit();
        assert!(transit.holds_back(0, 2) && !transit.holds_back(0, 1));
        ways[0].send();
        assert!((0..8).all(|_| ways[2].receive().is_some()));
        // A turn may end with the last item: the credit is given back in the next one, which must come.
        assert!(transit.holds_back(0, 2) && ways[2].has_arrived());
        assert_eq!(ways[2].receive(), None);
        assert!(!transit.holds_back(0, 2) && !ways[2].has_arrived());
        assert!(ways[2].is_empty() && !ways[1].is_empty());
    }

    fn publication(len: usize) -> Arc<Publication> {
        Publication::example(&vec![7; len])
    }

    fn all(ways: &mut Ways) -> Vec<Item> {
        std::iter::from_fn(|| ways.receive()).collect()
    }

    #[test]
    fn what_is_published_waits_for_its_order_while_a_way_is_full_and_holds_up_nothing_else() {
        let bells: Vec<Doorbell> = (0..3).map(|_| Doorbell::new().unwrap()).collect();
        let mut ways = Ways::between(&bells);
        let large = publication(CREDIT + 1);
        (0..3).for_each(|to| ways[1].stage_ordered(to, &large));
        assert!(ways[1].is_blocked(), "both are full");
        let (first, second) = (publication(10), publication(20));
        for publication in [&first, &second] {
            let item = Item::Unordered(Arc::clone(publication));
            assert_eq!(ways[0].push(1, item, publication.charge()), None);
        }
        let close = Output::Close(conn(1));
        assert_eq!(ways[0].stage(1, close, SharedBytes::of(&[])), None);
        ways[0].send();
        ways[1].send();
        assert_eq!(all(&mut ways[1]), [Item::Output(close, Vec::new())]);
        assert!(!ways[1].has_arrived() && !ways[1].is_empty());
        let transit = ways[0].transit();
        let on_their_way = || transit.between(0, 1).load(Ordering::Relaxed);
        assert_eq!(on_their_way(), first.charge() + second.charge());
        for to in [0, 2] {
            assert_eq!(all(&mut ways[to]), [Item::Ordered(Arc::clone(&large))]);
        }
        assert!(ways[1].has_arrived());
        let expected = [first, second].map(Item::Unordered);
        assert_eq!(all(&mut ways[1]), expected);
        assert!(ways[1].is_empty());
        assert_eq!(on_their_way(), 0);
    }

    #[test]
    fn callbacks_that_publish_are_held_back_also_if_all_stays_with_one_reactor() {
        let mut ways = Ways::between(&[Doorbell::new().unwrap()]);
        let large = Publication::example(&vec![7; CREDIT / 2]);
        assert_eq!(ways[0].publish(Arc::clone(&large)), None);
        assert_eq!(ways[0].publish(Arc::clone(&large)), Some(0));
        let transit = ways[0].transit();
        assert!(transit.holds_back(0, 0) && ways[0].has_published());
        assert_eq!(all(&mut ways[0]).len(), 2);
        assert!(!transit.holds_back(0, 0) && ways[0].is_empty());
        // Members count, as each of them is work.
        let to_many = Publication::copy_of(
            Publish {
                name: 0,
                except: None,
                is_lossy: false,
            },
            SharedBytes::of(b"x"),
        );
        assert_eq!(ways[0].publish(to_many.for_members(20_000)), Some(0));
    }

    #[test]
    fn a_group_is_ordered_by_one_reactor() {
        let bells: Vec<Doorbell> = (0..3).map(|_| Doorbell::new().unwrap()).collect();
        let ways = Ways::between(&bells);
        let mut used = [false; 3];
        for number in 0..100u8 {
            let owners: Vec<usize> = ways.iter().map(|it| it.owner_of(&[number])).collect();
            assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
            used[owners[0]] = true;
        }
        assert_eq!(used, [true; 3]);
        assert_eq!(Ways::between(&bells[..1])[0].owner_of(b"any"), 0);
    }

    #[test]
    fn the_source_is_woken_once_when_half_of_the_credit_is_free() {
        let transit = Transit::new(2);
        transit.between(0, 1).store(CREDIT + 10, Ordering::Relaxed);
        let woken = |bytes| transit.arrived(0, 1, bytes);
        assert!(!woken(CREDIT / 4));
        assert!(woken(CREDIT / 4 + 10));
        assert!(!woken(CREDIT / 2));
    }
}
