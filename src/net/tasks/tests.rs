use std::num::NonZeroU32;

use super::*;
use crate::config::policy::Deciders;
use crate::config::{Config, Settings};
use crate::ipc::arena::ReactorsMemory;
use crate::ipc::queued::Amount;

fn config() -> Config {
    let settings = Settings {
        task_workers: 1,
        ..Settings::default()
    };
    settings.validate(Deciders::default()).unwrap()
}

struct World {
    tasks: Tasks,
    queued: Queued,
}

impl World {
    fn new() -> World {
        let memory = ReactorsMemory::new(1).unwrap();
        let queued = Queued::new(memory.own[0].clone(), &config());
        let tasks = Tasks::new(queued.clone(), 1);
        World { tasks, queued }
    }

    fn add(&mut self, text: &str, key: Option<u64>, at: Option<u64>) {
        let order = TaskOrder {
            key,
            tag: None,
            delay: 0,
            sender: 0,
        };
        let body = Arc::new(text.as_bytes().to_vec());
        self.queued.add(body.len()).unwrap();
        self.tasks.add(Task { order, body }, at);
    }

    /// Gives all ready tasks to mailboxes, one after the other.
    fn run(&mut self) -> Vec<String> {
        let mut run = Vec::new();
        while self.tasks.needs_box() {
            self.tasks.open(conn(1));
            let (_, body, _) = self.tasks.first(conn(1)).expect("it is ready");
            self.tasks.begin(conn(1));
            assert!(self.tasks.end(conn(1)).is_some());
            assert!(self.tasks.try_close(conn(1)));
            run.push(String::from_utf8(body.to_vec()).unwrap());
        }
        assert!(!self.tasks.has_box(conn(1)));
        run
    }

    fn count(&self) -> u64 {
        self.queued.counted().tasks
    }
}

fn conn(number: u32) -> ConnId {
    ConnId::new(0, number, NonZeroU32::MIN)
}

#[test]
fn tasks_run_in_order_and_delayed_ones_when_their_time_has_come() {
    let mut world = World::new();
    world.add("late", None, Some(50));
    world.add("a", None, None);
    world.add("b", None, None);
    world.add("later", None, Some(60));
    assert_eq!((world.count(), world.tasks.next()), (4, Some(50)));
    let mut work = 100;
    world.tasks.fire(49, &mut work);
    assert_eq!(world.run(), ["a", "b"]);
    world.tasks.fire(50, &mut work);
    world.add("c", None, None);
    assert_eq!(world.run(), ["late", "c"]);
    world.tasks.fire(1000, &mut work);
    assert_eq!(world.run(), ["later"]);
    assert_eq!(world.queued.counted(), Amount::default());
}

#[test]
fn a_task_replaces_the_waiting_one_with_its_key() {
    let mut world = World::new();
    world.add("a1", Some(1), None);
    world.add("b1", Some(2), Some(50));
    world.add("c", None, None);
    world.add("a2", Some(1), None);
    world.add("b2", Some(2), Some(90));
    assert_eq!(world.count(), 3);
    let mut work = 100;
    world.tasks.fire(60, &mut work);
    assert_eq!(world.run(), ["a2", "c"], "at the place of the first one");
    world.add("b3", Some(2), None);
    assert_eq!((world.run(), world.tasks.next()), (vec!["b3".into()], None));
    world.add("d1", Some(4), None);
    world.add("d2", Some(4), Some(100));
    assert_eq!(world.run(), [""; 0], "it waits now");
    world.tasks.fire(100, &mut work);
    world.add("d3", Some(4), None);
    assert_eq!(world.run(), ["d3"], "of one that has become ready");
    world.add("d4", Some(4), None);
    assert_eq!(world.run(), ["d4"], "none waits with that key");
    assert_eq!(world.queued.counted(), Amount::default());
}

#[test]
fn a_task_that_was_returned_comes_back_to_its_mailbox_and_is_not_replaced() {
    let mut world = World::new();
    world.add("first", Some(1), None);
    world.add("second", Some(2), None);
    world.tasks.open(conn(1));
    assert!(!world.tasks.needs_box(), "one asks");
    world.tasks.begin(conn(1));
    assert_eq!(world.tasks.first(conn(1)), None, "a worker has it");
    assert!(world.tasks.needs_box());
    world.tasks.open(conn(2));
    world.tasks.put_back(conn(1), b"first".to_vec(), 2);
    world.add("replaced", Some(1), None);
    let (_, body, attempts) = world.tasks.first(conn(1)).unwrap();
    assert_eq!((&body[..], attempts), (&b"first"[..], 2));
    assert!(!world.tasks.try_close(conn(1)));
    assert_eq!(world.count(), 3);
    world.tasks.begin(conn(1));
    world
        .tasks
        .set_result(conn(1), |result| result.extend(b"old"));
    world
        .tasks
        .set_result(conn(1), |result| result.extend(b"new"));
    let ended = world.tasks.end(conn(1)).unwrap();
    assert_eq!((&ended.result[..], ended.order.key), (&b"new"[..], Some(1)));
    assert!(world.tasks.end(conn(1)).is_none(), "it ends once");
    assert_eq!((world.count(), world.tasks.clear()), (2, 2));
    assert!(world.tasks.try_close(conn(1)) && world.tasks.try_close(conn(2)));
    assert_eq!(world.queued.counted(), Amount::default());
}

#[test]
fn all_that_wait_are_dropped_also_those_that_were_returned() {
    let mut world = World::new();
    for text in ["a", "b", "c"] {
        world.add(text, None, None);
    }
    world.add("d", Some(1), Some(9));
    for number in [1, 2] {
        world.tasks.open(conn(number));
        world.tasks.begin(conn(number));
    }
    world.tasks.put_back(conn(1), b"a".to_vec(), 0);
    assert_eq!(world.tasks.clear(), 3);
    assert_eq!((world.count(), world.tasks.next()), (1, None));
    assert!(world.tasks.end(conn(2)).is_some(), "a worker had it");
    assert_eq!(world.queued.counted(), Amount::default());
}

proptest::proptest! {
    /// Against a list: what is counted is what waits or runs, and each task is there once.
    #[test]
    fn tasks_are_counted_as_a_plain_list_of_them_says(
        steps in proptest::collection::vec((0u8..5, proptest::option::of(0u64..3), 0u64..50), 0..200)
    ) {
        let (mut world, mut now, mut work) = (World::new(), 0, usize::MAX);
        let mut model: Vec<(String, Option<u64>, u64)> = Vec::new();
        for (number, (step, key, time)) in steps.into_iter().enumerate() {
            let text = format!("{number}");
            match step {
                0 | 1 => {
                    model.retain(|(_, it, _)| key.is_none() || *it != key);
                    let at = (step == 1).then_some(now + time + 1);
                    model.push((text.clone(), key, at.unwrap_or(0)));
                    world.add(&text, key, at);
                }
                2 | 3 => {
                    now += time;
                    world.tasks.fire(now, &mut work);
                }
                _ => {
                    world.tasks.fire(now, &mut work);
                    let mut run = world.run();
                    run.sort();
                    let due = model.extract_if(.., |(_, _, at)| *at <= now);
                    let mut due: Vec<String> = due.map(|(text, ..)| text).collect();
                    due.sort();
                    proptest::prop_assert_eq!(run, due);
                }
            }
            proptest::prop_assert_eq!(world.count(), model.len() as u64);
        }
    }
}
