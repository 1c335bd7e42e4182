//! The end of a server: the last clients of the accept queue, and connections that nothing else would end.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{World, one_worker};
use crate::config::policy::OnCrash;
use crate::master::reactor::{Command, Report};
#[cfg(feature = "status")]
use crate::master::status;
use crate::net::acceptor::LAST_HANDSHAKES;
#[cfg(feature = "status")]
use crate::status::Packet;

#[test]
fn every_client_in_the_accept_queue_is_accepted_at_the_end() {
    let mut world = World::new(one_worker);
    let address = world.address;
    let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
    world.command(Command::StopAccepting);
    assert!(world.reports.try_recv().is_err(), "handshakes may go on");
    let now = world.now + LAST_HANDSHAKES;
    world.reactor.stop_accepting(now);
    assert_eq!(world.reactor.flow.len(), clients.len());
    assert!(matches!(
        world.reports.try_recv(),
        Ok(Report::StoppedAccepting)
    ));
    assert!(TcpStream::connect(address).is_err(), "it is closed");
}

#[test]
fn clients_without_room_keep_the_listener_open_until_they_have_it() {
    let mut world = World::new(|settings| {
        settings.workers = 1;
        settings.max_connections = Some(1);
    });
    let address = world.address;
    world.command(Command::Accept);
    let mut clients = VecDeque::from([(); 3].map(|()| TcpStream::connect(address).unwrap()));
    world.turn();
    assert_eq!(world.reactor.flow.len(), 1);
    world.command(Command::StopAccepting);
    let mut reports = Vec::new();
    while let Some(client) = clients.pop_front() {
        world.now += LAST_HANDSHAKES;
        world.reactor.stop_accepting(world.now);
        reports.extend(world.reports.try_iter());
        assert!(matches!(reports[..], [Report::StoppedAccepting]));
        world.command(Command::Drain);
        assert_eq!(world.reactor.flow.len(), 1);
        drop(client);
        world.serve_all();
        world.serve_all();
        assert_eq!(world.reactor.flow.len(), 0);
    }
    let is_drained = |report| matches!(report, Report::Drained);
    assert!(world.reports.try_iter().any(is_drained));
    assert!(TcpStream::connect(address).is_err(), "it is closed");
}

#[test]
fn at_the_shutdown_deadline_no_client_in_the_queue_is_waited_for() {
    let mut world = World::new(|settings| {
        settings.workers = 1;
        settings.max_connections = Some(1);
    });
    let address = world.address;
    world.command(Command::Accept);
    let clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    world.turn();
    world.command(Command::StopAccepting);
    world.now += LAST_HANDSHAKES;
    world.reactor.stop_accepting(world.now);
    world.command(Command::Drain);
    world.serve_all();
    world.command(Command::HangUp);
    world.serve_all();
    let is_drained = |report| matches!(report, Report::Drained);
    assert!(world.reports.try_iter().any(is_drained));
    let [_, mut left] = clients;
    let error = left.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[cfg(feature = "status")]
#[test]
fn time_in_which_the_server_stood_still_does_not_count_for_a_close_deadline_in_the_status() {
    let mut world = World::new(one_worker);
    world.command(Command::Accept);
    let client = TcpStream::connect(world.address).unwrap();
    world.turn();
    client.shutdown(Shutdown::Write).unwrap();
    world.turn();
    std::thread::sleep(Duration::from_millis(300));
    let reactor = &mut world.reactor;
    reactor.flow.begin_turn(Some(Duration::ZERO), true);
    let Packet::Reactor { unclosed, .. } = status::packet(&reactor.flow, &mut reactor.seats) else {
        panic!("not a reactor's answer");
    };
    let all = reactor.config.close_deadline.unwrap();
    let left = unclosed[0].deadline.unwrap();
    assert!(left > all - Duration::from_millis(200), "{left:?}");
}

#[test]
fn a_server_that_drains_keeps_no_connection_for_the_policy() {
    let mut world = World::new(|settings| {
        settings.workers = 1;
        settings.on_crash = OnCrash::Keep;
    });
    let [client] = world.clients();
    client.shutdown(Shutdown::Write).unwrap();
    world.turn();
    assert!(world.begin(0).is_some(), "close");
    world.command(Command::Drain);
    world.die(0);
    let is_drained = |report| matches!(report, Report::Drained);
    assert!(world.reports.try_iter().any(is_drained));
}
