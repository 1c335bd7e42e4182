//! A reactor's answer to a status request: its workers, and its unclosed connections with the reason why
//! each is not closed.
//!
//! Runs in the reactor threads. Its one rule: nothing is looked at until a request comes.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::reactor::Command;
use super::seats::Seats;
use super::{Master, Phase};
use crate::flow::Flow;
use crate::handler::Origin;
use crate::handler::SendError;
use crate::net::connection::{Connection, Step, Wait};
use crate::peer::Peer;
use crate::status::{Desk, MOST_UNCLOSED, Packet, PostDesk, Reason, Refused, Room, Unclosed};
use crate::sys::socket;
use crate::sys::time::now_ms;

impl Master {
    /// Answers the callers that have come: status requests, and posts.
    pub(super) fn answer_callers(&mut self) {
        self.answer_status();
        self.take_posts();
    }

    /// Returns when that is due, if no event comes before.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let post_desk = self.post_desk.as_ref().and_then(PostDesk::next_look);
        let desk = self.desk.as_ref().and_then(Desk::next_look);
        post_desk.into_iter().chain(desk).min()
    }

    /// Takes the posts of other programs.
    fn take_posts(&mut self) {
        let (is_serving, inlet) = (self.phase == Phase::Serving, self.inlet());
        let Some(post_desk) = &mut self.post_desk else {
            return;
        };
        post_desk.take(&self.poller, |to, bytes| match is_serving {
            true => inlet.post(to, bytes).map_err(refused),
            false => Err(Refused::NotServing),
        });
    }

    /// Answers status requests: sends the main thread's part, and hands the caller to every reactor.
    fn answer_status(&mut self) {
        let Some(desk) = &mut self.desk else { return };
        let room = Room::new(self.loads.sockets() as u64, self.config.max_connections);
        for caller in desk.callers(&self.poller) {
            caller.send(&Packet::Master {
                head: self.head.clone(),
                manager: self.manager.get(),
                reactors: self.reactors.len(),
                room: Some(room),
            });
            self.send_all(|| Command::Status(caller.clone()));
        }
    }
}

/// Returns why a post was refused.
fn refused(error: SendError) -> Refused {
    match error {
        SendError::TooLong { most } => Refused::TooLong { most },
        SendError::NoSeat { seats } => Refused::NoSeat { seats },
        _ => Refused::Full,
    }
}

/// Returns the reactor's answer.
pub(super) fn packet(flow: &Flow, seats: &mut Seats) -> Packet {
    let (unclosed, more) = unclosed(flow, MOST_UNCLOSED, |slot| seats.generation(slot));
    Packet::Reactor {
        slots: seats.slots_in_use(),
        unclosed,
        more,
        ended: flow.ended(),
    }
}

/// Returns the oldest unclosed connections, at most `most`, and the number of the others. `generation`
/// maps a slot to the generation of its worker.
fn unclosed(flow: &Flow, most: usize, generation: impl Fn(usize) -> u32) -> (Vec<Unclosed>, usize) {
    let is_unclosed = |conn: &&Connection| closed_at(conn).is_some() && conn.socket.is_some();
    let mut all: Vec<&Connection> = flow.conns().filter(is_unclosed).collect();
    if all.len() > most {
        all.select_nth_unstable_by_key(most, |conn| closed_at(conn));
    }
    // Of the clock, and of the loop, in which deadlines are.
    let now = (now_ms(), flow.now());
    let listed = all.iter().take(most);
    let listed: Vec<Unclosed> = listed
        .filter_map(|conn| describe(conn, now, &generation))
        .collect();
    let more = all.len() - listed.len();
    (listed, more)
}

fn closed_at(conn: &Connection) -> Option<u64> {
    conn.ending().peer_closed_at
}

fn describe(
    conn: &Connection,
    (now, loop_now): (u64, u64),
    generation: &dyn Fn(usize) -> u32,
) -> Option<Unclosed> {
    let socket = conn.socket.as_ref()?;
    let peer = match conn.peer {
        Peer::Ip(address) => Peer::Ip(canonical(address)),
        // Such a socket has no state that anybody sees as CLOSE_WAIT.
        Peer::Unix(_) => return None,
    };
    let local = socket::local_address(socket.as_fd())
        .inspect_err(|error| {
            log::debug!(
                "status answer without connection {}: its local address: {error}",
                conn.id
            )
        })
        .ok()?;
    let work = &conn.work;
    let left = |deadline: u64| Duration::from_millis(deadline.saturating_sub(loop_now));
    Some(Unclosed {
        local: canonical(local),
        peer,
        proxy: Origin::of(work.assigned().origin).proxy().map(canonical),
        conn: conn.id.to_string(),
        reason: reason(conn),
        since: Duration::from_millis(now.saturating_sub(closed_at(conn)?)),
        deadline: conn.ending().deadline.map(left),
        messages: work.in_flight,
        generation: (work.in_flight > 0).then(|| generation(work.slot.into())),
    })
}

fn reason(conn: &Connection) -> Reason {
    match conn.work.close {
        Step::Abandoned => Reason::Kept,
        Step::Submitted => Reason::Close,
        _ if conn.work.in_flight > 0 => Reason::Messages,
        _ if !conn.writing.unsent.is_empty() => Reason::Output,
        _ if conn.work.wait != Wait::Nothing => Reason::Room,
        // Between two turns of its reactor, or its worker has died in one of its messages.
        Step::Due | Step::Done => Reason::Room,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
