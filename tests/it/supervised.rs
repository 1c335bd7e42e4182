//! A supervisor that listens as systemd does, sd_notify(3): it is told when the server is ready, reloads and stops, and
//! that it is well for as long as all its parts are.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::launch::{Launch, PROGRAM as PROGRAM_OF_TINE};
use crate::common::make::files;
use crate::common::server::Server;
use crate::common::{SOON, eventually, eventually_some, keeps, root};

const MODES: [&str; 2] = ["process", "base"];

struct Supervisor {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Supervisor {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a time");
        Self { socket, folder }
    }

    fn start(&self, mode: &str, environment: &[(&str, &str)]) -> Server {
        let path = self.folder.path().join("notify");
        let flags = ["--mode", mode, "--workers", "2"];
        let launch = Launch::serve(&flags).env("NOTIFY_SOCKET", path.to_str().expect("UTF-8"));
        let with = |launch: Launch, (name, value): &(&str, &str)| launch.env(name, value);
        environment.iter().fold(launch, with).start()
    }

    /// Returns the next message, as its lines.
    #[track_caller]
    fn hears(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let len = self.socket.recv(&mut message).expect("a message");
        let text = std::str::from_utf8(&message[..len]).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    /// Drops the messages that have come.
    fn forgets(&self) {
        self.socket.set_nonblocking(true).expect("a mode");
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        self.socket.set_nonblocking(false).expect("a mode");
    }

    /// Whether a message has come.
    fn has_heard(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a mode");
        let heard = self.socket.recv(&mut [0; 4096]);
        self.socket.set_nonblocking(false).expect("a mode");
        !heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

#[test]
fn it_is_told_of_each_stage() {
    for mode in MODES {
        let supervisor = Supervisor::new();
        let mut server = supervisor.start(mode, &[]);
        let first = match server.is_base() {
            true => server.manager(),
            false => server.master(),
        };
        let pid = format!("MAINPID={}", first.pid);
        let ready = supervisor.hears();
        assert_eq!(ready[..2], ["READY=1", &pid]);
        assert!(ready[2].starts_with(&format!("STATUS=serving ({mode} mode, 2 workers")));
        server.signal(Signal::SIGUSR1);
        let reloading = supervisor.hears();
        assert_eq!(reloading[0], "RELOADING=1");
        assert!(reloading[1].starts_with("MONOTONIC_USEC="));
        assert_eq!(supervisor.hears()[0], "READY=1");
        server.signal(Signal::SIGTERM);
        assert_eq!(supervisor.hears()[0], "STOPPING=1");
        server.ended(SOON);
        assert!(!supervisor.has_heard());
    }
}

#[test]
fn it_is_told_that_the_server_is_well_while_all_of_it_is() {
    for mode in MODES {
        let supervisor = Supervisor::new();
        let server = supervisor.start(mode, &[("WATCHDOG_USEC", "200000")]);
        let is_well = || {
            eventually_some(SOON, "a word", || {
                (supervisor.hears() == ["WATCHDOG=1"]).then_some(())
            });
        };
        (0..5).for_each(|_| is_well());
        if mode == "base" {
            continue;
        }
        // The manager stands still, and the main thread of the master does not.
        server.manager().signal(Signal::SIGSTOP);
        server.logged(1, &["ERROR", "do not answer"]);
        supervisor.forgets();
        keeps(Duration::from_secs(1), "not a word is said", || {
            !supervisor.has_heard()
        });
        server.manager().signal(Signal::SIGCONT);
        (0..5).for_each(|_| is_well());
    }
}

#[test]
fn a_watchdog_for_another_process_is_not_served() {
    let supervisor = Supervisor::new();
    let environment = [("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")];
    let _server = supervisor.start("process", &environment);
    assert_eq!(supervisor.hears()[0], "READY=1");
    keeps(Duration::from_millis(500), "not a word is said", || {
        !supervisor.has_heard()
    });
}

#[test]
fn a_supervisor_that_is_gone_or_does_not_read_changes_nothing() {
    let supervisor = Supervisor::new();
    let server = supervisor.start("process", &[("WATCHDOG_USEC", "1000")]);
    // Its queue is full by now.
    eventually(SOON, "the server serves", || {
        crate::common::client::Client::is_served(server.address())
    });
    drop(supervisor);
    server.signal(Signal::SIGUSR1);
    server.logged(1, &["reload finished"]);
    let gone = Launch::serve(&[])
        .env("NOTIFY_SOCKET", "/nonexistent/notify")
        .start();
    assert!(crate::common::client::Client::is_served(gone.address()));
}

#[test]
fn systemd_takes_the_units() {
    const PROGRAM: &str = "systemd-analyze";
    if Command::new(PROGRAM).arg("--version").output().is_err() {
        eprintln!("left out: {PROGRAM} is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let units = files(&root().join("contrib"));
    assert_eq!(units.len(), 3, "{units:?}");
    for unit in &units {
        let text = fs::read_to_string(root().join("contrib").join(unit)).expect("a unit");
        let installed = "/usr/local/bin/tine";
        assert!(unit.ends_with(".socket") || text.contains(installed));
        let text = text.replace(installed, PROGRAM_OF_TINE);
        fs::write(folder.path().join(unit), text).expect("a copy");
    }
    for unit in &units {
        let verified = Command::new(PROGRAM)
            .args(["verify", "--man=no"])
            .arg(folder.path().join(unit))
            .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()))
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&verified.stderr);
        // What it says of units of this machine names those.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("tine")).collect();
        assert!(
            verified.status.success() && ours.is_empty(),
            "{unit}: {said}"
        );
    }
}
