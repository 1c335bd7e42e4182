//! `tine lab` from outside: every claim of every experiment holds, in text, JSON, pictures and pages, and no process is
//! left behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::launch::{Ended, Launch};
use crate::common::process::Process;
use crate::common::server::Running;
use crate::common::sockets::await_room_for_time_wait;
use crate::common::{SOON, eventually, eventually_some};
use crate::ladders::{self, Figure, Moment};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The prompt of `--pause`.
const PAUSE: &str = "Press Enter to go on";

/// `CAP_NET_ADMIN`: on newer kernels, needed to make a socket drop segments.
const CAP_NET_ADMIN: libc::c_ulong = 12;

/// `CAP_NET_RAW`: needed to capture packets, and to send copies of them.
const CAP_NET_RAW: libc::c_ulong = 13;

/// `CAP_SYS_ADMIN`: needed to make a network namespace.
const CAP_SYS_ADMIN: libc::c_ulong = 21;

/// Makes a test for each experiment: its name, and the number of its pictures.
macro_rules! experiments {
    ($($test:ident: $name:literal, $pictures:literal;)*) => {
        const EXPERIMENTS: &[(&str, usize)] = &[$(($name, $pictures)),*];

        $(#[test]
        fn $test() {
            holds($name, $pictures);
        })*
    };
}

/// Makes a test for each experiment with ladders, without the right to capture packets.
macro_rules! inferred {
    ($($test:ident: $name:literal;)*) => {
        mod inferred {
            $(#[test]
            fn $test() {
                super::holds_without(&[super::CAP_NET_RAW, super::CAP_NET_ADMIN], $name);
            })*
        }
    };
}

experiments! {
    four_way: "four-way", 2;
    callbacks: "callbacks", 0;
    close_wait_blocked: "close-wait-blocked", 3;
    close_wait_receive: "close-wait-receive", 3;
    close_wait_crashed: "close-wait-crashed", 2;
    base_crashed: "base-crashed", 3;
    backlog: "backlog", 2;
    time_wait: "time-wait", 3;
    last_ack: "last-ack", 2;
    late_segment: "late-segment", 2;
    ports_exhausted: "ports-exhausted", 1;
    addr_in_use: "addr-in-use", 1;
    half_close: "half-close", 5;
    reset: "reset", 6;
    leak_reuse: "leak-reuse", 1;
    vanished: "vanished", 1;
    reuseport_reload: "reuseport-reload", 1;
}

inferred! {
    four_way: "four-way";
    close_wait_blocked: "close-wait-blocked";
    close_wait_receive: "close-wait-receive";
    close_wait_crashed: "close-wait-crashed";
    base_crashed: "base-crashed";
    time_wait: "time-wait";
    addr_in_use: "addr-in-use";
    half_close: "half-close";
    reset: "reset";
    leak_reuse: "leak-reuse";
    vanished: "vanished";
    reuseport_reload: "reuseport-reload";
}

#[test]
fn a_close_is_shown_with_each_of_two_rights_alone() {
    holds_without(&[CAP_NET_RAW], "four-way");
    holds_without(&[CAP_NET_ADMIN], "four-way");
}

#[test]
fn what_cannot_be_shown_without_a_right_is_said() {
    let has = |lesson: &Value, words: &str| {
        let text = findings(lesson, "meaning");
        let found = text
            .iter()
            .filter_map(Value::as_str)
            .any(|it| it.contains(words));
        assert!(found, "{words}: {text:#?}");
    };
    let lesson = shows_without(&[CAP_NET_RAW, CAP_NET_ADMIN], "last-ack", Some(1));
    has(&lesson, "demands CAP_NET_ADMIN");
    holds_without(&[CAP_NET_RAW], "last-ack");
    let lesson = shows_without(&[CAP_SYS_ADMIN], "vanished", Some(1));
    has(&lesson, "takes CAP_SYS_ADMIN");
    for right in [CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW] {
        let ended = Launch::tine(&["lab", "late-segment", "--json"])
            .without(right)
            .run();
        let lesson = json(succeeded(&ended));
        assert_eq!(lesson["pictures"], serde_json::json!([]), "{right}");
        has(&lesson, "There is no picture of a late segment here");
    }
}

