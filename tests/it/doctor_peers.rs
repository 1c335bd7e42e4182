//! The findings of `tine doctor` about peers that do not read, do not answer or have vanished, and about
//! servers that have no room for them.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::{setsockopt_impl, sockopt_impl};
use procfs::net::TcpState;
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::common::client::Client;
use crate::common::doctor::{doctor, ends, is_in, json, listener, pair, port, says};
use crate::common::launch::Launch;
use crate::common::sockets::state;
use crate::common::{SOON, eventually, eventually_some};

sockopt_impl!(
    /// tcp(7): the listener's clients are in SYN_RECV until they have sent something.
    DeferAccept,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    i32
);

/// Returns the findings of this kind. Other tests of this process and network namespace cause findings of
/// other kinds.
fn of_kind<'a>(report: &'a Value, kind: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().expect("findings");
    let is_it = |finding: &&Value| finding["kind"] == kind;
    findings.iter().filter(is_it).collect()
}

#[test]
fn clients_that_do_not_read_are_back_pressure_and_no_fault_of_the_server() {
    for mode in ["process", "base"] {
        let server = Launch::serve(&["--mode", mode, "--workers", "2"])
            .and(&["--output-high-water", "65536", "--write-deadline", "never"])
            .start();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // The kernel keeps little of what the server sends.
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&server.address().into()).unwrap();
        client.set_nonblocking(true).unwrap();
        let sent_nothing = || {
            let mut bytes = 0;
            while let Ok(n) = (&client).write(&[7; 65_536]) {
                bytes += n;
            }
            bytes == 0
        };
        // The server reads until its own limit, and then the kernel until the receive buffer is full.
        let report = eventually_some(SOON, format_args!("{mode}: back-pressure"), || {
            let report =
                sent_nothing().then(|| json(&[&port(server.address()), "--older", "0"]))?;
            (!of_kind(&report, "back_pressure").is_empty()).then_some(report)
        });
        assert!(of_kind(&report, "unread").is_empty(), "{mode}: {report:#}");
        assert!(
            of_kind(&report, "window_closed").is_empty(),
            "{mode}: {report:#}"
        );
        assert_eq!(report["wrong"], false, "{mode}: {report:#}");
        let held_back = &report["listeners"][0]["connections"]["held_back"];
        assert_eq!(held_back["connections"], 1, "{held_back}");
        assert!(held_back["bytes"].as_u64() > Some(0), "{held_back}");
        let ended = doctor(&[&port(server.address()), "--older", "0"]);
        assert!(ended.status.success(), "{mode}: {ended:#?}");
        says(&ended, &["Back-pressure", "The cause is at the other end"]);
    }
}

#[test]
fn a_peer_that_has_closed_and_does_not_read_is_the_cause_of_its_close_wait() {
    let (client, server, _listener, address) = pair();
    server.set_nonblocking(true).unwrap();
    while (&server).write(&[7; 65_536]).is_ok() {}
    client.shutdown(Shutdown::Write).unwrap();
    is_in(&server, TcpState::CloseWait);
    let report = eventually_some(SOON, "the window is closed", || {
        let report = json(&[&port(address), "--older", "0"]);
        (!of_kind(&report, "close_wait_not_taken").is_empty()).then_some(report)
    });
    let stuck = &report["listeners"][0]["connections"]["stuck"][0];
    assert_eq!(stuck["window_closed"], true, "{stuck}");
    assert!(stuck["unsent"].as_u64() > Some(0), "{stuck}");
    assert!(of_kind(&report, "window_closed").is_empty(), "{report:#}");
}

#[test]
fn a_server_with_as_many_connections_as_it_may_have_says_so() {
    for mode in ["process", "base"] {
        let flags = ["--mode", mode, "--workers", "1", "--max-connections", "2"];
        let server = Launch::serve(&flags).and(&["--backlog", "1"]).start();
        let mut clients = [(); 2].map(|()| Client::connect(server.address()));
        clients.iter_mut().for_each(|client| client.echo(b"in"));
        let _queued = [(); 2].map(|()| Client::connect(server.address()));
        let name = match mode {
            "base" => format!("worker#0[{}]", server.workers()[0].pid),
            _ => format!("master[{}]", server.master().pid),
        };
        let ended = doctor(&[&port(server.address())]);
        says(
            &ended,
            &[
                "The accept queue is full: 2 connections wait where 2 fit",
                &format!("`max_connections` is reached: {name} has 2 of 2 connections."),
                "--max-connections N",
            ],
        );
        assert!(!ended.stdout.contains("has it reached"), "{ended:#?}");
        assert!(!ended.stdout.contains("its backlog is only"), "{ended:#?}");
        // And its log says it, once a second.
        let reached = || server.log().with(&["max_connections is reached"]).len();
        eventually(SOON, format_args!("{mode}: it is logged again"), || {
            reached() > 1
        });
    }
}

