//! The programs in `examples/exec`, in all their languages.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::exec::{example, exec, programs};

/// Whether this machine has an interpreter; the others are in every system that builds tine.
fn has(interpreter: &str) -> bool {
    let mut command = Command::new(interpreter);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok()
}

#[track_caller]
fn greets(command: &str) {
    for mode in ["process", "base"] {
        let server = exec(command, &["--mode", mode]).start();
        let mut client = Client::connect(server.address());
        // Each before the next is sent: a program that does not flush would not answer.
        for (name, answer) in [
            ("ada", "hello, ada"),
            ("grace hopper\r", "hello, grace hopper"),
            ("", "hello,"),
            ("  \\n $HOME %s ", "hello, \\n $HOME %s"),
        ] {
            assert_eq!(client.ask(name), answer, "{command}");
        }
    }
}

#[test]
fn python_greets() {
    greets(&example("python3", "greet.py"));
}

#[test]
fn perl_greets() {
    greets(&example("perl", "greet.pl"));
}

#[test]
fn a_shell_greets() {
    greets(&example("sh", "greet.sh"));
}

#[test]
fn awk_greets() {
    let version = Command::new("awk").args(["-W", "version"]).output();
    let version = version.expect("awk is in every system");
    let awk = match version.stdout.starts_with(b"mawk") {
        true => "awk -W interactive -f",
        false => "awk -f",
    };
    greets(&example(awk, "greet.awk"));
}

#[test]
fn php_greets() {
    if !has("php") {
        return eprintln!("SKIPPED: no php");
    }
    greets(&example("php", "greet.php"));
}

#[test]
fn frames_carry_any_bytes() {
    let reverse = example("python3", "reverse.py");
    for mode in ["process", "base"] {
        let flags = ["--mode", mode, "--protocol", "length=4"];
        let server = exec(&reverse, &flags).start();
        let mut client = Client::connect(server.address());
        let all: Vec<u8> = (0..=255).collect();
        let long: Vec<u8> = all.iter().copied().cycle().take(300_000).collect();
        for data in [&b"ab\ndone\n\0"[..], &all, &long] {
            let len = u32::try_from(data.len())
                .expect("it is short")
                .to_be_bytes();
            let back: Vec<u8> = data.iter().rev().copied().collect();
            client.send(&[&len, data].concat());
            client.expect(&[&len[..], &back].concat());
        }
        client.send(&[0; 4]);
        client.expect(&[0; 4]);
        client.expect_closed();
    }
}

const COUNT: [&str; 6] = [
    "--exec-format",
    "json",
    "--on-crash",
    "redeliver=255",
    "--dispatch",
    "least-busy",
];

#[test]
fn each_word_is_counted_once_though_its_program_dies_after_it_has_counted() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let database = folder.path().join("words.db");
    let command = format!(
        "{} {} --die",
        example("python3", "count.py"),
        database.display()
    );
    let server = exec(&command, &COUNT).start();
    let mut client = Client::connect(server.address());
    for number in 1..=5 {
        assert_eq!(client.ask("word"), format!("word {number}"));
    }
    server.logged(5, &["was killed by signal 9 (SIGKILL), in `receive`"]);
}

/// The answers of all clients: how often each number of each word has come.
type Answers = Arc<Mutex<BTreeMap<String, usize>>>;

#[test]
fn each_word_is_counted_once_though_programs_and_workers_are_killed() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let database = folder.path().join("words.db");
    let command = format!("{} {}", example("python3", "count.py"), database.display());
    let flags = ["--workers", "2", "--standby", "1"];
    let server = exec(&command, &flags).and(&COUNT).start();
    let (answers, ends) = (Answers::default(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..4)
        .map(|nth| {
            let (answers, ends) = (Arc::clone(&answers), Arc::clone(&ends));
            let mut client = Client::connect(server.address());
            thread::spawn(move || {
                let mut asked = 0;
                while !ends.load(Ordering::Relaxed) {
                    let answer = client.ask(["common", "rare"][nth % 2]);
                    *answers.lock().unwrap().entry(answer).or_default() += 1;
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let (begin, mut kills) = (Instant::now(), 0_usize);
    while kills < 20 || begin.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(100));
        let all = match kills % 2 {
            0 => programs(&server),
            _ => server.workers(),
        };
        if let Some(process) = all.get(kills % all.len().max(1)) {
            process.signal(Signal::SIGKILL);
            kills += 1;
        }
    }
    ends.store(true, Ordering::Relaxed);
    let asked: usize = clients.into_iter().map(|it| it.join().unwrap()).sum();
    let answers = answers.lock().unwrap();
    eprintln!("{kills} kills, {asked} messages");
    let mut expected = BTreeMap::new();
    for word in ["common", "rare"] {
        let of_word = answers.keys().filter(|it| it.starts_with(word)).count();
        expected.extend((1..=of_word).map(|number| (format!("{word} {number}"), 1)));
    }
    assert_eq!(*answers, expected);
    assert!(asked > 20 && answers.len() == asked, "{asked}");
}
