//! A callback's access to everything beside its own connection.

use std::fmt;

use super::{ConnRef, NewTask, SendError, SharedOutput, To, Worker};
use crate::config::{ListenerConfig, ListenerId, MOST_POST, MOST_TASK};
use crate::conn_id::ConnId;

/// Everything that a callback can reach beside its own connection: other connections, its worker, the
/// server.
///
/// ```
/// use tine::{Conn, ConnId, Context};
///
/// /// `ID TEXT` sends the text to the connection of that number.
/// fn pass_on(cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
///     let line = std::str::from_utf8(line)?;
///     let (id, text) = line.split_once(' ').ok_or("ID TEXT is expected")?;
///     let other = ConnId::from_u64(id.parse()?).ok_or("no connection has that number")?;
///     cx.conn(other).send(text.as_bytes())?;
///     let seat = cx.worker().seat().unwrap_or_default();
///     Ok(conn.send(format!("passed on by worker#{seat}\n").as_bytes())?)
/// }
///
/// let mut server = tine::testing::TestServer::new(tine::receive_fn(pass_on));
/// let (from, to) = (server.connect(), server.connect());
/// server.send(from, format!("{} hello\n", to.as_u64()).as_bytes());
/// assert_eq!(server.conn(to).sent(), b"hello\n");
/// ```
pub struct Context<'a> {
    pub(crate) output: SharedOutput<'a>,
    pub(crate) worker: Worker,
    pub(crate) listeners: &'a [ListenerConfig],
    pub(crate) attempt: u8,
}

impl<'a> Context<'a> {
    /// Returns any connection of the server, to send to it or to close it. It is not looked up: calls for
    /// a connection that is gone have no effect.
    pub fn conn(&self, id: ConnId) -> ConnRef<'a> {
        ConnRef {
            id,
            output: self.output,
        }
    }

    /// Posts up to [`MOST_POST`](Self::MOST_POST) bytes to other workers, or to this one:
    /// [`Handler::post`](super::Handler::post) is called there with them. As part of the callback's output, they are
    /// committed with the answer. They are the master's then: if a worker dies before it has handled them, or in
    /// that, its successor gets them, within the attempts of [`Server::post_attempts`](crate::Server::post_attempts).
    /// Posts of one connection's callbacks to one seat arrive in order while the connection stays with its worker;
    /// there is no other order.
    ///
    /// # Errors
    /// [`SendError::TooLong`], [`SendError::NoSeat`], [`SendError::Full`]; [`SendError::OverLimit`] when the posts of one
    /// callback count more than [`Server::output_limit`](crate::Server::output_limit), their bytes and 64 each;
    /// [`SendError::OtherWorker`] in base mode for any worker but this one.
    pub fn post(&mut self, to: To, bytes: &[u8]) -> Result<(), SendError> {
        self.output.borrow_mut().post(to, bytes)
    }

    /// The most bytes of a post: 64 KiB.
    pub const MOST_POST: usize = MOST_POST;

    /// Queues a task for the task workers ([`Server::task_workers`](crate::Server::task_workers)): bytes, or a
    /// [`NewTask`] with a delay, a key or a tag. The next one that is free runs [`Handler::task`](super::Handler::task)
    /// for it. As part of the callback's output, it is committed with the answer. It is the master's then, which runs
    /// it again if a worker dies in it.
    ///
    /// # Errors
    /// [`SendError::NoTaskWorkers`], also in base mode; [`SendError::QueueFull`], with
    /// [`Server::task_queue`](crate::Server::task_queue) and
    /// [`Server::task_queue_bytes`](crate::Server::task_queue_bytes); [`SendError::TooLong`];
    /// [`SendError::OverLimit`] as [`post`](Self::post).
    pub fn task<'t>(&mut self, task: impl Into<NewTask<'t>>) -> Result<(), SendError> {
        let task = task.into();
        self.output.borrow_mut().task(task.order(), task.bytes)
    }

    /// The most bytes of a task, and of its result: 64 KiB.
    pub const MOST_TASK: usize = MOST_TASK;

    /// Returns the worker that runs this callback.
    pub fn worker(&self) -> Worker {
        self.worker
    }

    /// Returns the number of earlier runs of this callback for the same message, post or timer: [`Conn::attempt`], also
    /// where there is no connection.
    ///
    /// [`Conn::attempt`]: super::Conn::attempt
    pub fn attempt(&self) -> u8 {
        self.attempt
    }

    /// Returns counters of the running server.
    pub fn stats(&self) -> Stats {
        self.output.borrow().stats()
    }

    /// Returns the server as a whole, to stop or reload it.
    pub fn server(&self) -> ServerCalls<'a> {
        ServerCalls {
            output: self.output,
        }
    }

    /// Returns the name of a listener: [`Listener::name`](crate::Listener::name), or its address as text.
    /// Empty for an id that this server does not have.
    pub fn listener_name(&self, id: ListenerId) -> &'a str {
        self.listeners
            .get(id.index())
            .map_or("", |listener| &listener.name)
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// A callback's calls to the server: [`Context::server`].
///
/// They are part of the callback's output: they take effect when the callback returns `Ok` or flushes,
/// and not at all if it returns an error or its worker dies in it.
pub struct ServerCalls<'a> {
    output: SharedOutput<'a>,
}

impl ServerCalls<'_> {
    /// Shuts the server down gracefully, as SIGTERM does.
    pub fn stop(&mut self) {
        self.output.borrow_mut().call_server(ServerCall::Stop);
    }

    /// Replaces the workers one at a time, as SIGUSR1 does.
    pub fn reload(&mut self) {
        self.output.borrow_mut().call_server(ServerCall::Reload);
    }
}

impl fmt::Debug for ServerCalls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCalls")
    }
}

/// A call of a callback to the server as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ServerCall {
    Stop,
    Reload,
}

/// Counters of the running server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Callbacks that this worker process has finished.
    pub callbacks: u64,
    /// Connections open now: of the whole server in process mode, of this worker in base mode.
    pub connections: u64,
    /// Connections accepted since the start, counted in the same way.
    pub accepted: u64,
    /// Callbacks that have used up their attempts
    /// ([`OnCrash::Redeliver`](crate::OnCrash::Redeliver)). 0 in base mode.
    pub poisoned: u64,
}
