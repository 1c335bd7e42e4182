//! A reactor: one thread of the master, with its own epoll, that owns the sockets of its
//! connections.
//!
//! Its one rule: it never waits for a worker. When a worker has no room, its connections wait, and the
//! reactor serves the others.

mod slots;
#[cfg(all(test, not(miri)))] // Miri has no sockets.
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

pub(crate) use super::command::{Command, Mailbox, Report};
use super::crash::Cause;
use super::outlet::Outlet;
use super::seats::{Seats, Violation};
use super::slot::Batch;
#[cfg(feature = "status")]
use super::status;
use super::transit::{Item, Ways};
use crate::config::{Config, charge};
use crate::conn_id::{ConnId, FIRST_TOKEN};
use crate::flow::Flow;
use crate::handler::ServerCall;
use crate::ipc::layout::{ReactorWords, Shared};
use crate::ipc::link::Failed;
use crate::ipc::memory::SharedBytes;
use crate::ipc::queued::Queued;
use crate::ipc::record::Output;
use crate::ipc::sleeper::Sleep;
use crate::ipc::sync::Ordering;
use crate::limited;
use crate::net::acceptor::{Accepted, Acceptor};
use crate::net::files::MOST_READ;
use crate::net::loads::Loads;
use crate::net::trim::Trim;
use crate::panics;
use crate::sys::doorbell::Doorbell;
use crate::sys::epoll::{Events, Interest, Poller};
use crate::sys::heap;

/// The token of all bells: the reactor's own, which carries commands, and one for each worker.
const BELL: u64 = FIRST_TOKEN;

/// The token of listener 0; the others' follow.
pub(crate) const LISTENERS: u64 = FIRST_TOKEN + 1;

/// The most connections that one wake-up accepts from one listener before other work has its turn.
pub(crate) const ACCEPTS: usize = 64;

/// The most events that one wait returns.
const EVENTS: usize = 256;

/// The most commands handled before other work has its turn.
const COMMANDS: usize = 1024;

/// The most that is collected from one worker before other work has its turn. Outputs for other reactors
/// are sent to them at the end of a turn.
const BATCH: Batch = Batch {
    commits: 1024,
    bytes: 1 << 20,
    keeps_credit: true,
};

/// The longest sleep while frames are with workers. A process that a worker has forked may swallow the
/// rings of that worker's bell.
const MAX_SLEEP_IN_FLIGHT: Duration = Duration::from_millis(100);

pub(crate) struct Reactor {
    pub(crate) flow: Flow,
    /// The workers, lent to the flow for each call.
    pub(crate) seats: Seats,
    /// Shared with the flow and the acceptor.
    pub(crate) poller: Arc<Poller>,
    pub(crate) acceptor: Acceptor,
    pub(crate) commands: Receiver<Command>,
    /// To every reactor, this one included, by number.
    pub(crate) reactors: Vec<Mailbox<Command>>,
    pub(crate) master: Mailbox<Report>,
    pub(crate) words: Shared<ReactorWords>,
    /// Those of the first reactor.
    pub(crate) first: Shared<ReactorWords>,
    /// The tasks of the server, if it has task workers.
    pub(crate) queued: Option<Queued>,
    /// Rung for commands.
    pub(crate) bell: Doorbell,
    pub(crate) config: Arc<Config>,
    pub(crate) loads: Arc<Loads>,
    pub(crate) state: State,
    pub(crate) accepted: Vec<Accepted>,
    /// To and from the other reactors.
    pub(crate) ways: Ways,
    /// The server calls that callbacks have made in this turn: each kind once, however often it was made.
    pub(crate) calls: Vec<ServerCall>,
    /// The number of callbacks that have used up their attempts.
    pub(crate) poisoned: u64,
    pub(crate) trim: Trim,
    /// No other reactor can give this one work any more. The first one, which has the tasks, is told so; for the
    /// others it holds from the start.
    pub(crate) others_are_drained: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Serving,
    Draining,
    /// Drained, and reported.
    Drained,
    Stopped,
}

impl Reactor {
    /// Runs until [`Command::Stop`]. A failure or a panic is reported: a server without one of its
    /// reactors must not look as if it served.
    pub(crate) fn run_guarded(mut self) {
        panics::log_this_thread();
        let (master, number) = (self.master.clone(), self.flow.owner());
        let turned = catch_unwind(AssertUnwindSafe(|| self.turn_until_stopped()));
        if let Err(error) = turned.unwrap_or_else(|_| Err(io::Error::other("it panicked"))) {
            log::error!("reactor#{number} failed: {error}; the server stops");
            master.send(Report::Failed(error));
        }
    }

