//! `tine doctor --watch`, on a terminal and in a pipe, and `tine doctor --reap`.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Output, Stdio};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use procfs::net::TcpState;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::common::doctor::{
    WRONG, as_stranger, doctor, ends, is_in, json, listener, port, refuses, says, stuck,
};
use crate::common::launch::{Launch, PROGRAM};
use crate::common::sockets::state;
use crate::common::terminal::OnTerminal;
use crate::common::{SOON, eventually, eventually_some};

#[test]
fn nothing_is_reaped_without_consent_and_permission() {
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
fn reap_destroys_stuck_connections_and_nothing_else() {
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
fn connections_of_others_at_the_address_of_a_process_are_not_its_own() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(64).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    // Made before there is another listener, so these belong to this one.
    let mut clients = connected(address, 4);
    let accepted: Vec<TcpStream> = clients
        .iter()
        .map(|_| listener.accept().unwrap().0)
        .collect();
    let own = std::process::id().to_string();
    let hold = Launch::tine(&["hold", &address.to_string(), "--die-with", &own]).spawn();
    eventually(SOON, "it listens", || {
        !hold.stdout.with(&["listening on"]).is_empty()
    });
    // These are queued at either listener, and the kernel does not tell at which.
    clients.extend(connected(address, 16));
    let peers: Vec<SocketAddr> = clients.iter().map(|client| ends(client).0).collect();
    drop(clients);
    all_are_in_close_wait(address, &peers);

    let pid = hold.pid().to_string();
    let report = json(&["--pid", &pid, "--older", "0"]);
    let listeners = report["listeners"].as_array().unwrap();
    assert_eq!(listeners.len(), 1, "{report:#}");
    assert_eq!(listeners[0]["address"], address.to_string().as_str());
    assert_eq!(
        listeners[0]["connections"]["stuck"],
        Value::Array(Vec::new())
    );
    if geteuid().is_root() {
        let ended = doctor(&["--pid", &pid, "--reap=0", "--yes"]);
        assert!(ended.status.success(), "{ended:#?}");
        says(&ended, &["nothing to do"]);
    } else {
        eprintln!("SKIPPED: only root can destroy sockets");
    }
    all_are_in_close_wait(address, &peers);
    drop((accepted, listener));
}

#[test]
fn connections_in_a_queue_that_a_process_shares_are_spared() {
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: only root can destroy sockets");
    }
    let (listener, address) = listener(8);
    let mut heir = Command::new("sleep")
        .arg("1000")
        .stdin(OwnedFd::from(listener.try_clone().unwrap()))
        .spawn()
        .unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (peer, _) = ends(&client);
    drop(client);
    all_are_in_close_wait(address, &[peer]);
    let pid = heir.id().to_string();
    let ended = doctor(&["--pid", &pid, "--reap=0", "--yes"]);
    let is_there = state(address, peer) == Some(TcpState::CloseWait);
    heir.kill().unwrap();
    heir.wait().unwrap();
    assert!(ended.status.success() && is_there, "{ended:#?}");
    says(&ended, &["nothing to do"]);
    drop(listener);
}

#[test]
fn connections_in_a_queue_that_a_process_has_alone_are_destroyed() {
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: only root can destroy sockets");
    }
    let own = std::process::id().to_string();
    let hold = Launch::tine(&["hold", "127.0.0.1:0", "--die-with", &own]).spawn();
    let address: SocketAddr = eventually_some(SOON, "it listens", || {
        let text = hold.stdout.text();
        text.trim().strip_prefix("listening on ")?.parse().ok()
    });
    let client = TcpStream::connect(address).unwrap();
    let (peer, _) = ends(&client);
    drop(client);
    all_are_in_close_wait(address, &[peer]);
    let ended = doctor(&["--pid", &hold.pid().to_string(), "--reap=0", "--yes"]);
    if ended.stderr.contains("CONFIG_INET_DIAG_DESTROY") {
        return eprintln!("SKIPPED: {}", ended.stderr);
    }
    assert!(ended.status.success(), "{ended:#?}");
    says(&ended, &["not accepted", "1 connection destroyed"]);
    assert_eq!(state(address, peer), None);
}

fn connected(address: SocketAddr, number: usize) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect(address).unwrap();
    (0..number).map(connect).collect()
}

