//! A reactor: one thread of the master, with its own epoll, that owns the sockets of its
//! connections.
//!
//! Its one rule: it never waits for anybody. Where a worker has no room, connections wait, and the
//! reactor goes on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::crash::Cause;
use super::seats::{self, Seats};
use crate::config::Config;
use crate::conn_id::{ConnId, FIRST_TOKEN};
use crate::event::Event;
use crate::flow::Pipeline;
use crate::handler::ServerCall;
use crate::ipc::frame::Output;
use crate::ipc::layout::ReactorMemory;
use crate::ipc::link::{Commit, Legacy};
use crate::ipc::memory::SharedBytes;
use crate::ipc::sleeper::Sleep;
use crate::ipc::sync::Ordering;
use crate::net::acceptor::{Accepted, Acceptor};
use crate::net::connection::Step;
use crate::net::dispatch::Loads;
#[cfg(feature = "status")]
use crate::status::{MOST_OWED, Packet, Visitor};
use crate::sys::doorbell::Doorbell;
use crate::sys::epoll::{Events, Interest};

/// What others tell a reactor. Its bell is rung after every one.
pub(crate) enum Command {
    /// A connection that another reactor accepted, counted as this one's.
    Adopt(Accepted),
    /// Outputs of workers for connections of this reactor, that came by another one's links.
    Apply(Vec<(Output, Vec<u8>)>),
    /// The worker in this slot is dead: waitpid has returned for it.
    SlotEmptied { slot: usize, generation: u32 },
    /// The worker in this slot has the seat now.
    SeatTaken {
        seat: usize,
        slot: usize,
        generation: u32,
    },
    /// Who has the seat is ready.
    SeatReady { seat: usize },
    /// Start to accept.
    Accept,
    /// Take what the kernel has accepted already, then no more, and report that.
    StopAccepting,
    /// Finish what was accepted, and report when it is done. Comes when nobody accepts any more.
    Drain,
    /// Close everything at once and end.
    Stop,
    /// Somebody wants to know who owes what.
    #[cfg(feature = "status")]
    Tell(Visitor),
}

/// What a reactor tells the master's main thread.
pub(crate) enum Report {
    /// This worker broke the ring's protocol.
    Broken { slot: usize, generation: u32 },
    /// After [`Command::StopAccepting`].
    AcceptsNoMore,
    /// After [`Command::Drain`]: nothing is left.
    Drained,
    /// A callback has asked this of the server.
    Called(ServerCall),
    /// The reactor has ended: its epoll failed, or it has panicked.
    Failed(io::Error),
}

/// A way to tell a reactor something.
pub(crate) struct Line<T> {
    pub(crate) sender: Sender<T>,
    pub(crate) bell: Doorbell,
}

impl<T> Clone for Line<T> {
    fn clone(&self) -> Self {
        Line {
            sender: self.sender.clone(),
            bell: self.bell.clone(),
        }
    }
}

impl<T> Line<T> {
    /// Sends and wakes. A receiver that has ended needs to hear nothing.
    pub(crate) fn tell(&self, message: T) {
        if self.sender.send(message).is_ok() {
            self.bell.ring();
        }
    }
}

/// The token of the reactor's bell.
const BELL: u64 = FIRST_TOKEN;

/// The token of listener 0; the others' follow.
pub(crate) const LISTENERS: u64 = FIRST_TOKEN + 1;

/// How many connections one wake-up takes from one listener, before everybody else has a turn.
pub(crate) const ACCEPTS: usize = 64;

/// How many events one wait takes.
const EVENTS: usize = 256;

/// How many commits of one seat are applied before everybody else has a turn, and how many commands
/// are obeyed.
const BATCH: usize = 1024;

/// After so many bytes of output, too. A commit that names bytes of its message is short in the ring,
/// however much it sends, and what is for other reactors is on its way to them from the end of a turn on.
const BATCH_BYTES: usize = 1 << 20;

/// The longest sleep while frames are with workers. A worker holds this reactor's bell, and one
/// that goes wild may take the rings of the others from it.
const UNEASY: Duration = Duration::from_millis(100);

