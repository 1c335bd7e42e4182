//! Callbacks that fail: nothing of them is applied, and the frames of their connections go back.

use super::super::Failed;
use super::*;

impl World {
    /// Takes the next commit, which is to be a failure.
    #[track_caller]
    fn fail(&mut self) -> Failed {
        assert_eq!(self.reactor.next_commit(), Ok(Some(Commit::Failed)));
        assert_eq!(self.reactor.output_count(), 0, "nothing is applied");
        assert!(self.reactor.finish(Commit::Failed).is_none());
        self.reactor.fail().expect("a frame")
    }
}

#[test]
fn what_a_callback_that_fails_has_staged_is_never_seen() {
    let mut world = world();
    world.submit(1, b"bad");
    world.submit(2, b"good");
    let taken = world.take();
    world.stage(Output::Send(conn(1)), b"never");
    world.worker.outbox.failed(&taken);
    let Failed { frame, behind } = world.fail();
    assert_eq!((frame.conn, frame.body.as_slice()), (conn(1), &b"bad"[..]));
    assert!(behind.is_empty() && !frame.flushed);
    world.reactor.release();
    assert!(world.worker.outbox.is_read());

    let taken = world.take();
    world.stage(Output::Send(conn(2)), b"answer");
    world.worker.outbox.done(&taken);
    let answer = (Output::Send(conn(2)), b"answer".to_vec());
    assert_eq!(world.collect().unwrap(), (vec![answer], vec![conn(2)]));
}

#[test]
fn what_was_published_in_parts_is_dropped_too_and_what_was_flushed_stays() {
    let mut world = world();
    world.submit(1, b"long");
    let taken = world.take();
    world.stage(Output::Send(conn(1)), b"flushed");
    world.stage(Output::Flush, &[]);
    world.stage(Output::Send(conn(1)), &[7; 3000]);
    world.worker.outbox.publish();
    let (applied, retired) = world.collect().unwrap();
    let flushed = (Output::Send(conn(1)), b"flushed".to_vec());
    assert_eq!((applied, retired), (vec![flushed], vec![]));
    assert_eq!(world.reactor.held_bytes(), 3000);
    world.stage(Output::Close(conn(1)), &[]);
    world.worker.outbox.failed(&taken);
    let Failed { frame, .. } = world.fail();
    assert!(frame.flushed);
    assert_eq!(world.reactor.held_bytes(), 0);
}

#[test]
fn frames_of_the_same_connection_go_back_and_others_stay() {
    let mut world = world();
    for (number, body) in [(1, b"1a"), (2, b"2a"), (1, b"1b"), (2, b"2b"), (1, b"1c")] {
        world.submit(number, body);
    }
    let taken = world.take();
    world.worker.outbox.failed(&taken);
    let Failed { frame, behind } = world.fail();
    assert_eq!(frame.body, b"1a");
    let bodies: Vec<&[u8]> = behind.iter().map(|it| it.body.as_slice()).collect();
    assert_eq!(bodies, [b"1b", b"1c"]);
    world.reactor.release();
    assert_eq!(world.reactor.in_flight(), 2);
    for expected in [Some(conn(2)), None, Some(conn(2)), None] {
        let taken = world.take();
        let is_void = taken.input.kind == InputKind::Void;
        assert_eq!((!is_void).then_some(taken.input.conn), expected);
        world.worker.outbox.done(&taken);
    }
    world.collect().unwrap();
    assert_eq!(world.reactor.left(), 0);
}

#[test]
fn a_failure_of_another_frame_than_the_one_under_way_is_a_lie() {
    let mut world = world();
    world.submit(1, b"first");
    world.submit(2, b"second");
    let _first = world.take();
    let second = world.take();
    world.worker.outbox.failed(&second);
    assert!(matches!(
        world.reactor.next_commit(),
        Err(Broken::Done { .. })
    ));
    let legacy = world.reactor.cut();
    assert_eq!(
        legacy.rest.len() + usize::from(legacy.under_way.is_some()),
        2
    );
}

#[test]
fn a_recalled_frame_can_not_fail() {
    let mut world = world();
    world.submit(1, b"recalled");
    assert_eq!(world.reactor.recall().len(), 1);
    let taken = world.take();
    assert_eq!(taken.input.kind, InputKind::Void);
    world.worker.outbox.failed(&taken);
    assert!(matches!(
        world.reactor.next_commit(),
        Err(Broken::Done { .. })
    ));
}
