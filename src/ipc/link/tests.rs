//! Both ends of a link, driven in one process.

mod asides;
mod deaths;
mod failed;
mod lies;
mod model;
mod pages;
mod parts;
mod questions;
mod rewind;

use super::broken::Broken;
use super::commits::MOST_KEPT;
use super::*;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::ipc::arena::{BothSides, Sizes};
use crate::ipc::carried::Carried;
use crate::ipc::frame::{Input, InputKind};
use crate::ipc::record::{OUTPUT_BODY, Output, Part};
use crate::ipc::sync::Ordering;
use crate::peer::Peer;
use crate::sys::socket::Read;
use std::io::Write;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// A reactor, a worker of generation 1 with the link open to it, and what they share.
struct World {
    both: BothSides,
    reactor: ReactorLink,
    worker: WorkerLink,
    failures: Vec<Failed>,
}

const BUDGET: usize = 64 << 10;

fn world() -> World {
    world_of(16 << 10, 8 << 10)
}

fn world_of(inbox: usize, outbox: usize) -> World {
    let sizes = Sizes {
        reactors: 1,
        inbox,
        outbox,
    };
    let both = BothSides::new(sizes).unwrap();
    let mut reactor = ReactorLink::new(&both.master.links[0], BUDGET);
    reactor.open(1);
    let worker = incarnation(&both, 1);
    World {
        both,
        reactor,
        worker,
        failures: Vec::new(),
    }
}

fn incarnation(both: &BothSides, generation: u32) -> WorkerLink {
    let (link, reactor) = (&both.worker.links[0], &both.reactors.shown[0]);
    let mut worker = WorkerLink::new(link, reactor, generation);
    assert!(worker.attach());
    worker
}

fn conn(number: u32) -> ConnId {
    ConnId::new(0, number, NonZeroU32::new(number + 1).unwrap())
}

/// Outputs that were applied, and the connections whose frames were retired.
type Collected = (Vec<(Output, Vec<u8>)>, Vec<ConnId>);

impl World {
    #[track_caller]
    fn submit(&mut self, number: u32, body: &[u8]) {
        assert!(self.reactor.takes(body.len()));
        let input = Input {
            kind: Event::Receive.into(),
            conn: conn(number),
            peer: Peer::Ip(([127, 0, 0, 1], 1).into()),
            listener: 0,
            attempt: 0,
            detail: 0,
            deadline: 0,
            value: 0,
            follows: false,
            carries: false,
            is_gone: false,
            is_firm: false,
            submitted: 0,
            len: body.len() as u32,
        };
        self.reactor.submit_copy(&input, Carried::default(), body);
    }

    /// What the reactor applies until there is no commit more, and the connections whose frames it
    /// retires.
    fn collect(&mut self) -> Result<Collected, Broken> {
        let (mut applied, mut retired) = (Vec::new(), Vec::new());
        while let Some(commit) = self.reactor.next_commit()? {
            if commit == Commit::Question {
                let number = self.reactor.question().0.number;
                self.reactor.answer(number, |_| 7);
                continue;
            }
            for index in 0..self.reactor.output_count() {
                let (output, bytes) = self.reactor.output(index);
                let mut copy = Vec::new();
                bytes.append_to(&mut copy);
                applied.push((output, copy));
            }
            retired.extend(self.reactor.finish(commit).map(|delivery| delivery.conn));
            if commit == Commit::Failed {
                self.failures.extend(self.reactor.fail());
            }
        }
        self.reactor.release();
        Ok((applied, retired))
    }

    /// Returns the message of a frame.
    fn body(&self, taken: &Taken) -> &[u8] {
        self.worker.inbox.body(taken).0
    }

    #[track_caller]
    fn take(&mut self) -> Taken {
        self.worker.take().frame().expect("a frame")
    }

    #[track_caller]
    fn stage(&mut self, output: Output, body: &[u8]) {
        assert!(self.worker.outbox.room(body.len()));
        self.worker.outbox.stage(output, body);
    }
}

