//! The launch of a server: takes open files, sockets and memory, forks the processes, and makes the
//! calling process one of them.
//!
//! Its one rule: after any failure, no process is left running.

use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::handle::Handle;
use super::listen;
use super::pid_file::PidFile;
use super::{OnStart, Server};
use crate::config::silence::NEVER;
use crate::config::{Config, Endpoint, Mode};
use crate::error::{Error, Problem, Result};
use crate::handler::{Handler, Worker};
use crate::ipc::arena::{BaseArena, ReactorsMemory, Sizes, SlotFiles};
use crate::ipc::layout::{ReactorWords, Shared};
use crate::limited;
use crate::manager::{self, Hooks, Manager, Owned};
use crate::master::Master;
use crate::net::tls::Contexts;
use crate::panics;
use crate::role::{self, Role};
use crate::sys::forks;
use crate::sys::limits;
use crate::sys::listener::{self, Listener};
use crate::sys::memory::page;
use crate::sys::notify::Supervisor;
use crate::sys::parcel;
use crate::sys::pipe::{Receiver, pipe};
use crate::sys::process::{self, Fork, ProcessId, Watched};
use crate::sys::signal;
use crate::sys::standard;
use crate::words::Count;
use crate::worker::{base, process as worker};

/// Makes the handler of a new worker.
type Make<'a, H> = &'a dyn Fn(Worker) -> Result<H>;

impl Server {
    /// Runs the server until it ends.
    pub(super) fn launch<H: Handler>(self, make: Make<'_, H>) -> Result<(), Error> {
        // Also where the server cannot start: a handle must not wait for it.
        let _ended = self.handle.ends_when_dropped();
        let config = Arc::new(self.settings.validate(self.deciders)?);
        standard::fill_holes()
            .map_err(Error::system("open /dev/null for a closed standard stream"))?;
        let logged = panics::log_ours();
        match process::threads().map_err(Error::system("count the threads of this process"))? {
            1 => {}
            threads => return Err(Problem::Threads(threads).into()),
        }
        let mask = signal::block().map_err(Error::system("block signals"))?;
        // Before the first file grows: SIGXFSZ would end the process without a word.
        let taken_over = signal::take_over(&mask).map_err(Error::system("handle signals"))?;
        warn(&config);
        allow_open_files(&config)?;
        let watched = config.die_with.map(watch).transpose()?;
        let supervisor = match config.notify {
            true => Supervisor::from_environment(),
            false => Supervisor::default(),
        };
        forks::watch().map_err(Error::system("register a fork handler"))?;
        let (listeners, files) = listen::listen(&config)?;
        let memory = Memory::new(&config).map_err(|source| Problem::SharedMemory {
            bytes: config.arena_bytes(),
            source,
        })?;
        // Signals are blocked by now: a process that reads the pid may send one at once.
        let pid_file = config.pid_file.as_deref().map(PidFile::write).transpose()?;
        let addresses = listen::endpoints(&config, &listeners);
        let first = addresses.first().map(Endpoint::server_name);
        let name = config.name.clone().or(first).unwrap_or_default();
        let named = role::name_server(&name);
        let running = self.handle.running(addresses.clone());
        let started = Started::new(&config, addresses, self.handle.clone());
        let launch = Launch {
            config: &config,
            listeners,
            watched,
            supervisor,
            hooks: self.hooks,
            start: self.start.map(|start| when_started(start, started)),
            handle: &self.handle,
            make,
        };
        let outcome = match memory {
            Memory::Process { reactors, vacant } => launch.process(reactors, vacant),
            Memory::Base(arena) => launch.base(arena),
        };
        drop((running, pid_file, files));
        limited::report_all();
        if outcome.is_ok() {
            call_shutdown(self.shutdown);
        }
        // An echo of the signal that has stopped the server must not end the program on its way out: first the
        // signals that the program has blocked, then its handlers.
        drop((mask, taken_over, logged, named));
        outcome
    }
}

/// Calls `on_shutdown`, after an orderly end.
fn call_shutdown(callback: Option<Box<dyn FnOnce()>>) {
    if let Some(callback) = callback
        && catch_unwind(AssertUnwindSafe(callback)).is_err()
    {
        log::error!("on_shutdown panicked: the server has ended all the same");
    }
}

fn when_started(start: OnStart, started: Started) -> Box<dyn FnOnce()> {
    Box::new(move || start(&started))
}

