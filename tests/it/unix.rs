//! Unix sockets: their files, their clients, and what they share with TCP.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::Signal;
use nix::unistd::{Uid, getgid, getuid};
use tempfile::TempDir;

use crate::common::c::{build, launch, start};
use crate::common::client::Client;
use crate::common::doctor::json;
use crate::common::launch::Launch;
use crate::common::{SOON, eventually};

const MODES: [&str; 2] = ["process", "base"];

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    (folder, path)
}

/// A server on this path, and on a port.
fn serve(mode: &str, path: &Path) -> Launch {
    let unix = format!("unix:{}", path.display());
    Launch::serve(&["--mode", mode, "--listen", "127.0.0.1:0", "--listen", &unix])
}

/// A testbed on this path, and on a port.
fn testbed(mode: &str, path: &Path) -> Launch {
    let unix = format!("unix={}", path.display());
    Launch::testbed("script", mode).and(&[&unix]).listeners(2)
}

/// A client of a unix socket.
struct Guest(BufReader<UnixStream>);

impl Guest {
    #[track_caller]
    fn connect(path: &Path) -> Guest {
        let stream = UnixStream::connect(path).expect("somebody listens");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        Guest(BufReader::new(stream))
    }

    /// Sends a line, and returns the next one; an empty one at the end.
    fn ask(&mut self, line: &str) -> String {
        // A connection that was refused may be closed by now.
        let _ = self.0.get_mut().write_all(format!("{line}\n").as_bytes());
        let mut answer = String::new();
        match self.0.read_line(&mut answer) {
            Ok(_) => answer.trim_end().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => String::new(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What socat reads after it has sent a text and the end; `None` where it is not installed.
fn socat(address: &str, text: &str) -> Option<String> {
    let mut socat = Command::new("socat")
        .args(["-t30", "-", address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = socat.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let ended = socat.wait_with_output().expect("it ends");
    Some(String::from_utf8_lossy(&ended.stdout).into_owned())
}

#[test]
fn a_unix_socket_has_its_permissions_from_the_start_and_is_removed_at_the_end() {
    for mode in MODES {
        let (_folder, path) = folder();
        let mut launch = serve(mode, &path).and(&["--socket-mode", "620", "--workers", "2"]);
        let is_root = Uid::effective().is_root();
        if is_root {
            launch = launch.and(&["--socket-owner", "1:2"]);
        }
        let mut server = launch.start();
        let file = fs::symlink_metadata(&path).expect("it is there");
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o777, 0o620);
        if is_root {
            assert_eq!((file.uid(), file.gid()), (1, 2));
        }
        let mut guest = Guest::connect(&path);
        assert_eq!(guest.ask("hello"), "hello");
        if let Some(answer) = socat(&format!("UNIX-CONNECT:{}", path.display()), "by socat") {
            assert_eq!(answer, "by socat");
        }
        Client::connect(server.address()).echo(b"and by TCP");
        // A worker that ends, or is replaced, takes nothing along.
        server.workers()[0].signal(Signal::SIGKILL);
        let old = server.workers();
        server.signal(Signal::SIGUSR1);
        server.new_workers(2, &old);
        assert_eq!(Guest::connect(&path).ask("still"), "still");
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success());
        assert!(!path.exists(), "{mode}: it is removed");
        assert_eq!(server.whole_log().with(&["not removed"]), [""; 0]);
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    for mode in MODES {
        let (_folder, path) = folder();
        let first = serve(mode, &path).start();
        let second = serve(mode, &path).run();
        assert_eq!(second.status.code(), Some(1));
        let words = ["cannot listen on unix:", "another process listens there"];
        assert!(
            words.iter().all(|it| second.stderr.contains(it)),
            "{second:#?}"
        );
        assert_eq!(Guest::connect(&path).ask("undisturbed"), "undisturbed");
        let processes = first.processes();
        first.root.signal(Signal::SIGKILL);
        eventually(SOON, "all have ended", || {
            processes.iter().all(|process| !process.is_running())
        });
        assert!(path.exists(), "nobody has removed it");
        let third = serve(mode, &path).start();
        assert_eq!(Guest::connect(&path).ask("again"), "again");
        drop(third);
    }
}

#[test]
fn what_is_no_socket_is_left_and_the_server_does_not_start() {
    let (_folder, path) = folder();
    fs::write(&path, "precious").expect("a file");
    let ended = serve("process", &path).run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.stderr.contains("a file that is no socket is there"),
        "{ended:#?}"
    );
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
}

#[test]
fn the_file_of_another_server_is_not_removed() {
    let (folder, path) = folder();
    let mut server = serve("process", &path).start();
    let other = folder.path().join("other");
    let _listener = UnixListener::bind(&other).expect("a socket");
    fs::rename(&other, &path).expect("it takes its place");
    server.signal(Signal::SIGTERM);
    assert!(server.ended(SOON).success());
    assert!(path.exists());
    server.logged(1, &["is not removed", "another one has taken its place"]);
}

#[test]
fn clients_in_the_queue_are_served_before_a_server_ends() {
    for mode in MODES {
        let (_folder, path) = folder();
        let mut server = testbed(mode, &path).start();
        // Nobody accepts while they come.
        let stopped = server.processes();
        stopped.iter().for_each(|it| it.signal(Signal::SIGSTOP));
        let mut guests: Vec<Guest> = (0..5).map(|_| Guest::connect(&path)).collect();
        for guest in &mut guests {
            guest
                .0
                .get_mut()
                .write_all(b"pid\n")
                .expect("there is room");
        }
        server.signal(Signal::SIGTERM);
        stopped.iter().for_each(|it| it.signal(Signal::SIGCONT));
        for guest in &mut guests {
            let mut answer = String::new();
            guest.0.read_line(&mut answer).expect("an answer");
            assert!(answer.trim().parse::<i32>().is_ok(), "{mode}: {answer:?}");
        }
        assert!(server.ended(SOON).success());
        assert!(!path.exists());
    }
}

#[test]
fn a_client_is_known_by_its_credentials() {
    for mode in MODES {
        let (_folder, path) = folder();
        let server = testbed(mode, &path).start();
        let mut guest = Guest::connect(&path);
        let own = format!(
            "unix:pid={},uid={},gid={}",
            std::process::id(),
            getuid(),
            getgid()
        );
        assert_eq!(guest.ask("peer"), own);
        assert_eq!(guest.ask("listener"), "1 unix");
        server.logged(1, &["connect of", &own]);
        // Listed with the others.
        assert!(
            guest
                .ask("connections")
                .contains(&format!("own={own} listener=1"))
        );
        if mode == "process" {
            let report = json(&[&server.address().port().to_string()]);
            assert!(report.is_object(), "{report}");
        }
    }
}

#[test]
fn the_users_of_unix_sockets_are_counted_and_dispatched_as_clients() {
    for mode in MODES {
        let (_folder, path) = folder();
        let mut launch = testbed(mode, &path).and(&["per-address=3"]);
        launch = match mode {
            "process" => launch.and(&["workers=3", "dispatch=client-address"]),
            // There each worker counts for itself.
            _ => launch.and(&["workers=1"]),
        };
        let server = launch.start();
        let mut guests: Vec<Guest> = (0..3).map(|_| Guest::connect(&path)).collect();
        let seats: Vec<String> = guests.iter_mut().map(|it| it.ask("seat")).collect();
        assert!(
            seats.iter().all(|it| *it == seats[0] && !it.is_empty()),
            "{seats:?}"
        );
        assert_eq!(
            Guest::connect(&path).ask("seat"),
            "",
            "{mode}: one too many"
        );
        server.logged(
            1,
            &["connection from unix:pid=", "max_connections_per_address"],
        );
        drop(guests);
        eventually(SOON, "there is room again", || {
            Guest::connect(&path).ask("seat") == seats[0]
        });
    }
}

#[test]
fn clients_of_a_unix_socket_do_not_notice_that_workers_die() {
    let (_folder, path) = folder();
    let server = serve("process", &path)
        .and(&["--protocol", "lines", "--on-crash", "redeliver=200"])
        .and(&["--workers", "2", "--reactors", "2"])
        .start();
    let end = Instant::now() + Duration::from_secs(4);
    let rounds = |number: usize| {
        let path = path.clone();
        thread::spawn(move || {
            let mut guest = Guest::connect(&path);
            let mut rounds = 0;
            while Instant::now() < end {
                let line = format!("client {number} round {rounds}");
                assert_eq!(guest.ask(&line), line);
                rounds += 1;
            }
            rounds
        })
    };
    let clients = (0..4).map(rounds).collect();
    server.kill_workers_under(clients, 100, || Instant::now() < end);
}

#[test]
fn an_abstract_name_has_no_file() {
    for mode in MODES {
        let name = format!("tine-test/{}/{mode}", std::process::id());
        let path = format!("@{name}");
        let mut server = serve(mode, Path::new(&path)).start();
        let lines = server
            .stdout()
            .with(&[&format!("listening on unix:{path} (")]);
        assert_eq!(lines.len(), 1, "{:?}", server.stdout().lines());
        let address = SocketAddr::from_abstract_name(&name);
        let mut stream = UnixStream::connect_addr(&address.expect("a name")).expect("it listens");
        stream.write_all(b"hello").expect("it is sent");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"hello");
        if let Some(answer) = socat(&format!("ABSTRACT-CONNECT:{name}"), "by socat") {
            assert_eq!(answer, "by socat");
        }
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success());
        assert!(!Path::new(&path).exists());
    }
}

#[test]
fn tine_load_measures_over_a_unix_socket() {
    for mode in MODES {
        let (_folder, path) = folder();
        let _server = serve(mode, &path).start();
        let target = format!("unix:{}", path.display());
        let arguments = ["load", &target, "--clients", "20", "--messages-each", "50"];
        let ended = Launch::tine(&arguments)
            .and(&["--duration", "1", "--warm-up", "0"])
            .run();
        assert!(ended.status.success(), "{mode}: {ended:#?}");
        assert!(ended.stdout.starts_with(&target), "{}", ended.stdout);
    }
}

#[test]
fn a_program_in_c_knows_its_clients_by_their_credentials() {
    let (_folder, path) = folder();
    let program = build("tests/c/sockets.c", &[]);
    let text = path.to_str().expect("a path in UTF-8");
    let server = start(launch(&program, &[text]), "process");
    let file = fs::symlink_metadata(&path).expect("it is there");
    assert_eq!(file.permissions().mode() & 0o777, 0o640);
    let (pid, uid, gid) = (std::process::id(), getuid(), getgid());
    let own =
        format!("unix:pid={pid},uid={uid},gid={gid} unix=1 status=0 pid={pid} uid={uid} gid={gid}");
    assert_eq!(Guest::connect(&path).ask("who"), own);
    let mut client = Client::connect(server.address());
    let answer = client.ask("who");
    let expected = format!("{} unix=0 status=3 pid=77 uid=77 gid=77", client.local);
    assert_eq!(answer, expected);
}
