//! Connections whose peer has closed and that are not closed here: what each one waits for. Only
//! looked at when somebody asks.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use super::connection::{Connection, Step, Wait};
use super::connections::Connections;
use crate::peer::Peer;
use crate::status::{Owed, Reason};
use crate::sys::socket;
use crate::sys::time::now_ms;

impl Connections {
    /// The oldest of them, at most so many, and how many more there are.
    /// `generation` is that of the worker in a slot.
    pub(crate) fn owed(
        &self,
        most: usize,
        generation: impl Fn(usize) -> u32,
    ) -> (Vec<Owed>, usize) {
        let is_owed = |conn: &&Connection| conn.peer_closed && conn.socket.is_some();
        let mut all: Vec<&Connection> = self
            .table
            .iter()
            .map(|(_, conn)| conn)
            .filter(is_owed)
            .collect();
        let now = now_ms();
        let age = |conn: &&Connection| Reverse(now.saturating_sub(conn.peer_closed_at));
        if all.len() > most {
            all.select_nth_unstable_by_key(most, age);
        }
        let told = all
            .iter()
            .take(most)
            .filter_map(|conn| owed(conn, now, &generation));
        let told: Vec<Owed> = told.collect();
        let more = all.len() - told.len();
        (told, more)
    }
}

fn owed(conn: &Connection, now: u64, generation: &dyn Fn(usize) -> u32) -> Option<Owed> {
    let socket = conn.socket.as_ref()?;
    let local = socket::local_address(socket.as_fd())
        .inspect_err(|error| log::debug!("connection {}: {error}", conn.id))
        .ok()?;
    let left = || Duration::from_millis(conn.deadline.saturating_sub(now));
    Some(Owed {
        local: canonical(local),
        peer: match conn.peer {
            Peer::Ip(address) => Peer::Ip(canonical(address)),
        },
        conn: conn.id.to_string(),
        reason: reason(conn),
        since: Duration::from_millis(now.saturating_sub(conn.peer_closed_at)),
        deadline: (conn.deadline > 0).then(left),
        messages: conn.in_flight,
        generation: (conn.in_flight > 0).then(|| generation(conn.slot.into())),
    })
}

fn reason(conn: &Connection) -> Reason {
    match conn.close {
        Step::Abandoned => Reason::Kept,
        Step::Submitted => Reason::Close,
        _ if conn.connect == Step::Abandoned => Reason::Kept,
        _ if conn.in_flight > 0 => Reason::Messages,
        _ if !conn.unsent.is_empty() => Reason::Output,
        _ if conn.wait != Wait::Nothing => Reason::Room,
        // Between two turns of its reactor, or it waits for who has died at a message of it.
        Step::Owed | Step::Done => Reason::Room,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
