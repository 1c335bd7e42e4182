//! Tasks: counted where they are read, bounded whatever a worker writes, and given to task workers alone.

use std::os::unix::net::UnixStream;

use super::{SLOW, World, one_worker};
use crate::config::Settings;
use crate::event::Event;
use crate::handler::TaskOrder;
use crate::ipc::link::Taken;
use crate::ipc::queued::Amount;
use crate::ipc::record::Output;
use crate::master::reactor::Report;

const PLAIN: TaskOrder = TaskOrder {
    key: None,
    tag: None,
    delay: 0,
    sender: 77,
};

/// One worker for clients in slot 0, and task workers in those behind it.
fn with_tasks(workers: usize) -> impl FnOnce(&mut Settings) {
    move |settings| {
        one_worker(settings);
        (settings.task_workers, settings.task_queue) = (workers, 10);
    }
}

/// The worker in a slot, which has this frame, stages records with five bytes.
fn stage(world: &mut World, slot: usize, taken: &Taken, records: &[Output]) {
    let outbox = &mut world.workers[slot].as_mut().expect("it lives").outbox;
    for record in records {
        assert!(outbox.room(5));
        outbox.stage(*record, b"bytes");
    }
    world.finish(slot, taken);
}

/// The worker in slot 0 answers a message with these records.
fn answer(world: &mut World, client: &UnixStream, records: &[Output]) {
    world.say(client, "go\n");
    let taken = world.begin(0).expect("the message");
    stage(world, 0, &taken, records);
}

fn broken(world: &World) -> bool {
    let is_broken = |report| matches!(report, Report::ProtocolBroken { slot: 0, .. });
    world.reports.try_iter().any(is_broken)
}

fn counted(world: &World) -> u64 {
    Amount::counted(&world.reactor.words).tasks
}

#[test]
fn a_free_task_worker_is_given_the_next_task_and_its_result_goes_to_the_sender() {
    let mut world = World::new(with_tasks(2));
    let [client] = world.clients();
    let tagged = TaskOrder {
        tag: Some(5),
        ..PLAIN
    };
    answer(&mut world, &client, &[Output::Task(tagged); 4]);
    assert_eq!(counted(&world), 4);
    let (first, second) = (world.begin(1).unwrap(), world.begin(2).unwrap());
    assert_eq!(first.input.kind.event(), Some(Event::Task));
    assert!(world.begin(1).is_none(), "one at a time, until it is quick");
    world.finish(1, &first);
    let third = world.begin(1).expect("the next one");
    stage(&mut world, 1, &third, &[Output::Finish(third.input.conn)]);
    assert!(world.begin(1).is_some() && world.begin(1).is_none());
    // The sender is the worker that has committed the task, whatever it says.
    let results: Vec<String> = std::iter::from_fn(|| {
        let taken = world.begin(0)?;
        assert_eq!(taken.input.kind.event(), Some(Event::Finished));
        assert_eq!(taken.input.value, 5);
        let said = world.said(0, &taken);
        world.finish(0, &taken);
        Some(said)
    })
    .collect();
    assert_eq!(results, ["", "bytes"]);
    world.finish(2, &second);
    assert_eq!(counted(&world), 1);
    assert!(!broken(&world));
}

#[test]
fn no_task_waits_behind_a_slow_one() {
    let mut world = World::new(with_tasks(2));
    let [client] = world.clients();
    answer(&mut world, &client, &[Output::Task(PLAIN); 9]);
    // Both are quick, so that they are given several; then one is stuck.
    for slot in [1, 2, 1, 2] {
        let taken = world.begin(slot).unwrap();
        world.finish(slot, &taken);
    }
    let stuck = world.begin(1).unwrap();
    assert!(world.in_flight(1) > 1);
    for _ in 0..3 {
        world.pass(SLOW);
    }
    let mut served = 4;
    while let Some(taken) = world.begin(2) {
        served += usize::from(taken.input.kind.event() == Some(Event::Task));
        world.finish(2, &taken);
    }
    assert_eq!(served, 8, "all but the one that is stuck");
    world.finish(1, &stuck);
    assert_eq!(counted(&world), 0);
}

#[test]
fn a_task_of_a_dead_worker_is_given_to_the_next_and_fails_with_its_last_attempt() {
    let mut world = World::new(|settings| {
        with_tasks(1)(settings);
        settings.task_attempts = 2;
    });
    let [client] = world.clients();
    answer(&mut world, &client, &[Output::Task(PLAIN)]);
    let taken = world.begin(1).unwrap();
    assert_eq!(taken.input.attempt, 0);
    world.die(1);
    assert!(world.in_flight(0) == 0, "no worker for clients gets it");
    world.seat(1, 1);
    assert_eq!(world.begin(1).unwrap().input.attempt, 1);
    world.die(1);
    assert_eq!((counted(&world), world.reactor.poisoned), (0, 1));
    world.seat(1, 1);
    assert!(world.begin(1).is_none());
}

#[test]
fn workers_that_lie_about_tasks_are_ended() {
    let mut world = World::new(one_worker);
    let [client] = world.clients();
    answer(&mut world, &client, &[Output::Task(PLAIN)]);
    assert!(broken(&world), "there are no task workers");

    let mut world = World::new(with_tasks(1));
    let [client] = world.clients();
    answer(&mut world, &client, &[Output::Task(PLAIN); 10]);
    assert!(!broken(&world), "as many as may wait");
    // More than all workers together can queue if each looks at the limit.
    let slots = world.reactor.config.slots();
    answer(&mut world, &client, &vec![Output::Task(PLAIN); 10 * slots]);
    assert!(!broken(&world));
    answer(&mut world, &client, &[Output::Task(PLAIN)]);
    assert!(broken(&world));

    // The result of a task in a callback for a message.
    let mut world = World::new(with_tasks(1));
    let [client] = world.clients();
    world.say(&client, "go\n");
    let taken = world.begin(0).unwrap();
    stage(&mut world, 0, &taken, &[Output::Finish(taken.input.conn)]);
    assert!(broken(&world));
}
