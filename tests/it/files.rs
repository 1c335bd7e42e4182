//! Files that the server sends: whole and in order, whatever happens to the workers, or cut with RST.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::resource::Resource;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually};

const MIB: usize = 1 << 20;

const MODES: [&str; 2] = ["process", "base"];

/// A file of so many bytes that are everywhere others.
fn file(len: usize) -> (TempDir, PathBuf, Vec<u8>) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("file");
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // Knuth's numbers.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state >> 8).to_ne_bytes());
    }
    bytes.truncate(len);
    fs::write(&path, &bytes).expect("the disk has room");
    (folder, path, bytes)
}

fn serve(mode: &str, options: &[&str]) -> Server {
    Launch::testbed("files", mode).and(options).start()
}

fn command(kind: &str, path: &Path, range: std::ops::Range<usize>) -> Vec<u8> {
    let path = path.display();
    format!("{kind} {path} {} {}\n", range.start, range.end).into_bytes()
}

/// Takes the file out of the page cache, so that it has to be waited for.
fn forget(path: &Path) {
    let file = File::open(path).expect("the file is there");
    file.sync_all().expect("the disk works");
    let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    posix_fadvise(file.as_fd(), 0, 0, advice).expect("the kernel knows it");
}

/// Reads the file at this many bytes a second, and compares it.
#[track_caller]
fn read_at(client: &mut Client, expected: &[u8], speed: usize) {
    let begin = Instant::now();
    for (number, chunk) in expected.chunks(256 << 10).enumerate() {
        client.expect(chunk);
        let due = Duration::from_secs_f64((number * (256 << 10)) as f64 / speed as f64);
        thread::sleep(due.saturating_sub(begin.elapsed()));
    }
}

#[test]
fn a_file_comes_whole_also_from_the_disk() {
    let (_folder, path, bytes) = file(64 * MIB);
    for mode in MODES {
        let server = serve(mode, &[]);
        let mut client = Client::connect(server.address());
        for is_cached in [true, false] {
            if !is_cached {
                forget(&path);
            }
            client.send(&command("send", &path, 0..bytes.len()));
            client.expect(&bytes);
        }
        client.echo(b"still there\n");
    }
}

#[test]
fn a_file_comes_whole_while_workers_are_killed() {
    let (_folder, path, bytes) = file(64 * MIB);
    let server = serve("process", &["on-crash=redeliver=100", "reactors=2"]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = [50 * MIB, 60 * MIB, usize::MAX].map(|speed| {
            let mut client = Client::connect(server.address());
            let request = command("last", &path, 0..bytes.len());
            let bytes = &bytes;
            scope.spawn(move || {
                client.send(&request);
                read_at(&mut client, bytes, speed);
                assert_eq!(client.read_to_end(), b"");
            })
        });
        let killer = scope.spawn(|| {
            let goes_on = || !done.load(Ordering::Relaxed);
            server.kill_workers(Duration::from_millis(20), goes_on)
        });
        let ended = clients.map(|client| client.join());
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
        assert!(killer.join().expect("no panic") > 10);
    });
}

/// Asks for a part of the file between other bytes, again and again, and compares.
fn ask_between(server: &Server, path: &Path, bytes: &[u8], rounds: usize) -> JoinHandle<()> {
    let mut client = Client::connect(server.address());
    let (path, bytes) = (path.to_owned(), bytes.to_owned());
    thread::spawn(move || {
        for round in 0..rounds {
            let from = round * 7919 % bytes.len();
            let to = bytes.len().min(from + round * 4099 % 200_000);
            client.send(&command("between", &path, from..to));
            client.expect(b"<");
            client.expect(&bytes[from..to]);
            client.expect(b">\n");
        }
    })
}

#[test]
fn parts_of_files_are_in_order_with_all_else() {
    let (_folder, path, bytes) = file(MIB);
    for mode in MODES {
        let server = serve(mode, &[]);
        let mut client = Client::connect(server.address());
        let mut requests = Vec::new();
        let ranges: Vec<_> = (0..100).map(|n| n * 10_007..n * 10_007 + n * 500).collect();
        for range in &ranges {
            requests.extend(command("between", &path, range.clone()));
        }
        client.send(&requests);
        for range in ranges {
            client.expect(b"<");
            client.expect(&bytes[range]);
            client.expect(b">\n");
        }
        client.send(format!("flushed {} 100\n", path.display()).as_bytes());
        client.expect(&[bytes[0]; 100]);
        client.send(&command("drained", &path, 1..300_000));
        client.expect(&bytes[1..300_000]);
        client.expect(b"drained\n");
    }
}

