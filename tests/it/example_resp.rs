//! The examples `resp`, in Rust and in C: their protocol, and increments that happen once whenever its workers die.

use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::common::c;
use crate::common::client::Client;
use crate::common::server::Server;
use crate::common::{SOON, eventually};
use crate::examples::serve;

/// The language of the example.
#[derive(Clone, Copy, Debug)]
pub(crate) enum In {
    Rust,
    C,
}

impl In {
    /// Starts the example of this name, with a database of its own.
    #[track_caller]
    pub(crate) fn start(self, name: &str, more: &[&str]) -> (tempfile::TempDir, Server) {
        let folder = tempfile::tempdir().expect("a folder for the database");
        let database = folder.path().join("database");
        let database = database.to_str().expect("a path in UTF-8");
        let server = match self {
            In::Rust => serve(name, &[&[database], more].concat()),
            In::C => {
                let program = c::build(&format!("c-examples/{name}.c"), &["-lsqlite3"]);
                let arguments = [&["127.0.0.1:0", database], more].concat();
                c::start(c::launch(&program, &arguments), "process")
            }
        };
        (folder, server)
    }
}

#[track_caller]
fn start(language: In, more: &[&str]) -> (tempfile::TempDir, Server) {
    language.start("resp", more)
}

#[test]
fn it_answers_clients_of_redis() {
    answers(In::Rust);
    answers(In::C);
}

#[track_caller]
fn answers(language: In) {
    eprintln!("{language:?}");
    let (_folder, server) = start(language, &[]);
    let mut client = Client::connect(server.address());
    for (command, reply) in [
        ("PING\r\n", "+PONG\r\n"),
        ("\r\n*0\r\n*1\r\n$4\r\nping\r\n", "+PONG\r\n"),
        ("*2\r\n$4\r\nECHO\r\n$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
        ("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n41\r\n", "+OK\r\n"),
        ("INCR k\r\nGET k\r\n", ":42\r\n$2\r\n42\r\n"),
        (
            "EXISTS k\r\nDEL k\r\nDEL k\r\nGET k\r\n",
            ":1\r\n:1\r\n:0\r\n$-1\r\n",
        ),
        ("SET k 9223372036854775807\r\n", "+OK\r\n"),
        (
            "INCR k\r\n",
            "-ERR value is not an integer or out of range\r\n",
        ),
        (
            "SET k\r\n",
            "-ERR unknown command, or a wrong number of arguments\r\n",
        ),
        (
            "CONFIG GET save\r\nCOMMAND DOCS\r\n",
            "*2\r\n$4\r\nsave\r\n$0\r\n\r\n*0\r\n",
        ),
    ] {
        client.send(command.as_bytes());
        client.expect(reply.as_bytes());
    }
    takes_numbers(&mut client);
    if matches!(language, In::Rust) {
        client.send(b"SET k 5\r\nINCRBY k 9\r\nDECRBY k 2\r\nDECRBY k -9223372036854775808\r\n");
        client.expect(b"+OK\r\n:14\r\n:12\r\n-ERR value is not an integer or out of range\r\n");
        client.send(b"EXISTS k k none\r\nDEL k none\r\n");
        client.expect(b":2\r\n:1\r\n");
        client.send(b"HELLO 3\r\nSET k 5\r\nINCRBY k +5\r\n");
        client.expect(b"-NOPROTO this is RESP 2\r\n+OK\r\n");
        client.expect(b"-ERR value is not an integer or out of range\r\n");
    }
    // In parts of one byte.
    for byte in *b"*2\r\n$3\r\nGET\r\n$4\r\nnone\r\n" {
        client.send(&[byte]);
    }
    client.expect(b"$-1\r\n");
    client.send(b"QUIT\r\n");
    client.expect(b"+OK\r\n");
    client.expect_closed();
}

/// A number is taken in one form only, and words have limits.
#[track_caller]
fn takes_numbers(client: &mut Client) {
    for value in [
        "",
        "+5",
        "05",
        "-0",
        " 5",
        "5 ",
        "5\0",
        "-9223372036854775809",
    ] {
        let len = value.len();
        client.send(
            format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${len}\r\n{value}\r\nINCR k\r\n").as_bytes(),
        );
        client.expect(b"+OK\r\n-ERR value is not an integer or out of range\r\n");
    }
    // Sixteen words are the most that the one in C takes. A NUL is a byte as any.
    client.send(b"ECHO 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\r\nECHO a\0b\r\n");
    client.expect(b"-ERR unknown command, or a wrong number of arguments\r\n$3\r\na\0b\r\n");
}

#[test]
fn what_is_no_command_is_refused() {
    refuses(In::Rust);
    refuses(In::C);
}

#[track_caller]
fn refuses(language: In) {
    let (_folder, server) = start(language, &[]);
    for bytes in [
        "*x\r\n",
        "*1\r\n:4\r\n",
        "*1\r\n$+4\r\nPING\r\n",
        "*1\r\n$4\r\nPINGxx",
        "*1025\r\n",
        "*1\r\n$99999999999999999999\r\n",
        "*2\r\n$4194305\r\n",
        "*1\r\n$00000000000000000000000000000000",
        "*3\r\n$4194304\r\n",
    ] {
        let mut client = Client::connect(server.address());
        client.send(format!("PING\r\n{bytes}").as_bytes());
        client.half_close();
        let said = client.read_to_end();
        let said = String::from_utf8_lossy(&said);
        // What is longer than a command can be is cut off without a word if its end does not come.
        assert!(
            said == "+PONG\r\n-ERR Protocol error\r\n"
                || bytes.ends_with("4194304\r\n") && said == "+PONG\r\n",
            "{bytes:?}: {said:?}"
        );
    }
}

#[test]
fn an_increment_whose_worker_dies_behind_the_commit_happens_once() {
    dies_after_commit(In::Rust);
    dies_after_commit(In::C);
}

#[track_caller]
fn dies_after_commit(language: In) {
    let (_folder, server) = start(language, &["--die-after-commit"]);
    let mut client = Client::connect(server.address());
    for number in 1..=10 {
        client.send(b"INCR k\r\n");
        client.expect(format!(":{number}\r\n").as_bytes());
    }
    server.logged(10, &["abnormal exit", "signal=6"]);
}

#[test]
fn increments_happen_once_while_workers_are_killed() {
    counts(In::Rust);
    counts(In::C);
}

#[track_caller]
fn counts(language: In) {
    let (folder, server) = start(language, &[]);
    let end = Instant::now() + Duration::from_secs(3);
    let address = server.address();
    let clients = (0..4).map(|key| {
        thread::spawn(move || {
            let (mut client, mut count) = (Client::connect(address), 0);
            let batch = format!("INCR {key}\r\n").repeat(8);
            while Instant::now() < end {
                client.send(batch.as_bytes());
                for _ in 0..8 {
                    count += 1;
                    client.expect(format!(":{count}\r\n").as_bytes());
                }
            }
            count
        })
    });
    server.kill_workers_under(clients.collect(), 100, || Instant::now() < end);
    let database = Connection::open(folder.path().join("database")).expect("the database");
    eventually(
        SOON,
        "no reply is kept for connections that are gone",
        || {
            let kept = database.query_row("SELECT count(*) FROM replies", (), |row| row.get(0));
            kept == Ok(0)
        },
    );
}
