//! What a server shares with the system around it: its standard streams, its pid file, and the process that it ends with.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::common::c::{build, launch};
use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::{Launch, PROGRAM};
use crate::common::process::Process;
use crate::common::server::{Ready, Running, Server};
use crate::common::sockets::is_listening;
use crate::common::{SOON, eventually, eventually_some};
use nix::sys::signal::Signal;

const MODES: [&str; 2] = ["process", "base"];

/// Returns what the first three descriptors of a process are.
fn streams(process: Process) -> Vec<PathBuf> {
    let of = |number| fs::read_link(format!("/proc/{}/fd/{number}", process.pid));
    (0..3)
        .map(|number| of(number).unwrap_or_default())
        .collect()
}

#[test]
fn no_socket_takes_the_place_of_a_standard_stream() {
    for mode in MODES {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("address");
        let mut arguments = vec![file.to_str().expect("a path in UTF-8")];
        arguments.extend((mode == "base").then_some("base"));
        let running = launch(&build("tests/c/holes.c", &[]), &arguments).spawn();
        let address = eventually_some(SOON, "it says where it listens", || {
            fs::read_to_string(&file).ok()?.trim().parse().ok()
        });
        let ready = Ready {
            address,
            mode: mode.to_owned(),
            workers: String::new(),
            reactors: None,
            pid: running.pid(),
        };
        let server = Server::is_ready(running, vec![ready]);
        let null = vec![PathBuf::from("/dev/null"); 3];
        for process in server.processes() {
            assert_eq!(streams(process), null, "{mode}: holes are filled");
        }
        let mut client = Client::connect(address);
        client.echo(b"close");
        let mut others: Vec<Client> = (0..5).map(|_| Client::connect(address)).collect();
        others.iter_mut().for_each(|client| client.echo(b"hello"));
        for process in server.processes() {
            for stream in streams(process) {
                let stream = stream.to_string_lossy();
                assert!(!stream.contains("socket"), "{mode}: {stream}");
            }
        }
    }
}

/// A process that runs until it is dropped.
struct Other(Child);

impl Other {
    #[track_caller]
    fn start() -> Self {
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null());
        Self(command.spawn().expect("sleep can be started"))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pid_file_that_is_anothers_is_refused_and_left_alone() {
    let other = Other::start();
    let folder = tempfile::tempdir().expect("a folder");
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    fs::write(&target, format!("{}\n", other.0.id())).expect("a file");
    symlink(&target, &link).expect("a link");
    for (path, words) in [(&target, "which runs"), (&link, "symbolic link")] {
        let path = path.to_str().expect("a path in UTF-8");
        for mode in MODES {
            let ended = Launch::serve(&["--mode", mode, "--pid-file", path]).run();
            assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
            assert!(ended.stderr.contains(words), "{ended:#?}");
        }
    }
    let text = fs::read_to_string(&target).expect("it is there");
    assert_eq!(text.trim(), other.0.id().to_string());
}

#[test]
fn a_pid_file_that_another_server_has_written_since_is_not_removed() {
    for mode in MODES {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        let flag = path.to_str().expect("a path in UTF-8");
        let mut server = Launch::serve(&["--mode", mode, "--pid-file", flag]).start();
        let draft = folder.path().join("draft");
        fs::write(&draft, "1\n").expect("a file");
        fs::rename(draft, &path).expect("a file can be renamed");
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "1\n");
        server.logged(1, &["WARNING", "is not removed"]);
    }
}

#[test]
fn a_server_ends_with_a_process_that_need_not_be_its_parent() {
    for mode in MODES {
        let other = Other::start();
        let pid = other.0.id().to_string();
        let mut server = Launch::serve(&["--mode", mode, "--die-with", &pid]).start();
        let processes = server.processes();
        Client::connect(server.address()).echo(b"hello");
        drop(other);
        server.ended(SOON);
        let words = format!("process {pid} has ended");
        eventually(SOON, "it says why", || {
            server.log().with(&[&words]).len() == 1
        });
        server.leaves_nothing(&processes);
        let ended = Launch::serve(&["--mode", mode, "--die-with", &pid]).run();
        assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
        assert!(ended.stderr.contains("there is no process"), "{ended:#?}");
    }
}

