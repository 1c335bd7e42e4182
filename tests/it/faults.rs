//! A system call fails, the first one, the second, and so on until a run makes no such call any more: the server starts
//! and serves, or it ends with an error and leaves nothing. It never hangs, nobody panics, and no reply is torn, doubled or
//! another's.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::{Ready, Running, Server};
use crate::common::{SOON, eventually, eventually_some};

/// After so many runs in a row that made the call less often, there are none that make it more often: one alone may have
/// been lucky, since how the calls fall depends on time.
const QUIET: usize = 2;

/// How a run went in which the call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The server served; this many clients were cut off.
    Served { cut: usize },
    /// It ended by itself, before or after it was ready.
    Ended,
}

/// Makes one call after the other fail, at most `most` of them. `fault` says which, with its number at `#`.
#[track_caller]
fn each_fails(mode: &str, fault: &str, most: usize) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut quiet = 0;
    for number in 1..=most {
        let fault = fault.replace('#', &number.to_string());
        match run(mode, &fault) {
            (outcome, true) => {
                quiet = 0;
                outcomes.push(outcome);
            }
            (outcome, false) => {
                let unharmed = Outcome::Served { cut: 0 };
                assert_eq!(outcome, unharmed, "{fault}, which was not met");
                quiet += 1;
            }
        }
        if quiet == QUIET {
            break;
        }
    }
    assert!(!outcomes.is_empty(), "{fault}: there is no such call");
    outcomes
}

/// The server can't start without any of these calls, and says so.
#[track_caller]
fn none_can_be_missed(mode: &str, fault: &str, most: usize) {
    for (index, outcome) in each_fails(mode, fault, most).into_iter().enumerate() {
        assert_eq!(outcome, Outcome::Ended, "{fault}, number {}", index + 1);
    }
}

/// Of these calls, those that fail harm one client at most.
#[track_caller]
fn all_are_survived(mode: &str, fault: &str, most: usize) {
    for (index, outcome) in each_fails(mode, fault, most).into_iter().enumerate() {
        let is_served = matches!(outcome, Outcome::Served { .. });
        assert!(is_served, "{fault}, number {}: {outcome:?}", index + 1);
    }
}

/// Nobody notices that one of these calls fails.
#[track_caller]
fn all_are_made_up_for(mode: &str, fault: &str, most: usize) {
    for (index, outcome) in each_fails(mode, fault, most).into_iter().enumerate() {
        assert_eq!(
            outcome,
            Outcome::Served { cut: 0 },
            "{fault}, number {}",
            index + 1
        );
    }
}

/// Starts a server with this fault, has it serve, and ends it. Says how it went, and whether the fault was met. It has two
/// reactors, unless the mode says otherwise: `process, reactors=1`.
#[track_caller]
fn run(mode: &str, fault: &str) -> (Outcome, bool) {
    // In base mode no other worker could run a message again.
    let handler = match mode {
        "base" => "script",
        _ => "redeliver",
    };
    let (mode, reactors) = mode.split_once(", ").unwrap_or((mode, "reactors=2"));
    let launch = Launch::testbed(handler, mode).and(&["workers=2", reactors]);
    let mut running = launch.env("TINE_FAIL", fault).spawn();
    let what = format!("{fault}: the server is ready or has ended");
    let ready = eventually_some(SOON, what, || {
        let line = running.stdout.lines().into_iter().next();
        line.map(Some).or_else(|| running.try_wait().map(|_| None))
    });
    let Some(ready) = ready else {
        return (has_ended(running, fault), true);
    };
    let ready = Ready::parse(&ready).expect("a ready line");
    let mut server = Server::is_ready(running, vec![ready]);
    let processes = server.root.group();
    let cut = work(&mut server);
    if cut > 1 {
        let what = format!("{fault}: a server that serves nobody ends");
        eventually(SOON, what, || server.has_ended());
    }
    if server.has_ended() {
        return (has_ended(server.into_running(), fault), true);
    }
    server.signal(Signal::SIGTERM);
    let status = server.ended(SOON);
    server.leaves_nothing(&processes);
    let hit = is_met(&server.log().lines());
    assert!(status.success(), "{fault}: {status}");
    (Outcome::Served { cut }, hit)
}

