//! The programs in `c-examples`, built under sanitizers, do what their comments say.

use std::collections::HashSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

use crate::common::c::{self, build_plain, ends_well, example, launch, start};
use crate::common::client::Client;
use crate::common::launch::{Ended, Launch};
use crate::common::server::Server;
use crate::common::sockets::{accept_queue, of_server, state};
use crate::common::traffic::pattern;
use crate::common::{SOON, eventually, eventually_some, keeps};
use procfs::net::TcpState;

/// A server of `c-examples` in process mode, on a free port.
#[track_caller]
fn serve(name: &str) -> Server {
    start(launch(&example(name), &["127.0.0.1:0"]), "process")
}

/// Runs a client of `c-examples` until it ends.
#[track_caller]
fn visit(name: &str, options: &[&str], server: SocketAddr, more: &[&str]) -> Ended {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let arguments = [options, &[&host, &port], more].concat();
    launch(&example(name), &arguments).run()
}

/// A client that connects and closes: the two ends of its connection, the server's first.
#[track_caller]
fn come_and_go(server: SocketAddr) -> (SocketAddr, SocketAddr) {
    let client = Client::connect(server);
    client.accepted();
    client.ends()
}

/// How the kernel calls both ends of a connection, the server's first.
fn states((here, there): (SocketAddr, SocketAddr)) -> [Option<TcpState>; 2] {
    [state(here, there), state(there, here)]
}

const LEAKED: [Option<TcpState>; 2] = [Some(TcpState::CloseWait), Some(TcpState::FinWait2)];
const CLOSED: [Option<TcpState>; 2] = [None, Some(TcpState::TimeWait)];

#[track_caller]
fn kill_all_workers(server: &Server) {
    let workers = server.workers();
    for worker in &workers {
        worker.signal(Signal::SIGKILL);
    }
    server.new_workers(workers.len(), &workers);
}

#[test]
fn echo_sends_back_what_came() {
    let server = serve("echo");
    let mut client = Client::connect(server.address());
    client.echo(b"hello");
    client.echo(&[7; 100_000]);
    drop(client);
    ends_well(server);
}

#[test]
fn a_leak_in_a_worker_is_seen() {
    // What the other tests here stand on: without it they could not fail.
    let server = start(
        launch(&c::build("tests/c/leaky.c", &[]), &["127.0.0.1:0"]),
        "process",
    );
    Client::connect(server.address()).echo(b"hello");
    server.signal(Signal::SIGTERM);
    server.logged(1, &["LeakSanitizer"]);
    server.logged(1, &["abnormal exit, status=23"]);
}

#[test]
fn a_close_that_sleeps_leaks_its_connection_unless_there_is_a_deadline() {
    let leaks = serve("close_sleep");
    let arguments = ["127.0.0.1:0", "deadline"];
    let mends = start(launch(&example("close_sleep"), &arguments), "process");
    let leaked = come_and_go(leaks.address());
    eventually(SOON, "CLOSE_WAIT and FIN_WAIT2", || {
        states(leaked) == LEAKED
    });
    let closed = come_and_go(mends.address());
    eventually(SOON, "CLOSE_WAIT and FIN_WAIT2", || {
        states(closed) == LEAKED
    });
    // Later than the other, and not longer than its deadline.
    eventually(Duration::from_secs(15), "the deadline has passed", || {
        states(closed) == CLOSED
    });
    for server in [&leaks, &mends] {
        let asleep = |worker: &crate::common::process::Process| worker.is_asleep_in_a_callback();
        assert_eq!(server.workers().into_iter().filter(asleep).count(), 1);
    }
    assert_eq!(states(leaked), LEAKED);
}

#[test]
fn a_close_that_exits_leaks_its_connection_in_process_mode() {
    let server = serve("close_exit");
    let worker = server.named("tine worker#0")[0];
    let ends = come_and_go(server.address());
    let abnormal = format!(
        "worker#0[pid={}] abnormal exit, status=255, signal=0",
        worker.pid
    );
    server.logged(1, &["WARN", &abnormal]);
    // For longer than the default deadline.
    keeps(Duration::from_secs(6), "CLOSE_WAIT and FIN_WAIT2", || {
        states(ends) == LEAKED
    });
    ends_well(server);
}

#[test]
fn in_base_mode_the_kernel_closes_for_a_worker_that_exits() {
    let server = start(
        launch(&example("close_exit"), &["127.0.0.1:0", "base"]),
        "base",
    );
    let ends = come_and_go(server.address());
    server.logged(1, &["WARN", "abnormal exit, status=255, signal=0"]);
    eventually(SOON, "gone, and TIME_WAIT", || states(ends) == CLOSED);
    ends_well(server);
}

