//! Both ends of a link, driven in one process.

mod failed;
mod model;
mod rewind;

use super::broken::Broken;
use super::reactor::MOST_KEPT;
use super::*;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::ipc::frame::{Input, InputKind, OUTPUT_BODY, Output, Part};
use crate::ipc::layout::Arena;
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
    arena: Arena,
    reactor: ReactorLink,
    worker: WorkerLink,
}

const BUDGET: usize = 64 << 10;

fn world() -> World {
    world_of(16 << 10, 8 << 10)
}

fn world_of(inbox: usize, outbox: usize) -> World {
    let arena = Arena::new(1, 1, inbox, outbox).unwrap();
    let mut reactor = ReactorLink::new(&arena.slots[0].links[0], BUDGET);
    reactor.open(1);
    let worker = incarnation(&arena, 1);
    World {
        arena,
        reactor,
        worker,
    }
}

fn incarnation(arena: &Arena, generation: u32) -> WorkerLink {
    let mut worker = WorkerLink::new(&arena.slots[0].links[0], &arena.reactors[0], generation);
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
            len: body.len() as u32,
        };
        self.reactor.submit_copy(&input, body);
    }

    /// What the reactor applies until there is no commit more, and the connections whose frames it
    /// retires.
    fn collect(&mut self) -> Result<Collected, Broken> {
        let (mut applied, mut retired) = (Vec::new(), Vec::new());
        while let Some(commit) = self.reactor.next_commit()? {
            for index in 0..self.reactor.output_count() {
                let (output, bytes) = self.reactor.output(index);
                let mut copy = Vec::new();
                bytes.append_to(&mut copy);
                applied.push((output, copy));
            }
            retired.extend(self.reactor.finish(commit).map(|delivery| delivery.conn));
        }
        self.reactor.release();
        Ok((applied, retired))
    }

    #[track_caller]
    fn take(&mut self) -> Taken {
        self.worker.take().expect("a frame")
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
    assert_eq!(world.worker.inbox.body(&taken), b"question");
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
        assert_eq!(world.worker.inbox.body(&taken), body);
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
        let mut room = world.reactor.room(*bounds.end());
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
        assert_eq!(world.worker.inbox.body(&taken), expected);
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

/// Sends these bytes of the message under way.
fn received(offset: u32, len: u32) -> Output {
    Output::SendReceived(conn(1), Part { offset, len })
}

#[test]
fn what_was_received_is_sent_from_where_it_stands() {
    let mut world = world();
    for round in 1..200 {
        world.submit(round, b"before");
        world.submit(1, format!("message {round}").as_bytes());
        let before = world.take();
        world.worker.outbox.done(&before);
        let taken = world.take();
        world.stage(Output::Send(conn(2)), b"own");
        world.stage(received(0, 7), &[]);
        world.stage(received(8, taken.input.len - 8), &[]);
        world.worker.outbox.done(&taken);
        let sends = [
            (Output::Send(conn(2)), b"own".to_vec()),
            (Output::Send(conn(1)), b"message".to_vec()),
            (Output::Send(conn(1)), round.to_string().into_bytes()),
        ];
        let (applied, retired) = world.collect().unwrap();
        assert_eq!(applied, sends);
        assert_eq!(retired, [conn(round), conn(1)]);
    }
}

#[test]
fn what_was_received_stays_where_it_is_while_it_is_held_back() {
    let mut world = world();
    world.submit(1, b"question");
    let taken = world.take();
    world.stage(received(0, 8), &[]);
    world.stage(Output::Send(conn(1)), b"!");
    world.worker.outbox.publish();
    assert_eq!(world.collect().unwrap(), (vec![], vec![]));
    assert_eq!(world.reactor.held_bytes(), 1, "only what the outbox had");
    // The ring of the inbox goes round meanwhile, as far as it can.
    let mut others = 0;
    while world.reactor.has_room(1000) {
        world.submit(2, &[b'x'; 1000]);
        others += 1;
    }
    assert!(others > 5, "{others}");
    world.worker.outbox.done(&taken);
    let sends = vec![
        (Output::Send(conn(1)), b"question".to_vec()),
        (Output::Send(conn(1)), b"!".to_vec()),
    ];
    assert_eq!(world.collect().unwrap(), (sends, vec![conn(1)]));
}

#[test]
fn many_parts_that_were_held_back_leave_no_memory_behind() {
    const PARTS: usize = 10 * MOST_KEPT;
    let mut world = world();
    world.reactor = ReactorLink::new(&world.arena.slots[0].links[0], PARTS * charge(1));
    world.reactor.open(1);
    world.submit(1, b"question");
    let taken = world.take();
    for _ in 0..PARTS {
        if !world.worker.outbox.room(0) {
            world.worker.outbox.publish();
            assert_eq!(world.collect().unwrap(), (vec![], vec![]));
        }
        world.stage(received(0, 1), &[]);
    }
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect().unwrap().0.len(), PARTS);
    assert!(world.reactor.output_capacity() <= MOST_KEPT);
}

