//! Status requests: which worker an unclosed connection waits for, and which callers get an answer.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::limit_descriptors;
use crate::common::server::Server;
use crate::common::{SOON, eventually, eventually_some};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use std::os::fd::{AsRawFd, OwnedFd};
use tine::status::{AskError, Reason, Status, Unclosed, ask};
use tine::{Mode, Peer};

#[track_caller]
fn status(server: &Server) -> Status {
    let pid = if server.is_base() {
        server.manager()
    } else {
        server.master()
    };
    let status = ask(pid.pid, SOON).unwrap_or_else(|error| panic!("{error}"));
    assert!(!status.is_partial, "{status:#?}");
    assert_eq!(status.pid, pid.pid);
    assert_eq!(status.manager, server.manager().pid);
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(status.mode == Mode::Base, server.is_base());
    assert_eq!(status.addresses, [server.address()]);
    status
}

/// Returns the client's connection from the first status in which it is unclosed and `holds`.
#[track_caller]
fn unclosed(
    server: &Server,
    client: SocketAddr,
    holds: impl Fn(&Status, &Unclosed) -> bool,
) -> (Status, Unclosed) {
    eventually_some(SOON, "the connection is unclosed", || {
        let status = status(server);
        let mut unclosed = status.unclosed.iter();
        let conn = unclosed.find(|conn| conn.peer == client)?.clone();
        holds(&status, &conn).then_some((status, conn))
    })
}

/// Connects and closes. Returns the client's address.
#[track_caller]
fn come_and_go(server: &Server) -> SocketAddr {
    let client = Client::connect(server.address());
    client.ends().1
}

#[test]
fn a_worker_that_is_stuck_in_close_is_named_with_its_callback() {
    let flags = [
        "--workers",
        "1",
        "--fault",
        "close:sleep=1000",
        "--close-deadline",
        "never",
    ];
    let server = Launch::serve(&flags).start();
    let came = Instant::now();
    let client = come_and_go(&server);
    let is_in_it = |status: &Status, conn: &Unclosed| {
        let worker = status
            .worker_of(conn)
            .and_then(|worker| worker.callback.clone());
        worker.is_some_and(|callback| callback.at_least > Duration::from_millis(300))
    };
    let (status, conn) = unclosed(&server, client, is_in_it);
    let worker = status.worker_of(&conn).expect("a worker");
    assert_eq!(worker.pid, server.workers()[0].pid);
    assert_eq!((worker.role.as_str(), worker.seat), ("worker#0", Some(0)));
    let callback = worker.callback.as_ref().expect("a callback");
    assert_eq!(
        (callback.kind.as_str(), callback.peer),
        ("close", Peer::Ip(client))
    );
    assert_eq!(callback.conn, conn.conn);
    assert_eq!((conn.reason, conn.local), (Reason::Close, server.address()));
    assert_eq!(conn.deadline, None);
    // Reactor and manager are asked one after the other: each answer is right at its own moment.
    let most = came.elapsed();
    assert!(
        conn.since <= most && callback.at_least <= most,
        "{conn:?} {callback:?}"
    );
    let words = status.explain(&conn);
    assert!(
        words.starts_with("worker#0[pid=") && words.contains("in `close` for at least"),
        "{words}"
    );
}

#[test]
fn a_worker_that_is_stuck_with_another_client_is_named_with_that_client() {
    let flags = [
        "--workers",
        "1",
        "--fault",
        "receive:sleep=1000",
        "--close-deadline",
        "900",
    ];
    let server = Launch::serve(&flags).start();
    let mut busy = Client::connect(server.address());
    busy.send(b"x");
    eventually(SOON, "the worker is in it", || {
        status(&server)
            .workers
            .iter()
            .any(|worker| worker.callback.is_some())
    });
    let client = come_and_go(&server);
    let (status, conn) = unclosed(&server, client, |status, conn| {
        status.worker_of(conn).is_some()
    });
    assert!(
        matches!(conn.reason, Reason::Messages | Reason::Close),
        "{conn:?}"
    );
    assert!(
        conn.deadline
            .is_some_and(|left| left.as_secs() > 800 && left <= Duration::from_secs(900)),
        "{conn:?}"
    );
    let words = status.explain(&conn);
    let other = format!("in `receive` of another connection, from {}", busy.ends().1);
    assert!(words.contains(&other), "{words}");
}

