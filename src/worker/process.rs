//! The worker of process mode: takes frames from its inboxes, runs the callbacks, and commits their
//! output.
//!
//! Runs in a process that the manager forked. Its one rule: it owns no socket, and the master waits for
//! nothing of it, so that it may block, leak or crash at any instruction.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::asides::{self, Asides};
use super::callback::{self, Caller, Outcome, is_closed_to};
use super::claims::TaskClaims;
use super::files::Files;
use super::sessions::Sessions;
use super::staging::{LinkOutput, Own};
use super::{BELL, Incarnation};
use crate::config::{ANSWER_PATIENCE, Config};
use crate::conn_id::ConnId;
use crate::control::Note;
use crate::error::Result;
use crate::event::Event;
use crate::handler::{Handler, Posts, Worker};
use crate::ipc::answer::{Answer, Questions};
use crate::ipc::arena::{self, WorkerMemory};
use crate::ipc::layout::{ReactorWords, Shared};
use crate::ipc::link::{Take, Taken, WorkerLink, WorkerOutbox};
use crate::ipc::queued::Amount;
use crate::ipc::record::{About, Question};
use crate::ipc::sleeper::Sleep;
use crate::ipc::sync::Ordering;
use crate::limited;
use crate::sys::epoll::{Events, Interest, Poller};
use crate::sys::pipe::{Received, Receiver};
use crate::sys::process;
use crate::sys::signal::{self, Signals};

/// The most frames of one link that are handled before the next link has its turn.
const BATCH: usize = 16;

/// Runs a worker of process mode, from start to exit. Returns the exit status.
pub(crate) fn run<H: Handler>(
    reactors: Vec<Shared<ReactorWords>>,
    config: &Arc<Config>,
    make: &dyn Fn(Worker) -> Result<H>,
    incarnation: Incarnation,
) -> i32 {
    match serve(reactors, config, make, incarnation) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}

fn serve<H: Handler>(
    reactors: Vec<Shared<ReactorWords>>,
    config: &Arc<Config>,
    make: &dyn Fn(Worker) -> Result<H>,
    incarnation: Incarnation,
) -> Result {
    let Incarnation {
        slot: _,
        seat,
        generation,
        files,
        poller,
        notes,
        manager,
        channel: _,
        parent,
    } = incarnation;
    let worker = Worker::new(seat, generation, config.workers);
    let files = files.ok_or("a worker of process mode without memory: this is a bug in tine")?;
    let (memory, sender) = files.map_for_worker()?;
    arena::keep_from_children(&reactors)?;
    let poller = Arc::new(poller);
    let posts = Posts::new(config, Some((Arc::clone(&poller), POSTS))).enter(seat);
    let pause = Pause::new(poller, manager, generation)?;
    let handler = callback::start(make, worker, parent)?;
    notes.try_tell(Note::Ready)?;

    let links: Vec<WorkerLink> = memory
        .links
        .iter()
        .zip(&reactors)
        .map(|(link, reactor)| WorkerLink::new(link, reactor, generation))
        .collect();
    let words = memory.words.clone();
    let files = Files::new(sender, &reactors, config.most_files);
    let caller = Caller::new(handler, worker, words, notes, Arc::clone(config));
    let desk = Desk {
        task_claims: TaskClaims::new(config, &reactors),
        memory,
        reactors,
        pause,
        limit: config.output_limit,
        most_kept: config.most_kept(),
        seats: config.workers,
        questions: Questions::of(generation),
        closed: HashSet::new(),
        has_promised: false,
        files,
    };
    let mut server = Loop {
        sessions: links.iter().map(|_| Sessions::default()).collect(),
        links,
        desk,
        caller,
        asides: Asides::new(posts),
    };
    server.turn_until_asked_to_leave()?;
    server.leave()?;
    Ok(())
}

struct Loop<H> {
    links: Vec<WorkerLink>,
    /// By link.
    sessions: Vec<Sessions>,
    desk: Desk,
    caller: Caller<H>,
    asides: Asides,
}

