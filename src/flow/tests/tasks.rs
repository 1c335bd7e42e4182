//! Tasks of a first reactor: delays by an injected clock, and what becomes of a returned one.

use super::*;
use crate::handler::TaskOrder;
use crate::ipc::arena::ReactorsMemory;
use crate::ipc::queued::Queued;

/// A flow that has the server's tasks, and their count.
fn world() -> (World, Queued) {
    let mut world = World::new(|setup| setup.settings.task_workers = 2);
    let memory = ReactorsMemory::new(1).unwrap();
    let queued = Queued::new(memory.own[0].clone(), &world.flow.config);
    world.flow.own_tasks(queued.clone());
    (world, queued)
}

fn order(delay: u64, key: Option<u64>, tag: Option<u64>) -> TaskOrder {
    TaskOrder {
        key,
        tag,
        delay,
        sender: 1,
    }
}

fn queue(world: &mut World, queued: &Queued, order: TaskOrder, text: &str) {
    queued.add(text.len()).unwrap();
    let bytes = SharedBytes::of(text.as_bytes());
    world.flow.apply(Output::Task(order), bytes);
    world.settle();
}

/// The oldest task is done, and has this result.
fn finish(world: &mut World, result: &str) {
    let (input, _) = world.workers.frames.pop_front().unwrap();
    let bytes = SharedBytes::of(result.as_bytes());
    world.flow.apply(Output::Finish(input.conn), bytes);
    world
        .flow
        .frame_done(input.conn, input.kind.event().unwrap());
    world.settle();
}

#[test]
fn a_task_does_not_run_before_its_time() {
    let (mut world, queued) = world();
    queue(&mut world, &queued, order(1000, None, None), "late");
    queue(&mut world, &queued, order(0, None, None), "now");
    assert_eq!(world.workers.seen(), ["Task now"]);
    let next = world.flow.next_fire().unwrap();
    assert!(next >= SECOND && next <= SECOND + Duration::from_millis(2));
    world.pass(SECOND - Duration::from_millis(1));
    world.flow.fire_timers();
    world.settle();
    assert_eq!(world.workers.seen(), [""; 0]);
    world.pass(Duration::from_millis(3));
    world.flow.fire_timers();
    world.settle();
    assert_eq!(world.workers.seen(), ["Task late"]);
    assert_eq!(queued.counted().tasks, 2);
    (0..2).for_each(|_| finish(&mut world, ""));
    assert_eq!((queued.counted().tasks, world.flow.mailboxes()), (0, 0));
}

#[test]
fn the_sender_gets_the_result_of_a_task_with_a_tag_once() {
    let (mut world, queued) = world();
    queue(&mut world, &queued, order(0, None, Some(7)), "a");
    assert_eq!(world.workers.seen(), ["Task a"]);
    let (input, body) = world.workers.frames[0].clone();
    assert_eq!((input.value, input.detail, input.attempt), (7, 1, 0));
    // Its worker dies: it runs again, and then ends.
    world.hand_back(1, 1);
    world.settle();
    assert_eq!(world.workers.seen(), ["Task a"]);
    assert_eq!(world.workers.frames[0].1, body);
    finish(&mut world, "result");
    assert_eq!(world.workers.seen(), ["Finished result"]);
    assert_eq!(world.workers.frames[0].0.value, 7);
    finish(&mut world, "");
    assert_eq!((world.flow.kept(), world.flow.mailboxes()), (0, 0));
}

#[test]
fn a_task_that_waits_for_a_worker_can_be_replaced() {
    let (mut world, queued) = world();
    world.workers.left = 0;
    for text in ["a", "b", "c"] {
        queue(&mut world, &queued, order(0, Some(1), None), text);
    }
    queue(&mut world, &queued, order(0, None, None), "other");
    assert_eq!((queued.counted().tasks, world.flow.mailboxes()), (2, 1));
    world.workers.left = usize::MAX;
    world.give_turns();
    assert_eq!(world.workers.seen(), ["Task c", "Task other"]);
}

#[test]
fn many_tasks_use_few_mailboxes() {
    let (mut world, queued) = world();
    for number in 0..1000 {
        queue(
            &mut world,
            &queued,
            order(0, None, None),
            &number.to_string(),
        );
    }
    assert_eq!(world.flow.mailboxes(), 128);
    let mut expected = 0;
    while let Some((_, body)) = world.workers.frames.front() {
        assert_eq!(body, expected.to_string().as_bytes());
        expected += 1;
        finish(&mut world, "");
    }
    assert_eq!((expected, world.flow.mailboxes()), (1000, 0));
    assert_eq!(queued.counted().bytes, 0);
}

#[test]
fn tasks_are_dropped_when_the_server_is_cut() {
    let (mut world, queued) = world();
    queue(&mut world, &queued, order(0, None, Some(1)), "runs");
    world.workers.left = 0;
    queue(&mut world, &queued, order(0, None, None), "waits");
    queue(&mut world, &queued, order(60_000, None, None), "late");
    world.flow.hang_up_all();
    world.settle();
    assert_eq!((queued.counted().tasks, world.flow.mailboxes()), (1, 1));
    queue(&mut world, &queued, order(0, None, None), "after");
    finish(&mut world, "");
    assert_eq!((queued.counted().tasks, world.flow.mailboxes()), (0, 0));
    assert_eq!(world.flow.next_fire(), None);
}