#[test]
fn a_worker_may_die_between_the_descriptor_and_the_commit() {
    let (_folder, path, bytes) = file(MIB);
    for point in ["file-sent", "staged", "published"] {
        let launch = Launch::testbed("files", "process").env("TINE_KILL_AT", point);
        let server = launch.and(&["on-crash=redeliver=100"]).start();
        let clients = [(); 4].map(|()| ask_between(&server, &path, &bytes, 150));
        for client in clients {
            client.join().unwrap_or_else(|_| panic!("{point}"));
        }
        assert!(!server.log().with(&["signal=9"]).is_empty(), "{point}");
        assert!(server.log().with(&["broke the ring"]).is_empty(), "{point}");
    }
}

#[test]
fn a_file_reaches_a_connection_of_another_reactor() {
    let (_folder, path, bytes) = file(3 * MIB);
    let server = serve("process", &["reactors=2"]);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(server.address())).collect();
    let ids: Vec<String> = clients.iter_mut().map(|client| client.ask("id")).collect();
    for (to, id) in ids.iter().enumerate() {
        for from in [0, 1, 2] {
            let kind = format!("to {id}");
            clients[from].send(&command(&kind, &path, from..bytes.len()));
            if from != to {
                clients[from].expect(b"sent\n");
                clients[to].expect(&bytes[from..]);
            } else {
                clients[to].expect(&bytes[from..]);
                clients[to].expect(b"sent\n");
            }
        }
    }
}

#[test]
fn a_file_that_becomes_shorter_resets_its_connection_alone() {
    let (_folder, path, bytes) = file(32 * MIB);
    for mode in MODES {
        let server = serve(mode, &[]);
        let mut client = Client::connect_narrow(server.address());
        let mut other = Client::connect(server.address());
        client.send(&command("send", &path, 0..bytes.len()));
        client.await_bytes();
        let file = OpenOptions::new().write(true).open(&path).expect("a file");
        file.set_len(16 * MIB as u64).expect("it can be shorter");
        let got = client.read_until_reset();
        assert!(got.len() <= 16 * MIB && bytes.starts_with(&got));
        server.logged(1, &["is reset: a file", "ends before the part"]);
        server.logged(1, &["close of", "reason=FileFailed"]);
        other.echo(b"served\n");
        fs::write(&path, &bytes).expect("the disk has room");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let (folder, path, _) = file(10);
    let fifo = folder.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).expect("a FIFO");
    for mode in MODES {
        let server = serve(mode, &[]);
        let mut client = Client::connect(server.address());
        let mut ask = |kind, path: &Path| client.ask(&format!("kind {kind} {}", path.display()));
        for kind in ["pipe", "written", "name", "socket"] {
            assert_eq!(ask(kind, &path), "Some(NotAFile)", "{kind}");
        }
        assert_eq!(ask("fifo", &fifo), "Some(NotAFile)");
        assert_eq!(ask("folder", folder.path()), "Some(NotAFile)");
        for kind in ["range", "reversed"] {
            assert_eq!(ask(kind, &path), "Some(BadRange { len: 10 })", "{kind}");
        }
        assert_eq!(ask("empty", &path), "None");
        let many = format!("many {} 17", path.display());
        let answer = client.ask(&many);
        assert!(answer.ends_with(" TooManyFiles { most: 16 }"), "{answer}");
        client.echo(b"served\n");
    }
}

#[test]
fn a_callback_that_fails_has_sent_no_file() {
    let (_folder, path, bytes) = file(1000);
    let server = serve("process", &["on-crash=answer=failed\\n", "reactors=1"]);
    let mut client = Client::connect(server.address());
    // More often than descriptors fit into the socket to the master.
    for _ in 0..400 {
        client.send(&command("fail", &path, 0..1000));
        client.expect(b"failed\n");
    }
    client.send(&command("send", &path, 0..1000));
    client.expect(&bytes);
}

#[test]
fn as_many_files_are_sent_as_descriptors_allow() {
    let (_folder, path, bytes) = file(8 * MIB);
    for mode in MODES {
        let launch = Launch::testbed("files", mode).and(&["workers=1", "reactors=1"]);
        let server = launch.limit(Resource::RLIMIT_NOFILE, 700).start();
        let mut clients: Vec<Client> = Vec::new();
        let refused = loop {
            let mut client = Client::connect_narrow(server.address());
            client.send(&command("send", &path, 0..bytes.len()));
            // Nothing of it is sent, and the crash policy closes.
            let is_refused = client.try_read(&mut [0]).is_ok_and(|read| read == 0);
            clients.push(client);
            assert!(clients.len() < 600, "no limit in {mode} mode");
            if is_refused {
                break clients.len();
            }
        };
        assert!(refused > 16, "{refused} in {mode} mode");
        server.logged(1, &["files are being sent already"]);
        clients.truncate(1);
        let mut client = clients.remove(0);
        client.expect(&bytes[1..]);
        client.echo(b"served\n");
        eventually(SOON, "files can be sent again", || {
            let mut client = Client::connect(server.address());
            client.send(&command("last", &path, 0..10));
            client.read_to_end() == bytes[..10]
        });
    }
}