#[track_caller]
fn all_are_in_close_wait(address: SocketAddr, peers: &[SocketAddr]) {
    eventually(SOON, "the server's ends are in CLOSE_WAIT", || {
        let mut states = peers.iter().map(|peer| state(address, *peer));
        states.all(|state| state == Some(TcpState::CloseWait))
    });
}

#[test]
fn reap_without_a_reader_goes_on_and_fails() {
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: only root can destroy sockets");
    }
    let (listener, address) = listener(8);
    let clients = connected(address, 5);
    let servers: Vec<TcpStream> = clients
        .iter()
        .map(|_| listener.accept().unwrap().0)
        .collect();
    let peers: Vec<SocketAddr> = clients.iter().map(|client| ends(client).0).collect();
    drop(clients);
    all_are_in_close_wait(address, &peers);
    let output = unread(&[&port(address), "--reap=0", "--yes"]);
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("CONFIG_INET_DIAG_DESTROY") {
        return eprintln!("SKIPPED: {text}");
    }
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let says =
        "5 connections destroyed, 0 spared, 0 failed, but the list of them cannot be written";
    assert!(text.contains(says) && text.lines().count() == 1, "{text}");
    for peer in peers {
        assert_eq!(state(address, peer), None);
    }
    drop(servers);
}

/// Runs the doctor with a pipe as stdout that is closed from the start.
fn unread(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("doctor").args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
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
            return eprintln!("SKIPPED: this kernel cannot destroy sockets");
        }
        terminal.shows(fate);
        assert_eq!(status.code(), Some(code));
    }
    assert_eq!(state(address, peer), None);
    drop(server);
}

#[test]
fn watch_prints_lines_on_change_and_the_report_at_the_end() {
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
    let pid = Pid::from_raw(watch.pid());
    kill(pid, Signal::SIGTERM).unwrap();
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
fn a_closed_pipe_is_no_failure_and_changes_no_exit_status() {
    let (_listener, address) = listener(1);
    let (_server, _leaking, leaking, _) = stuck();
    let leaking = port(leaking);
    for arguments in [
        &[][..],
        &["--json"],
        &["--watch", "60"],
        &["--watch", "60", "--json"],
    ] {
        let output = unread(&[&[port(address).as_str()], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
        let output = unread(&[&[leaking.as_str(), "--older", "0"], arguments].concat());
        assert_eq!(output.status.code(), WRONG, "{arguments:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

/// A process that is killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_view_ends_with_its_terminal() {
    let (_listener, address) = listener(1);
    // Not by openpty(3): what other tests start meanwhile would inherit the terminal, and keep it.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let mut master = posix_openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname_r(&master).unwrap();
    let side = || {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NOCTTY);
        options.open(&name).unwrap()
    };
    let mut command = Command::new(PROGRAM);
    command
        .args(["doctor", &port(address), "--watch", "0"])
        .env("TERM", "xterm-256color")
        .stdin(side())
        .stdout(side())
        .stderr(side());
    let mut child = Killed(command.spawn().unwrap());
    drop(command);
    // It takes the terminal's other screen.
    let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&text).contains("\x1b[?1049h") {
        let n = master.read(&mut bytes).unwrap();
        text.extend(&bytes[..n]);
    }
    // A drawing would fail, and end it in any case.
    let wchan = format!("/proc/{}/wchan", child.0.id());
    eventually(SOON, "it waits for a key", || {
        std::fs::read_to_string(&wchan).is_ok_and(|function| function.contains("poll"))
    });
    drop(master);
    eventually(SOON, "it ends with its terminal", || {
        child.0.try_wait().unwrap().is_some()
    });
}

#[test]
fn the_view_draws_follows_and_gives_the_terminal_back() {
    for way in ["q", "\x1b", "\x03", "SIGTERM", "SIGINT", "SIGQUIT"] {
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
            "SIGQUIT" => terminal.signal(Signal::SIGQUIT),
            key => terminal.press(key),
        }
        assert_eq!(terminal.ended().code(), WRONG, "{way:?}");
        assert!(terminal.is_as_it_was(), "{way:?}");
        // Its last output is read a little after its end.
        eventually(
            SOON,
            format_args!("{way:?}: the report is on the first screen"),
            || {
                let text = terminal.text();
                let after = text.split("\x1b[?1049l").nth(1);
                after.is_some_and(|after| after.contains("1 thing is wrong"))
            },
        );
        let text = terminal.text();
        assert!(text.contains("\x1b[?25h"), "{way:?}: the cursor is hidden");
    }
}
