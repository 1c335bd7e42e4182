//! Clients that come while the server is being stopped: those that it has let in are served, and the port is closed for
//! the others at once.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::SOON;
use crate::common::client::Client;
use crate::common::launch::Launch;

/// Connects again and again, with one request each, until the port is closed. Returns how many were served, and the
/// fates of those that were not.
fn come(server: SocketAddr) -> (usize, Vec<String>) {
    let (mut served, mut cut) = (0, Vec::new());
    loop {
        let mut client = match Client::try_connect(server) {
            Ok(client) => client,
            // A reset instead of a refusal: the port was closed during the handshake.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
                ) =>
            {
                return (served, cut);
            }
            Err(error) => panic!("connect: {error}"),
        };
        // Most clients are here when the server is stopped.
        thread::sleep(Duration::from_millis(20));
        match client.try_ask("echo served") {
            Ok(answer) if answer == "echo served" => served += 1,
            other => cut.push(format!("{other:?}")),
        }
    }
}

#[test]
fn clients_that_are_just_connecting_are_served_when_the_server_is_stopped() {
    let mut served = 0;
    for _ in 0..10 {
        let mut server = Launch::testbed("script", "process").start();
        let address = server.address();
        let clients: Vec<_> = (0..8)
            .map(|_| thread::spawn(move || come(address)))
            .collect();
        // They come all the time.
        let mut one = Client::connect(address);
        for _ in 0..20 {
            assert_eq!(one.ask("echo here"), "echo here");
        }
        server.signal(Signal::SIGTERM);
        for client in clients {
            let (some, cut) = client.join().expect("no panic");
            assert_eq!(cut, Vec::<String>::new(), "after {some} that were served");
            served += some;
        }
        drop(one);
        assert!(server.ended(SOON).success());
    }
    assert!(served > 10, "{served}");
}
