//! The manager: forks the workers, waits for them, logs how they ended, and fills their seats again.
//!
//! Runs in a process of its own in process mode, and is the parent in base mode. Its one rule: it
//! has one thread for life, so that it can always fork, and it owns no client's socket, so that
//! nothing it does is felt by a client.
//!
//! This file is its loop: what it hears, and whom it happens to. What follows is in [`seat`], how a
//! process comes to be in [`spawn`], how they are replaced in [`reload`], what it looks after in
//! [`health`] and [`watchdog`], how it ends in [`stop`].

mod backoff;
pub(crate) mod handle;
mod health;
mod hooks;
mod life;
mod reload;
mod seat;
pub(crate) mod spawn;
#[cfg(feature = "status")]
mod status;
mod stop;
mod watchdog;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

pub(crate) use self::hooks::Hooks;
pub(crate) use self::spawn::guarded;

use self::backoff::Backoff;
use self::handle::{Handle, WorkerExit};
use self::health::Looks;
use self::life::Event;
use self::reload::Turn;
use self::seat::{Post, Seat, Slot, Standby};
use self::stop::Listeners;
use crate::config::Config;
use crate::control::{self, News, Note, Order};
use crate::error::{Error, Problem};
use crate::inspect::oom::OomKills;
use crate::ipc::layout::SlotMemory;
#[cfg(feature = "status")]
use crate::status::Head;
use crate::sys::epoll::{Events, Interest, Poller};
use crate::sys::pipe::{Receiver, Sender, pipe};
use crate::sys::process::{self, ProcessId, Strangers};
use crate::sys::signal::{self, Signals, USUAL};
use crate::sys::socket::Listener;
use crate::worker::{Body, Incarnation};

/// The pipes of a manager that has a master.
pub(crate) struct Master {
    pub(crate) news: Sender,
    pub(crate) orders: Receiver,
}

/// What the manager is made of.
pub(crate) struct Manager<'a> {
    config: Arc<Config>,
    seats: Vec<Seat>,
    slots: Vec<Slot>,
    standby: Standby,
    /// Workers are counted over all slots.
    last_generation: u32,
    body: Body<'a>,
    hooks: Hooks,
    master: Option<Master>,
    poller: Poller,
    signals: Signals,
    /// The workers have the other end. A worker takes it all.
    alive: Option<(Sender, Receiver)>,
    phase: Phase,
    /// Who is to be replaced; the first of them is at it.
    reloading: VecDeque<Turn>,
    /// Another reload was asked for meanwhile.
    reload_again: bool,
    /// It is not gone on with before.
    reload_at: Option<Instant>,
    reload_backoff: Backoff,
    /// The longest that a worker has taken to get ready.
    slowest_start: Duration,
    /// The master lets the server end: nobody is replaced any more.
    ending: bool,
    interrupted: bool,
    listeners: Listeners,
    strangers: Strangers,
    looks: Looks,
    /// Processes that find out what is on a stack.
    namers: Vec<ProcessId>,
    oom_kills: OomKills,
    #[cfg(feature = "status")]
    desk: status::Desk,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Some worker has not been ready yet.
    Starting,
    Running,
    Stopping,
}

/// Why supervision ends, other than that every worker has left as it was asked to.
enum End {
    /// A worker could not start, and so the server can't.
    CannotStart(WorkerExit),
    /// No seat has had a worker of any use for too long.
    CrashLoop,
    /// The master is dead.
    Orphaned,
    /// The manager can't go on.
    Failed(Error),
    /// This is a new worker process.
    Child(Incarnation),
}

/// `Err` ends supervision.
type Supervised<T = ()> = Result<T, End>;

/// For `map_err`: a system call without which there is no supervision.
fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> End {
    move |source| End::Failed(Error::system(operation)(source))
}

const SIGNALS: u64 = 0;
const ORDERS: u64 = 1;
#[cfg(feature = "status")]
const DESK: u64 = 2;
/// Tokens from here on are those of workers' notes, by slot.
const NOTES: u64 = 3;

