//! The program from outside: its help, its ready line, its log, and its pid file.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::SOON;
use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Ready;
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

const FLAGS: [&str; 18] = [
    "--mode",
    "--listen",
    "--workers",
    "--reactors",
    "--backlog",
    "--handler",
    "--work",
    "--fault",
    "--on-crash",
    "--close-deadline",
    "--shutdown-deadline",
    "--max-connections",
    "--pid-file",
    "--log-level",
    "--output-high-water",
    "--output-limit",
    "--memory-budget",
    "--max-message",
];

#[test]
fn help_names_the_subcommand_and_explains_every_flag() {
    let top = Launch::tine(&["--help"]).run();
    assert!(
        top.status.success() && top.stdout.contains("serve"),
        "{top:#?}"
    );

    let help = Launch::tine(&["serve", "--help"]).run();
    assert!(help.status.success(), "{help:#?}");
    for flag in FLAGS.into_iter().chain(["--protocol"]) {
        let explanation = explanation(&help.stdout, flag);
        assert!(
            explanation.len() > 20,
            "the help of {flag} is {explanation:?}"
        );
    }
    for word in [
        "redeliver",
        "keep",
        "never",
        "worker_start",
        "segv",
        "echo",
        "delimiter",
        "length",
        "base",
        "4096",
    ] {
        assert!(
            help.stdout.contains(word),
            "the help does not say {word}:\n{}",
            help.stdout
        );
    }
}

/// Returns the text of the help between this flag and the next.
fn explanation(help: &str, flag: &str) -> String {
    let begins = |line: &&str| line.trim_start().starts_with('-');
    let is_flag =
        |line: &&str| begins(line) && line.split([' ', ',', '=']).any(|word| word == flag);
    let mut lines = help.lines().skip_while(|line| !is_flag(line));
    let first = lines
        .next()
        .unwrap_or_else(|| panic!("the help has no {flag}:\n{help}"));
    let on_the_line = first.split_once("  ").map_or("", |(_, rest)| {
        rest.trim_start().split_once("  ").map_or("", |both| both.1)
    });
    let below: Vec<&str> = lines
        .take_while(|line| !begins(line))
        .map(str::trim)
        .collect();
    format!("{on_the_line} {}", below.join(" "))
        .trim()
        .to_owned()
}

#[test]
fn the_ready_line_has_the_port_the_counts_and_the_pid_of_the_first_process() {
    let server = Launch::serve(&["--workers", "1", "--reactors", "1"]).start();
    let ready = &server.ready[0];
    assert_eq!(
        (ready.workers.as_str(), ready.reactors.as_deref()),
        ("1 worker", Some("1 reactor"))
    );
    assert_eq!(
        (ready.mode.as_str(), ready.pid),
        ("process", server.root.pid)
    );
    assert_ne!(ready.address.port(), 0);
    assert_eq!(
        server.stdout().lines().len(),
        1,
        "{}",
        server.stdout().text()
    );

    let server = Launch::serve(&["--mode", "base", "--workers", "2"]).start();
    let Ready {
        mode,
        workers,
        reactors,
        pid,
        ..
    } = &server.ready[0];
    assert_eq!(
        (mode.as_str(), workers.as_str(), reactors, *pid),
        ("base", "2 workers", &None, server.root.pid)
    );
    assert_eq!(server.workers().len(), 2);
}

#[test]
fn the_ready_line_waits_for_every_worker() {
    for mode in ["process", "base"] {
        let begin = Instant::now();
        let server = Launch::serve(&[
            "--mode",
            mode,
            "--workers",
            "2",
            "--fault",
            "worker_start:sleep=2",
        ])
        .start();
        assert!(
            begin.elapsed() >= Duration::from_secs(2),
            "{mode}: ready after {:?}",
            begin.elapsed()
        );
        Client::connect(server.address()).echo(b"now it is");
    }
}

#[test]
fn every_listener_is_printed_and_served_also_over_ipv6() {
    let mut flags = vec!["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    if TcpListener::bind("[::1]:0").is_ok() {
        flags.extend(["--listen", "[::1]:0"]);
    } else {
        eprintln!("skipped in part: this machine has no IPv6");
    }
    for mode in ["process", "base"] {
        let server = Launch::serve(&flags)
            .and(&["--mode", mode, "--workers", "2"])
            .start();
        assert_eq!(server.ready.len(), flags.len() / 2);
        for (ready, flag) in server.ready.iter().zip(flags.iter().skip(1).step_by(2)) {
            let asked: SocketAddr = flag.parse().unwrap();
            assert_eq!(
                ready.address.ip(),
                asked.ip(),
                "listeners are printed in their order"
            );
            Client::connect(ready.address).echo(b"hello");
        }
    }
}

#[test]
fn a_log_line_has_time_level_role_pid_and_message() {
    let server = Launch::serve(&["--workers", "1", "--fault", "receive:exit=7"]).start();
    let worker = server.workers()[0];
    let mut client = Client::connect(server.address());
    client.send(b"x");
    client.expect_closed();
    let message = format!(
        "worker#0[pid={}] abnormal exit, status=7, signal=0",
        worker.pid
    );
    let line = server.logged(1, &[&message]).remove(0);
    let (head, _) = line.split_once(&message).unwrap();
    assert!(line.ends_with(&message), "{line}");
    assert!(
        head.starts_with(|first: char| first.is_ascii_digit() || first == '['),
        "begins with the time: {line}"
    );
    assert!(head.contains("WARN") && head.contains("manager"), "{line}");
    assert!(head.contains(&server.manager().pid.to_string()), "{line}");
}

