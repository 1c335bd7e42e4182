//! Clients that come while the server is being stopped: those that it has let in are served, and the port is closed for
//! the others at once.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{SockFilter, SockRef};

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually, eventually_some};

/// Connects again and again, with one request each, until the port is closed. Returns how many were served, and the
/// fates of those that were not.
fn come(server: SocketAddr, tell: &Sender<()>) -> (usize, Vec<String>) {
    let (mut served, mut cut) = (0, Vec::new());
    loop {
        let begin = Instant::now();
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
        // The first one is here when the server is stopped, and most others are.
        let _ = tell.send(());
        if served > 0 {
            thread::sleep(Duration::from_millis(20));
        }
        // The server waits for a second for the first words of a client.
        let was_late = begin.elapsed() > Duration::from_millis(500);
        match client.try_ask("echo served") {
            Ok(answer) if answer == "echo served" => served += 1,
            _ if was_late => {}
            other => cut.push(format!("{other:?}")),
        }
    }
}

const MODES: [&str; 2] = ["process", "base"];

/// Stops a server while clients come, and checks that each is served. Returns their number.
#[track_caller]
fn stop_while_clients_come(server: &mut Server) -> usize {
    let address = server.address();
    let (tell, told) = channel();
    let client = |_| {
        let tell = tell.clone();
        thread::spawn(move || come(address, &tell))
    };
    let clients: Vec<_> = (0..8).map(client).collect();
    // They come all the time. There are more connections than clients: some were served already.
    for _ in 0..16 {
        told.recv_timeout(SOON).expect("clients connect");
    }
    server.signal(Signal::SIGTERM);
    let mut served = 0;
    for client in clients {
        let (some, cut) = client.join().expect("no panic");
        assert_eq!(cut, Vec::<String>::new(), "after {some} that were served");
        served += some;
    }
    served
}

#[test]
fn clients_that_are_just_connecting_are_served_when_the_server_is_stopped() {
    for mode in MODES {
        let mut served = 0;
        for _ in 0..10 {
            let mut server = Launch::testbed("script", mode).start();
            served += stop_while_clients_come(&mut server);
            assert!(server.ended(SOON).success());
            let log = server.whole_log();
            assert!(log.with(&["abnormal exit"]).is_empty(), "{}", log.text());
        }
        assert!(served > 10, "{mode}: {served}");
    }
}

#[test]
fn a_worker_that_is_blocked_keeps_no_client_from_the_others() {
    // In process mode, only this dispatch lets messages go past a worker that is blocked.
    for (mode, dispatch) in [("process", &["dispatch=least-busy"][..]), ("base", &[])] {
        let gates = Gates::new();
        let mut server = Launch::testbed("script", mode)
            .and(&["workers=3", "shutdown-deadline=60", &gates.flag()])
            .and(dispatch)
            .start();
        let mut blocked = Client::connect(server.address());
        blocked.send(b"wait gate\n");
        let workers = server.workers();
        let worker = eventually_some(SOON, "a worker is in its callback", || {
            workers.iter().find(|it| it.is_asleep_in_a_callback())
        });
        assert!(stop_while_clients_come(&mut server) > 0);
        assert!(worker.is_running() && !server.has_ended(), "{mode}");
        gates.open("gate");
        assert_eq!(blocked.read_line(), format!("waited {}", worker.pid));
        assert!(server.ended(SOON).success(), "{mode}");
    }
}

/// Whether this process may attach filters to sockets, with which a server lets nobody in while it empties its queues.
fn may_filter() -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let accept_all = [SockFilter::new(0x06, 0, 0, u32::MAX)];
    SockRef::from(&listener).attach_filter(&accept_all).is_ok()
}

#[test]
fn clients_for_which_there_is_no_room_are_served_as_places_become_free() {
    for mode in MODES {
        let mut server = Launch::testbed("script", mode)
            .and(&["workers=1", "max-connections=2", "shutdown-deadline=60"])
            .start();
        let connect = || Client::connect(server.address());
        let mut first = [connect(), connect()];
        for client in &mut first {
            assert_eq!(client.ask("echo here"), "echo here");
        }
        let mut late = [connect(), connect(), connect()];
        for client in &mut late {
            client.send(b"echo served\n");
        }
        server.signal(Signal::SIGTERM);
        for mut client in first {
            assert_eq!(client.read_to_end(), b"", "{mode}");
        }
        for mut client in late {
            // In base mode the manager has accepted it.
            match mode == "base" || may_filter() {
                true => assert_eq!(client.read_to_end(), b"echo served\n", "{mode}"),
                false => assert_eq!(client.read_until_reset(), b""),
            }
        }
        assert!(server.ended(SOON).success(), "{mode}");
    }
}

#[test]
fn clients_in_the_queue_of_blocked_workers_are_served_and_the_port_closes_at_once() {
    for mode in MODES {
        let gates = Gates::new();
        let mut server = Launch::testbed("script", mode)
            .and(&["workers=1", "shutdown-deadline=60", &gates.flag()])
            .start();
        let mut blocked = Client::connect(server.address());
        blocked.send(b"wait gate\n");
        let worker = server.workers()[0];
        eventually(SOON, "the worker is in its callback", || {
            worker.is_asleep_in_a_callback()
        });
        // Nobody accepts these in base mode.
        let mut waiting: Vec<Client> = (0..100)
            .map(|_| Client::connect(server.address()))
            .collect();
        server.signal(Signal::SIGTERM);
        for client in &mut waiting {
            client.send(b"echo served\n");
        }
        eventually(SOON, "the port is closed", || {
            Client::try_connect(server.address())
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        assert!(!blocked.has_news(), "the worker is still blocked");
        gates.open("gate");
        for client in &mut waiting {
            assert_eq!(client.read_line(), "echo served", "{mode}");
        }
        assert!(server.ended(SOON).success(), "{mode}");
    }
}
