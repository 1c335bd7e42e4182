//! The manager: forks the workers, waits for them, logs how they ended, and fills their seats again.
//!
//! Runs in a process of its own in process mode, and is the parent in base mode. Its one rule: it
//! has one thread for life, so that it can always fork, and it owns no client's socket, so that
//! nothing it does is felt by a client.
//!
//! This file is its loop: what it hears, and whom it happens to. What follows is in [`seat`], how a
//! process comes to be in [`spawn`], how they are replaced in [`reload`], how it ends in [`stop`].

mod backoff;
pub(crate) mod handle;
mod hooks;
mod life;
mod reload;
mod seat;
mod spawn;
mod stop;
pub(crate) mod wire;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

pub(crate) use self::hooks::Hooks;
pub(crate) use self::spawn::{Body, Incarnation, guarded};

use self::handle::{Note, WorkerExit};
use self::life::Event;
use self::seat::{Place, Seat};
use self::stop::Listeners;
use self::wire::{News, Order};
use crate::error::Error;
use crate::ipc::layout::SeatMemory;
use crate::sys::epoll::{Events, Interest, Poller};
use crate::sys::pipe::{Receiver, Sender, pipe};
use crate::sys::process::{self, Strangers};
use crate::sys::signal::{self, Signals, USUAL};
use crate::sys::socket::Listener;

/// The pipes of a manager that has a master.
pub(crate) struct Master {
    pub(crate) news: Sender,
    pub(crate) orders: Receiver,
}

/// What the manager is made of.
pub(crate) struct Manager<'a> {
    seats: Vec<Seat>,
    body: Body<'a>,
    hooks: Hooks,
    master: Option<Master>,
    poller: Poller,
    signals: Signals,
    /// The workers have the other end. A worker takes it all.
    alive: Option<(Sender, Receiver)>,
    shutdown_deadline: Duration,
    phase: Phase,
    /// Seats whose worker is to be replaced, and the generation that is; the first of them at it.
    reloading: VecDeque<(usize, u32)>,
    /// Another reload was asked for meanwhile.
    reload_again: bool,
    /// The longest that a worker has taken to get ready.
    slowest_start: Duration,
    /// The master lets the server end: nobody is replaced any more.
    ending: bool,
    interrupted: bool,
    listeners: Listeners,
    strangers: Strangers,
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
    move |source| End::Failed(Error::System { operation, source })
}

const SIGNALS: u64 = 0;
const ORDERS: u64 = 1;
/// Tokens from here on are those of workers' notes, two a seat.
const NOTES: u64 = 2;

