//! Questions of a callback, which are answered while its output waits for its commit.

use super::*;
use crate::ipc::answer::Questions;
use crate::ipc::record::{About, Question};

impl World {
    fn ask(&mut self, number: u64, name: &[u8]) {
        assert!(self.worker.outbox.room(name.len()));
        let about = About::Group;
        self.worker.outbox.ask(Question { number, about }, name);
    }

    fn answer(&self, number: u64) -> Option<u64> {
        self.both.worker.links[0].words.answer.get(number)
    }
}

#[test]
fn a_question_is_answered_and_what_was_staged_before_it_waits() {
    let mut world = world();
    world.submit(1, b"question");
    let taken = world.take();
    world.stage(Output::Send(conn(1)), b"before");
    world.ask(1, b"room");
    assert_eq!(world.answer(1), None);
    assert_eq!(world.collect(), Ok((vec![], vec![])));
    assert_eq!(world.reactor.question().1, b"room");
    assert_eq!(world.answer(1), Some(7));
    assert_eq!(world.answer(2), None, "an older one");
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
    world.ask(1, b"");
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
    let (mut first, mut second) = (Questions::of(1), Questions::of(2));
    world.ask(first.next(), b"room");
    assert!(world.collect().is_ok());
    world.reactor.cut();
    world.reactor.open(2);
    world.worker = incarnation(&world.both, 2);
    let number = second.next();
    assert_eq!(world.answer(number), None);
    // An answer that another reactor owes the last one comes late.
    world.reactor.answer(first.next(), |_| 8);
    assert_eq!(world.answer(number), None);
    world.ask(number, b"room");
    assert_eq!(world.collect(), Ok((vec![], vec![])));
    assert_eq!(world.answer(number), Some(7));
    world.reactor.answer(first.next(), |_| 9);
    assert_eq!(world.answer(number), Some(7), "it is the last one's");
}

#[test]
fn a_page_comes_with_its_answer() {
    let mut world = world();
    world.reactor.answer(2, |answer| {
        answer.put(0, [1; 8]);
        answer.put(127, [2; 8]);
        page(2, NO_MORE)
    });
    let answer = &world.both.worker.links[0].words.answer;
    assert_eq!(answer.get(2).map(of_page), Some((2, NO_MORE)));
    assert_eq!((answer.entry(0), answer.entry(127)), ([1; 8], [2; 8]));
    // A late answer to an earlier question, while the worker reads.
    world.reactor.answer(1, |_| panic!("it must not write"));
    assert_eq!(answer.get(2).map(of_page), Some((2, NO_MORE)));
}

#[test]
fn a_worker_that_asks_without_end_does_not_fill_the_memory_of_its_reactor() {
    let mut world = world();
    world.submit(1, b"question");
    world.take();
    for number in 1..=4 * BUDGET as u64 / 64 {
        world.ask(number, b"room");
        assert_eq!(world.collect(), Ok((vec![], vec![])));
        assert_eq!(world.answer(number), Some(7));
    }
    assert_eq!(world.reactor.held_bytes(), 0);
}