/// Returns the command line of a process, as `ps` shows it.
fn command_line(process: Process) -> String {
    let text = fs::read_to_string(format!("/proc/{}/cmdline", process.pid));
    text.unwrap_or_default()
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

#[test]
fn the_titles_of_processes_tell_their_roles_and_their_server() {
    for mode in MODES {
        let named = Launch::serve(&["--mode", mode, "--workers", "1", "--name", "chat"]).start();
        let other = Launch::serve(&["--mode", mode, "--workers", "1"]).start();
        let port = other.address().port().to_string();
        for (server, name) in [(&named, "chat"), (&other, &port)] {
            let is_of = |process: &Process, role: &str| {
                let title = command_line(*process);
                let start = format!("tine[{name}] {role}: ");
                assert!(title.starts_with(&start), "{title:?}, {start:?}");
                // Its arguments are there, as before.
                assert!(
                    title.contains(&format!(" serve --mode {mode}")),
                    "{title:?}"
                );
            };
            is_of(&server.manager(), "manager");
            is_of(&server.workers()[0], "worker#0");
            if mode == "process" {
                is_of(&server.master(), "master");
            }
        }
        // Without the right to anything else.
        let found = Command::new("pgrep")
            .args(["-f", &format!(r"^tine\[{port}\] worker#0")])
            .output();
        if let Ok(found) = found {
            let pid = other.workers()[0].pid.to_string();
            assert_eq!(String::from_utf8_lossy(&found.stdout).trim(), pid);
        }
    }
}

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let start = || {
        let mut command = Command::new(PROGRAM);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--die-with"])
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().expect("the program can be started");
        let server = Server::await_ready(Running::new(child, "of a thread".to_owned()), 1);
        Client::connect(server.address()).echo(b"hello");
        server
    };
    let mut server = thread::spawn(start).join().expect("the server is started");
    Client::connect(server.address()).echo(b"still there");
    assert!(!server.has_ended());
}

#[test]
fn a_worker_whose_callback_closes_the_listener_is_replaced() {
    let server = Launch::testbed("script", "base")
        .and(&["workers=1"])
        .start();
    let worker = server.workers()[0];
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("close-listeners"), "1");
    let mut next = Client::connect(server.address());
    assert_eq!(next.ask("echo served"), "echo served");
    assert!(!server.workers().contains(&worker));
    let address = server.address().to_string();
    server.logged(1, &["ERROR worker#0", "a callback has closed", &address]);
}

#[test]
fn a_child_that_a_callback_forks_keeps_neither_connections_nor_the_port() {
    for mode in MODES {
        let mut server = Launch::testbed("script", mode).and(&["workers=1"]).start();
        let worker = server.workers()[0];
        let mut forks = Client::connect(server.address());
        let mut other = Client::connect(server.address());
        let mut reset = Client::connect(server.address());
        for client in [&mut other, &mut reset] {
            assert_eq!(client.ask("echo served"), "echo served");
        }
        assert_eq!(forks.ask("fork"), "forked");
        let child = worker.children()[0];
        // Each way to end a connection: with FIN, and with RST.
        other.send(b"close\n");
        assert_eq!(other.read_to_end(), b"bye\n");
        reset.send(b"reset\n");
        reset.expect_closed();
        assert!(child.is_running(), "{mode}");
        server.root.signal(Signal::SIGKILL);
        server.ended(SOON);
        eventually(SOON, "no socket listens", || {
            !is_listening(server.address())
        });
    }
}

/// In Rust; for C, the library sees to it by itself.
#[test]
fn a_child_that_returns_from_its_callback_does_not_go_on_as_the_worker() {
    for mode in MODES {
        let server = Launch::testbed("script", mode).and(&["workers=1"]).start();
        let worker = server.workers()[0];
        let mut client = Client::connect(server.address());
        assert_eq!(client.ask("fork-and-return"), "once");
        server.logged(1, &["ERROR", "a process forked in a callback returned"]);
        eventually(SOON, "the child ends", || worker.children().is_empty());
        assert_eq!(client.ask("echo after"), "echo after");
    }
}

#[test]
fn a_worker_that_has_changed_its_user_dies_with_its_manager_also_in_a_callback() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can become another user");
    }
    for mode in MODES {
        let gates = Gates::new();
        let mut server = Launch::testbed("script", mode)
            .and(&[&gates.flag(), "workers=1"])
            .start();
        let processes = server.processes();
        let worker = server.workers()[0];
        let mut client = Client::connect(server.address());
        assert_eq!(client.ask("become 65534"), "became");
        client.send(b"wait never\n");
        client.wait_until_read();
        eventually(SOON, "it is in its callback", || {
            worker.is_asleep_in_a_callback()
        });
        server.manager().signal(Signal::SIGKILL);
        server.ended(SOON);
        server.leaves_nothing(&processes);
    }
}
