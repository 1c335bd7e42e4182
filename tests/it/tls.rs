//! TLS: what goes through it is what was sent, in both modes and whatever happens to the workers; and who can't have
//! it is refused.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::tls::{Authority, TlsClient};
use crate::common::{SOON, eventually, eventually_some};

const MODES: [&str; 2] = ["process", "base"];

/// Starts an echo server with a certificate for `localhost`.
fn serve(authority: &Authority, flags: &[&str]) -> Server {
    let pair = authority.pair("localhost");
    Launch::serve(&["--workers", "2", "--tls", &pair])
        .and(flags)
        .start()
}

fn for_localhost() -> Authority {
    let authority = Authority::new();
    authority.vouch_for("localhost");
    authority
}

/// Starts a server that carries out commands.
fn script(authority: &Authority, mode: &str, options: &[&str]) -> Server {
    let folder = format!("tls={}", authority.folder().display());
    Launch::testbed("script", mode)
        .and(&[&folder])
        .and(options)
        .start()
}

/// Returns these many bytes, no two runs of which are alike.
fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8)
        .collect()
}

/// Sends bytes in pieces of this length, and reads what comes back meanwhile.
#[track_caller]
fn echo_in_pieces(client: &mut TlsClient, bytes: &[u8], piece: usize) {
    // As many as the server takes without being read.
    for part in bytes.chunks(256 << 10) {
        for piece in part.chunks(piece) {
            client.send(piece);
        }
        client.expect(part);
    }
}

#[test]
fn every_byte_comes_back() {
    let authority = for_localhost();
    for mode in MODES {
        for only_1_2 in [false, true] {
            let server = serve(&authority, &["--mode", mode]);
            let mut dial = authority.dial();
            dial.only_1_2 = only_1_2;
            for (len, piece) in [(1, 1), (3000, 7), (1 << 20, 16_384), (5 << 20, 100_000)] {
                let mut client = dial.connect(server.address());
                echo_in_pieces(&mut client, &bytes(len), piece);
                client.half_close();
                assert_eq!(client.read_to_end(), b"");
            }
        }
    }
}

#[test]
fn openssl_speaks_with_it() {
    let authority = for_localhost();
    let server = serve(&authority, &["--protocol", "lines"]);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-quiet", "-verify_return_error", version])
            .arg("-CAfile")
            .arg(authority.path("ca.pem"))
            .args(["-servername", "localhost", "-verify_hostname", "localhost"])
            .args(["-connect", &server.address().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut client = command.spawn().expect("openssl");
        let mut input = client.stdin.take().expect("a pipe");
        input.write_all(b"hello\n").expect("openssl reads");
        let mut answer = [0; 6];
        let mut output = client.stdout.take().expect("a pipe");
        output.read_exact(&mut answer).expect("an echo");
        assert_eq!(&answer, b"hello\n");
        drop(input);
        client.kill().expect("its own process");
        client.wait().expect("its own process");
    }
}

#[test]
fn no_byte_is_lost_while_workers_die_and_are_replaced() {
    let authority = for_localhost();
    let flags = ["--on-crash", "redeliver=200", "--reactors", "2"];
    let server = serve(&authority, &flags);
    let (address, dial) = (server.address(), authority.dial());
    let end = Instant::now() + Duration::from_secs(2);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let dial = &dial;
                scope.spawn(move || {
                    let mut client = dial.connect(address);
                    let (bytes, mut rounds) = (bytes(10_000 + number), 0);
                    while Instant::now() < end {
                        client.echo(&bytes[rounds % 100..]);
                        rounds += 1;
                    }
                    client.half_close();
                    assert_eq!(client.read_to_end(), b"");
                    rounds
                })
            })
            .collect();
        server.signal(Signal::SIGUSR1);
        let kills = server.kill_workers(Duration::from_millis(50), || Instant::now() < end);
        let rounds: usize = clients
            .into_iter()
            .map(|it| it.join().expect("no panic"))
            .sum();
        assert!(kills > 5 && rounds > 50, "{kills} kills, {rounds} rounds");
    });
}

