//! The manager: forks the workers, waits for them, logs how they ended, and fills their seats again.
//!
//! Runs in a process of its own in process mode, and in the calling process in base mode. Its one rule:
//! it has a single thread for life, so that it can always fork, and it owns no client's socket, so that
//! a delay in it delays no client. Only connections that go from one base mode worker to another pass
//! through it ([`relay`]).
//!
//! This file is its loop, which turns system events into the events of the [`roster`]. The roster is
//! pure and decides; [`effects`] carries out its decisions. [`spawn`] is the fork; [`health`] and
//! [`watchdog`] check the state of workers that no event reports.

mod backoff;
mod doors;
mod effects;
mod exit;
mod handle;
mod health;
mod hooks;
mod life;
mod passage;
#[cfg(feature = "status")]
mod post_desk;
mod relay;
mod roster;
pub(crate) mod spawn;
#[cfg(feature = "status")]
mod status;
mod watchdog;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

pub use self::exit::WorkerExit;
pub(crate) use self::hooks::Hooks;
pub(crate) use self::spawn::guarded;

use self::doors::Doors;
use self::effects::{End, Supervised, failed};
use self::handle::Handle;
use self::health::Checks;
use self::relay::Relay;
use self::roster::{Event, Plan, Roster, Verdict};
use crate::config::Config;
use crate::conn_id::MAX_OWNERS;
use crate::control::{self, News, Note, NoteSet, Order};
use crate::error::{Error, Problem};
use crate::inspect::oom::OomKills;
use crate::ipc::activity::Callback;
use crate::ipc::arena::SlotMemory;
use crate::limited;
use crate::net::tls::Contexts;
#[cfg(feature = "status")]
use crate::status::{Head, PostDesk};
use crate::sys::epoll::{Events, Interest, Poller};
use crate::sys::listener::Listener;
use crate::sys::notify::Supervisor;
use crate::sys::parcel;
use crate::sys::pipe::Receiver;
use crate::sys::process::{self, ProcessId, Strangers, Watched};
use crate::sys::signal::{self, Interrupt, Interrupts, Signals};
use crate::sys::time::LoopTime;
use crate::worker::Body;

/// What a manager has that has a master.
pub(crate) struct Master {
    pub(crate) news: parcel::Sender,
    pub(crate) orders: Receiver,
    /// The memory of a slot without a worker: no process works with it.
    pub(crate) vacant: SlotMemory,
}

/// What a manager has that is the server's first process, in base mode.
#[derive(Default)]
pub(crate) struct Owned {
    pub(crate) listeners: Arc<Vec<Listener>>,
    /// The process with which the server ends.
    pub(crate) watched: Option<Watched>,
    pub(crate) contexts: Arc<Contexts>,
    pub(crate) supervisor: Supervisor,
}

/// Returns what the roster has to keep to.
fn plan(config: &Config) -> Plan {
    Plan {
        workers: config.seats(),
        standby: config.standby,
        slots: config.slots(),
        leave_deadline: config.leave_deadline(),
        crash_loop: config.fail_on_crash_loop,
    }
}

/// A slot: the memory of one worker process, and the process that works with it.
struct Slot {
    memory: SlotMemory,
    handle: Option<Handle>,
}

/// The state of the manager process: the [`Roster`], and everything with side effects.
pub(crate) struct Manager<'a> {
    config: Arc<Config>,
    roster: Roster,
    slots: Vec<Slot>,
    body: Body<'a>,
    hooks: Hooks,
    master: Option<Master>,
    poller: Arc<Poller>,
    signals: Signals,
    time: LoopTime,
    /// The process with which the server ends, until it has; in base mode.
    watched: Option<Watched>,
    /// The certificates of workers that are started from now on; in base mode.
    contexts: Arc<Contexts>,
    /// In base mode.
    supervisor: Supervisor,
    interrupts: Interrupts,
    doors: Doors,
    relay: Relay,
    strangers: Strangers,
    checks: Checks,
    /// Child processes that resolve the function names on a stack.
    namers: Vec<ProcessId>,
    oom_kills: OomKills,
    /// The callback that the worker reaped last was in.
    exited_in: Option<Callback>,
    #[cfg(feature = "status")]
    desk: status::Desk,
    /// In base mode.
    #[cfg(feature = "status")]
    post_desk: Option<PostDesk>,
}

