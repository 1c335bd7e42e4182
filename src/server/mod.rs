//! The composition root: settings in, processes out. Bind, arena, fork the manager, run the master.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::mem;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::policy::{Crash, CrashPolicy, Dispatch, Dispatcher, OnCrash, Route};
use crate::config::{Config, LimitAction, Mode, Settings};
use crate::error::Error;
use crate::handler::{Handler, Worker};
use crate::ipc::layout::Arena;
use crate::manager::{self, Hooks, Manager, WorkerExit};
use crate::master::Master;
use crate::protocol::Protocol;
use crate::role::Role;
use crate::sys::pipe::pipe;
use crate::sys::process::{self, Fork, ProcessId};
use crate::sys::signal;
use crate::sys::socket::{self, Listener};
use crate::worker::{base, process as worker};

/// A callback that is told what has started.
type OnStart = Box<dyn FnOnce(&Started)>;

/// A server to be: its settings, and the callbacks of its master and manager.
///
/// The callbacks of the workers are a [`Handler`], which [`run`](Self::run) takes a maker of. Which
/// process runs what is so decided by types: what is given to a method here never runs in a worker.
#[derive(Default)]
#[must_use = "a server does nothing until it is run"]
pub struct Server {
    settings: Settings,
    hooks: Hooks,
    start: Option<OnStart>,
    shutdown: Option<Box<dyn FnOnce()>>,
}

impl Server {
    /// A server with default settings: process mode, 127.0.0.1:9501, as many workers as cores, half
    /// as many reactors.
    pub fn new() -> Server {
        Server::default()
    }

    /// Where the connections live. Default: [`Mode::Process`].
    pub fn mode(mut self, mode: Mode) -> Server {
        self.settings.mode = mode;
        self
    }

    /// Listens on an address, or on every address that a name stands for; may be called again for
    /// more. Port 0 lets the kernel choose one, which [`Started::addresses`] tells. Default:
    /// 127.0.0.1:9501. What is wrong with it is said by [`run`](Self::run).
    pub fn listen(mut self, address: impl ToSocketAddrs + fmt::Debug) -> Server {
        match address.to_socket_addrs() {
            Ok(addresses) => self.settings.listen.extend(addresses),
            Err(error) => {
                self.settings.listen_problem =
                    Some(format!("{address:?}: {error}; ADDRESS:PORT is expected"))
            }
        }
        self
    }

    /// How many worker processes, 1 to 511. Default: the cores of the machine.
    pub fn workers(mut self, workers: usize) -> Server {
        self.settings.workers = workers;
        self
    }

    /// How many reactor threads the master has, 1 to 1023. Base mode has none. Default: half the
    /// cores, at least 1.
    pub fn reactors(mut self, reactors: usize) -> Server {
        self.settings.reactors = reactors;
        self
    }

    /// How many connections may wait in the kernel for each listener, listen(2). Default: 4096. The
    /// kernel allows at most net.core.somaxconn; a warning in the log says so.
    pub fn backlog(mut self, connections: u32) -> Server {
        self.settings.backlog = connections;
        self
    }

    /// How bytes become messages. Default: [`Protocol::raw`].
    pub fn protocol(mut self, protocol: Protocol) -> Server {
        self.settings.protocol = protocol;
        self
    }

    /// The longest message that is accepted, in bytes, framing included, up to 1 GiB. A raw message
    /// is at most 256 KiB besides, and less under a smaller [`output_limit`](Self::output_limit), so
    /// that it can be echoed. Default: 8 MiB. Where messages are cut, each link of a reactor and a
    /// worker has memory for at least one of them.
    pub fn max_message(mut self, bytes: usize) -> Server {
        self.settings.max_message = bytes;
        self
    }

    /// Which worker a connection's messages go to, in process mode. Default:
    /// [`Dispatch::LeastConnections`].
    pub fn dispatch(mut self, dispatch: Dispatch) -> Server {
        self.settings.dispatcher = Dispatcher::Mode(dispatch);
        self
    }