#[test]
fn a_callback_knows_what_was_agreed_on() {
    let authority = for_localhost();
    authority.vouch_for("other.example");
    authority.vouch_for("client.example");
    for mode in MODES {
        let server = script(&authority, mode, &["tls-clients=optional", "alpn=one,two"]);
        let mut dial = authority.dial();
        dial.protocols = vec![b"two".to_vec(), b"three".to_vec()];
        let mut client = dial.connect(server.address());
        assert_eq!(
            client.ask("origin"),
            "tls=TLSv1.3 name=localhost protocol=two certificate=none proxy=none"
        );
        // Another name, another certificate, which the client verifies.
        let mut dial = authority.dial();
        dial.name = "other.example".to_owned();
        dial.certificate = Some(authority.path("client.example"));
        dial.only_1_2 = true;
        let mut client = dial.connect(server.address());
        let line = client.ask("origin");
        let (line, certificate) = line.split_once(" certificate=").expect("a certificate");
        assert_eq!(line, "tls=TLSv1.2 name=other.example protocol=none");
        assert!(certificate.parse::<usize>().is_err() && certificate.starts_with(char::is_numeric));
        // The same after a reload, in another worker, for a later message.
        server.signal(Signal::SIGUSR1);
        server.logged(1, &["reload finished"]);
        if mode == "process" {
            assert!(client.ask("origin").starts_with(line));
        }
        // None of the protocols of the server.
        let mut dial = authority.dial();
        dial.protocols = vec![b"four".to_vec()];
        assert!(dial.try_connect(server.address()).is_err());
    }
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_asked_for() {
    let (authority, strangers) = (for_localhost(), Authority::new());
    authority.vouch_for("client.example");
    strangers.vouch_for("stranger.example");
    for mode in MODES {
        let server = script(&authority, mode, &["tls-clients=known"]);
        let mut dial = authority.dial();
        dial.certificate = Some(authority.path("client.example"));
        assert!(
            dial.connect(server.address())
                .ask("origin")
                .contains("certificate=")
        );
        for certificate in [None, Some(strangers.path("stranger.example"))] {
            dial.certificate = certificate;
            // In version 1.3 the client is the first to finish, and learns of it with the next read.
            let refused = dial
                .try_connect(server.address())
                .map_or(true, |mut client| client.has_ended());
            assert!(refused);
        }
        server.logged(2, &["is refused before it is open", "TLS"]);
        let mut dial = authority.dial();
        dial.certificate = Some(authority.path("client.example"));
        let mut client = dial.connect(server.address());
        assert!(
            client.ask("stats").starts_with("1 "),
            "the refused ones are gone"
        );
    }
}

#[test]
fn who_does_not_speak_tls_is_reset_and_costs_nobody_anything() {
    let authority = for_localhost();
    for mode in MODES {
        let server = script(&authority, mode, &["opening=0.5"]);
        let mut good = authority.dial().connect(server.address());
        // One that says nothing, one that says something else, and one that never comes to an end.
        let mut silent = Client::connect(server.address());
        let mut other = Client::connect(server.address());
        other.send(b"GET / HTTP/1.1\r\n\r\n");
        let slow = TcpStream::connect(server.address()).expect("connect");
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // The begin of a record with a part of a handshake in it.
                let mut dribble = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
                dribble.resize(500, 7);
                for byte in dribble {
                    if (&slow).write_all(&[byte]).is_err() || is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
            assert_eq!(silent.read_until_reset(), b"");
            // An alert.
            assert_eq!(other.read_to_end().first(), Some(&0x15));
            eventually(SOON, "the slow one is gone", || {
                good.ask("stats").starts_with("1 ")
            });
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(good.ask("echo still here"), "echo still here");
        assert!(
            server.log().with(&["close of"]).is_empty(),
            "no callback knew of them"
        );
    }
}

#[test]
fn the_end_of_a_connection_is_said_by_tls_as_well() {
    let authority = for_localhost();
    for mode in MODES {
        let server = script(&authority, mode, &[]);
        // By the server.
        let mut client = authority.dial().connect(server.address());
        client.send(b"close\n");
        assert_eq!(client.read_to_end(), b"bye\n");
        // By the client, before it has its answer.
        let mut client = authority.dial().connect(server.address());
        client.send(b"echo a\necho b\n");
        client.half_close();
        assert_eq!(client.read_to_end(), b"echo a\necho b\n");
        // By a shutdown.
        let mut client = authority.dial().connect(server.address());
        client.ask("echo c");
        server.signal(Signal::SIGTERM);
        client.read_to_end();
    }
}

#[test]
fn a_slow_reader_gets_everything() {
    let authority = for_localhost();
    for mode in MODES {
        let server = script(&authority, mode, &["output-limit=16777216"]);
        let mut client = authority.dial().connect(server.address());
        // Far more than the sockets take: the rest waits in the midst of records.
        client.send(b"big 8000000\nbig 20\necho it\n");
        client.await_bytes();
        thread::sleep(Duration::from_millis(100));
        let mut rest = 8_000_020;
        let mut buffer = [0; 5000];
        while rest > 0 {
            let most = buffer.len().min(rest);
            let n = client.try_read(&mut buffer[..most]).expect("bytes");
            assert!(n > 0 && buffer[..n].iter().all(|it| *it == b'x'));
            rest -= n;
        }
        client.expect(b"echo it\n");
    }
}

#[test]
fn files_and_what_is_published_go_through_it() {
    let authority = for_localhost();
    let folder = format!("tls={}", authority.folder().display());
    let content = bytes(3 << 20);
    let path = authority.path("content");
    fs::write(&path, &content).expect("a file");
    for mode in MODES {
        let server = Launch::testbed("files", mode).and(&[&folder]).start();
        let mut client = authority.dial().connect(server.address());
        client.send(format!("between {} 0 {}\n", path.display(), content.len()).as_bytes());
        client.expect(b"<");
        client.expect(&content);
        client.expect(b">\n");
        if mode == "base" {
            // A group is one worker's there.
            continue;
        }
        let server = Launch::testbed("script", mode).and(&[&folder]).start();
        let mut members: Vec<TlsClient> = (0..3)
            .map(|_| authority.dial().connect(server.address()))
            .collect();
        for member in &mut members {
            assert_eq!(member.ask("join room"), "Ok(())");
        }
        let mut plain = [b'x'; 60_001];
        plain[60_000] = b'\n';
        for round in 0..20 {
            assert_eq!(
                members[0].ask_behind("publish-big room 60000", &plain),
                "Ok(())",
                "{round}"
            );
        }
        for member in &mut members[1..] {
            (0..20).for_each(|_| member.expect(&plain));
        }
    }
}

#[test]
fn hangup_reads_certificates_anew_and_keeps_them_if_they_are_wrong() {
    let authority = for_localhost();
    let server = serve(&authority, &[]);
    let address = server.address();
    let shown = |client: &TlsClient| {
        let chain = client.connection().peer_certificates();
        chain.expect("a certificate")[0].as_ref().to_vec()
    };
    let mut before = authority.dial().connect(address);
    let first = shown(&before);
    authority.write("localhost.key", "nothing\n");
    server.signal(Signal::SIGHUP);
    server.logged(
        1,
        &[
            "ERROR",
            "the certificates stay as they are",
            "localhost.key",
        ],
    );
    assert!(shown(&authority.dial().connect(address)) == first);
    authority.vouch_for("localhost");
    server.signal(Signal::SIGHUP);
    server.logged(1, &["INFO", "the certificates were read anew"]);
    let mut after = authority.dial().connect(address);
    assert!(shown(&after) != first);
    before.echo(b"what was open stays open");
    after.echo(b"and new ones work");
}

#[test]
fn a_server_does_not_start_with_a_certificate_that_is_wrong() {
    let authority = for_localhost();
    authority.vouch_for("other.example");
    authority.write("empty.pem", "");
    let other = format!(
        "{},{}",
        authority.path("localhost.pem").display(),
        authority.path("other.example.key").display()
    );
    let empty = format!(
        "{},{}",
        authority.path("empty.pem").display(),
        authority.path("localhost.key").display()
    );
    for mode in MODES {
        for (pair, why) in [
            ("/nonexistent.pem,/nonexistent.key", "/nonexistent.pem: "),
            (&empty, "no certificate"),
            (&other, "localhost.pem with"),
        ] {
            let ended = Launch::serve(&["--mode", mode, "--tls", pair]).run();
            let said = ended.stderr.clone();
            assert_eq!(ended.status.code(), Some(2), "{said}");
            assert!(
                said.contains("setting tls: ") && said.contains(why),
                "{said}"
            );
        }
    }
}

#[test]
fn no_key_is_read_before_the_manager_is_forked() {
    let authority = for_localhost();
    let path = authority.path("localhost.key");
    let key = fs::read(&path).expect("the key");
    fs::remove_file(&path).expect("its file");
    mkfifo(&path, Mode::S_IRWXU).expect("a pipe in its place");
    let pair = authority.pair("localhost");
    let running = Launch::serve(&["--workers", "2", "--tls", &pair]).spawn();
    // Nobody can write to it before somebody reads.
    let mut pipe = eventually_some(SOON, "a reader", || {
        let mut options = OpenOptions::new();
        let options = options.write(true).custom_flags(libc::O_NONBLOCK);
        options.open(&path).ok()
    });
    let readers: Vec<i32> = running
        .group()
        .into_iter()
        .map(|process| process.pid)
        .filter(|pid| has_open(*pid, &path))
        .collect();
    assert_eq!(readers, [running.pid()], "the master alone");
    eventually(SOON, "the manager is there already", || {
        running.group().len() >= 2
    });
    pipe.write_all(&key).expect("the reader takes it");
    drop(pipe);
    let server = Server::await_ready(running, 1);
    authority
        .dial()
        .connect(server.address())
        .echo(b"it is used");
}

/// Whether a process has this file open.
fn has_open(pid: i32, path: &Path) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    open.filter_map(Result::ok)
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|file| file == path))
}