#[test]
fn a_frame_arrives_with_its_body_and_its_commit_with_the_reply() {
    let mut world = world();
    world.submit(1, b"question");
    let taken = world.take();
    assert_eq!(taken.input.conn, conn(1));
    assert_eq!(world.body(&taken), b"question");
    world.stage(Output::Send(conn(1)), b"answer");
    assert_eq!(world.collect().unwrap(), (vec![], vec![]), "only staged");
    world.worker.outbox.done(&taken);
    assert_eq!(
        world.collect().unwrap(),
        (
            vec![(Output::Send(conn(1)), b"answer".to_vec())],
            vec![conn(1)]
        )
    );
    assert_eq!(world.reactor.in_flight(), 0);
}

#[test]
fn the_ring_carries_more_than_its_capacity_over_time() {
    let mut world = world();
    for round in 0..500u32 {
        let body = vec![round as u8; (round * 37 % 3000) as usize];
        world.submit(round, &body);
        let taken = world.take();
        assert_eq!(world.body(&taken), body);
        world.stage(Output::Send(conn(round)), &body);
        world.worker.outbox.done(&taken);
        assert_eq!(
            world.collect().unwrap(),
            (vec![(Output::Send(conn(round)), body)], vec![conn(round)])
        );
    }
}

#[test]
fn a_full_inbox_has_no_room_until_a_frame_is_done() {
    let mut world = world();
    let mut submitted = 0;
    while world.reactor.has_room(1000) {
        world.submit(submitted, &[1; 1000]);
        submitted += 1;
    }
    let taken = world.take();
    assert!(!world.reactor.has_room(1000), "taken is not done");
    world.worker.outbox.done(&taken);
    world.collect().unwrap();
    assert!(world.reactor.has_room(1000));
}

#[test]
fn room_is_as_much_as_there_is_within_the_bounds() {
    let mut world = world();
    let (mut client, socket) = UnixStream::pair().unwrap();
    client.write_all(&[7; 40 << 10]).unwrap();
    let read = |world: &mut World, bounds: RangeInclusive<usize>| {
        if !world.reactor.takes(*bounds.start()) {
            return None;
        }
        let mut room = world.reactor.room(*bounds.end(), 0);
        match room.fill_from(socket.as_fd()) {
            Read::Bytes(n) => Some(n),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        read(&mut world, 1000..=3000),
        Some(3000),
        "all that is wanted"
    );
    world.submit(1, &[1; 10_000]);
    let rest = (16 << 10) - 64 - (10_000usize + 64).next_multiple_of(64);
    assert_eq!(
        read(&mut world, 1000..=12_000),
        Some(rest),
        "all that is free"
    );
    assert_eq!(read(&mut world, rest + 1..=12_000), None);
    world.submit(2, &vec![7; rest]);
    for expected in [vec![1; 10_000], vec![7; rest]] {
        let taken = world.take();
        assert_eq!(world.body(&taken), expected);
        world.worker.outbox.done(&taken);
    }
}

#[test]
fn output_without_its_commit_is_held_back_and_then_applied_in_order() {
    let mut world = world();
    world.submit(1, b"big");
    let taken = world.take();
    let mut expected = Vec::new();
    for part in 0..20u8 {
        if !world.worker.outbox.room(1000) {
            world.worker.outbox.publish();
            assert_eq!(
                world.collect().unwrap(),
                (vec![], vec![]),
                "part {part} has left before the commit"
            );
        }
        world.stage(Output::Send(conn(1)), &[part; 1000]);
        expected.push((Output::Send(conn(1)), vec![part; 1000]));
    }
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect().unwrap(), (expected, vec![conn(1)]));
    assert_eq!(world.reactor.held_bytes(), 0);
}

#[test]
fn a_flush_lets_output_leave_and_keeps_the_frame() {
    let mut world = world();
    world.submit(1, b"stream");
    let taken = world.take();
    world.stage(Output::Send(conn(1)), b"first");
    world.stage(Output::Flush, b"");
    world.worker.outbox.publish();
    assert_eq!(
        world.collect().unwrap(),
        (vec![(Output::Send(conn(1)), b"first".to_vec())], vec![])
    );
    world.stage(Output::Send(conn(1)), b"second");
    let legacy = world.reactor.cut();
    assert!(legacy.under_way.expect("the frame is under way").flushed);
    let _ = taken;
}
