//! Posts that belong to no frame.

use super::*;
use crate::handler::To;

const POST: Output = Output::Post(To::LeastBusy);

impl World {
    #[track_caller]
    fn post_aside(&mut self, body: &[u8]) {
        self.stage(POST, body);
        self.worker.outbox.aside();
    }
}

#[test]
fn posts_are_applied_by_their_record_and_retire_nothing() {
    let mut world = world();
    world.worker.post_aside();
    world.stage(POST, b"one");
    world.worker.outbox.publish();
    assert_eq!(world.collect(), Ok((vec![], vec![])), "no record yet");
    world.submit(1, b"waits");
    world.post_aside(b"two");
    let posted = vec![(POST, b"one".to_vec()), (POST, b"two".to_vec())];
    assert_eq!(world.collect(), Ok((posted, vec![])));
    assert_eq!(world.reactor.in_flight(), 1);
    let taken = world.take();
    world.worker.outbox.done(&taken);
    assert_eq!(world.collect(), Ok((vec![], vec![conn(1)])));
}

#[test]
fn posts_of_a_dead_worker_are_applied_if_their_record_is_published() {
    let mut world = world();
    world.post_aside(b"whole");
    world.stage(POST, b"never");
    world.worker.outbox.publish();
    let posted = vec![(POST, b"whole".to_vec())];
    assert_eq!(world.collect(), Ok((posted, vec![])));
    let legacy = world.reactor.cut();
    assert!(legacy.under_way.is_none() && legacy.rest.is_empty());
    world.reactor.open(2);
    world.worker = incarnation(&world.both, 2);
    world.post_aside(b"of the next");
    let posted = vec![(POST, b"of the next".to_vec())];
    assert_eq!(world.collect(), Ok((posted, vec![])));
}

#[test]
fn output_of_a_callback_beside_posts_is_a_lie() {
    for lie in [Output::Send(conn(1)), Output::Close(conn(1))] {
        let mut world = world();
        world.submit(1, b"question");
        world.take();
        world.stage(lie, b"");
        world.post_aside(b"post");
        assert_eq!(world.collect(), Err(Broken::Aside), "{lie:?}");
        assert_eq!(world.collect(), Ok((vec![], vec![])), "nothing of it");
    }
}

#[test]
fn posts_over_the_budget_are_a_lie() {
    let mut world = world();
    let outcome = (0..=BUDGET / 1000).find_map(|_| {
        world.stage(POST, &[1; 1000]);
        world.worker.outbox.publish();
        world.collect().err()
    });
    assert_eq!(outcome, Some(Broken::OverBudget(BUDGET)));
}

/// With rings that are long enough to be rewound.
#[test]
fn rings_are_not_rewound_under_a_worker_that_posts_at_any_time() {
    let mut world = world_of(64 << 10, 32 << 10);
    assert!(world.worker.is_fresh());
    world.worker.post_aside();
    for round in 0..100u32 {
        world.submit(round, &[1; 9000]);
        let taken = world.take();
        world.worker.outbox.done(&taken);
        assert!(!world.worker.is_fresh());
        assert_eq!(world.collect(), Ok((vec![], vec![conn(round)])));
        // Where its rings would be rewound.
        assert!(world.reactor.takes(9000));
        world.post_aside(b"meanwhile");
        let posted = vec![(POST, b"meanwhile".to_vec())];
        assert_eq!(world.collect(), Ok((posted, vec![])));
    }
    assert!(!world.reactor.is_spread(), "its pages stay");
}

#[test]
fn a_worker_may_begin_to_post_in_a_callback() {
    let mut world = world_of(64 << 10, 32 << 10);
    for round in 0..100u32 {
        world.submit(round, &[1; 9000]);
        let taken = world.take();
        if round == 50 {
            world.worker.post_aside();
        }
        world.worker.outbox.done(&taken);
        assert_eq!(world.collect(), Ok((vec![], vec![conn(round)])));
        assert!(world.reactor.takes(9000));
        if round >= 50 {
            world.post_aside(b"meanwhile");
            assert_eq!(world.collect().unwrap().0.len(), 1);
        }
    }
}
