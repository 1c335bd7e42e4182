//! Which worker gets a message, and which messages wait: the modes that dispatch each message, and the queues.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{MOST, SLOW, World, one_worker};
use crate::config::Settings;
use crate::config::policy::Dispatch;
use crate::master::reactor::{Command, MAX_SLEEP_IN_FLIGHT};

/// Longer than a seat may be empty before it is abandoned.
const ABANDONED: Duration = Duration::from_millis(200);

fn least_busy(settings: &mut Settings) {
    settings.dispatch = Dispatch::LeastBusy;
}

/// The workers are known to be quick, so that they are given several messages at a time.
fn make_quick(world: &World) {
    let loads = &world.reactor.seats.loads;
    for slot in [0, 1] {
        loads.set_quick(slot, 8);
    }
}

#[test]
fn a_short_message_does_not_overtake_one_that_waits_for_room() {
    let mut world = World::new(one_worker);
    let [long, short] = world.clients();
    let longest = "a".repeat(MOST - 1) + "\n";
    let mut said = 0;
    while world.reactor.seats.seats[0].waiting.is_empty() {
        world.say(&long, &longest);
        said += 1;
    }
    world.say(&short, "b\n");
    let served = world.serve(0);
    assert_eq!(served.len(), said + 1);
    assert_eq!(served.last().map(String::as_str), Some("b"));
}

#[test]
fn with_every_worker_stuck_elsewhere_a_message_is_looked_after() {
    let mut world = World::new(least_busy);
    let [client] = world.clients();
    // Frames of another reactor: nothing tells this one of their end.
    let loads = Arc::clone(&world.reactor.seats.loads);
    for slot in [0, 1] {
        loads.frames_of(slot).fetch_add(1, Ordering::Relaxed);
        loads.set_slow(slot);
    }
    world.say(&client, "a\n");
    assert_eq!(world.reactor.seats.in_flight(), 0);
    let next = world.reactor.next_timer();
    assert!(next.is_some_and(|next| next < SLOW), "{next:?}");
    loads.frames_end(1, 1);
    world.turn();
    assert_eq!(world.serve(1), ["a"]);
}

#[test]
fn a_reactor_with_frames_at_workers_wakes_by_itself() {
    let mut world = World::new(one_worker);
    let [client] = world.clients();
    world.say(&client, "a\n");
    let next = world.reactor.next_timer();
    assert!(
        next.is_some_and(|next| next <= MAX_SLEEP_IN_FLIGHT),
        "a worker may have taken the ring of another: {next:?}"
    );
}

#[test]
fn idle_workers_have_messages_in_turn() {
    let mut world = World::new(least_busy);
    let [client] = world.clients();
    let mut served = [0, 0];
    for _ in 0..10 {
        world.say(&client, "a\n");
        for (slot, served) in served.iter_mut().enumerate() {
            *served += world.serve(slot).len();
        }
    }
    assert_eq!(served, [5, 5]);
}

#[test]
fn messages_of_one_connection_go_to_one_worker_without_waiting() {
    let mut world = World::new(least_busy);
    let [client] = world.clients();
    make_quick(&world);
    world.say(&client, "a\nb\n");
    world.say(&client, "c\n");
    let mut both = [world.in_flight(0), world.in_flight(1)];
    both.sort_unstable();
    assert_eq!(both, [0, 3]);
}

#[test]
fn one_message_behind_a_slow_callback_is_taken_away() {
    let mut world = World::new(least_busy);
    let clients: [UnixStream; 3] = world.clients();
    make_quick(&world);
    for (client, message) in clients.iter().zip(["a\n", "b\n", "c\n"]) {
        world.say(client, message);
    }
    let slot = (0..2).find(|slot| world.in_flight(*slot) == 2).unwrap();
    assert!(world.begin(slot).is_some());
    assert_eq!(world.serve(1 - slot), ["b"]);
    world.pass(SLOW);
    world.pass(SLOW);
    assert_eq!(world.serve(1 - slot), ["c"]);
}

#[test]
fn the_next_message_of_a_connection_does_not_go_behind_its_slow_callback() {
    let mut world = World::new(least_busy);
    let [client] = world.clients();
    world.say(&client, "a\n");
    let slot = (0..2).find(|slot| world.in_flight(*slot) == 1).unwrap();
    let taken = world.begin(slot).unwrap();
    world.pass(SLOW);
    world.pass(SLOW);
    world.say(&client, "b\n");
    assert_eq!([world.in_flight(slot), world.in_flight(1 - slot)], [1, 0]);
    world.finish(slot, &taken);
    assert_eq!([world.serve(0), world.serve(1)].concat(), ["b"]);
}

#[test]
fn a_worker_that_still_starts_is_given_no_message_that_may_go_elsewhere() {
    let mut world = World::new(least_busy);
    let [client] = world.clients();
    world.die(0);
    world.take_seat(0, 0);
    world.pass(ABANDONED);
    for _ in 0..4 {
        world.say(&client, "a\n");
        assert_eq!(world.serve(1), ["a"]);
    }
    world.command(Command::SeatReady { seat: 0 });
    world.say(&client, "a\n");
    world.serve_all();
    world.say(&client, "a\n");
    assert_eq!([world.serve(0), world.serve(1)].concat(), ["a"]);
}

#[test]
fn the_load_of_a_dead_worker_is_not_its_successors() {
    let mut world = World::new(least_busy);
    let clients: [UnixStream; 6] = world.clients();
    clients.iter().for_each(|client| world.say(client, "a\n"));
    assert!(world.begin(0).is_some());
    world.pass(SLOW);
    world.pass(SLOW);
    world.die(0);
    let loads = Arc::clone(&world.reactor.seats.loads);
    assert_eq!(loads.frames_of(0).load(Ordering::Relaxed), 0);
    assert!(!loads.is_full(0), "it is given a first frame");
}

#[test]
fn a_connection_counts_at_the_seat_of_its_last_message() {
    let mut world = World::new(least_busy);
    let [client] = world.clients();
    let loads = Arc::clone(&world.reactor.seats.loads);
    for seat in [1, 0, 1] {
        // Seats of equal load are taken in turn, for new connections and for messages alike.
        let said_there = (0..10).any(|_| {
            world.say(&client, "a\n");
            world.serve(1 - seat);
            world.serve(seat) == ["a"]
        });
        assert!(said_there);
        assert_eq!(loads.fewest_connections(), 1 - seat);
    }
    drop(client);
    world.turn();
    world.serve_all();
    assert_eq!(world.reactor.flow.len(), 0);
    let mut fewest = [(); 2].map(|()| loads.fewest_connections());
    fewest.sort_unstable();
    assert_eq!(fewest, [0, 1], "both have none, and are taken in turn");
}

#[cfg(feature = "status")]
#[test]
fn the_time_of_a_callback_does_not_count_for_the_next_frame() {
    let mut world = World::new(one_worker);
    let [client] = world.clients();
    world.say(&client, "a\n");
    let taken = world.begin(0).unwrap();
    let slot = &mut world.reactor.seats.slots[0];
    assert!(slot.status(world.now).under_way.is_some());
    world.finish(0, &taken);
    world.say(&client, "b\n");
    let slot = &mut world.reactor.seats.slots[0];
    let status = slot.status(world.now + Duration::from_secs(60));
    assert_eq!((status.under_way, status.waiting), (None, 1));
}