    /// Lets a function choose the seat of each callback, in process mode; a number past the last
    /// seat counts from the first one again. Callbacks of one connection stay in order: one that
    /// goes elsewhere waits for those before it. It is called in the master, by any of its
    /// reactors, for every callback, and again whenever a callback has had to wait: it should be
    /// quick and must not block. A connection that it sends to a seat which is empty waits for the
    /// next worker there. If it panics, the connection stays where it is.
    pub fn dispatch_with(
        mut self,
        choose: impl Fn(&Route<'_>) -> usize + Send + Sync + 'static,
    ) -> Server {
        self.settings.dispatcher = Dispatcher::Function(Arc::new(choose));
        self
    }

    /// The fate of the message under way when its worker dies. Default: [`OnCrash::Close`].
    pub fn on_crash(mut self, policy: OnCrash) -> Server {
        self.settings.on_crash = CrashPolicy::Always(policy);
        self
    }

    /// Lets a function decide the fate of each callback that a worker has died in. It is called in
    /// the master, by any of its reactors, and must not block. If it panics, the connection is
    /// closed.
    pub fn on_crash_with(
        mut self,
        decide: impl Fn(&Crash<'_>) -> OnCrash + Send + Sync + 'static,
    ) -> Server {
        self.settings.on_crash = CrashPolicy::Function(Arc::new(decide));
        self
    }

    /// How many workers are started beside those that serve, with `worker_start` behind them: the
    /// seat of one that dies is handed to them at once. Up to 511. Default: 0.
    pub fn standby(mut self, workers: usize) -> Server {
        self.settings.standby = workers;
        self
    }

    /// How long a callback may run, from a millisecond on, and what is done then. The time for
    /// which the worker is stopped (SIGSTOP, a debugger) or the whole machine sleeps does not
    /// count. The log line says where the worker's stack stands, which stops the worker for less
    /// than a millisecond. Default: no limit.
    pub fn callback_limit(mut self, limit: Duration, action: LimitAction) -> Server {
        self.settings.callback_limit = Some((limit, action));
        self
    }

    /// Replaces a worker after so many messages, or up to a quarter more, so that not all are
    /// replaced at the same time; as a reload does it, one seat at a time. Default: never.
    pub fn max_requests(mut self, messages: u64) -> Server {
        self.settings.max_requests = Some(messages);
        self
    }

    /// Replaces a worker that has more than so many bytes of private memory, as a reload does it,
    /// and kills one that has twice as many. Looked at once a second. At least 1 MiB. Default: no
    /// limit.
    pub fn worker_memory(mut self, bytes: u64) -> Server {
        self.settings.worker_memory = Some(bytes);
        self
    }

    /// Ends the server with [`Error::CrashLoop`] when for so long every seat has been in back-off,
    /// because its workers died young without having served anybody. Default: it goes on trying.
    pub fn fail_on_crash_loop(mut self, after: Duration) -> Server {
        self.settings.crash_loop = Some(after);
        self
    }

    /// How long after the peer's FIN, or after the last byte that it took since, the socket is
    /// closed whatever the worker does. `None` is never: the socket may then stay in
    /// CLOSE_WAIT. Default: 5 seconds.
    pub fn close_deadline(mut self, deadline: Option<Duration>) -> Server {
        self.settings.close_deadline = deadline;
        self
    }

    /// How long a server that was asked to end, or a worker that is reloaded, may take to finish
    /// what it has begun. Default: 10 seconds.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Server {
        self.settings.shutdown_deadline = deadline;
        self
    }

    /// How many connections may be open at once: in process mode in all, in base mode in each
    /// worker. More wait in the kernel. Default: 65,536, or as many as the limit of open files
    /// allows.
    pub fn max_connections(mut self, connections: usize) -> Server {
        self.settings.max_connections = Some(connections);
        self
    }

    /// Writes the pid of the process that takes the signals (the master, in base mode the manager)
    /// to a file, at once or not at all, and removes it at the end. Default: no file.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Server {
        self.settings.pid_file = Some(path.into());
        self
    }

    /// With so many bytes unsent, a connection is not read until half of them are sent. Default: 1
    /// MiB.
    pub fn output_high_water(mut self, bytes: usize) -> Server {
        self.settings.high_water = bytes;
        self
    }

    /// With more bytes than this unsent, a connection is closed as a slow reader; and one callback
    /// can send no more. Each call of `send` counts 64 bytes besides, and more than 128 KiB count
    /// as several. Default: the high-water mark and what one inbox holds, at least 16 MiB, so that
    /// a client which is not read any more gets all the answers that are on their way.
    pub fn output_limit(mut self, bytes: usize) -> Server {
        self.settings.output_limit = Some(bytes);
        self
    }

    /// How many bytes the process that owns the sockets may hold for all its connections: unsent
    /// output, and messages that are not complete. Reactors have equal parts of it. Past it, the
    /// connections that hold most are closed. Besides, each worker may have the output of one
    /// callback on its way. At least `output_limit` (and `max_message`, where messages are cut) for
    /// each reactor. Default: twice that, at least 256 MiB.
    pub fn memory_budget(mut self, bytes: usize) -> Server {
        self.settings.memory_budget = Some(bytes);
        self
    }