/// The worker's state beside its links and its handler.
pub(super) struct Desk {
    pub(super) memory: WorkerMemory,
    pub(super) reactors: Vec<Shared<ReactorWords>>,
    pause: Pause,
    pub(super) limit: usize,
    /// The most bytes that a reactor keeps for users.
    pub(super) most_kept: usize,
    pub(super) seats: usize,
    questions: Questions,
    /// `None` without task workers.
    pub(super) task_claims: Option<TaskClaims>,
    /// Connections that a callback has closed, until their `close`: their frames before it are dropped.
    pub(super) closed: HashSet<ConnId>,
    /// The callback has promised an answer: the next messages of its connection are to wait for that.
    pub(super) has_promised: bool,
    pub(super) files: Files,
}

impl<H: Handler> Loop<H> {
    fn turn_until_asked_to_leave(&mut self) -> Result {
        let mut sleep = Sleep::of(self.caller.worker.generation);
        loop {
            let mut worked = false;
            self.notice_sigterm();
            for link in 0..self.links.len() {
                worked |= self.work_through(link)?;
            }
            worked |= self.asides.publish(&mut self.links, &mut self.desk)? > 0;
            if self.leaves() {
                return Ok(());
            }
            if worked {
                continue;
            }
            self.desk.memory.words.sleeper.arm(&mut sleep);
            // Armed: frames that were published before are seen here, later ones ring the bell.
            let sigterm = self.desk.pause.signals.has(Signal::SIGTERM);
            if !self.links.iter_mut().any(has_work) && !self.leaves() && !sigterm {
                match self.asides.next_try() {
                    None => self.desk.pause.sleep()?,
                    Some(time) => self.desk.pause.sleep_for(time)?,
                }
            }
            self.desk.memory.words.sleeper.disarm();
        }
    }

    /// Leaves. What its threads have posted until then is published.
    fn leave(&mut self) -> io::Result<()> {
        let links = &mut self.links;
        self.asides.publish_all(links, &mut self.desk)?;
        self.caller.stop_handler();
        self.asides.publish_all(links, &mut self.desk)?;
        asides::end(&self.asides.posts);
        self.caller.left();
        Ok(())
    }

    /// Whether the manager has asked this incarnation to leave.
    fn leaves(&self) -> bool {
        let leave = &self.desk.memory.orders.leave;
        leave.load(Ordering::Relaxed) >= self.caller.worker.generation
    }

    /// On SIGTERM, asks the manager for a replacement; this worker serves until that one is ready.
    fn notice_sigterm(&mut self) {
        if self.desk.pause.signals.has(Signal::SIGTERM) {
            self.desk.pause.signals.take();
            self.caller.notes.tell(Note::Replace);
        }
    }

    /// Handles a batch of a link's frames. Returns whether there was any.
    fn work_through(&mut self, number: usize) -> Result<bool> {
        if !self.links[number].attach() {
            return Ok(false);
        }
        self.take_seat()?;
        let mut worked = false;
        for _ in 0..BATCH {
            if self.leaves() || self.has_older(number) {
                break;
            }
            worked |= self.asides.publish(&mut self.links, &mut self.desk)? > 0;
            if let Some(claims) = &mut self.desk.task_claims {
                claims.settle(number, || {
                    let marks = self.links[number].marks();
                    (marks.written, marks.read)
                });
            }
            self.settle_files()?;
            let link = &mut self.links[number];
            // Room for `Done` first: a frame that is begun can then be finished.
            self.desk.make_room(&mut link.outbox, 0)?;
            // A reply must not wait for the next callback, which may never return. A sleeping reactor is
            // woken once, and then sees the rest of the batch by itself.
            link.outbox.ring();
            let is_read = !self.desk.closed.is_empty() && link.outbox.is_read();
            let taken = match link.take() {
                Take::Frame(taken) => taken,
                Take::Empty if is_read => {
                    self.desk.forget_closed(number);
                    break;
                }
                // Of a barred inbox, nobody knows what it holds when the bar is lifted.
                Take::Empty | Take::Barred => break,
            };
            worked = true;
            let sessions = &mut self.sessions[number];
            let outcome = self.desk.handle(link, &taken, sessions, &mut self.caller);
            self.asides.choose(number, link);
            match outcome {
                Outcome::Done => {
                    self.desk.files.send(number)?;
                    link.outbox.done(&taken);
                    self.desk.files.note(number, || link.outbox.written());
                    if std::mem::take(&mut self.desk.has_promised) {
                        // Frames of the connection may be next: the reactor recalls them.
                        self.desk.wait_until_read(&mut link.outbox)?;
                    }
                }
                Outcome::Failed => {
                    self.desk.has_promised = false;
                    link.outbox.failed(&taken);
                    self.desk.wait_until_read(&mut link.outbox)?;
                }
            }
        }
        self.links[number].outbox.ring();
        self.sessions[number].sweep(&self.links[number]);
        Ok(worked)
    }

