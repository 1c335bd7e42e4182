//! Workers that take too much memory, and servers in a crash loop.

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::{SOON, eventually};
use nix::sys::signal::Signal;

mod memory {
    use std::fs;
    use std::path::PathBuf;

    use crate::common::client::Client;
    use crate::common::gates::Gates;
    use crate::common::launch::Launch;
    use crate::common::server::Server;

    /// Makes the client's worker allocate memory that it never frees.
    #[track_caller]
    fn leak(server: &Server, client: &mut Client, mib: usize) {
        client.send(format!("leak {mib}\n").as_bytes());
        assert_eq!(client.read_line(), "leaked", "{:?}", server.workers());
    }

    /// Workers may have 64 MiB.
    const LEAKY: [&str; 2] = ["worker-memory=67108864", "on-crash=keep"];

    #[test]
    fn a_worker_over_its_limit_is_replaced_and_no_client_notices() {
        let server = Launch::testbed("script", "process").and(&LEAKY).start();
        let workers = server.workers();
        let mut client = Client::connect(server.address());
        leak(&server, &mut client, 80);
        server.logged(1, &["over worker_memory (64 MiB): it is replaced"]);
        let one_is_new = || server.workers().iter().any(|now| !workers.contains(now));
        super::eventually(super::SOON, "another one has the seat", one_is_new);
        client.echo(b"echo still there\n");
        let exits = server.log().with(&["abnormal exit"]);
        assert!(exits.is_empty(), "it was asked to leave: {exits:?}");
    }

    #[test]
    fn a_worker_at_more_than_twice_its_limit_is_killed() {
        let gates = Gates::new();
        let server = Launch::testbed("script", "process")
            .and(&LEAKY)
            .and(&[&gates.flag()])
            .start();
        let mut client = Client::connect(server.address());
        // A check may come when it has some of it: it stays in the callback until the next one.
        client.send(b"leak 200 closed\n");
        server.logged(1, &["more than twice worker_memory (64 MiB): killed"]);
        server.logged(1, &["abnormal exit, status=0, signal=9"]);
        Client::connect(server.address()).echo(b"echo still there\n");
    }

    /// A control group with a limit of memory; `None` if that is not permitted.
    struct Group(PathBuf);

    impl Group {
        fn new(bytes: u64) -> Option<Group> {
            let name = format!("tine-test-{}", std::process::id());
            let limits = [
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                ("/sys/fs/cgroup", "memory.max"),
            ];
            limits.into_iter().find_map(|(root, limit)| {
                let group = Group(PathBuf::from(root).join(&name));
                fs::create_dir(&group.0).ok()?;
                fs::write(group.0.join(limit), bytes.to_string()).ok()?;
                Some(group)
            })
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            // It can be removed when its processes have ended; one that stays is empty and does no harm.
            let _ = fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn an_oom_kill_is_named_in_the_log() {
        let Some(group) = Group::new(100 << 20) else {
            eprintln!("skipped: a control group for memory is not permitted here");
            return;
        };
        let procs = group.0.join("cgroup.procs").display().to_string();
        let enter = ["sh", "-c", "echo $$ >$0; exec \"$@\"", &procs];
        let mut server = Launch::testbed("script", "process").through(&enter).start();
        let mut client = Client::connect(server.address());
        client.send(b"leak 300\n");
        server.logged(1, &["abnormal exit, status=0, signal=9", "out of memory"]);
        client.expect_closed();
        // A worker killed by another process is not.
        server.workers()[0].signal(super::Signal::SIGKILL);
        let exits = server.logged(2, &["abnormal exit, status=0, signal=9"]);
        let told = exits.iter().filter(|line| line.contains("out of memory"));
        assert_eq!(told.count(), 1, "{exits:#?}");
        server.signal(super::Signal::SIGTERM);
        server.ended(super::SOON);
    }
}

#[test]
fn fail_on_crash_loop_ends_a_server_with_status_3() {
    for mode in ["process", "base"] {
        let flags = [
            "--mode",
            mode,
            "--workers",
            "2",
            "--fail-on-crash-loop",
            "1",
        ];
        let mut server = Launch::serve(&flags).start();
        let (processes, manager) = (server.processes(), server.manager());
        // Each worker ends as soon as it is seen, before its first callback, as if by a fault of its own.
        eventually(SOON, format_args!("{mode}: it gives up"), || {
            for worker in manager.children() {
                worker.signal(Signal::SIGABRT);
            }
            server.has_ended()
        });
        assert_eq!(server.ended(SOON).code(), Some(3), "{mode}");
        server.leaves_nothing(&processes);
    }
}

#[test]
fn one_serving_seat_keeps_the_server_running() {
    let flags = ["--workers", "2", "--fail-on-crash-loop", "1"];
    let mut server = Launch::serve(&flags).start();
    let steady = server.workers()[1];
    let delays = || server.log().with(&["keeps dying", "starts in 800ms"]).len();
    eventually(SOON, "the other seat is in back-off", || {
        for worker in server.workers() {
            if worker != steady {
                worker.signal(Signal::SIGABRT);
            }
        }
        delays() > 0
    });
    assert!(!server.has_ended());
    Client::connect(server.address()).echo(b"served");
}

#[test]
fn a_callback_that_closes_many_connections_is_told_when_it_is_too_many() {
    for (limit, expected) in [(None, "20000"), (Some("output-limit=100000"), "1562")] {
        let launch = Launch::testbed("script", "process").and(&["workers=1"]);
        let server = launch.and(limit.as_slice()).start();
        let worker = server.workers();
        let mut asker = Client::connect(server.address());
        let mut other = Client::connect(server.address());
        let id = other.ask("id");
        assert_eq!(asker.ask(&format!("close-many {id} 20000")), expected);
        other.expect_closed();
        assert_eq!(asker.ask("echo served"), "echo served");
        assert_eq!(server.workers(), worker, "it was not taken for a liar");
    }
}