/// Returns when both are in the room: `one` has heard `other`, and all that `other` has said.
#[track_caller]
fn meet(one: &mut Client, other: &mut Client) {
    eventually(SOON, "one hears the other", || {
        other.send(b"knock\n");
        one.has_news()
    });
    other.send(b"here\n");
    eventually(SOON, "all knocking is heard", || one.read_line() == "here");
}

#[test]
fn a_chat_goes_on_when_its_workers_are_killed() {
    let server = serve("chat");
    let [mut a, mut b] = [(); 2].map(|()| Client::connect(server.address()));
    meet(&mut a, &mut b);
    meet(&mut b, &mut a);
    b.send(b"b\n");
    a.expect(b"b\n");
    // In the room from its first line on.
    let mut c = Client::connect(server.address());
    c.send(b"c\n");
    a.expect(b"c\n");
    b.expect(b"c\n");

    for round in 0..3 {
        kill_all_workers(&server);
        let line = format!("after {round} deaths\n");
        a.send(line.as_bytes());
        b.expect(line.as_bytes());
        c.expect(line.as_bytes());
        // While a worker dies, others hear it once all the same.
        let line = format!("in the middle of death {round}\n");
        c.send(line.as_bytes());
        kill_all_workers(&server);
        a.expect(line.as_bytes());
        b.expect(line.as_bytes());
    }
    // Nothing more was said, to nobody.
    c.send(b"bye\n");
    a.expect(b"bye\n");
    b.expect(b"bye\n");
    assert!(!c.has_news(), "nobody hears himself");
    drop((a, b, c));
    ends_well(server);
}

#[test]
fn who_leaves_the_chat_gives_up_his_seat() {
    let server = serve("chat");
    // More than there are seats, some at a time.
    for _ in 0..11 {
        drop([(); 100].map(|()| Client::connect(server.address())));
        eventually(SOON, "all of them have left", || {
            of_server(server.address()).is_empty()
        });
    }
    let [mut a, mut b] = [(); 2].map(|()| Client::connect(server.address()));
    meet(&mut a, &mut b);
    drop((a, b));
    ends_well(server);
}

fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_be_bytes()[..], body].concat()
}

#[test]
fn length_server_answers_messages_however_they_come() {
    let server = serve("length_server");
    let mut client = Client::connect(server.address());
    let sum = message(&[&[1][..], &[0xFF; 8], &[0, 0, 0, 2]].concat());
    let summed = message(&[0, 0, 0, 0, 2, 0, 0, 0, 0]);
    client.send(&sum);
    client.expect(&summed);

    for byte in &sum {
        client.send(&[*byte]);
        client.wait_until_read();
    }
    client.expect(&summed);

    let turn = message(b"\x02abc");
    client.send(&[&sum[..], &turn].concat());
    client.expect(&[&summed[..], &message(b"\0cba")].concat());

    // So that what stands behind a message in memory would be an operation.
    for _ in 0..300 {
        client.send(&message(&[2; 4000]));
        client.expect(&message(&[&[0][..], &[2; 3999]].concat()));
    }
    // Nothing to add up or to turn round; no operation at all, an unknown one, half a number.
    client.send(&[message(&[1]), message(&[2])].concat());
    client.expect(&[message(&[0; 9]), message(&[0])].concat());
    for bad in [&[][..], &[3], &[1, 0, 0, 0]] {
        client.send(&message(bad));
        client.expect(&message(&[1]));
    }
    drop(client);
    ends_well(server);
}

#[test]
fn length_server_refuses_what_is_too_long() {
    let server = serve("length_server");
    let mut client = Client::connect(server.address());
    let mut longest = vec![b'x'; 4096 - 4];
    longest[0] = 2;
    client.send(&message(&longest));
    longest[0] = 0;
    client.expect(&message(&longest));
    // Its length alone is enough.
    client.send(&(4096_u32 - 4 + 1).to_be_bytes());
    client.expect_closed();
    drop(client);
    server.logged(1, &["worker#", "a client was sent away"]);
    ends_well(server);
}

/// What a worker of `worker_state` says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    worker: String,
    process: String,
    line: String,
    random: String,
}

impl Said {
    #[track_caller]
    fn to(client: &mut Client) -> Self {
        let line = client.ask("who?");
        let words: Vec<&str> = line.split(", ").collect();
        let [worker, process, line, random] = words[..] else {
            panic!("{line}");
        };
        Self {
            worker: worker.to_owned(),
            process: process.to_owned(),
            line: line.to_owned(),
            random: random.to_owned(),
        }
    }
}