    /// Waits until few enough files of this worker are on their way.
    fn settle_files(&mut self) -> io::Result<()> {
        if !self.desk.files.are_read() {
            self.desk
                .files
                .settle(|link| self.links[link].outbox.read());
            while let Some(link) = self.desk.files.must_wait_for() {
                let outbox = &mut self.links[link].outbox;
                self.desk.wait_until_read(outbox)?;
                self.desk
                    .files
                    .settle(|link| self.links[link].outbox.read());
            }
        }
        Ok(())
    }

    /// Whether the next frame of another link was submitted before that of this one.
    fn has_older(&mut self, number: usize) -> bool {
        if self.links.len() == 1 {
            return false;
        }
        let Some(own) = self.links[number].inbox.waits_since() else {
            return false;
        };
        let others = self.links.iter_mut().enumerate();
        let mut others = others.filter(|(other, _)| *other != number);
        others.any(|(_, link)| {
            link.attach() && link.inbox.waits_since().is_some_and(|since| since < own)
        })
    }

    /// A reactor has opened its link: a worker that was on standby has a seat now.
    fn take_seat(&mut self) -> Result {
        if self.caller.worker.seat.is_none() {
            // Written by the manager before the reactor was told to open the link.
            let seat = self.desk.memory.orders.seat.load(Ordering::Relaxed);
            let seat = seat.checked_sub(1).ok_or(
                "a reactor opened its link to a worker without a seat: this is a bug in tine",
            )?;
            self.caller.take_seat(seat as usize)?;
        }
        Ok(())
    }
}

fn has_work(link: &mut WorkerLink) -> bool {
    link.attach() && link.inbox.look()
}

impl Desk {
    fn handle<H: Handler>(
        &mut self,
        link: &mut WorkerLink,
        taken: &Taken,
        sessions: &mut Sessions,
        caller: &mut Caller<H>,
    ) -> Outcome {
        let conn = taken.input.conn;
        let Some(event) = taken.input.kind.event() else {
            return Outcome::Done;
        };
        if event == Event::Close {
            self.closed.remove(&conn);
        } else if self.closed.contains(&conn) {
            return Outcome::Done;
        }
        let (message, carried) = link.inbox.body(taken);
        let mut session = sessions.take(&taken.input, carried);
        let mut output = LinkOutput {
            desk: self,
            outbox: &mut link.outbox,
            current: conn,
            message,
            sent: 0,
            records: 0,
            kept: 0,
            tasks: Amount::default(),
            closes: false,
            is_closed: is_closed_to(event, &taken.input),
            own: Own::default(),
        };
        let outcome = caller.call(event, &taken.input, message, &mut session, &mut output);
        match outcome {
            Outcome::Done => {
                output.stage_user();
                output.note_committed();
            }
            Outcome::Failed => self.files.forget(),
        }
        if event == Event::Close {
            self.closed.remove(&conn);
        }
        match outcome {
            Outcome::Done if event != Event::Close => sessions.keep(conn, session),
            Outcome::Done | Outcome::Failed => sessions.forget(session),
        }
        outcome
    }

    /// Forgets the closed connections of a reactor. It had read all output before its inbox was found
    /// empty: of the connections closed by then, no frame comes but `close`, which may go to another
    /// worker.
    fn forget_closed(&mut self, reactor: usize) {
        self.closed
            .retain(|conn| usize::from(conn.owner()) != reactor);
    }