/// The memory that the processes share from the start.
enum Memory {
    Process {
        reactors: ReactorsMemory,
        /// The memory of a slot without a worker. Each worker's own is made when it is forked.
        vacant: SlotFiles,
    },
    Base(BaseArena),
}

impl Memory {
    fn new(config: &Config) -> io::Result<Memory> {
        match config.mode {
            Mode::Process => {
                let sizes = Sizes::of(config);
                sizes.check(config.slots())?;
                let (inbox, outbox) = (page(), page());
                Ok(Memory::Process {
                    reactors: ReactorsMemory::new(config.reactors)?,
                    vacant: SlotFiles::new(Sizes {
                        inbox,
                        outbox,
                        ..sizes
                    })?,
                })
            }
            Mode::Base => BaseArena::new(config.slots()).map(Memory::Base),
        }
    }
}

/// Everything else that the processes are made of.
struct Launch<'a, H> {
    config: &'a Arc<Config>,
    listeners: Vec<Listener>,
    /// The process with which the server ends.
    watched: Option<Watched>,
    supervisor: Supervisor,
    hooks: Hooks,
    start: Option<Box<dyn FnOnce()>>,
    handle: &'a Handle,
    make: Make<'a, H>,
}

impl<H: Handler> Launch<'_, H> {
    /// The calling process becomes the master.
    fn process(self, reactors: ReactorsMemory, vacant: SlotFiles) -> Result<(), Error> {
        let pipes = || Ok((parcel::pair()?, pipe()?));
        let ((news, hear_news), (orders, hear_orders)) =
            pipes().map_err(Error::system("make the manager's pipes"))?;
        let parent = ProcessId::current();
        let manager = match process::fork().map_err(Error::system("fork the manager"))? {
            Fork::Parent(manager) => manager,
            Fork::Child => {
                process::die_with(parent);
                Role::Manager.take();
                // The master's.
                drop((hear_news, orders, reactors.own));
                self.become_manager((news, hear_orders), reactors.shown, vacant)
            }
        };
        Role::Master.take();
        drop((news, hear_orders, self.hooks));
        let give_up = || {
            manager.kill();
            process::wait_for(manager);
        };
        // Not before the fork: no key is in the memory of a worker.
        let contexts = read_certificates(self.config).inspect_err(|_| give_up())?;
        let master = Master::start(
            Arc::clone(self.config),
            (reactors.own, vacant),
            self.listeners,
            (manager, hear_news, orders),
            (self.watched, contexts, self.supervisor),
            self.start,
        );
        match master {
            Ok(master) => {
                self.handle.can_post(master.inlet());
                master.run()
            }
            Err(source) => {
                give_up();
                Err(Error::system("start the master")(source))
            }
        }
    }

    /// The life of the manager process in process mode.
    fn become_manager(
        self,
        (news, orders): (parcel::Sender, Receiver),
        reactors: Vec<Shared<ReactorWords>>,
        vacant: SlotFiles,
    ) -> ! {
        let Launch {
            config,
            listeners,
            watched,
            supervisor,
            hooks,
            start,
            handle: _,
            make,
        } = self;
        // The manager must not keep the port after the death of the master, who watches for it.
        drop((listeners, watched, supervisor));
        // The master drops its captures.
        mem::forget(start);
        let body = Box::new(|incarnation| worker::run(reactors, config, make, incarnation));
        process::exit_now(manager::guarded(|| {
            let config = Arc::clone(config);
            let manager = vacant.map_for_manager().and_then(|mapped| {
                drop(vacant);
                let memory = vec![mapped.clone(); config.slots()];
                let master = manager::Master {
                    news,
                    orders,
                    vacant: mapped,
                };
                Manager::new(config, memory, body, hooks, Some(master), Owned::default())
            });
            manage(manager)
        }))
    }

    /// The calling process becomes the manager.
    fn base(self, arena: BaseArena) -> Result<(), Error> {
        let Launch {
            config,
            listeners,
            watched,
            supervisor,
            mut hooks,
            start,
            handle: _,
            make,
        } = self;
        Role::Manager.take();
        hooks.all_ready = start;
        let memory = arena.slots.clone();
        let listeners = Arc::new(listeners);
        let shared = Arc::clone(&listeners);
        let contexts = read_certificates(config)?;
        let read = Arc::clone(&contexts);
        let parts = (listeners, contexts);
        let body = Box::new(|incarnation| base::run(arena, parts, config, make, incarnation));
        let settings = Arc::clone(config);
        let owned = Owned {
            listeners: shared,
            watched,
            contexts: read,
            supervisor,
        };
        let manager = Manager::new(settings, memory, body, hooks, None, owned);
        manager.map_err(Error::system("start the manager"))?.run()
    }
}

