//! The manager: forks the workers, waits for them, logs how they ended, and fills their seats
//! again.
//!
//! Runs in a process of its own in process mode, and is the parent in base mode. Its one rule: it
//! has one thread for life, so that it can always fork, and it owns no client's socket, so that
//! nothing it does is felt by a client.

pub(crate) mod backoff;
pub(crate) mod handle;
pub(crate) mod life;
pub(crate) mod wire;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use self::backoff::Backoff;
use self::handle::{Handle, WorkerExit};
use self::life::{Action, Event, ExitReason, State};
use self::wire::{News, Order};
use crate::error::Error;
use crate::ipc::layout::SeatMemory;
use crate::ipc::sync::Ordering;
use crate::role::Role;
use crate::sys::epoll::{Events, Interest, Poller};
use crate::sys::pipe::{Receiver, Sender, pipe};
use crate::sys::process::{self, ExitStatus, Fork, ProcessId};
use crate::sys::signal::{self, Signals};
use crate::sys::socket::Listener;

/// A new worker process, before it has run anything of the user's.
pub(crate) struct Incarnation {
    pub(crate) seat: usize,
    pub(crate) generation: u32,
    /// One byte here says that it is ready.
    pub(crate) ready: Sender,
    /// End-of-file here says that the manager is dead.
    pub(crate) manager: Receiver,
}

/// A callback that is told how a worker ended.
pub(crate) type OnWorkerError = Box<dyn FnMut(&WorkerExit)>;

/// The user's callbacks of the manager process.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) manager_start: Option<Box<dyn FnOnce()>>,
    pub(crate) manager_stop: Option<Box<dyn FnOnce()>>,
    pub(crate) worker_error: Option<OnWorkerError>,
    /// Every worker is ready. In process mode the master has a hook of its own for that.
    pub(crate) all_ready: Option<Box<dyn FnOnce()>>,
}

/// The pipes of a manager that has a master.
pub(crate) struct Master {
    pub(crate) news: Sender,
    pub(crate) orders: Receiver,
}

/// What a worker process runs; it returns the exit status.
pub(crate) type Body<'a> = Box<dyn FnOnce(Incarnation) -> i32 + 'a>;

/// What the manager is made of.
pub(crate) struct Manager<'a> {
    seats: Vec<Seat>,
    body: Body<'a>,
    hooks: Hooks,
    master: Option<Master>,
    poller: Poller,
    signals: Signals,
    /// The workers have the other end.
    alive: (Sender, Receiver),
    shutdown_deadline: Duration,
    phase: Phase,
    /// Seats whose worker is to be replaced, the first of them at it.
    reloading: VecDeque<usize>,
    interrupted: bool,
    listeners: Listeners,
}

/// The listeners of base mode, which the manager owns. In process mode there are none here.
struct Listeners {
    shared: Arc<Vec<Listener>>,
    /// When to look next whether they can be stopped, and until when that can wait.
    stop: Option<(Instant, Instant)>,
}

impl Listeners {
    /// How often the queues are looked at, until they are empty.
    const LOOK: Duration = Duration::from_millis(10);

    /// Stops those whose queue the workers have emptied, or all when time is up: a worker that is
    /// stuck holds its copy of the socket open, and clients would go on to connect.
    fn see_to(&mut self, now: Instant) {
        let Some((_, until)) = self.stop.filter(|(look, _)| *look <= now) else {
            return;
        };
        let waited_for = |listener: &Listener| listener.queued().is_ok_and(|queued| queued > 0);
        if now < until && self.shared.iter().any(waited_for) {
            self.stop = Some((now + Self::LOOK, until));
            return;
        }
        self.stop = None;
        for listener in self.shared.iter() {
            if let Err(error) = listener.stop() {
                log::error!("cannot stop listening on {}: {error}", listener.address());
            }
        }
    }
}

