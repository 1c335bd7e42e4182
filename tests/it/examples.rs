//! The programs in `examples`, started as in their comments, do what these say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::{Launch, PROGRAM};
use crate::common::make::said;
use crate::common::server::Server;
use crate::common::{SOON, eventually, root};

/// Builds all of them, once, as `cargo test` does: after that there is nothing to do.
fn built(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let profile = Path::new(PROGRAM).parent().expect("a program in a folder");
        let target = profile.parent().expect("the target folder");
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args([
                "build",
                "--quiet",
                "--workspace",
                "--examples",
                "--all-features",
            ])
            .arg("--target-dir")
            .arg(target)
            .current_dir(root());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        said(&mut cargo);
        profile.join("examples")
    });
    folder.join(name)
}

/// An example that serves on a free port, with more arguments.
#[track_caller]
pub(crate) fn serve(name: &str, more: &[&str]) -> Server {
    let arguments = [&["127.0.0.1:0"], more].concat();
    Launch::listening(&built(name), &arguments).start()
}

#[track_caller]
fn kill_all_workers(server: &Server) {
    let workers = server.workers();
    for worker in &workers {
        worker.signal(Signal::SIGKILL);
    }
    server.new_workers(workers.len(), &workers);
}

#[test]
fn echo_answers_over_the_death_of_its_workers() {
    let server = serve("echo", &[]);
    let mut client = Client::connect(server.address());
    client.echo(b"hello");
    kill_all_workers(&server);
    client.echo(b"again");
}

#[test]
fn lines_adds_refuses_and_quits() {
    let server = serve("lines", &[]);
    let mut client = Client::connect(server.address());
    client.send(b"add 2 3\nadd 40 2\n\nsub 1 1\nadd x 1\n");
    client.expect(
        b"5\n42\nerror: the commands are: add A B, quit\nerror: add takes two whole numbers\n",
    );
    client.send(b"quit\n");
    client.expect_closed();
}

#[test]
fn length_prefixed_transforms_messages_and_refuses_one_that_is_too_long() {
    let server = serve("length_prefixed", &[]);
    let mut client = Client::connect(server.address());
    client.send(b"\0\0\0\x04Uabc\0\0\0\x04Rabc\0\0\0\x01X");
    client.expect(b"\0\0\0\x03ABC\0\0\0\x03cba\0\0\0\x01?");
    client.send(b"\x7f\xff\xff\xff");
    client.expect_closed();
}

#[test]
fn ledger_applies_each_order_once_although_its_workers_die_after_the_commit() {
    let folder = tempfile::tempdir().expect("a folder for the database");
    let database = folder.path().join("ledger.db");
    let database = database.to_str().expect("a path in UTF-8");
    let server = serve("ledger", &[database, "--die-after-commit"]);
    let mut client = Client::connect(server.address());
    for order in 1..=5 {
        client.send(format!("order-{order} alice 100\n").as_bytes());
        client.expect(format!("alice {}\n", order * 100).as_bytes());
    }
    // A client that repeats its order, as after a lost connection.
    let mut again = Client::connect(server.address());
    again.send(b"order-3 alice 100\n");
    again.expect(b"alice 300\n");
    again.send(b"order-6 alice\n");
    again.expect(b"error: KEY ACCOUNT AMOUNT is expected\n");
    again.send(b"order-6 alice much\n");
    again.expect(b"error: AMOUNT must be a whole number\n");
    again.send(b"order-6 alice -500\n");
    again.expect(b"alice 0\n");
}

#[test]
fn crashy_answers_every_client_and_only_the_fatal_line_is_refused() {
    let server = serve("crashy", &[]);
    let mut other = Client::connect(server.address());
    for _ in 0..3 {
        let mut client = Client::connect(server.address());
        client.send(b"key=value\n");
        client.expect(b"200 key is value\n");
        client.send(b"novalue\n");
        client.expect(b"502 the request could not be processed\n");
        client.expect_closed();
        other.send(b"a=b\n");
        other.expect(b"200 a is b\n");
    }
    server.logged(3, &["abnormal exit", "signal=11"]);
}

#[test]
fn chat_delivers_to_all_others_and_survives_its_workers() {
    let server = serve("chat", &[]);
    let mut members: Vec<Client> = (0..3).map(|_| Client::connect(server.address())).collect();
    members
        .iter_mut()
        .for_each(|member| member.expect(b"Welcome.\n"));
    for speaker in 0..3 {
        say(&mut members, speaker, "hello");
    }
    kill_all_workers(&server);
    say(&mut members, 1, "still here");
    // The third goes to another room.
    assert_eq!(members[0].ask("/who"), "* 3 in this room");
    members[2].send(b"/join den\n");
    members[0].expect(b"* Somebody has left.\n");
    members[1].expect(b"* Somebody has left.\n");
    assert_eq!(members[2].ask("/who"), "* 1 in this room");
    let mut fourth = Client::connect(server.address());
    fourth.expect(b"Welcome.\n");
    fourth.send(b"/join den\n");
    for member in &mut members[..2] {
        member.expect(b"* Somebody has left.\n");
    }
    members[2].expect(b"* Somebody has come.\n");
    kill_all_workers(&server);
    say(&mut members[..2], 0, "lobby");
    fourth.send(b"den\n");
    members[2].expect(b"den\n");
    drop(fourth);
    members[2].expect(b"* Somebody has left.\n");
    let long = "x".repeat(129);
    let refused = members[2].ask(&format!("/join {long}"));
    assert_eq!(refused, "* That name is too long.");
}

