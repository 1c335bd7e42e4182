//! Workers that die, are stuck, or come too late: which frames go back.

use super::*;

/// The connections and the bodies of frames that came back.
pub(super) fn told(frames: &[Returned]) -> Vec<(ConnId, &[u8])> {
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
    world.worker = incarnation(&world.both, 2);
    assert!(matches!(world.worker.take(), Take::Empty));
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
    let claim = &world.both.worker.links[0].words.claim;
    claim.bar();
    assert!(!world.worker.inbox.look());
    // Not empty: whoever looks when the bar is lifted sees no difference any more.
    assert!(matches!(world.worker.take(), Take::Barred));
    claim.lift();
    assert!(world.worker.inbox.look());
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
    let mut other = WorkerLink::new(
        &world.both.worker.links[0],
        &world.both.reactors.shown[0],
        2,
    );
    assert!(!other.attach());
}

#[test]
fn nothing_counts_that_is_published_after_the_last_look() {
    let mut world = world();
    world.submit(1, b"question");
    world.submit(2, b"another");
    let taken = world.take();
    world.stage(Output::Send(conn(1)), b"answer");
    world.worker.outbox.done(&taken);
    world.reactor.look_last();
    // A process that the worker has left behind goes on.
    let taken = world.take();
    world.stage(Output::Send(conn(2)), b"too late");
    world.worker.outbox.done(&taken);
    let last = (
        vec![(Output::Send(conn(1)), b"answer".to_vec())],
        vec![conn(1)],
    );
    assert_eq!(world.collect().unwrap(), last);
    assert_eq!(world.collect().unwrap(), (vec![], vec![]));
    assert_eq!(
        world.reactor.in_flight(),
        1,
        "its frame goes to another worker"
    );
}
