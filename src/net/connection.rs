//! One connection, as its owner knows it.

use std::os::fd::OwnedFd;

use super::returned::Returned;
use super::unsent::Unsent;
use crate::config::ListenerId;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::peer::Peer;
use crate::sys::epoll::Interest;
use crate::sys::time::now_ms;

/// What is done with what the peer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// It is read and delivered.
    Open,
    /// So many bytes more are read and delivered, and that is the end: the server shuts down.
    Last { left: usize },
    /// It is read and thrown away, until the peer's FIN.
    Discarded,
    /// The peer's FIN was read.
    Ended,
}

/// How far an event of this connection has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The worker is still to be told.
    Owed,
    /// It stands in the worker's inbox.
    Submitted,
    /// The callback has returned.
    Done,
    /// The worker died in the callback, and nobody will be told again.
    Abandoned,
}

/// What a connection waits for before it can submit anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    Nothing,
    /// Room in its seat's inbox, in a queue with others.
    Room,
    /// The end of its callbacks that are under way elsewhere: it changes to another worker.
    Quiet,
    /// The end of some of them: it has as many with its worker as one connection may.
    Fewer,
}

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
    pub(crate) seat: u16,
    /// What a callback has bound it to.
    pub(crate) user: Option<u64>,

    /// How many frames of it are with a worker, and the slot of that one.
    pub(crate) in_flight: u32,
    pub(crate) slot: u16,
    /// Messages that came back from a worker which did not begin them, or has died in the first.
    pub(crate) returned: Returned,
    /// The callback other than a message that is to be run again, and how many workers have died in
    /// it.
    pub(crate) died_in: Option<(Event, u8)>,

    pub(crate) input: Input,
    /// The peer's FIN has come, perhaps behind bytes that are not read.
    pub(crate) peer_closed: bool,
    /// When that was seen, in milliseconds of CLOCK_MONOTONIC.
    pub(crate) peer_closed_at: u64,
    /// Bytes that were read and are not delivered: a message that is not complete, or for which
    /// there was no room.
    pub(crate) partial: Vec<u8>,
    /// How many bytes of `partial` were looked at in vain for a message's end.
    pub(crate) seen: usize,
    pub(crate) wait: Wait,
    /// Has waited, and may submit one frame before those who wait now.
    pub(crate) turn: bool,

    pub(crate) unsent: Unsent,
    /// Unsent output is over the high-water mark.
    pub(crate) full: bool,
    /// What the worker was last told of `full`.
    pub(crate) full_told: bool,
    /// Our FIN is due as soon as nothing is unsent.
    pub(crate) finish: bool,
    pub(crate) fin_sent: bool,

    pub(crate) connect: Step,
    /// Why it ends, once it does.
    pub(crate) end: Option<CloseReason>,
    /// Of the `close` callback; means something once `end` is set.
    pub(crate) close: Step,
    /// When the close deadline passes, in milliseconds of CLOCK_MONOTONIC; 0 if none is set.
    pub(crate) deadline: u64,
    /// The peer took bytes since the deadline was set.
    pub(crate) progress: bool,

    /// Somebody on this side has closed it: messages of it that are with a worker already are for
    /// nobody.
    pub(crate) void: bool,

    /// Stands in the list of connections to advance.
    pub(crate) touched: bool,
    /// What epoll watches it for.
    pub(crate) watched: Interest,
}

impl Connection {
    pub(crate) fn new(
        id: ConnId,
        socket: OwnedFd,
        peer: Peer,
        listener: ListenerId,
        seat: u16,
    ) -> Connection {
        Connection {
            id,
            socket: Some(socket),
            peer,
            listener,
            seat,
            user: None,
            in_flight: 0,
            slot: 0,
            returned: Returned::default(),
            died_in: None,
            input: Input::Open,
            peer_closed: false,
            peer_closed_at: 0,
            partial: Vec::new(),
            seen: 0,
            wait: Wait::Nothing,
            turn: false,
            unsent: Unsent::default(),
            full: false,
            full_told: false,
            finish: false,
            fin_sent: false,
            connect: Step::Owed,
            end: None,
            close: Step::Owed,
            deadline: 0,
            progress: false,
            void: false,
            touched: false,
            watched: Interest::READ,
        }
    }

    /// Its FIN has come, or is known to have come.
    pub(crate) fn peer_has_closed(&mut self) {
        if !self.peer_closed {
            self.peer_closed = true;
            self.peer_closed_at = now_ms();
        }
    }

    /// Whether bytes are wanted from the socket now.
    pub(crate) fn wants_input(&self) -> bool {
        match self.input {
            Input::Open | Input::Last { .. } => {
                self.wait == Wait::Nothing
                    && !self.full
                    && self.connect != Step::Owed
                    && self.returned.is_empty()
            }
            Input::Discarded => true,
            Input::Ended => false,
        }
    }

    /// Whether what was read is still for the worker: nobody has closed the connection on our side.
    pub(crate) fn delivers_input(&self) -> bool {
        self.socket.is_some() && !self.finish
    }

    /// Whether output can still be taken.
    pub(crate) fn takes_output(&self) -> bool {
        self.socket.is_some() && !self.finish
    }

    /// Whether nothing is left to do: the socket is closed, and the worker was told or never heard
    /// of it.
    pub(crate) fn is_over(&self) -> bool {
        self.socket.is_none() && matches!(self.close, Step::Done | Step::Abandoned)
    }

    /// What epoll should watch it for.
    pub(crate) fn interest(&self) -> Interest {
        let input = match (
            self.wants_input(),
            self.peer_closed || self.input == Input::Ended,
        ) {
            (true, _) => Interest::READ,
            // Not reading, for lack of room: the peer's FIN must be seen all the same.
            (false, false) => Interest::PEER_CLOSED,
            (false, true) => Interest::NONE,
        };
        if self.unsent.is_empty() {
            input
        } else {
            input.and(Interest::WRITE)
        }
    }

    /// Bytes that this process holds for it, against its budget.
    pub(crate) fn held(&self) -> usize {
        self.unsent.len() + self.partial.len()
    }
}