#[test]
fn a_part_that_the_message_has_not_is_a_lie() {
    let lies = [
        (0, 9),
        (8, 1),
        (9, 0),
        (u32::MAX, 1),
        (1, u32::MAX),
        (u32::MAX, u32::MAX),
    ];
    for (offset, len) in lies {
        let mut world = world();
        world.submit(1, b"question");
        // It is the next one's, and near.
        world.submit(2, b"secret of another connection");
        let taken = world.take();
        world.stage(received(0, 8), &[]);
        world.stage(received(offset, len), &[]);
        world.worker.outbox.done(&taken);
        let part = Part { offset, len };
        let message = Some(8);
        let broken = world.collect().unwrap_err();
        assert_eq!(broken, Broken::Part { part, message });
        assert_eq!(world.collect().unwrap(), (vec![], vec![]), "read on");
        assert_eq!(world.reactor.in_flight(), 2);
    }
    let mut world = world();
    let (part, message) = (Part { offset: 0, len: 0 }, None);
    // Nothing is under way.
    world.stage(received(0, 0), &[]);
    world.worker.outbox.publish();
    assert_eq!(world.collect(), Err(Broken::Part { part, message }));
}

#[test]
fn a_part_for_a_connection_of_another_reactor_is_a_lie() {
    let mut world = world();
    world.submit(1, b"question");
    let taken = world.take();
    let (part, message) = (Part { offset: 0, len: 8 }, Some(8));
    let elsewhere = ConnId::new(1, 1, NonZeroU32::MIN);
    world.stage(Output::SendReceived(elsewhere, part), &[]);
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect(), Err(Broken::Part { part, message }));
}

#[test]
fn what_was_received_counts_against_the_budget() {
    let mut world = world();
    world.submit(1, &[7; 4000]);
    let taken = world.take();
    for _ in 0..=BUDGET / 4000 {
        world.stage(received(0, 4000), &[]);
    }
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect(), Err(Broken::OverBudget(BUDGET)));
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

/// The connections and the bodies of frames that came back.
fn told(frames: &[Returned]) -> Vec<(ConnId, &[u8])> {
    frames
        .iter()
        .map(|frame| (frame.conn, &frame.body[..]))
        .collect()
}

#[test]
fn a_death_before_the_first_frame_finds_nothing_under_way() {
    let mut world = world();
    world.submit(1, b"waits");
    let legacy = world.reactor.cut();
    assert!(legacy.under_way.is_none());
    assert_eq!(told(&legacy.rest), [(conn(1), &b"waits"[..])]);
    assert_eq!(world.reactor.in_flight(), 0);
}

#[test]
fn a_death_in_a_callback_cuts_what_was_staged_and_gives_the_rest_back_in_order() {
    let mut world = world();
    for number in 1..5 {
        world.submit(number, &[number as u8; 100]);
    }
    let first = world.take();
    world.stage(Output::Send(conn(1)), b"one");
    world.worker.outbox.done(&first);
    world.take();
    world.stage(Output::Send(conn(2)), b"never committed");
    // SIGKILL.
    assert_eq!(world.collect().unwrap().1, [conn(1)]);
    let legacy = world.reactor.cut();
    let under_way = legacy.under_way.expect("the second is under way");
    assert_eq!((under_way.conn, under_way.attempts), (conn(2), 0));
    assert_eq!(under_way.body, [2; 100]);
    let rest = [(conn(3), &[3; 100][..]), (conn(4), &[4; 100])];
    assert_eq!(told(&legacy.rest), rest);
    // The next one finds an empty link, and what it is given.
    world.reactor.open(2);
    world.worker = incarnation(&world.arena, 2);
    assert!(world.worker.take().is_none());
    world.submit(2, b"again");
    let taken = world.take();
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect().unwrap(), (vec![], vec![conn(2)]));
}

