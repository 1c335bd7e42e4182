//! The state of one connection: its input, its output, and the progress of its events in the workers.
//! Each part is a struct of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use super::alarms::{Fired, First};
use super::assigned::Assigned;
use super::layer::{Layer, Stage};
use super::pulse::Pulse;
use super::rare::Rare;
use super::returned::Returned;
use super::unsent::Unsent;
use crate::config::ListenerId;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::peer::Peer;
use crate::sys::epoll::Interest;
use crate::sys::socket;

/// The most frames of one connection with a worker at the same time.
pub(crate) const MAX_IN_FLIGHT: u32 = 64;

/// A connection, from accept to the end of its `close` callback. The socket may be closed before that;
/// the place in the table stays taken.
///
/// Small: with many clients, each message waits until the memory of its connection is in the cache. It has nearly
/// only what each message touches. State that few connections have at a time is behind a pointer, which is `None`
/// while they have none, so that a request and its answer allocate nothing: [`Unsent`], [`Returned`], [`Rare`],
/// [`Assigned`], and the stall of [`Pulse`].
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    /// The id by which callbacks know it. Another one only in a base mode worker that has it from another worker.
    pub(crate) public: ConnId,
    /// `None` once it is closed on this side.
    pub(crate) socket: Option<OwnedFd>,
    pub(crate) peer: Peer,
    pub(crate) listener: ListenerId,
    /// When its owner has got it, in the loop's time.
    pub(crate) since: u64,
    pub(crate) target: Target,
    pub(crate) reading: Reading,
    pub(crate) writing: Writing,
    pub(crate) work: Work,
    /// The kernel had no memory for its socket: nothing is read, written or watched for a moment.
    pub(crate) is_paused: bool,
    pub(crate) pulse: Pulse,
    pub(crate) rare: Rare,
    /// It is in the list of connections to advance.
    pub(super) touched: bool,
    /// The events that epoll watches it for.
    pub(super) watched: Interest,
}

/// The workers that may run its callbacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// The dispatch decides: it is a client's connection.
    Dispatched,
    /// The one that has this seat: it is a mailbox.
    Seat(u16),
    /// Any: it is a mailbox, for one frame.
    Any,
    /// Any task worker: it is a mailbox, for one task.
    Task,
}

/// The input from the client.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) input: Input,
    /// Bytes that were read and not delivered: an incomplete message, or one for which there was no room.
    pub(crate) partial: Vec<u8>,
    /// `partial` was not searched for a message's end: whole messages may be in it.
    pub(crate) is_unsearched: bool,
    /// The peer has sent bytes.
    pub(crate) has_begun: bool,
    /// A callback has asked not to read from it.
    pub(crate) is_held: bool,
}

/// The handling of bytes that the peer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// They are read and delivered.
    Open,
    /// The server shuts down: only `left` more bytes are read and delivered.
    Last { left: u32 },
    /// The server shuts down, and this client has just come: its first bytes are waited for, for a moment.
    First,
    /// The server shuts down: the rest of a message is waited for while it comes, and nothing behind it.
    Rest,
    /// They are read and discarded, until the peer's FIN.
    Discarded,
    /// The peer's FIN was read.
    Ended,
}

/// The output to the client.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) unsent: Unsent,
    pub(crate) level: Level,
    pub(crate) fin: Fin,
    /// The bytes that the kernel has taken since the start.
    pub(crate) written: u64,
    /// The callback under way has flushed: the peer may have a part of its output.
    pub(crate) flushed: bool,
    /// The peer has a part of an answer, and the rest never comes: the connection ends with RST.
    pub(crate) is_cut: bool,
}

/// The level of unsent output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    Low,
    /// It has passed the high-water mark, and not yet fallen to half of it.
    High,
}

/// The state of our FIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fin {
    /// More output may come.
    Open,
    /// No more output is taken: FIN is sent once no byte is unsent.
    Due,
    /// It was sent.
    Sent,
    /// An answer is cut: RST follows instead, once the peer has acknowledged everything.
    Replaced,
}

