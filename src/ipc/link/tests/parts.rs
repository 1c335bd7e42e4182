//! Output that is a part of the message under way: it is sent from the inbox.

use super::*;

/// Sends these bytes of the message under way.
fn received(offset: u32, len: u32) -> Output {
    Output::SendReceived(conn(1), Part { offset, len })
}

#[test]
fn what_was_received_is_sent_from_where_it_stands() {
    let mut world = world();
    for round in 1..200 {
        world.submit(round, b"before");
        world.submit(1, format!("message {round}").as_bytes());
        let before = world.take();
        world.worker.outbox.done(&before);
        let taken = world.take();
        world.stage(Output::Send(conn(2)), b"own");
        world.stage(received(0, 7), &[]);
        world.stage(received(8, taken.input.len - 8), &[]);
        world.worker.outbox.done(&taken);
        let sends = [
            (Output::Send(conn(2)), b"own".to_vec()),
            (Output::Send(conn(1)), b"message".to_vec()),
            (Output::Send(conn(1)), round.to_string().into_bytes()),
        ];
        let (applied, retired) = world.collect().unwrap();
        assert_eq!(applied, sends);
        assert_eq!(retired, [conn(round), conn(1)]);
    }
}

#[test]
fn what_was_received_stays_where_it_is_while_it_is_held_back() {
    let mut world = world();
    world.submit(1, b"question");
    let taken = world.take();
    world.stage(received(0, 8), &[]);
    world.stage(Output::Send(conn(1)), b"!");
    world.worker.outbox.publish();
    assert_eq!(world.collect().unwrap(), (vec![], vec![]));
    assert_eq!(world.reactor.held_bytes(), 1, "only what the outbox had");
    // The ring of the inbox goes round meanwhile, as far as it can.
    let mut others = 0;
    while world.reactor.has_room(1000) {
        world.submit(2, &[b'x'; 1000]);
        others += 1;
    }
    assert!(others > 5, "{others}");
    world.worker.outbox.done(&taken);
    let sends = vec![
        (Output::Send(conn(1)), b"question".to_vec()),
        (Output::Send(conn(1)), b"!".to_vec()),
    ];
    assert_eq!(world.collect().unwrap(), (sends, vec![conn(1)]));
}

#[test]
fn many_parts_that_were_held_back_leave_no_memory_behind() {
    const PARTS: usize = 10 * MOST_KEPT;
    let mut world = world();
    world.reactor = ReactorLink::new(&world.both.master.links[0], PARTS * charge(1));
    world.reactor.open(1);
    world.submit(1, b"question");
    let taken = world.take();
    for _ in 0..PARTS {
        if !world.worker.outbox.room(0) {
            world.worker.outbox.publish();
            assert_eq!(world.collect().unwrap(), (vec![], vec![]));
        }
        world.stage(received(0, 1), &[]);
    }
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect().unwrap().0.len(), PARTS);
    assert!(world.reactor.output_capacity() <= MOST_KEPT);
}

#[test]
fn a_part_that_the_message_has_not_is_a_lie() {
    let lies = [
        (0, 9),
        (8, 1),
        (9, 0),
        (u32::MAX, 1),
        (1, u32::MAX),
        (u32::MAX, u32::MAX),
    ];
    for (offset, len) in lies {
        let mut world = world();
        world.submit(1, b"question");
        // It is the next one's, and near.
        world.submit(2, b"secret of another connection");
        let taken = world.take();
        world.stage(received(0, 8), &[]);
        world.stage(received(offset, len), &[]);
        world.worker.outbox.done(&taken);
        let part = Part { offset, len };
        let message = Some(8);
        let broken = world.collect().unwrap_err();
        assert_eq!(broken, Broken::Part { part, message });
        assert_eq!(world.collect().unwrap(), (vec![], vec![]), "read on");
        assert_eq!(world.reactor.in_flight(), 2);
    }
    let mut world = world();
    let (part, message) = (Part { offset: 0, len: 0 }, None);
    // Nothing is under way.
    world.stage(received(0, 0), &[]);
    world.worker.outbox.publish();
    assert_eq!(world.collect(), Err(Broken::Part { part, message }));
}

#[test]
fn a_part_for_a_connection_of_another_reactor_is_a_lie() {
    let mut world = world();
    world.submit(1, b"question");
    let taken = world.take();
    let (part, message) = (Part { offset: 0, len: 8 }, Some(8));
    let elsewhere = ConnId::new(1, 1, NonZeroU32::MIN);
    world.stage(Output::SendReceived(elsewhere, part), &[]);
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect(), Err(Broken::Part { part, message }));
}

#[test]
fn what_was_received_counts_against_the_budget() {
    let mut world = world();
    world.submit(1, &[7; 4000]);
    let taken = world.take();
    for _ in 0..=BUDGET / 4000 {
        world.stage(received(0, 4000), &[]);
    }
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect(), Err(Broken::OverBudget(BUDGET)));
}
