//! Runs `tine doctor`, and makes connections for it to examine, with both ends in the test.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use nix::unistd::geteuid;
use procfs::net::TcpState;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::launch::{Ended, Launch, PROGRAM};
use super::sockets::state;
use super::{SOON, eventually};

/// The exit status when something is wrong.
pub(crate) const WRONG: Option<i32> = Some(3);

/// A user without processes.
const STRANGER: u32 = 54_321;

#[track_caller]
pub(crate) fn doctor(arguments: &[&str]) -> Ended {
    Launch::tine(&["doctor"]).and(arguments).run()
}

/// Returns its output, with single spaces in place of line ends and indents.
pub(crate) fn words(ended: &Ended) -> String {
    let words: Vec<&str> = ended.stdout.split_whitespace().collect();
    words.join(" ")
}

#[track_caller]
pub(crate) fn says(ended: &Ended, expected: &[&str]) {
    let words = words(ended);
    for expected in expected {
        assert!(words.contains(expected), "no {expected:?} in {ended:#?}");
    }
}

#[track_caller]
pub(crate) fn refuses(arguments: &[&str], status: i32, expected: &[&str]) {
    let ended = doctor(arguments);
    assert_eq!(ended.status.code(), Some(status), "{ended:#?}");
    assert_eq!(ended.stdout, "", "{arguments:?}");
    for expected in expected {
        assert!(
            ended.stderr.contains(expected),
            "no {expected:?} in {ended:#?}"
        );
    }
    if status == 1 {
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
    }
}

#[track_caller]
pub(crate) fn json(arguments: &[&str]) -> Value {
    let ended = doctor(&[arguments, &["--json"]].concat());
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

pub(crate) fn port(address: SocketAddr) -> String {
    address.port().to_string()
}

/// Returns a listener that queues `backlog` + 1 connections and accepts none by itself.
pub(crate) fn listener(backlog: i32) -> (TcpListener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(backlog).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(crate) fn pair() -> (TcpStream, TcpStream, TcpListener, SocketAddr) {
    let (listener, address) = listener(8);
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server, listener, address)
}

pub(crate) fn ends(stream: &TcpStream) -> (SocketAddr, SocketAddr) {
    (stream.local_addr().unwrap(), stream.peer_addr().unwrap())
}

#[track_caller]
pub(crate) fn is_in(stream: &TcpStream, wanted: TcpState) {
    let (local, remote) = ends(stream);
    eventually(SOON, format_args!("{wanted:?}"), || {
        state(local, remote).as_ref() == Some(&wanted)
    });
}

/// Returns a connection that its client has closed, after the server has read the end of file.
pub(crate) fn stuck() -> (TcpStream, TcpListener, SocketAddr, SocketAddr) {
    let (client, mut server, listener, address) = pair();
    let (peer, _) = ends(&client);
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    is_in(&server, TcpState::CloseWait);
    (server, listener, address, peer)
}

/// Runs the doctor as a user that owns no process or socket. Returns `None` without root.
pub(crate) fn as_stranger(arguments: &[&str]) -> Option<Output> {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return None;
    }
    // Other users may not look into the target directory.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tine");
    // By another process: a child that a test forks meanwhile would hold a file open for writing that this one had
    // opened, and execve(2) would fail with ETXTBSY.
    super::make::said(Command::new("cp").arg(PROGRAM).arg(&copy));
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let mut command = Command::new(copy);
    command
        .arg("doctor")
        .args(arguments)
        .uid(STRANGER)
        .gid(STRANGER);
    Some(
        command
            .stdin(Stdio::null())
            .current_dir("/")
            .output()
            .unwrap(),
    )
}
