//! Base mode's worker: the whole loop in one process, over the same stages as the master's
//! reactors, with the handler itself at the other end of *submit* ([`super::direct`]). Which worker takes
//! a client that waits is in [`super::balance`].
//!
//! Its one rule is the user's: a callback that blocks stops everything this worker serves, and its
//! death ends its connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Incarnation;
use super::balance::{Balance, PATIENCE};
use super::callback::{self, Caller};
use super::direct::Callbacks;
use super::staged::Staged;
use crate::config::{Config, READ_SIZE};
use crate::conn_id::{ConnId, FIRST_TOKEN};
use crate::control::Note;
use crate::error::Result;
use crate::flow::Flow;
use crate::handler::{Handler, Worker};
use crate::ipc::layout::{Arena, SlotMemory};
use crate::ipc::sync::Ordering;
use crate::net::acceptor::{Accepted, Acceptor};
use crate::net::buffers::Scratch;
use crate::net::loads::{Load, Loads};
use crate::net::table::{Names, Table};
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

/// How many connections one wake-up takes from one listener. A worker that takes a second one before it
/// has served the first keeps it from the other workers, and a callback of the first one may take its
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
    let poller = Arc::new(Poller::new()?);
    poller.add(&memory.bell, BELL, Interest::BELL)?;
    poller.add(&manager, MANAGER, Interest::READ)?;
    poller.add(&signals, SIGNALS, Interest::READ)?;

    let handler = callback::start(make, worker, parent)?;
    notes.tell(Note::Ready);

    let loads = Arc::new(Loads::new(1));
    let words = memory.words.clone();
    let callbacks = Callbacks {
        caller: Caller::new(handler, worker, words, notes, Arc::clone(config)),
        memory: memory.clone(),
        config: Arc::clone(config),
        scratch: Scratch::new(READ_SIZE),
        staged: Staged::default(),
    };
    let table = Table::new(slot as u16, shared_names(&memory), Arc::clone(&poller));
    let mut server = Loop {
        flow: Flow::new(table, Arc::clone(config), Load::of(&loads, 0)),
        callbacks,
        acceptor: Acceptor::new(listeners, Arc::clone(&poller), LISTENERS, ACCEPTS),
        poller,
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
    server.callbacks.caller.stop();
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
    flow: Flow,
    /// The handler, which the flow is lent for each call.
    callbacks: Callbacks<H>,
    /// Shared with the flow and the acceptor.
    poller: Arc<Poller>,
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
            self.flow.settle(&mut self.callbacks);
            if self.leaving.is_some() && self.flow.len() == 0 {
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
        self.poller.wait(events, timeout)?;
        self.balance.wakes();
        Ok(())
    }

    /// Acts on what is ready. Connections are served before others are accepted.
    fn hear(&mut self, events: &Events) -> Result {
        let (mut has_work, mut rung) = (false, false);
        for index in 0..events.len() {
            let token = events.get(index).token;
            has_work |= ConnId::from_token(token).is_some();
            rung |= token == BELL;
            self.knocks.extend(self.acceptor.listener_of(token));
        }
        // A worker that stands aside sees to the client that another one has not come for.
        let is_aside = self.acceptor.can_accept() && !self.acceptor.is_watching();
        let is_told = rung || !self.knocks.is_empty() || is_aside && self.balance.awaits_another();
        if has_work && is_told {
            // The callbacks may take their time.
            self.balance.postpones();
        }
        for index in 0..events.len() {
            self.hear_one(events.get(index))?;
        }
        self.balance.has_accepted();
        self.let_in(rung);
        Ok(())
    }

    fn hear_one(&mut self, event: Event) -> Result {
        if let Some(id) = ConnId::from_token(event.token) {
            self.flow.ready(&mut self.callbacks, id, event);
            self.flow.settle(&mut self.callbacks);
        } else if event.token == SIGNALS {
            // A person's SIGTERM: this worker goes on until another one is ready.
            if self.signals.take().contains(&Signal::SIGTERM) {
                self.callbacks.caller.notes.tell(Note::Replace);
            }
        } else if event.token == MANAGER && self.manager.receive(&mut [0])? == Received::End {
            // The manager is dead: this worker would be neither reaped nor restarted.
            process::exit_now(1);
        }
        Ok(())
    }

    /// A worker with a seat accepts. One that stands by gets a seat when another has died.
    fn take_seat(&mut self) -> Result {
        if self.acceptor.has_started() || self.leaving.is_some() {
            return Ok(());
        }
        let seat = self.memory.orders.seat.load(Ordering::Relaxed);
        if let Some(seat) = seat.checked_sub(1) {
            self.callbacks.caller.take_seat(seat as usize)?;
            self.acceptor.start()?;
        }
        Ok(())
    }

    /// Sees to clients that wait: at listeners that were reported, and where another worker has rung.
    fn let_in(&mut self, rung: bool) {
        if rung {
            self.look();
            self.knocks.clear();
        }
        while let Some(listener) = self.knocks.pop() {
            if self.acceptor.is_watching()
                && !self.passes_on()
                && self.accept(listener)
                && self.balance.gives_way(self.flow.len() as u64)
            {
                self.acceptor.step_back();
            }
        }
    }

    /// Lets another worker take the client that waits, if it should. Returns whether it is to.
    fn passes_on(&mut self) -> bool {
        let passes = self.balance.passes_on(self.flow.len() as u64);
        if passes {
            self.knocks.clear();
            self.acceptor.stand_aside(PATIENCE);
        }
        passes
    }

    /// Looks whether a client waits, with any listener.
    fn look(&mut self) {
        self.balance.looks();
        let mut found = false;
        for listener in 0..self.config.sockets {
            found |= self.acceptor.can_accept() && self.accept(listener);
        }
        if !found {
            self.balance.found_none();
        }
    }

    /// Takes the next connection from a listener. Returns whether there was one.
    fn accept(&mut self, listener: usize) -> bool {
        let room = self.config.max_connections.saturating_sub(self.flow.len());
        let mut accepted = std::mem::take(&mut self.accepted);
        self.balance.looks();
        self.acceptor.accept(listener, room, &mut accepted);
        let some = !accepted.is_empty();
        for connection in accepted.drain(..) {
            self.loads.enter();
            self.flow.adopt(&mut self.callbacks, connection);
        }
        self.accepted = accepted;
        self.publish();
        if !self.acceptor.can_accept() {
            // What it was told of, others may not know.
            self.balance.declines();
        }
        if some && self.config.sockets > 1 {
            // The callback may take its time, and a client may wait at another listener.
            self.balance.postpones();
        }
        self.flow.settle(&mut self.callbacks);
        self.balance.has_accepted();
        some
    }

    fn publish(&mut self) {
        let (count, ever) = (self.flow.len(), self.flow.accepted());
        let has_room = count < self.config.max_connections;
        let accepts = has_room && self.acceptor.can_accept();
        self.balance.publish(count as u64, ever, accepts);
    }

    /// The manager asked.
    fn notice_request_to_leave(&mut self) {
        let orders = &self.memory.orders;
        let generation = self.callbacks.caller.worker.generation;
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
            self.flow.drain();
        }
    }

    fn leave(&mut self, patience: Duration) {
        let stopping = self.memory.orders.stopping.load(Ordering::Relaxed) != 0;
        if stopping && self.acceptor.has_started() {
            // No other worker will take what waits in the queue.
            for listener in 0..self.config.sockets {
                while self.accept(listener) {}
            }
        }
        self.acceptor.stop();
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
            self.flow.next_deadline(),
            self.acceptor.next_retry(now),
            drain.map(|leaving| leaving.drain_at.saturating_duration_since(now)),
        ];
        timers.into_iter().flatten().min()
    }

    fn see_to_timers(&mut self) {
        let now = Instant::now();
        self.flow.enforce_deadlines();
        self.acceptor.retry(now);
    }
}
