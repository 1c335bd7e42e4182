//! The worker of base mode: the whole loop in one process, with the same stages as a reactor of the
//! master, and with the handler itself as the receiving end of *submit* ([`super::direct`]). Which worker
//! accepts a client is decided in [`super::balance`].
//!
//! Its one rule is for the user: a callback that blocks stops all connections of this worker, and the
//! worker's death ends them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::asides;
use super::balance::{Balance, HANDOFF_TIMEOUT};
use super::callback::{self, Caller};
use super::direct::Callbacks;
use super::exchange::Exchange;
use super::staged::Staged;
use super::{BELL, Incarnation};
use crate::config::{Config, READ_SIZE};
use crate::conn_id::ConnId;
use crate::control::Note;
use crate::error::Result;
use crate::flow::Flow;
use crate::handler::{Handler, Posts, Session, Worker};
use crate::ipc::arena::{BaseArena, SlotMemory};
use crate::ipc::sync::Ordering;
use crate::limited;
use crate::net::acceptor::{Accepted, Acceptor};
use crate::net::admission::Admission;
use crate::net::buffers::Scratch;
use crate::net::loads::{Load, Loads};
use crate::net::table::{Names, Table};
use crate::net::tls::Contexts;
use crate::net::trim::Trim;
use crate::sys::epoll::{Event, Events, Interest, Poller};
use crate::sys::heap;
use crate::sys::listener::Listener;
use crate::sys::pipe::{Received, Receiver};
use crate::sys::process;
use crate::sys::signal::{self, Signals};
use crate::sys::socket;
use crate::words;

/// The doorbell that the other workers ring has the same token as the manager's.
const MANAGER: u64 = BELL + 1;
const SIGNALS: u64 = BELL + 2;
const CHANNEL: u64 = BELL + 3;
/// The bell of the threads that post.
const POSTS: u64 = BELL + 4;
const LISTENERS: u64 = BELL + 5;

/// The most events that one wait returns.
const EVENTS: usize = 256;

/// The most connections that one wake-up accepts from one listener. A second one would wait here for the
/// callbacks of the first, while another worker may be free.
const ACCEPTS: usize = 1;

/// The most connections of other workers that one wake-up takes over.
const TAKES: usize = 16;

/// The time between two tries of a note that the manager's pipe did not take.
const NOTE_RETRY: Duration = Duration::from_millis(10);

/// Runs a worker of base mode, from start to exit. Returns the exit status.
pub(crate) fn run<H: Handler>(
    arena: BaseArena,
    shared: (Arc<Vec<Listener>>, Arc<Contexts>),
    config: &Arc<Config>,
    make: &dyn Fn(Worker) -> Result<H>,
    incarnation: Incarnation,
) -> i32 {
    match serve(arena, shared, config, make, incarnation) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}

