//! Posts: bounded whatever a worker writes, and delivered once.

use std::os::unix::net::UnixStream;

use super::{World, one_worker};
use crate::event::Event;
use crate::handler::To;
use crate::ipc::record::Output;
use crate::master::reactor::{Command, Report};

/// Returns a client whose messages the worker in slot 0 gets.
fn client_of_first(world: &mut World) -> UnixStream {
    loop {
        let [client] = world.clients();
        world.say(&client, "go\n");
        if !world.serve(0).is_empty() {
            return client;
        }
        world.serve_all();
    }
}

/// The worker in slot 0 answers a message of its client with these posts.
fn post(world: &mut World, client: &UnixStream, posts: &[(To, usize)]) {
    world.say(client, "go\n");
    let taken = world.begin(0).expect("the message");
    assert_eq!(taken.input.kind.event(), Some(Event::Receive));
    for (to, len) in posts {
        let outbox = &mut world.workers[0].as_mut().expect("it lives").outbox;
        if !outbox.room(*len) {
            outbox.publish();
            world.turn();
        }
        let outbox = &mut world.workers[0].as_mut().expect("it lives").outbox;
        assert!(outbox.room(*len));
        outbox.stage(Output::Post(*to), &vec![7; *len]);
    }
    world.finish(0, &taken);
}

#[test]
fn a_worker_that_does_not_look_at_its_limit_is_ended() {
    let mut world = World::new(|settings| settings.workers = 2);
    let client = client_of_first(&mut world);
    let most = world.reactor.flow.most_kept_of_all();
    let posts = [(To::Seat(1), 60_000); 100];
    let mut rounds = 0;
    // The worker in slot 1 does not run.
    while world.reports.is_empty() {
        rounds += 1;
        assert!(rounds * 100 * 60_000 < 2 * most, "nothing has stopped it");
        post(&mut world, &client, &posts);
    }
    let broken = world.reports.try_iter().next();
    assert!(matches!(
        broken,
        Some(Report::ProtocolBroken { slot: 0, .. })
    ));
    let kept = world.reactor.flow.kept();
    assert!(
        kept > most && kept < most + 200 * 60_000,
        "{kept} of {most}"
    );
}

#[test]
fn posts_for_any_worker_use_few_mailboxes_and_arrive_once_and_in_order() {
    let mut world = World::new(one_worker);
    let client = client_of_first(&mut world);
    post(&mut world, &client, &[(To::LeastBusy, 100); 1000]);
    assert_eq!(world.reactor.flow.mailboxes(), 256);
    assert!(world.reactor.flow.kept() >= 256 * 100);
    let mut handled = 0;
    while let Some(taken) = world.begin(0) {
        handled += usize::from(taken.input.kind.event() == Some(Event::Post));
        world.finish(0, &taken);
    }
    assert_eq!(handled, 1000);
    assert_eq!(
        (world.reactor.flow.mailboxes(), world.reactor.flow.kept()),
        (0, 0)
    );
}

#[test]
fn a_post_to_all_counts_its_bytes_once() {
    let mut world = World::new(|settings| settings.workers = 2);
    let client = client_of_first(&mut world);
    // The inbox in slot 1 is full, and its worker does not run.
    post(&mut world, &client, &[(To::Seat(1), 60_000); 40]);
    let before = world.reactor.flow.kept();
    assert!(before > 0);
    post(&mut world, &client, &[(To::All, 60_000)]);
    // The other worker has its letter.
    let more = world.reactor.flow.kept() - before;
    assert!((30_000..31_000).contains(&more), "{more}");
}

#[test]
fn letters_are_dropped_when_the_server_is_cut_and_do_not_keep_it() {
    let mut world = World::new(|settings| settings.workers = 2);
    let client = client_of_first(&mut world);
    // More than an inbox holds: the worker in slot 1 does not run.
    post(&mut world, &client, &[(To::Seat(1), 60_000); 100]);
    world.serve_all();
    post(&mut world, &client, &[(To::Seat(1), 60_000); 100]);
    assert!(world.reactor.flow.kept() > 0);
    world.command(Command::Drain);
    let is_drained = |report| matches!(report, Report::Drained);
    assert!(!world.reports.try_iter().any(is_drained));
    world.command(Command::HangUp);
    assert_eq!(world.reactor.flow.kept(), 0);
    world.serve_all();
    world.turn();
    assert_eq!(world.reactor.flow.mailboxes(), 0);
    assert!(world.reports.try_iter().any(is_drained));
}

#[test]
fn the_reactor_with_the_tasks_is_drained_after_the_others() {
    let mut world = World::new(|settings| settings.workers = 2);
    world.reactor.others_are_drained = false;
    world.command(Command::Drain);
    let is_drained = |report| matches!(report, Report::Drained);
    assert!(!world.reports.try_iter().any(is_drained));
    world.command(Command::OthersAreDrained);
    assert!(world.reports.try_iter().any(is_drained));
}
