//! The findings of `tine doctor` on healthy and faulty servers, and its refusals.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use nix::sys::signal::Signal;
use procfs::net::TcpState;
use serde_json::Value;

use crate::common::client::{Client, Knocking};
use crate::common::doctor::{
    WRONG, as_stranger, doctor, ends, is_in, json, listener, pair, port, refuses, says, words,
};
use crate::common::launch::{Launch, PROGRAM};
use crate::common::sockets::{await_room_for_time_wait, state};
use crate::common::{SOON, eventually, eventually_some};

/// A server that leaves its connections in CLOSE_WAIT.
const LEAKS: [&str; 6] = [
    "--workers",
    "1",
    "--fault",
    "close:sleep=1000",
    "--close-deadline",
    "never",
];

/// Returns the kinds of the findings, without those that other tests in this network namespace and in this
/// process cause.
fn kinds(report: &Value) -> Vec<&str> {
    let of_others = [
        "descriptors_without_connection",
        "overflows_unexplained",
        "syn_cookies",
        "syn_drops",
    ];
    let findings = report["findings"].as_array().expect("findings");
    findings
        .iter()
        .map(|finding| finding["kind"].as_str().unwrap())
        .filter(|kind| !of_others.contains(kind))
        .collect()
}

/// Returns the number of connections that the report counts in a state.
fn number_of(connections: &Value, state: &str) -> u64 {
    let states = connections["states"].as_array().expect("states");
    let count = states.iter().find(|count| count["state"] == state);
    count.map_or(0, |count| count["now"].as_u64().unwrap())
}

