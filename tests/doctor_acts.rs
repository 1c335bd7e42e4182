//! `tine doctor` while it watches, on a terminal and in a pipe, and when it is asked to reap.

mod common;

use std::net::TcpStream;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use procfs::net::TcpState;
use serde_json::Value;

use common::doctor::{WRONG, as_stranger, doctor, is_in, listener, port, refuses, says, stuck};
use common::launch::{Launch, PROGRAM};
use common::sockets::state;
use common::terminal::OnTerminal;
use common::{SOON, eventually, eventually_some};

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
        // What it has drawn is read a little later than it ends.
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
