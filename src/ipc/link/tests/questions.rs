//! Questions of a callback, which are answered while its output waits for its commit.

use super::*;

#[test]
fn a_question_is_answered_and_what_was_staged_before_it_waits() {
    let mut world = world();
    world.submit(1, b"question");
    let taken = world.take();
    world.stage(Output::Send(conn(1)), b"before");
    assert!(world.worker.outbox.room(4));
    world.worker.outbox.ask(1, b"room");
    assert_eq!(world.worker.outbox.answer(1), None);
    assert_eq!(world.collect(), Ok((vec![], vec![])));
    assert_eq!(world.reactor.question(), b"room");
    assert_eq!(world.worker.outbox.answer(1), Some(7));
    assert_eq!(world.worker.outbox.answer(2), None, "an older one");
    world.stage(Output::Send(conn(1)), b"behind");
    world.worker.outbox.done(&taken);
    let sent = |bytes: &[u8]| (Output::Send(conn(1)), bytes.to_vec());
    let expected = (vec![sent(b"before"), sent(b"behind")], vec![conn(1)]);
    assert_eq!(world.collect(), Ok(expected));
}

#[test]
fn what_was_staged_before_a_question_is_dropped_with_its_callback() {
    let mut world = world();
    world.submit(1, b"question");
    let taken = world.take();
    world.stage(Output::Send(conn(1)), b"never");
    world.worker.outbox.ask(1, b"");
    world.worker.outbox.failed(&taken);
    assert_eq!(world.collect(), Ok((vec![], vec![])));
    assert_eq!(world.failures.len(), 1);
    assert_eq!(world.reactor.held_bytes(), 0);
}

#[test]
fn the_next_worker_does_not_see_the_answers_of_the_last() {
    let mut world = world();
    world.submit(1, b"question");
    world.take();
    world.worker.outbox.ask(1, b"room");
    assert!(world.collect().is_ok());
    world.reactor.cut();
    world.reactor.open(2);
    let worker = incarnation(&world.both, 2);
    assert_eq!(worker.outbox.answer(1), None);
}

#[test]
fn a_worker_that_asks_without_end_does_not_fill_the_memory_of_its_reactor() {
    let mut world = world();
    world.submit(1, b"question");
    world.take();
    for number in 1..=4 * BUDGET as u64 / 64 {
        assert!(world.worker.outbox.room(4));
        world.worker.outbox.ask(number, b"room");
        assert_eq!(world.collect(), Ok((vec![], vec![])));
        assert_eq!(world.worker.outbox.answer(number), Some(7));
    }
    assert_eq!(world.reactor.held_bytes(), 0);
}
