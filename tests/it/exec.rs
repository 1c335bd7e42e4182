//! `tine serve --exec`: programs that answer, from their start to their end.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use procfs::process::FDTarget;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::{SOON, eventually, eventually_some};

/// `tine serve` with this program, for lines and with one worker unless the flags say otherwise.
pub(crate) fn exec(command: &str, flags: &[&str]) -> Launch {
    let mut launch = Launch::serve(&["--exec", command]).and(flags);
    for (flag, value) in [("--workers", "1"), ("--protocol", "lines")] {
        if !flags.contains(&flag) {
            launch = launch.and(&[flag, value]);
        }
    }
    launch
}

/// A shell that runs this script.
pub(crate) fn shell(script: &str) -> String {
    assert!(!script.contains('\''), "{script}");
    format!("sh -c '{script}'")
}

/// Returns the programs of the workers.
#[track_caller]
pub(crate) fn programs(server: &Server) -> Vec<Process> {
    let of_worker = |worker: Process| worker.children();
    server.workers().into_iter().flat_map(of_worker).collect()
}

/// Returns the one program of a server with one worker.
#[track_caller]
pub(crate) fn program(server: &Server) -> Process {
    eventually_some(SOON, "a program runs", || programs(server).first().copied())
}

/// A script that answers each line with a word, in a folder of its own.
struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    fn new(body: &str) -> Self {
        let script = Self {
            folder: tempfile::tempdir().expect("a folder can be made"),
        };
        script.write(body);
        script
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("script")
    }

    fn write(&self, body: &str) {
        fs::write(self.path(), body).expect("a file can be written");
    }

    fn command(&self) -> String {
        format!("sh {}", self.path().display())
    }
}

const ANSWERS_OLD: &str = "while read -r line; do echo old; done";
const ANSWERS_NEW: &str = "while read -r line; do echo new; done";

#[test]
fn each_worker_has_a_program_that_answers_its_lines_in_both_modes() {
    let script = shell("while read -r line; do echo \"$$ $line\"; done");
    for mode in ["process", "base"] {
        let server = exec(&script, &["--mode", mode, "--workers", "2"]).start();
        eventually(SOON, "two programs run", || programs(&server).len() == 2);
        let pids: Vec<String> = programs(&server)
            .iter()
            .map(|it| it.pid.to_string())
            .collect();
        for _ in 0..4 {
            let mut client = Client::connect(server.address());
            client.send(b"a\nb c\r\n");
            let (first, second) = (client.read_line(), client.read_line());
            let (pid, answer) = first.split_once(' ').expect("a pid and a line");
            assert!(pids.contains(&pid.to_owned()), "{mode}: {first}");
            assert_eq!((answer, second), ("a", format!("{pid} b c")), "{mode}");
        }
    }
}

#[test]
fn a_program_may_answer_before_it_has_read_the_whole_question() {
    // More than two pipes hold. cat writes while it reads.
    let server = exec("cat", &[]).start();
    let mut line = vec![b'x'; 4 << 20];
    line.push(b'\n');
    let mut client = Client::connect(server.address());
    for _ in 0..3 {
        client.echo(&line);
    }
    client.echo(b"short\n");
}

