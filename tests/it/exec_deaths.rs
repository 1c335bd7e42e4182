//! `tine serve --exec`: a program that does not do its part is a dead worker.

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::{SOON, eventually};
use crate::exec::{exec, program, shell};

/// Has a program answer one line, and checks that its worker dies in it, for a reason that the log names once.
#[track_caller]
fn dies(command: &str, flags: &[&str], words: &str) {
    let sorry = ["--on-crash", r"reply=sorry\n"];
    let server = exec(command, flags).and(&sorry).start();
    let worker = server.workers();
    let mut client = Client::connect(server.address());
    client.send(b"question\n");
    assert_eq!(client.read_line(), "sorry", "{command}");
    client.expect_closed();
    let place = "in `receive`, message 0 of connection 0:";
    let lines = server.logged(
        1,
        &["program[pid=", words, place, "its worker ends with it"],
    );
    assert_eq!(lines.len(), 1, "{lines:?}");
    server.logged(1, &["abnormal exit, status=1, signal=0"]);
    server.new_workers(1, &worker);
}

#[test]
fn a_program_that_ends_is_a_dead_worker() {
    for (script, words) in [
        ("read -r line; exit 3", "exited with status 3"),
        ("read -r line; exit 0", "exited with status 0"),
        (
            "read -r line; kill -9 $$",
            "was killed by signal 9 (SIGKILL)",
        ),
        // A part of an answer is none.
        ("read -r line; printf half; exit 1", "exited with status 1"),
        (
            "read -r line; exec >&-; exec sleep 1000",
            "has closed its standard output",
        ),
        ("exec <&-; exec sleep 1000", "has closed its standard input"),
        // Another process has its output.
        ("read -r line; sleep 1000 & exit 4", "exited with status 4"),
    ] {
        dies(&shell(script), &[], words);
    }
}

#[test]
fn a_program_that_writes_rubbish_is_a_dead_worker() {
    let two = shell("while read -r line; do printf \"one\\ntwo\\n\"; done");
    dies(&two, &[], r#"has written more than an answer: "two\n""#);
    let long = shell("read -r line; head -c 300000 /dev/zero; sleep 1000");
    let limit = ["--output-limit", "131072", "--output-high-water", "65536"];
    dies(&long, &limit, "a line or frame of more than 131072 bytes");
    let frames = ["--exec-format", "frames"];
    dies("cat", &frames, "has written no frame");
    let many = shell("read -r line; while :; do printf \"send 8\\n12345678\"; done");
    dies(
        &many,
        &[&frames[..], &limit].concat(),
        "too long an answer: one callback may send",
    );
    let late = shell("read -r line; printf \"close\\nsend 1\\nxdone\\n\"; cat");
    dies(&late, &frames, "more to a connection that it has closed");
    dies(
        "cat",
        &["--exec-format", "json"],
        "no answer in JSON (unknown field `event`",
    );
}

#[test]
fn a_program_that_hangs_over_the_limit_is_a_dead_worker() {
    let flags = ["--callback-limit", "0.3", "--on-limit", "kill"];
    let sorry = ["--on-crash", r"reply=sorry\n"];
    let server = exec("sleep 1000", &flags).and(&sorry).start();
    let hung = program(&server);
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("question"), "sorry");
    eventually(SOON, "the program has died with its worker", || {
        !hung.is_running()
    });
    server.logged(1, &["in receive of", "callback_limit is 0.3 s: killed"]);
}

#[test]
fn a_message_in_which_a_program_dies_is_redelivered() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mark = folder.path().join("mark");
    let mark = mark.display();
    let script =
        format!("read -r line; mkdir {mark} && exit 1; echo \"$line again\"; read -r line");
    let server = exec(&shell(&script), &["--on-crash", "redeliver"]).start();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("question"), "question again");
}

#[test]
fn the_death_of_an_idle_program_costs_nobody_anything() {
    for mode in ["process", "base"] {
        let server = exec("cat", &["--mode", mode]).start();
        let mut client = Client::connect(server.address());
        client.echo(b"before\n");
        let (old, worker) = (program(&server), server.workers());
        old.signal(Signal::SIGKILL);
        server.logged(
            1,
            &["was killed by signal 9 (SIGKILL), while it was asked nothing"],
        );
        server.new_workers(1, &worker);
        // The connections of a base mode worker end with it.
        if mode == "base" {
            client = Client::connect(server.address());
        }
        client.echo(b"after\n");
    }
}

#[test]
fn a_program_that_writes_unasked_is_a_dead_worker() {
    let script = "read -r line; echo answer; sleep 2; echo unasked; cat";
    let server = exec(&shell(script), &[]).start();
    let worker = server.workers();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("question"), "answer");
    server.logged(
        1,
        &[r#"has written without being asked: "unasked\n", while"#],
    );
    server.new_workers(1, &worker);
    assert_eq!(client.ask("question"), "answer");
}

#[test]
fn a_program_dies_with_its_worker_however_that_dies() {
    let server = exec("sleep 1000", &[]).start();
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let (program, worker) = (program(&server), server.workers());
        worker[0].signal(signal);
        eventually(SOON, "the program has ended", || !program.is_running());
        server.new_workers(1, &worker);
    }
    let (program, mut server) = (program(&server), server);
    server.master().signal(Signal::SIGKILL);
    eventually(SOON, "the server has ended", || server.has_ended());
    eventually(SOON, "the program has ended", || !program.is_running());
}

#[test]
fn what_a_program_has_started_ends_when_its_worker_ends_it() {
    let script = "sleep 1000 & read -r line; exec sleep 1000";
    let mut server = exec(&shell(script), &["--shutdown-deadline", "2"]).start();
    let program = program(&server);
    eventually(SOON, "it has started another", || {
        program.group().len() == 2
    });
    server.signal(Signal::SIGTERM);
    assert!(server.ended(SOON).success());
    eventually(SOON, "both have ended", || program.group().is_empty());
}
