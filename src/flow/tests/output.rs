//! Output that is sent at once, output that is kept, and its limits.

use super::*;
use crate::handler::CloseReason;
use crate::net::connection::{Input, Level};

/// More than a socket takes: `len` bytes, no two neighbours alike.
fn much(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Sends until bytes are kept. Returns everything that was sent.
fn fill(world: &mut World, id: ConnId, least: usize) -> Vec<u8> {
    let mut sent = Vec::new();
    for _ in 0..1000 {
        if world.conn(id).writing.unsent.len() >= least {
            return sent;
        }
        let bytes = much(500);
        sent.extend_from_slice(&bytes);
        world.send(id, &bytes);
    }
    panic!("{} bytes found room", sent.len());
}

/// The client reads all, and the server writes all.
fn read_all(world: &mut World, client: &UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let (Got::Open(bytes) | Got::Fin(bytes)) = got(client);
        if bytes.is_empty() {
            return all;
        }
        all.extend_from_slice(&bytes);
        world.turn();
        world.assert_accounts();
    }
}

#[test]
fn bytes_that_a_socket_does_not_take_are_sent_later_in_order() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    let mut sent = fill(&mut world, id, 1);
    let bytes = much(200_000);
    world.send(id, &bytes);
    sent.extend_from_slice(&bytes);
    world.assert_accounts();
    assert!(world.conn(id).writing.unsent.len() >= 200_000);
    let all = read_all(&mut world, &client);
    assert!(all == sent, "{} bytes of {}", all.len(), sent.len());
    assert_eq!(world.conn(id).held(), 0);
    assert_eq!(world.turn(), 0, "no event for room to write is watched");
}

#[test]
fn reading_pauses_above_the_high_water_mark_and_resumes_at_half_of_it() {
    let mut world = World::new(marked);
    let (id, client) = world.connect();
    let mut sent = fill(&mut world, id, 1);
    let kept = world.conn(id).writing.unsent.len();
    let bytes = much(MARK - kept);
    world.send(id, &bytes);
    sent.extend_from_slice(&bytes);
    assert_eq!(world.conn(id).writing.level, Level::Low, "at the mark");
    assert_eq!(world.workers.seen(), Vec::<String>::new());
    world.send(id, b"!");
    sent.push(b'!');
    assert_eq!(world.conn(id).writing.level, Level::High);
    assert_eq!(world.workers.seen(), ["Paused"]);
    say(&client, b"not yet\n");
    assert_eq!(world.turn(), 0);
    world.done();
    // A socket reports room only when most of its bytes are read.
    let mut all = Vec::new();
    let mut steps = 0;
    while world.conn(id).writing.unsent.len() > MARK / 2 {
        steps += usize::from(world.conn(id).writing.unsent.len() <= MARK);
        assert_eq!(world.conn(id).writing.level, Level::High);
        assert_eq!(world.workers.seen(), Vec::<String>::new());
        let mut some = [0; 300];
        let n = (&client).read(&mut some).unwrap();
        all.extend_from_slice(&some[..n]);
        world.turn();
    }
    assert!(steps > 1, "it was seen between the mark and half of it");
    assert_eq!(world.conn(id).writing.level, Level::Low);
    all.extend(read_all(&mut world, &client));
    assert!(all == sent, "{} bytes of {}", all.len(), sent.len());
    assert_eq!(world.workers.seen(), ["Resumed", "Receive not yet"]);
}

#[test]
fn kept_messages_wait_while_output_is_above_the_mark() {
    let mut world = World::new(marked);
    let (id, client) = world.connect();
    world.workers.left = 0;
    say(&client, b"kept\n");
    world.turn();
    fill(&mut world, id, MARK + 1);
    world.workers.left = 9;
    world.give_turns();
    assert_eq!(world.workers.seen(), ["Paused"]);
    read_all(&mut world, &client);
    assert_eq!(world.workers.seen(), ["Resumed", "Receive kept"]);
}

#[test]
fn a_returned_notice_is_submitted_again_unless_the_level_has_changed() {
    let mut world = World::new(marked);
    let (id, client) = world.connect();
    fill(&mut world, id, MARK + 1);
    world.hand_back(1, 0);
    world.settle();
    assert_eq!(world.workers.seen(), ["Paused", "Paused"]);
    world.workers.left = 0;
    world.hand_back(1, 0);
    read_all(&mut world, &client);
    world.workers.left = 9;
    world.give_turns();
    assert_eq!(world.workers.seen(), Vec::<String>::new());
    // And the other way round.
    fill(&mut world, id, MARK + 1);
    read_all(&mut world, &client);
    world.hand_back(1, 0);
    world.settle();
    assert_eq!(world.workers.seen(), ["Paused", "Resumed", "Resumed"]);
}

#[test]
fn a_connection_that_ends_gets_no_paused_or_resumed() {
    let mut world = World::new(marked);
    let (id, client) = world.connect();
    fin(&client);
    world.turn();
    assert_eq!(world.conn(id).reading.input, Input::Ended);
    fill(&mut world, id, MARK + 1);
    assert_eq!(world.conn(id).writing.level, Level::Low);
    assert_eq!(world.workers.seen(), ["Close"]);
}

