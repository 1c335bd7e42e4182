//! `tine serve --config`: the file, its mistakes, and what SIGHUP does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::{SOON, eventually};

const MODES: [&str; 2] = ["process", "base"];

/// A file, and its path for a command line.
fn file(folder: &Path, text: &str) -> String {
    let path = folder.join("tine.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_server_is_as_its_file_says_and_flags_override_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "workers = 3\nreactors = 1\nname = \"from-file\"\n[[listen]]\ntcp = \"127.0.0.1:0\"\nprotocol = \"lines\"\n";
    let path = file(folder.path(), text);
    let server = Launch::configured(&path).and(&["--workers", "2"]).start();
    assert_eq!(server.workers().len(), 2);
    Client::connect(server.address()).echo(b"a line\n");
    let title = fs::read_to_string(format!("/proc/{}/cmdline", server.master().pid)).unwrap();
    assert!(title.starts_with("tine[from-file] master"), "{title}");
}

#[test]
fn a_mistake_is_told_with_its_line_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    for (text, words) in [
        (
            "workers = 2\nwrokers = 3\n",
            ":2: there is no setting \"wrokers\": \"workers\"",
        ),
        (
            "\nworkers = 100000\n",
            ":2: setting workers: 100000 is not between 1 and 511",
        ),
        ("workers = \"two\"\n", ":1: invalid type"),
    ] {
        let path = file(folder.path(), text);
        for flags in [&["--check"][..], &["--print-config"], &[]] {
            let ended = Launch::tine(&["serve", "--config", &path]).and(flags).run();
            assert_eq!(ended.status.code(), Some(2), "{text}");
            assert!(ended.stderr.contains(words), "{text}: {}", ended.stderr);
            assert_eq!(ended.stdout, "");
        }
    }
}

#[test]
fn check_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "workers = 2\n");
    let ended = Launch::tine(&["serve", "--check", "--config", &path]).run();
    assert_eq!(
        (ended.status.code(), ended.stdout.as_str()),
        (Some(0), format!("{path} is right").as_str())
    );
    let ended = Launch::tine(&["serve", "--check", "--mode", "base", "--on-crash", "keep"]).run();
    assert_eq!(ended.status.code(), Some(2));
    assert!(
        ended.stderr.contains("setting on_crash"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_printed_settings_are_those_that_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--workers",
        "3",
        "--protocol",
        "lines",
        "--idle",
        "2.5",
        "--fault",
        "close:exit=3@0.5",
        "--log-level",
        "warn",
    ];
    let first = Launch::tine(&["serve", "--print-config"]).and(&flags).run();
    assert_eq!(first.status.code(), Some(0), "{}", first.stderr);
    assert!(first.stdout.contains("workers = 3"), "{}", first.stdout);
    let path = file(folder.path(), &first.stdout);
    let second = Launch::tine(&["serve", "--print-config", "--config", &path]).run();
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn sighup_reads_the_level_again_and_names_what_needs_a_restart() {
    for mode in MODES {
        let folder = tempfile::tempdir().unwrap();
        let listen = "[[listen]]\ntcp = \"127.0.0.1:0\"\n";
        let text = |rest: &str| format!("mode = \"{mode}\"\n{rest}{listen}");
        let path = file(folder.path(), &text("workers = 1\n"));
        let server = Launch::configured(&path).start();
        file(folder.path(), &text("workers = 2\nlog_level = \"debug\"\n"));
        server.signal(Signal::SIGHUP);
        server.logged(1, &["WARNING", "needs a restart: workers"]);
        file(folder.path(), &text("wrokers = 2\n"));
        server.signal(Signal::SIGHUP);
        server.logged(
            1,
            &[
                "ERROR",
                "the settings stay as they were",
                ":2: ",
                "\"workers\"",
            ],
        );
        // The new level is still there: a reload forks a worker, which is ready at that level.
        server.signal(Signal::SIGUSR1);
        server.logged(1, &["DEBUG"]);
        Client::connect(server.address()).echo(b"still there");
    }
}

#[test]
fn sighup_opens_the_log_file_again_in_every_process() {
    for mode in MODES {
        let folder = tempfile::tempdir().unwrap();
        let (log, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let server = Launch::serve(&["--mode", mode, "--workers", "1", "--log-callbacks"])
            .and(&["--log-file", log.to_str().unwrap(), "--log-format", "json"])
            .start();
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        eventually(SOON, "the log has a line of the worker", || {
            text(&log).contains("\"role\":\"worker#0\"")
        });
        fs::rename(&log, &old).unwrap();
        server.signal(Signal::SIGHUP);
        eventually(SOON, "the log is made again", || log.exists());
        Client::connect(server.address()).echo(b"hello");
        eventually(SOON, "the worker logs there too", || {
            text(&log).contains("\"role\":\"worker#0\"")
        });
        for line in text(&log).lines().chain(text(&old).lines()) {
            let read: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(
                read["message"].is_string() && read["pid"].is_u64(),
                "{line}"
            );
        }
        assert_eq!(server.log().text(), "", "nothing goes to standard error");
    }
}

#[test]
fn a_log_file_that_cannot_be_opened_is_told_at_the_start() {
    let ended = Launch::serve(&["--log-file", "/nonexistent/tine.log"]).run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended
            .stderr
            .contains("cannot open the log file /nonexistent/tine.log"),
        "{}",
        ended.stderr
    );
}

#[test]
fn lines_for_the_journal_begin_with_their_priority() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stream");
    let stream = fs::File::create(&path).unwrap();
    let named = stream.metadata().unwrap();
    let named = format!("{}:{}", named.dev(), named.ino());
    for (name, is_journal) in [(named.as_str(), true), ("1:2", false)] {
        let before = fs::read_to_string(&path).unwrap().len();
        let server = Launch::serve(&["--workers", "1", "--log-callbacks"])
            .env("JOURNAL_STREAM", name)
            .stderr(stream.try_clone().unwrap())
            .start();
        let text = || fs::read_to_string(&path).unwrap()[before..].to_owned();
        eventually(SOON, "a line is there", || text().contains("worker_start"));
        drop(server);
        let begins = |line: &str| line.starts_with("<6>") || line.starts_with("<4>");
        assert!(
            text().lines().all(|line| begins(line) == is_journal),
            "{}",
            text()
        );
    }
}