struct Seat {
    memory: SeatMemory,
    /// Whoever has the seat, or had it last.
    current: Handle,
    /// Whoever takes it next.
    successor: Option<Handle>,
    last_generation: u32,
    backoff: Backoff,
    /// When the next process is due, in a seat that is down.
    refill_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Some worker has not been ready yet.
    Starting,
    Running,
    Stopping,
}

/// Why supervision ended.
enum End {
    /// Every worker has left as it was asked to.
    Stopped,
    /// A worker could not start.
    CannotStart(WorkerExit),
    /// The master is dead.
    Orphaned,
    /// This is a new worker process.
    Child(Incarnation),
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Error {
        Error::System {
            operation: "supervise the workers",
            source,
        }
    }
}

const SIGNALS: u64 = 0;
const ORDERS: u64 = 1;

/// The token of a seat's ready pipe: of its current worker or of its successor.
fn token(seat: usize, successor: bool) -> u64 {
    2 + seat as u64 * 2 + u64::from(successor)
}

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
        // A master decides for its manager: what the whole group gets is not for us.
        let group = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1];
        signal::ignore(&[Signal::SIGHUP, Signal::SIGPIPE])?;
        let signals = match &master {
            Some(master) => {
                poller.add(&master.orders, ORDERS, Interest::READ)?;
                signal::ignore(&group)?;
                Signals::new(&[Signal::SIGCHLD])?
            }
            None => Signals::new(&[&[Signal::SIGCHLD], &group[..]].concat())?,
        };
        poller.add(&signals, SIGNALS, Interest::READ)?;
        signal::unblock()?;
        let seats = memory.into_iter().map(Seat::new).collect();
        let (phase, reloading) = (Phase::Starting, VecDeque::new());
        let alive = pipe()?;
        Ok(Manager {
            seats,
            body,
            hooks,
            master,
            poller,
            signals,
            alive,
            shutdown_deadline,
            phase,
            reloading,
            interrupted: false,
            listeners: Listeners {
                shared: listeners,
                stop: None,
            },
        })
    }

    /// Supervises until the server ends. Returns in the parent alone: a worker process ends in
    /// here.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        match self.supervise()? {
            End::Stopped => Ok(()),
            End::Orphaned => {
                log::error!("the master is dead: every worker is killed");
                self.kill_all()?;
                Err(Error::ManagerDied)
            }
            End::CannotStart(exit) => {
                self.kill_all()?;
                let (worker, status, signal) = (exit.worker(), exit.status(), exit.signal());
                self.tell(News::CannotStart {
                    seat: worker as u32,
                    status,
                    signal,
                });
                Err(Error::WorkerStart {
                    worker,
                    status,
                    signal,
                })
            }
            End::Child(incarnation) => {
                let body = self.into_body();
                process::exit_now(guarded(|| body(incarnation)))
            }
        }
    }

    /// What a worker takes with it; everything else of the manager's is dropped, and its
    /// descriptors closed.
    fn into_body(self) -> Body<'a> {
        self.body
    }

    fn supervise(&mut self) -> io::Result<End> {
        if let Some(hook) = self.hooks.manager_start.take() {
            hook();
        }
        for seat in 0..self.seats.len() {
            if let Some(end) = self.step(seat, Event::BackoffElapsed)? {
                return Ok(end);
            }
        }
        let mut events = Events::with_capacity(64);
        loop {
            if self.phase == Phase::Stopping && self.seats.iter().all(Seat::is_vacant) {
                if let Some(hook) = self.hooks.manager_stop.take() {
                    hook();
                }
                return Ok(End::Stopped);
            }
            self.poller.wait(&mut events, self.next_timer())?;
            if let Some(end) = self.hear(&events)? {
                return Ok(end);
            }
        }
    }

    // What happens

    fn hear(&mut self, events: &Events) -> io::Result<Option<End>> {
        let mut end = self.hear_ready(events)?;
        if end.is_none() {
            end = self.hear_signals()?;
        }
        if end.is_none() {
            end = self.hear_orders()?;
        }
        if end.is_none() {
            end = self.see_to_timers()?;
        }
        Ok(end)
    }

    fn hear_ready(&mut self, events: &Events) -> io::Result<Option<End>> {
        for index in 0..events.len() {
            let Some(which) = events.get(index).token.checked_sub(2) else {
                continue;
            };
            let (number, successor) = ((which / 2) as usize, which % 2 == 1);
            let seat = &mut self.seats[number];
            let handle = if successor {
                seat.successor.as_mut()
            } else {
                Some(&mut seat.current)
            };
            if !handle.is_some_and(Handle::has_become_ready) {
                continue;
            }
            let end = match successor {
                true => self.hand_over(number)?,
                false => self.step(number, Event::BecameReady)?,
            };
            if end.is_some() {
                return Ok(end);
            }
        }
        Ok(None)
    }

    fn hear_signals(&mut self) -> io::Result<Option<End>> {
        for signal in self.signals.take() {
            match signal {
                Signal::SIGTERM => self.stop()?,
                Signal::SIGINT if self.interrupted => self.kill_everybody(),
                Signal::SIGINT => {
                    self.interrupted = true;
                    self.stop()?;
                }
                Signal::SIGUSR1 => {
                    if let Some(end) = self.reload()? {
                        return Ok(Some(end));
                    }
                }
                _ => {}
            }
        }
        for number in 0..self.seats.len() {
            if let Some(end) = self.reap(number)? {
                return Ok(Some(end));
            }
        }
        process::reap_inherited(|child| self.seats.iter().any(|seat| seat.has(child)))?;
        Ok(None)
    }

    /// Sees whether somebody of this seat has ended.
    fn reap(&mut self, number: usize) -> io::Result<Option<End>> {
        let seat = &mut self.seats[number];
        if let Some(successor) = &seat.successor
            && let Some(exit) = process::reap(successor.pid)?
        {
            self.successor_ended(number, exit);
        }
        let current = &self.seats[number].current;
        if is_running(current.state)
            && let Some(exit) = process::reap(current.pid)?
        {
            return self.ended(number, exit);
        }
        Ok(None)
    }

    fn hear_orders(&mut self) -> io::Result<Option<End>> {
        let Some(master) = &mut self.master else {
            return Ok(None);
        };
        let (orders, alive) = wire::receive::<Order>(&mut master.orders)?;
        for order in orders {
            match order {
                Order::Reload => {
                    if let Some(end) = self.reload()? {
                        return Ok(Some(end));
                    }
                }
                Order::Stop => self.stop()?,
                Order::Kill => {
                    self.stop()?;
                    self.kill_everybody();
                }
                Order::KillWorker { seat, generation } => {
                    let current = &self.seats[seat as usize].current;
                    if current.generation == generation && is_running(current.state) {
                        current.pid.kill();
                    }
                }
            }
        }
        Ok((!alive).then_some(End::Orphaned))
    }

    fn see_to_timers(&mut self) -> io::Result<Option<End>> {
        let now = Instant::now();
        self.listeners.see_to(now);
        for number in 0..self.seats.len() {
            let seat = &mut self.seats[number];
            if seat.refill_at.is_some_and(|at| at <= now) {
                seat.refill_at = None;
                if let Some(end) = self.step(number, Event::BackoffElapsed)? {
                    return Ok(Some(end));
                }
            }
            let seat = &mut self.seats[number];
            if seat.current.deadline.is_some_and(|at| at <= now) {
                seat.current.deadline = None;
                self.step(number, Event::DeadlinePassed)?;
            }
        }
        Ok(None)
    }

    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let timers = self
            .seats
            .iter()
            .flat_map(|seat| [seat.refill_at, seat.current.deadline]);
        timers
            .chain([self.listeners.stop.map(|(look, _)| look)])
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(now))
    }

    fn ended(&mut self, number: usize, exit: ExitStatus) -> io::Result<Option<End>> {
        let seat = &mut self.seats[number];
        let exit = WorkerExit {
            seat: number,
            pid: seat.current.pid.get(),
            exit,
        };
        let reason = match self.phase {
            Phase::Starting => ExitReason::NeverStarted,
            Phase::Running | Phase::Stopping => ExitReason::Replaceable,
        };
        let (state, action) = life::next(seat.current.state, Event::Exited(reason));
        seat.current.state = state;
        let left = seat.memory.words.left.load(Ordering::Relaxed) == seat.current.generation;
        if !left || exit.exit != ExitStatus::Code(0) {
            log::warn!("{exit}");
            if let Some(hook) = &mut self.hooks.worker_error {
                hook(&exit);
            }
        }
        match action {
            Action::GiveUp => Ok(Some(End::CannotStart(exit))),
            Action::Bury => self.bury(number),
            Action::Nothing
            | Action::Fork
            | Action::Announce
            | Action::AskToLeave
            | Action::Kill => Ok(None),
        }
    }

    /// A successor that dies before its turn: the one it was to replace stays.
    fn successor_ended(&mut self, number: usize, exit: ExitStatus) {
        let Some(successor) = self.seats[number].successor.take() else {
            return;
        };
        if self.phase != Phase::Stopping {
            let exit = WorkerExit {
                seat: number,
                pid: successor.pid.get(),
                exit,
            };
            log::error!(
                "{exit}; it could not start, so that the reload has failed: the old workers stay"
            );
            self.reloading.clear();
        }
    }

    // What is done

    /// Lets something happen to the worker in a seat, and carries out what follows.
    fn step(&mut self, number: usize, event: Event) -> io::Result<Option<End>> {
        let seat = &mut self.seats[number];
        let (state, action) = life::next(seat.current.state, event);
        seat.current.state = state;
        match action {
            Action::Nothing => {}
            Action::Fork => match self.fork(number)? {
                Ok(handle) => {
                    let generation = handle.generation;
                    self.seats[number].current = handle;
                    self.watch_ready(number, false)?;
                    self.tell(News::Taken {
                        seat: number as u32,
                        generation,
                    });
                }
                Err(incarnation) => return Ok(Some(End::Child(incarnation))),
            },
            Action::Announce => {
                log::debug!("worker#{number}[pid={}] is ready", seat.current.pid.get());
                self.announce();
            }
            Action::AskToLeave => {
                seat.memory
                    .words
                    .leave
                    .store(seat.current.generation, Ordering::Relaxed);
                seat.memory.bell.ring();
                seat.current.deadline = Some(Instant::now() + self.shutdown_deadline);
            }
            Action::Kill => {
                let pid = seat.current.pid;
                log::warn!(
                    "worker#{number}[pid={}] did not leave in {:?}: killed",
                    pid.get(),
                    self.shutdown_deadline
                );
                pid.kill();
            }
            // Ends are carried out by `ended`, which knows how the process ended.
            Action::Bury | Action::GiveUp => {}
        }
        Ok(None)
    }

    /// Forks a process for a seat. `Err` is the child's side.
    fn fork(&mut self, number: usize) -> io::Result<Result<Handle, Incarnation>> {
        let (ready, watched) = pipe()?;
        let seat = &mut self.seats[number];
        seat.last_generation += 1;
        let generation = seat.last_generation;
        let parent = ProcessId::current();
        // Blocked, so that no signal falls between the manager's handlers and the worker's own.
        signal::block()?;
        let fork = process::fork();
        if matches!(fork, Ok(Fork::Child)) {
            process::die_with(parent);
            Role::Worker(number).take();
            return self.become_worker(number, generation, ready).map(Err);
        }
        signal::unblock()?;
        let Fork::Parent(pid) = fork? else {
            return Err(io::ErrorKind::Other.into());
        };
        let completed_before = seat.memory.words.completed.load(Ordering::Relaxed);
        let state = State::Starting;
        Ok(Ok(Handle {
            pid,
            generation,
            state,
            ready: Some(watched),
            completed_before,
            deadline: None,
        }))
    }

    /// In the child: lets go of what is the manager's.
    fn become_worker(
        &mut self,
        seat: usize,
        generation: u32,
        ready: Sender,
    ) -> io::Result<Incarnation> {
        self.signals.forget();
        signal::ignore(&[
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGPIPE,
            Signal::SIGUSR1,
        ])?;
        signal::unblock()?;
        let (sender, manager) = std::mem::replace(&mut self.alive, pipe()?);
        drop(sender);
        Ok(Incarnation {
            seat,
            generation,
            ready,
            manager,
        })
    }

    fn watch_ready(&mut self, number: usize, successor: bool) -> io::Result<()> {
        let seat = &self.seats[number];
        let handle = if successor {
            seat.successor.as_ref()
        } else {
            Some(&seat.current)
        };
        match handle.and_then(|handle| handle.ready.as_ref()) {
            Some(pipe) => self
                .poller
                .add(pipe, token(number, successor), Interest::READ),
            None => Ok(()),
        }
    }

    fn announce(&mut self) {
        if self.phase == Phase::Starting
            && self
                .seats
                .iter()
                .all(|seat| seat.current.state == State::Ready)
        {
            self.phase = Phase::Running;
            self.tell(News::AllReady);
            if let Some(hook) = self.hooks.all_ready.take() {
                hook();
            }
        }
    }

    /// A worker is dead: tells the master, and fills the seat.
    fn bury(&mut self, number: usize) -> io::Result<Option<End>> {
        let seat = &mut self.seats[number];
        let completed = seat.memory.words.completed.load(Ordering::Relaxed);
        let was_useful = completed != seat.current.completed_before;
        let generation = seat.current.generation;
        seat.current.deadline = None;
        self.tell(News::Emptied {
            seat: number as u32,
            generation,
        });
        if self.phase == Phase::Stopping {
            return Ok(None);
        }
        let seat = &mut self.seats[number];
        if let Some(successor) = seat.successor.take() {
            seat.current = successor;
            let generation = seat.current.generation;
            if seat.current.ready.is_some() {
                self.move_ready(number)?;
            }
            self.tell(News::Taken {
                seat: number as u32,
                generation,
            });
            self.reloaded(number);
            return self.reload_next();
        }
        let delay = seat.backoff.after_death(was_useful);
        if delay.is_zero() {
            return self.step(number, Event::BackoffElapsed);
        }
        log::warn!(
            "worker#{number} keeps dying before it has finished a callback: the next one is started in {delay:?}"
        );
        seat.refill_at = Some(Instant::now() + delay);
        self.tell(News::Resting {
            seat: number as u32,
        });
        Ok(None)
    }

    /// The successor has the seat before it was ready: its ready byte is the current worker's now.
    fn move_ready(&mut self, number: usize) -> io::Result<()> {
        if let Some(pipe) = &self.seats[number].current.ready {
            self.poller
                .modify(pipe, token(number, false), Interest::READ)?;
        }
        Ok(())
    }

    // Reload: the new one starts while the old one serves, and takes over when it is ready.

    fn reload(&mut self) -> io::Result<Option<End>> {
        if self.phase != Phase::Running {
            log::warn!("not reloading: the server is {:?}", self.phase);
            return Ok(None);
        }
        log::info!("reloading {} workers, one at a time", self.seats.len());
        let was_idle = self.reloading.is_empty();
        for seat in 0..self.seats.len() {
            // A seat that waits for its turn has it still to come; the one at its turn may be half
            // through.
            if !self
                .reloading
                .iter()
                .skip(1)
                .any(|waiting| *waiting == seat)
            {
                self.reloading.push_back(seat);
            }
        }
        if was_idle {
            self.reload_next()
        } else {
            Ok(None)
        }
    }

    fn reload_next(&mut self) -> io::Result<Option<End>> {
        while let Some(&number) = self.reloading.front() {
            let seat = &self.seats[number];
            if seat.current.state != State::Ready || seat.successor.is_some() {
                // Down or starting: the process that comes there is a new one anyway. A successor:
                // at it.
                if seat.successor.is_some() {
                    return Ok(None);
                }
                self.reloading.pop_front();
                continue;
            }
            return match self.fork(number)? {
                Ok(handle) => {
                    self.seats[number].successor = Some(handle);
                    self.watch_ready(number, true)?;
                    Ok(None)
                }
                Err(incarnation) => Ok(Some(End::Child(incarnation))),
            };
        }
        Ok(None)
    }

    /// The successor is ready: asks the one in the seat to leave.
    fn hand_over(&mut self, number: usize) -> io::Result<Option<End>> {
        if let Some(successor) = &mut self.seats[number].successor {
            successor.state = State::Ready;
        }
        self.step(number, Event::StopRequested)
    }

    /// The successor has the seat.
    fn reloaded(&mut self, number: usize) {
        if self.reloading.front() == Some(&number) {
            self.reloading.pop_front();
            if self.reloading.is_empty() {
                log::info!("every worker is reloaded");
            }
        }
    }

    // Stop

    fn stop(&mut self) -> io::Result<()> {
        if self.phase == Phase::Stopping {
            return Ok(());
        }
        self.phase = Phase::Stopping;
        self.reloading.clear();
        let now = Instant::now();
        self.listeners.stop = Some((now, now + self.shutdown_deadline / 2));
        for number in 0..self.seats.len() {
            let seat = &mut self.seats[number];
            seat.refill_at = None;
            seat.memory.words.stopping.store(1, Ordering::Relaxed);
            if let Some(successor) = &seat.successor {
                // It serves nobody.
                successor.pid.kill();
            }
            self.step(number, Event::StopRequested)?;
        }
        Ok(())
    }

    fn kill_everybody(&self) {
        for seat in &self.seats {
            for handle in seat.successor.iter().chain([&seat.current]) {
                if is_running(handle.state) {
                    handle.pid.kill();
                }
            }
        }
    }

    /// Kills every worker and waits until they are gone: a killed process can't refuse.
    fn kill_all(&mut self) -> io::Result<()> {
        self.kill_everybody();
        for seat in &self.seats {
            for handle in seat.successor.iter().chain([&seat.current]) {
                if is_running(handle.state) {
                    process::wait_for(handle.pid);
                }
            }
        }
        Ok(())
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

/// The exit status of a process that panicked, as of any Rust program.
const PANICKED: i32 = 101;

/// Runs what a forked process is for. A panic is logged and ends here: what is above on the stack
/// is the parent's.
pub(crate) fn guarded(run: impl FnOnce() -> i32) -> i32 {
    if log::max_level() != log::LevelFilter::Off {
        std::panic::set_hook(Box::new(|info| log::error!("{info}")));
    }
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(PANICKED)
}

/// Whether a process in this state is still to be reaped.
fn is_running(state: State) -> bool {
    match state {
        State::Starting | State::Ready | State::Draining | State::Killing => true,
        State::Down | State::Failed => false,
    }
}

impl Seat {
    fn new(memory: SeatMemory) -> Seat {
        // Nobody has sat there: no process has pid 0 for us, and it is down.
        let current = Handle {
            pid: ProcessId::none(),
            generation: 0,
            state: State::Down,
            ready: None,
            completed_before: 0,
            deadline: None,
        };
        Seat {
            memory,
            current,
            successor: None,
            last_generation: 0,
            backoff: Backoff::default(),
            refill_at: None,
        }
    }

    fn has(&self, process: ProcessId) -> bool {
        let current = is_running(self.current.state) && self.current.pid == process;
        current
            || self
                .successor
                .as_ref()
                .is_some_and(|successor| successor.pid == process)
    }

    fn is_vacant(&self) -> bool {
        !is_running(self.current.state) && self.successor.is_none()
    }
}
