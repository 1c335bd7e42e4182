//! A worker that breaks the protocol: the reactor refuses its commit.

use super::deaths::told;
use super::*;
use crate::conn_id::MAX_KEYS;
use crate::handler::Timer;

/// Publishes bytes as a liar would, and returns how the reactor took it.
fn forge(world: &mut World, bytes: &[u8], mark: u64) -> Result<Collected, Broken> {
    let memory = &world.both.worker.links[0];
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
fn a_state_or_a_timer_of_another_connection_is_a_lie_too() {
    let timer = Timer { after: 1, tag: 2 };
    for record in [
        Output::SetState,
        |conn| Output::CancelTimer(conn, 2),
        Output::NotifyDrained,
        |conn| Output::Promise(conn, 1),
        Output::Hold,
        Output::Unhold,
        Output::Join,
        Output::Leave,
    ] {
        for (of, is_lie) in [(1, false), (2, true)] {
            let mut world = world();
            world.submit(1, b"question");
            world.submit(2, b"of another");
            let taken = world.take();
            world.stage(record(conn(of)), &[]);
            world.stage(Output::SetTimer(conn(1), timer), &[]);
            world.worker.outbox.done(&taken);
            let expected = match is_lie {
                true => Err(Broken::OtherConnection(conn(of))),
                false => Ok(2),
            };
            let applied = world.collect().map(|(applied, _)| applied.len());
            assert_eq!(applied, expected, "{:?}", record(conn(of)));
        }
    }
}

#[test]
fn nothing_is_assigned_to_a_mailbox() {
    let mailbox = conn(MAX_KEYS);
    for record in [
        Output::SetState(mailbox),
        Output::SetTimer(mailbox, Timer { after: 1, tag: 2 }),
        Output::Promise(mailbox, 1),
        Output::Join(mailbox),
    ] {
        let mut world = world();
        world.submit(MAX_KEYS, b"post");
        let taken = world.take();
        world.stage(record, &[]);
        world.worker.outbox.done(&taken);
        assert_eq!(world.collect(), Err(Broken::OtherConnection(mailbox)));
    }
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

#[test]
fn a_commit_that_made_too_much_is_no_fault_of_the_next_frame() {
    for is_flush in [false, true] {
        let mut world = world();
        world.submit(1, b"liar");
        world.submit(2, b"innocent");
        let first = world.take();
        match is_flush {
            false => world.worker.outbox.done(&first),
            true => {
                world.stage(Output::Flush, &[]);
                world.worker.outbox.publish();
            }
        }
        let commit = world.reactor.next_commit().unwrap().unwrap();
        world.reactor.finish(commit);
        world.reactor.refuse(commit);
        let legacy = world.reactor.cut();
        let under_way = legacy.under_way.map(|frame| frame.conn);
        assert_eq!(under_way, is_flush.then(|| conn(1)));
        assert_eq!(told(&legacy.rest), [(conn(2), &b"innocent"[..])]);
    }
}