    fn turn_until_stopped(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut sleep = Sleep::of(0);
        self.poller.add(&self.bell, BELL, Interest::BELL)?;
        loop {
            self.handle_commands();
            if self.state == State::Stopped {
                return Ok(());
            }
            self.apply_transfers();
            self.collect();
            self.give_turns();
            self.settle();
            self.report_drained();
            self.publish_counters();
            self.words.sleeper.arm(&mut sleep);
            // Armed: output that was published before is seen here, later output rings the bell.
            let timeout = match self.has_work() {
                true => Some(Duration::ZERO),
                false => self.next_timer(),
            };
            self.poller.wait(&mut events, timeout)?;
            self.words.sleeper.disarm();
            // A reactor runs no handlers of signals.
            self.flow.begin_turn(timeout, events.is_interrupted());
            self.handle_events(&events);
            self.settle();
            self.handle_timers();
        }
    }

    /// Handles the events that epoll has reported.
    fn handle_events(&mut self, events: &Events) {
        for index in 0..events.len() {
            let event = events.get(index);
            if let Some(id) = ConnId::from_token(event.token) {
                self.flow.ready(&mut self.seats, id, event);
            } else if let Some(listener) = self.acceptor.listener_of(event.token) {
                self.accept(listener);
            }
        }
    }

    /// Finishes the turn of every connection that had an event, and wakes the workers that were given
    /// frames.
    fn settle(&mut self) {
        self.flow.settle(&mut self.seats);
        self.seats.ring();
        if let Some(elder) = self.seats.take_wake() {
            self.reactors[elder].bell.ring();
        }
    }

