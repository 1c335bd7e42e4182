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

use super::seats::Seats;
use crate::config::{Config, OnCrash};
use crate::handler::CloseReason;
use crate::id::{ConnId, FIRST_TOKEN};
use crate::ipc::frame::{InputKind, Output};
use crate::ipc::layout::ReactorMemory;
use crate::ipc::link::{Commit, Delivery};
use crate::ipc::memory::SharedBytes;
use crate::ipc::seat::Sleep;
use crate::ipc::sync::Ordering;
use crate::net::acceptor::{Accepted, Acceptor};
use crate::net::connection::Step;
use crate::net::dispatch::Loads;
use crate::pipeline::Pipeline;
use crate::sys::doorbell::Doorbell;
use crate::sys::epoll::{Events, Interest};

/// What others tell a reactor. Its bell is rung after every one.
pub(crate) enum Command {
    /// A connection that another reactor accepted, counted as this one's.
    Adopt(Accepted),
    /// Outputs of workers for connections of this reactor, that came by another one's links.
    Apply(Vec<(Output, Vec<u8>)>),
    /// The incarnation in this seat is dead: waitpid has returned for it.
    SeatEmptied { seat: usize, generation: u32 },
    /// This incarnation sits there now.
    SeatTaken { seat: usize, generation: u32 },
    /// Start to accept.
    Accept,
    /// Take what the kernel has accepted already, then no more, and report that.
    StopAccepting,
    /// Finish what was accepted, and report when it is done. Comes when nobody accepts any more.
    Drain,
    /// Close everything at once and end.
    Stop,
}

/// What a reactor tells the master's main thread.
pub(crate) enum Report {
    /// This worker broke the ring's protocol.
    Broken { seat: usize, generation: u32 },
    /// After [`Command::StopAccepting`].
    AcceptsNoMore,
    /// After [`Command::Drain`]: nothing is left.
    Drained,
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

/// How many events one wait takes.
const EVENTS: usize = 256;

/// How many commits of one seat are applied before everybody else has a turn, and how many commands
/// are obeyed.
const BATCH: usize = 1024;

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
            || self
                .pipeline
                .deliver
                .0
                .iter_mut()
                .any(|seat| seat.link.has_output())
    }

    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let timers = [
            self.pipeline.io.next_deadline(now),
            self.acceptor.next_retry(now),
            (self.pipeline.deliver.in_flight() > 0).then_some(UNEASY),
        ];
        timers.into_iter().flatten().min()
    }

    fn see_to_timers(&mut self) {
        if self.next_timer() == Some(Duration::ZERO) {
            let now = Instant::now();
            self.pipeline.io.enforce_deadlines(now);
            self.acceptor.retry(&self.pipeline.io.poller, now);
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
        for seat in 0..self.pipeline.deliver.0.len() {
            self.collect_from(seat, BATCH);
        }
        for (reactor, outputs) in self.reactors.iter().zip(&mut self.outgoing) {
            if !outputs.is_empty() {
                reactor.tell(Command::Apply(std::mem::take(outputs)));
            }
        }
    }

    fn collect_from(&mut self, seat: usize, most: usize) {
        for _ in 0..most {
            match self.pipeline.deliver.0[seat].link.next_commit() {
                Ok(Some(commit)) => self.apply(seat, commit),
                Ok(None) => break,
                Err(broken) => {
                    let generation = self.pipeline.deliver.0[seat].link.generation();
                    log::error!(
                        "worker#{seat} broke the ring's protocol ({broken}): it is killed, and another one takes over"
                    );
                    self.master.tell(Report::Broken { seat, generation });
                    break;
                }
            }
        }
        let at = &mut self.pipeline.deliver.0[seat];
        if at.link.release() {
            at.wake();
        }
    }

    /// Carries out one commit: its outputs, then the frame that it retires.
    fn apply(&mut self, seat: usize, commit: Commit) {
        let owner = self.pipeline.io.owner();
        let link = &mut self.pipeline.deliver.0[seat].link;
        for index in 0..link.output_count() {
            let (output, bytes) = link.output(index);
            let (Output::Send(id) | Output::Close(id) | Output::Reset(id)) = output else {
                continue;
            };
            if id.owner() == owner {
                self.pipeline.io.apply(output, bytes);
            } else if let Some(outputs) = self.outgoing.get_mut(usize::from(id.owner())) {
                let mut copy = Vec::with_capacity(bytes.len());
                bytes.append_to(&mut copy);
                outputs.push((output, copy));
            }
        }
        if let Some(delivery) = link.finish(commit) {
            self.retired(delivery.conn, delivery.kind, Step::Done);
        }
    }

    /// A frame has left the inbox: its callback is through, or nobody will run it.
    fn retired(&mut self, id: ConnId, kind: InputKind, step: Step) {
        match kind {
            InputKind::Close => {
                if let Some(conn) = self.pipeline.io.get_mut(id) {
                    conn.close = step;
                    self.pipeline.io.touch(id);
                }
            }
            InputKind::Connect
            | InputKind::Receive
            | InputKind::BufferFull
            | InputKind::BufferEmpty
            | InputKind::Void => {}
        }
    }

    // A worker's death

    /// The worker is dead. What it had committed counts, the rest never was; the frame under way
    /// has the fate that was declared.
    fn seat_emptied(&mut self, seat: usize, generation: u32) {
        if self.pipeline.deliver.0[seat].link.generation() != generation {
            return;
        }
        self.collect_from(seat, usize::MAX);
        let under_way = self.pipeline.deliver.0[seat].link.cut();
        if let Some(delivery) = under_way {
            self.decide(seat, delivery);
        }
        // Messages of a connection that was closed here must not kill the next worker too.
        let (io, link) = (&self.pipeline.io, &mut self.pipeline.deliver.0[seat].link);
        link.void(|id| io.get(id).is_some_and(|conn| conn.void));
    }

    fn decide(&mut self, seat: usize, delivery: Delivery) {
        let link = &mut self.pipeline.deliver.0[seat].link;
        let Delivery {
            conn,
            kind,
            attempts,
            flushed,
            ..
        } = delivery;
        match self.config.on_crash {
            OnCrash::Redeliver { attempts: most } if !flushed && attempts + 1 < most => {
                link.redeliver()
            }
            OnCrash::Keep => {
                link.retire();
                log::info!(
                    "worker#{seat} died in {kind:?} of connection {conn}: dropped, the connection stays"
                );
                self.retired(conn, kind, Step::Abandoned);
                if self.state != State::Serving {
                    // Nobody will look at it any more.
                    self.pipeline.io.close(conn, CloseReason::Shutdown);
                }
            }
            OnCrash::Redeliver { .. } | OnCrash::Close => {
                link.retire();
                log::info!(
                    "worker#{seat} died in {kind:?} of connection {conn}: the connection is closed"
                );
                self.pipeline.io.close(conn, CloseReason::Crash);
                self.retired(conn, kind, Step::Done);
            }
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
                Command::SeatEmptied { seat, generation } => self.seat_emptied(seat, generation),
                Command::SeatTaken { seat, generation } => {
                    let seat = &mut self.pipeline.deliver.0[seat];
                    seat.link.open(generation);
                    seat.wake();
                }
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
            }
        }
    }

    fn stop_accepting(&mut self) {
        for listener in 0..self.config.listen.len() {
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
    }
}
