//! Sockets that another program has opened and passes: systemd, a test in its place, or a shell.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::sockets::accept_queue;
use crate::common::{SOON, eventually};

const MODES: [&str; 2] = ["process", "base"];

/// Whether a descriptor of a process is closed when it executes another program.
fn is_closed_by_exec(process: Process, number: i32) -> bool {
    let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", process.pid));
    let info = info.expect("it is open");
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = i32::from_str_radix(flags.expect("flags").trim(), 8).expect("octal");
    flags & libc::O_CLOEXEC != 0
}

#[test]
fn a_server_takes_the_sockets_that_are_passed_and_leaves_them_to_the_next_one() {
    for mode in MODES {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.sock");
        let unix = UnixListener::bind(&path).expect("a socket");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = tcp.local_addr().expect("it has one");
        let launch = || {
            let tcp = tcp.try_clone().expect("a copy");
            let unix = unix.try_clone().expect("a copy");
            Launch::serve(&["--mode", mode, "--workers", "2", "--listen", "systemd"])
                .passing("web", tcp)
                .passing("local", unix)
                .listeners(2)
        };
        let mut first = launch().start();
        assert_eq!(first.address(), address);
        let unix_line = format!("listening on unix:{} (", path.display());
        assert_eq!(first.stdout().with(&[&unix_line]).len(), 1);
        assert!(is_closed_by_exec(first.root, 3) && is_closed_by_exec(first.root, 4));
        Client::connect(address).echo(b"by TCP");
        let ask = || {
            let mut stream = UnixStream::connect(&path).expect("it listens");
            stream.set_read_timeout(Some(SOON)).expect("a timeout");
            stream.write_all(b"hello\n").expect("it is sent");
            let mut answer = String::new();
            BufReader::new(stream)
                .read_line(&mut answer)
                .expect("an answer");
            answer
        };
        assert_eq!(ask(), "hello\n");
        first.signal(Signal::SIGTERM);
        assert!(first.ended(SOON).success());
        assert!(path.exists(), "{mode}: it is not this server's");
        // Whoever comes now waits for the next server.
        let mut waiting = Client::connect(address);
        waiting.send(b"patient");
        assert_eq!(accept_queue(address), Some(1));
        let second = launch().start();
        waiting.expect(b"patient");
        assert_eq!(ask(), "hello\n");
        drop(second);
    }
}

#[test]
fn programs_that_a_callback_executes_do_not_take_themselves_for_the_one_that_is_meant() {
    for mode in MODES {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Launch::testbed("script", mode)
            .and(&["listen=systemd"])
            .env("OTHER", "is kept")
            .passing("it", tcp)
            .start();
        let mut client = Client::connect(server.address());
        assert_eq!(client.ask("variable OTHER"), r#"Some("is kept")"#);
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            let answer = client.ask(&format!("variable {name}"));
            assert_eq!(answer, "None", "{mode}: {name}");
        }
    }
}

#[test]
fn sockets_are_chosen_by_name_and_one_that_nobody_takes_is_named() {
    let [web, admin] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let address = admin.local_addr().expect("it has one");
    let server = Launch::serve(&["--listen", "systemd:admin"])
        .passing("web", web)
        .passing("admin", admin)
        .start();
    assert_eq!(server.address(), address);
    Client::connect(address).echo(b"hello");
    server.logged(1, &["descriptor 3", "\"web\"", "no listener takes it"]);
}

#[test]
fn a_descriptor_is_taken_by_its_number_and_what_is_none_is_named() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = tcp.local_addr().expect("it has one");
    let server = Launch::serve(&["--listen", "fd:3"])
        .passing("any", tcp)
        .start();
    assert_eq!(server.address(), address);
    Client::connect(address).echo(b"hello");

    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let file = File::open("/etc/passwd").expect("a file");
    let refused = |launch: Launch, words: [&str; 2]| {
        let ended = launch.run();
        assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
        let says = |word: &&str| ended.stderr.contains(*word);
        assert!(words.iter().all(says), "{words:?}: {ended:#?}");
    };
    let of_3 = || Launch::serve(&["--listen", "fd:3"]);
    refused(
        of_3().passing("it", datagrams),
        ["descriptor 3", "a UDP socket"],
    );
    refused(
        of_3().passing("it", file),
        ["descriptor 3", "a regular file"],
    );
    let open = Launch::serve(&["--listen", "fd:77"]);
    refused(open, ["descriptor 77", "leave it open"]);
    let folder = tempfile::tempdir().expect("a folder");
    let unix = UnixListener::bind(folder.path().join("it")).expect("a socket");
    let denies = of_3().and(&["--deny", "10.0.0.0/8"]).passing("it", unix);
    refused(denies, ["descriptor 3", "no addresses"]);
}

#[test]
fn systemd_passes_a_socket() {
    const PROGRAM: &str = "systemd-socket-activate";
    if Command::new(PROGRAM).arg("--version").output().is_err() {
        eprintln!("left out: {PROGRAM} is not installed; the tests above have the same variables");
        return;
    }
    for mode in MODES {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("it has one");
        drop(free);
        let listen = format!("--listen={address}");
        let running = Launch::tine(&["serve", "--mode", mode, "--listen", "systemd:it"])
            .through(&[PROGRAM, &listen, "--fdname=it"])
            .spawn();
        // It starts the server when the first client comes, and that client is served.
        eventually(SOON, "it listens", || accept_queue(address).is_some());
        Client::connect(address).echo(b"hello");
        eventually(SOON, "the server says so", || {
            let line = format!("listening on {address} ({mode} mode");
            !running.stdout.with(&[&line]).is_empty()
        });
    }
}
