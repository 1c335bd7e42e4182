//! The master process of process mode, which owns every socket. This file is its main thread: it starts
//! the reactors, and then only waits for signals, the manager's news and the reactors' reports.
//!
//! Its one rule: nothing here waits for a worker.

mod command;
mod crash;
mod dispatch;
mod ending;
mod inlet;
mod memory;
mod orders;
mod outlet;
mod questions;
mod queue;
mod reactor;
mod seat;
pub(crate) mod seats;
mod slot;
#[cfg(feature = "status")]
mod status;
mod supervised;
mod transit;
mod turns;
mod watched;

use std::cell::OnceCell;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver as Channel, unbounded};
use nix::sys::signal::Signal;

use self::dispatch::SeatLoads;
pub(crate) use self::inlet::Inlet;
use self::memory::Threads;
use self::orders::Orders;
use self::reactor::{ACCEPTS, Command, LISTENERS, Mailbox, Reactor, Report};
use self::seats::Seats;
use self::transit::Ways;
use crate::config::{Config, LAST_PATIENCE};
use crate::control::{self, News, Order};
use crate::error::{Error, Problem};
use crate::flow::Flow;
use crate::handler::ServerCall;
use crate::ipc::arena::{SlotFiles, SlotMemory};
use crate::ipc::files::FileCount;
use crate::ipc::layout::{ReactorWords, Shared};
use crate::ipc::queued::Queued;
use crate::net::acceptor::Acceptor;
use crate::net::admission::Admission;
use crate::net::loads::{Load, Loads};
use crate::net::table::{Table, count_names};
use crate::net::tls::Contexts;
use crate::net::trim::Trim;
#[cfg(feature = "status")]
use crate::status::{Desk, Head, PostDesk};
use crate::sys::doorbell::Doorbell;
use crate::sys::epoll::{Events, Interest, Poller};
use crate::sys::heap;
use crate::sys::listener::Listener;
use crate::sys::notify::Supervisor;
use crate::sys::parcel;
use crate::sys::pipe::Sender;
use crate::sys::process::{self, ProcessId, Strangers, Watched};
use crate::sys::signal::{self, Interrupt, Interrupts, Signals};
use crate::sys::time::LoopTime;

const SIGNALS: u64 = 0;
const NEWS: u64 = 1;
const BELL: u64 = 2;
const WATCHED: u64 = 3;
#[cfg(feature = "status")]
const DESK: u64 = 4;
#[cfg(feature = "status")]
const POST_DESK: u64 = 5;

/// The state of the master's main thread.
pub(crate) struct Master {
    config: Arc<Config>,
    manager: ProcessId,
    news: parcel::Receiver,
    orders: Orders,
    /// The descriptors of a new worker's memory, as far as they have come.
    arriving: Vec<OwnedFd>,
    reactors: Vec<Mailbox<Command>>,
    /// Their words.
    words: Vec<Shared<ReactorWords>>,
    threads: Threads,
    reports: Channel<Report>,
    loads: Arc<Loads>,
    seat_loads: Arc<SeatLoads>,
    poller: Poller,
    signals: Signals,
    /// The process with which the server ends, until it has.
    watched: Option<Watched>,
    started: Option<Box<dyn FnOnce()>>,
    phase: Phase,
    time: LoopTime,
    /// The number of reactors that have stopped accepting, and of those that are drained.
    stopped_accepting: usize,
    drained: usize,
    interrupts: Interrupts,
    strangers: Strangers,
    error: Option<Error>,
    #[cfg(feature = "status")]
    desk: Option<Desk>,
    #[cfg(feature = "status")]
    head: Head,
    #[cfg(feature = "status")]
    post_desk: Option<PostDesk>,
    inlet: OnceCell<Inlet>,
    contexts: Arc<Contexts>,
    supervisor: Supervisor,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Starting,
    Serving,
    /// No connection is accepted; the open ones are finished until this deadline.
    Draining(Instant),
    /// The connections are closed; the workers have until this deadline for their last callbacks.
    Cutting(Instant),
    /// The workers were asked to leave, until this deadline.
    Leaving(Instant),
    /// Workers and connections are being killed; the manager is killed at this deadline.
    Killing(Instant),
    /// The manager has exited.
    Ended,
}