impl<'a> Manager<'a> {
    /// Listens to signals from now on; they are blocked until then.
    pub(crate) fn new(
        config: Arc<Config>,
        memory: Vec<SlotMemory>,
        body: Body<'a>,
        hooks: Hooks,
        master: Option<Master>,
        listeners: Arc<Vec<Listener>>,
    ) -> io::Result<Manager<'a>> {
        let poller = Poller::new()?;
        if let Some(master) = &master {
            poller.add(&master.orders, ORDERS, Interest::READ)?;
        }
        let signals = Signals::new(&[&[Signal::SIGCHLD], &USUAL[..]].concat())?;
        poller.add(&signals, SIGNALS, Interest::READ)?;
        #[cfg(feature = "status")]
        let desk = status::Desk::open(&poller, Head::new(config.mode, &listeners));
        signal::unblock()?;
        Ok(Manager {
            seats: (0..config.workers).map(|_| Seat::new()).collect(),
            slots: memory.into_iter().map(Slot::new).collect(),
            standby: Standby::new(config.standby),
            last_generation: 0,
            config,
            body,
            hooks,
            master,
            poller,
            signals,
            alive: Some(pipe()?),
            phase: Phase::Starting,
            reloading: VecDeque::new(),
            reload_again: false,
            reload_at: None,
            reload_backoff: Backoff::default(),
            slowest_start: Duration::ZERO,
            ending: false,
            interrupted: false,
            listeners: Listeners::new(listeners),
            strangers: Strangers::default(),
            looks: Looks::default(),
            namers: Vec::new(),
            oom_kills: OomKills::new(),
            #[cfg(feature = "status")]
            desk,
        })
    }

    /// Supervises until the server ends. Returns in the parent alone, and when no worker is left:
    /// a worker process ends in here.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let outcome = match self.supervise() {
            Ok(()) => Ok(()),
            Err(End::Child(incarnation)) => {
                let body = self.into_body();
                process::exit_now(guarded(|| body(incarnation)))
            }
            Err(End::Failed(error)) => Err(error),
            Err(End::Orphaned) => {
                log::error!("the master is dead: every worker is killed");
                Err(Problem::ManagerExited.into())
            }
            Err(End::CrashLoop) => {
                self.tell(News::CrashLoop);
                Err(Problem::CrashLoop.into())
            }
            Err(End::CannotStart(exit)) => {
                let seat = exit.seat().unwrap_or_default();
                let (status, signal) = (exit.status(), exit.signal());
                self.tell(News::CannotStart {
                    seat: seat as u32,
                    status,
                    signal,
                });
                Err(Problem::WorkerStart {
                    seat,
                    status,
                    signal,
                }
                .into())
            }
        };
        self.kill_and_reap_all();
        outcome
    }

    fn supervise(&mut self) -> Supervised {
        self.hooks.manager_start();
        for seat in 0..self.seats.len() {
            self.start(Post::Seat(seat))?;
        }
        let mut events = Events::with_capacity(64);
        while !self.has_ended() {
            self.poller
                .wait(&mut events, self.next_timer())
                .map_err(failed("wait for events"))?;
            self.hear_notes(&events)?;
            self.hear_signals()?;
            self.hear_orders()?;
            self.see_to_timers()?;
            #[cfg(feature = "status")]
            self.tell_status();
        }
        self.hooks.manager_stop();
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.phase == Phase::Stopping && self.slots.iter().all(|slot| slot.handle.is_none())
    }

    fn hear_notes(&mut self, events: &Events) -> Supervised {
        for index in 0..events.len() {
            if let Some(slot) = events.get(index).token.checked_sub(NOTES) {
                self.hear_notes_of(slot as usize)?;
            }
        }
        Ok(())
    }

    /// Acts on what a worker has told.
    fn hear_notes_of(&mut self, slot: usize) -> Supervised {
        let Some(handle) = &mut self.slots[slot].handle else {
            return Ok(());
        };
        for note in handle.hear() {
            match note {
                Note::Ready => self.happen(slot, Event::BecameReady)?,
                Note::Replace => drop(self.replace(slot)?),
                Note::Seated => {
                    if let Post::Seat(seat) = self.slots[slot].post {
                        self.tell(News::Ready { seat: seat as u32 });
                    }
                }
                // A master hears of it from a reactor.
                Note::StopServer if self.master.is_none() => self.stop()?,
                Note::ReloadServer if self.master.is_none() => self.reload()?,
                Note::StopServer | Note::ReloadServer | Note::Served | Note::Left => {}
            }
        }
        let handle = self.slots[slot].handle.as_ref();
        if handle.is_some_and(|handle| handle.is_mute) {
            self.stop_hearing(slot);
        }
        Ok(())
    }

    /// Lets go of the pipe of a worker's notes. Not only by closing it: a process that was forked
    /// meanwhile, to name a stack or by a hook of the user's, has a copy, and epoll(7) would go on
    /// about it.
    fn stop_hearing(&mut self, slot: usize) {
        let handle = self.slots[slot].handle.as_mut();
        if let Some(pipe) = handle.and_then(|handle| handle.notes.take())
            && let Err(error) = self.poller.remove(&pipe)
        {
            log::debug!("the notes of a worker: {error}");
        }
    }

    fn hear_signals(&mut self) -> Supervised {
        for signal in self.signals.take() {
            // A master decides for its manager: what the whole group gets is not for us.
            match (signal, &self.master) {
                (Signal::SIGTERM, None) => self.stop()?,
                (Signal::SIGINT, None) if self.interrupted => self.condemn_all()?,
                (Signal::SIGINT, None) => {
                    self.interrupted = true;
                    self.stop()?;
                }
                (Signal::SIGUSR1, None) => self.reload()?,
                _ => {}
            }
        }
        self.reap()
    }

    /// Sees who has ended.
    fn reap(&mut self) -> Supervised {
        let mut some = false;
        for number in 0..self.slots.len() {
            let slot = &mut self.slots[number];
            let Some(handle) = &mut slot.handle else {
                continue;
            };
            let exit = process::reap(handle.pid).map_err(failed("wait for a worker"))?;
            if exit.is_some() {
                some = true;
                handle.exit = exit;
                // Its last words: they say whether it was ready, and whether it was to end. A
                // successor that is dead is no longer one.
                match slot.post {
                    Post::Seat(_) | Post::Leaving(_) => self.hear_notes_of(number)?,
                    Post::Successor(_) | Post::Standby => drop(handle.hear()),
                }
                self.happen(number, Event::Exited(self.exit_reason(number)))?;
            }
        }
        if some {
            self.oom_kills.forget_the_rest();
        }
        self.reap_namers()?;
        let (slots, namers) = (&self.slots, &self.namers);
        let is_ours = |child| slots.iter().any(|slot| slot.has(child)) || namers.contains(&child);
        self.strangers
            .reap(is_ours)
            .map_err(failed("reap inherited processes"))
    }

    fn hear_orders(&mut self) -> Supervised {
        let Some(master) = &mut self.master else {
            return Ok(());
        };
        let heard = control::receive::<Order>(&mut master.orders);
        let (orders, alive) = heard.map_err(failed("hear the master"))?;
        for order in orders {
            match order {
                Order::Reload => self.reload()?,
                Order::Refill => {
                    self.ending = true;
                    self.refill()?;
                }
                Order::Stop => self.stop()?,
                Order::Kill => {
                    self.stop()?;
                    self.condemn_all()?;
                }
                Order::KillWorker { slot, generation } => {
                    let slot = slot as usize;
                    let handle = self.slots[slot].handle.as_ref();
                    if handle.is_some_and(|handle| handle.generation == generation) {
                        self.happen(slot, Event::Condemned)?;
                    }
                }
            }
        }
        if alive { Ok(()) } else { Err(End::Orphaned) }
    }

    fn see_to_timers(&mut self) -> Supervised {
        let now = Instant::now();
        self.listeners.see_to(now);
        for seat in 0..self.seats.len() {
            let refill_at = &mut self.seats[seat].refill_at;
            if refill_at.take_if(|at| *at <= now).is_some() {
                self.refill_one(seat)?;
            }
        }
        if self.standby.refill_at.is_some_and(|at| at <= now) {
            self.fill_standby()?;
        }
        if self.reload_at.take_if(|at| *at <= now).is_some() {
            self.reload_next()?;
        }
        for number in 0..self.slots.len() {
            let Some(handle) = &mut self.slots[number].handle else {
                continue;
            };
            let state = handle.state;
            let is_late = handle.seated_by.take_if(|at| *at <= now).is_some();
            if handle.deadline.take_if(|at| *at <= now).is_some() {
                let name = self.slots[number].name();
                log::warn!("{name} is {state:?} for too long: killed");
                self.happen(number, Event::DeadlinePassed)?;
            } else if is_late {
                let name = self.slots[number].name();
                log::warn!("{name} is in seated for too long: killed");
                self.happen(number, Event::Condemned)?;
            }
        }
        self.see_to_crash_loop(now)?;
        self.see_to_memory(now)?;
        self.see_to_callbacks(now)?;
        if self.strangers.next_look(now) == Some(Duration::ZERO) {
            self.reap()?;
        }
        Ok(())
    }

    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let seats = self.seats.iter().filter_map(|seat| seat.refill_at);
        let handles = self.slots.iter().filter_map(|slot| slot.handle.as_ref());
        let timers = seats
            .chain(handles.filter_map(Handle::next_deadline))
            .chain(self.standby.refill_at)
            .chain(self.reload_at)
            .chain(self.next_health_look())
            .chain(self.listeners.next_look());
        #[cfg(feature = "status")]
        let timers = timers.chain(self.desk.next_look());
        let next = timers.min().map(|at| at.saturating_duration_since(now));
        [next, self.strangers.next_look(now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Tells the master, if there is one. A master that is dead is noticed by the end of its
    /// orders.
    fn tell(&mut self, news: News) {
        if let Some(master) = &mut self.master
            && let Err(error) = control::send(&mut master.news, &news)
        {
            log::error!("cannot tell the master {news:?}: {error}");
        }
    }
}