#[test]
fn a_listener_may_be_a_host_name_and_a_size_may_have_a_unit() {
    let flags = [
        "--listen",
        "localhost:0",
        "--max-message",
        "64K",
        "--output-limit",
        "64M",
    ];
    let server = Launch::serve(&flags).start();
    assert!(server.address().ip().is_loopback());
    Client::connect(server.address()).echo(b"hello");
    let help = Launch::tine(&["serve", "--help"]).run().stdout;
    for words in [
        "localhost:9501",
        "every IPv6 address alone",
        "64M",
        "half a second",
    ] {
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(words), "{words}: {help}");
    }
}

#[test]
fn a_host_name_may_have_an_address_twice_and_one_of_another_machine() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    // 192.0.2.0/24 is for documentation alone, RFC 5737.
    let addresses = "127.0.0.1 here\n127.0.0.1 here\n192.0.2.1 here\n";
    fs::write(&hosts, addresses).unwrap();
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let wrapper = |options: &[&'static str]| {
        let command = [&["unshare", "--mount"], options, &["sh", "-c", script]].concat();
        [command, vec![hosts.to_str().unwrap()]].concat()
    };
    let mut wrappers = [wrapper(&[]), wrapper(&["--user", "--map-root-user"])].into_iter();
    let is_allowed = |command: &Vec<&str>| {
        let mut attempt = Command::new(command[0]);
        attempt.args(&command[1..]).arg("true");
        attempt.output().is_ok_and(|output| output.status.success())
    };
    let Some(wrapper) = wrappers.find(is_allowed) else {
        // The name is unknown then.
        let ended = Launch::serve(&["--listen", "here:0"]).run();
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        return;
    };
    for mode in ["process", "base"] {
        let mut server = Launch::serve(&["--mode", mode, "--listen", "here:0"])
            .through(&wrapper)
            .start();
        assert_eq!(server.stdout().lines().len(), 1, "{mode}");
        server.logged(1, &["listener here:0", "192.0.2.1:0 is left out"]);
        Client::connect(server.address()).echo(b"hello");
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
        let log = server.whole_log();
        assert!(log.with(&["panicked"]).is_empty(), "{}", log.text());
    }
}

#[test]
fn the_pid_file_names_the_first_process_and_is_removed_at_its_end() {
    for mode in ["process", "base"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tine.pid");
        fs::write(&path, "an old one that is longer than the new one").unwrap();
        let flags = [
            "--mode",
            mode,
            "--workers",
            "1",
            "--pid-file",
            path.to_str().unwrap(),
        ];
        let mut server = Launch::serve(&flags).start();
        assert_eq!(
            fs::read_to_string(&path).unwrap().trim(),
            server.root.pid.to_string(),
            "{mode}"
        );
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "{mode}: nothing else is left beside it"
        );

        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
        assert!(!path.exists(), "{mode}: the pid file is removed");
    }
}

#[test]
fn a_backlog_that_the_kernel_clamps_is_logged() {
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn")
        .unwrap()
        .trim()
        .to_owned();
    let asked = (somaxconn.parse::<u32>().unwrap() + 1000).to_string();
    let server = Launch::serve(&["--workers", "1", "--backlog", &asked]).start();
    server.logged(1, &["somaxconn", &somaxconn, &asked]);

    let server = Launch::serve(&["--workers", "1", "--backlog", "16"]).start();
    Client::connect(server.address()).echo(b"up");
    assert_eq!(server.log().with(&["somaxconn"]), Vec::<String>::new());
}

#[test]
fn version_is_printed() {
    let version = Launch::tine(&["--version"]).run();
    assert_eq!(
        version.stdout,
        format!("tine {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_log_level_decides_what_is_logged() {
    for (level, is_logged) in [("error", false), ("warn", true), ("info", true)] {
        let server = Launch::serve(&["--workers", "1", "--log-level", level]).start();
        let old = server.workers();
        old[0].signal(Signal::SIGKILL);
        server.new_workers(1, &old);
        Client::connect(server.address()).echo(b"hello");
        // Its end was logged, or not, before the next one was started.
        assert_eq!(
            !server.log().with(&["WARN", "worker#0"]).is_empty(),
            is_logged,
            "{level}"
        );
    }
}

#[test]
fn a_low_soft_limit_of_descriptors_is_raised() {
    let server = Launch::serve(&["--workers", "1", "--max-connections", "900"])
        .soft_limit(Resource::RLIMIT_NOFILE, 64)
        .start();
    let mut clients: Vec<Client> = (0..200)
        .map(|_| Client::connect(server.address()))
        .collect();
    clients.iter_mut().for_each(|client| client.send(b"hello"));
    clients
        .iter_mut()
        .for_each(|client| client.expect(b"hello"));
}
