//! One connection, as its owner knows it: what comes from its client, what goes to its client, and how
//! far the workers are with it. Each part is a struct of its own.

use std::os::fd::OwnedFd;

use super::returned::Returned;
use super::unsent::Unsent;
use crate::config::ListenerId;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::peer::Peer;
use crate::sys::epoll::Interest;

/// The most frames of one connection that are with a worker. Others wait behind them.
pub(crate) const MOST_IN_FLIGHT: u32 = 64;

/// A connection from accept to the end of its `close` callback, which may be later than the end of
/// its socket: until then its place in the table is taken.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    /// `None` when it is closed on our side.
    pub(crate) socket: Option<OwnedFd>,
    pub(crate) peer: Peer,
    pub(crate) listener: ListenerId,
    pub(crate) reading: Reading,
    pub(crate) writing: Writing,
    pub(crate) work: Work,
    /// It is in the list of connections to advance.
    pub(super) touched: bool,
    /// What epoll watches it for.
    pub(super) watched: Interest,
}

/// What comes from the client.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) input: Input,
    /// When the peer's FIN was seen, in milliseconds of CLOCK_MONOTONIC. Bytes that are not read may
    /// still be before it.
    pub(crate) peer_closed_at: Option<u64>,
    /// Bytes that were read and are not delivered: a message that is not complete, or for which
    /// there was no room.
    pub(crate) partial: Vec<u8>,
    /// How many bytes of `partial` were searched for a message's end, without finding one.
    pub(crate) seen: usize,
}

/// What is done with what the peer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// It is read and delivered.
    Open,
    /// `left` bytes more are read and delivered, and that is the end: the server shuts down.
    Last { left: usize },
    /// It is read and thrown away, until the peer's FIN.
    Discarded,
    /// The peer's FIN was read.
    Ended,
}

/// What goes to the client.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) unsent: Unsent,
    pub(crate) level: Level,
    pub(crate) fin: Fin,
    /// When the close deadline passes, in milliseconds of CLOCK_MONOTONIC, once it is set.
    pub(crate) deadline: Option<u64>,
    /// The peer took bytes since the deadline was set.
    pub(crate) progress: bool,
}

/// How much is unsent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    Low,
    /// It has passed the high-water mark, and is not back at half of it.
    High,
}

/// How far our FIN is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fin {
    /// More output may come.
    Open,
    /// No more output is taken: FIN follows as soon as nothing is unsent.
    Due,
    Sent,
}

/// How far the workers are with it.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) connect: Step,
    /// Why it ends, once it does.
    pub(crate) end: Option<CloseReason>,
    /// Of the `close` callback; means something once `end` is set.
    pub(crate) close: Step,
    pub(crate) wait: Wait,
    /// How many frames of it are with a worker.
    pub(crate) in_flight: u32,
    /// The seat of its last frame, and the slot, which mean nothing in base mode. The `Deliver` of
    /// process mode keeps them.
    pub(crate) seat: u16,
    pub(crate) slot: u16,
    /// The user that a callback has bound it to.
    pub(crate) user: Option<u64>,
    /// Messages that came back from a worker which did not begin them, or has died in the first.
    pub(crate) returned: Returned,
    /// The callback other than a message that is to be run again, and how many workers have died in
    /// it.
    pub(crate) died_in: Option<(Event, u8)>,
    /// The level that a worker was last told of.
    pub(crate) told: Level,
    /// This side has closed it: messages of it that are with a worker already are for nobody.
    pub(crate) is_void: bool,
}

/// How far an event of this connection has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It is still to be delivered.
    Due,
    /// It is in a worker's inbox.
    Submitted,
    /// The callback has returned.
    Done,
    /// The worker died in the callback, and no other one is told.
    Abandoned,
}

/// What a connection waits for before it can submit anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    Nothing,
    /// Nothing any more: it has its turn, and may submit one frame before those that wait now.
    Turn,
    /// Room in its seat's inbox, in a queue with others.
    Room,
    /// The end of its callbacks that are under way elsewhere: it changes to another worker.
    Quiet,
    /// The end of some of them: it has as many with its worker as one connection may.
    Fewer,
}

impl Connection {
    pub(crate) fn new(id: ConnId, socket: OwnedFd, peer: Peer, listener: ListenerId) -> Connection {
        Connection {
            id,
            socket: Some(socket),
            peer,
            listener,
            reading: Reading {
                input: Input::Open,
                peer_closed_at: None,
                partial: Vec::new(),
                seen: 0,
            },
            writing: Writing {
                unsent: Unsent::default(),
                level: Level::Low,
                fin: Fin::Open,
                deadline: None,
                progress: false,
            },
            work: Work {
                connect: Step::Due,
                end: None,
                close: Step::Due,
                wait: Wait::Nothing,
                in_flight: 0,
                seat: 0,
                slot: 0,
                user: None,
                returned: Returned::default(),
                died_in: None,
                told: Level::Low,
                is_void: false,
            },
            touched: false,
            watched: Interest::READ,
        }
    }

    /// Whether bytes are wanted from the socket now.
    pub(crate) fn wants_input(&self) -> bool {
        match self.reading.input {
            Input::Open | Input::Last { .. } => {
                self.work.is_free()
                    && self.writing.level == Level::Low
                    && self.work.connect != Step::Due
                    && self.work.returned.is_empty()
            }
            Input::Discarded => true,
            Input::Ended => false,
        }
    }

    /// Whether this side has not closed it: what was read is still for a worker, and what a worker
    /// sends is still for the client.
    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_some() && self.writing.fin == Fin::Open
    }

    /// Whether nothing is left to do: the socket is closed, and a worker was told or never heard
    /// of it.
    pub(crate) fn is_over(&self) -> bool {
        self.socket.is_none() && matches!(self.work.close, Step::Done | Step::Abandoned)
    }

    /// What epoll should watch it for.
    pub(super) fn interest(&self) -> Interest {
        let has_ended = self.reading.peer_closed_at.is_some() || self.reading.input == Input::Ended;
        let input = match (self.wants_input(), has_ended) {
            (true, _) => Interest::READ,
            // Not reading, for lack of room: the peer's FIN must be seen all the same.
            (false, false) => Interest::PEER_CLOSED,
            (false, true) => Interest::NONE,
        };
        if self.writing.unsent.is_empty() {
            input
        } else {
            input.and(Interest::WRITE)
        }
    }

    /// Bytes that this process holds for it, against its budget.
    pub(crate) fn held(&self) -> usize {
        self.writing.unsent.len() + self.reading.partial.len()
    }
}

impl Work {
    /// Whether it waits for nothing, and may submit a frame.
    pub(crate) fn is_free(&self) -> bool {
        matches!(self.wait, Wait::Nothing | Wait::Turn)
    }
}