const SIGNALS: u64 = 0;
const ORDERS: u64 = 1;
#[cfg(feature = "status")]
const DESK: u64 = 2;
const WATCHED: u64 = 3;
#[cfg(feature = "status")]
const POST_DESK: u64 = 4;
/// The token of slot 0's notes; the other slots' tokens follow.
const NOTES: u64 = 5;
/// The token of slot 0's channel, in base mode; the other slots' follow.
const CHANNELS: u64 = NOTES + MAX_OWNERS as u64;
/// The token of listener 0, in base mode; the others' follow.
const LISTENERS: u64 = CHANNELS + MAX_OWNERS as u64;

impl<'a> Manager<'a> {
    /// Handles signals from now on; they are blocked until then.
    pub(crate) fn new(
        config: Arc<Config>,
        memory: Vec<SlotMemory>,
        body: Body<'a>,
        hooks: Hooks,
        master: Option<Master>,
        owned: Owned,
    ) -> io::Result<Manager<'a>> {
        let Owned {
            listeners,
            watched,
            contexts,
            supervisor,
        } = owned;
        let poller = Arc::new(Poller::new()?);
        if let Some(master) = &master {
            poller.add(&master.orders, ORDERS, Interest::READ)?;
        }
        let signals = Signals::of_server()?;
        poller.add(&signals, SIGNALS, Interest::READ)?;
        if let Some(watched) = &watched {
            poller.add(watched, WATCHED, Interest::READ)?;
        }
        #[cfg(feature = "status")]
        let desk = status::Desk::open(&poller, Head::new(config.mode, &listeners));
        #[cfg(feature = "status")]
        let post_desk = match &master {
            None => PostDesk::open(&poller, POST_DESK),
            Some(_) => None,
        };
        signal::unblock()?;
        let doors = Doors::watch(listeners, &poller)?;
        let time = LoopTime::new();
        let empty = |memory| Slot {
            memory,
            handle: None,
        };
        Ok(Manager {
            roster: Roster::new(plan(&config), time.now()),
            time,
            slots: memory.into_iter().map(empty).collect(),
            config,
            body,
            hooks,
            master,
            poller,
            signals,
            watched,
            contexts,
            supervisor,
            interrupts: Interrupts::default(),
            doors,
            relay: Relay::default(),
            strangers: Strangers::default(),
            checks: Checks::default(),
            namers: Vec::new(),
            oom_kills: OomKills::new(),
            exited_in: None,
            #[cfg(feature = "status")]
            desk,
            #[cfg(feature = "status")]
            post_desk,
        })
    }

    /// Supervises until the server ends. Returns only in the manager, when no worker is left: a worker
    /// process exits in here.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let outcome = match self.supervise() {
            Ok(()) => Ok(()),
            Err(End::Child(incarnation)) => {
                let body = self.into_body();
                process::exit_now(guarded(|| body(*incarnation)))
            }
            Err(End::Failed(error)) => Err(error),
            Err(End::Orphaned) => {
                log::error!("the master died: every worker is killed");
                Err(Problem::ManagerExited.into())
            }
            Err(End::Decided(verdict)) => Err(self.give_up(verdict)),
        };
        self.reset_waiting();
        self.kill_and_reap_all();
        outcome
    }

    fn supervise(&mut self) -> Supervised {
        self.hooks.manager_start();
        self.happened(Event::Started)?;
        let mut events = Events::with_capacity(64);
        while !self.roster.has_ended() {
            let wait = self.next_timer();
            self.time.sleeps();
            self.poller
                .wait(&mut events, wait)
                .map_err(failed("wait for events"))?;
            self.time.wakes(wait, self.signals.has(Signal::SIGCONT));
            self.hear_channels(&events);
            self.doors.hear(&events);
            self.handle_notes(&events)?;
            self.handle_signals()?;
            self.handle_watched(&events)?;
            self.reap()?;
            self.handle_orders()?;
            self.handle_timers()?;
            // This process is the whole server, but for workers, which have a watchdog of their own.
            self.supervisor.tend(Instant::now(), 0);
            #[cfg(feature = "status")]
            self.answer_callers();
        }
        self.hooks.manager_stop();
        Ok(())
    }

    /// Tells the master why the server ends.
    fn give_up(&mut self, verdict: Verdict) -> Error {
        match verdict {
            Verdict::CrashLoop => {
                self.tell(News::CrashLoop);
                Problem::CrashLoop.into()
            }
            Verdict::CannotStart(exit) => {
                let seat = exit.seat().unwrap_or_default();
                let (status, signal) = (exit.status(), exit.signal());
                self.tell(News::CannotStart {
                    seat: seat as u32,
                    status,
                    signal,
                });
                Problem::WorkerStart {
                    seat,
                    status,
                    signal,
                }
                .into()
            }
            Verdict::CannotFork(error) => error,
        }
    }

    fn handle_notes(&mut self, events: &Events) -> Supervised {
        for index in 0..events.len() {
            let slot = events.get(index).token.checked_sub(NOTES);
            if let Some(slot) = slot.map(|slot| slot as usize)
                && slot < self.slots.len()
            {
                let notes = self.read_notes(slot);
                if notes != NoteSet::EMPTY {
                    self.happened(Event::Noted { slot, notes })?;
                    self.handle_server_calls(notes)?;
                }
            }
        }
        Ok(())
    }

    /// Carries out the server calls of callbacks, in base mode. In process mode they reach the master as
    /// part of a commit, and a worker's note of one is ignored.
    fn handle_server_calls(&mut self, notes: NoteSet) -> Supervised {
        if self.master.is_some() {
            return Ok(());
        }
        if notes.has(Note::StopServer) {
            self.happened(Event::StopRequested)?;
        }
        if notes.has(Note::ReloadServer) {
            self.happened(Event::ReloadRequested)?;
        }
        Ok(())
    }

    /// Reads the notes of a worker.
    fn read_notes(&mut self, slot: usize) -> NoteSet {
        let Some(handle) = &mut self.slots[slot].handle else {
            return NoteSet::EMPTY;
        };
        let (notes, has_ended) = handle.read_notes();
        if has_ended {
            self.unwatch_notes(slot);
        }
        notes
    }

    /// Stops watching the pipe of a worker's notes and closes it. Closing is not enough: a process that
    /// was forked meanwhile, by the watchdog or by a user's hook, has a copy, and epoll(7) would go on
    /// reporting the pipe.
    fn unwatch_notes(&mut self, slot: usize) {
        let handle = self.slots[slot].handle.as_mut();
        if let Some(pipe) = handle.and_then(|handle| handle.notes.take())
            && let Err(error) = self.poller.remove(&pipe)
        {
            log::debug!("cannot stop watching a worker's pipe: {error}");
        }
    }

    fn handle_signals(&mut self) -> Supervised {
        for signal in self.signals.take() {
            // With a master, the master decides: a signal to the whole process group is ignored here.
            match (signal, &self.master) {
                (Signal::SIGTERM | Signal::SIGQUIT, None) => {
                    self.happened(Event::StopRequested)?;
                }
                (Signal::SIGINT, None) => match self.interrupts.came(Instant::now()) {
                    Interrupt::Stop => self.happened(Event::StopRequested)?,
                    Interrupt::Force => self.kill("a second SIGINT")?,
                },
                (Signal::SIGUSR1, None) => self.happened(Event::ReloadRequested)?,
                (Signal::SIGHUP, None) => {
                    self.contexts.read_all();
                    self.config.hangup.came();
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the server if the process that it is to end with has ended.
    fn handle_watched(&mut self, events: &Events) -> Supervised {
        if (0..events.len()).any(|index| events.get(index).token == WATCHED)
            && let Some(watched) = self.watched.take()
        {
            // A copy of the descriptor in a child would go on waking this process.
            if let Err(error) = self.poller.remove(&watched) {
                log::debug!("cannot stop watching process {}: {error}", watched.pid);
            }
            self.kill(&format!("process {} has ended", watched.pid))?;
        }
        Ok(())
    }

    /// Reaps the children that have ended.
    fn reap(&mut self) -> Supervised {
        let mut some = false;
        for slot in 0..self.slots.len() {
            let Some(handle) = &mut self.slots[slot].handle else {
                continue;
            };
            let ended = process::reap(handle.pid).map_err(failed("wait for a worker"))?;
            if let Some(exit) = ended {
                some = true;
                let notes = handle.read_last_notes();
                self.exited_in = self.slots[slot].memory.words.activity.look();
                self.forget_process(slot);
                self.happened(Event::NotesAtExit { slot, notes })?;
                // Before the exit: a server that stops forks no worker in its place.
                self.handle_server_calls(notes)?;
                self.happened(Event::Exited { slot, exit })?;
            }
        }
        if some {
            self.oom_kills.forget_the_rest();
        }
        self.reap_namers()?;
        let (slots, namers) = (&self.slots, &self.namers);
        let is_worker = |slot: &Slot, child| slot.handle.as_ref().is_some_and(|it| it.pid == child);
        let is_ours =
            |child| slots.iter().any(|it| is_worker(it, child)) || namers.contains(&child);
        self.strangers
            .reap(is_ours)
            .map_err(failed("reap inherited processes"))
    }

    /// Forgets a process that was reaped.
    fn forget_process(&mut self, slot: usize) {
        self.unwatch_notes(slot);
        let slot = &mut self.slots[slot];
        if let Some(passage) = slot.handle.take().and_then(|handle| handle.passage) {
            self.relay.inherit(&self.poller, passage);
        }
        match &self.master {
            // The memory of the dead is given back.
            Some(master) => slot.memory = master.vacant.clone(),
            None => slot.memory.words.void_accepting(),
        }
    }

    fn handle_orders(&mut self) -> Supervised {
        let Some(master) = &mut self.master else {
            return Ok(());
        };
        let received = control::receive::<Order>(&mut master.orders);
        let (orders, alive) = received.map_err(failed("read the master's orders"))?;
        for order in orders {
            self.happened(match order {
                Order::Ping => {
                    self.tell(News::Pong);
                    continue;
                }
                Order::Reload => Event::ReloadRequested,
                Order::Refill => Event::RefillRequested,
                Order::Stop => Event::StopRequested,
                Order::Kill => Event::KillRequested,
                Order::KillWorker { slot, generation } => Event::Condemned {
                    slot: slot as usize,
                    generation,
                },
            })?;
        }
        if alive { Ok(()) } else { Err(End::Orphaned) }
    }

    fn handle_timers(&mut self) -> Supervised {
        let now = Instant::now();
        self.look_at_listeners(now);
        self.pass_on();
        self.happened(Event::TimePassed)?;
        self.check_memory(now)?;
        self.check_callbacks(now)?;
        if self.strangers.next_look(now) == Some(Duration::ZERO) {
            self.reap()?;
        }
        Ok(())
    }

    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let deadline = self.roster.next_deadline();
        let deadline = deadline.map(|at| at.saturating_duration_since(self.time.now()));
        let moves = [self.doors.next_look(), self.relay.next_try()];
        let checks = self.next_check().into_iter();
        let checks = checks.chain(moves.into_iter().flatten());
        #[cfg(feature = "status")]
        let checks = checks.chain(self.next_look());
        let checks = checks.chain(self.supervisor.next());
        let check = checks.min().map(|at| at.saturating_duration_since(now));
        let report = limited::report_due();
        [deadline, check, self.strangers.next_look(now), report]
            .into_iter()
            .flatten()
            .min()
    }
}
