//! Base mode's worker: the whole loop in one process, over the same stages as the master's
//! reactors, with the handler itself at the end of *submit*. Who takes which client is in
//! [`super::balance`].
//!
//! Its one rule is the user's: a callback that blocks stops everything this worker serves, and its
//! death ends its connections.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Incarnation;
use super::balance::{Balance, PATIENCE};
use super::callback::{self, Caller, Outcome};
use super::output::SocketOutput;
use super::staged::Staged;
use crate::config::{Config, READ_SIZE};
use crate::conn_id::{ConnId, FIRST_TOKEN};
use crate::control::Note;
use crate::error::Result;
use crate::flow::Pipeline;
use crate::flow::deliver::{Deliver, Place};
use crate::handler::{Handler, ServerCall, Worker};
use crate::ipc::frame;
use crate::ipc::layout::{Arena, SlotMemory};
use crate::ipc::memory::Room;
use crate::ipc::sync::Ordering;
use crate::net::acceptor::{Accepted, Acceptor};
use crate::net::connection::{Connection, Step};
use crate::net::connections::{Connections, Names};
use crate::net::dispatch::Loads;
use crate::net::scratch::Scratch;
use crate::sys::epoll::{Event, Events, Interest, Poller};
use crate::sys::pipe::{Received, Receiver};
use crate::sys::process;
use crate::sys::signal::{self, Signals, USUAL};
use crate::sys::socket::Listener;

const BELL: u64 = FIRST_TOKEN;
const MANAGER: u64 = FIRST_TOKEN + 1;
const SIGNALS: u64 = FIRST_TOKEN + 2;
const LISTENERS: u64 = FIRST_TOKEN + 3;

/// How many events one wait takes.
const EVENTS: usize = 256;

/// How many connections one wake-up takes from one listener. Whoever takes a second one before it
/// has served the first keeps it from everybody else, and a callback of the first one may take its
/// time.
const ACCEPTS: usize = 1;

/// The life of a worker in base mode, top to bottom. Returns the exit status.
pub(crate) fn run<H: Handler>(
    arena: Arena,
    listeners: Arc<Vec<Listener>>,
    config: &Arc<Config>,
    make: &dyn Fn(Worker) -> Result<H>,
    incarnation: Incarnation,
) -> i32 {
    match serve(arena, listeners, config, make, incarnation) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}

fn serve<H: Handler>(
    arena: Arena,
    listeners: Arc<Vec<Listener>>,
    config: &Arc<Config>,
    make: &dyn Fn(Worker) -> Result<H>,
    incarnation: Incarnation,
) -> Result {
    let Incarnation {
        slot,
        seat,
        generation,
        mut notes,
        manager,
        parent,
    } = incarnation;
    let worker = Worker { seat, generation };
    let slots = arena.enter_among(slot)?;
    let memory = slots[slot].clone();
    let balance = Balance::new(&slots, slot, generation);
    let signals = Signals::new(&USUAL)?;
    signal::unblock()?;
    let poller = Poller::new()?;
    poller.add(&memory.bell, BELL, Interest::BELL)?;
    poller.add(&manager, MANAGER, Interest::READ)?;
    poller.add(&signals, SIGNALS, Interest::READ)?;

    let handler = callback::start(make, worker, parent)?;
    notes.tell(Note::Ready);

    let loads = Arc::new(Loads::new(config.slots(), config.workers, 0));
    let words = memory.words.clone();
    let callbacks = Callbacks {
        caller: Caller::new(handler, worker, words, notes, Arc::clone(config)),
        memory: memory.clone(),
        config: Arc::clone(config),
        scratch: Scratch::new(READ_SIZE),
        staged: Staged::default(),
    };
    let io = Connections::new(
        slot as u16,
        shared_names(&memory),
        poller,
        Arc::clone(config),
        Arc::clone(&loads),
    );
    let mut server = Loop {
        pipeline: Pipeline::new(io, callbacks, Arc::clone(config), Arc::clone(&loads)),
        acceptor: Acceptor::new(listeners, LISTENERS, ACCEPTS),
        accepted: Vec::new(),
        knocks: Vec::new(),
        balance,
        config: Arc::clone(config),
        loads,
        memory,
        signals,
        manager,
        leaving: None,
    };
    server.turn_until_left()?;
    server.pipeline.deliver.caller.stop();
    Ok(())
}

/// Generations for connections, which no two processes of the slot share.
fn shared_names(memory: &SlotMemory) -> Names {
    let words = memory.words.clone();
    Box::new(move || {
        loop {
            let last = words.names.fetch_add(1, Ordering::Relaxed);
            if let Some(name) = std::num::NonZeroU32::new(last.wrapping_add(1)) {
                return name;
            }
        }
    })
}

