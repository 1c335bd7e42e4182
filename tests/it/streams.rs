//! Standard output and standard error that take nothing: whatever they are, a server serves on, and says later how much of
//! its log is missing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::{Ready, Server};
use crate::common::{SOON, eventually, eventually_some};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::termios::{FlowArg, tcflow};
use nix::unistd::pipe;

const MODES: [&str; 2] = ["process", "base"];

/// A descriptor that takes nothing now, and its other end.
struct Stalled {
    name: &'static str,
    given: OwnedFd,
    other: File,
    /// The terminal that is stopped.
    stopped: Option<OwnedFd>,
}

/// Writes until the file takes no more, and leaves it as it was.
#[track_caller]
fn fill(file: impl AsFd) {
    let before = flags(&file);
    let set = |flags| fcntl(file.as_fd(), FcntlArg::F_SETFL(flags)).expect("a flag can be set");
    set(before | OFlag::O_NONBLOCK);
    let mut writer = File::from(file.as_fd().try_clone_to_owned().expect("a copy"));
    let mut full = 0;
    // The kernel moves on what a terminal was given, and there is room again.
    eventually(SOON, "it stays full", || {
        full += 1;
        for bytes in [&[b'.'; 4096][..], b"."] {
            while writer.write(bytes).is_ok() {
                full = 0;
            }
        }
        full == 5
    });
    set(before);
}

fn flags(file: impl AsFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(file.as_fd(), FcntlArg::F_GETFL).expect("its flags"))
}

fn full_pipe(name: &'static str, flags: OFlag) -> Stalled {
    let (reader, writer) = pipe().expect("a pipe");
    fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("a flag can be set");
    fill(&writer);
    let (given, other) = (writer, reader.into());
    Stalled {
        name,
        given,
        other,
        stopped: None,
    }
}

fn stopped_terminal() -> Stalled {
    let pair = openpty(None, None).expect("a pseudo terminal");
    tcflow(&pair.slave, FlowArg::TCOOFF).expect("a terminal can be stopped");
    let stopped = Some(pair.slave.try_clone().expect("a copy"));
    let (given, other) = (pair.slave, pair.master.into());
    Stalled {
        name: "a stopped terminal",
        given,
        other,
        stopped,
    }
}

fn full_terminal() -> Stalled {
    let pair = openpty(None, None).expect("a pseudo terminal");
    fill(&pair.slave);
    let (given, other) = (pair.slave, pair.master.into());
    Stalled {
        name: "a terminal that is not read",
        given,
        other,
        stopped: None,
    }
}

fn full_socket() -> Stalled {
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    fill(&near);
    let (given, other) = (near.into(), OwnedFd::from(far).into());
    Stalled {
        name: "a socket",
        given,
        other,
        stopped: None,
    }
}

fn all() -> [Stalled; 5] {
    [
        full_pipe("a pipe", OFlag::empty()),
        full_pipe("a pipe that does not block", OFlag::O_NONBLOCK),
        stopped_terminal(),
        full_terminal(),
        full_socket(),
    ]
}

impl Stalled {
    /// Takes what is written from now on. Returns it as it comes.
    fn resume(&self) -> Arc<Mutex<Vec<u8>>> {
        if let Some(terminal) = &self.stopped {
            tcflow(terminal, FlowArg::TCOON).expect("a terminal can go on");
        }
        let read = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&read);
        let mut other = self.other.try_clone().expect("a copy");
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = other.read(&mut bytes) {
                kept.lock().unwrap().extend(&bytes[..n]);
            }
        });
        read
    }
}

#[test]
fn a_server_whose_log_takes_nothing_serves_on_and_counts_what_is_dropped() {
    for mode in MODES {
        for stalled in all() {
            let name = format!("{mode}, {}", stalled.name);
            let before = flags(&stalled.given);
            let server = Launch::serve(&["--mode", mode, "--workers", "2"])
                .and(&["--protocol", "lines", "--max-message", "200"])
                .stderr(stalled.given.try_clone().expect("a copy"))
                .start();
            let address = server.address();
            for _ in 0..3 {
                let old = server.workers();
                old[0].signal(Signal::SIGKILL);
                server.new_workers(2, &old[..1]);
                // Refused: the process that owns the socket logs it.
                let mut refused = Client::connect(address);
                refused.send(&[b'x'; 300]);
                refused.expect_closed();
                Client::connect(address).echo(b"hello\n");
            }
            assert_eq!(flags(&stalled.given), before, "{name}: others have it too");
            let read = stalled.resume();
            eventually(SOON, format_args!("{name}: the count comes"), || {
                let old = server.workers();
                old[0].signal(Signal::SIGKILL);
                server.new_workers(2, &old[..1]);
                let text = String::from_utf8_lossy(&read.lock().unwrap()).into_owned();
                let report = text.lines().find(|line| line.contains(" lines dropped"));
                report.is_some_and(|line| line.contains(" WARNING manager["))
            });
            let mut server = server;
            let processes = server.processes();
            server.signal(Signal::SIGTERM);
            assert!(server.ended(SOON).success(), "{name}");
            server.leaves_nothing(&processes);
        }
    }
}

#[test]
fn a_server_whose_output_takes_nothing_starts_and_says_so_in_its_log() {
    for mode in MODES {
        for stalled in all() {
            let name = format!("{mode}, {}", stalled.name);
            let running = Launch::serve(&["--mode", mode, "--workers", "1"])
                .stdout(stalled.given.try_clone().expect("a copy"))
                .spawn();
            let line = eventually_some(SOON, format_args!("{name}: it starts"), || {
                let lines = running.stderr.with(&["cannot write to standard output"]);
                lines.first().cloned()
            });
            let ready = line.split("not written: ").nth(1).and_then(Ready::parse);
            let ready = ready.unwrap_or_else(|| panic!("{name}: no ready line: {line}"));
            let server = Server::is_ready(running, vec![ready]);
            Client::connect(server.address()).echo(b"hello");
        }
    }
}

#[test]
fn a_failure_to_start_is_not_kept_back_by_a_log_that_takes_nothing() {
    for stalled in all() {
        let given = stalled.given.try_clone().expect("a copy");
        let ended = Launch::serve(&["--workers", "1", "--fault", "worker_start:exit=3"])
            .stderr(given)
            .run();
        assert_eq!(ended.status.code(), Some(1), "{}", stalled.name);
    }
}

/// A line of more bytes than a pipe takes as a whole, where there is room for a part of it.
#[test]
fn a_long_line_stops_nothing_and_the_next_one_begins_a_line() {
    for mode in MODES {
        let (reader, writer) = pipe().expect("a pipe");
        let server = Launch::testbed("script", mode)
            .and(&["workers=1"])
            .stderr(writer)
            .start();
        let long = "x".repeat(30_000);
        for _ in 0..5 {
            let mut client = Client::connect(server.address());
            client.send(format!("error {long}\n").as_bytes());
            client.expect_closed();
        }
        let mut lines = BufReader::new(File::from(reader)).lines();
        let mut next = || lines.next().expect("a line").expect("text");
        while !next().contains(&long) {}
        let mut client = Client::connect(server.address());
        client.send(b"error short\n");
        client.expect_closed();
        let begins_well = |line: &str| line.starts_with("20") || line.starts_with('x');
        loop {
            let line = next();
            assert!(begins_well(&line) || line.is_empty(), "{mode}: {line}");
            if line.ends_with("failed: short") {
                break;
            }
        }
    }
}
