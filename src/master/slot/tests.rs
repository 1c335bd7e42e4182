//! One reactor's link to a worker, which a test plays.

use std::num::NonZeroU32;

use super::*;
use crate::conn_id::ConnId;
use crate::ipc::arena::{BothSides, Sizes, WorkerMemory};
use crate::ipc::link::WorkerLink;
use crate::peer::Peer;

fn conn(number: u32) -> ConnId {
    ConnId::new(0, number, NonZeroU32::new(number + 1).unwrap())
}

/// A slot, and its worker's memory.
fn slot() -> (Slot, WorkerMemory, WorkerLink) {
    let sizes = Sizes {
        reactors: 1,
        inbox: 16 << 10,
        outbox: 8 << 10,
    };
    let both = BothSides::new(sizes).unwrap();
    let mut slot = Slot::new(Arc::new(both.master), 1, 0, 64 << 10);
    slot.open(0, 1);
    let mut worker = WorkerLink::new(&both.worker.links[0], &both.reactors.shown[0], 1);
    assert!(worker.attach());
    (slot, both.worker, worker)
}

/// Submits a message of one byte, which expires at this time.
fn submit(slot: &mut Slot, number: u32, body: u8, expires: u64) {
    assert!(slot.link.takes(1));
    let input = frame::Input {
        kind: Event::Receive.into(),
        conn: conn(number),
        peer: Peer::Ip(([127, 0, 0, 1], 1).into()),
        listener: 0,
        attempt: 0,
        detail: 0,
        deadline: expires,
        value: 0,
        follows: false,
        carries: false,
        is_gone: false,
        is_firm: false,
        submitted: 0,
        len: 1,
    };
    slot.link.submit_copy(&input, Carried::default(), &[body]);
}

#[test]
fn messages_behind_one_that_has_expired_are_taken_back_with_it() {
    let (mut slot, _memory, _worker) = slot();
    for (number, body, expires) in [(1, b'a', 10), (2, b'b', 20), (1, b'c', 20), (2, b'd', 20)] {
        submit(&mut slot, number, body, expires);
    }
    let taken = slot.take_expired(10);
    let taken: Vec<_> = taken.iter().map(|it| (it.conn, it.body[0])).collect();
    assert_eq!(taken, [(conn(1), b'a'), (conn(1), b'c')]);
    assert_eq!(slot.expires(), 20);
}

#[test]
fn a_worker_whose_output_is_held_back_is_not_stuck() {
    let (mut slot, _memory, _worker) = slot();
    let begin = Instant::now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    submit(&mut slot, 1, b'a', u64::MAX);
    slot.check(0, begin);
    slot.held_for = Some(1);
    let oldest = slot.oldest();
    assert_eq!(slot.check(0, after(5)), Duration::ZERO);
    assert!(!slot.is_older_than(oldest, Duration::from_secs(1), after(5)));
    slot.held_for = None;
    assert_eq!(slot.check(0, after(7)), Duration::from_secs(2));
}