struct Loop<H> {
    pipeline: Pipeline<Callbacks<H>>,
    acceptor: Acceptor,
    accepted: Vec<Accepted>,
    /// The listeners that were reported in this turn.
    knocks: Vec<usize>,
    balance: Balance,
    config: Arc<Config>,
    loads: Arc<Loads>,
    memory: SlotMemory,
    signals: Signals,
    manager: Receiver,
    leaving: Option<Leaving>,
}

/// How a worker leaves: it accepts no more, and serves the connections it has until they are gone,
/// or until this moment; then it ends them as a server does that shuts down.
struct Leaving {
    drain_at: Instant,
    drained: bool,
}

impl<H: Handler> Loop<H> {
    fn turn_until_left(&mut self) -> Result {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.take_seat()?;
            self.notice_request_to_leave();
            self.pipeline.settle();
            if self.leaving.is_some() && self.pipeline.io.len() == 0 {
                return Ok(());
            }
            self.wait(&mut events)?;
            self.hear(&events)?;
            self.see_to_timers();
        }
    }

    fn wait(&mut self, events: &mut Events) -> Result {
        self.publish();
        let timeout = if self.balance.falls_asleep() {
            self.next_timer()
        } else {
            self.look();
            Some(Duration::ZERO)
        };
        self.pipeline.io.poller.wait(events, timeout)?;
        self.balance.wakes();
        Ok(())
    }

    /// Acts on what is ready. Whoever is connected is served before anybody is accepted.
    fn hear(&mut self, events: &Events) -> Result {
        let (mut has_work, mut rung) = (false, false);
        for index in 0..events.len() {
            let token = events.get(index).token;
            has_work |= ConnId::from_token(token).is_some();
            rung |= token == BELL;
            self.knocks.extend(self.acceptor.listener_of(token));
        }
        // Whoever stands aside sees to the client that another one has not come for.
        let is_aside = self.acceptor.can_accept() && !self.acceptor.is_watching();
        let is_told = rung || !self.knocks.is_empty() || is_aside && self.balance.awaits_somebody();
        if has_work && is_told {
            // The callbacks may take their time.
            self.balance.owes();
        }
        for index in 0..events.len() {
            self.hear_one(events.get(index))?;
        }
        self.balance.owes_nothing();
        self.let_in(rung);
        Ok(())
    }

    fn hear_one(&mut self, event: Event) -> Result {
        if let Some(id) = ConnId::from_token(event.token) {
            self.pipeline.ready(id, event);
            self.pipeline.settle();
        } else if event.token == SIGNALS {
            // A person's SIGTERM: this worker goes on until another one is ready.
            if self.signals.take().contains(&Signal::SIGTERM) {
                self.pipeline.deliver.caller.notes.tell(Note::Replace);
            }
        } else if event.token == MANAGER && self.manager.receive(&mut [0])? == Received::End {
            // The manager is dead: nobody would reap or restart this worker.
            process::exit_now(1);
        }
        Ok(())
    }

    /// Who has a seat accepts. A worker that stands by gets one when another has died.
    fn take_seat(&mut self) -> Result {
        if self.acceptor.has_started() || self.leaving.is_some() {
            return Ok(());
        }
        let seat = self.memory.orders.seat.load(Ordering::Relaxed);
        if let Some(seat) = seat.checked_sub(1) {
            self.pipeline.deliver.caller.take_seat(seat as usize)?;
            self.acceptor.start(&self.pipeline.io.poller)?;
        }
        Ok(())
    }

    /// Sees to whoever knocked, and to whoever another worker has rung for.
    fn let_in(&mut self, rung: bool) {
        if rung {
            self.look();
            self.knocks.clear();
        }
        while let Some(listener) = self.knocks.pop() {
            if self.acceptor.is_watching()
                && !self.passes_on()
                && self.accept(listener)
                && self.balance.gives_way(self.pipeline.io.len() as u64)
            {
                self.acceptor.step_back(&self.pipeline.io.poller);
            }
        }
    }

    /// Lets another worker take whoever knocks, if it should. Says whether it is to.
    fn passes_on(&mut self) -> bool {
        let passes = self.balance.passes_on(self.pipeline.io.len() as u64);
        if passes {
            self.knocks.clear();
            self.acceptor
                .stand_aside(&self.pipeline.io.poller, PATIENCE);
        }
        passes
    }

    /// Looks whether anybody waits, with any listener.
    fn look(&mut self) {
        self.balance.looks();
        let mut found = false;
        for listener in 0..self.config.sockets {
            found |= self.acceptor.can_accept() && self.accept(listener);
        }
        if !found {
            self.balance.found_nobody();
        }
    }

    /// Takes the next connection from a listener. Says whether there was one.
    fn accept(&mut self, listener: usize) -> bool {
        let room = self
            .config
            .max_connections
            .saturating_sub(self.pipeline.io.len());
        let mut accepted = std::mem::take(&mut self.accepted);
        self.balance.looks();
        self.acceptor
            .accept(&self.pipeline.io.poller, listener, room, &mut accepted);
        let some = !accepted.is_empty();
        for connection in accepted.drain(..) {
            self.loads.enter_reactor_of(self.pipeline.io.owner());
            self.pipeline.adopt(connection);
        }
        self.accepted = accepted;
        self.publish();
        if !self.acceptor.can_accept() {
            // What it was told of, others may not know.
            self.balance.declines();
        }
        if some && self.config.sockets > 1 {
            // The callback may take its time, and somebody may wait at another listener.
            self.balance.owes();
        }
        self.pipeline.settle();
        self.balance.owes_nothing();
        some
    }

    fn publish(&mut self) {
        let io = &self.pipeline.io;
        let has_room = io.len() < self.config.max_connections;
        let accepts = has_room && self.acceptor.can_accept();
        self.balance.publish(io.len() as u64, io.named(), accepts);
    }

    /// The manager asked.
    fn notice_request_to_leave(&mut self) {
        let orders = &self.memory.orders;
        let generation = self.pipeline.deliver.caller.worker.generation;
        let asked = orders.leave.load(Ordering::Relaxed) >= generation;
        let stopping = orders.stopping.load(Ordering::Relaxed) != 0;
        if asked && self.leaving.is_none() {
            let patience = if stopping {
                Duration::ZERO
            } else {
                self.config.shutdown_deadline / 2
            };
            self.leave(patience);
        }
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        if !leaving.drained && (stopping || leaving.drain_at <= Instant::now()) {
            leaving.drained = true;
            self.pipeline.drain();
        }
    }

    fn leave(&mut self, patience: Duration) {
        let stopping = self.memory.orders.stopping.load(Ordering::Relaxed) != 0;
        if stopping && self.acceptor.has_started() {
            // Nobody else will take what waits in the queue.
            for listener in 0..self.config.sockets {
                while self.accept(listener) {}
            }
        }
        self.acceptor.stop(&self.pipeline.io.poller);
        self.publish();
        self.balance.declines();
        self.leaving = Some(Leaving {
            drain_at: Instant::now() + patience,
            drained: false,
        });
    }

    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let drain = self.leaving.as_ref().filter(|leaving| !leaving.drained);
        let timers = [
            self.pipeline.io.next_deadline(now),
            self.acceptor.next_retry(now),
            drain.map(|leaving| leaving.drain_at.saturating_duration_since(now)),
        ];
        timers.into_iter().flatten().min()
    }

    fn see_to_timers(&mut self) {
        let now = Instant::now();
        self.pipeline.io.enforce_deadlines(now);
        self.acceptor.retry(&self.pipeline.io.poller, now);
    }
}