/// Returns the output of a run that succeeded, and shows its status and errors if it did not.
#[track_caller]
fn succeeded(ended: &Ended) -> &str {
    assert!(ended.status.success(), "{ended:#?}");
    assert_eq!(ended.stderr, "", "{ended:#?}");
    &ended.stdout
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Returns all findings of one kind in a lesson: `check`, `sockets`, …
fn findings(lesson: &Value, kind: &str) -> Vec<Value> {
    let steps = lesson["steps"].as_array().expect("steps");
    let findings = steps
        .iter()
        .flat_map(|step| step["findings"].as_array().expect("findings"));
    findings
        .filter_map(|finding| finding.get(kind).cloned())
        .collect()
}

fn holds(name: &str, pictures: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let (svg, html) = (folder.path().join("it.svg"), folder.path().join("it.html"));
    let files = ["--svg", path(&svg), "--html", path(&html)];
    await_room_for_time_wait();
    let ended = Launch::tine(&["lab", name, "--json"]).and(&files).run();
    let lesson = json(succeeded(&ended));
    assert_eq!(lesson["name"], name);
    assert_eq!(lesson["held"], true);
    has_pictures(&lesson, Some(pictures));
    let checks = findings(&lesson, "check");
    assert!(checks.len() >= 3, "{checks:#?}");
    assert!(
        checks.iter().all(|check| check["held"] == true),
        "{checks:#?}"
    );
    assert!(!findings(&lesson, "meaning").is_empty());
    assert!(!lesson["advice"].as_array().expect("advice").is_empty());
    for row in findings(&lesson, "sockets")
        .iter()
        .flat_map(|rows| rows.as_array().expect("rows"))
    {
        assert!(
            row["state"].is_string() && row["local"].is_string(),
            "{row}"
        );
    }

    let svg = fs::read_to_string(&svg).expect("a picture");
    assert!(
        svg.starts_with("<svg") || svg.starts_with("<?xml"),
        "{svg:.100}"
    );
    figures_are_true(&lesson, &svg);
    let drawn = svg.matches("<svg").count();
    assert!(drawn >= pictures, "{drawn} pictures");
    let html = fs::read_to_string(&html).expect("a page");
    let question = lesson["question"].as_str().expect("question");
    let words: Vec<&str> = question.split_ascii_whitespace().take(4).collect();
    assert!(
        html.contains(name) && html.contains(&words.join(" ")),
        "{html:.2000}"
    );
    assert_eq!(html.matches("<svg").count(), pictures);
    for outside in [
        "http-equiv",
        "src=\"http",
        "href=\"http",
        "@import",
        "url(http",
    ] {
        assert!(!html.contains(outside), "the page needs {outside}");
    }
}

/// Checks the number of pictures. The lesson says why there is one less.
#[track_caller]
fn has_pictures(lesson: &Value, count: Option<usize>) {
    let why: Vec<Value> = findings(lesson, "meaning")
        .into_iter()
        .filter(|meaning| {
            meaning
                .as_str()
                .is_some_and(|it| it.starts_with("There is no picture"))
        })
        .collect();
    let pictures = lesson["pictures"].as_array().map(Vec::len);
    assert_eq!(pictures, count, "{why:#?}");
}

/// Holds every figure against the rules of TCP, the drawing against the figure, and its states against the tables.
#[track_caller]
fn figures_are_true(lesson: &Value, svg: &str) {
    for figure in ladders::figures(lesson) {
        let title = &figure.title;
        let checked = ladders::check(&figure);
        assert_eq!(checked, Ok(()), "{title}: {figure:#?}");
        assert_eq!(ladders::drawn(svg, title), figure.drawn(), "{title}");
        for number in 0..figure.moments.len() {
            without_a_cause(&figure, number);
        }
    }
    let tables = findings(lesson, "sockets");
    for ladder in lesson["pictures"].as_array().into_iter().flatten() {
        let Some(ladder) = ladder.get("ladder") else {
            continue;
        };
        for (side, name) in ["client", "server"].into_iter().enumerate() {
            let of = |side: usize| ladder["sides"][side][1].as_str().expect("an address");
            let rows = tables
                .iter()
                .flat_map(|rows| rows.as_array().expect("rows"));
            let own = rows.filter(|row| row["local"] == of(side) && row["remote"] == of(1 - side));
            let shown = ladder["shown"].as_array().expect("states");
            for row in own {
                let is_shown = |it: &&Value| it["side"] == name && it["state"] == row["state"];
                assert!(
                    shown.iter().any(|it| is_shown(&it)),
                    "{name} {row}: {shown:#?}"
                );
            }
        }
    }
}

/// A figure without one of its changes of state, or without the segment that causes one, breaks a rule.
#[track_caller]
fn without_a_cause(figure: &Figure, number: usize) {
    let is_turned = |moment: Option<&Moment>| matches!(moment, Some(Moment::Turned { .. }));
    let next = figure.moments.get(number + 1);
    let is_cause = matches!(next, Some(Moment::Turned { cause, .. }) if cause == "segment");
    let left_out = &figure.moments[number];
    if is_turned(Some(left_out)) || (is_cause && matches!(left_out, Moment::Sent(..))) {
        let mut broken = figure.clone();
        broken.moments.remove(number);
        let found = ladders::check(&broken);
        assert!(found.is_err(), "without {number}: {figure:#?}");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

#[test]
fn every_experiment_is_listed_and_tested_here() {
    let listed = Launch::tine(&["lab"]).run();
    let listed = succeeded(&listed);
    let as_json = Launch::tine(&["lab", "--json"]).run();
    let as_json = json(succeeded(&as_json));
    let names: Vec<&str> = as_json
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["name"].as_str())
        .collect();
    let expected: Vec<&str> = EXPERIMENTS.iter().map(|it| it.0).collect();
    assert_eq!(names, expected);
    for name in expected {
        assert!(
            listed.lines().any(|line| line.starts_with(name)),
            "{name} in {listed}"
        );
    }
}

#[test]
fn a_lesson_is_plain_in_a_pipe_and_coloured_where_that_is_forced() {
    let plain = Launch::tine(&["lab", "four-way"]).run();
    let plain = succeeded(&plain);
    assert!(!plain.contains('\u{1b}'), "{plain}");
    for word in [
        "1. ",
        "CLOSE_WAIT",
        "Recv-Q",
        "client[",
        "server[",
        "ends in",
        "What to do about it",
    ] {
        assert!(plain.contains(word), "{word} in {plain}");
    }
    let longest = plain.lines().map(|line| line.chars().count()).max();
    assert!(longest < Some(130), "{longest:?}");
    let coloured = Launch::tine(&["lab", "four-way"])
        .env("CLICOLOR_FORCE", "1")
        .run();
    assert!(succeeded(&coloured).contains('\u{1b}'));
}

#[test]
fn a_pause_waits_for_enter_and_goes_on_at_the_end_of_the_input() {
    let ended = Launch::tine(&["lab", "four-way", "--pause"]).run();
    let text = succeeded(&ended);
    let steps = text
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .count();
    assert_eq!(text.matches(PAUSE).count(), steps, "{text}");
    let script = "{ sleep 1; echo; } | \"$0\" lab four-way --pause";
    let ended = Launch::tine(&[]).through(&["bash", "-c", script]).run();
    assert_eq!(succeeded(&ended).matches(PAUSE).count(), steps);
}

/// Runs an experiment without these rights, and checks its figures, of which there are as many as with them.
fn holds_without(capabilities: &[libc::c_ulong], name: &str) {
    let pictures = EXPERIMENTS.iter().find(|it| it.0 == name).map(|it| it.1);
    shows_without(capabilities, name, pictures);
}

/// Returns the lesson, with that number of pictures.
fn shows_without(capabilities: &[libc::c_ulong], name: &str, pictures: Option<usize>) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let svg = folder.path().join("it.svg");
    let mut launch = Launch::tine(&["lab", name, "--json", "--svg", path(&svg)]);
    for capability in capabilities {
        launch = launch.without(*capability);
    }
    await_room_for_time_wait();
    let ended = launch.run();
    let lesson = json(succeeded(&ended));
    let svg = fs::read_to_string(&svg).expect("a picture");
    assert_eq!(
        svg.contains("inferred"),
        capabilities.contains(&CAP_NET_RAW),
        "{svg}"
    );
    figures_are_true(&lesson, &svg);
    has_pictures(&lesson, pictures);
    lesson
}

#[test]
fn a_wrong_command_line_is_one_line_of_error_and_runs_nothing() {
    for (arguments, said) in [
        (&["lab", "four-wheels"][..], "no experiment \"four-wheels\""),
        (
            &["lab", "four-way", "--svg", "/nowhere/it.svg"],
            "cannot write /nowhere/it.svg",
        ),
        (&["lab", "four-way", "--html", "/"], "cannot write /"),
        (&["lab", "four-way", "--slow", "soon"], "soon"),
        (&["lab", "--pause"], "NAME"),
    ] {
        let ended = Launch::tine(arguments).run();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:#?}");
        assert!(ended.stderr.contains(said), "{arguments:?}: {ended:#?}");
        assert_eq!(ended.stdout, "", "{arguments:?}: {ended:#?}");
    }
}

#[test]
fn an_existing_file_is_replaced_only_by_a_complete_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("it.html");
    for signals in [1, 2] {
        fs::write(&page, "old").expect("a file");
        // The second experiment is the first with a server: when that runs, one experiment is complete.
        let mut lab = begun(&["lab", "all", "--html", path(&page)]);
        for _ in 1..signals {
            process(&lab).signal(Signal::SIGINT);
        }
        ended_by(&mut lab, Signal::SIGINT, Some(130));
        assert_eq!(fs::read_to_string(&page).expect("the file"), "old");
        let left = fs::read_dir(folder.path()).expect("the folder").flatten();
        let names: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["it.html"]);
    }
}

