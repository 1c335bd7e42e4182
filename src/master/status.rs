//! Connections whose peer has closed and that are not closed here: what each one waits for. Only
//! looked at when somebody asks.
//!
//! Runs in the reactor threads.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use super::seats::Seats;
use crate::flow::Flow;
use crate::net::connection::{Connection, Step, Wait};
use crate::peer::Peer;
use crate::status::{MOST_OWED, Owed, Packet, Reason};
use crate::sys::socket;
use crate::sys::time::now_ms;

/// What a reactor says of itself.
pub(super) fn packet(flow: &Flow, seats: &mut Seats) -> Packet {
    let (owed, more) = unclosed(flow, MOST_OWED, |slot| seats.generation(slot));
    Packet::Reactor {
        slots: seats.slots_in_use(),
        owed,
        more,
    }
}

/// The oldest of them, at most `most`, and how many more there are. `generation` is that of the worker
/// in a slot.
fn unclosed(flow: &Flow, most: usize, generation: impl Fn(usize) -> u32) -> (Vec<Owed>, usize) {
    let is_unclosed = |conn: &&Connection| closed_at(conn).is_some() && conn.socket.is_some();
    let mut all: Vec<&Connection> = flow.conns().filter(is_unclosed).collect();
    if all.len() > most {
        all.select_nth_unstable_by_key(most, |conn| closed_at(conn));
    }
    let now = now_ms();
    let told = all.iter().take(most);
    let told: Vec<Owed> = told
        .filter_map(|conn| describe(conn, now, &generation))
        .collect();
    let more = all.len() - told.len();
    (told, more)
}

fn closed_at(conn: &Connection) -> Option<u64> {
    conn.reading.peer_closed_at
}

fn describe(conn: &Connection, now: u64, generation: &dyn Fn(usize) -> u32) -> Option<Owed> {
    let socket = conn.socket.as_ref()?;
    let local = socket::local_address(socket.as_fd())
        .inspect_err(|error| log::debug!("connection {}: {error}", conn.id))
        .ok()?;
    let work = &conn.work;
    let left = |deadline: u64| Duration::from_millis(deadline.saturating_sub(now));
    Some(Owed {
        local: canonical(local),
        peer: match conn.peer {
            Peer::Ip(address) => Peer::Ip(canonical(address)),
        },
        conn: conn.id.to_string(),
        reason: reason(conn),
        since: Duration::from_millis(now.saturating_sub(closed_at(conn)?)),
        deadline: conn.writing.deadline.map(left),
        messages: work.in_flight,
        generation: (work.in_flight > 0).then(|| generation(work.slot.into())),
    })
}

fn reason(conn: &Connection) -> Reason {
    match conn.work.close {
        Step::Abandoned => Reason::Kept,
        Step::Submitted => Reason::Close,
        _ if conn.work.connect == Step::Abandoned => Reason::Kept,
        _ if conn.work.in_flight > 0 => Reason::Messages,
        _ if !conn.writing.unsent.is_empty() => Reason::Output,
        _ if conn.work.wait != Wait::Nothing => Reason::Room,
        // Between two turns of its reactor, or its worker has died in a message of it.
        Step::Due | Step::Done => Reason::Room,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