/// The end of *submit* in base mode: the callback runs there and then.
struct Callbacks<H> {
    caller: Caller<H>,
    memory: SlotMemory,
    config: Arc<Config>,
    scratch: Scratch,
    staged: Staged,
}

impl<H: Handler> Deliver for Callbacks<H> {
    /// A connection stays with who accepted it.
    fn place(&self, conn: &Connection, _: Option<&[u8]>, _: usize) -> Place {
        Place::Seat(conn.seat)
    }

    fn looks_at_messages(&self) -> bool {
        false
    }

    fn slot_of(&self, seat: u16) -> u16 {
        seat
    }

    fn room(&mut self, _: u16, bounds: RangeInclusive<usize>, _: bool) -> Option<Room<'_>> {
        Some(Room::of(&mut self.scratch[..*bounds.end()]))
    }

    fn submit(&mut self, io: &mut Connections, _: u16, input: &frame::Input) -> Step {
        let scratch = std::mem::take(&mut self.scratch);
        self.call(io, input, &scratch[..input.len as usize]);
        self.scratch = scratch;
        Step::Done
    }

    fn submit_copy(
        &mut self,
        io: &mut Connections,
        _: u16,
        input: &frame::Input,
        body: &[u8],
        _: bool,
    ) -> Option<Step> {
        self.call(io, input, body);
        Some(Step::Done)
    }

    /// Nobody waits: there is always room.
    fn wait(&mut self, _: &mut Connections, _: Option<u16>, _: ConnId, _: usize) {}
}

impl<H: Handler> Callbacks<H> {
    /// Runs a callback, and commits its output, or does to its connection what the crash policy says.
    fn call(&mut self, io: &mut Connections, input: &frame::Input, body: &[u8]) {
        let Some(event) = input.kind.event() else {
            return;
        };
        let mut output = SocketOutput {
            staged: &mut self.staged,
            message: body,
            limit: self.config.output_limit,
            io,
            memory: &self.memory,
            asked: Vec::new(),
            flushed: false,
        };
        match self.caller.call(event, input, body, &mut output) {
            Outcome::Done => output.commit(),
            Outcome::Failed => output.fail(event, input.conn, &self.config.on_crash),
        }
        for call in output.asked {
            self.caller.notes.tell(match call {
                ServerCall::Stop => Note::StopServer,
                ServerCall::Reload => Note::ReloadServer,
            });
        }
    }
}