/// The progress of its events in the workers.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) connect: Step,
    /// Why the connection ends; `None` before.
    pub(crate) end: Option<CloseReason>,
    /// The `close` callback; has a meaning once `end` is set.
    pub(crate) close: Step,
    pub(crate) wait: Wait,
    /// Since when it waits for any worker, in microseconds; 0 while it does not.
    pub(crate) waits_since: u64,
    /// The number of its frames with a worker.
    pub(crate) in_flight: u32,
    /// The seat and the slot of its last frame, kept by the `Deliver` of process mode. Without meaning
    /// in base mode.
    pub(crate) seat: u16,
    pub(crate) slot: u16,
    pub(super) assigned: Option<Box<Assigned>>,
    /// The number of messages that have had a place.
    pub(crate) messages: u64,
    /// The timers that callbacks have set for it, and those that have fired.
    pub(crate) timers: First,
    pub(crate) fired: Fired,
    /// A callback has asked to be told when no output is unsent.
    pub(crate) is_drain_due: bool,
    /// Its answer comes from a later callback. Until then, its messages and its `close` wait.
    pub(crate) awaits_answer: bool,
    /// Messages handed back by a worker that did not begin them, or that did not complete the first.
    pub(crate) returned: Returned,
    /// The event other than a message that is to be run again, and its attempts so far.
    pub(crate) died_in: Option<(Event, u8)>,
    /// The level that `paused` or `resumed` last announced to a worker.
    pub(crate) announced: Level,
    /// This side has closed it: its messages that are with a worker are dropped if they are returned.
    pub(crate) is_void: bool,
}

/// The end of a connection, from when it begins: with the peer's FIN, a deadline, or the loss of its socket.
#[derive(Default, Debug)]
pub(crate) struct Ending {
    /// When the peer's FIN was seen, in milliseconds of CLOCK_MONOTONIC. Unread bytes may be before it.
    pub(crate) peer_closed_at: Option<u64>,
    /// When the close deadline passes, in the loop's time, once it is set.
    pub(crate) deadline: Option<u64>,
    /// The bytes that the peer had acknowledged, and its progress, when the deadline was set.
    pub(crate) acknowledged: u64,
    pub(crate) progress: u64,
    /// When the peer was first seen to have acknowledged everything, our FIN included.
    pub(crate) all_acknowledged_at: Option<u64>,
    /// The bytes that were lost with the socket: the peer has not acknowledged them.
    pub(crate) lost: u64,
    /// Its queue deadline has passed: the reply that is sent once its callbacks have returned.
    pub(crate) late: Option<Box<[u8]>>,
}

/// The end of a connection that has not begun to end.
static NOT_ENDING: Ending = Ending {
    peer_closed_at: None,
    deadline: None,
    acknowledged: 0,
    progress: 0,
    all_acknowledged_at: None,
    lost: 0,
    late: None,
};

/// The progress of one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It is still to be delivered.
    Due,
    /// It is in a worker's inbox.
    Submitted,
    /// The callback has returned.
    Done,
    /// The worker died in the callback, and no other worker runs it.
    Abandoned,
}

/// The reason why a connection can't submit a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// It can.
    Nothing,
    /// It can: it has its turn, and may submit one frame before those that wait.
    Turn,
    /// It waits in a queue for room in an inbox.
    Room,
    /// It changes to another worker, and waits for the end of its callbacks in flight.
    Quiet,
    /// It has [`MAX_IN_FLIGHT`] frames in flight, and waits for the end of some.
    Fewer,
}

impl Connection {
    pub(crate) fn new(id: ConnId, socket: OwnedFd, peer: Peer, listener: ListenerId) -> Connection {
        let peer_and_socket = (peer, Some(socket));
        Connection::of(id, peer_and_socket, listener, Target::Dispatched)
    }

    pub(crate) fn mailbox(id: ConnId, target: Target) -> Connection {
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut mailbox = Connection::of(id, (Peer::Ip(nobody), None), ListenerId(0), target);
        mailbox.work.connect = Step::Done;
        if let Target::Seat(seat) = target {
            mailbox.work.seat = seat;
        }
        mailbox
    }

