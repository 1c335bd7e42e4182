//! The handle of a running server, for the process that runs it and its threads.
//!
//! Its one rule: it does what a signal does, so that there is one way to stop a server and one to reload
//! it, in either mode.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::Signal;

use crate::config::Endpoint;
use crate::handler::{SendError, To};
use crate::master::Inlet;
use crate::sys::process::{self, ProcessId};

/// A running server, to be stopped or reloaded from its own process: from a thread of the master, or from
/// a callback such as [`Server::on_start`](crate::Server::on_start); in base mode from the manager. A
/// callback of a worker uses [`Context::server`](crate::Context::server) instead.
///
/// It can be made before the server runs, and cloned.
///
/// ```no_run
/// use std::time::Duration;
/// use tine::{Server, receive_fn};
///
/// let server = Server::new().on_start(|started| {
///     let handle = started.handle();
///     std::thread::spawn(move || {
///         std::thread::sleep(Duration::from_secs(3600));
///         handle.reload()
///     });
/// });
/// server.run(|_| receive_fn(|_, conn, message| Ok(conn.send(message)?)))?;
/// # Ok::<(), tine::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Handle {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    NotStarted,
    /// In this process, which handles the signals, with a way to the workers of process mode.
    Running(ProcessId, Vec<Endpoint>, Option<Inlet>),
    Ended,
}

/// Why a call of a [`Handle`] was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HandleError {
    /// The server does not run yet.
    NotStarted,
    /// The server has ended.
    Ended,
    /// The calling process is not the one that handles the server's signals: it is the manager of process
    /// mode, or a worker.
    WrongProcess,
    /// A post was refused for this reason.
    Post(SendError),
}

impl Handle {
    /// Shuts the server down gracefully, as SIGTERM does. Returns at once: the server ends afterwards. In
    /// a shutdown, it has no effect.
    ///
    /// # Errors
    /// If no server runs, or not in this process.
    pub fn stop(&self) -> Result<(), HandleError> {
        self.signal(Signal::SIGTERM)
    }

    /// Replaces the workers one at a time, as SIGUSR1 does. Returns at once.
    ///
    /// # Errors
    /// If no server runs, or not in this process.
    pub fn reload(&self) -> Result<(), HandleError> {
        self.signal(Signal::SIGUSR1)
    }

    /// Returns every address that the server listens on, with the real ports. Empty while it does not run.
    pub fn addresses(&self) -> Vec<Endpoint> {
        match &*self.state() {
            State::Running(_, addresses, _) => addresses.clone(),
            State::NotStarted | State::Ended => Vec::new(),
        }
    }

    /// Posts up to [`Context::MOST_POST`](crate::Context::MOST_POST) bytes to workers:
    /// [`Handler::post`](crate::Handler::post) is called there with them. For any thread of the master's process. What
    /// [`Context::post`](crate::Context::post) says of posts holds for these, which are committed at once. There is no order
    /// between them and other posts; those of one thread to one seat arrive in order.
    ///
    /// # Errors
    /// If no server runs, or not in this process; [`HandleError::Post`] with [`SendError::TooLong`],
    /// [`SendError::NoSeat`] or [`SendError::Full`]; and with [`SendError::OtherWorker`] in base mode, where the process that
    /// handles the signals has no way to the workers, and in process mode before the workers are started.
    pub fn post(&self, to: To, bytes: &[u8]) -> Result<(), HandleError> {
        let mut posted = Ok(());
        self.while_it_runs(|inlet| {
            posted = match inlet {
                Some(inlet) => inlet.post(to, bytes),
                None => Err(SendError::OtherWorker),
            };
        })?;
        posted.map_err(HandleError::Post)
    }

    fn signal(&self, signal: Signal) -> Result<(), HandleError> {
        self.while_it_runs(|_| process::signal_itself(signal))
    }

    /// Does something that the server must not end before: afterwards, a signal has another effect.
    fn while_it_runs(&self, act: impl FnOnce(Option<&Inlet>)) -> Result<(), HandleError> {
        match &*self.state() {
            State::NotStarted => Err(HandleError::NotStarted),
            State::Ended => Err(HandleError::Ended),
            State::Running(process, ..) if *process != ProcessId::current() => {
                Err(HandleError::WrongProcess)
            }
            State::Running(_, _, inlet) => {
                act(inlet.as_ref());
                Ok(())
            }
        }
    }

    /// Returns the state, which does not change while the guard exists. Our signal handlers take no lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state() = state;
    }

    /// Says that the server has ended as soon as the value is dropped.
    pub(super) fn ends_when_dropped(&self) -> Running<'_> {
        Running(self)
    }

    /// Marks the calling process as running the server, until the value is dropped. Its signals must be
    /// blocked or handled.
    pub(super) fn running(&self, addresses: Vec<Endpoint>) -> Running<'_> {
        self.set(State::Running(ProcessId::current(), addresses, None));
        Running(self)
    }

    /// There are reactors now, which take posts.
    pub(super) fn can_post(&self, inlet: Inlet) {
        if let State::Running(_, _, known) = &mut *self.state() {
            *known = Some(inlet);
        }
    }
}

pub(super) struct Running<'a>(&'a Handle);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(State::Ended);
    }
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            HandleError::Post(error) => return error.fmt(f),
            HandleError::NotStarted => "the server does not run yet",
            HandleError::Ended => "the server has ended",
            HandleError::WrongProcess => {
                "this process does not handle the server's signals: in a worker's callback, use Context::server"
            }
        };
        f.write_str(text)
    }
}

impl std::error::Error for HandleError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_run_says_so() {
        let handle = Handle::default();
        assert_eq!(handle.stop(), Err(HandleError::NotStarted));
        drop(handle.running(Vec::new()));
        assert_eq!(handle.reload(), Err(HandleError::Ended));
        let parent = ProcessId::of(nix::unistd::getppid().as_raw());
        handle.set(State::Running(parent, Vec::new(), None));
        assert_eq!(handle.clone().stop(), Err(HandleError::WrongProcess));
    }

    #[test]
    fn the_server_does_not_end_while_it_is_sent_a_signal() {
        let handle = Handle::default();
        let _running = handle.running(Vec::new());
        let mut is_held = false;
        let sent = handle.while_it_runs(|_| is_held = handle.state.try_lock().is_err());
        assert_eq!((sent, is_held), (Ok(()), true));
        assert!(handle.state.try_lock().is_ok());
    }
}