pub(crate) struct Reactor {
    pub(crate) pipeline: Pipeline<Seats>,
    pub(crate) acceptor: Acceptor,
    pub(crate) commands: Receiver<Command>,
    /// To every reactor, this one too, by number.
    pub(crate) reactors: Vec<Line<Command>>,
    pub(crate) master: Line<Report>,
    pub(crate) memory: ReactorMemory,
    pub(crate) config: Arc<Config>,
    pub(crate) loads: Arc<Loads>,
    pub(crate) state: State,
    pub(crate) accepted: Vec<Accepted>,
    /// Outputs for connections of others, by reactor, until the end of this turn.
    pub(crate) outgoing: Vec<Vec<(Output, Vec<u8>)>>,
    /// What callbacks have asked of the server, until the end of this turn: each kind once, however
    /// often a worker asks.
    pub(crate) calls: Vec<ServerCall>,
    /// How many callbacks have used up their attempts.
    pub(crate) poisoned: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Serving,
    Draining,
    /// Draining, and said so.
    Drained,
    Stopped,
}

impl Reactor {
    /// Runs until it is told to stop. A failure, or a panic, is reported: a server whose reactor is
    /// gone must not look as if it served.
    pub(crate) fn run_guarded(mut self) {
        let master = self.master.clone();
        let turned = catch_unwind(AssertUnwindSafe(|| self.turn_until_stopped()));
        if let Err(error) = turned.unwrap_or_else(|_| Err(io::Error::other("it has panicked"))) {
            log::error!("a reactor has failed: {error}");
            master.tell(Report::Failed(error));
        }
    }

    fn turn_until_stopped(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut sleep = Sleep::of(0);
        self.pipeline
            .io
            .poller
            .add(&self.memory.bell, BELL, Interest::BELL)?;
        loop {
            self.obey();
            if self.state == State::Stopped {
                return Ok(());
            }
            self.collect();
            self.give_turns();
            self.pipeline.settle();
            self.pipeline.deliver.ring();
            self.report_drained();
            self.publish_counters();
            self.memory.words.sleeper.arm(&mut sleep);
            // Armed: whatever was published before is seen here, whatever comes after rings.
            let timeout = if self.has_work() {
                Some(Duration::ZERO)
            } else {
                self.next_timer()
            };
            self.pipeline.io.poller.wait(&mut events, timeout)?;
            self.memory.words.sleeper.disarm();
            for index in 0..events.len() {
                let event = events.get(index);
                if let Some(id) = ConnId::from_token(event.token) {
                    self.pipeline.ready(id, event);
                } else if let Some(listener) = self.acceptor.listener_of(event.token) {
                    self.accept(listener);
                }
            }
            self.pipeline.settle();
            self.pipeline.deliver.ring();
            self.see_to_timers();
        }
    }

