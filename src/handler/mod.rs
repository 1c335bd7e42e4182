//! What a user of the library writes: a handler, whose callbacks run in a worker, and what a callback
//! is given.
//!
//! Its one rule: a callback reaches the server by its [`Context`] and its [`Conn`] alone, and all that
//! it does with them is staged in one [`Output`].

mod conn;
mod context;
mod make;
mod output;

use crate::error::Result;

pub use self::conn::{CloseReason, Closed, Conn, ConnRef, SendError};
pub use self::context::{Context, ServerCalls, Stats};
pub use self::make::{IntoHandler, receive_fn};
#[cfg(feature = "test-hooks")]
pub use self::output::Forgery;

pub(crate) use self::context::ServerCall;
pub(crate) use self::output::{Output, SharedOutput};

/// The user's code. Every method runs in a worker process, one at a time; it may block, leak or
/// crash.
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
/// A callback's output is committed when the callback returns `Ok`: what it sent, closed and
/// set happens, together with the acknowledgement of its message, or none of it does.
/// [`Conn::flush`] commits the output so far earlier.
///
/// # Errors
/// An `Err` from a callback commits nothing, and the log says why. Its connection has the fate that
/// the crash policy ([`OnCrash`](crate::OnCrash)) gives a callback whose worker has died, though this
/// worker lives on:
///
/// | policy | after an `Err` |
/// |---|---|
/// | `Close` | the connection is closed |
/// | `Reply` | the reply is sent, and the connection is closed |
/// | `Redeliver` | the callback is run again until its attempts are used up, then the connection is closed |
/// | `Keep` | the connection is closed: an `Err` never leaves a client waiting |
///
/// What was flushed before the `Err` stays sent; that callback is not run again, and its connection is
/// closed.
///
/// # Panics
/// A panic in a callback is logged and ends the worker like any other crash; the crash policy
/// decides the fate of the message under way, and the manager starts another worker.
pub trait Handler {
    /// A worker that stood by ([`Server::standby`](crate::Server::standby)) takes the seat of one
    /// that has died, before its first callback for a connection. It may take as long as the start
    /// of a worker may; one that takes longer is killed.
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

    /// A message has come, as the listener's [`Protocol`](crate::Protocol) cut it: never empty,
    /// framing included. The bytes lie in the memory that the server read them into, until the
    /// callback returns.
    ///
    /// # Errors
    /// See [`Handler`].
    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, message: &[u8]) -> Result;

    /// The connection has ended: the last callback for it. What is sent here still reaches a peer
    /// that closed only its writing side.
    ///
    /// # Errors
    /// See [`Handler`].
    fn close(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> Result {
        let _ = (cx, conn, closed);
        Ok(())
    }

    /// The server has stopped reading from the connection, since its peer reads too slowly: more than
    /// [`Settings::output_high_water`](crate::Settings::output_high_water) bytes are unsent.
    ///
    /// # Errors
    /// See [`Handler`].
    fn paused(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        let _ = (cx, conn);
        Ok(())
    }

    /// After [`paused`](Self::paused): half of the output is sent, and the server reads from the
    /// connection again.
    ///
    /// # Errors
    /// See [`Handler`].
    fn resumed(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        let _ = (cx, conn);
        Ok(())
    }

    /// The worker is asked to end, after its last callback. Not called when it crashes.
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

    fn stop(&mut self) {
        (**self).stop();
    }
}

/// A worker process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Worker {
    pub(crate) seat: Option<usize>,
    pub(crate) generation: u32,
}

impl Worker {
    /// The worker's seat: the N of `worker#N`, from 0. The next process in the seat has the same.
    /// `None` for a worker that stands by.
    pub fn seat(&self) -> Option<usize> {
        self.seat
    }

    /// The number of this worker process, counted from 1 over the whole life of the server: no two
    /// have the same.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}
