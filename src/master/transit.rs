//! Output of callbacks for connections of other reactors: on its way from the reactor that reads the commit to the
//! one that owns the connection.
//!
//! Runs in the reactor threads. Its one rule: what is on its way is bounded. A worker whose commit finds no credit is
//! not read until half of the credit is free, and its full outbox then slows it down; no other worker waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::reactor::Mailbox;
use crate::ipc::link::charge;
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::Output;
use crate::sys::doorbell::Doorbell;

/// The most bytes on their way between two reactors; one commit may go beyond that. About as many as an outbox holds.
const CREDIT: usize = 1 << 20;

/// The bytes on their way between any two reactors. The counters only bound memory: relaxed order will do, since the
/// channel orders the outputs themselves.
pub(crate) struct Transit {
    reactors: usize,
    /// By source and destination.
    bytes: Vec<AtomicUsize>,
}

impl Transit {
    pub(crate) fn new(reactors: usize) -> Transit {
        Transit {
            reactors,
            bytes: (0..reactors * reactors)
                .map(|_| AtomicUsize::new(0))
                .collect(),
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
    pub(super) outputs: Vec<(Output, Vec<u8>)>,
}

/// One reactor's end of all ways to and from the others.
pub(crate) struct Ways {
    own: usize,
    transit: Arc<Transit>,
    /// By destination: what this turn has brought so far.
    staged: Vec<Transfer>,
    to: Vec<Mailbox<Transfer>>,
    from_all: Receiver<Transfer>,
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
        let staged = self.staged.get_mut(to)?;
        let mut copy = Vec::with_capacity(bytes.len());
        bytes.append_to(&mut copy);
        let charged = charge(copy.len());
        staged.outputs.push((output, copy));
        staged.bytes += charged;
        let way = self.transit.between(self.own, to);
        way.fetch_add(charged, Ordering::Relaxed);
        self.transit.is_full(self.own, to).then_some(to)
    }

    /// Sends what was staged.
    pub(super) fn send(&mut self) {
        for (staged, to) in self.staged.iter_mut().zip(&self.to) {
            if !staged.outputs.is_empty() {
                let transfer = std::mem::take(staged);
                to.send(Transfer {
                    from: self.own,
                    ..transfer
                });
            }
        }
    }

    /// Whether nothing has arrived.
    pub(super) fn is_empty(&self) -> bool {
        self.from_all.is_empty()
    }

    /// Returns the next outputs that have arrived, and their bytes.
    pub(super) fn receive(&self) -> Option<(Transfer, usize)> {
        let transfer = self.from_all.try_recv().ok()?;
        let (from, bytes) = (transfer.from, transfer.bytes);
        if self.transit.arrived(from, self.own, bytes) {
            self.to[from].bell.ring();
        }
        Some((transfer, bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::conn_id::ConnId;

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
        let (transfer, bytes) = ways[2].receive().unwrap();
        assert_eq!(
            (transfer.outputs.len(), bytes),
            (8, 8 * charge(chunk.len()))
        );
        assert!(!transit.holds_back(0, 2));
        assert!(ways[2].is_empty() && !ways[1].is_empty());
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
