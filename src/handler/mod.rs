//! The user's handler, with callbacks that run in a worker, and the arguments of its callbacks.
//!
//! Its one rule: a callback reaches the server only through its [`Context`] and its [`Conn`], and every
//! output that it makes is staged in one [`Output`].

mod closed;
mod conn;
mod context;
mod files;
mod groups;
mod listing;
mod make;
mod names;
mod origin;
mod output;
mod poster;
mod refused;
mod session;
mod task;

use crate::error::Result;

pub use self::closed::{CloseReason, Closed};
pub use self::conn::{Conn, ConnRef};
pub use self::context::{Context, ServerCalls, Stats};
pub use self::groups::Groups;
pub use self::listing::ConnInfo;
pub use self::make::{IntoHandler, receive_fn};
pub use self::origin::Origin;
#[cfg(feature = "test-hooks")]
pub use self::output::Forgery;
pub use self::output::To;
pub use self::poster::{PostError, Poster};
pub use self::refused::SendError;
pub use self::task::{NewTask, Task};

pub(crate) use self::context::ServerCall;
pub(crate) use self::names::Names;
#[cfg_attr(not(any(feature = "proxy", feature = "tls")), allow(unused_imports))]
pub(crate) use self::origin::{Fact, add_fact};
pub(crate) use self::output::{Group, Output, SharedOutput, Timer};
pub(crate) use self::poster::{Post, Posts};
pub(crate) use self::session::Session;
pub(crate) use self::task::TaskOrder;

/// The user's code. Every method is a callback that runs in a worker process, one at a time; it may
/// block, leak or crash.
///
/// A new value is made in each worker process, by the closure given to
/// [`Server::run`](crate::Server::run): its fields belong to that worker alone, and are gone with it.
///
/// ```
/// use std::collections::HashMap;
/// use tine::{CloseReason, Closed, Conn, ConnId, Context, Handler};
///
/// /// Answers each line with its number on its connection.
/// #[derive(Default)]
/// struct Numbers {
///     lines: HashMap<ConnId, u64>,
/// }
///
/// impl Handler for Numbers {
///     fn receive(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
///         let number = self.lines.entry(conn.id()).or_default();
///         *number += 1;
///         conn.send(format!("{number} ").as_bytes())?;
///         Ok(conn.send(line)?)
///     }
///
///     fn close(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> tine::Result {
///         self.lines.remove(&conn.id());
///         if closed.reason == CloseReason::Broken {
///             log::info!("{} is gone", conn.peer());
///         }
///         Ok(())
///     }
/// }
///
/// // Callbacks can be tried without a server.
/// let mut server = tine::testing::TestServer::new(Numbers::default());
/// let client = server.connect();
/// server.send(client, b"first\n");
/// server.send(client, b"second\n");
/// assert_eq!(server.conn(client).sent(), b"1 first\n2 second\n");
/// ```
///
/// # Commit
/// A callback's output and the acknowledgement of its message are committed atomically, when the callback
/// returns `Ok`. [`Conn::flush`] commits the output so far earlier.
///
/// # Errors
/// An `Err` from a callback commits nothing, and is logged. The crash policy
/// ([`OnCrash`](crate::OnCrash)) decides the fate of the connection, as if the worker had died, though
/// this worker lives on:
///
/// | policy | after an `Err` |
/// |---|---|
/// | `Close` | the connection is closed |
/// | `Reply` | the reply is sent, and the connection is closed |
/// | `Redeliver` | the callback is run again until its attempts are used up, then the connection is closed |
/// | `Keep` | the connection is closed: an `Err` never leaves a client waiting |
///
/// Output flushed before the `Err` stays sent; that callback is not run again, and its connection is
/// closed.
///
/// # Panics
/// A panic in a callback is logged and ends the worker like any other crash; the crash policy decides
/// the fate of the message, and the manager starts another worker.
pub trait Handler {
    /// Called in a standby worker ([`Server::standby`](crate::Server::standby)) that takes the seat of a dead
    /// one, before its first callback for a connection or a post. The closure given to
    /// [`Server::run`](crate::Server::run) has run before, for a [`Worker`] without a seat. It must return within the
    /// deadline for the start of a worker, or the worker is killed. Not called in a worker that starts with a seat.
    ///
    /// # Errors
    /// An error ends this worker, as a crash does.
    fn seated(&mut self, worker: Worker) -> Result {
        let _ = worker;
        Ok(())
    }

    /// A client has connected.
    ///
    /// # Errors
    /// See [`Handler`].
    fn connect(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        let _ = (cx, conn);
        Ok(())
    }

