//! The kernel's table of TCP sockets: the state of each end of a connection, and the length of a listener's queue.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use procfs::net::{TcpNetEntries, TcpNetEntry, TcpState};
use procfs::{FromBufReadSI, ProcResult, current_system_info};

use super::eventually;
use super::process::Process;

/// Returns the sockets with the port of `address`, each once: while the table changes, the kernel repeats lines.
fn table(address: SocketAddr) -> Vec<TcpNetEntry> {
    let path = if address.is_ipv4() {
        "/proc/net/tcp"
    } else {
        "/proc/net/tcp6"
    };
    let lines = parse(path, address.port()).unwrap_or_else(|error| panic!("{path}: {error}"));
    let once: HashMap<_, _> = lines
        .into_iter()
        .map(|socket| ((socket.local_address, socket.remote_address), socket))
        .collect();
    once.into_values().collect()
}

/// Only lines with the port are parsed: after a test with many connections, the table is long for a minute.
fn parse(path: &str, port: u16) -> ProcResult<Vec<TcpNetEntry>> {
    let text = fs::read_to_string(path)?;
    let has_port = format!(":{port:04X} ");
    let mut part = String::from("header\n");
    for line in text.lines().filter(|line| line.contains(&has_port)) {
        part.push_str(line);
        part.push('\n');
    }
    TcpNetEntries::from_buf_read(part.as_bytes(), current_system_info()).map(|entries| entries.0)
}

/// Waits until the kernel has room for more sockets in TIME_WAIT: after a benchmark its table is full for a minute, and
/// it makes none.
pub(crate) fn await_room_for_time_wait() {
    let number = |path: &str, before: &str| -> u64 {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = text
            .lines()
            .rfind(|line| line.contains(before))
            .expect("the line");
        let (_, rest) = line.split_once(before).expect("the number");
        let number = rest.split_ascii_whitespace().next().expect("a number");
        number.parse().expect("a number")
    };
    eventually(Duration::from_secs(120), "room for TIME_WAIT", || {
        let most = number("/proc/sys/net/ipv4/tcp_max_tw_buckets", "");
        number("/proc/net/sockstat", " tw ") + 1000 < most
    });
}

/// Returns the end of a connection with these addresses. If it is not found, the table is read a second time, as reading it
/// is not atomic.
pub(crate) fn find(local: SocketAddr, remote: SocketAddr) -> Option<TcpNetEntry> {
    (0..2).find_map(|_| look(local, remote))
}

fn look(local: SocketAddr, remote: SocketAddr) -> Option<TcpNetEntry> {
    table(local)
        .into_iter()
        .find(|socket| socket.local_address == local && socket.remote_address == remote)
}

/// Returns the state of that end; `None` if it is not in the table any more.
pub(crate) fn state(local: SocketAddr, remote: SocketAddr) -> Option<TcpState> {
    find(local, remote).map(|socket| socket.state)
}

/// Returns the server's ends of all connections to `address`, without those in TIME_WAIT, which no process holds.
pub(crate) fn of_server(address: SocketAddr) -> Vec<TcpNetEntry> {
    let is_end = |socket: &TcpNetEntry| {
        !matches!(
            socket.state,
            TcpState::Listen | TcpState::TimeWait | TcpState::NewSynRecv
        )
    };
    table(address)
        .into_iter()
        .filter(|socket| socket.local_address == address && is_end(socket))
        .collect()
}

/// Whether the server at `address` has read all bytes of its clients.
pub(crate) fn is_all_read(address: SocketAddr) -> bool {
    table(address).iter().all(|socket| {
        let is_servers = socket.local_address == address;
        let is_clients = socket.remote_address == address;
        let is_unread = is_servers && socket.state != TcpState::Listen && socket.rx_queue > 0;
        let is_under_way = is_clients && socket.tx_queue > 0;
        !is_unread && !is_under_way
    })
}

/// Returns how many connections wait to be accepted at `address` (`Recv-Q` in `ss -ltn`); `None` without a listener there.
pub(crate) fn accept_queue(address: SocketAddr) -> Option<u32> {
    let is_listener =
        |socket: &TcpNetEntry| socket.local_address == address && socket.state == TcpState::Listen;
    table(address)
        .into_iter()
        .find(is_listener)
        .map(|socket| socket.rx_queue)
}

/// Whether a socket listens at `address`.
pub(crate) fn is_listening(address: SocketAddr) -> bool {
    accept_queue(address).is_some()
}

/// Returns those of `processes` that hold the socket with this inode.
pub(crate) fn holders(inode: u64, processes: &[Process]) -> Vec<Process> {
    processes
        .iter()
        .copied()
        .filter(|process| process.sockets().contains(&inode))
        .collect()
}