#[test]
fn an_experiment_that_is_interrupted_leaves_no_process() {
    for (name, signal, status) in [
        ("backlog", Signal::SIGINT, Some(130)),
        ("close-wait-blocked", Signal::SIGTERM, Some(130)),
        ("reuseport-reload", Signal::SIGHUP, Some(130)),
        ("backlog", Signal::SIGKILL, None),
    ] {
        let mut lab = begun(&["lab", name, "--pause"]);
        ended_by(&mut lab, signal, status);
    }
}

#[test]
fn a_kernel_that_behaves_otherwise_is_reported_and_is_the_exit_status() {
    // In place of such a kernel: SO_REUSEADDR has no effect.
    let folder = tempfile::tempdir().expect("a folder");
    let (source, shim) = (folder.path().join("shim.c"), folder.path().join("shim.so"));
    let text = "#define _GNU_SOURCE\n#include <sys/socket.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
                int setsockopt(int fd, int level, int name, const void *value, socklen_t size) {\n\
                  if (level == SOL_SOCKET && name == SO_REUSEADDR) return 0;\n\
                  return (int) syscall(SYS_setsockopt, fd, level, name, value, size);\n}\n";
    fs::write(&source, text).expect("a file");
    let cc = ["-shared", "-fPIC", "-o", path(&shim), path(&source)];
    let built = Command::new("cc").args(cc).status().expect("a C compiler");
    assert!(built.success());
    for arguments in [
        &["lab", "addr-in-use"][..],
        &["lab", "addr-in-use", "--json"],
    ] {
        let ended = Launch::tine(arguments).env("LD_PRELOAD", path(&shim)).run();
        assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
        assert!(
            ended
                .stderr
                .contains("addr-in-use: the kernel did not behave as the lesson says"),
            "{ended:#?}"
        );
        let words = ["FAILED", "\"held\": false"];
        assert!(
            words.iter().any(|words| ended.stdout.contains(words)),
            "{ended:#?}"
        );
    }
}