impl Master {
    /// Starts the reactors. Called with signals blocked; they stay blocked in the reactor threads.
    pub(crate) fn start(
        config: Arc<Config>,
        (words, vacant): (Vec<Shared<ReactorWords>>, SlotFiles),
        listeners: Vec<Listener>,
        (manager, news, orders): (ProcessId, parcel::Receiver, Sender),
        (watched, contexts, supervisor): (Option<Watched>, Arc<Contexts>, Supervisor),
        started: Option<Box<dyn FnOnce()>>,
    ) -> io::Result<Master> {
        let (poller, bell) = (Poller::new()?, Doorbell::new()?);
        let signals = Signals::of_server()?;
        poller.add(&signals, SIGNALS, Interest::READ)?;
        poller.add(&news, NEWS, Interest::READ)?;
        poller.add(&bell, BELL, Interest::BELL)?;
        if let Some(watched) = &watched {
            poller.add(watched, WATCHED, Interest::READ)?;
        }
        let (sender, reports) = unbounded();
        #[cfg(feature = "status")]
        let (desk, head, post_desk) = (
            Desk::open(&poller, DESK),
            Head::new(config.mode, &listeners),
            PostDesk::open(&poller, POST_DESK),
        );
        let mut master = Master {
            loads: Arc::new(Loads::new(config.reactors, Admission::of(&config))),
            seat_loads: Arc::new(SeatLoads::of(&config)),
            config,
            manager,
            news,
            orders: Orders::new(orders),
            arriving: Vec::new(),
            reactors: Vec::new(),
            words: words.clone(),
            threads: Threads::new(),
            reports,
            poller,
            signals,
            watched,
            started,
            phase: Phase::Starting,
            time: LoopTime::new(),
            stopped_accepting: 0,
            drained: 0,
            interrupts: Interrupts::default(),
            strangers: Strangers::default(),
            error: None,
            #[cfg(feature = "status")]
            desk,
            #[cfg(feature = "status")]
            head,
            #[cfg(feature = "status")]
            post_desk,
            inlet: OnceCell::new(),
            contexts,
            supervisor,
        };
        let report = Mailbox { sender, bell };
        let vacant = vacant.map_for_master().map(Arc::new);
        let started =
            vacant.and_then(|vacant| master.start_reactors(words, &vacant, listeners, &report));
        match started.and_then(|()| signal::unblock()) {
            Ok(()) => Ok(master),
            Err(error) => {
                master.stop_reactors();
                Err(error)
            }
        }
    }

    fn start_reactors(
        &mut self,
        words: Vec<Shared<ReactorWords>>,
        vacant: &Arc<SlotMemory>,
        listeners: Vec<Listener>,
        report: &Mailbox<Report>,
    ) -> io::Result<()> {
        let listeners = Arc::new(listeners);
        let commands = self.make_mailboxes(words.len())?;
        let bells: Vec<Doorbell> = self.reactors.iter().map(|it| it.bell.clone()).collect();
        let first = words[0].clone();
        let queued =
            (self.config.task_workers > 0).then(|| Queued::new(first.clone(), &self.config));
        let parts = words.into_iter().zip(commands).zip(Ways::between(&bells));
        for (number, ((words, commands), ways)) in parts.enumerate() {
            let config = Arc::clone(&self.config);
            let poller = Arc::new(Poller::new()?);
            let table = Table::new(number as u16, count_names(), Arc::clone(&poller));
            let load = Load::of(&self.loads, number);
            let mut flow = Flow::new(table, Arc::clone(&config), load)
                .with_contexts(Arc::clone(&self.contexts));
            flow.count_files(FileCount::Shared(first.clone()));
            if let Some(queued) = queued.clone().filter(|_| number == 0) {
                flow.own_tasks(queued);
            }
            let reactor = Reactor {
                flow,
                seats: Seats::new(
                    Arc::clone(vacant),
                    number,
                    &config,
                    Arc::clone(&self.seat_loads),
                    ways.transit(),
                ),
                acceptor: Acceptor::new(
                    Arc::clone(&listeners),
                    Arc::clone(&poller),
                    LISTENERS,
                    ACCEPTS,
                ),
                poller,
                commands,
                reactors: self.reactors.clone(),
                master: report.clone(),
                words,
                first: first.clone(),
                queued: queued.clone(),
                bell: self.reactors[number].bell.clone(),
                config,
                loads: Arc::clone(&self.loads),
                state: reactor::State::Serving,
                accepted: Vec::new(),
                ways,
                calls: Vec::new(),
                poisoned: 0,
                trim: Trim::default(),
                others_are_drained: number > 0 || self.config.reactors == 1,
            };
            self.threads
                .start(format!("tine reactor#{number}"), || reactor.run_guarded())?;
        }
        Ok(())
    }