#[test]
fn each_worker_has_a_state_of_its_own_which_dies_with_it() {
    let server = serve("worker_state");
    let mut clients = [(); 2].map(|()| {
        let client = Client::connect(server.address());
        client.accepted();
        client
    });
    let mut random = HashSet::new();
    let mut hear = |client: &mut Client, worker: &str, line: usize| {
        let said = Said::to(client);
        assert_eq!(said.worker, worker);
        assert_eq!(said.line, format!("line {line}"));
        assert!(random.insert(said.random), "as random as another");
        said.process
    };
    for line in 1..=3 {
        hear(&mut clients[0], "worker#0", line);
    }
    let other = hear(&mut clients[1], "worker#1", 1);
    let killed = hear(&mut clients[0], "worker#0", 4);

    let worker = server.named("tine worker#0");
    worker[0].signal(Signal::SIGKILL);
    eventually(SOON, "another worker#0", || {
        let next = server.named("tine worker#0");
        next.len() == 1 && next != worker
    });
    let next = hear(&mut clients[0], "worker#0", 1);
    assert_ne!(next, killed);
    assert_eq!(hear(&mut clients[1], "worker#1", 2), other);

    drop(clients);
    let said = server.log().clone();
    ends_well(server);
    for end in ["worker#0 ends after 1 lines", "worker#1 ends after 2 lines"] {
        assert_eq!(said.with(&[end]).len(), 1, "{end}");
    }
    assert!(
        said.with(&["after 4 lines"]).is_empty(),
        "a killed worker stops nothing"
    );
}

/// Is the one who writes to a database, until it is dropped: the lock for that is byte 120 of the file beside it that all
/// share, <https://www.sqlite.org/walformat.html#wal_locks>.
#[track_caller]
fn lock_for_writing(database: &Path) -> File {
    let file = database.with_extension("db-shm");
    let file = File::options().read(true).write(true).open(file);
    let file = file.expect("the database is in WAL mode, and open");
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 120,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_SETLKW(&lock)).expect("it can be locked");
    file
}

#[test]
fn what_sqlite_has_committed_survives_workers_and_server() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pairs.db");
    let program = c::build("c-examples/blocking_sqlite.c", &["-lsqlite3"]);
    let open = || {
        let arguments = ["127.0.0.1:0", database.to_str().unwrap()];
        start(launch(&program, &arguments), "process")
    };
    let server = open();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("get a"), "none");
    assert_eq!(client.ask("set a first"), "ok");
    assert_eq!(client.ask("set a 1 and more"), "ok");
    kill_all_workers(&server);
    assert_eq!(client.ask("get a"), "value 1 and more");

    // The answer comes also where a worker dies before it has given it: here while it waits for another who writes.
    let writing = lock_for_writing(&database);
    client.send(b"set b 2\n");
    let waiting = eventually_some(SOON, "a worker waits", || {
        let workers = server.workers();
        workers
            .into_iter()
            .find(|worker| worker.is_asleep_in_a_callback())
    });
    waiting.signal(Signal::SIGKILL);
    server.new_workers(2, &[waiting]);
    assert_eq!(
        Client::connect(server.address()).ask("get a"),
        "value 1 and more"
    );
    assert!(!client.has_news());
    drop(writing);
    assert_eq!(client.read_line(), "ok");
    drop(client);
    ends_well(server);

    let server = open();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("get a"), "value 1 and more");
    assert_eq!(client.ask("get b"), "value 2");
    drop(client);
    ends_well(server);
}

#[test]
fn nothing_that_a_client_says_is_sql() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pairs.db");
    let server = start(
        launch(
            &c::build("c-examples/blocking_sqlite.c", &["-lsqlite3"]),
            &["127.0.0.1:0", database.to_str().unwrap()],
        ),
        "process",
    );
    let mut client = Client::connect(server.address());
    for key in ["'); DROP TABLE pairs; --", "' OR '1' = '1", "\0", "ключ"] {
        let key = key.replace(' ', "_");
        assert_eq!(client.ask(&format!("get {key}")), "none");
        assert_eq!(client.ask(&format!("set {key} '{key}\0")), "ok");
        assert_eq!(client.ask(&format!("get {key}")), format!("value '{key}\0"));
    }
    assert_eq!(client.ask("set  empty-key"), "ok");
    assert_eq!(client.ask("set empty-value "), "ok");
    assert_eq!(client.ask("get empty-value"), "value");
    for wrong in ["", "set", "set ", "set key", "get", "get ", "drop a"] {
        let answer = client.ask(wrong);
        assert!(answer.starts_with("error "), "{wrong}: {answer}");
    }

    // Both workers write at once, and wait for each other.
    let writers = [(); 2].map(|()| Client::connect(server.address()));
    thread::scope(|scope| {
        for mut writer in writers {
            scope.spawn(move || {
                for i in 0..50 {
                    assert_eq!(writer.ask(&format!("set shared {i}")), "ok");
                }
            });
        }
    });
    assert_eq!(client.ask("get shared"), "value 49");
    drop(client);
    ends_well(server);
}