#[test]
fn lines_that_arrive_together_are_an_enter_each() {
    // The input stays open, so that the end of the input ends no pause.
    let script = "{ printf '\\n%.0s' {1..40}; sleep 60; } | \"$0\" lab addr-in-use --pause";
    let mut lab = Launch::tine(&[]).through(&["bash", "-c", script]).spawn();
    eventually(SOON, "the experiment ends", || {
        lab.stdout.text().contains("What to do about it")
    });
    process(&lab).signal(Signal::SIGKILL);
    eventually_some(SOON, "the lab ends", || lab.try_wait());
}

#[test]
fn an_output_that_can_not_be_written_ends_an_experiment() {
    let script = "\"$0\" lab backlog > /dev/full 2> /dev/full; exit $?";
    let ended = Launch::tine(&[]).through(&["bash", "-c", script]).run();
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    let ended = Launch::tine(&["lab", "nothing"])
        .through(&["bash", "-c", "\"$0\" \"$@\" 2> /dev/full"])
        .run();
    assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_error() {
    let script = "\"$0\" lab four-way | head -n 1; exit ${PIPESTATUS[0]}";
    let ended = Launch::tine(&[]).through(&["bash", "-c", script]).run();
    assert!(ended.status.success(), "{ended:#?}");
    assert!(ended.stdout.starts_with("four-way"), "{ended:#?}");
    assert_eq!(ended.stderr, "", "{ended:#?}");
}

#[track_caller]
fn process(of: &Running) -> Process {
    Process::child(of.pid())
}

/// Starts the lab, and waits until it has a server.
#[track_caller]
fn begun(arguments: &[&str]) -> Running {
    let lab = Launch::tine(arguments).spawn();
    eventually(SOON, "a server was started", || {
        process(&lab).descendants().len() >= 2
    });
    lab
}

/// Ends the lab by that signal, and checks that its servers end with it.
#[track_caller]
fn ended_by(lab: &mut Running, signal: Signal, status: Option<i32>) {
    let process = process(lab);
    let servers = process.descendants();
    process.signal(signal);
    let ended = eventually_some(SOON, "the lab ends", || lab.try_wait());
    assert_eq!(ended.code(), status, "{signal}");
    eventually(SOON, "its servers are gone", || {
        !servers.iter().any(|server| server.is_running())
    });
}