    /// Makes a mailbox for each reactor. Returns what the reactors have of them.
    fn make_mailboxes(&mut self, count: usize) -> io::Result<Vec<Channel<Command>>> {
        let mut commands = Vec::new();
        for _ in 0..count {
            let (sender, receiver) = unbounded();
            // No worker has this bell: the commands of the master arrive whatever the workers do.
            let bell = Doorbell::new()?;
            self.reactors.push(Mailbox { sender, bell });
            commands.push(receiver);
        }
        Ok(commands)
    }

    /// Serves until the server ends.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let outcome = self.turn_until_ended();
        if self.phase != Phase::Ended {
            // This thread's epoll or pipe failed. The manager must not outlive the master.
            self.manager.kill();
            process::wait_for(self.manager);
        }
        self.stop_reactors();
        outcome.map_err(Error::system("run the master"))?;
        self.error.map_or(Ok(()), Err)
    }

    fn turn_until_ended(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        while self.phase != Phase::Ended {
            let wait = self.next_timer();
            self.time.sleeps();
            self.poller.wait(&mut events, wait)?;
            self.time.wakes(wait, self.signals.has(Signal::SIGCONT));
            self.handle_news()?;
            self.handle_signals()?;
            self.handle_watched(&events);
            self.reap()?;
            self.handle_reports();
            self.orders.send_unsent();
            self.enforce_deadlines();
            self.tend_supervisor();
            #[cfg(feature = "status")]
            self.answer_callers();
        }
        Ok(())
    }

    fn handle_news(&mut self) -> io::Result<()> {
        let (news, alive) = control::hear(&mut self.news)?;
        for (news, descriptors) in news {
            match news {
                News::Forked {
                    slot,
                    generation,
                    left,
                } => self.memory_arrived((slot as usize, generation), descriptors, left),
                News::AllReady => self.serve(),
                News::Emptied { slot, generation } => {
                    let slot = slot as usize;
                    self.send_all(|| Command::SlotEmptied { slot, generation });
                }
                News::Vacant { seat } => self.seat_loads.set_empty(seat as usize, true),
                News::Taken {
                    seat,
                    slot,
                    generation,
                } => {
                    let (seat, slot) = (seat as usize, slot as usize);
                    self.send_all(|| Command::SeatTaken {
                        seat,
                        slot,
                        generation,
                    });
                }
                News::Ready { seat } => {
                    let seat = seat as usize;
                    self.seat_loads.set_empty(seat, false);
                    self.send_all(|| Command::SeatReady { seat });
                }
                News::Reloading | News::Reloaded => self.reload_news(news),
                News::Pong => self.supervisor.answered(),
                News::CrashLoop => self.error = Some(Problem::CrashLoop.into()),
                News::CannotStart {
                    seat,
                    status,
                    signal,
                } => {
                    let problem = Problem::WorkerStart {
                        seat: seat as usize,
                        status,
                        signal,
                    };
                    self.error = Some(problem.into());
                }
            }
        }
        if !alive {
            // The manager is exiting or dead; SIGCHLD tells. The pipe would wake this thread in a
            // loop until then.
            if let Err(error) = self.poller.remove(&self.news) {
                log::trace!("cannot stop watching the manager's pipe: {error}");
            }
        }
        Ok(())
    }

    fn handle_signals(&mut self) -> io::Result<()> {
        for signal in self.signals.take() {
            match signal {
                Signal::SIGTERM | Signal::SIGQUIT => self.drain(),
                Signal::SIGINT => match self.interrupts.came(Instant::now()) {
                    Interrupt::Stop => self.drain(),
                    Interrupt::Force => self.kill("a second SIGINT"),
                },
                Signal::SIGUSR1 => self.orders.send(Order::Reload),
                Signal::SIGHUP => {
                    self.contexts.read_anew();
                    self.config.hangup.came();
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        if self.phase != Phase::Ended
            && let Some(exit) = process::reap(self.manager)?
        {
            // Its last news may be the reason. It ends also if they can't be read: its pid is no longer its own.
            let read = self.handle_news();
            self.manager_ended(exit);
            read?;
        }
        let manager = self.manager;
        self.strangers.reap(|child| child == manager)
    }

    fn handle_reports(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            match report {
                Report::ProtocolBroken { slot, generation }
                | Report::CannotServe { slot, generation } => self.orders.send(Order::KillWorker {
                    slot: slot as u32,
                    generation,
                }),
                Report::StoppedAccepting => {
                    // Not before: a reactor may still hand a connection to another one.
                    self.stopped_accepting += 1;
                    if self.stopped_accepting == self.reactors.len() {
                        self.send_all(|| Command::Drain);
                    }
                }
                // Here, since giving memory back takes time.
                Report::Left(memory) => memory::give_back(memory),
                Report::Pong => self.supervisor.answered(),
                Report::PeakPassed => heap::trim_all(),
                Report::Drained => {
                    self.drained += 1;
                    if self.drained + 1 == self.reactors.len() {
                        self.reactors[0].send(Command::OthersAreDrained);
                    }
                    if let Phase::Draining(at) | Phase::Cutting(at) = self.phase
                        && self.drained == self.reactors.len()
                    {
                        // No client takes the time to leave from the workers.
                        self.phase = Phase::Leaving(at.max(self.time.now() + LAST_PATIENCE));
                        self.orders.send(Order::Stop);
                    }
                }
                Report::Called(ServerCall::Stop) => self.drain(),
                Report::Called(ServerCall::Reload) => self.orders.send(Order::Reload),
                Report::Failed(source) => {
                    self.error
                        .get_or_insert(Error::system("run a reactor")(source));
                    self.kill("a reactor failed");
                }
            }
        }
    }

    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let deadline = match self.phase {
            Phase::Starting | Phase::Serving | Phase::Ended => None,
            Phase::Draining(at) | Phase::Cutting(at) | Phase::Leaving(at) | Phase::Killing(at) => {
                Some(at.saturating_duration_since(self.time.now()))
            }
        };
        #[cfg(feature = "status")]
        let status = self.next_look();
        #[cfg(not(feature = "status"))]
        let status: Option<Instant> = None;
        let status = status.into_iter().chain(self.supervisor.next()).min();
        let status = status.map(|at| at.saturating_duration_since(now));
        let orders = self.orders.next_try();
        [deadline, self.strangers.next_look(now), status, orders]
            .into_iter()
            .flatten()
            .min()
    }

    /// Every worker is ready.
    fn serve(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Serving;
            if let Some(started) = self.started.take()
                && catch_unwind(AssertUnwindSafe(started)).is_err()
            {
                log::error!("on_start panicked: the server goes on");
            }
            // What on_start sets up is there before the first dispatch.
            self.send_all(|| Command::Accept);
            self.supervisor.ready(&self.status());
        }
    }

    fn send_all(&self, command: impl Fn() -> Command) {
        for reactor in &self.reactors {
            reactor.send(command());
        }
    }
}
