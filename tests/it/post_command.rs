//! `tine post`: what other programs post to a server.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::socket::MsgFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, send, socket};
use tine::To;
use tine::status::{AskError, PostError, Refused, post};

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::{Launch, PROGRAM};
use crate::common::server::Server;
use crate::common::{SOON, eventually};

fn script(mode: &str) -> Server {
    Launch::testbed("script", mode).and(&["workers=2"]).start()
}

/// The process to send signals to.
fn pid(server: &Server) -> i32 {
    match server.is_base() {
        true => server.manager().pid,
        false => server.master().pid,
    }
}

/// Runs `tine post`, with this standard input. Returns its exit status and its complaint.
fn run(arguments: &[&str], input: &[u8]) -> (Option<i32>, String) {
    let mut child = Command::new(PROGRAM)
        .arg("post")
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tine");
    let mut stdin = child.stdin.take().expect("its input");
    // It need not read.
    let _ = stdin.write_all(input);
    drop(stdin);
    let ended = child.wait_with_output().expect("its end");
    let complaint = String::from_utf8_lossy(&ended.stderr).into_owned();
    (ended.status.code(), complaint)
}

const TAKEN: (Option<i32>, String) = (Some(0), String::new());

#[test]
fn the_command_posts_to_workers_of_either_mode() {
    for mode in ["process", "base"] {
        let server = script(mode);
        let pid = pid(&server).to_string();
        // One of each worker, since in base mode a worker reaches its own alone.
        let mut clients: Vec<Client> = Vec::new();
        let mut seats = HashSet::new();
        eventually(SOON, "each worker has a client", || {
            let mut client = Client::connect(server.address());
            if seats.insert(client.ask_number("seat")) {
                clients.push(client);
            }
            seats.len() == 2
        });
        for client in &mut clients {
            let (id, seat) = (client.ask("id"), client.ask_number("seat"));
            let arrived = |text| format!("posted {text} in {seat} attempt 0");
            let to = format!("seat:{seat}");
            assert_eq!(run(&["--to", &to, &pid, &format!("{id} a")], b""), TAKEN);
            assert_eq!(client.read_line(), arrived("a"), "{mode}");
            let input = format!("{id} b").into_bytes();
            assert_eq!(run(&["--to", &to, &pid, "-"], &input), TAKEN);
            assert_eq!(client.read_line(), arrived("b"), "{mode}");
            assert_eq!(run(&["--to", "all", &pid, &format!("{id} c")], b""), TAKEN);
            let lines = match mode {
                "base" => vec![client.read_line()],
                _ => vec![client.read_line(), client.read_line()],
            };
            assert!(lines.contains(&arrived("c")), "{mode}: {lines:?}");
        }
        let id = clients[0].ask("id");
        assert_eq!(run(&[&pid, &format!("{id} d")], b""), TAKEN);
        if mode == "process" {
            assert!(clients[0].read_line().starts_with("posted d in "));
        }
    }
}

#[test]
fn what_is_refused_has_a_reason_and_an_exit_status() {
    for mode in ["process", "base"] {
        let server = script(mode);
        let pid = pid(&server).to_string();
        let (status, why) = run(&["--to", "seat:2", &pid, "a"], b"");
        assert_eq!(status, Some(3), "{mode}: {why}");
        assert!(why.contains("there are 2, from 0"), "{why}");
        let (status, why) = run(&[&pid, "-"], &[b'x'; 65_537]);
        assert_eq!(status, Some(3), "{why}");
        assert!(why.contains("at most 65536 bytes"), "{why}");
        let own = std::process::id().to_string();
        let (status, why) = run(&[&own, "a"], b"");
        assert_eq!(status, Some(1));
        assert!(why.contains("takes no posts"), "{why}");
        assert_eq!(run(&["/nowhere", "a"], b"").0, Some(1));
        assert_eq!(run(&["--to", "seat", &pid, "a"], b"").0, Some(2));
        assert_eq!(run(&["--to", "none", &pid, "a"], b"").0, Some(2));
    }
}

#[test]
fn a_pid_file_names_the_server() {
    let gates = Gates::new();
    let file = gates.path("pid");
    let path = file.to_str().expect("a path");
    let server = Launch::serve(&["--pid-file", path]).start();
    assert_eq!(run(&["--to", "all", path, "a"], b""), TAKEN);
    assert!(server.log().with(&["abnormal exit"]).is_empty());
}

