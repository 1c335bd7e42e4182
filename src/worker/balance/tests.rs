//! The balance between workers of base mode, with fakes of their memory.

use super::*;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::ipc::frame::Input;
use crate::peer::Peer;

/// Workers that accept and sleep, with these numbers of connections.
fn workers(connections: &[u64]) -> Vec<Balance> {
    let arena = crate::ipc::arena::BaseArena::new(connections.len()).unwrap();
    let balance = |(slot, count): (usize, &u64)| {
        let mut balance = Balance::new(&arena.slots, slot, slot as u32 + 1);
        balance.publish(*count, *count, true);
        assert!(balance.try_sleep());
        balance
    };
    connections.iter().enumerate().map(balance).collect()
}

/// Returns the slot of the worker that the one in slot 0 has notified.
fn notified_by_first(workers: &[Balance]) -> Option<usize> {
    workers[0].notified.map(|at| at + 1)
}

fn begin_a_callback(worker: &Balance) {
    worker.own.activity.begin(&Input {
        kind: Event::Receive.into(),
        conn: ConnId::from_u64(1).unwrap(),
        peer: Peer::Ip(([127, 0, 0, 1], 1).into()),
        listener: 0,
        attempt: 0,
        detail: 0,
        deadline: 0,
        value: 0,
        follows: false,
        carries: false,
        is_gone: false,
        is_firm: false,
        submitted: 0,
        len: 0,
    });
}

#[test]
fn the_worker_with_the_fewest_connections_is_notified() {
    let mut workers = workers(&[30, 9, 8, 10]);
    assert!(workers[0].hand_off(30));
    assert_eq!(notified_by_first(&workers), Some(2));
    assert!(!workers[3].hand_off(10), "two connections more are too few");
}

#[test]
fn a_worker_that_cannot_accept_is_not_notified() {
    let mut workers = workers(&[30, 0, 1, 2, 3]);
    begin_a_callback(&workers[1]);
    workers[2].publish(1, 1, false);
    workers[3].own.void_accepting(); // Its manager has reaped it.
    assert!(workers[0].hand_off(30));
    assert_eq!(notified_by_first(&workers), Some(4));
    workers[1].own.activity.end();
    assert!(!workers[0].should_step_back(0));
    assert!(workers[0].should_step_back(1));
}

#[test]
fn a_worker_that_does_not_check_is_left_alone_after_some_notifications() {
    let mut workers = workers(&[30, 0]);
    for _ in 0..NOTIFICATIONS {
        assert!(workers[0].hand_off(30), "notified");
        assert!(!workers[0].hand_off(30), "one hand-off for each client");
    }
    // As if it were just now, however long the test takes.
    workers[0].others[0].notified.as_mut().unwrap().at += 100 * AVOIDED_FOR;
    assert!(!workers[0].hand_off(30), "left alone");
    workers[1].record_check();
    assert!(workers[0].hand_off(30), "it has checked");
}

#[test]
fn a_worker_that_was_left_alone_is_notified_again_later() {
    let mut workers = workers(&[30, 0]);
    workers[0].others[0].notified = Some(Notification {
        at: Instant::now().checked_sub(AVOIDED_FOR).unwrap(),
        checks: 0,
        count: NOTIFICATIONS,
    });
    assert!(workers[0].hand_off(30));
}

#[test]
fn short_connections_are_not_handed_off() {
    let mut workers = workers(&[0, 0]);
    for total in 0..1000 {
        workers[0].publish(40, 40 + total, true);
    }
    assert!(!workers[0].hand_off(40));
    for total in 0..300 {
        workers[0].publish(40 + total, 1040 + total, true);
    }
    assert!(workers[0].hand_off(340), "these have stayed");
}

#[test]
fn a_worker_with_callbacks_to_run_notifies_a_sleeping_one() {
    let mut workers = workers(&[0, 7, 5]);
    workers[2].wake();
    workers[0].defer_accept();
    let others = workers[0].others.iter();
    let notified: Vec<bool> = others.map(Other::is_outstanding).collect();
    assert_eq!(notified, [true, false]);
}

#[test]
fn a_worker_does_not_sleep_before_it_has_checked_for_a_pending_accept() {
    let mut workers = workers(&[0, 0]);
    workers[1].wake();
    workers[0].defer_accept();
    assert!(!workers[1].try_sleep());
    assert!(!workers[1].try_sleep(), "an accept is pending");
    workers[1].settle_pending();
    assert!(workers[1].try_sleep(), "once is enough");
    workers[0].defer_accept();
    assert!(
        !workers[1].try_sleep(),
        "the next client is a new pending accept"
    );
    workers[0].clear_pending();
    assert!(workers[1].try_sleep());
}

#[test]
fn each_of_many_workers_has_its_turn_to_be_compared() {
    let mut counts = [30; 3 * COMPARED];
    counts[2 * COMPARED] = 0;
    let mut workers = workers(&counts);
    let passed = (0..3).filter(|_| workers[0].hand_off(30)).count();
    assert_eq!(passed, 1);
}

#[test]
fn an_outstanding_notification_is_not_repeated_if_another_worker_is_there() {
    let mut workers = workers(&[100, 0, 50]);
    assert!(workers[0].hand_off(100));
    assert_eq!(notified_by_first(&workers), Some(1));
    assert!(workers[0].is_handoff_outstanding());
    workers[0].notify_other();
    assert!(
        workers[0].others[1].is_outstanding(),
        "the third one is notified"
    );
    // Once that worker checks, the client is no longer this worker's pending accept.
    workers[1].record_check();
    assert!(!workers[0].is_handoff_outstanding());
}

#[test]
fn a_sleeping_worker_is_found_among_many() {
    let mut workers = workers(&[1; 40]);
    workers[1..39].iter().for_each(begin_a_callback);
    workers[0].defer_accept();
    assert!(
        workers[0].others[38].is_outstanding(),
        "the only one that sleeps is notified"
    );
}