/// It has ended by itself: it says why, its status says so too, and nothing is left.
#[track_caller]
fn has_ended(mut running: Running, fault: &str) -> Outcome {
    let status = eventually_some(SOON, "its status", || running.try_wait());
    eventually(SOON, "nothing is left running", || {
        running.group().is_empty()
    });
    eventually(SOON, "all its output is read", || {
        running.stdout.is_closed() && running.stderr.is_closed()
    });
    let lines = running.stderr.lines();
    assert!(is_met(&lines), "{fault}: it ended for nothing");
    // The reload that this test asks for may come when the server has given the signal back to the program.
    let is_reloaded = status.signal() == Some(Signal::SIGUSR1 as i32);
    assert!(status.code() == Some(1) || is_reloaded, "{fault}: {status}");
    let last = lines.last().map_or("", String::as_str);
    assert!(
        !last.is_empty() && !last.starts_with("injected: "),
        "{fault}: it does not say why"
    );
    Outcome::Ended
}

/// Whether the fault was met; and nobody has panicked.
#[track_caller]
fn is_met(log: &[String]) -> bool {
    let panic = log.iter().find(|line| line.contains("panicked"));
    assert_eq!(panic, None);
    log.iter().any(|line| line.starts_with("injected: "))
}

/// What a server does in its life: short and long replies, a worker that dies, and a reload. Returns how many clients were
/// cut off.
#[track_caller]
fn work(server: &mut Server) -> usize {
    let (address, is_base) = (server.address(), server.is_base());
    let mut cut = 0;
    let mut ask_one_of = |question: &str, answers: &[&[u8]]| {
        let is_whole = ask(address, question, answers).unwrap_or(false);
        cut += usize::from(!is_whole);
    };
    let mut ask = |question: &str, answer: &[u8]| ask_one_of(question, &[answer]);
    ask("echo one\necho two\n", b"echo one\necho two\n");
    ask("big 400000\n", &[b'x'; 400_000]);
    // In base mode a worker's connections end with it.
    if !is_base {
        // The fault may end the next worker in it, too.
        ask_one_of("die-once\n", &[b"survived 1\n", b"survived 2\n"]);
    }
    let mut ask = |question: &str, answer: &[u8]| ask_one_of(question, &[answer]);
    ask("echo three\n", b"echo three\n");
    // Without a manager there are none.
    let workers = |server: &Server| match is_base {
        true => server.root.children(),
        false => {
            let managers = server.root.children().into_iter();
            managers.flat_map(Process::children).collect()
        }
    };
    let old = workers(server);
    server.signal(Signal::SIGUSR1);
    let what = "every worker is replaced, or it is said that one can't be";
    eventually(SOON, what, || {
        let is_over = !server.log().with(&["ERROR", "eload"]).is_empty();
        is_over || server.has_ended() || !workers(server).iter().any(|it| old.contains(it))
    });
    ask("echo four\n", b"echo four\n");
    ask("echo five\n", b"echo five\n");
    cut
}

/// Asks on a connection of its own. What comes is one of the answers, which are of one length, or its beginning and then the
/// end. Says whether it is whole.
#[track_caller]
fn ask(server: SocketAddr, question: &str, answers: &[&[u8]]) -> io::Result<bool> {
    let len = answers[0].len();
    let mut client = Client::try_connect(server)?;
    client.try_send(question.as_bytes())?;
    let mut got = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        match client.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{question}: {} bytes, then {error}", got.len()),
        }
        // Nothing comes behind it.
        if got.len() == len {
            client.try_half_close()?;
        }
    }
    let is_beginning = answers.iter().any(|answer| answer.starts_with(&got));
    assert!(
        is_beginning,
        "{question}: {}",
        String::from_utf8_lossy(&got)
    );
    Ok(got.len() == len)
}