#[test]
fn a_worker_that_is_blocked_gets_so_much_and_no_more() {
    for mode in ["process", "base"] {
        let gates = Gates::new();
        let server = Launch::testbed("script", mode)
            .and(&["workers=1", "memory-budget=60000000", &gates.flag()])
            .start();
        let mut client = Client::connect(server.address());
        let id = client.ask("id");
        client.send(b"wait gate\n");
        eventually(SOON, "the worker is in its callback", || {
            server
                .workers()
                .iter()
                .any(|it| it.is_asleep_in_a_callback())
        });
        let (pid, bytes) = (pid(&server), format!("{id} {}", "x".repeat(60_000)));
        let mut taken = 0;
        let refused = loop {
            match post(pid, To::Seat(0), bytes.as_bytes(), SOON) {
                Ok(()) => taken += 1,
                Err(PostError::Refused(refused)) => break refused,
                Err(error) => panic!("{mode}: {error}"),
            }
            assert!(taken < 2000, "{mode}");
        };
        assert_eq!(refused, Refused::Full, "{mode}");
        gates.open("gate");
        assert!(client.read_line().starts_with("waited"));
        for _ in 0..taken {
            assert!(client.read_line().starts_with("posted xxx"), "{mode}");
        }
        assert_eq!(post(pid, To::All, b"", SOON).ok(), Some(()), "{mode}");
    }
}

#[test]
fn a_connection_is_reached_by_its_id_where_the_master_has_it() {
    let server = script("process");
    let mut client = Client::connect(server.address());
    let id = client.ask("id");
    let conn = tine::ConnId::from_u64(id.parse().expect("a number")).expect("an id");
    let bytes = format!("{id} a");
    assert!(post(pid(&server), To::Owner(conn), bytes.as_bytes(), SOON).is_ok());
    assert!(client.read_line().starts_with("posted a in "));
    let base = script("base");
    let refused = post(pid(&base), To::Owner(conn), b"", SOON);
    assert!(matches!(refused, Err(PostError::Refused(Refused::NoOwner))));
}

/// Opens a connection as `tine post` does.
fn caller(pid: i32) -> Option<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    let name = UnixAddr::new_abstract(format!("tine/{pid}/post").as_bytes()).expect("a name");
    connect(fd.as_raw_fd(), &name).ok().map(|()| fd)
}

#[test]
fn callers_that_say_nothing_or_nonsense_are_dropped() {
    for mode in ["process", "base"] {
        let server = script(mode);
        let pid = pid(&server);
        let silent: Vec<OwnedFd> = (0..100).filter_map(|_| caller(pid)).collect();
        let loud: Vec<OwnedFd> = (0..100).filter_map(|_| caller(pid)).collect();
        for fd in &loud {
            let _ = send(fd.as_raw_fd(), &[7; 40], MsgFlags::MSG_NOSIGNAL);
        }
        assert_eq!(
            Client::connect(server.address()).ask("echo here"),
            "echo here"
        );
        eventually(SOON, "posts are taken again", || {
            match post(pid, To::LeastBusy, b"", Duration::from_secs(1)) {
                Ok(()) => true,
                Err(PostError::NoAnswer(AskError::Silent(_) | AskError::System(_))) => false,
                Err(error) => panic!("{mode}: {error}"),
            }
        });
        drop((silent, loud));
    }
}

#[test]
fn another_user_can_not_post() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can be two users");
    }
    for mode in ["process", "base"] {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        let (id, seat) = (client.ask("id"), client.ask("seat"));
        let program = format!(
            "import socket\n\
             s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
             s.settimeout(60)\n\
             s.connect('\\0tine/{}/post')\n\
             try:\n\
             \x20   s.send(bytes([1, 0, 0, 0, 0, 0, 0, 0, {seat}, 0, 0, 0, 0, 0, 0, 0]) + b'{id} a')\n\
             \x20   print(s.recv(100))\n\
             except (BrokenPipeError, ConnectionResetError):\n\
             \x20   print(b'')",
            pid(&server)
        );
        let posted_by = |user: u32| {
            let mut python = Command::new("python3");
            python.args(["-c", &program]).current_dir("/").uid(user);
            let output = python.output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let Some(own) = posted_by(0) else {
            return eprintln!("SKIPPED: no python3");
        };
        assert_eq!(own, r#"b'{"Ok":null}'"#, "{mode}");
        assert!(client.read_line().starts_with("posted a in "), "{mode}");
        assert_eq!(posted_by(65534).as_deref(), Some("b''"), "{mode}");
        assert_eq!(client.ask("echo here"), "echo here", "{mode}");
    }
}