#[test]
fn a_connection_that_was_closed_is_not_told_that_its_buffer_is_empty() {
    let mut world = World::new(marked);
    let (id, client) = world.connect();
    fill(&mut world, id, MARK + 1);
    world.apply(Output::Close(id));
    read_all(&mut world, &client);
    assert_eq!(world.conn(id).writing.level, Level::Low);
    assert_eq!(world.workers.seen(), ["Paused", "Close"]);
}

#[test]
fn what_was_read_of_a_connection_that_is_closed_keeps_nothing_back() {
    let mut world = World::new(marked);
    let (id, client) = world.connect();
    say(&client, b"part");
    world.turn();
    fill(&mut world, id, MARK + 1);
    world.apply(Output::Close(id));
    assert_eq!(world.workers.seen(), ["Paused", "Close"]);
    world.assert_accounts();
}

#[test]
fn deaths_are_of_one_notice_alone() {
    let mut world = World::new(marked);
    let (id, client) = world.connect();
    let attempt = |world: &World| world.workers.frames.back().unwrap().0.attempt;
    fill(&mut world, id, MARK + 1);
    world.hand_back(1, 1);
    world.settle();
    assert_eq!(attempt(&world), 1);
    read_all(&mut world, &client);
    fill(&mut world, id, MARK + 1);
    assert_eq!(
        world.workers.seen(),
        ["Paused", "Paused", "Resumed", "Paused"]
    );
    assert_eq!(attempt(&world), 0);
}

#[test]
fn a_reader_that_is_too_slow_is_reset() {
    let mut world = World::new(marked);
    let (id, client) = world.connect();
    let (other, _client) = world.connect();
    fill(&mut world, id, 1);
    let kept = world.conn(id).writing.unsent.len();
    world.send(id, &much(5 * MARK - kept));
    assert!(world.conn(id).socket.is_some(), "at the limit");
    world.send(id, b"!");
    assert_eq!(world.conn(id).work.end, Some(CloseReason::SlowReader));
    assert!(world.conn(id).socket.is_none());
    world.assert_accounts();
    assert_eq!(world.loads.sockets(), 1);
    drop(client);
    world.done();
    assert_eq!((world.flow.len(), world.workers.gone.len()), (1, 1));
    assert_eq!(world.conn(other).work.end, None);
}

#[test]
fn over_the_budget_the_connection_that_holds_most_is_reset() {
    let mut world = World::new(|setup| {
        setup.settings.output_high_water = 1000;
        setup.settings.output_limit = Some(100_000);
        setup.settings.memory_budget = Some(100_000);
    });
    let (small, _one) = world.connect();
    let (large, _two) = world.connect();
    fill(&mut world, small, 30_000);
    fill(&mut world, large, 60_000);
    assert!(world.conn(large).socket.is_some());
    let left = 100_000 - world.flow.budget.held();
    world.send(small, &much(left));
    assert!(world.conn(large).socket.is_some(), "all of it is used");
    world.send(small, b"!");
    assert!(world.conn(large).socket.is_none());
    assert_eq!(world.conn(large).work.end, Some(CloseReason::SlowReader));
    assert!(world.conn(small).socket.is_some());
    world.assert_accounts();
}

#[test]
fn incomplete_messages_count_against_the_budget() {
    let mut world = World::new(|setup| {
        setup.protocol = "delimiter=\\n".parse().unwrap();
        setup.max_message = 100_000;
        setup.settings.output_high_water = 1000;
        setup.settings.output_limit = Some(100_000);
        setup.settings.memory_budget = Some(100_000);
    });
    let (small, one) = world.connect();
    let (large, two) = world.connect();
    for _ in 0..6 {
        say(&one, &[b'x'; 7000]);
        say(&two, &[b'x'; 9000]);
        world.turn();
    }
    assert!(world.conn(large).socket.is_some());
    say(&one, &[b'x'; 5000]);
    world.turn();
    assert!(world.conn(large).socket.is_none());
    assert!(world.conn(small).socket.is_some());
    world.assert_accounts();
}

#[test]
fn nothing_is_sent_after_a_close() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    world.send(id, b"bye");
    world.apply(Output::Close(id));
    world.send(id, b"too late");
    assert_eq!(got(&client), Got::Fin(b"bye".to_vec()));
}

#[test]
fn our_fin_comes_after_unsent_bytes() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    let sent = fill(&mut world, id, 3000);
    world.apply(Output::Close(id));
    world.done();
    let mut all = read_all(&mut world, &client);
    let Got::Fin(rest) = got(&client) else {
        panic!("no FIN after {} bytes", all.len());
    };
    all.extend(rest);
    assert!(all == sent, "{} bytes of {}", all.len(), sent.len());
}

#[test]
fn a_client_that_is_gone_is_noticed_when_something_is_sent() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    drop(client);
    world.send(id, b"nobody");
    assert_eq!(world.conn(id).work.end, Some(CloseReason::Broken));
    assert!(world.conn(id).socket.is_none());
    world.done();
    world.assert_empty();
}

#[test]
fn a_client_that_is_gone_is_noticed_when_unsent_bytes_are_sent() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    fill(&mut world, id, 3000);
    drop(client);
    world.turn();
    assert!(world.conn(id).socket.is_none());
    world.assert_accounts();
}