fn serve<H: Handler>(
    arena: BaseArena,
    (listeners, contexts): (Arc<Vec<Listener>>, Arc<Contexts>),
    config: &Arc<Config>,
    make: &dyn Fn(Worker) -> Result<H>,
    incarnation: Incarnation,
) -> Result {
    let Incarnation {
        slot,
        seat,
        generation,
        files: _,
        poller,
        notes,
        manager,
        channel,
        parent,
    } = incarnation;
    let channel = channel.ok_or("a worker of base mode has no channel")?;
    let worker = Worker::new(seat, generation, config.workers);
    let slots = arena.enter(slot)?;
    let memory = slots[slot].clone();
    let balance = Balance::new(&slots, slot, generation);
    let signals = Signals::of_worker()?;
    signal::unblock()?;
    let poller = Arc::new(poller);
    poller.add(&memory.bell, BELL, Interest::BELL)?;
    poller.add(&manager, MANAGER, Interest::READ)?;
    poller.add(&signals, SIGNALS, Interest::READ)?;
    let exchange = Exchange::new(channel, memory.words.clone(), &poller, CHANNEL)?;

    let posts = Posts::new(config, Some((Arc::clone(&poller), POSTS))).enter(seat);
    let handler = callback::start(make, worker, parent)?;
    notes.try_tell(Note::Ready)?;

    let loads = Arc::new(Loads::new(1, Admission::of(config)));
    let words = memory.words.clone();
    let callbacks = Callbacks {
        caller: Caller::new(handler, worker, words, notes.clone(), Arc::clone(config)),
        notes,
        memory: memory.clone(),
        config: Arc::clone(config),
        scratch: Scratch::new(READ_SIZE),
        staged: Staged::default(),
        session: Session::default(),
    };
    let table = Table::new(slot as u16, slot_names(&memory), Arc::clone(&poller));
    let mut server = Loop {
        flow: Flow::new(table, Arc::clone(config), Load::of(&loads, 0)).with_contexts(contexts),
        callbacks,
        acceptor: Acceptor::new(listeners, Arc::clone(&poller), LISTENERS, ACCEPTS),
        poller,
        accepted: Vec::new(),
        ready_listeners: Vec::new(),
        balance,
        exchange,
        config: Arc::clone(config),
        loads,
        memory,
        signals,
        manager,
        posts,
        leaving: None,
        trim: Trim::default(),
    };
    server.turn_until_left()?;
    asides::leave(&mut server.callbacks.caller, &server.posts);
    Ok(())
}

/// Returns the source of generations for connections: no two processes of a slot use the same one.
fn slot_names(memory: &SlotMemory) -> Names {
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
    /// The handler, lent to the flow for each call.
    callbacks: Callbacks<H>,
    /// Shared with the flow and the acceptor.
    poller: Arc<Poller>,
    acceptor: Acceptor,
    accepted: Vec<Accepted>,
    /// The listeners that epoll has reported in this turn.
    ready_listeners: Vec<usize>,
    balance: Balance,
    exchange: Exchange,
    config: Arc<Config>,
    loads: Arc<Loads>,
    memory: SlotMemory,
    signals: Signals,
    manager: Receiver,
    /// Of the threads of this worker.
    posts: Arc<Posts>,
    leaving: Option<Leaving>,
    trim: Trim,
}

/// A worker that leaves accepts no more, and serves its connections until they are gone, or until
/// `drain_at`; then it drains them as a server does that shuts down. Those that are left at `cut_at` are
/// closed at once, so that the worker leaves in order before the manager kills it.
struct Leaving {
    /// In the loop's time, in milliseconds: time in which the process was stopped does not count.
    drain_at: u64,
    cut_at: u64,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    Draining,
    Cut,
}