    fn of(
        id: ConnId,
        (peer, socket): (Peer, Option<OwnedFd>),
        listener: ListenerId,
        target: Target,
    ) -> Connection {
        Connection {
            id,
            public: id,
            socket,
            peer,
            listener,
            since: 0,
            target,
            reading: Reading {
                input: Input::Open,
                partial: Vec::new(),
                is_unsearched: false,
                has_begun: false,
                is_held: false,
            },
            writing: Writing {
                unsent: Unsent::default(),
                level: Level::Low,
                fin: Fin::Open,
                written: 0,
                flushed: false,
                is_cut: false,
            },
            work: Work {
                connect: Step::Due,
                end: None,
                close: Step::Due,
                wait: Wait::Nothing,
                waits_since: 0,
                in_flight: 0,
                seat: 0,
                slot: 0,
                assigned: None,
                messages: 0,
                timers: First::NONE,
                fired: Fired::default(),
                is_drain_due: false,
                returned: Returned::default(),
                died_in: None,
                announced: Level::Low,
                is_void: false,
                awaits_answer: false,
            },
            is_paused: false,
            pulse: Pulse::new(),
            rare: Rare::default(),
            touched: false,
            watched: Interest::READ,
        }
    }

    /// Returns its end, as far as that has come.
    pub(crate) fn ending(&self) -> &Ending {
        self.rare.ending().unwrap_or(&NOT_ENDING)
    }

    /// Returns its end, which begins now if it has not begun before.
    pub(crate) fn ending_mut(&mut self) -> &mut Ending {
        self.rare.ending_mut()
    }

    /// Whether it is in the stage *open*: no callback knows of it yet.
    pub(crate) fn is_opening(&self) -> bool {
        let layer = self.rare.layer();
        layer.is_some_and(|layer| layer.stage != Stage::Open)
    }

    /// Returns the client for whose address it is counted; `None` before that is known.
    pub(crate) fn counted(&self) -> Option<Peer> {
        let layer = self.rare.layer();
        let is_counted = layer.is_none_or(|layer| !layer.is_uncounted);
        is_counted.then_some(self.peer)
    }

    /// Whether a part of a message has come, or of a record of TLS, whose rest has not.
    pub(crate) fn has_incomplete(&self) -> bool {
        let layer = self.rare.layer();
        self.reading.has_incomplete() || layer.is_some_and(|layer| layer.has_incomplete())
    }

    /// Whether bytes are wanted from the socket now.
    pub(crate) fn wants_input(&self) -> bool {
        !self.is_paused && self.takes_input()
    }

    fn takes_input(&self) -> bool {
        match self.reading.input {
            Input::Open if self.is_opening() => true,
            Input::Open | Input::Last { .. } | Input::First | Input::Rest => {
                self.work.is_free()
                    && !self.work.awaits_answer
                    && !self.reading.is_held
                    && self.writing.level == Level::Low
                    && self.work.connect != Step::Due
                    && self.work.returned.is_empty()
            }
            Input::Discarded => true,
            Input::Ended => false,
        }
    }

