//! The flow from inside: workers that a test plays, clients at the other end of socket pairs, and a clock
//! that a test advances.

mod close;
mod fake;
mod finish;
mod groups;
mod input;
mod moving;
mod order;
mod output;
mod promises;
mod server_timers;
mod silence;
mod tasks;
mod timers;
mod waits;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

use self::fake::Fake;
use crate::config::policy::Deciders;
use crate::config::{Config, LOOK, Listener, ListenerId, Settings};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::flow::Flow;
use crate::ipc::frame::Input;
use crate::ipc::link::Returned;
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::Output;
use crate::net::acceptor::Accepted;
use crate::net::connection::Connection;
use crate::net::loads::{Load, Loads};
use crate::net::table::{Table, count_names};
use crate::peer::Peer;
use crate::protocol::Protocol;
use crate::sys::epoll::{Events, Poller};

const SECOND: Duration = Duration::from_secs(1);

/// A flow with its workers, clients and clock.
struct World {
    flow: Flow,
    workers: Fake,
    poller: Arc<Poller>,
    events: Events,
    loads: Arc<Loads>,
}

/// The settings of a flow, with one kind of listener.
struct Setup {
    settings: Settings,
    protocol: Protocol,
    max_message: usize,
    listener: fn(Listener) -> Listener,
    deciders: Deciders,
}

impl Default for Setup {
    fn default() -> Setup {
        let mut settings = Settings::default();
        (settings.reactors, settings.close_deadline) = (Some(1), Some(5 * SECOND));
        Setup {
            settings,
            protocol: Protocol::raw(),
            max_message: 8 << 20,
            listener: |it| {
                it.open_deadline(None)
                    .message_deadline(None)
                    .write_deadline(None)
            },
            deciders: Deciders::default(),
        }
    }
}

impl Setup {
    /// There are as many listeners as [`LISTENER`] needs.
    fn validate(mut self) -> Config {
        let listener = Listener::tcp("127.0.0.1:0")
            .protocol(self.protocol)
            .max_message(self.max_message);
        let listener = (self.listener)(listener);
        let named = |number: u16| listener.clone().name(number.to_string());
        self.settings.listen = (0..=LISTENER.0).map(named).collect();
        self.settings.validate(self.deciders).unwrap()
    }
}

/// The listener of every connection.
const LISTENER: ListenerId = ListenerId(3);

/// The client of every connection.
const PEER: Peer = Peer::Ip(SocketAddr::V4(SocketAddrV4::new(
    Ipv4Addr::new(10, 0, 0, 7),
    7000,
)));

/// The bytes that a client has received, and the state of its connection.
#[derive(PartialEq, Eq, Debug)]
enum Got {
    Open(Vec<u8>),
    Fin(Vec<u8>),
}

impl World {
    fn new(change: impl FnOnce(&mut Setup)) -> World {
        let mut setup = Setup::default();
        change(&mut setup);
        let config = Arc::new(setup.validate());
        let poller = Arc::new(Poller::new().unwrap());
        let loads = Arc::new(Loads::new(1, crate::net::admission::Admission::of(&config)));
        let table = Table::new(0, count_names(), Arc::clone(&poller));
        let mut flow = Flow::new(table, config, Load::of(&loads, 0));
        flow.clock.advance(Duration::ZERO);
        flow.begin_turn(None, false);
        World {
            flow,
            workers: Fake::new(),
            poller,
            events: Events::with_capacity(64),
            loads,
        }
    }

    fn raw() -> World {
        World::new(|_| {})
    }

    /// Messages end with a newline, and have at most 1000 bytes.
    fn lines() -> World {
        World::new(lines)
    }

    /// A client with an accepted connection, before its `connect`.
    fn adopt(&mut self) -> (ConnId, UnixStream) {
        let (client, ours) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        SockRef::from(&ours).set_send_buffer_size(1).unwrap();
        (self.adopt_socket(ours.into()), client)
    }

    fn adopt_socket(&mut self, socket: OwnedFd) -> ConnId {
        self.adopt_from(PEER, socket)
    }

    fn adopt_from(&mut self, peer: Peer, socket: OwnedFd) -> ConnId {
        self.loads.enter();
        let accepted = Accepted {
            socket,
            peer,
            listener: LISTENER,
        };
        self.flow.adopt(&mut self.workers, accepted);
        self.workers.last_opened()
    }

    /// A client after its `connect`.
    fn connect(&mut self) -> (ConnId, UnixStream) {
        self.workers.seen();
        let (id, client) = self.adopt();
        self.turn();
        self.done();
        assert_eq!(self.workers.seen(), ["Connect"]);
        (id, client)
    }

    /// One turn of the loop. Returns how many events there were.
    fn turn(&mut self) -> usize {
        self.turn_within(Duration::ZERO)
    }

    /// Turns until no event comes any more.
    #[track_caller]
    fn turn_until_quiet(&mut self) {
        let turns = (0..1000).take_while(|_| self.turn() > 0).count();
        assert!(turns < 1000, "the same event is reported in a loop");
    }

