//! The servers in `c-examples` that use the library, built under sanitizers, do what their comments say.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use procfs::net::TcpState;

use crate::common::c::{self, ends_well, example, launch, start};
use crate::common::client::Client;
use crate::common::server::Server;
use crate::common::sockets::state;
use crate::common::{SOON, eventually, keeps};
use crate::examples::{a_silent_client_is_left, reload_reaches_every_worker, the_folder_is_served};

/// A server of `c-examples` in process mode, on a free port.
#[track_caller]
pub(crate) fn serve(name: &str) -> Server {
    start(launch(&example(name), &["127.0.0.1:0"]), "process")
}

/// A client that connects and closes: the two ends of its connection, the server's first.
#[track_caller]
fn come_and_go(server: SocketAddr) -> (SocketAddr, SocketAddr) {
    let client = Client::connect(server);
    client.accepted();
    client.ends()
}

/// Returns the states of both ends of a connection, the server's first.
pub(crate) fn states((here, there): (SocketAddr, SocketAddr)) -> [Option<TcpState>; 2] {
    [state(here, there), state(there, here)]
}

const LEAKED: [Option<TcpState>; 2] = [Some(TcpState::CloseWait), Some(TcpState::FinWait2)];
pub(crate) const CLOSED: [Option<TcpState>; 2] = [None, Some(TcpState::TimeWait)];

#[track_caller]
pub(crate) fn kill_all_workers(server: &Server) {
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
    // The other tests here rely on this: without it they could not fail.
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
    // At its deadline.
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

/// Returns when both are in the room: `one` has received a line of `other`, and all of its lines.
#[track_caller]
fn meet(one: &mut Client, other: &mut Client) {
    eventually(SOON, "one receives a line of the other", || {
        other.send(b"knock\n");
        one.has_news()
    });
    other.send(b"here\n");
    eventually(SOON, "all lines are received", || one.read_line() == "here");
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
        // Also while a worker dies, the others get the line once.
        let line = format!("in the middle of death {round}\n");
        c.send(line.as_bytes());
        kill_all_workers(&server);
        a.expect(line.as_bytes());
        b.expect(line.as_bytes());
    }
    // No other line was sent.
    c.send(b"bye\n");
    a.expect(b"bye\n");
    b.expect(b"bye\n");
    assert!(!c.has_news(), "no client gets its own line");
    drop((a, b, c));
    ends_well(server);
}

/// Returns the answer of the chat to `/who`. Lines of others may come before it.
fn who(client: &mut Client) -> String {
    client.send(b"/who\n");
    loop {
        let line = client.read_line();
        if line.ends_with(" in this room") {
            return line;
        }
    }
}

#[test]
fn the_rooms_of_the_chat_have_their_clients_until_these_leave() {
    let server = serve("chat");
    let [mut a, mut b, mut c] = [(); 3].map(|()| Client::connect(server.address()));
    meet(&mut a, &mut b);
    meet(&mut a, &mut c);
    // One after the other: there is no order between the callbacks of two connections.
    a.send(b"/join den\n");
    assert_eq!(who(&mut a), "* 1 in this room");
    b.send(b"/join den\n");
    eventually(SOON, "the other has come", || {
        a.read_line() == "* Somebody has come."
    });
    assert_eq!(who(&mut a), "* 2 in this room");
    kill_all_workers(&server);
    a.send(b"hello\n");
    eventually(SOON, "all lines are received", || b.read_line() == "hello");
    assert_eq!(who(&mut b), "* 2 in this room");
    drop(a);
    eventually(SOON, "it has left", || who(&mut b) == "* 1 in this room");
    b.send(format!("/join {}\n", "x".repeat(129)).as_bytes());
    eventually(SOON, "that is refused", || {
        b.read_line() == "* That name is too long."
    });
    drop((b, c));
    ends_well(server);
}

fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_be_bytes()[..], body].concat()
}

#[test]
fn length_server_answers_messages_however_they_are_cut() {
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

    // So that the bytes after a message in memory would be an operation.
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
fn length_server_refuses_a_message_that_is_too_long() {
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
    server.logged(1, &["worker#", "a client was refused"]);
    ends_well(server);
}

/// The answer of a worker of `worker_state`.
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

#[test]
fn notice_reloads_in_every_worker_and_leaves_silent_clients() {
    let folder = tempfile::tempdir().expect("a folder for the text");
    let file = folder.path().join("notice.txt");
    let path = file.to_str().expect("a path in UTF-8");
    fs::write(&file, "closed on Monday\n").expect("the file can be written");
    let serve = |milliseconds| {
        let arguments = ["127.0.0.1:0", path, milliseconds];
        start(launch(&example("notice"), &arguments), "process")
    };
    let server = serve("50");
    a_silent_client_is_left(&server);
    ends_well(server);
    let server = serve("3600000");
    reload_reaches_every_worker(&server, &file);
    ends_well(server);
}

#[test]
fn file_server_sends_the_files_of_its_folder_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path in UTF-8");
    let arguments = ["127.0.0.1:0", path];
    let server = start(launch(&example("file_server"), &arguments), "process");
    the_folder_is_served(&server, folder.path());
    ends_well(server);
}