#[test]
fn a_server_that_lacks_memory_or_descriptors_does_not_start() {
    for fault in ["memfd_create", "mmap", "open", "eventfd", "pipe2", "fork"] {
        none_can_be_missed("process", &format!("starting.{fault}:#"), 60);
    }
    none_can_be_missed("process", "master.epoll_create1:#", 10);
    none_can_be_missed("base", "starting.mmap:#", 10);
}

#[test]
fn a_worker_that_can_not_be_made_is_tried_again_or_the_reload_is_over() {
    for fault in [
        "fork",
        "pipe2",
        "epoll_create1",
        "epoll_ctl",
        "memfd_create",
        "mmap",
        "eventfd",
    ] {
        let outcomes = each_fails("process", &format!("manager.{fault}:#"), 40);
        // The last ones replace the worker that died and those that are reloaded.
        for outcome in outcomes.iter().rev().take(3) {
            let unharmed = Outcome::Served { cut: 0 };
            assert_eq!(*outcome, unharmed, "{fault}: {outcomes:?}");
        }
    }
    each_fails("base", "manager.fork:#", 10);
}

#[test]
fn a_worker_that_can_not_begin_ends_the_start_or_is_replaced() {
    for fault in ["epoll_ctl", "mmap", "open"] {
        each_fails("process", &format!("worker.{fault}:#"), 20);
    }
    each_fails("base", "worker.mmap:#", 10);
    each_fails("base", "manager.epoll_create1:#", 10);
}

#[test]
fn a_master_that_can_not_map_the_memory_of_a_worker_has_it_replaced() {
    for fault in ["mmap", "open"] {
        let outcomes = each_fails("process", &format!("master.{fault}:#"), 60);
        // The last ones belong to the worker that replaces one that died, and to those of a reload.
        let last = outcomes.iter().rev().take(2);
        for outcome in last {
            let is_served = matches!(outcome, Outcome::Served { .. });
            assert!(is_served, "{fault}: {outcomes:?}");
        }
    }
}

#[test]
fn what_processes_tell_each_other_arrives_when_the_kernel_lacks_memory_for_a_moment() {
    for fault in ["manager.write", "master.write", "worker.write"] {
        all_are_made_up_for("process", &format!("{fault}:#"), 15);
    }
    all_are_made_up_for("base", "worker.write:#", 10);
}

#[test]
fn a_bell_that_is_too_full_rings_all_the_same() {
    all_are_made_up_for("process", "master.bell:#", 8);
    all_are_made_up_for("process", "worker.bell:#", 8);
}

#[test]
fn clients_wait_while_none_can_be_accepted() {
    all_are_made_up_for("process", "master.accept4:#", 12);
    all_are_made_up_for("base", "worker.accept4:#", 6);
}

#[test]
fn a_connection_that_breaks_ends_alone() {
    for fault in ["send", "recv"] {
        all_are_survived("process", &format!("master.{fault}:#"), 15);
        all_are_survived("base", &format!("worker.{fault}:#"), 10);
    }
}

#[test]
fn a_connection_that_is_not_ready_after_all_is_waited_for() {
    for fault in ["send:#:EAGAIN", "recv:#:EAGAIN", "send:#:EINTR"] {
        all_are_made_up_for("process", &format!("master.{fault}"), 8);
    }
}

#[test]
fn no_connection_ends_because_the_kernel_lacks_memory_for_a_moment() {
    for errno in ["ENOMEM", "ENOBUFS"] {
        for (mode, role) in [("process", "master"), ("base", "worker")] {
            for call in ["send", "recv"] {
                all_are_made_up_for(mode, &format!("{role}.{call}:#:{errno}"), 5);
            }
        }
    }
}

#[test]
fn a_socket_that_can_not_be_watched_is_one_client_or_the_start() {
    each_fails("process", "master.epoll_ctl:#", 25);
    // Nobody else could accept in its place.
    each_fails("process, reactors=1", "master.epoll_ctl:#", 25);
    each_fails("base", "worker.epoll_ctl:#", 12);
}