#[test]
fn a_program_gets_nothing_of_the_server() {
    // Two descriptors that the server inherits, a signal that is ignored, and one that is blocked by the server.
    let wrapper = "trap \"\" HUP USR2; exec 7</dev/null 8<>/dev/null; exec \"$@\"";
    let server = exec("cat", &[])
        .through(&["sh", "-c", wrapper, "sh"])
        .start();
    let program = program(&server);
    eventually(SOON, "the program is cat", || program.name() == "cat");
    let proc = procfs::process::Process::new(program.pid).expect("it runs");
    let fds = proc.fd().expect("they can be listed").map(|fd| fd.unwrap());
    let mut numbers: Vec<i32> = fds
        .map(|fd| {
            assert!(matches!(fd.target, FDTarget::Pipe(_)), "{fd:?}");
            fd.fd
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    let status = proc.status().expect("it runs");
    // Bit N is signal N + 1. The C library keeps 32 and 33 for itself.
    let own = 0x1_8000_0000;
    assert_eq!((status.sigblk, status.sigign & !own), (0, 0));
    let stat = proc.stat().expect("it runs");
    assert_eq!((stat.pgrp, stat.session), (program.pid, program.pid));
}

#[test]
fn a_reload_starts_the_new_program() {
    let script = Script::new(ANSWERS_OLD);
    let server = exec(&script.command(), &[]).start();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("x"), "old");
    let old = program(&server);
    script.write(ANSWERS_NEW);
    server.signal(Signal::SIGUSR1);
    server.logged(1, &["reload finished"]);
    assert_eq!(client.ask("x"), "new");
    eventually(SOON, "the old program has left", || !old.is_running());
}

#[test]
fn a_reload_keeps_the_old_program_if_the_new_one_does_not_start() {
    let script = Script::new("while read -r line; do echo done; done");
    let flags = ["--exec-format", "frames", "--exec-events", "start"];
    let server = exec(&script.command(), &flags).start();
    let old = program(&server);
    // It lives for longer than a program that does not start without being asked.
    script.write("read -r line; sleep 0.3; echo nonsense; cat");
    server.signal(Signal::SIGUSR1);
    server.logged(1, &["no frame", "nonsense", "in `start`"]);
    server.logged(1, &["reload", "old"]);
    assert!(old.is_running() && program(&server) == old);
}

#[test]
fn a_program_is_told_of_connections_in_json_if_it_asks_for_that() {
    let talk = example("python3", "talk.py");
    let flags = ["--exec-format", "json"];
    let events = ["--exec-events", "start,connect,close"];
    let server = exec(&talk, &flags).and(&events).start();
    let mut client = Client::connect(server.address());
    assert_eq!(client.read_line(), format!("welcome, {}", client.local));
    client.send("é\u{1f600}\n\"\\\n".as_bytes());
    client.expect("0: é\u{1f600}\n1: \"\\\n".as_bytes());
    let mut other = Client::connect(server.address());
    assert_eq!(other.read_line(), format!("welcome, {}", other.local));
    other.send(b"\xff\n");
    other.expect(b"this is no text\n");
    other.expect_closed();
    server.logged(1, &["program[pid=", "is gone: handler"]);
    client.send(b"quit\n");
    client.expect(b"bye\n");
    client.expect_closed();
    let third = Client::connect(server.address());
    third.half_close();
    server.logged(1, &["program[pid=", "is gone: peer"]);
}

/// Returns the command that runs an example.
pub(crate) fn example(interpreter: &str, name: &str) -> String {
    let path = crate::common::root().join("examples/exec").join(name);
    format!("{interpreter} {}", path.display())
}

#[test]
fn a_program_leaves_at_the_end_of_its_input() {
    let script = "while read -r line; do echo x; done; echo it leaves >&2";
    let mut server = exec(&shell(script), &[]).start();
    let program = program(&server);
    server.signal(Signal::SIGTERM);
    assert!(server.ended(SOON).success());
    assert!(!program.is_running());
    let log = server.whole_log();
    assert_eq!(log.with(&["it leaves"]).len(), 1, "{}", log.text());
    assert!(log.with(&["abnormal"]).is_empty(), "{}", log.text());
}

#[test]
fn a_program_that_stays_gets_sigterm_and_then_sigkill() {
    let says = shell("trap \"echo asked to leave >&2; exit\" TERM; while :; do sleep 0.01; done");
    let ignores = shell("trap \"\" TERM; while :; do sleep 0.01; done");
    for (script, lines) in [(says, 1), (ignores, 0)] {
        let mut server = exec(&script, &["--shutdown-deadline", "2"]).start();
        let program = program(&server);
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success());
        eventually(SOON, "the program has ended", || !program.is_running());
        let log = server.whole_log();
        assert_eq!(log.with(&["has not left"]).len(), 1, "{}", log.text());
        assert_eq!(log.with(&["asked to leave"]).len(), lines, "{}", log.text());
    }
}

#[test]
fn what_a_program_writes_to_standard_error_is_logged_and_keeps_nobody_waiting() {
    // More than a pipe holds; then a long line, one with a control character, and one without an end.
    let script = "read -r line; for i in 1 2 3; do head -c 100000 /dev/zero | tr \"\\000\" x >&2; done; echo >&2; \
                  printf \"a\\033[2Jb\\nunfinished\" >&2; echo answer; read -r line";
    let mut server = exec(&shell(script), &[]).start();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("x"), "answer");
    // Some are dropped if the reader of the log is slow: nobody waits for it.
    server.logged(10, &["program[pid=", "xxxxxxxx"]);
    server.logged(1, &["a\\u{1b}[2Jb"]);
    server.signal(Signal::SIGTERM);
    assert!(server.ended(SOON).success());
    let log = server.whole_log();
    assert_eq!(log.with(&["unfinished"]).len(), 1, "{}", log.text());
}

#[test]
fn what_cannot_work_is_refused_before_the_server_starts() {
    for (flags, words) in [
        (&["--exec", "no-such-program"][..], "command not found"),
        (&["--exec", "sh -c \"x"], "a quote is not closed"),
        (
            &["--exec", "cat", "--handler", "copy"],
            "cannot be used with",
        ),
        (
            &["--exec", "cat", "--exec-format", "lines"],
            "needs --protocol lines",
        ),
        (
            &[
                "--exec",
                "cat",
                "--protocol",
                "lines",
                "--exec-events",
                "close",
            ],
            "needs --exec-format frames or json",
        ),
        (&["--exec-events", "close"], "--exec <COMMAND>"),
    ] {
        let ended = Launch::serve(flags).run();
        assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
        assert!(ended.stderr.contains(words), "{ended:#?}");
        assert_eq!(ended.stdout, "");
    }
    assert!(Path::new("/bin/sh").exists());
    let ended = exec("sh /no/such/script", &[]).run();
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    for words in ["/no/such/script", "exited with status", "at its start"] {
        assert!(ended.stderr.contains(words), "{words}: {ended:#?}");
    }
}
