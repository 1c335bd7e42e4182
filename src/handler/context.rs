//! What a callback can do and ask beside its own connection.

use std::fmt;

use super::{ConnRef, SharedOutput, Worker};
use crate::config::{ListenerConfig, ListenerId};
use crate::conn_id::ConnId;

/// Everything that a callback has beside its own connection: other connections, the worker that runs
/// it, the server.
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
}

impl<'a> Context<'a> {
    /// Any connection of the server, to send to it or close it. Nothing is looked up: a connection
    /// that is gone drops what is asked of it.
    pub fn conn(&self, id: ConnId) -> ConnRef<'a> {
        ConnRef {
            id,
            output: self.output,
        }
    }

    /// The worker that runs this callback.
    pub fn worker(&self) -> Worker {
        self.worker
    }

    /// Figures of the running server, as this worker sees them.
    pub fn stats(&self) -> Stats {
        self.output.borrow().stats()
    }

    /// The server as a whole, to end it or to replace its workers.
    pub fn server(&self) -> ServerCalls<'a> {
        ServerCalls {
            output: self.output,
        }
    }

    /// The name of a listener: [`Listener::name`](crate::Listener::name), or its address as a text.
    /// Empty for an id of another server that has more listeners.
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

/// The server, as a callback reaches it: [`Context::server`].
///
/// The calls are part of the callback's output: they happen when the callback returns `Ok` or
/// flushes, and not at all if it fails or its worker dies in it.
pub struct ServerCalls<'a> {
    output: SharedOutput<'a>,
}

impl ServerCalls<'_> {
    /// Ends the server gracefully, as SIGTERM does.
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

/// What a callback asks of the server as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ServerCall {
    Stop,
    Reload,
}

/// Figures of the running server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Callbacks that this worker process has finished.
    pub callbacks: u64,
    /// Connections open now: of the whole server in process mode, of this worker in base mode.
    pub connections: u64,
    /// Connections accepted since the start, counted likewise.
    pub accepted: u64,
    /// Callbacks that have used up their attempts
    /// ([`OnCrash::Redeliver`](crate::OnCrash::Redeliver)). 0 in base mode.
    pub poisoned: u64,
}