impl<'a> Manager<'a> {
    /// Listens to signals from now on; they are blocked until then.
    pub(crate) fn new(
        memory: Vec<SeatMemory>,
        body: Body<'a>,
        hooks: Hooks,
        master: Option<Master>,
        listeners: Arc<Vec<Listener>>,
        shutdown_deadline: Duration,
    ) -> io::Result<Manager<'a>> {
        let poller = Poller::new()?;
        if let Some(master) = &master {
            poller.add(&master.orders, ORDERS, Interest::READ)?;
        }
        let signals = Signals::new(&[&[Signal::SIGCHLD], &USUAL[..]].concat())?;
        poller.add(&signals, SIGNALS, Interest::READ)?;
        signal::unblock()?;
        Ok(Manager {
            seats: memory.into_iter().map(Seat::new).collect(),
            body,
            hooks,
            master,
            poller,
            signals,
            alive: Some(pipe()?),
            shutdown_deadline,
            phase: Phase::Starting,
            reloading: VecDeque::new(),
            reload_again: false,
            slowest_start: Duration::ZERO,
            ending: false,
            interrupted: false,
            listeners: Listeners::new(listeners),
            strangers: Strangers::default(),
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
                Err(Error::ManagerDied)
            }
            Err(End::CannotStart(exit)) => {
                let (seat, status, signal) = (exit.seat(), exit.status(), exit.signal());
                self.tell(News::CannotStart {
                    seat: seat as u32,
                    status,
                    signal,
                });
                Err(Error::WorkerStart {
                    seat,
                    status,
                    signal,
                })
            }
        };
        self.kill_and_reap_all();
        outcome
    }

    fn supervise(&mut self) -> Supervised {
        self.hooks.manager_start();
        for number in 0..self.seats.len() {
            self.happen(number, Place::Current, Event::BackoffElapsed)?;
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
        }
        self.hooks.manager_stop();
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.phase == Phase::Stopping && self.seats.iter().all(Seat::is_vacant)
    }

    fn hear_notes(&mut self, events: &Events) -> Supervised {
        for index in 0..events.len() {
            if let Some(which) = events.get(index).token.checked_sub(NOTES) {
                let place = if which % 2 == 0 {
                    Place::Current
                } else {
                    Place::Successor
                };
                self.hear_notes_of((which / 2) as usize, place)?;
            }
        }
        Ok(())
    }

    /// Acts on what a worker has told.
    fn hear_notes_of(&mut self, number: usize, place: Place) -> Supervised {
        let Some(handle) = self.seats[number].at(place) else {
            return Ok(());
        };
        let generation = handle.generation;
        for note in handle.hear() {
            match note {
                Note::Ready => self.happen(number, place, Event::BecameReady)?,
                Note::Replace => self.replace(number, generation)?,
                Note::Served | Note::Left => {}
            }
        }
        Ok(())
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
        for number in 0..self.seats.len() {
            for place in [Place::Successor, Place::Current] {
                let Some(handle) = self.seats[number].at(place) else {
                    continue;
                };
                let exit = process::reap(handle.pid).map_err(failed("wait for a worker"))?;
                if exit.is_some() {
                    handle.exit = exit;
                    // Its last words: they say whether it was ready, and whether it was to end. A
                    // successor that is dead is no longer one.
                    match place {
                        Place::Current => self.hear_notes_of(number, place)?,
                        Place::Successor => drop(handle.hear()),
                    }
                    self.happen(number, place, Event::Exited(self.exit_reason()))?;
                }
            }
        }
        let seats = &self.seats;
        let is_ours = |child| seats.iter().any(|seat| seat.has(child));
        self.strangers
            .reap(is_ours)
            .map_err(failed("reap inherited processes"))
    }

    fn hear_orders(&mut self) -> Supervised {
        let Some(master) = &mut self.master else {
            return Ok(());
        };
        let heard = wire::receive::<Order>(&mut master.orders);
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
                Order::KillWorker { seat, generation } => {
                    let number = seat as usize;
                    let current = self.seats[number].at(Place::Current);
                    if current
                        .as_ref()
                        .is_some_and(|current| current.generation == generation)
                    {
                        self.happen(number, Place::Current, Event::Condemned)?;
                    }
                }
            }
        }
        if alive { Ok(()) } else { Err(End::Orphaned) }
    }

    fn see_to_timers(&mut self) -> Supervised {
        let now = Instant::now();
        self.listeners.see_to(now);
        for number in 0..self.seats.len() {
            if self.seats[number]
                .refill_at
                .take_if(|at| *at <= now)
                .is_some()
            {
                self.refill_one(number)?;
            }
            for place in [Place::Successor, Place::Current] {
                let Some(handle) = self.seats[number].at(place) else {
                    continue;
                };
                if handle.deadline.take_if(|at| *at <= now).is_some() {
                    let (pid, state) = (handle.pid.get(), handle.state);
                    log::warn!("worker#{number}[pid={pid}] is {state:?} for too long: killed");
                    self.happen(number, place, Event::DeadlinePassed)?;
                }
            }
        }
        if self.strangers.next_look(now) == Some(Duration::ZERO) {
            self.reap()?;
        }
        Ok(())
    }

    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let seats = self.seats.iter().filter_map(Seat::next_timer);
        let timers = seats.chain(self.listeners.next_look());
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
            && let Err(error) = wire::send(&mut master.news, &news)
        {
            log::error!("cannot tell the master {news:?}: {error}");
        }
    }
}