#[test]
fn what_a_stuck_worker_has_not_begun_is_taken_back_and_passed_over() {
    let mut world = world();
    for number in 1..4 {
        world.submit(number, &[number as u8; 10]);
    }
    let first = world.take();
    let returned = world.reactor.recall();
    assert_eq!(
        told(&returned),
        [(conn(2), &[2; 10][..]), (conn(3), &[3; 10])]
    );
    assert_eq!(world.reactor.in_flight(), 1);
    assert!(world.reactor.recall().is_empty(), "once");
    // What comes later is not concerned.
    world.submit(4, b"later");
    world.worker.outbox.done(&first);
    for _ in 0..2 {
        let void = world.take();
        assert_eq!(void.input.kind, InputKind::Void);
        world.worker.outbox.done(&void);
    }
    let later = world.take();
    assert_eq!(
        (later.input.conn, later.input.kind),
        (conn(4), Event::Receive.into())
    );
    world.worker.outbox.done(&later);
    let (_, retired) = world.collect().unwrap();
    assert_eq!(retired, [conn(1), conn(2), conn(3), conn(4)]);
    assert_eq!(world.reactor.in_flight(), 0);
}

#[test]
fn what_is_done_and_not_collected_is_not_taken_back() {
    let mut world = world();
    for number in 1..4 {
        world.submit(number, b"message");
    }
    let first = world.take();
    world.stage(Output::Send(conn(1)), b"answer");
    world.worker.outbox.done(&first);
    let second = world.take();
    world.worker.outbox.done(&second);
    let returned = world.reactor.recall();
    assert_eq!(told(&returned), [(conn(3), &b"message"[..])]);
    let (applied, retired) = world.collect().unwrap();
    assert_eq!(applied.len(), 1);
    assert_eq!(retired, [conn(1), conn(2)]);
}

#[test]
fn voids_of_a_dead_worker_do_not_come_back_again() {
    let mut world = world();
    for number in 1..3 {
        world.submit(number, b"message");
    }
    world.take();
    assert_eq!(world.reactor.recall().len(), 1);
    let legacy = world.reactor.cut();
    assert_eq!(legacy.under_way.map(|frame| frame.conn), Some(conn(1)));
    assert!(legacy.rest.is_empty());
    assert_eq!(world.reactor.in_flight(), 0);
}

#[test]
fn a_worker_finds_nothing_while_frames_are_taken_back() {
    let mut world = world();
    world.submit(1, b"message");
    let claim = &world.arena.slots[0].links[0].words.claim;
    claim.bar();
    assert!(!world.worker.inbox.look() && world.worker.inbox.is_barred());
    assert!(world.worker.take().is_none());
    claim.lift();
    assert!(world.worker.inbox.look() && !world.worker.inbox.is_barred());
    assert_eq!(world.take().input.conn, conn(1));
}

#[test]
fn a_death_at_a_void_leaves_nothing_under_way() {
    let mut world = world();
    world.submit(1, b"taken back");
    assert_eq!(world.reactor.recall().len(), 1);
    world.submit(2, b"never begun");
    // It passes over what was taken back, and dies before it has said so.
    assert_eq!(world.take().input.kind, InputKind::Void);
    let legacy = world.reactor.cut();
    assert!(legacy.under_way.is_none(), "{:?}", legacy.under_way);
    assert_eq!(told(&legacy.rest), [(conn(2), &b"never begun"[..])]);
}

#[test]
fn outputs_without_bytes_count_against_the_budget_too() {
    let mut world = world();
    world.submit(1, b"question");
    world.take();
    let mut outcome = Ok((vec![], vec![]));
    for _ in 0..=BUDGET / OUTPUT_BODY {
        if !world.worker.outbox.room(0) {
            world.worker.outbox.publish();
            outcome = world.collect();
            if outcome.is_err() {
                break;
            }
        }
        world.stage(Output::Close(conn(1)), b"");
    }
    world.worker.outbox.publish();
    let outcome = outcome.and_then(|_| world.collect());
    assert_eq!(outcome, Err(Broken::OverBudget(BUDGET)));
}