#[test]
fn a_full_backlog_answers_nobody() {
    let server = Launch::serve(&["--mode", "base", "--workers", "1", "--backlog", "4"])
        .and(&["--fault", "receive:sleep=1000"])
        .start();
    let mut blocker = Client::connect(server.address());
    blocker.send(b"x");
    blocker.wait_until_read();

    let ended = visit("backlog", &[], server.address(), &["7"]);
    assert!(ended.status.success(), "{ended:?}");
    let mut expected: Vec<String> = (1..=5)
        .map(|n| format!("client  {n}: connected; {n} in the queue, limit 4"))
        .collect();
    expected.extend(
        (6..=7).map(|n| {
            format!("client  {n}: no answer, its SYN was dropped; 5 in the queue, limit 4")
        }),
    );
    assert_eq!(ended.stdout, expected.join("\n"));
    assert_eq!(accept_queue(server.address()), Some(5));
}

#[test]
fn a_master_empties_its_backlog_while_the_worker_sleeps() {
    let server = Launch::serve(&["--workers", "1", "--backlog", "4"])
        .and(&["--fault", "receive:sleep=1000"])
        .start();
    let address = server.address();
    let ended = visit("backlog", &[], address, &["12"]);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stdout.matches(": connected; ").count(), 12);
    assert!(ended.stdout.contains("; 0 in the queue, limit 4"));
    eventually(SOON, "the queue is empty", || {
        accept_queue(address) == Some(0)
    });

    drop(server);
    let ended = visit("backlog", &[], address, &["1"]);
    assert_eq!(ended.stdout, "client  1: Connection refused");
}

#[test]
fn epoll_echo_sends_back_what_came() {
    let mut server = start(launch(&example("epoll_echo"), &["0"]), "bare");
    let mut client = Client::connect(server.address());
    client.echo(b"hello");
    let bytes = pattern(1, 1 << 20);
    thread::scope(|scope| {
        let mut sender = client.handle();
        let bytes = &bytes;
        scope.spawn(move || {
            sender.send(bytes);
            sender.half_close();
        });
        assert!(client.read_to_end() == *bytes);
    });
    assert!(!server.has_ended());
    assert_eq!(server.log().text(), "");
}

#[test]
fn in_epoll_echo_a_client_that_does_not_read_holds_up_nobody() {
    // What is freed is not kept to be looked at, so that memory tells what is held.
    let options = "quarantine_size_mb=0:thread_local_quarantine_size_kb=0";
    let launch = launch(&example("epoll_echo"), &["0"]).env("ASAN_OPTIONS", options);
    let mut server = start(launch, "bare");
    let bytes = &pattern(2, 16 << 20);
    let held = server.root.memory().private;
    for reads_at_last in [true, false] {
        let mut slow = Client::connect_narrow(server.address());
        thread::scope(|scope| {
            let mut sender = slow.handle();
            let sending = scope.spawn(move || sender.try_send(bytes));
            eventually(SOON, "it is no longer read", || {
                let side = slow.server_side();
                side.is_some_and(|side| side.tx_queue > 0 && side.rx_queue > 0)
            });
            Client::connect(server.address()).echo(&pattern(3, 10_000));
            // A buffer of what it does not read, not all of it.
            assert!(server.root.memory().private < held + (2 << 20));
            if reads_at_last {
                slow.expect(bytes);
            } else {
                slow.give_up();
            }
            assert_eq!(sending.join().unwrap().is_ok(), reads_at_last);
        });
    }
    // The other has gone with its answer unread.
    eventually(SOON, "both are forgotten", || {
        of_server(server.address()).is_empty()
    });
    Client::connect(server.address()).echo(b"still there");
    assert!(!server.has_ended());
    assert_eq!(server.log().text(), "");
}