    /// Called once every worker is ready. Process mode: in the master, which may start threads
    /// here. Base mode: in the manager, which must not: it could not fork any more. Nothing is
    /// accepted and no signal acted upon before it returns, so it should return soon.
    pub fn on_start(mut self, callback: impl FnOnce(&Started) + 'static) -> Server {
        self.start = Some(Box::new(callback));
        self
    }

    /// Called after an orderly end, when every worker has ended. Process mode: in the master. Base
    /// mode: in the manager.
    pub fn on_shutdown(mut self, callback: impl FnOnce() + 'static) -> Server {
        self.shutdown = Some(Box::new(callback));
        self
    }

    /// Called in the manager before it forks the first worker. It must start no thread.
    pub fn on_manager_start(mut self, callback: impl FnOnce() + 'static) -> Server {
        self.hooks.manager_start = Some(Box::new(once(callback)));
        self
    }

    /// Called in the manager when the last worker has left.
    pub fn on_manager_stop(mut self, callback: impl FnOnce() + 'static) -> Server {
        self.hooks.manager_stop = Some(Box::new(once(callback)));
        self
    }

    /// Called in the manager when a worker has ended abnormally, after its log line and when its
    /// seat was seen to. No worker is forked or reaped before it returns, and it must start no
    /// thread. A panic in it is logged.
    pub fn on_worker_error(mut self, callback: impl FnMut(&WorkerExit) + 'static) -> Server {
        let mut callback = Managers(Some(callback));
        self.hooks.worker_exit = Some(Box::new(move |exit| {
            if exit.is_abnormal()
                && let Some(callback) = callback.get()
            {
                callback(exit);
            }
        }));
        self
    }

    /// Runs the server until SIGTERM or SIGINT has ended it. `make` runs once in each new worker
    /// process, and makes the handler that it works with.
    ///
    /// Signals of the calling process are the server's from here on, also after it has returned:
    /// TERM and INT end it gracefully, a second INT by force, USR1 replaces the workers one at a
    /// time, HUP and PIPE do nothing. A server that was ended by force returns `Ok` as well, and
    /// its log says what was cut. Needs /proc.
    ///
    /// # Errors
    /// When it cannot start, and when it has to end unasked; nothing is left running.
    /// [`Error::Threads`] when the calling process has more than one thread.
    pub fn run<H: Handler>(self, make: impl Fn(Worker) -> H) -> Result<(), Error> {
        let config = Arc::new(self.settings.validate()?);
        match process::threads().map_err(Error::system("count the threads of this process"))? {
            1 => {}
            threads => return Err(Error::Threads(threads)),
        }
        let listeners = listen(&config)?;
        let arena = Arena::new(config.slots(), config.reactors, config.inbox, config.outbox)
            .map_err(|source| Error::Arena {
                bytes: config.arena_bytes(),
                source,
            })?;
        let started = Started::new(&config, &listeners);
        let start = self
            .start
            .map(|start| Box::new(move || start(&started)) as Box<dyn FnOnce()>);
        let mask = signal::block().map_err(Error::system("block signals"))?;
        // Whoever reads the pid in it may send signals at once.
        let pid_file = config.pid_file.as_deref().map(PidFile::write).transpose()?;
        let outcome = match config.mode {
            Mode::Process => run_process(&config, arena, listeners, self.hooks, start, &make),
            Mode::Base => run_base(&config, arena, listeners, self.hooks, start, &make),
        };
        drop((pid_file, mask));
        outcome?;
        if let Some(shutdown) = self.shutdown {
            shutdown();
        }
        Ok(())
    }
}

/// A callback of the manager's. What it has captured is not dropped in the master, which has the
/// same values since the fork.
struct Managers<F>(Option<F>);

impl<F> Managers<F> {
    fn get(&mut self) -> Option<&mut F> {
        self.0.as_mut()
    }

    fn take(&mut self) -> Option<F> {
        self.0.take()
    }
}

impl<F> Drop for Managers<F> {
    fn drop(&mut self) {
        if Role::current() == Role::Master {
            mem::forget(self.take());
        }
    }
}