#[test]
fn handshakes_that_do_not_come_to_an_end_count_against_the_memory_budget() {
    let authority = for_localhost();
    // A ClientHello of 60,000 bytes without its end, in records of 15,000.
    let mut begun = Vec::new();
    for (number, part) in [0_u8; 45_000].chunks(15_000).enumerate() {
        begun.extend([0x16, 3, 1]);
        begun.extend(15_000_u16.to_be_bytes());
        match number {
            0 => {
                begun.extend([1, 0, 0xEA, 0x60, 3, 3]);
                begun.extend(&part[6..]);
            }
            _ => begun.extend(part),
        }
    }
    for mode in MODES {
        let limits = [
            "output-limit=262144",
            "max-message=1000",
            "memory-budget=1048576",
        ];
        let server = script(&authority, mode, &limits);
        let mut good = authority.dial().connect(server.address());
        let mut bad: Vec<Client> = Vec::new();
        eventually(SOON, "some are reset", || {
            let mut client = Client::connect(server.address());
            // It may be one of those.
            let _ = client.try_send(&begun);
            bad.push(client);
            !server.log().with(&["memory_budget is exceeded"]).is_empty()
        });
        assert!(bad.len() > 10, "only {} were too many", bad.len());
        assert_eq!(good.ask("echo still here"), "echo still here");
    }
}