    fn has_work(&mut self) -> bool {
        let has_come = !self.commands.is_empty() || self.ways.has_arrived();
        has_come || self.seats.has_turns() || self.seats.have_output()
    }

    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let timers = [
            self.flow.next_deadline(),
            self.flow.next_silence(),
            self.flow.next_fire(),
            self.seats.next_expiry(self.flow.now()),
            self.acceptor.next_timer(now),
            (self.seats.in_flight() > 0).then_some(MAX_SLEEP_IN_FLIGHT),
            self.seats.next_check(now),
            limited::report_due(),
            self.seats.next_give_back(now),
            self.trim.next(now),
        ];
        timers.into_iter().flatten().min()
    }

    fn handle_timers(&mut self) {
        let now = Instant::now();
        self.flow.enforce_deadlines();
        self.flow.fire_timers();
        self.end_late();
        self.acceptor.retry(now);
        if self.acceptor.is_to_stop(now) {
            self.stop_accepting(now);
        }
        self.seats.give_back_pages(now);
        if self.flow.has_passed_peak() | self.seats.have_freed_much() {
            self.trim.ask(now);
        }
        if self.trim.is_due(now) {
            heap::trim_own_end();
            self.master.send(Report::PeakPassed);
        }
        for slot in self.seats.check_progress(&mut self.flow, now) {
            self.take_back_from(slot);
        }
    }

    // socket → ring

    /// Gives connections that wait for room their turns, one after the other: each sees the room that
    /// the one before has left.
    fn give_turns(&mut self) {
        self.seats.sweep(&self.flow);
        while let Some(id) = self.seats.next_turn() {
            self.flow.take_turn(&mut self.seats, id);
        }
    }

    /// Accepts a batch of connections from a listener. Returns their number, with those that are refused.
    fn accept(&mut self, listener: usize) -> usize {
        let room = self
            .config
            .max_connections
            .saturating_sub(self.loads.sockets());
        let mut accepted = std::mem::take(&mut self.accepted);
        let count = self
            .acceptor
            .accept(listener, room, &self.loads, &mut accepted);
        let own = usize::from(self.flow.owner());
        for connection in accepted.drain(..) {
            let reactor = match self.acceptor.is_late() {
                // Others may have drained.
                true => {
                    self.loads.enter_at(own);
                    own
                }
                false => self.loads.enter(),
            };
            if reactor == own {
                self.flow.adopt(&mut self.seats, connection);
            } else {
                self.reactors[reactor].send(Command::Adopt(connection));
            }
        }
        self.accepted = accepted;
        count
    }

    // ring → socket

    /// Applies the outputs that the workers have committed.
    fn collect(&mut self) {
        for slot in 0..self.seats.slot_count() {
            self.collect_from(slot, BATCH);
        }
        for call in self.calls.drain(..) {
            self.master.send(Report::Called(call));
        }
        if self.ways.has_published() {
            self.apply_transfers();
        }
        self.ways.send();
    }

    /// Applies outputs that other reactors have read, at most a batch.
    fn apply_transfers(&mut self) {
        let mut applied = 0;
        while applied < BATCH.bytes
            && let Some(item) = self.ways.receive()
        {
            applied += match item {
                Item::Output(output, bytes) => {
                    self.flow.apply(output, SharedBytes::of(&bytes));
                    charge(bytes.len())
                }
                Item::File(id, part) => {
                    let read = part.left().min(MOST_READ as u64) as usize;
                    self.flow.send_file(id, part);
                    read
                }
                Item::Unordered(publication) => {
                    // A way may be full now: then no more of these is received.
                    let (ways, name) = (&mut self.ways, publication.name());
                    self.flow
                        .reactors_of_group(name, |to| ways.stage_ordered(to, &publication));
                    self.flow.deliver(&publication)
                }
                Item::Ordered(publication) => self.flow.deliver(&publication),
            } + charge(0);
        }
    }

    fn collect_from(&mut self, slot: usize, most: Batch) {
        let mut outlet = Outlet {
            flow: &mut self.flow,
            ways: &mut self.ways,
            calls: &mut self.calls,
            failed: Vec::new(),
            full: None,
            queued: self.queued.as_ref(),
            first: &self.first,
            reactors: &self.reactors,
            slot,
            seat: self.seats.seat_of(slot) as u16,
            broken: None,
            read: 0,
        };
        let collected = self.seats.collect(slot, most, &mut outlet);
        for failed in outlet.failed {
            self.callback_failed(slot, failed);
        }
        if let Err(Violation {
            seat,
            generation,
            broken,
        }) = collected
        {
            log::error!(
                "worker#{seat} broke the ring protocol ({broken}): it is killed, and another worker takes over"
            );
            self.master
                .send(Report::ProtocolBroken { slot, generation });
        }
    }

    /// A callback has returned an error.
    fn callback_failed(&mut self, slot: usize, failed: Failed) {
        self.flow.frames_returned(failed.behind);
        // Last: each returned frame goes to the front, and this one must be first.
        let seat = self.seats.seat_of(slot);
        self.decide(seat, failed.frame, Cause::Failed);
    }

    // Commands

    fn handle_commands(&mut self) {
        for command in self.commands.try_iter().take(COMMANDS).collect::<Vec<_>>() {
            match command {
                Command::Adopt(accepted) => self.flow.adopt(&mut self.seats, accepted),
                Command::SlotForked {
                    slot,
                    generation,
                    memory,
                } => self.slot_forked(slot, generation, memory),
                Command::SlotEmptied { slot, generation } => self.slot_emptied(slot, generation),
                Command::SeatTaken {
                    seat,
                    slot,
                    generation,
                } => self.seat_taken(seat, slot, generation),
                Command::SeatReady { seat } => self.seats.seat_is_ready(seat),
                Command::Accept => {
                    self.flow.set_first_timers();
                    self.acceptor.start();
                }
                Command::Ping => self.master.send(Report::Pong),
                Command::StopAccepting => self.acceptor.begin_to_stop(Instant::now()),
                Command::Drain => {
                    self.state = State::Draining;
                    self.flow.settle(&mut self.seats);
                    self.flow.drain();
                }
                Command::OthersAreDrained => self.others_are_drained = true,
                Command::HangUp => {
                    self.acceptor.stop_waiting();
                    self.flow.hang_up_all();
                }
                Command::Stop => {
                    self.flow.hang_up_all();
                    self.state = State::Stopped;
                }
                Command::Post(posted) => {
                    let bytes = SharedBytes::of(&posted.bytes);
                    self.flow.apply(Output::Post(posted.to), bytes);
                }
                Command::Asked(asked) => self.seats.answer(asked, &self.flow),
                #[cfg(feature = "status")]
                Command::Status(caller) => {
                    caller.send(&status::packet(&self.flow, &mut self.seats));
                }
            }
        }
    }

    /// Accepts the clients that are left in the queues, and closes the listeners. If there is no room for
    /// all of them, the listeners stay open for them alone: places become free while the server drains.
    fn stop_accepting(&mut self, now: Instant) {
        for listener in 0..self.config.sockets {
            // A socket that stays open may get clients for ever: the next server has them.
            while self.accept(listener) > 0 && !self.acceptor.is_left_open(listener) {}
        }
        let was_late = self.acceptor.is_late();
        if !self.acceptor.wait_for_room(now) {
            self.acceptor.stop();
        }
        if !was_late {
            self.master.send(Report::StoppedAccepting);
        }
    }

    fn report_drained(&mut self) {
        let is_empty = self.flow.len() == 0 && !self.flow.has_mail() && self.seats.in_flight() == 0;
        if self.state == State::Draining
            && self.others_are_drained
            && is_empty
            && !self.acceptor.has_started()
            && self.commands.is_empty()
            && self.ways.is_empty()
        {
            self.state = State::Drained;
            self.master.send(Report::Drained);
        }
    }

    /// Publishes the counters that `stats` returns.
    fn publish_counters(&self) {
        let (words, order) = (&self.words, Ordering::Relaxed);
        words.connections.store(self.flow.len() as u64, order);
        words.accepted.store(self.flow.accepted(), order);
        words.kept.store(self.flow.kept() as u64, order);
        words.poisoned.store(self.poisoned, order);
    }
}