#[test]
fn a_connection_that_the_policy_keep_leaves_is_reported_as_kept() {
    let flags = [
        "--fault",
        "close:exit=255",
        "--on-crash",
        "keep",
        "--close-deadline",
        "never",
    ];
    let server = Launch::serve(&flags).start();
    let client = come_and_go(&server);
    let (status, conn) = unclosed(&server, client, |_, conn| conn.reason == Reason::Kept);
    assert_eq!(conn.generation, None);
    assert!(status.explain(&conn).contains("keep"));
}

#[test]
fn in_base_mode_the_manager_knows_its_workers_callbacks() {
    let flags = [
        "--mode",
        "base",
        "--workers",
        "2",
        "--fault",
        "receive:sleep=1000",
    ];
    let server = Launch::serve(&flags).start();
    let mut client = Client::connect(server.address());
    client.send(b"x");
    let callback = eventually_some(SOON, "a worker is in it", || {
        let status = status(&server);
        assert_eq!(status.workers.len(), 2);
        let mut callbacks = status
            .workers
            .into_iter()
            .filter_map(|worker| worker.callback);
        callbacks.find(|callback| callback.at_least > Duration::from_millis(100))
    });
    assert_eq!(
        (callback.kind.as_str(), callback.peer),
        ("receive", Peer::Ip(client.ends().1))
    );
}

#[test]
fn in_base_mode_a_new_workers_callback_is_not_timed_from_its_predecessors() {
    let flags = [
        "--mode",
        "base",
        "--workers",
        "1",
        "--fault",
        "receive:sleep=1000",
    ];
    let server = Launch::serve(&flags).start();
    let busy = |unlike: i32| {
        eventually_some(SOON, "a worker is in a callback", || {
            let mut workers = status(&server).workers.into_iter();
            workers.find(|worker| worker.callback.is_some() && worker.pid != unlike)
        })
    };
    let mut client = Client::connect(server.address());
    client.send(b"x");
    let first = busy(0);
    std::thread::sleep(Duration::from_millis(500));
    server.workers()[0].signal(Signal::SIGKILL);
    let killed = Instant::now();
    let mut client = Client::connect(server.address());
    client.send(b"x");
    let second = busy(first.pid);
    let at_least = second.callback.expect("a callback").at_least;
    assert!(at_least <= killed.elapsed(), "{at_least:?}");
    assert!(second.generation > first.generation);
}

#[test]
fn a_request_without_a_free_descriptor_costs_nothing_and_is_answered_afterwards() {
    let server = Launch::serve(&["--workers", "1"]).start();
    let processes = [server.master(), server.manager()];
    let mut client = Client::connect(server.address());
    client.echo(b"before");
    for process in processes {
        limit_descriptors(process, 3);
        // More than the backlog: no further caller can connect.
        let queue: Vec<OwnedFd> = (0..40).filter_map(|_| call(process.pid)).collect();
        assert!(queue.len() < 40);
    }
    let used = processes.map(|process| process.cpu_seconds());
    std::thread::sleep(Duration::from_secs(1));
    for (process, used) in processes.iter().zip(used) {
        let used = process.cpu_seconds() - used;
        assert!(used < 0.3, "{} took {used} s", process.name());
    }
    client.echo(b"meanwhile");
    for process in processes {
        limit_descriptors(process, 1000);
    }
    status(&server);
}

#[test]
fn many_requests_and_silent_callers_leave_nothing_behind() {
    let server = Launch::serve(&["--workers", "2"]).start();
    let mut client = Client::connect(server.address());
    client.echo(b"before");
    let master = server.master();
    let descriptors = master.descriptors();
    let mute: Vec<OwnedFd> = (0..20).filter_map(|_| call(master.pid)).collect();
    for _ in 0..1000 {
        status(&server);
        drop(call(master.pid));
        client.echo(b"meanwhile");
    }
    drop(mute);
    eventually(SOON, "every descriptor is closed", || {
        status(&server);
        master.descriptors() <= descriptors
    });
}

#[test]
fn only_the_process_that_answers_has_the_desk_open() {
    for mode in ["process", "base"] {
        let server = Launch::serve(&["--mode", mode]).start();
        status(&server);
        let desks = desks();
        for process in server.processes() {
            let held = process.sockets();
            let count = desks.iter().filter(|desk| held.contains(desk)).count();
            let name = process.name();
            // One for status requests, and one for posts where those are taken.
            let expected = match (name.contains("worker"), name.contains("manager")) {
                (true, _) => 0,
                (false, true) if mode == "process" => 1,
                (false, _) => 2,
            };
            assert_eq!(count, expected, "{name} in {mode} mode");
        }
    }
}

