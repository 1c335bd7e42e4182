//! A reactor from inside: a test plays its workers, its clients and the master's main thread.

mod deaths;
mod groups;
mod loads;
mod mail;
mod shutdown;
mod tasks;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{Command, LISTENERS, Mailbox, Reactor, Report, State};
use crate::config::policy::Deciders;
use crate::config::{Config, Listener, ListenerId, Settings};
use crate::flow::Flow;
use crate::ipc::arena::{BothSides, ReactorsMemory, Sizes};
use crate::ipc::link::{Taken, WorkerLink};
use crate::ipc::queued::Queued;
use crate::master::dispatch::SeatLoads;
use crate::master::seats::Seats;
use crate::master::transit::Ways;
use crate::net::acceptor::{Accepted, Acceptor};
use crate::net::loads::{Load, Loads};
use crate::net::table::{Table, count_names};
use crate::net::trim::Trim;
use crate::peer::Peer;
use crate::sys::doorbell::Doorbell;
use crate::sys::epoll::{Events, Poller};
use crate::sys::listener::{self, Options};

/// The longest message.
const MOST: usize = 32 << 10;

/// A reactor with its workers, by slot.
struct World {
    reactor: Reactor,
    memory: ReactorsMemory,
    workers: Vec<Option<WorkerLink>>,
    /// The generation of the last worker.
    generation: u32,
    commands: Sender<Command>,
    reports: Receiver<Report>,
    events: Events,
    now: Instant,
    /// The address of its listener, which takes one client at a time.
    address: SocketAddr,
}

/// Longer than a callback may take before it is slow.
const SLOW: Duration = Duration::from_millis(20);

fn config(change: impl FnOnce(&mut Settings)) -> Arc<Config> {
    let mut settings = Settings::default();
    (settings.workers, settings.reactors) = (2, Some(1));
    let listener = Listener::tcp("127.0.0.1:0").protocol("delimiter=\\n".parse().unwrap());
    settings.listen = vec![listener.max_message(MOST)];
    change(&mut settings);
    Arc::new(settings.validate(Deciders::default()).unwrap())
}

impl World {
    /// Two seats, with ready workers in the slots of the same numbers. Messages end with a newline.
    fn new(change: impl FnOnce(&mut Settings)) -> World {
        let config = config(change);
        let memory = ReactorsMemory::new(1).unwrap();
        let vacant = BothSides::new(Sizes::of(&config)).unwrap().master;
        let (commands, receiver) = unbounded();
        let (sender, reports) = unbounded();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = listener::Listener::bind(0, &any.into(), &Options::PLAIN).unwrap();
        let (address, listeners) = (socket.address().ip().unwrap(), Arc::new(vec![socket]));
        let poller = Arc::new(Poller::new().unwrap());
        let loads = Arc::new(Loads::new(1, crate::net::admission::Admission::of(&config)));
        let seat_loads = Arc::new(SeatLoads::of(&config));
        let words = memory.own[0].clone();
        let has_tasks = config.task_workers > 0;
        let queued = has_tasks.then(|| Queued::new(words, &config));
        let table = Table::new(0, count_names(), Arc::clone(&poller));
        let bell = Doorbell::new().unwrap();
        let ways = Ways::between(std::slice::from_ref(&bell)).pop().unwrap();
        let mut flow = Flow::new(table, Arc::clone(&config), Load::of(&loads, 0));
        queued.clone().into_iter().for_each(|it| flow.own_tasks(it));
        let reactor = Reactor {
            flow,
            seats: Seats::new(Arc::new(vacant), 0, &config, seat_loads, ways.transit()),
            acceptor: Acceptor::new(listeners, Arc::clone(&poller), LISTENERS, 1),
            poller,
            commands: receiver,
            reactors: vec![Mailbox {
                sender: commands.clone(),
                bell: bell.clone(),
            }],
            master: Mailbox {
                sender,
                bell: Doorbell::new().unwrap(),
            },
            words: memory.own[0].clone(),
            first: memory.own[0].clone(),
            queued,
            bell,
            config: Arc::clone(&config),
            loads,
            state: State::Serving,
            accepted: Vec::new(),
            ways,
            calls: Vec::new(),
            poisoned: 0,
            trim: Trim::default(),
            others_are_drained: true,
        };
        let mut world = World {
            reactor,
            workers: (0..config.slots()).map(|_| None).collect(),
            memory,
            generation: 0,
            commands,
            reports,
            events: Events::with_capacity(64),
            now: Instant::now(),
            address,
        };
        (0..config.seats()).for_each(|seat| world.seat(seat, seat));
        world
    }

