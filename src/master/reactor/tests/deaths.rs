//! Workers that die, and callbacks that fail: what is applied, what runs again, and what is left.

use super::{World, one_worker};
use crate::config::policy::OnCrash;
use crate::ipc::record::Output;
use crate::master::reactor::{BATCH, Command};

#[test]
fn all_that_a_worker_committed_before_its_death_is_applied() {
    // More than one turn takes from a worker that lives.
    let commits = BATCH.commits as u64 + 1;
    let mut world = World::new(one_worker);
    let [client] = world.clients();
    world.say(&client, "a\n");
    let id = world.begin(0).unwrap().input.conn;
    let outbox = &mut world.workers[0].as_mut().unwrap().outbox;
    for user in 1..=commits {
        assert!(outbox.room(0));
        outbox.stage(Output::SetUser(id, user), &[]);
        outbox.stage(Output::Flush, &[]);
        outbox.publish();
    }
    // Without a turn before.
    world.reactor.slot_emptied(0, world.generation);
    let conn = world.reactor.flow.conn(id).unwrap();
    assert_eq!(conn.work.user(), Some(commits));
}

#[test]
fn the_death_of_an_earlier_worker_takes_nothing_from_the_one_that_has_its_slot() {
    let mut world = World::new(one_worker);
    let [client] = world.clients();
    world.die(0);
    world.seat(0, 0);
    world.say(&client, "a\n");
    world.command(Command::SlotEmptied {
        slot: 0,
        generation: world.generation - 1,
    });
    assert_eq!(world.in_flight(0), 1);
    assert_eq!(world.serve(0), ["a"]);
}

#[test]
fn close_has_a_second_attempt_whatever_the_policy_allows_others() {
    let mut world = World::new(|settings| {
        settings.workers = 1;
        settings.on_crash = OnCrash::Redeliver { attempts: 1 };
    });
    let [client] = world.clients();
    drop(client);
    world.turn();
    for _ in 0..2 {
        assert!(world.begin(0).is_some());
        world.die(0);
        world.seat(0, 0);
    }
    assert!(world.begin(0).is_none());
    assert_eq!((world.reactor.flow.len(), world.reactor.poisoned), (0, 1));
}

#[test]
fn close_that_fails_and_has_no_other_attempt_is_no_poison() {
    let mut world = World::new(one_worker);
    let [client] = world.clients();
    drop(client);
    world.turn();
    let taken = world.begin(0).unwrap();
    world.workers[0].as_mut().unwrap().outbox.failed(&taken);
    world.turn();
    assert!(world.begin(0).is_none());
    assert_eq!((world.reactor.flow.len(), world.reactor.poisoned), (0, 0));
}