/// A member sends a line, and all others receive it.
#[track_caller]
fn say(members: &mut [Client], speaker: usize, what: &str) {
    let line = format!("{what} from {speaker}\n");
    members[speaker].send(line.as_bytes());
    for (number, member) in members.iter_mut().enumerate() {
        if number != speaker {
            member.expect(line.as_bytes());
        }
    }
}

/// A server `notice`, in Rust or in C, and its file: `reload` brings a new text to every worker.
#[track_caller]
pub(crate) fn reload_reaches_every_worker(server: &Server, file: &Path) {
    let workers = server.workers();
    let mut clients: Vec<Client> = (workers.iter())
        .map(|_| {
            let mut client = Client::connect(server.address());
            client.expect(b"closed on Monday\n");
            client
        })
        .collect();
    fs::write(file, "closed on Tuesday\n").expect("the file can be written");
    for client in &mut clients {
        assert_eq!(client.ask("show"), "closed on Monday");
    }
    clients[0].send(b"reload\n");
    for client in &mut clients {
        eventually(SOON, "its worker has the new text", || {
            client.ask("show") == "closed on Tuesday"
        });
    }
    kill_all_workers(server);
    for client in &mut clients {
        assert_eq!(client.ask("show"), "closed on Tuesday");
    }
}

/// A server `notice` with a timer of a few milliseconds asks its silent client once, and leaves it then.
#[track_caller]
pub(crate) fn a_silent_client_is_left(server: &Server) {
    let mut client = Client::connect(server.address());
    client.expect(b"closed on Monday\nping\nbye\n");
    client.expect_closed();
}

#[test]
fn notice_reloads_in_every_worker_and_leaves_silent_clients() {
    let folder = tempfile::tempdir().expect("a folder for the text");
    let file = folder.path().join("notice.txt");
    let path = file.to_str().expect("a path in UTF-8");
    fs::write(&file, "closed on Monday\n").expect("the file can be written");
    a_silent_client_is_left(&serve("notice", &[path, "50"]));
    reload_reaches_every_worker(&serve("notice", &[path, "3600000"]), &file);
}

/// A request of HTTP/1.0 for a target, and the answer, whole.
#[track_caller]
fn get(server: &Server, target: &str) -> Vec<u8> {
    let mut client = Client::connect(server.address());
    client.send(format!("GET {target} HTTP/1.0\r\nHost: here\r\n\r\n").as_bytes());
    client.read_to_end()
}

/// A server `file_server`, in Rust or in C, sends the files of its folder and no others, over the death of its workers.
#[track_caller]
pub(crate) fn the_folder_is_served(server: &Server, folder: &Path) {
    let inside = folder.join("in side");
    fs::create_dir_all(&inside).expect("a folder");
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_ne_bytes).collect();
    fs::write(inside.join("file"), &bytes).expect("the file can be written");
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).expect("a link");
    let head = "HTTP/1.0 200 OK\r\nContent-Length: 12000000\r\nConnection: close\r\n\r\n";
    let whole = [head.as_bytes(), &bytes].concat();
    assert!(get(server, "/in%20side/file") == whole);
    assert!(get(server, "/in%20side/../in%20side/file?query") == whole);
    let mut client = Client::connect_narrow(server.address());
    client.send(b"GET /in%20side/file HTTP/1.0\r\n\r\n");
    client.await_bytes();
    kill_all_workers(server);
    assert!(client.read_to_end() == whole);
    for (target, status) in [
        ("/none", "404 Not Found"),
        ("/in%20side", "404 Not Found"),
        ("/../x", "403 Forbidden"),
        ("//etc/passwd", "403 Forbidden"),
        ("/link", "403 Forbidden"),
        ("/%2e%2e/x", "403 Forbidden"),
        ("/%0", "400 Bad Request"),
        ("/%00", "400 Bad Request"),
    ] {
        let answer = String::from_utf8(get(server, target)).expect("text");
        let expected = format!("HTTP/1.0 {status}\r\n");
        assert!(answer.starts_with(&expected), "{target}: {answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{status}\n")), "{target}");
    }
}

#[test]
fn file_server_sends_the_files_of_its_folder_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path in UTF-8");
    the_folder_is_served(&serve("file_server", &[path]), folder.path());
}