/// The port that `client_close` says it has.
#[track_caller]
fn its_ends(server: SocketAddr, ended: &Ended) -> (SocketAddr, SocketAddr) {
    let line = ended.stdout.lines().next().expect("a line");
    let port = line.strip_prefix("client_close: connected from port ");
    let port: u16 = port.expect("its port").parse().unwrap();
    (server, (server.ip(), port).into())
}

#[test]
fn client_close_closes_first() {
    let server = serve("echo");
    let ended = visit("client_close", &[], server.address(), &[]);
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stdout.ends_with("\nclient_close: closed"));
    let ends = its_ends(server.address(), &ended);
    eventually(SOON, "gone, and TIME_WAIT", || states(ends) == CLOSED);

    let ended = visit("client_close", &["-s"], server.address(), &[]);
    assert!(ended.status.success(), "{ended:?}");
    let words = [
        "shut the writing side",
        "end of file after 0 bytes",
        "closed",
    ];
    let lines: Vec<&str> = ended.stdout.lines().skip(1).collect();
    assert_eq!(lines, words.map(|word| format!("client_close: {word}")));
    let ends = its_ends(server.address(), &ended);
    eventually(SOON, "gone, and TIME_WAIT", || states(ends) == CLOSED);

    let address = server.address();
    ends_well(server);
    let ended = visit("client_close", &[], address, &[]);
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr, "client_close: connect: Connection refused");
}

/// What a client sees of its message, in which a worker died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// The end of the connection, with this before it.
    End(&'static [u8]),
    /// The answer.
    Answer,
    /// Nothing, and the connection is served on.
    Nothing,
}

#[track_caller]
fn tells(client: &mut Client, message: &str, expected: Seen) {
    client.send(format!("{message}\n").as_bytes());
    match expected {
        Seen::End(before) => assert_eq!(client.read_to_end(), before),
        Seen::Answer => assert_eq!(client.read_line(), message),
        Seen::Nothing => assert_eq!(client.ask("hello"), "hello"),
    }
}

#[test]
fn a_crash_in_c_is_one_more_dead_worker() {
    // How it ends without sanitizers, and with them: they see a NULL write first.
    let crashes = [
        ("abort", "status=0, signal=6", "status=0, signal=6"),
        ("null", "status=0, signal=11", "status=1, signal=0"),
        ("exit", "status=7, signal=0", "status=7, signal=0"),
    ];
    let policies = [
        ("close", Seen::End(b""), Seen::End(b"")),
        ("reply", Seen::End(b"sorry\n"), Seen::End(b"sorry\n")),
        ("redeliver", Seen::Answer, Seen::End(b"")),
        ("keep", Seen::Nothing, Seen::Nothing),
    ];
    let plain = build_plain("tests/c/crash.c");
    let sanitized = c::build("tests/c/crash.c", &[]);
    for (program, is_plain) in [(plain, true), (sanitized, false)] {
        thread::scope(|scope| {
            for (policy, once, always) in policies {
                let program = &program;
                scope.spawn(move || {
                    let server = start(launch(program, &["127.0.0.1:0", policy]), "process");
                    let mut other = Client::connect(server.address());
                    for (crash, plainly, sanely) in crashes {
                        let end = if is_plain { plainly } else { sanely };
                        let words = ["WARN", "worker#0[pid=", "] abnormal exit, ", end];
                        let before = server.log().with(&words).len();
                        let mut client = Client::connect(server.address());
                        tells(&mut client, crash, once);
                        server.logged(before + 1, &words);
                        let mut client = Client::connect(server.address());
                        tells(&mut client, &format!("always {crash}"), always);
                        let deaths = if policy == "redeliver" { 3 } else { 2 };
                        server.logged(before + deaths, &words);
                        if policy == "redeliver" {
                            server.logged(1, &["poison: receive of", "killed 2 workers"]);
                        }
                        // Who was not in it has not noticed.
                        other.echo(b"hello\n");
                    }
                    let deaths = server.log().with(&["abnormal exit"]).len();
                    let mut client = Client::connect(server.address());
                    // An error has the same fate, but that it leaves no client waiting.
                    let failed = if policy == "keep" {
                        Seen::End(b"")
                    } else {
                        once
                    };
                    tells(&mut client, "fail", failed);
                    server.logged(1, &["ERROR worker#0[", "receive of connection", "failed"]);
                    assert_eq!(server.log().with(&["abnormal exit"]).len(), deaths);
                    if is_plain {
                        ends_well(server);
                    } else {
                        let seen = server.log().with(&["runtime error: store to null"]);
                        assert_eq!(seen.len(), if policy == "redeliver" { 3 } else { 2 });
                    }
                });
            }
        });
    }
}