#[test]
fn half_open_connections_that_take_all_room_are_wrong() {
    let (listener, address) = listener(3);
    setsockopt(&listener.as_fd(), DeferAccept, &60).unwrap();
    let clients = [(); 4].map(|()| TcpStream::connect(address).unwrap());
    for client in &clients {
        let (near, far) = ends(client);
        assert_eq!(state(far, near), Some(TcpState::SynRecv));
    }
    let report = json(&[&port(address)]);
    let found = of_kind(&report, "syn_recv");
    assert_eq!(found.len(), 1, "{report:#}");
    assert_eq!(report["wrong"], true);
    let text = found[0]["says"].as_str().unwrap();
    assert!(text.contains("4 in SYN_RECV where 4 fit"), "{text}");
    drop((clients, listener));
}

#[test]
fn descriptors_of_connections_that_were_reset_are_found() {
    let own = std::process::id().to_string();
    let (listener, address) = listener(8);
    let hold = |number: usize| -> Vec<TcpStream> {
        let connect = |_| {
            let client = TcpStream::connect(address).unwrap();
            let (server, _) = listener.accept().unwrap();
            SockRef::from(&client)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(client);
            server
        };
        (0..number).map(connect).collect()
    };
    let number = || {
        let report = json(&["--pid", &own, "--older", "0.5"]);
        let all = report["departed"].as_array().expect("a list").clone();
        let is_own = |departed: &&Value| departed["owner"]["pid"] == std::process::id();
        let number = all.iter().find(is_own);
        let number = number.map_or(0, |departed| departed["sockets"].as_u64().unwrap());
        (number, report)
    };
    let held = hold(5);
    let (found, report) = number();
    assert!(found >= 5, "{report:#}");
    let finding = of_kind(&report, "descriptors_without_connection");
    assert_eq!(finding[0]["weight"], "wrong", "{report:#}");
    assert_eq!(report["wrong"], true);
    drop(held);
    // By the port that the process listens on, too.
    let report = json(&[&port(address)]);
    assert!(report["departed"].is_array(), "{report:#}");
}

#[test]
fn a_tine_server_leaves_no_descriptor_of_a_connection_that_was_reset() {
    for mode in ["process", "base"] {
        let server = Launch::serve(&["--mode", mode, "--workers", "1"]).start();
        for _ in 0..5 {
            let mut client = Client::connect(server.address());
            client.echo(b"hello");
            client.reset();
        }
        let pid = server.root.pid.to_string();
        let report = json(&["--pid", &pid, "--older", "0"]);
        assert_eq!(report["departed"], Value::Array(Vec::new()), "{mode}");
    }
}

/// The client's end of a connection is gone, and no segment has told the server: as if the client's machine had
/// lost its power. Returns whether this process may do that.
fn vanish(client: TcpStream) -> bool {
    setsockopt(&client.as_fd(), sockopt::TcpRepair, &1).is_ok()
}

fn silent(address: SocketAddr) -> (u64, Value) {
    let report = json(&[&port(address), "--silent", "0.1"]);
    let silent = &report["listeners"][0]["connections"]["silent"];
    (silent["connections"].as_u64().unwrap(), report)
}

#[test]
fn a_connection_whose_peer_has_vanished_is_reported_and_one_with_both_ends_here_is_not() {
    let (client, server, listener, address) = pair();
    let here = TcpStream::connect(address).unwrap();
    let (other, _) = listener.accept().unwrap();
    let (number, report) = silent(address);
    assert_eq!(number, 0, "both peers are on this machine: {report:#}");
    if !vanish(client) {
        // Without CAP_NET_ADMIN, dropping it has sent a FIN.
        return is_in(&server, TcpState::CloseWait);
    }
    is_in(&server, TcpState::Established);
    let (number, report) = eventually_some(SOON, "it is silent", || {
        let (number, report) = silent(address);
        (number > 0).then_some((number, report))
    });
    assert_eq!(number, 1, "{report:#}");
    let finding = of_kind(&report, "silent");
    let next = finding[0]["next"].to_string();
    assert!(next.contains("SO_KEEPALIVE"), "{next}");
    assert_eq!(finding[0]["weight"], "note");
    // With keepalive, the kernel will notice.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(1000));
    SockRef::from(&server)
        .set_tcp_keepalive(&keepalive)
        .unwrap();
    assert_eq!(silent(address).0, 0);
    drop((here, other));
}

#[test]
fn keepalive_is_on_in_a_tine_server_so_that_no_connection_of_it_is_silent() {
    let server = Launch::serve(&["--workers", "1"]).start();
    let mut client = Client::connect(server.address());
    client.echo(b"hello");
    let report = json(&[&port(server.address()), "--silent", "0"]);
    let silent = &report["listeners"][0]["connections"]["silent"];
    assert_eq!(silent["connections"], 0, "{report:#}");
}
