//! Who may connect: networks, new connections in a second, and one listener for IPv4 and IPv6.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::{SOON, eventually};

const MODES: [&str; 2] = ["process", "base"];

/// Asks from one of the addresses of the loopback network. Returns the number of bytes that come back.
fn ask_from(ip: &str, server: SocketAddr) -> io::Result<usize> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let from = SocketAddr::new(ip.parse().expect("an address"), 0);
    socket.bind(&from.into()).expect("an address of loopback");
    socket.connect_timeout(&server.into(), SOON)?;
    let mut client = TcpStream::from(socket);
    client.set_read_timeout(Some(SOON))?;
    client.write_all(b"hello")?;
    client.read(&mut [0; 5])
}

/// Whether a client from there is served; otherwise it is reset.
#[track_caller]
fn is_served(ip: &str, server: SocketAddr) -> bool {
    let is_reset = |kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    match ask_from(ip, server) {
        Ok(5) => true,
        Err(error) if is_reset(error.kind()) => false,
        other => panic!("neither served nor reset: {other:?}"),
    }
}

#[test]
fn clients_of_denied_networks_are_reset_and_the_others_are_served() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "2"])
            .and(&[
                "--allow",
                "127.0.0.0/8,::1",
                "--deny",
                "127.0.0.64/26",
                "--deny",
                "127.0.7.7",
            ])
            .start();
        let address = server.address();
        for (ip, served) in [
            ("127.0.0.1", true),
            ("127.0.0.63", true),
            ("127.0.0.64", false),
            ("127.0.0.127", false),
            ("127.0.0.128", true),
            ("127.0.7.7", false),
        ] {
            assert_eq!(is_served(ip, address), served, "{mode}: {ip}");
        }
        let words = ["connection from 127.0.7.7:", "refused", "(allow, deny)"];
        server.logged(1, &words);
        if mode == "process" {
            let status = tine::status::ask(server.root.pid, SOON).expect("an answer");
            assert_eq!(status.ended.denied, 3);
        }
    }
}

#[test]
fn a_client_that_connects_too_often_is_reset_and_others_are_served() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "1"])
            .and(&["--max-new-per-second", "1", "--address-prefix", "24,64"])
            .start();
        let address = server.address();
        let refused = (0..50).filter(|_| !is_served("127.0.1.1", address));
        assert!(refused.count() > 0, "{mode}: none of 50 is refused");
        eventually(SOON, "its network is refused, too", || {
            let _ = is_served("127.0.1.1", address);
            !is_served("127.0.1.2", address)
        });
        assert!(is_served("127.0.2.1", address), "{mode}: another network");
        server.logged(1, &["connection from 127.0.1.", "max_new_per_second"]);
        eventually(SOON, "it has saved up one", || {
            std::thread::sleep(Duration::from_millis(300));
            is_served("127.0.1.1", address)
        });
    }
}

#[test]
fn a_listener_for_both_families_shows_clients_of_ipv4_by_their_addresses() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "1", "--listen", "[::]:0"])
            .and(&["--v6only", "false", "--deny", "127.0.7.7"])
            .start();
        let port = server.address().port();
        let v4 = SocketAddr::from(([127, 0, 0, 1], port));
        assert!(is_served("127.0.0.1", v4));
        assert!(!is_served("127.0.7.7", v4), "{mode}: by its own address");
        server.logged(1, &["connection from 127.0.7.7:"]);
        Client::connect(SocketAddr::new("::1".parse().expect("an address"), port)).echo(b"v6");
    }
    let only = Launch::serve(&["--listen", "[::]:0"]).start();
    let v4 = SocketAddr::from(([127, 0, 0, 1], only.address().port()));
    assert!(
        Client::try_connect(v4).is_err(),
        "as long as it is not asked for"
    );
}

#[test]
fn a_client_that_says_nothing_is_accepted_late_where_that_is_wanted() {
    let server = Launch::serve(&["--defer-accept", "60", "--receive-buffer", "32K"]).start();
    let mut silent = Client::connect(server.address());
    Client::connect(server.address()).echo(b"others do not wait for it");
    assert!(silent.server_side().is_none_or(|socket| socket.inode == 0));
    silent.echo(b"now it is here");
}

#[test]
fn settings_without_a_meaning_at_a_place_are_refused_by_name() {
    for (flags, words) in [
        (
            vec!["--listen", "unix:@x", "--allow", "10.0.0.0/8"],
            ["setting allow", "no addresses"],
        ),
        (
            vec!["--listen", "127.0.0.1:0", "--socket-mode", "660"],
            ["setting mode", "unix socket"],
        ),
        (
            vec!["--listen", "unix:@x", "--socket-mode", "660"],
            ["setting mode", "unix socket"],
        ),
        (
            vec!["--listen", "127.0.0.1:0", "--deny", "10.0.0.1/8"],
            ["setting deny", "10.0.0.0/8 meant"],
        ),
        (
            vec!["--listen", "[fe80::1%no-link]:0"],
            ["setting listen", "no interface"],
        ),
        (
            vec!["--listen", "systemd"],
            ["setting listen", "LISTEN_PID"],
        ),
        (
            vec!["--listen", "unix:/tmp/x", "--socket-owner", "no-such-user"],
            ["setting owner", "no user"],
        ),
    ] {
        let ended = Launch::serve(&flags).run();
        assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
        let says = |word: &&str| ended.stderr.contains(*word);
        assert!(words.iter().all(says), "{words:?}: {ended:#?}");
    }
}