    /// A message has come, cut by the listener's [`Protocol`](crate::Protocol): never empty, framing
    /// included. The bytes are in memory that the server has read them into, and are valid until the
    /// callback returns.
    ///
    /// # Errors
    /// See [`Handler`].
    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, message: &[u8]) -> Result;

    /// The connection has ended: its last callback. Bytes sent here still reach a peer that has closed
    /// only its writing side.
    ///
    /// # Errors
    /// See [`Handler`].
    fn close(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> Result {
        let _ = (cx, conn, closed);
        Ok(())
    }

    /// The server has paused reading from the connection, as its peer reads too slowly: more than
    /// [`Server::output_high_water`](crate::Server::output_high_water) bytes are unsent.
    ///
    /// # Errors
    /// See [`Handler`].
    fn paused(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        let _ = (cx, conn);
        Ok(())
    }

    /// After [`paused`](Self::paused): unsent output has fallen to half of the high-water mark, and the
    /// server reads from the connection again.
    ///
    /// # Errors
    /// See [`Handler`].
    fn resumed(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        let _ = (cx, conn);
        Ok(())
    }

    /// The connection has been idle for as long as [`Listener::idle`](crate::Listener::idle) allows. Called
    /// only for listeners with [`OnIdle::Call`](crate::OnIdle::Call), and again each time that the deadline
    /// has passed. It may send a ping, or close the connection; without this method it is closed.
    ///
    /// # Errors
    /// See [`Handler`].
    fn idle(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        let _ = cx;
        conn.close();
        Ok(())
    }

    /// A timer of the connection has fired, which a callback has set by [`Conn::after`] with this tag. Its output and
    /// the end of the timer are committed together: if its worker dies, the crash policy decides whether it
    /// runs again, as for a message.
    ///
    /// # Errors
    /// See [`Handler`].
    fn timer(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, tag: u64) -> Result {
        let _ = (cx, conn, tag);
        Ok(())
    }

    /// The connection has no unsent output, for which a callback has called [`Conn::notify_drained`]: the kernel has
    /// taken all of it. More can be sent here, up to [`Server::output_limit`](crate::Server::output_limit),
    /// and so on: an answer of any length is streamed without waiting for a slow client, and without being cut.
    ///
    /// # Errors
    /// See [`Handler`].
    fn drained(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        let _ = (cx, conn);
        Ok(())
    }

    /// A callback has posted something to this worker: [`Context::post`]. Its output and the end of the post are
    /// committed together; if its worker dies in it, or it returns an error, it runs again, as often as
    /// [`Server::post_attempts`](crate::Server::post_attempts) allows. In base mode it runs once.
    ///
    /// # Errors
    /// An error commits nothing.
    fn post(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result {
        let _ = (cx, bytes);
        Ok(())
    }

    /// A task worker is given a task, which a callback has queued by [`Context::task`]. Its output, whatever connections
    /// that reaches, and the end of the task are committed together; if its worker dies in it, or it returns an error,
    /// it runs again, as often as [`Server::task_attempts`](crate::Server::task_attempts) allows. It may block for as
    /// long as the task takes.
    ///
    /// # Errors
    /// An error commits nothing.
    fn task(&mut self, cx: &mut Context<'_>, task: &mut Task<'_>) -> Result {
        let _ = (cx, task);
        Ok(())
    }

    /// A task is done that a callback of this seat's worker has queued with this tag; `result` are the bytes that it has
    /// [finished](Task::finish) with. It runs as [`post`](Self::post) does. Not called for a task that was given up.
    ///
    /// # Errors
    /// An error commits nothing.
    fn finished(&mut self, cx: &mut Context<'_>, tag: u64, result: &[u8]) -> Result {
        let _ = (cx, tag, result);
        Ok(())
    }

    /// A timer of the server has fired, which a callback has set by [`Context::after`] or [`Context::every`] with this tag, or
    /// [`Server::every`](crate::Server::every). It runs as [`post`](Self::post) does.
    ///
    /// # Errors
    /// An error commits nothing.
    fn server_timer(&mut self, cx: &mut Context<'_>, tag: u64) -> Result {
        let _ = (cx, tag);
        Ok(())
    }

    /// Called after the last callback of a worker that is replaced or shut down. Not called after a crash.
    fn stop(&mut self) {}
}

impl<H: Handler + ?Sized> Handler for Box<H> {
    fn seated(&mut self, worker: Worker) -> Result {
        (**self).seated(worker)
    }

    fn connect(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        (**self).connect(cx, conn)
    }

    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, message: &[u8]) -> Result {
        (**self).receive(cx, conn, message)
    }

    fn close(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> Result {
        (**self).close(cx, conn, closed)
    }

    fn paused(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        (**self).paused(cx, conn)
    }

    fn resumed(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        (**self).resumed(cx, conn)
    }

    fn idle(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        (**self).idle(cx, conn)
    }

    fn timer(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, tag: u64) -> Result {
        (**self).timer(cx, conn, tag)
    }

    fn drained(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        (**self).drained(cx, conn)
    }

    fn post(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result {
        (**self).post(cx, bytes)
    }

    fn task(&mut self, cx: &mut Context<'_>, task: &mut Task<'_>) -> Result {
        (**self).task(cx, task)
    }

    fn finished(&mut self, cx: &mut Context<'_>, tag: u64, result: &[u8]) -> Result {
        (**self).finished(cx, tag, result)
    }

    fn server_timer(&mut self, cx: &mut Context<'_>, tag: u64) -> Result {
        (**self).server_timer(cx, tag)
    }

    fn stop(&mut self) {
        (**self).stop();
    }
}

/// A worker process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Worker {
    pub(crate) seat: Option<usize>,
    pub(crate) generation: u32,
    /// Seats from this one on are those of task workers.
    pub(crate) first_task_seat: usize,
}

impl Worker {
    pub(crate) fn new(seat: Option<usize>, generation: u32, first_task_seat: usize) -> Worker {
        Worker {
            seat,
            generation,
            first_task_seat,
        }
    }

    /// Returns the worker's seat: the N of `worker#N`, from 0. The next process in the seat has the same.
    /// `None` for a standby worker, until [`Handler::seated`]: in callbacks for connections and posts there always
    /// is one.
    pub fn seat(&self) -> Option<usize> {
        self.seat
    }

    /// Whether it runs tasks ([`Server::task_workers`](crate::Server::task_workers)) and serves no clients. `false` for
    /// a standby worker, which may get either kind of seat.
    pub fn runs_tasks(&self) -> bool {
        self.seat.is_some_and(|seat| seat >= self.first_task_seat)
    }

    /// Returns the number of this worker process, counted from 1 over the whole life of the server: no
    /// two have the same.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}