#[test]
fn a_disk_that_fails_resets_one_connection() {
    let (_folder, path, bytes) = file(MIB);
    for (mode, role) in [("process", "master"), ("base", "worker")] {
        let fault = format!("{role}.pread:2:EIO");
        let launch = Launch::testbed("files", mode).env("TINE_FAIL", &fault);
        let server = launch.start();
        let mut client = Client::connect(server.address());
        client.send(&command("last", &path, 0..bytes.len()));
        let got = client.read_until_reset();
        assert!(got.len() < bytes.len() && bytes.starts_with(&got));
        server.logged(1, &["is reset: a file", "os error 5"]);
        let mut client = Client::connect(server.address());
        client.send(&command("last", &path, 0..bytes.len()));
        assert!(client.read_to_end() == bytes);
    }
}

#[test]
fn a_worker_without_descriptors_says_so() {
    let (_folder, path, bytes) = file(10);
    for mode in MODES {
        let launch = Launch::testbed("files", mode).env("TINE_FAIL", "worker.dup:1");
        let server = launch.and(&["on-crash=answer=failed\\n"]).start();
        let mut client = Client::connect(server.address());
        client.send(&command("send", &path, 0..10));
        client.expect(b"failed\n");
        server.logged(1, &["no free descriptor"]);
        client.send(&command("send", &path, 0..10));
        client.expect(&bytes);
    }
}

#[test]
fn a_server_ends_in_time_with_a_file_that_nobody_reads() {
    let (_folder, path, bytes) = file(8 * MIB);
    for mode in MODES {
        let mut server = serve(mode, &["shutdown-deadline=0.5"]);
        let processes = server.root.group();
        let mut client = Client::connect_narrow(server.address());
        client.send(&command("send", &path, 0..bytes.len()));
        client.await_bytes();
        server.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(server.ended(SOON).success());
        server.leaves_nothing(&processes);
        let got = client.read_until_reset();
        assert!(got.len() < bytes.len());
    }
}

#[test]
fn a_shutdown_waits_for_a_file_that_is_read() {
    let (_folder, path, bytes) = file(16 * MIB);
    let mut server = serve("process", &[]);
    let mut client = Client::connect_narrow(server.address());
    client.send(&command("send", &path, 0..bytes.len()));
    client.await_bytes();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(client.read_to_end() == bytes);
    assert!(server.ended(SOON).success());
}

#[test]
fn a_master_without_descriptors_resets_one_connection() {
    let (_folder, path, bytes) = file(10);
    for reactors in ["reactors=1", "reactors=2"] {
        let launch = Launch::testbed("files", "process").env("TINE_FAIL", "master.take:1");
        let server = launch.and(&[reactors]).start();
        let mut client = Client::connect(server.address());
        client.send(&command("between", &path, 0..10));
        let got = client.read_until_reset();
        assert!(b"<".starts_with(&got), "{got:?}");
        server.logged(1, &["is reset: a file", "no free descriptor"]);
        let mut client = Client::connect(server.address());
        client.send(&command("last", &path, 0..10));
        assert_eq!(client.read_to_end(), bytes);
    }
}

#[test]
fn a_client_that_reads_no_files_gets_no_more_than_there_can_be() {
    let (_folder, path, _) = file(MIB);
    let server = serve("process", &["workers=1", "reactors=1"]);
    let mut reader = Client::connect_narrow(server.address());
    let id = reader.ask("id");
    let mut client = Client::connect(server.address());
    // Nothing stops a connection from sending to another one.
    for _ in 0..300 {
        client.send(&command(&format!("to {id}"), &path, 0..MIB));
        client.expect(b"sent\n");
    }
    server.logged(1, &["is reset: 257 files are unsent"]);
    reader.read_until_reset();
}

#[test]
fn a_file_comes_whole_while_workers_are_replaced_and_to_a_client_that_has_said_all() {
    let (_folder, path, bytes) = file(16 * MIB);
    for mode in MODES {
        let server = serve(mode, &[]);
        let workers = server.workers();
        let mut client = Client::connect_narrow(server.address());
        client.send(&command("send", &path, 0..bytes.len()));
        client.half_close();
        client.await_bytes();
        server.signal(nix::sys::signal::Signal::SIGUSR1);
        if mode == "process" {
            server.new_workers(workers.len(), &workers);
        } else {
            server.logged(1, &["reload"]);
        }
        assert!(client.read_to_end() == bytes, "{mode}");
    }
}