fn once(callback: impl FnOnce() + 'static) -> impl FnOnce() + 'static {
    let mut callback = Managers(Some(callback));
    move || {
        if let Some(callback) = callback.take() {
            callback();
        }
    }
}

fn run_process<H: Handler>(
    config: &Arc<Config>,
    arena: Arena,
    listeners: Vec<Listener>,
    hooks: Hooks,
    start: Option<Box<dyn FnOnce()>>,
    make: &dyn Fn(Worker) -> H,
) -> Result<(), Error> {
    let pipes = || Ok((pipe()?, pipe()?));
    let ((news, hear_news), (orders, hear_orders)) =
        pipes().map_err(Error::system("make the manager's pipes"))?;
    let parent = ProcessId::current();
    let manager = match process::fork().map_err(Error::system("fork the manager"))? {
        Fork::Parent(manager) => manager,
        Fork::Child => {
            process::die_with(parent);
            Role::Manager.take();
            // The master's: a manager that held a listener would keep the port when the master is
            // gone.
            drop((listeners, hear_news, orders));
            // What it captured is the master's to drop.
            mem::forget(start);
            let master = manager::Master {
                news,
                orders: hear_orders,
            };
            let memory = arena.slots.clone();
            let body = Box::new(|incarnation| worker::run(arena, config, make, incarnation));
            process::exit_now(manager::guarded(|| {
                let (config, listeners) = (Arc::clone(config), Arc::default());
                manage(Manager::new(
                    config,
                    memory,
                    body,
                    hooks,
                    Some(master),
                    listeners,
                ))
            }))
        }
    };
    Role::Master.take();
    drop((news, hear_orders));
    drop(hooks);
    let master = Master::start(
        Arc::clone(config),
        &arena,
        listeners,
        (manager, hear_news, orders),
        start,
    );
    match master {
        Ok(master) => master.run(),
        Err(source) => {
            manager.kill();
            process::wait_for(manager);
            Err(Error::System {
                operation: "start the master",
                source,
            })
        }
    }
}

/// The life of the manager process. Returns its exit status.
fn manage(manager: io::Result<Manager<'_>>) -> i32 {
    let manager = manager.map_err(Error::system("start the manager"));
    match manager.and_then(Manager::run) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}

fn run_base<H: Handler>(
    config: &Arc<Config>,
    arena: Arena,
    listeners: Vec<Listener>,
    mut hooks: Hooks,
    start: Option<Box<dyn FnOnce()>>,
    make: &dyn Fn(Worker) -> H,
) -> Result<(), Error> {
    Role::Manager.take();
    hooks.all_ready = start;
    let memory = arena.slots.clone();
    let listeners = Arc::new(listeners);
    let shared = Arc::clone(&listeners);
    let body = Box::new(|incarnation| base::run(arena, listeners, config, make, incarnation));
    let settings = Arc::clone(config);
    let manager = Manager::new(settings, memory, body, hooks, None, shared);
    manager.map_err(Error::system("start the manager"))?.run()
}

fn listen(config: &Config) -> Result<Vec<Listener>, Error> {
    if let Some(most) = socket::largest_backlog().filter(|most| *most < config.backlog) {
        log::warn!(
            "backlog {} is more than the kernel allows: {most} it is (net.core.somaxconn)",
            config.backlog
        );
    }
    let bind = |address: &SocketAddr| {
        Listener::bind(*address, config.backlog).map_err(|source| Error::Listen {
            address: *address,
            source,
        })
    };
    config.listen.iter().map(bind).collect()
}

/// A server that has started.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Started {
    /// What it listens on, in the order of [`Server::listen`], with the real ports.
    pub addresses: Vec<SocketAddr>,
    /// Where the connections live.
    pub mode: Mode,
    /// How many workers it has.
    pub workers: usize,
    /// How many reactors; 0 in base mode.
    pub reactors: usize,
    /// The process to send signals to: the master, in base mode the manager.
    pub pid: u32,
}

impl Started {
    fn new(config: &Config, listeners: &[Listener]) -> Started {
        Started {
            addresses: listeners.iter().map(Listener::address).collect(),
            mode: config.mode,
            workers: config.workers,
            reactors: config.reactors,
            pid: std::process::id(),
        }
    }
}

/// A pid file, removed when dropped. Forked processes end without dropping anything, so that it is
/// removed once.
struct PidFile(PathBuf);

impl PidFile {
    /// Writes it whole or not at all: under another name first.
    fn write(path: &Path) -> Result<PidFile, Error> {
        let pid = std::process::id();
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{pid}"));
        let written = fs::File::create(&draft)
            .and_then(|mut file| writeln!(file, "{pid}"))
            .and_then(|()| fs::rename(&draft, path))
            .inspect_err(|_| drop(fs::remove_file(&draft)));
        match written {
            Ok(()) => Ok(PidFile(path.to_owned())),
            Err(source) => Err(Error::PidFile {
                path: path.to_owned(),
                source,
            }),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            log::warn!("cannot remove the pid file {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_server_that_has_not_run_drops_what_its_callbacks_captured() {
        let shared = Rc::new(());
        let [start, stop, error] = [(); 3].map(|()| Rc::clone(&shared));
        let server = Server::new()
            .on_manager_start(move || drop(start))
            .on_manager_stop(move || drop(stop))
            .on_worker_error(move |_| _ = Rc::strong_count(&error));
        drop(server);
        assert_eq!(Rc::strong_count(&shared), 1);
    }
}
