//! The kernel's table of TCP sockets: in which state each end of a connection is, and what waits in a listener's queue.

use std::collections::HashMap;
use std::net::SocketAddr;

use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};

use super::process::Process;

/// The whole table, each socket once: while others come and go, the kernel repeats lines. IPv6 is left out where it has none.
pub(crate) fn table() -> Vec<TcpNetEntry> {
    let lines = tcp().expect("/proc/net/tcp can be read").into_iter();
    let lines = lines.chain(tcp6().unwrap_or_default());
    let once: HashMap<_, _> = lines
        .map(|socket| ((socket.local_address, socket.remote_address), socket))
        .collect();
    once.into_values().collect()
}

/// The end of a connection that has these addresses. One that was not seen is looked for a second time, since the table is
/// not read in one piece.
pub(crate) fn find(local: SocketAddr, remote: SocketAddr) -> Option<TcpNetEntry> {
    (0..2).find_map(|_| look(local, remote))
}

fn look(local: SocketAddr, remote: SocketAddr) -> Option<TcpNetEntry> {
    table()
        .into_iter()
        .find(|socket| socket.local_address == local && socket.remote_address == remote)
}

/// The state of that end; `None` when the kernel knows nothing of it any more.
pub(crate) fn state(local: SocketAddr, remote: SocketAddr) -> Option<TcpState> {
    find(local, remote).map(|socket| socket.state)
}

/// The server's ends of all connections to `address`, those in TIME_WAIT left out: nobody holds them.
pub(crate) fn of_server(address: SocketAddr) -> Vec<TcpNetEntry> {
    let is_end = |socket: &TcpNetEntry| {
        !matches!(
            socket.state,
            TcpState::Listen | TcpState::TimeWait | TcpState::NewSynRecv
        )
    };
    table()
        .into_iter()
        .filter(|socket| socket.local_address == address && is_end(socket))
        .collect()
}

/// How many connections wait to be accepted at `address` (`Recv-Q` in `ss -ltn`); `None` when nobody listens there.
pub(crate) fn accept_queue(address: SocketAddr) -> Option<u32> {
    let is_listener =
        |socket: &TcpNetEntry| socket.local_address == address && socket.state == TcpState::Listen;
    table()
        .into_iter()
        .find(is_listener)
        .map(|socket| socket.rx_queue)
}

/// Whether anybody listens at `address`.
pub(crate) fn is_listening(address: SocketAddr) -> bool {
    accept_queue(address).is_some()
}

/// Those of `processes` that hold the socket with this inode.
pub(crate) fn holders(inode: u64, processes: &[Process]) -> Vec<Process> {
    processes
        .iter()
        .copied()
        .filter(|process| process.sockets().contains(&inode))
        .collect()
}