    fn has_work(&mut self) -> bool {
        !self.commands.is_empty()
            || self.pipeline.deliver.has_turns()
            || self.pipeline.deliver.have_output()
    }

    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let timers = [
            self.pipeline.io.next_deadline(now),
            self.acceptor.next_retry(now),
            (self.pipeline.deliver.in_flight() > 0).then_some(UNEASY),
            self.pipeline.deliver.next_look(now),
        ];
        timers.into_iter().flatten().min()
    }

    fn see_to_timers(&mut self) {
        let now = Instant::now();
        self.pipeline.io.enforce_deadlines(now);
        self.acceptor.retry(&self.pipeline.io.poller, now);
        for slot in self.pipeline.deliver.look(&mut self.pipeline.io, now) {
            self.take_back_from(slot);
        }
    }

    // socket → ring

    /// Gives their turns to those who wait for room: each is advanced at once, so that what is left
    /// is the next one's.
    fn give_turns(&mut self) {
        while let Some(id) = self.pipeline.deliver.next_turn() {
            self.pipeline.take_turn(id);
        }
    }

    /// Takes a batch of connections from a listener. Says whether there were any.
    fn accept(&mut self, listener: usize) -> bool {
        let room = self
            .config
            .max_connections
            .saturating_sub(self.loads.sockets());
        let mut accepted = std::mem::take(&mut self.accepted);
        self.acceptor
            .accept(&self.pipeline.io.poller, listener, room, &mut accepted);
        let some = !accepted.is_empty();
        for connection in accepted.drain(..) {
            let reactor = self.loads.enter_reactor();
            if reactor == usize::from(self.pipeline.io.owner()) {
                self.pipeline.adopt(connection);
            } else {
                self.reactors[reactor].tell(Command::Adopt(connection));
            }
        }
        self.accepted = accepted;
        some
    }

    // ring → socket

    /// Applies what the workers have committed.
    fn collect(&mut self) {
        for slot in 0..self.pipeline.deliver.slot_count() {
            self.collect_from(slot, BATCH, BATCH_BYTES);
        }
        for call in self.calls.drain(..) {
            self.master.tell(Report::Called(call));
        }
        for (reactor, outputs) in self.reactors.iter().zip(&mut self.outgoing) {
            if !outputs.is_empty() {
                reactor.tell(Command::Apply(std::mem::take(outputs)));
            }
        }
    }

    /// Everything that a worker has committed.
    fn collect_all_from(&mut self, slot: usize) {
        self.collect_from(slot, usize::MAX, usize::MAX);
    }

    /// Until it is so many commits, or so many bytes.
    fn collect_from(&mut self, slot: usize, most: usize, most_bytes: usize) {
        let oldest = self.pipeline.deliver.slot(slot).link.oldest();
        let (mut done, mut bytes) = (0, 0);
        for _ in 0..most {
            if bytes >= most_bytes {
                break;
            }
            let link = &mut self.pipeline.deliver.slot(slot).link;
            match link.next_commit() {
                Ok(Some(commit)) => {
                    bytes += link.charged();
                    done += usize::from(self.apply(slot, commit));
                }
                Ok(None) => break,
                Err(broken) => {
                    let at = self.pipeline.deliver.slot(slot);
                    let (seat, generation) = (at.seat, at.link.generation());
                    log::error!(
                        "worker#{seat} broke the ring's protocol ({broken}): it is killed, and another one takes over"
                    );
                    self.master.tell(Report::Broken { slot, generation });
                    break;
                }
            }
        }
        if done > 0 {
            self.pipeline.deliver.finished(slot, oldest, done);
        }
        let at = self.pipeline.deliver.slot(slot);
        if at.link.release() {
            at.wake();
        }
    }

    /// Carries out one commit: its outputs, then the frame that it retires. Says whether there
    /// was one.
    fn apply(&mut self, slot: usize, commit: Commit) -> bool {
        let owner = self.pipeline.io.owner();
        let link = &mut self.pipeline.deliver.slot(slot).link;
        for index in 0..link.output_count() {
            let (output, bytes) = link.output(index);
            let id = match output {
                Output::Send(id)
                | Output::Close(id)
                | Output::Reset(id)
                | Output::SetUser(id, _) => id,
                Output::CallServer(call) => {
                    if !self.calls.contains(&call) {
                        self.calls.push(call);
                    }
                    continue;
                }
                Output::SendReceived(..) | Output::Flush | Output::Done(_) | Output::Failed(_) => {
                    continue;
                }
            };
            if id.owner() == owner {
                self.pipeline.io.apply(output, bytes);
            } else if let Some(outputs) = self.outgoing.get_mut(usize::from(id.owner())) {
                let mut copy = Vec::with_capacity(bytes.len());
                bytes.append_to(&mut copy);
                outputs.push((output, copy));
            }
        }
        let retired = link.finish(commit);
        if commit == Commit::Failed {
            return self.callback_failed(slot);
        }
        let Some(delivery) = retired else {
            return false;
        };
        if let Some(event) = delivery.kind.event() {
            self.retired(delivery.conn, event, Step::Done);
        }
        true
    }

    /// A callback has returned an error. Its connection's other frames go back, so that none of them
    /// runs before the declared fate; the worker waits for that. Says whether there was a frame.
    fn callback_failed(&mut self, slot: usize) -> bool {
        let at = self.pipeline.deliver.slot(slot);
        let seat = at.seat;
        let Some((frame, behind)) = at.link.fail() else {
            return false;
        };
        seats::give_back(&mut self.pipeline.io, behind);
        // Last, since it goes before the rest.
        self.decide(seat, frame, Cause::Failed);
        true
    }

    /// A frame has left the inbox: its callback is through, or nobody will run it.
    pub(super) fn retired(&mut self, id: ConnId, event: Event, step: Step) {
        self.pipeline.io.landed(id);
        if event == Event::Close
            && let Some(conn) = self.pipeline.io.get_mut(id)
        {
            conn.close = step;
            self.pipeline.io.touch(id);
        }
    }

    // Frames that move to another worker

    /// Takes back what a worker that lives has not begun.
    fn take_back_from(&mut self, slot: usize) {
        self.collect_all_from(slot);
        let returned = self.pipeline.deliver.slot(slot).recall();
        seats::give_back(&mut self.pipeline.io, returned);
        self.pipeline.settle();
    }

    /// A worker takes a seat. The one before it may still be at its last callback, and keeps that.
    fn seat_taken(&mut self, seat: usize, slot: usize, generation: u32) {
        if let Some(last) = self.pipeline.deliver.take_seat(seat, slot, generation) {
            self.take_back_from(last);
        }
    }

    /// A worker is dead. What it had committed counts, the rest never was; the frame under way has
    /// the fate that was declared, and the others are for whoever comes next.
    fn slot_emptied(&mut self, slot: usize, generation: u32) {
        if self.pipeline.deliver.slot(slot).link.generation() != generation {
            return;
        }
        self.collect_all_from(slot);
        let link = &mut self.pipeline.deliver.slot(slot).link;
        let left = link.left();
        let Legacy { under_way, rest } = link.cut();
        self.pipeline.deliver.frames_end(slot, left);
        self.pipeline.deliver.leave_slot(slot);
        seats::give_back(&mut self.pipeline.io, rest);
        if let Some(frame) = under_way {
            // Last, since it goes before the rest.
            let seat = self.pipeline.deliver.slot(slot).seat;
            self.decide(seat, frame, Cause::Died);
        }
    }

    // Commands

    fn obey(&mut self) {
        for command in self.commands.try_iter().take(BATCH).collect::<Vec<_>>() {
            match command {
                Command::Adopt(accepted) => self.pipeline.adopt(accepted),
                Command::Apply(outputs) => {
                    for (output, bytes) in outputs {
                        self.pipeline.io.apply(output, SharedBytes::of(&bytes));
                    }
                }
                Command::SlotEmptied { slot, generation } => self.slot_emptied(slot, generation),
                Command::SeatTaken {
                    seat,
                    slot,
                    generation,
                } => self.seat_taken(seat, slot, generation),
                Command::SeatReady { seat } => self.pipeline.deliver.seat_is_ready(seat),
                Command::Accept => {
                    if let Err(error) = self.acceptor.start(&self.pipeline.io.poller) {
                        log::error!("cannot watch the listeners: {error}");
                    }
                }
                Command::StopAccepting => self.stop_accepting(),
                Command::Drain => {
                    self.state = State::Draining;
                    self.pipeline.settle();
                    self.pipeline.drain();
                }
                Command::Stop => {
                    self.pipeline.io.hang_up_all();
                    self.state = State::Stopped;
                }
                #[cfg(feature = "status")]
                Command::Tell(visitor) => {
                    let generation = |slot| self.pipeline.deliver.generation(slot);
                    let (owed, more) = self.pipeline.io.owed(MOST_OWED, generation);
                    let slots = self.pipeline.deliver.slots_in_use();
                    visitor.tell(&Packet::Reactor { slots, owed, more });
                }
            }
        }
    }

    fn stop_accepting(&mut self) {
        for listener in 0..self.config.sockets {
            while self.accept(listener) {}
        }
        self.acceptor.stop(&self.pipeline.io.poller);
        self.master.tell(Report::AcceptsNoMore);
    }

    fn report_drained(&mut self) {
        let empty = self.pipeline.io.len() == 0 && self.pipeline.deliver.in_flight() == 0;
        if self.state == State::Draining && empty && self.commands.is_empty() {
            self.state = State::Drained;
            self.master.tell(Report::Drained);
        }
    }

    /// What `stats` shows of this reactor.
    fn publish_counters(&self) {
        self.memory
            .words
            .connections
            .store(self.pipeline.io.len() as u64, Ordering::Relaxed);
        self.memory
            .words
            .accepted
            .store(self.pipeline.io.named(), Ordering::Relaxed);
        self.memory
            .words
            .poisoned
            .store(self.poisoned, Ordering::Relaxed);
    }
}