impl<H: Handler> Loop<H> {
    fn turn_until_left(&mut self) -> Result {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.take_seat()?;
            self.callbacks.notes.send_unsent();
            self.check_leave_order();
            asides::apply(&self.posts, &mut self.flow, self.config.most_kept());
            self.flow.settle(&mut self.callbacks);
            self.exchange.give(&mut self.flow);
            if self.leaving.is_some()
                && self.flow.len() == 0
                && !self.flow.has_mail()
                && self.exchange.has_ended()
            {
                return Ok(());
            }
            self.wait(&mut events)?;
            self.handle_events(&events)?;
            self.check_listeners_are_open();
            self.handle_timers(&events);
        }
    }

    /// Ends a worker whose callback has closed a listener: it would be deaf, and never sleep.
    fn check_listeners_are_open(&self) {
        if let Some(address) = self.acceptor.lost() {
            log::error!(
                "a callback has closed the descriptor of the listener {address}: this worker ends, and another one accepts"
            );
            // Without closing what is closed already, or another's by now.
            process::exit_now(1);
        }
    }

    fn wait(&mut self, events: &mut Events) -> Result {
        self.publish();
        let timeout = if self.balance.try_sleep() {
            self.next_timer()
        } else {
            self.check_listeners();
            Some(Duration::ZERO)
        };
        self.poller.wait(events, timeout)?;
        let was_stopped = self.signals.has(Signal::SIGCONT);
        self.flow.begin_turn(timeout, was_stopped);
        self.balance.wake();
        Ok(())
    }

    /// Handles events. Open connections are served before new ones are accepted.
    fn handle_events(&mut self, events: &Events) -> Result {
        let (mut has_work, mut rung) = (false, false);
        for index in 0..events.len() {
            let token = events.get(index).token;
            has_work |= ConnId::from_token(token).is_some();
            rung |= token == BELL;
            self.ready_listeners
                .extend(self.acceptor.listener_of(token));
        }
        // A worker that stands aside accepts the client itself if the other worker has not checked.
        let is_aside = self.acceptor.can_accept() && !self.acceptor.is_watching();
        let is_notified = rung
            || !self.ready_listeners.is_empty()
            || is_aside && self.balance.is_handoff_outstanding();
        if has_work && is_notified {
            // The callbacks of these connections may take long.
            self.balance.defer_accept();
        }
        for index in 0..events.len() {
            self.handle_event(events.get(index))?;
        }
        self.balance.clear_pending();
        self.accept_ready(rung);
        Ok(())
    }

    fn handle_event(&mut self, event: Event) -> Result {
        if let Some(id) = ConnId::from_token(event.token) {
            self.flow.ready(&mut self.callbacks, id, event);
            self.flow.settle(&mut self.callbacks);
            self.exchange.look_at(id);
        } else if event.token == CHANNEL {
            self.take_over();
        } else if event.token == SIGNALS {
            // SIGTERM from a person: the manager starts another worker, and this one serves until then.
            if self.signals.take().contains(&Signal::SIGTERM) {
                self.callbacks.caller.notes.tell(Note::Replace);
            }
        } else if event.token == MANAGER && self.manager.receive(&mut [0])? == Received::End {
            // The manager is dead: this worker would be neither reaped nor restarted.
            process::exit_now(1);
        }
        Ok(())
    }

    /// Starts accepting once this worker has a seat. A standby worker gets one when another dies.
    fn take_seat(&mut self) -> Result {
        if self.acceptor.has_started() || self.leaving.is_some() {
            return Ok(());
        }
        let seat = self.memory.orders.seat.load(Ordering::Relaxed);
        if let Some(seat) = seat.checked_sub(1) {
            self.posts.set_seat(seat as usize);
            self.callbacks.caller.take_seat(seat as usize)?;
            self.flow.set_first_timers();
            self.acceptor.start();
        }
        Ok(())
    }

    /// Accepts clients: from the listeners that were reported, or, if another worker has rung, from all.
    fn accept_ready(&mut self, rung: bool) {
        if rung {
            self.check_listeners();
            self.ready_listeners.clear();
        }
        while let Some(listener) = self.ready_listeners.pop() {
            if self.acceptor.is_watching()
                && !self.hand_off()
                && self.accept(listener)
                && self.balance.should_step_back(self.flow.len() as u64)
            {
                self.acceptor.step_back();
            }
        }
    }

    /// Hands the client off to another worker, if one should accept it. Returns whether it did.
    fn hand_off(&mut self) -> bool {
        let passes = self.balance.hand_off(self.flow.len() as u64);
        if passes {
            self.ready_listeners.clear();
            self.acceptor.stand_aside(HANDOFF_TIMEOUT);
        }
        passes
    }

    /// Accepts a client from each listener that has one.
    fn check_listeners(&mut self) {
        self.balance.record_check();
        let mut found = false;
        for listener in 0..self.config.sockets {
            found |= self.acceptor.can_accept() && self.accept(listener);
        }
        if !found {
            self.balance.settle_pending();
        }
    }

    /// Accepts the next connection from a listener. Returns whether there was one.
    fn accept(&mut self, listener: usize) -> bool {
        let room = self.config.max_connections.saturating_sub(self.flow.len());
        let mut accepted = std::mem::take(&mut self.accepted);
        self.balance.record_check();
        let taken = self
            .acceptor
            .accept(listener, room, &self.loads, &mut accepted);
        let some = taken > 0;
        for connection in accepted.drain(..) {
            self.loads.enter();
            self.flow.adopt(&mut self.callbacks, connection);
        }
        self.accepted = accepted;
        self.publish();
        if !self.acceptor.can_accept() {
            // Only this worker may have been notified of further clients.
            self.balance.notify_other();
        }
        if some && self.config.sockets > 1 {
            // The callback may take long, and a client may wait at another listener.
            self.balance.defer_accept();
        }
        self.flow.settle(&mut self.callbacks);
        self.balance.clear_pending();
        some
    }

    /// Takes connections over that the manager passes on.
    fn take_over(&mut self) {
        for _ in 0..TAKES {
            let Some((socket, handover)) = self.exchange.take(&self.poller, &mut self.flow) else {
                return;
            };
            // Another worker has written it.
            let is_valid = usize::from(handover.listener.0) < self.config.listeners.len()
                && !handover.public.is_some_and(|public| self.flow.has(public));
            if is_valid && self.loads.admission().admit_passed(&handover) {
                self.loads.enter();
                self.flow.take_over(&mut self.callbacks, socket, handover);
            } else {
                socket::reset(socket);
            }
            self.publish();
            self.exchange.publish_taken();
            self.flow.settle(&mut self.callbacks);
        }
    }

    fn publish(&mut self) {
        let (count, ever) = (self.flow.len(), self.flow.entered());
        let has_room = count < self.config.max_connections;
        let accepts = has_room && self.acceptor.can_accept();
        self.balance.publish(count as u64, ever, accepts);
    }

    /// Leaves if the manager has asked for that, and drains the connections when it is time.
    fn check_leave_order(&mut self) {
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
            self.exchange.begin_to_give(&self.flow);
        }
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        let now = self.flow.now();
        if leaving.stage == Stage::Serving && (stopping || leaving.drain_at <= now) {
            leaving.stage = Stage::Draining;
            self.exchange.finish();
            self.flow.drain();
        }
        if leaving.stage == Stage::Draining && leaving.cut_at <= now {
            leaving.stage = Stage::Cut;
            words::log_cut(self.loads.sockets());
            self.flow.hang_up_all();
        }
    }

    fn leave(&mut self, patience: Duration) {
        self.acceptor.stop();
        self.publish();
        self.balance.notify_other();
        let after = |time: Duration| self.flow.now() + time.as_millis() as u64;
        self.leaving = Some(Leaving {
            drain_at: after(patience),
            cut_at: after(self.config.shutdown_deadline),
            stage: Stage::Serving,
        });
    }

    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let next_stage = self
            .leaving
            .as_ref()
            .and_then(|leaving| match leaving.stage {
                Stage::Serving => Some(leaving.drain_at),
                Stage::Draining => Some(leaving.cut_at),
                Stage::Cut => None,
            });
        let timers = [
            self.flow.next_deadline(),
            self.flow.next_silence(),
            self.flow.next_fire(),
            self.acceptor.next_timer(now),
            self.exchange.next_try(&self.flow),
            self.trim.next(now),
            next_stage.map(|at| Duration::from_millis(at.saturating_sub(self.flow.now()))),
            self.callbacks.notes.has_unsent().then_some(NOTE_RETRY),
            (self.posts.waiting_count() > 0).then_some(asides::RETRY),
            limited::report_due(),
        ];
        timers.into_iter().flatten().min()
    }

    fn handle_timers(&mut self, events: &Events) {
        let now = Instant::now();
        self.flow.end_turn(events);
        self.flow.enforce_deadlines();
        self.flow.fire_timers();
        // No frame waits for a place here.
        let late = self.flow.enforce_silence();
        debug_assert!(late.is_empty(), "{late:?}");
        self.acceptor.retry(now);
        if self.flow.has_passed_peak() {
            self.trim.ask(now);
        }
        if self.trim.is_due(now) {
            heap::trim_all();
        }
    }
}
