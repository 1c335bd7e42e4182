//! The end of a server: the last clients of the accept queue, and connections that nothing else would end.

use std::net::{Shutdown, TcpStream};

use super::{World, one_worker};
use crate::config::policy::OnCrash;
use crate::master::reactor::{Command, Report};

#[test]
fn every_client_in_the_accept_queue_is_accepted_at_the_end() {
    let mut world = World::new(one_worker);
    let address = world.address;
    let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
    world.command(Command::StopAccepting);
    assert!(world.reports.try_recv().is_err(), "handshakes may go on");
    world.reactor.stop_accepting();
    assert_eq!(world.reactor.flow.len(), clients.len());
    assert!(matches!(
        world.reports.try_recv(),
        Ok(Report::StoppedAccepting)
    ));
    assert!(TcpStream::connect(address).is_err(), "it is closed");
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
