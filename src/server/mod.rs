//! The builder of a server: its settings and callbacks. [`launch`] starts its processes, and [`handle`]
//! controls it while it runs.

mod handle;
mod launch;
mod listen;
mod pid_file;

use std::fmt;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::handle::{Handle, HandleError};
pub use self::launch::Started;

use crate::config::policy::{Crash, Deciders, Dispatch, FailedTask, OnCrash, Route};
use crate::config::{LimitAction, Listener, Mode, Run, ServerTimer, Settings, with_settings};
use crate::error::Error;
use crate::handler::{IntoHandler, Worker};
use crate::manager::{Hooks, WorkerExit};
use crate::role::Role;

/// The type of `on_start`.
type OnStart = Box<dyn FnOnce(&Started)>;

/// A server before its start: its settings, and the callbacks of its master and manager. Each of the [`Settings`] is
/// set by a method of the same name. A program that has its settings from a file fills a `Settings`, and
/// [makes the server of it](Self::with_settings).
///
/// The callbacks of the workers are a [`Handler`](crate::Handler), made by the closure given to
/// [`run`](Self::run). Types decide which process runs a callback: one that is set here never runs in a
/// worker.
///
/// ```no_run
/// use tine::{Server, receive_fn};
///
/// fn main() -> Result<(), tine::Error> {
///     Server::new()
///         .listen("127.0.0.1:9501")
///         .workers(4)
///         .on_start(|started| println!("listening on {}", started.addresses[0]))
///         .run(|_worker| receive_fn(|_cx, conn, message| Ok(conn.send(message)?)))
/// }
/// ```
///
/// # Which process runs which callback
/// | callback | process mode | base mode |
/// |---|---|---|
/// | [`on_start`](Self::on_start), [`on_shutdown`](Self::on_shutdown) | master | manager |
/// | [`on_manager_start`](Self::on_manager_start), [`on_manager_stop`](Self::on_manager_stop), [`on_worker_exit`](Self::on_worker_exit) | manager | manager |
/// | [`dispatch_with`](Self::dispatch_with), [`on_crash_with`](Self::on_crash_with) | master, in its reactors | refused |
/// | [`on_task_failed`](Self::on_task_failed) | master, in a reactor | never |
/// | the closure of [`run`](Self::run), and the [`Handler`](crate::Handler) that it makes | worker | worker |
///
/// # Panics in callbacks
/// After a panic in the closure of [`run`](Self::run), the worker does not start. A panic in any other
/// callback of this type is logged, and the server goes on as if the callback had returned: the
/// connection stays at its seat (`dispatch_with`), or is closed (`on_crash_with`).
#[derive(Default)]
#[must_use = "a server does nothing until it is run"]
pub struct Server {
    settings: Settings,
    deciders: Deciders,
    hooks: Hooks,
    start: Option<OnStart>,
    shutdown: Option<Box<dyn FnOnce()>>,
    handle: Handle,
}

macro_rules! builder_methods {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $kind:ty = $default:expr $(, as $with:literal)?;
        ($argument:ident: $given:ty) => $value:expr;
    )*) => {
        /// One method for each of the [`Settings`].
        impl Server {
            $(
                $(#[doc = $doc])*
                pub fn $name(mut self, $argument: $given) -> Server {
                    self.settings.$name = $value;
                    self
                }
            )*
        }
    };
}

with_settings!(builder_methods);

impl From<Settings> for Server {
    fn from(settings: Settings) -> Server {
        Server {
            settings,
            ..Server::default()
        }
    }
}

impl Server {
    /// Returns a server with default settings: process mode, 127.0.0.1:9501, as many workers as cores,
    /// half as many reactors.
    pub fn new() -> Server {
        Server::default()
    }

    /// Returns a server with these settings, which the methods below may still change.
    pub fn with_settings(settings: Settings) -> Server {
        settings.into()
    }

    /// Adds an address to listen on, such as `127.0.0.1:9501`, `unix:/run/app.sock` or `systemd`, or a [`Listener`] with its
    /// own protocol and limits. Default: a raw listener on 127.0.0.1:9501. A mistake in it is an error of [`run`](Self::run).
    pub fn listen(mut self, listener: impl Into<Listener>) -> Server {
        self.settings.listen.push(listener.into());
        self
    }