    /// Whether this side has not closed it: input is still delivered, and output still sent.
    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_some() && self.writing.fin == Fin::Open
    }

    /// Whether output is taken: a callback may know of it, and this side has not closed it.
    pub(crate) fn takes_output(&self) -> bool {
        self.is_open() && !self.is_opening()
    }

    /// Whether no step is left: the socket is closed, and `close` has run or is not needed.
    pub(crate) fn is_over(&self) -> bool {
        self.socket.is_none() && matches!(self.work.close, Step::Done | Step::Abandoned)
    }

    /// Whether a hang-up says that its peer has closed, and what the peer has sent before can still be read: the
    /// peer of a unix socket ends both directions at once.
    pub(crate) fn ends_as_a_whole(&self) -> bool {
        matches!(self.peer, Peer::Unix(_)) && self.writing.unsent.is_empty()
    }

    /// Returns the events that epoll should watch it for.
    pub(super) fn interest(&self) -> Interest {
        if self.is_paused {
            return Interest::NONE;
        }
        let has_ended =
            self.ending().peer_closed_at.is_some() || self.reading.input == Input::Ended;
        let input = match (self.wants_input(), has_ended) {
            (true, _) => Interest::READ,
            // Not reading, for lack of room: the peer's FIN must still be seen.
            (false, false) => Interest::PEER_CLOSED,
            (false, true) if self.writing.unsent.is_empty() => Interest::END,
            (false, true) => Interest::NONE,
        };
        if self.writing.unsent.is_empty() || self.writing.unsent.is_awaited() {
            input
        } else {
            input.and(Interest::WRITE)
        }
    }

    /// Returns the bytes that have come and were not read.
    pub(crate) fn unread(&self) -> u32 {
        let socket = self.socket.as_ref();
        socket.map_or(0, |socket| socket::unread(socket.as_fd()))
    }

    /// Returns the bytes that the kernel has taken and the peer has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        match &self.socket {
            // A unix socket tells the memory of it, which is more.
            Some(socket) if self.writing.written > 0 => socket::unacknowledged(socket.as_fd())
                .min(usize::try_from(self.writing.written).unwrap_or(usize::MAX)),
            Some(_) | None => 0,
        }
    }

    /// Returns the bytes that the peer has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        let outstanding = self.unacknowledged() as u64;
        self.writing.written.saturating_sub(outstanding)
    }

    /// Returns a number that grows whenever the peer takes something: the bytes that it has acknowledged. Of a unix socket the
    /// kernel tells no bytes but memory, so that it is another number there. Bytes that are written count, too: when nobody
    /// reads, the kernel takes no more of them.
    pub(crate) fn progress(&self) -> u64 {
        /// More than the kernel takes for any byte.
        const MOST_FOR_BYTE: u64 = 1 << 14;
        match (self.peer, &self.socket) {
            (Peer::Unix(_), Some(socket)) => {
                let memory = socket::unacknowledged(socket.as_fd()) as u64;
                let written = self.writing.written.saturating_mul(MOST_FOR_BYTE);
                written.saturating_sub(memory)
            }
            (Peer::Ip(_), _) | (Peer::Unix(_), None) => self.acknowledged(),
        }
    }

    /// Returns the bytes held for it alone, which count against the memory budget.
    pub(crate) fn held(&self) -> usize {
        let layer = self.rare.layer();
        let records = layer.map_or(0, Layer::held);
        self.writing.unsent.own() + self.reading.partial.len() + records
    }

    /// Returns the bytes that its end would free, with its part of those that it shares with others.
    pub(crate) fn weight(&self) -> usize {
        self.held() + self.writing.unsent.share()
    }
}

impl Reading {
    /// Whether a part of a message is kept, whose end has not come.
    pub(crate) fn has_incomplete(&self) -> bool {
        !self.partial.is_empty() && !self.is_unsearched
    }
}

impl Work {
    /// Whether its next frame follows another one, in the worker that has that.
    pub(crate) fn follows(&self) -> bool {
        self.in_flight > 0
    }

    /// A frame was returned, and its connection had waited for it since then; 0 if it had not.
    pub(crate) fn waits_again(&mut self, since: u64) {
        if since != 0 {
            self.waits_since = since;
        }
    }

    /// Whether it may submit a frame.
    pub(crate) fn is_free(&self) -> bool {
        matches!(self.wait, Wait::Nothing | Wait::Turn)
    }
}

#[cfg(test)]
mod tests {
    use super::Connection;

    /// If this fails after a field was added: a field that most connections do not use most of the time belongs
    /// behind a pointer, as in [`Ending`](super::Ending), or into one of the boxes that are there. If every message needs
    /// it, the limit can be raised; `make bench ROWS=idle` and `make bench ROWS="64 B x 10,000"` show the price.
    #[test]
    fn a_connection_is_small() {
        let size = size_of::<Connection>();
        assert!(size <= 256, "{size} bytes");
    }
}