#[test]
fn a_healthy_server_has_no_finding() {
    let server = Launch::serve(&["--workers", "1"]).start();
    let mut client = Client::connect(server.address());
    client.echo(b"hello");
    let ended = doctor(&[&port(server.address())]);
    assert!(ended.status.success(), "{ended:#?}");
    says(
        &ended,
        &[
            "Nothing is wrong: 1 listener with 1 connection,",
            &format!("master[{}]", server.master().pid),
            "1 ESTABLISHED",
            "4,097",
        ],
    );
    assert!(!ended.stdout.contains('\x1b'), "piped is plain: {ended:#?}");
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_leak_is_reported_with_its_peer_its_age_and_its_owner() {
    let server = Launch::serve(&LEAKS).start();
    let client = Client::connect(server.address());
    client.accepted();
    let peer = client.local.to_string();
    drop(client);
    let older = ["--older", "0.5"];
    let ended = eventually_some(SOON, "the leak is found", || {
        let ended = doctor(&[&[port(server.address()).as_str()], &older[..]].concat());
        (ended.status.code() == WRONG).then_some(ended)
    });
    says(
        &ended,
        &[
            "1 connection in CLOSE_WAIT for longer than 0.5 s",
            &peer,
            &format!("master[{}]", server.master().pid),
            "has not called close()",
            "--close-deadline",
            "1 thing is wrong",
        ],
    );
    let report = json(&[&port(server.address()), "--older", "0.5"]);
    assert_eq!(kinds(&report), ["close_wait_not_closed"]);
    let stuck = &report["listeners"][0]["connections"]["stuck"][0];
    assert_eq!(stuck["remote"], peer.as_str());
    assert_eq!(stuck["local"], server.address().to_string().as_str());
    assert_eq!(stuck["end_read"], true);
    assert_eq!(stuck["unread"], 0);
    assert!(stuck["age_s"].as_f64().unwrap() > 0.5, "{stuck}");
    assert_eq!(stuck["owners"][0]["pid"], server.master().pid);
}

#[test]
fn an_unclosed_connection_names_the_worker_that_it_waits_for_and_its_callback() {
    for mode in ["process", "base"] {
        let server = Launch::serve(&LEAKS).and(&["--mode", mode]).start();
        let worker = server.workers()[0];
        let client = Client::connect(server.address());
        client.accepted();
        let peer = client.local;
        drop(client);
        let waits_for = eventually_some(SOON, "the server has named the worker", || {
            let report = json(&[&port(server.address()), "--older", "0"]);
            let stuck = report["listeners"][0]["connections"]["stuck"][0].clone();
            let waits_for = &stuck["waits_for"];
            (waits_for["is_its_own"] == true).then(|| waits_for.clone())
        });
        let name = format!("worker#0[{}]", worker.pid);
        assert_eq!(waits_for["worker"], name.as_str(), "{mode}: {waits_for:#}");
        assert_eq!(
            waits_for["callback"]["kind"], "close",
            "{mode}: {waits_for:#}"
        );
        assert_eq!(waits_for["callback"]["peer"], peer.to_string().as_str());
        let ended = doctor(&[&port(server.address()), "--older", "0"]);
        says(
            &ended,
            &[
                "WAITS FOR",
                &format!("{name}, in `close` for"),
                "has not finished its `close` callback: it has been in `close` for",
            ],
        );
    }
}

#[test]
fn a_full_queue_is_reported_with_its_owner_and_limit() {
    let (listener, address) = listener(1);
    let _queued = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    let _next = Knocking::begin(address);
    let report = json(&[&port(address)]);
    let queue = &report["listeners"][0]["queues"][0];
    for (name, value) in [("now", 2), ("peak", 2), ("lowest", 2), ("backlog", 1)] {
        assert_eq!(queue[name], value, "{name}: {report:#}");
    }
    assert_eq!(queue["owners"][0]["pid"], std::process::id());
    assert!(kinds(&report).contains(&"queue_full"), "{report:#}");
    assert_eq!(report["wrong"], true);
    let ended = doctor(&[&port(address)]);
    assert_eq!(ended.status.code(), WRONG);
    says(
        &ended,
        &[
            "The accept queue is full: 2 connections wait where 2 fit",
            "its backlog is only 1",
        ],
    );
    drop(listener);
}

#[test]
fn a_stopped_worker_explains_its_full_queue() {
    let flags = ["--mode", "base", "--workers", "1", "--backlog", "1"];
    let server = Launch::serve(&flags).start();
    let worker = server.workers()[0];
    worker.signal(Signal::SIGSTOP);
    eventually(SOON, "the worker is stopped", || worker.is_stopped());
    let _queued = [(); 2].map(|()| Client::connect(server.address()));
    let ended = doctor(&[&port(server.address())]);
    assert_eq!(ended.status.code(), WRONG);
    says(
        &ended,
        &[
            &format!(
                "Nothing is accepted: worker#0[{}] is stopped (state T).",
                worker.pid
            ),
            &format!("`kill -CONT {}`", worker.pid),
        ],
    );
}

#[test]
fn clients_that_gave_up_in_the_queue_are_no_leak() {
    let (_listener, address) = listener(8);
    let client = TcpStream::connect(address).unwrap();
    let (near, far) = ends(&client);
    drop(client);
    eventually(SOON, "CLOSE_WAIT", || {
        state(far, near) == Some(TcpState::CloseWait)
    });
    let report = json(&[&port(address), "--older", "0"]);
    assert!(
        kinds(&report).contains(&"close_wait_not_accepted"),
        "{report:#}"
    );
    assert!(kinds(&report).contains(&"queue_never_empty"), "{report:#}");
}

#[test]
fn unread_bytes_are_reported_before_and_after_the_peer_has_closed() {
    let (mut client, server, _listener, address) = pair();
    client.write_all(&[7; 100]).unwrap();
    server.peek(&mut [0; 100]).unwrap();
    let report = json(&[&port(address), "--older", "0"]);
    assert_eq!(kinds(&report), ["unread"], "{report:#}");
    let unread = &report["listeners"][0]["connections"]["unread"];
    assert_eq!(
        (&unread["connections"], &unread["bytes"]),
        (&1.into(), &100.into())
    );

    client.shutdown(Shutdown::Write).unwrap();
    is_in(&server, TcpState::CloseWait);
    let report = json(&[&port(address), "--older", "0"]);
    assert_eq!(kinds(&report), ["close_wait_not_read"], "{report:#}");
    let stuck = &report["listeners"][0]["connections"]["stuck"][0];
    assert_eq!(
        (&stuck["unread"], &stuck["end_read"]),
        (&100.into(), &false.into())
    );

    (&server).read_to_end(&mut Vec::new()).unwrap();
    let report = json(&[&port(address), "--older", "0"]);
    assert_eq!(kinds(&report), ["close_wait_not_closed"], "{report:#}");
}

#[test]
fn time_wait_is_counted_at_the_end_that_closed_first_and_against_the_ports() {
    await_room_for_time_wait();
    // The client closes first, twice, and the server once.
    let (listener, address) = listener(8);
    for closes_first in [true, true, false] {
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        let (first, second) = if closes_first {
            (client, server)
        } else {
            (server, client)
        };
        let (near, far) = ends(&first);
        drop(first);
        is_in(&second, TcpState::CloseWait);
        drop(second);
        eventually(SOON, "TIME_WAIT", || {
            state(near, far) == Some(TcpState::TimeWait)
        });
    }
    let report = json(&[&port(address)]);
    let listener = &report["listeners"][0];
    assert_eq!(
        number_of(&listener["connections"], "TIME_WAIT"),
        1,
        "{report:#}"
    );
    let count = &listener["connections"]["states"][0];
    assert!(count["all_gone_in_s"].as_f64().unwrap() <= 60.0, "{count}");
    let ports = &report["ports"][0];
    assert_eq!(ports["remote"], address.to_string().as_str());
    assert_eq!(
        (&ports["used"], &ports["time_wait"]),
        (&2.into(), &2.into())
    );
    assert!(ports["of"].as_u64().unwrap() > 2);
    assert_eq!(report["wrong"], false);
}

#[test]
fn a_process_is_examined_with_the_connections_that_it_has_made() {
    let (client, server, _listener, address) = pair();
    server.shutdown(Shutdown::Write).unwrap();
    is_in(&client, TcpState::CloseWait);
    let own = std::process::id().to_string();
    let report = json(&["--pid", &own, "--older", "0"]);
    let stuck = report["outgoing"]["stuck"].as_array().unwrap();
    let local = client.local_addr().unwrap().to_string();
    let found = stuck.iter().find(|stuck| stuck["local"] == local.as_str());
    let found = found.unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(found["remote"], address.to_string().as_str());
    assert_eq!(found["owners"][0]["pid"], std::process::id());
    let listeners = report["listeners"].as_array().unwrap();
    let is_there = |listener: &Value| listener["address"] == address.to_string().as_str();
    assert!(listeners.iter().any(is_there), "{report:#}");
}

#[test]
fn a_server_is_found_by_the_pid_of_its_first_process() {
    let server = Launch::serve(&["--mode", "base", "--workers", "2"]).start();
    let pid = server.root.pid.to_string();
    let report = json(&["--pid", &pid]);
    assert_eq!(
        report["listeners"].as_array().unwrap().len(),
        1,
        "{report:#}"
    );
    let owners = report["listeners"][0]["queues"][0]["owners"]
        .as_array()
        .unwrap();
    // The manager and its workers.
    assert_eq!(owners.len(), 3, "{report:#}");
}

#[test]
fn an_impossible_subject_is_refused_in_one_line() {
    let (listener, address) = listener(1);
    drop(listener);
    refuses(&[&port(address)], 1, &["nothing listens on TCP port"]);
    refuses(
        &["--pid", "2147483647"],
        1,
        &["there is no process 2147483647"],
    );
    for (arguments, word) in [
        (&["0"][..], "from 1 to 65535"),
        (&["70000"], "from 1 to 65535"),
        (&["http"], "from 1 to 65535"),
        (&["--pid", "0"], "--pid"),
        (&["80", "--pid", "1"], "cannot be used with"),
        (&["--watch", "soon"], "seconds"),
        (&["--yes"], "--reap"),
        (&["--reap", "--json"], "cannot be used with"),
        (&["--reap", "--watch", "1"], "cannot be used with"),
    ] {
        refuses(arguments, 2, &[word]);
    }
}

#[test]
fn the_exit_status_is_the_same_when_stderr_cannot_be_written() {
    let (listener, address) = listener(1);
    drop(listener);
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut command = Command::new(PROGRAM);
    command
        .args(["doctor", &port(address)])
        .stderr(full.unwrap());
    assert_eq!(command.status().unwrap().code(), Some(1));
}

#[test]
fn another_user_sees_the_figures_and_a_line_about_hidden_owners() {
    let (_client, _server, _listener, address) = pair();
    let Some(output) = as_stranger(&[&port(address)]) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for words in ["1 ESTABLISHED", "not seen", "Not seen:", "run this as root"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let own = std::process::id().to_string();
    let output = as_stranger(&["--pid", &own]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("belongs to another user"), "{text}");
}

#[test]
fn a_process_in_another_network_namespace_is_refused_with_the_command_to_examine_it() {
    let command = ["unshare", "-n", "sleep", "1000"];
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let is_elsewhere = eventually_some(SOON, "unshare has worked or not", || {
        if child.try_wait().unwrap().is_some() {
            return Some(false);
        }
        (link(&pid).is_some() && link(&pid) != link("self")).then_some(true)
    });
    if is_elsewhere {
        refuses(
            &["--pid", &pid],
            1,
            &[&format!("nsenter -t {pid} -n tine doctor --pid {pid}")],
        );
    } else {
        eprintln!("SKIPPED: no other network namespace can be made here");
    }
    // Fails when it has ended already.
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn help_explains_every_flag_and_the_exit_status() {
    let help = doctor(&["--help"]);
    assert!(help.status.success());
    let words = words(&help);
    for expected in [
        "PORT",
        "--pid",
        "--watch",
        "--older",
        "--json",
        "--reap",
        "--yes",
        "CAP_NET_ADMIN",
        "Exit status: 0 nothing is wrong, 3 something is",
    ] {
        assert!(
            words.contains(expected),
            "no {expected:?} in {}",
            help.stdout
        );
    }
    // A watch without a listener does not begin.
    let (listener, address) = listener(1);
    drop(listener);
    refuses(
        &[&port(address), "--watch", "1000"],
        1,
        &["nothing listens"],
    );
}
