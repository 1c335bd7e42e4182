//! Rings that are rewound.

use super::*;

/// With rings that are long enough to be rewound.
fn long_world() -> World {
    world_of(64 << 10, 32 << 10)
}

/// How far the reactor says that it has read the outbox.
fn consumed(world: &World) -> u64 {
    let words = &world.both.worker.links[0].words;
    words.outbox_consumed.load(Ordering::Relaxed)
}

impl World {
    /// So many frames and their replies, one after the other. Returns where the bodies stood.
    fn echo(&mut self, bodies: impl Iterator<Item = Vec<u8>>) -> Vec<usize> {
        let mut places = Vec::new();
        for (number, body) in bodies.enumerate() {
            let conn = conn(number as u32);
            self.submit(number as u32, &body);
            let taken = self.take();
            assert_eq!((taken.input.conn, self.body(&taken)), (conn, &body[..]));
            places.push(self.body(&taken).as_ptr() as usize);
            self.stage(Output::Send(conn), &body);
            self.worker.outbox.done(&taken);
            let reply = (Output::Send(conn), body);
            assert_eq!(self.collect().unwrap(), (vec![reply], vec![conn]));
        }
        places
    }

    /// Fills the rings so far that the next frame rewinds them.
    fn wear(&mut self) {
        self.echo(std::iter::once(vec![1; 17_000]));
    }
}

#[test]
fn few_frames_at_a_time_stand_in_the_same_few_pages() {
    let mut world = long_world();
    let places = world.echo((0..2000).map(|round| vec![round as u8; 100]));
    let (first, last) = (places.iter().min().unwrap(), places.iter().max().unwrap());
    assert!(last - first <= 17 << 10, "{} bytes apart", last - first);
}

#[test]
fn long_replies_to_short_frames_stand_in_the_same_pages_too() {
    let mut world = long_world();
    let mut ends = Vec::new();
    for round in 0..100u32 {
        world.submit(round, b"short");
        let taken = world.take();
        world.stage(Output::Send(conn(round)), &[round as u8; 5000]);
        world.worker.outbox.done(&taken);
        let reply = (Output::Send(conn(round)), vec![round as u8; 5000]);
        assert_eq!(world.collect().unwrap().0, [reply]);
        let consumed = consumed(&world);
        ends.push(consumed % (32 << 10));
    }
    assert!(ends.iter().all(|end| *end <= 22 << 10), "{ends:?}");
}

#[test]
fn frames_of_all_lengths_follow_a_ring_that_is_rewound() {
    let lengths = |round: usize| round * 7919 % if round.is_multiple_of(9) { 30_000 } else { 900 };
    long_world().echo((0..3000).map(|round| vec![round as u8; lengths(round)]));
}

#[test]
fn a_ring_is_not_rewound_while_anything_is_with_the_worker() {
    let mut world = long_world();
    world.submit(0, &[0; 200]);
    let mut places = Vec::new();
    for round in 1..400u32 {
        world.submit(round, &[round as u8; 200]);
        let taken = world.take();
        assert_eq!(world.body(&taken), [(round - 1) as u8; 200]);
        places.push(world.body(&taken).as_ptr() as usize);
        world.worker.outbox.done(&taken);
        assert_eq!(world.collect().unwrap().1, [conn(round - 1)]);
    }
    let (first, last) = (places.iter().min().unwrap(), places.iter().max().unwrap());
    assert!(last - first > 60 << 10, "{} bytes apart", last - first);
}

#[test]
fn nothing_is_found_in_an_outbox_that_the_worker_has_not_rewound() {
    let mut world = long_world();
    world.wear();
    world.submit(1, b"on its way");
    assert!(!world.reactor.has_output());
    assert_eq!(world.collect().unwrap(), (vec![], vec![]));
}

#[test]
fn what_was_read_before_makes_no_room_in_an_outbox_that_was_rewound() {
    let mut world = long_world();
    world.wear();
    world.submit(1, b"much");
    let taken = world.take();
    let mut sent = 0;
    while world.worker.outbox.room(1000) {
        world.stage(Output::Send(conn(1)), &[sent as u8; 1000]);
        sent += 1;
    }
    assert!((25..32).contains(&sent), "{sent}");
    world.worker.outbox.done(&taken);
    let replies: Vec<_> = (0..sent)
        .map(|part| (Output::Send(conn(1)), vec![part as u8; 1000]))
        .collect();
    assert_eq!(world.collect().unwrap(), (replies, vec![conn(1)]));
}

#[test]
fn rings_are_not_rewound_before_the_worker_knows_that_all_was_read() {
    let mut world = long_world();
    world.submit(1, &[1; 17_000]);
    let taken = world.take();
    world.worker.outbox.done(&taken);
    let commit = world.reactor.next_commit().unwrap().unwrap();
    world.reactor.finish(commit);
    assert_eq!(consumed(&world), 0, "not told yet");
    world.submit(2, b"behind it");
    let taken = world.take();
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect().unwrap().1, [conn(2)]);
    assert!(consumed(&world) < 32 << 10, "still the first round");
}

#[test]
fn who_is_let_in_later_finds_where_the_ring_was_rewound() {
    let mut world = long_world();
    world.wear();
    world.reactor.cut();
    world.reactor.open(2);
    world.submit(7, b"before anybody came");
    world.worker = incarnation(&world.both, 2);
    let taken = world.take();
    assert_eq!(world.body(&taken), b"before anybody came");
    world.stage(Output::Send(conn(7)), b"reply");
    world.worker.outbox.done(&taken);
    let reply = (Output::Send(conn(7)), b"reply".to_vec());
    assert_eq!(world.collect().unwrap(), (vec![reply], vec![conn(7)]));
    world.wear();
}

#[test]
fn who_dies_before_it_knows_that_the_ring_was_rewound_leaves_everything() {
    let mut world = long_world();
    world.wear();
    world.submit(1, b"first");
    world.submit(2, b"second");
    let legacy = world.reactor.cut();
    assert!(legacy.under_way.is_none());
    let left: Vec<_> = legacy.rest.iter().map(|frame| &frame.body[..]).collect();
    assert_eq!(left, [&b"first"[..], b"second"]);
    world.reactor.open(2);
    world.worker = incarnation(&world.both, 2);
    world.wear();
}

#[test]
fn frames_are_taken_back_from_a_ring_that_was_rewound() {
    let mut world = long_world();
    world.wear();
    world.submit(1, b"first");
    world.submit(2, b"second");
    let begun = world.take();
    assert_eq!(world.reactor.recall().len(), 1, "what was not begun");
    world.worker.outbox.done(&begun);
    let void = world.take();
    assert_eq!(void.input.kind, InputKind::Void);
    world.worker.outbox.done(&void);
    assert_eq!(world.collect().unwrap().1, [conn(1), conn(2)]);
    world.wear();
}