    /// Waits until the reactor has applied everything that was published.
    fn wait_until_read(&mut self, outbox: &mut WorkerOutbox) -> io::Result<()> {
        while !outbox.is_read() {
            outbox.ring();
            outbox.arm_for_room(&mut self.pause.room_sleep);
            if !outbox.is_read() {
                self.pause.sleep()?;
            }
            outbox.disarm_for_room();
        }
        Ok(())
    }

    /// Waits, in a callback, until few enough files are on their way. Those of other links were few before it.
    pub(super) fn settle_files(
        &mut self,
        outbox: &mut WorkerOutbox,
        number: usize,
    ) -> io::Result<()> {
        if self.files.must_wait_for().is_some() {
            self.wait_until_read(outbox)?;
            let read = outbox.read();
            let of_link = |link| if link == number { read } else { 0 };
            self.files.settle(of_link);
        }
        Ok(())
    }

    /// Asks the reactor of an outbox a question, and waits for the answer of the reactor that it is about; `None` if
    /// that takes too long.
    pub(super) fn ask(
        &mut self,
        outbox: &mut WorkerOutbox,
        (reactor, about): (usize, About),
        name: &[u8],
    ) -> io::Result<Option<u64>> {
        self.make_room(outbox, name.len())?;
        let number = self.questions.next();
        outbox.ask(Question { number, about }, name);
        let end = Instant::now() + ANSWER_PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = self.answer(reactor).get(number);
            if answer.is_some() || left.is_zero() {
                return Ok(answer);
            }
            self.pause.sleep_for(left)?;
        }
    }

    /// Returns where a reactor answers.
    pub(super) fn answer(&self, reactor: usize) -> &Answer {
        &self.memory.links[reactor].words.answer
    }

    /// Waits until a frame of `len` bytes fits into the outbox. For that, staged output is published
    /// early: the reactor holds it back until its commit.
    pub(super) fn make_room(&mut self, outbox: &mut WorkerOutbox, len: usize) -> io::Result<()> {
        if outbox.room(len) {
            return Ok(());
        }
        while !outbox.room(len) {
            outbox.publish();
            outbox.ring();
            outbox.arm_for_room(&mut self.pause.room_sleep);
            if !outbox.room(len) {
                self.pause.sleep()?;
            }
            outbox.disarm_for_room();
        }
        Ok(())
    }
}

/// The sleep of a worker, until its bell rings, a signal comes, or the manager dies.
struct Pause {
    poller: Arc<Poller>,
    events: Events,
    manager: Receiver,
    signals: Signals,
    room_sleep: Sleep,
}

const MANAGER: u64 = BELL + 1;
const SIGNALS: u64 = BELL + 2;
/// The bell of the threads that post.
const POSTS: u64 = BELL + 3;

impl Pause {
    fn new(poller: Arc<Poller>, manager: Receiver, generation: u32) -> io::Result<Pause> {
        let signals = Signals::of_worker()?;
        signal::unblock()?;
        poller.add(&manager, MANAGER, Interest::READ)?;
        poller.add(&signals, SIGNALS, Interest::READ)?;
        let events = Events::with_capacity(4);
        Ok(Pause {
            poller,
            events,
            manager,
            signals,
            room_sleep: Sleep::of(generation),
        })
    }

    fn sleep(&mut self) -> io::Result<()> {
        self.sleep_until(limited::report_due())
    }

    /// Sleeps for as long, at most.
    fn sleep_for(&mut self, most: Duration) -> io::Result<()> {
        self.sleep_until(Some(
            limited::report_due().map_or(most, |due| due.min(most)),
        ))
    }

    fn sleep_until(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.poller.wait(&mut self.events, timeout)?;
        for index in 0..self.events.len() {
            match self.events.get(index).token {
                // The manager is dead: this worker would be neither reaped nor restarted.
                MANAGER if self.manager.receive(&mut [0])? == Received::End => process::exit_now(1),
                SIGNALS => self.signals.keep_only(Signal::SIGTERM),
                // The bells need no handling: one has woken this worker.
                _ => {}
            }
        }
        Ok(())
    }
}