#[test]
fn a_death_with_output_held_back_discards_it() {
    let mut world = world();
    world.submit(1, b"big");
    world.take();
    world.stage(Output::Send(conn(1)), &[9; 2000]);
    world.worker.outbox.publish();
    assert_eq!(world.collect().unwrap(), (vec![], vec![]));
    assert_eq!(world.reactor.held_bytes(), 2000);
    assert!(world.reactor.cut().under_way.is_some());
    assert_eq!(world.reactor.held_bytes(), 0);
    world.reactor.open(2);
    assert_eq!(world.collect().unwrap(), (vec![], vec![]));
}

#[test]
fn an_incarnation_that_was_not_let_in_stays_out() {
    let world = world();
    let mut other = WorkerLink::new(&world.arena.slots[0].links[0], &world.arena.reactors[0], 2);
    assert!(!other.attach());
}

/// Publishes bytes as a liar would, and returns how the reactor took it.
fn forge(world: &mut World, bytes: &[u8], mark: u64) -> Result<Collected, Broken> {
    let memory = &world.arena.slots[0].links[0];
    memory.outbox.write(0, bytes);
    memory.words.outbox_published.store(mark, Ordering::Release);
    world.collect()
}

#[test]
fn every_lie_is_refused_and_nothing_of_its_commit_is_applied() {
    let send = Output::Send(conn(1)).encode(4);
    let mut with_bad_kind = send.to_vec();
    with_bad_kind.resize(OUTPUT_BODY + 64, 7);
    let mut bad_kind = Output::Flush.encode(0);
    bad_kind[4] = 77;
    with_bad_kind.extend(bad_kind);
    let lies: [(&str, Vec<u8>, u64); 8] = [
        (
            "a length past the mark",
            Output::Send(conn(1)).encode(1 << 20).to_vec(),
            64,
        ),
        (
            "the largest length",
            Output::Send(conn(1)).encode(u32::MAX).to_vec(),
            4096,
        ),
        (
            "a position that is not under way",
            Output::Done(64).encode(0).to_vec(),
            64,
        ),
        (
            "a name of nobody",
            [send[..8].to_vec(), vec![0; 8]].concat(),
            128,
        ),
        ("an unknown kind after a good frame", with_bad_kind, 192),
        ("a mark past the ring", vec![], 1 << 20),
        ("a mark between frames", vec![], 8),
        ("the largest mark", vec![], u64::MAX),
    ];
    for (lie, bytes, mark) in lies {
        let mut world = world();
        world.submit(1, b"question");
        assert!(forge(&mut world, &bytes, mark).is_err(), "{lie}");
        assert_eq!(world.collect().unwrap(), (vec![], vec![]), "{lie}: read on");
        assert_eq!(world.reactor.in_flight(), 1, "{lie}");
    }
}

#[test]
fn output_over_the_budget_is_a_lie_too() {
    let mut world = world();
    world.submit(1, b"question");
    let mut outcome = Ok((vec![], vec![]));
    for _ in 0..=BUDGET / 1000 {
        if !world.worker.outbox.room(1000) {
            world.worker.outbox.publish();
            outcome = world.collect();
            if outcome.is_err() {
                break;
            }
        }
        world.stage(Output::Send(conn(1)), &[1; 1000]);
    }
    world.worker.outbox.publish();
    assert_eq!(
        outcome.and_then(|_| world.collect()),
        Err(Broken::OverBudget(BUDGET))
    );
}

#[test]
fn the_frame_of_a_lie_is_under_way_though_the_liar_went_on() {
    let mut world = world();
    world.submit(1, b"liar");
    world.submit(2, b"innocent");
    let first = world.take();
    world.stage(Output::Done(12_345), &[]);
    world.worker.outbox.done(&first);
    world.take();
    assert!(world.collect().is_err());
    let legacy = world.reactor.cut();
    assert_eq!(legacy.under_way.map(|frame| frame.conn), Some(conn(1)));
    assert_eq!(told(&legacy.rest), [(conn(2), &b"innocent"[..])]);
}