    /// A turn with at least one event.
    #[track_caller]
    fn await_event(&mut self) {
        assert!(self.turn_within(10 * SECOND) > 0, "no event came");
    }

    fn turn_within(&mut self, time: Duration) -> usize {
        self.poller.wait(&mut self.events, Some(time)).unwrap();
        for index in 0..self.events.len() {
            let event = self.events.get(index);
            let id = ConnId::from_token(event.token).unwrap();
            self.flow.ready(&mut self.workers, id, event);
        }
        self.settle();
        self.events.len()
    }

    fn settle(&mut self) {
        self.flow.settle(&mut self.workers);
    }

    /// The workers finish all frames, and all steps after that are taken.
    fn done(&mut self) {
        while let Some((input, _)) = self.workers.frames.pop_front() {
            self.flow.frame_done(input.conn, event(&input));
            self.settle();
        }
    }

    /// The workers hand the last `count` frames back, each with its number of attempts.
    fn hand_back(&mut self, count: usize, attempts: u8) {
        let kept = self.workers.frames.len() - count;
        let frames = self.workers.frames.split_off(kept);
        let returned = |(input, body): (Input, Vec<u8>)| Returned {
            conn: input.conn,
            kind: event(&input),
            attempts: input.attempt + attempts,
            value: input.value,
            flushed: false,
            waited_since: 0,
            body,
        };
        self.flow
            .frames_returned(frames.into_iter().map(returned).collect());
    }

    /// Every connection that waits has its turn, as long as there is room.
    fn give_turns(&mut self) {
        for _ in 0..1000 {
            if self.workers.left == 0 {
                break;
            }
            let Some(id) = self.workers.waiting.pop_front() else {
                break;
            };
            self.flow.take_turn(&mut self.workers, id);
        }
        self.settle();
    }

    /// A callback sends these bytes.
    fn send(&mut self, id: ConnId, bytes: &[u8]) {
        self.flow.apply(Output::Send(id), SharedBytes::of(bytes));
        self.settle();
    }

    /// A callback promises an answer.
    fn promise(&mut self, id: ConnId, within: u64, reply: &[u8]) {
        let promise = Output::Promise(id, within);
        self.flow.apply(promise, SharedBytes::of(reply));
        self.settle();
    }

    /// A callback makes another output.
    fn apply(&mut self, output: Output) {
        self.flow.apply(output, SharedBytes::of(&[]));
        self.settle();
    }

    /// Advances the clock, and enforces deadlines on the way. Returns the connections whose next frame has waited
    /// for too long.
    fn pass(&mut self, time: Duration) -> Vec<ConnId> {
        let (mut left, mut late) = (time, Vec::new());
        while !left.is_zero() {
            let step = left.min(LOOK);
            self.flow.clock.advance(step);
            self.flow.begin_turn(Some(step), false);
            self.flow.enforce_deadlines();
            late.extend(self.flow.enforce_silence());
            self.settle();
            left -= step;
        }
        late
    }

    #[track_caller]
    fn conn(&self, id: ConnId) -> &Connection {
        self.flow.conn(id).expect("the connection is there")
    }

    /// Asserts that no connection is left.
    #[track_caller]
    fn assert_empty(&self) {
        assert_eq!((self.flow.len(), self.loads.sockets()), (0, 0));
        assert_eq!(self.loads.connections_of(0), 0);
        self.assert_accounts();
    }

    /// Asserts that the budget counts exactly the bytes that are held.
    #[track_caller]
    fn assert_accounts(&self) {
        let held: usize = self.flow.table.iter().map(Connection::held).sum();
        assert_eq!(self.flow.budget.held(), held);
    }
}

fn lines(setup: &mut Setup) {
    setup.protocol = "delimiter=\\n".parse().unwrap();
    setup.max_message = 1000;
}

/// A high-water mark of several times what a socket takes.
const MARK: usize = 20_000;

/// What is unsent may be five times the mark.
fn marked(setup: &mut Setup) {
    lines(setup);
    let settings = &mut setup.settings;
    (settings.output_high_water, settings.output_limit) = (MARK, Some(5 * MARK));
    settings.memory_budget = Some(1 << 20);
}

/// Returns everything that the client has received.
#[track_caller]
fn got(mut client: &UnixStream) -> Got {
    let mut bytes = Vec::new();
    match client.read_to_end(&mut bytes) {
        Ok(_) => Got::Fin(bytes),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Got::Open(bytes),
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn say(mut client: &UnixStream, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
}

fn fin(client: &UnixStream) {
    client.shutdown(Shutdown::Write).unwrap();
}

/// The event of a frame.
#[track_caller]
fn event(input: &Input) -> Event {
    input.kind.event().expect("a frame of an event")
}

/// The name of a frame, and its body if there is one.
fn name(input: &Input, body: &[u8]) -> String {
    let event = event(input);
    match body {
        [] => format!("{event:?}"),
        _ => format!("{event:?} {}", String::from_utf8_lossy(body).trim_end()),
    }
}