    /// A new worker in this slot has the seat, and is ready.
    fn seat(&mut self, seat: usize, slot: usize) {
        self.take_seat(seat, slot);
        self.reactor.seats.loads.set_empty(seat, false);
        self.command(Command::SeatReady { seat });
    }

    /// A new worker in this slot has the seat, and is not ready yet.
    fn take_seat(&mut self, seat: usize, slot: usize) {
        self.generation += 1;
        let generation = self.generation;
        let both = BothSides::new(Sizes::of(&self.reactor.config)).unwrap();
        let memory = Arc::new(both.master);
        self.command(Command::SlotForked {
            slot,
            generation,
            memory,
        });
        self.command(Command::SeatTaken {
            seat,
            slot,
            generation,
        });
        let (link, reactor) = (&both.worker.links[0], &self.memory.shown[0]);
        let mut worker = WorkerLink::new(link, reactor, generation);
        assert!(worker.attach());
        self.workers[slot] = Some(worker);
    }

    /// The worker in this slot dies. Its seat, if it still has one, is empty.
    fn die(&mut self, slot: usize) {
        self.workers[slot] = None;
        let seats = &self.reactor.seats;
        let generation = seats.filled_by(slot);
        if let Some(seat) = seats.seats.iter().position(|it| it.slot == Some(slot)) {
            seats.loads.set_empty(seat, true);
        }
        self.command(Command::SlotEmptied { slot, generation });
    }

    fn command(&mut self, command: Command) {
        self.commands.send(command).unwrap();
        self.turn();
    }

    /// A client, before its `connect`.
    fn client(&mut self) -> UnixStream {
        let (client, ours) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        self.reactor.loads.enter();
        self.command(Command::Adopt(Accepted {
            socket: ours.into(),
            peer: Peer::Ip(([10, 0, 0, 7], 7000).into()),
            listener: ListenerId(0),
        }));
        client
    }

    /// Clients after their `connect`.
    fn clients<const N: usize>(&mut self) -> [UnixStream; N] {
        let clients = [(); N].map(|()| self.client());
        self.serve_all();
        clients
    }

    /// One turn of the loop, and another for what was sent while it lasted.
    fn turn(&mut self) {
        for _ in 0..2 {
            let reactor = &mut self.reactor;
            reactor.handle_commands();
            reactor.collect();
            reactor.give_turns();
            reactor.settle();
            reactor.report_drained();
            let now = Some(Duration::ZERO);
            reactor.poller.wait(&mut self.events, now).unwrap();
            reactor.handle_events(&self.events);
            reactor.settle();
        }
    }

    /// Some time passes, and the workers' progress is checked.
    fn pass(&mut self, time: Duration) {
        self.now = self.now.max(Instant::now()) + time;
        let reactor = &mut self.reactor;
        for slot in reactor.seats.check_progress(&mut reactor.flow, self.now) {
            reactor.take_back_from(slot);
        }
        self.turn();
    }

    fn say(&mut self, mut client: &UnixStream, bytes: &str) {
        client.write_all(bytes.as_bytes()).unwrap();
        self.turn();
    }

    /// The worker in a slot begins its next frame.
    fn begin(&mut self, slot: usize) -> Option<Taken> {
        self.workers[slot].as_mut()?.take().frame()
    }

    /// The worker in a slot finishes a frame.
    fn finish(&mut self, slot: usize, taken: &Taken) {
        let worker = self.workers[slot].as_mut().expect("it lives");
        worker.outbox.done(taken);
        self.turn();
    }

    /// The worker in a slot begins and finishes all of its frames. Returns their messages.
    fn serve(&mut self, slot: usize) -> Vec<String> {
        let mut served = Vec::new();
        while let Some(taken) = self.begin(slot) {
            let said = self.said(slot, &taken);
            served.extend((!said.is_empty()).then_some(said));
            self.finish(slot, &taken);
        }
        served
    }

    /// Every worker begins and finishes all of its frames.
    fn serve_all(&mut self) {
        while (0..self.workers.len()).any(|slot| {
            let taken = self.begin(slot);
            taken.inspect(|taken| self.finish(slot, taken)).is_some()
        }) {}
    }

    /// Returns the message of a frame, without its end; nothing for another event.
    fn said(&self, slot: usize, taken: &Taken) -> String {
        let worker = self.workers[slot].as_ref().expect("it lives");
        let (body, _) = worker.inbox.body(taken);
        String::from_utf8_lossy(body).trim_end().to_owned()
    }

    /// Returns the number of frames of this reactor with the worker in a slot.
    fn in_flight(&self, slot: usize) -> usize {
        self.reactor.seats.slots[slot].in_flight()
    }
}

fn one_worker(settings: &mut Settings) {
    settings.workers = 1;
}
