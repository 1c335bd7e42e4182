//! What `tine doctor` finds, says and leaves alone, on servers that something is wrong with.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use common::client::{Client, Knocking};
use common::launch::{Ended, Launch, PROGRAM};
use common::sockets::state;
use common::terminal::OnTerminal;
use common::{SOON, eventually, eventually_some};
use procfs::net::TcpState;

/// A server that leaves its connections in CLOSE_WAIT.
const LEAKS: [&str; 6] = [
    "--workers",
    "1",
    "--fault",
    "close:sleep=1000",
    "--close-deadline",
    "never",
];

/// The exit status when something is wrong.
const WRONG: Option<i32> = Some(3);

/// A user that has no processes here.
const STRANGER: u32 = 54_321;

#[track_caller]
fn doctor(arguments: &[&str]) -> Ended {
    Launch::tine(&["doctor"]).and(arguments).run()
}

/// Its words, with single spaces in place of line ends and indents.
fn words(ended: &Ended) -> String {
    let words: Vec<&str> = ended.stdout.split_whitespace().collect();
    words.join(" ")
}

#[track_caller]
fn says(ended: &Ended, expected: &[&str]) {
    let words = words(ended);
    for expected in expected {
        assert!(words.contains(expected), "no {expected:?} in {ended:#?}");
    }
}

#[track_caller]
fn refuses(arguments: &[&str], status: i32, expected: &[&str]) {
    let ended = doctor(arguments);
    assert_eq!(ended.status.code(), Some(status), "{ended:#?}");
    assert_eq!(ended.stdout, "", "{arguments:?}");
    for expected in expected {
        assert!(
            ended.stderr.contains(expected),
            "no {expected:?} in {ended:#?}"
        );
    }
    if status == 1 {
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
    }
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let ended = doctor(&[arguments, &["--json"]].concat());
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

/// What was found, without what other tests in this network namespace cause.
fn kinds(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().expect("findings");
    findings
        .iter()
        .map(|finding| finding["kind"].as_str().unwrap())
        .filter(|kind| *kind != "overflows_unexplained")
        .collect()
}

/// How many connections the report counts in a state.
fn number_of(connections: &Value, state: &str) -> u64 {
    let states = connections["states"].as_array().expect("states");
    let count = states.iter().find(|count| count["state"] == state);
    count.map_or(0, |count| count["now"].as_u64().unwrap())
}

fn port(address: SocketAddr) -> String {
    address.port().to_string()
}

/// A listener of the tests that takes `backlog` + 1 connections and accepts none by itself.
fn listener(backlog: i32) -> (TcpListener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(backlog).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn pair() -> (TcpStream, TcpStream, TcpListener, SocketAddr) {
    let (listener, address) = listener(8);
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server, listener, address)
}

fn ends(stream: &TcpStream) -> (SocketAddr, SocketAddr) {
    (stream.local_addr().unwrap(), stream.peer_addr().unwrap())
}

#[track_caller]
fn is_in(stream: &TcpStream, wanted: TcpState) {
    let (local, remote) = ends(stream);
    eventually(SOON, format_args!("{wanted:?}"), || {
        state(local, remote).as_ref() == Some(&wanted)
    });
}

#[test]
fn a_healthy_server_is_said_to_be() {
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
fn a_leak_is_told_with_its_peer_its_age_and_its_owner() {
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
fn a_full_queue_is_told_with_its_owner_and_limit() {
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
            "its backlog is 1 only",
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
                "Nobody accepts: worker#0[{}] is stopped (state T).",
                worker.pid
            ),
            &format!("`kill -CONT {}`", worker.pid),
        ],
    );
}