/// Runs the manager. Returns the exit status of its process.
fn manage(manager: io::Result<Manager<'_>>) -> i32 {
    let manager = manager.map_err(Error::system("start the manager"));
    let outcome = manager.and_then(Manager::run);
    limited::report_all();
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}

/// Warns of settings that are valid and without the effect that they promise.
fn warn(config: &Config) {
    if config.mode == Mode::Base && config.has_reactors_set() {
        log::warn!("setting reactors is ignored: base mode has no reactors");
    }
    if let Some(room) = config.tight {
        log::warn!(
            "memory_budget is {} bytes, what one connection of each reactor or worker may need, and more than its share of {} \
             ({} bytes): lower max_message, the number of reactors (in base mode of workers) or output_limit, or set it",
            config.memory_budget,
            room.source,
            room.bytes
        );
    }
    let largest = listener::largest_backlog();
    for listener in &config.listeners {
        if config.mode == Mode::Base && listener.silence.queue != NEVER {
            log::warn!(
                "listener {}: queue_deadline is ignored: in base mode messages wait in the kernel",
                listener.name
            );
        }
        let backlog = listener.options.backlog;
        if let Some(most) = largest.filter(|most| *most < backlog && !listener.is_inherited) {
            log::warn!(
                "listener {}: backlog {backlog} is reduced to {most}, the kernel's maximum (raise net.core.somaxconn)",
                listener.name
            );
        }
    }
}

fn allow_open_files(config: &Config) -> Result<(), Error> {
    let (needed, fixed) = (config.open_files, config.fixed_files);
    let allowed = limits::raise_open_files(needed);
    allowed.map_err(|allowed| {
        Problem::OpenFiles {
            needed,
            fixed,
            allowed,
        }
        .into()
    })
}

/// Watches the process with which the server ends.
fn watch(pid: u32) -> Result<Watched, Error> {
    let none = || Problem::Setting {
        name: "die_with",
        problem: format!("there is no process {pid}"),
    };
    let number = i32::try_from(pid).map_err(|_| none())?;
    Watched::new(number).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH | libc::EINVAL) => none().into(),
        _ => Error::system("watch the process of die_with")(error),
    })
}

/// Reads the certificates of all listeners.
fn read_certificates(config: &Config) -> Result<Arc<Contexts>, Error> {
    Contexts::of(config).map_err(|(listener, problem)| {
        let problem = Problem::Setting {
            name: "tls",
            problem,
        };
        Error::from(problem).about_listener(&listener)
    })
}

/// A server that has started.
///
/// Its text has a line for each address, for people and for scripts that wait for the server:
/// `tine: listening on 127.0.0.1:9501 (process mode, 2 workers, 1 reactor, pid 26276)`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Started {
    /// Every address that it listens on, in the order of
    /// [`Server::listen`](crate::Server::listen), with the real ports.
    pub addresses: Vec<Endpoint>,
    /// Where the connections live.
    pub mode: Mode,
    /// The number of workers with seats.
    pub workers: usize,
    /// The number of task workers, whose seats follow.
    pub task_workers: usize,
    /// The number of reactors; 0 in base mode.
    pub reactors: usize,
    /// The process to send signals to: the master, in base mode the manager.
    pub pid: u32,
    handle: Handle,
}

impl Started {
    fn new(config: &Config, addresses: Vec<Endpoint>, handle: Handle) -> Started {
        Started {
            addresses,
            mode: config.mode,
            workers: config.workers,
            task_workers: config.task_workers,
            reactors: config.reactors,
            pid: std::process::id(),
            handle,
        }
    }

    /// Returns a handle to the server, for the threads of this process.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            let end = if index > 0 { "\n" } else { "" };
            write!(f, "{end}tine: listening on {address} (")?;
            match self.reactors {
                0 => f.write_str("base mode")?,
                _ => f.write_str("process mode")?,
            }
            write!(f, ", {}", Count(self.workers, "worker"))?;
            if self.task_workers > 0 {
                write!(f, ", {}", Count(self.task_workers, "task worker"))?;
            }
            if self.reactors > 0 {
                write!(f, ", {}", Count(self.reactors, "reactor"))?;
            }
            write!(f, ", pid {})", self.pid)?;
        }
        Ok(())
    }
}
