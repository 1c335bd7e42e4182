//! The pages that long messages take, and that are given back.

use super::{conn, world_of};

#[test]
fn the_pages_of_a_long_message_are_given_back_when_the_inbox_is_empty() {
    const INBOX: usize = 16 << 20;
    let mut world = world_of(INBOX, 8 << 10);
    let ring = world.both.worker.links[0].inbox.clone();
    let is_zero = |at: u64| ring.read::<64>(at) == [0; 64];
    world.submit(1, &vec![7; 12 << 20]);
    assert!(world.reactor.is_spread());
    // Not while the worker has it.
    assert!(!world.reactor.give_back_pages());
    let taken = world.take();
    assert!(!world.reactor.give_back_pages() && !is_zero(11 << 20));
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect().unwrap().1, [conn(1)]);
    // From the end on, some at a time.
    assert!(world.reactor.give_back_pages());
    assert!(is_zero(11 << 20) && !is_zero(1 << 20));
    assert!(!world.reactor.give_back_pages() && !world.reactor.is_spread());
    assert!(is_zero(1 << 20) && is_zero(300 << 10) && !is_zero(4096));
    for number in 2..5 {
        world.submit(number, &vec![number as u8; 3 << 20]);
        let taken = world.take();
        let is_whole = world.body(&taken) == vec![number as u8; 3 << 20];
        assert!(is_whole);
        world.worker.outbox.done(&taken);
        assert_eq!(world.collect().unwrap().1, [conn(number)]);
    }
    assert!(world.reactor.is_spread());
}

#[test]
fn short_messages_leave_nothing_to_give_back() {
    let mut world = world_of(1 << 20, 8 << 10);
    for number in 1..2000 {
        world.submit(number, &[1; 1000]);
        let taken = world.take();
        world.worker.outbox.done(&taken);
        world.collect().unwrap();
    }
    assert!(!world.reactor.is_spread());
}