#[test]
fn clients_that_gave_up_in_the_queue_are_told_from_a_leak() {
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
fn bytes_that_nobody_reads_are_told_before_and_after_the_peer_has_closed() {
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
fn time_wait_is_counted_where_it_is_held_and_against_the_ports() {
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
fn a_process_is_examined_with_the_connections_it_has_made() {
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
fn what_can_not_be_examined_is_refused_in_one_line() {
    let (listener, address) = listener(1);
    drop(listener);
    refuses(&[&port(address)], 1, &["nobody listens on TCP port"]);
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

/// The program as a user that owns nothing here.
fn as_stranger(arguments: &[&str]) -> Option<Output> {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return None;
    }
    // Where it was built, others may not look.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tine");
    std::fs::copy(PROGRAM, &copy).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let mut command = Command::new(copy);
    command
        .arg("doctor")
        .args(arguments)
        .uid(STRANGER)
        .gid(STRANGER);
    Some(
        command
            .stdin(Stdio::null())
            .current_dir("/")
            .output()
            .unwrap(),
    )
}

#[test]
fn another_user_sees_the_figures_and_is_told_what_is_hidden() {
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
fn a_process_in_another_network_is_named_with_the_way_to_it() {
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

/// A connection that its client has closed and whose server knows.
fn stuck() -> (TcpStream, TcpListener, SocketAddr, SocketAddr) {
    let (client, mut server, listener, address) = pair();
    let (peer, _) = ends(&client);
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    is_in(&server, TcpState::CloseWait);
    (server, listener, address, peer)
}

#[test]
fn nothing_is_reaped_without_being_asked_or_allowed() {
    let (server, _listener, address, peer) = stuck();
    refuses(
        &[&port(address), "--reap=0"],
        1,
        &["no terminal to ask on", "nothing was done", "--yes"],
    );
    if let Some(output) = as_stranger(&[&port(address), "--reap=0", "--yes"]) {
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("CAP_NET_ADMIN") && text.lines().count() == 1,
            "{text}"
        );
    }
    assert_eq!(state(address, peer), Some(TcpState::CloseWait));
    drop(server);
}

#[test]
fn reap_destroys_what_is_stuck_and_nothing_else() {
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: only root can destroy sockets");
    }
    let (server, listener, address, peer) = stuck();
    let bystander = TcpStream::connect(address).unwrap();
    let (far_end, _) = listener.accept().unwrap();
    let (other, _other_listener, other_address, other_peer) = stuck();

    // Not old enough yet.
    let ended = doctor(&[&port(address), "--reap=1000", "--yes"]);
    assert!(ended.status.success(), "{ended:#?}");
    says(&ended, &["nothing to do"]);

    let ended = doctor(&[&port(address), "--reap=0", "--yes"]);
    if ended.stderr.contains("CONFIG_INET_DIAG_DESTROY") {
        return eprintln!("SKIPPED: {}", ended.stderr);
    }
    assert!(ended.status.success(), "{ended:#?}");
    let line = format!("destroyed {address} with {peer}, CLOSE_WAIT for ");
    says(
        &ended,
        &[
            &line,
            "0 bytes unread, held by",
            "1 connection destroyed, 0 spared, 0 failed.",
        ],
    );
    assert_eq!(state(address, peer), None);
    assert_eq!(state(other_address, other_peer), Some(TcpState::CloseWait));
    is_in(&bystander, TcpState::Established);
    drop((server, other, far_end));
}

#[test]
fn reap_asks_on_a_terminal_and_takes_no_for_an_answer() {
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: only root can destroy sockets");
    }
    let (server, _listener, address, peer) = stuck();
    for (answer, fate, code) in [
        ("n\n", "Nothing was done.", 1),
        ("y\n", "1 connection destroyed", 0),
    ] {
        let mut command = Command::new(PROGRAM);
        command.args(["doctor", &port(address), "--reap=0"]);
        let mut terminal = OnTerminal::start(&mut command);
        terminal.shows("Destroy it (1 connection)? [y/N]");
        assert!(terminal.text().contains(&peer.to_string()));
        assert_eq!(state(address, peer), Some(TcpState::CloseWait));
        terminal.press(answer);
        let status = terminal.ended();
        if terminal.text().contains("CONFIG_INET_DIAG_DESTROY") {
            return eprintln!("SKIPPED: this kernel can not destroy sockets");
        }
        terminal.shows(fate);
        assert_eq!(status.code(), Some(code));
    }
    assert_eq!(state(address, peer), None);
    drop(server);
}

#[test]
fn watch_prints_lines_on_change_and_what_it_has_found_at_the_end() {
    let (listener, address) = listener(1);
    let watch = Launch::tine(&["doctor", &port(address), "--watch", "0"]).spawn();
    let shows = |words: &str| {
        eventually(SOON, format_args!("{words:?} is printed"), || {
            !watch.stdout.with(&[words]).is_empty()
        });
    };
    shows("queue 0 (peak 0 of 2)");
    let _queued = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    shows("queue 2 (peak 2 of 2)  2 ESTABLISHED");
    shows("The accept queue is full");
    let mut watch = watch;
    let pid = nix::unistd::Pid::from_raw(watch.pid());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    let status = eventually_some(SOON, "the watch ends", || watch.try_wait());
    assert_eq!(status.code(), WRONG);
    eventually(SOON, "all is printed", || watch.stdout.is_closed());
    assert!(
        watch.stdout.text().contains("1 thing is wrong"),
        "{}",
        watch.stdout.text()
    );
    assert!(!watch.stdout.text().contains('\x1b'));
    drop(listener);
}

#[test]
fn watch_prints_a_json_document_a_line() {
    let (_listener, address) = listener(1);
    let ended = doctor(&[&port(address), "--watch", "1.5", "--json"]);
    assert!(ended.status.success(), "{ended:#?}");
    let lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.len() >= 2, "{ended:#?}");
    let watched: Vec<f64> = lines
        .iter()
        .map(|line| line["watched_s"].as_f64().unwrap())
        .collect();
    assert!(
        watched.is_sorted() && watched[watched.len() - 1] >= 1.5,
        "{watched:?}"
    );
}

#[test]
fn who_reads_no_further_is_no_failure() {
    let (_listener, address) = listener(1);
    for arguments in [
        &[][..],
        &["--json"],
        &["--watch", "60"],
        &["--watch", "60", "--json"],
    ] {
        let mut command = Command::new(PROGRAM);
        command.arg("doctor").arg(port(address)).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn the_view_draws_follows_and_gives_the_terminal_back() {
    for way in ["q", "\x1b", "\x03", "SIGTERM", "SIGINT"] {
        let (_listener, address) = listener(1);
        let mut command = Command::new(PROGRAM);
        command.args(["doctor", &port(address), "--watch", "0"]);
        let mut terminal = OnTerminal::start(&mut command);
        // It takes the terminal's other screen, and draws.
        terminal.shows("\x1b[?1049h");
        terminal.shows("Nothing");
        assert!(!terminal.is_as_it_was());
        let _queued = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        terminal.shows("WRONG");
        match way {
            "SIGTERM" => terminal.signal(Signal::SIGTERM),
            "SIGINT" => terminal.signal(Signal::SIGINT),
            key => terminal.press(key),
        }
        assert_eq!(terminal.ended().code(), WRONG, "{way:?}");
        assert!(terminal.is_as_it_was(), "{way:?}");
        terminal.shows("1 thing is wrong");
        let text = terminal.text();
        let after = text.split("\x1b[?1049l").nth(1);
        let after = after.unwrap_or_else(|| panic!("{way:?}: the first screen is not back"));
        assert!(after.contains("1 thing is wrong"), "{way:?}");
        assert!(text.contains("\x1b[?25h"), "{way:?}: the cursor is hidden");
    }
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
    // A watch that has nothing to watch does not begin.
    let begun = std::time::Instant::now();
    let (listener, address) = listener(1);
    drop(listener);
    refuses(&[&port(address), "--watch", "1000"], 1, &["nobody listens"]);
    assert!(begun.elapsed() < Duration::from_secs(100));
}