    /// Sets a function that chooses the seat of each callback, in process mode, in place of
    /// [`dispatch`](Self::dispatch). A number past the last seat wraps around. Callbacks of one
    /// connection stay in order: one for another seat waits for those before it.
    ///
    /// Called in the master, by any of its reactors, for every callback, and again after a callback has
    /// had to wait: it should be quick and must not block. A connection for an empty seat waits for the
    /// next worker there.
    pub fn dispatch_with(
        mut self,
        choose: impl Fn(&Route<'_>) -> usize + Send + Sync + 'static,
    ) -> Server {
        self.deciders.dispatch = Some(Arc::new(choose));
        self
    }

    /// Sets a function for SIGHUP, to read a configuration again. The log file of [`logger`](crate::guide::logging) has been
    /// opened again by then. Called in the master, in base mode the manager, each time the signal comes: while it
    /// runs, no other signal is handled, and no dead worker is replaced. A panic in it is logged.
    pub fn on_hangup(mut self, callback: impl Fn() + Send + Sync + 'static) -> Server {
        self.deciders.hangup = Some(Arc::new(callback));
        self
    }

    /// Sets a function that decides the fate of each callback in which a worker died, or that returned an
    /// error, in process mode, in place of [`on_crash`](Self::on_crash). Called in the master, by any of
    /// its reactors: it must not block.
    pub fn on_crash_with(
        mut self,
        decide: impl Fn(&Crash<'_>) -> OnCrash + Send + Sync + 'static,
    ) -> Server {
        self.deciders.crash = Some(Arc::new(decide));
        self
    }

    /// Sets a function for each task that is given up: all attempts are used up
    /// ([`task_attempts`](Self::task_attempts)), or it has flushed part of its output and did not complete. The log names
    /// it as well. Called in the master, by its first reactor, and never twice for one task: it must not block.
    pub fn on_task_failed(
        mut self,
        callback: impl Fn(&FailedTask<'_>) + Send + Sync + 'static,
    ) -> Server {
        self.deciders.task_failed = Some(Arc::new(callback));
        self
    }

    /// Sets a timer that the server has from its start: [`Handler::server_timer`](crate::Handler::server_timer) is called with
    /// this tag each time that the interval has passed, at least a millisecond, in one worker or in each.
    /// [`Context::every`](crate::Context::every) sets one later, and says more of it. In base mode each worker has timers of its
    /// own, and [`Run::One`] is refused.
    pub fn every(mut self, interval: Duration, tag: u64, run: Run) -> Server {
        let timer = ServerTimer::every(interval, tag, run);
        self.deciders.timers.push(timer);
        self
    }

    /// Called once every worker is ready. Process mode: in the master, where it may start threads. Base
    /// mode: in the manager, where it must not, as the manager could not fork any more. No signal is
    /// handled before it returns, and in process mode no connection accepted, so it should return soon.
    pub fn on_start(mut self, callback: impl FnOnce(&Started) + 'static) -> Server {
        self.start = Some(Box::new(callback));
        self
    }

    /// Called at the end, when every worker has exited: also after a forced shutdown, not after an error.
    /// Process mode: in the master. Base mode: in the manager.
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

    /// Called in the manager when a worker has exited, abnormally ([`WorkerExit::is_abnormal`]) or not,
    /// after its log line and after its seat was refilled. No worker is forked or reaped before it
    /// returns, and it must start no thread.
    pub fn on_worker_exit(mut self, callback: impl FnMut(&WorkerExit) + 'static) -> Server {
        let mut callback = Managers(Some(callback));
        self.hooks.worker_exit = Some(Box::new(move |exit| {
            if let Some(callback) = callback.get() {
                callback(exit);
            }
        }));
        self
    }

    /// Returns a handle to this server, which works once the server runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs the server until SIGTERM, SIGINT, a [`Handle`] or a callback stops it. `make` runs once in
    /// each new worker process and returns its handler, or a `Result` with one: after an error, the
    /// worker does not start. In a running server, a worker is killed and another one started if
    /// `make` takes longer than a minute, the shutdown deadline and twice the longest start so far.
    ///
    /// The signals of the calling process are the server's from here on, also after `run` has returned:
    /// TERM and INT shut the server down gracefully, a second INT by force, USR1 replaces the workers one
    /// at a time, HUP reads certificates anew, PIPE has no effect. After a forced shutdown it returns `Ok` as well, and the
    /// log says how many connections were cut. Needs /proc.
    ///
    /// # Errors
    /// If the server cannot start, an error of a worker's `make` included, and if it ends unexpectedly; no
    /// process is left running. [`ErrorKind::Threads`](crate::ErrorKind::Threads) if the calling process
    /// has more than one thread.
    pub fn run<M: IntoHandler>(self, make: impl Fn(Worker) -> M) -> Result<(), Error> {
        self.launch(&|worker| make(worker).into_handler())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A callback of the manager. Its captures are not dropped in the master, which has the same values since
/// the fork.
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
            .on_worker_exit(move |_| _ = Rc::strong_count(&error));
        drop(server);
        assert_eq!(Rc::strong_count(&shared), 1);
    }

    #[test]
    fn a_builder_method_sets_the_setting_of_its_name() {
        let server = Server::new().workers(3).max_requests(7).pid_file("/run/it");
        assert_eq!(server.settings.workers, 3);
        assert_eq!(server.settings.max_requests, Some(7));
        assert_eq!(server.settings.pid_file, Some(PathBuf::from("/run/it")));
        let again = Server::from(server.settings.clone());
        assert_eq!(again.settings, server.settings);
    }
}