#[test]
fn a_server_whose_name_is_taken_serves_all_the_same() {
    // The name follows from the pid: a wrapper binds it, and becomes the server by exec.
    let program = "import os, socket, sys\n\
                   s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
                   s.bind('\\0tine/%d' % os.getpid())\n\
                   s.set_inheritable(True)\n\
                   os.execv(sys.argv[1], sys.argv[1:])";
    if Command::new("python3").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: no python3");
    }
    let server = Launch::serve(&[])
        .through(&["python3", "-c", program])
        .start();
    server.logged(1, &["tine doctor", "cannot ask this process"]);
    Client::connect(server.address()).echo(b"hello");
    let pid = server.master().pid;
    assert!(ask(pid, Duration::from_secs(1)).is_err());
}

#[test]
fn a_name_is_free_again_when_its_process_is_dead() {
    let mut server = Launch::serve(&[]).start();
    let pid = server.master().pid;
    status(&server);
    server.master().signal(Signal::SIGKILL);
    server.ended(SOON);
    eventually(SOON, "no process answers", || {
        matches!(ask(pid, Duration::from_secs(1)), Err(AskError::NoServer(_)))
    });
}

#[test]
fn an_answer_in_the_name_of_another_process_is_refused() {
    let server = Launch::serve(&["--mode", "base"]).start();
    // A worker has no desk, so its name is free.
    let pid = server.workers()[0].pid;
    let flags = SockFlag::SOCK_CLOEXEC;
    let squatter = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    let name = UnixAddr::new_abstract(format!("tine/{pid}").as_bytes()).expect("a name");
    bind(squatter.as_raw_fd(), &name).expect("the name is free");
    listen(&squatter, Backlog::MAXCONN).expect("it listens");
    let own = std::process::id() as i32;
    match ask(pid, SOON) {
        Err(AskError::Impostor { asked, answered }) => assert_eq!((asked, answered), (pid, own)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stopped_process_is_silent_and_the_rest_is_a_partial_answer() {
    let server = Launch::serve(&["--workers", "1"]).start();
    let patience = Duration::from_millis(200);
    server.manager().signal(Signal::SIGSTOP);
    eventually(SOON, "it is stopped", || server.manager().is_stopped());
    let status = ask(server.master().pid, patience).expect("the master answers");
    assert!(status.is_partial && status.workers.is_empty(), "{status:?}");
    server.master().signal(Signal::SIGSTOP);
    eventually(SOON, "it is stopped", || server.master().is_stopped());
    let silent = ask(server.master().pid, patience);
    assert!(matches!(silent, Err(AskError::Silent(_))), "{silent:?}");
    server.master().signal(Signal::SIGCONT);
    server.manager().signal(Signal::SIGCONT);
    // The caller that gave up is still in the queue.
    self::status(&server);
}

#[test]
fn another_user_is_not_answered() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can be two users");
    }
    let server = Launch::serve(&[]).start();
    let name = format!("\\0tine/{}", server.master().pid);
    let program = format!(
        "import socket\n\
         s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
         s.settimeout(60)\n\
         s.connect('{name}')\n\
         print(len(s.recv(100000)))"
    );
    let asked_by = |user: u32| {
        Command::new("python3")
            .args(["-c", &program])
            .current_dir("/")
            .uid(user)
            .output()
    };
    let Ok(own) = asked_by(0) else {
        return eprintln!("SKIPPED: no python3");
    };
    assert_ne!(String::from_utf8_lossy(&own.stdout).trim(), "0");
    let other = asked_by(65534).expect("python3 runs");
    assert_eq!(
        String::from_utf8_lossy(&other.stdout).trim(),
        "0",
        "{other:?}"
    );
}

/// Connects to a process's desk, and reads nothing.
fn call(pid: i32) -> Option<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let caller = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    let name = UnixAddr::new_abstract(format!("tine/{pid}").as_bytes()).expect("a name");
    // Fails when the desk's backlog is full.
    connect(caller.as_raw_fd(), &name).is_ok().then_some(caller)
}

/// Returns the inodes of all desks of this machine.
fn desks() -> Vec<u64> {
    let table = fs::read_to_string("/proc/net/unix").expect("the table of unix sockets");
    let desks = table.lines().filter(|line| line.contains(" @tine/"));
    let inode = |line: &str| line.split_ascii_whitespace().nth(6)?.parse().ok();
    desks.filter_map(inode).collect()
}
