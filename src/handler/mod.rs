//! What a user of the library writes: a handler whose callbacks run in a worker, and what a
//! callback can do.

use std::fmt;
use std::net::SocketAddr;

use crate::conn_id::ConnId;

/// What a callback returns. An error is logged and closes the callback's connection; the worker
/// lives on.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The user's code. Every method runs in a worker process, one at a time; it may block, leak or
/// crash.
///
/// One value is made in each new worker, by the closure given to
/// [`Server::run`](crate::Server::run): what it holds is that worker's own, and is gone when the
/// worker is.
///
/// # Panics
/// A panic in a callback is logged and ends the worker like any other crash; the crash policy
/// ([`OnCrash`](crate::OnCrash)) decides what becomes of the message under way, and the manager
/// starts another worker.
pub trait Handler {
    /// The worker has started and serves nobody yet. In a server that runs already, one that takes
    /// longer than a minute, than the shutdown deadline, and than twice what any worker has taken
    /// so far, is killed and tried again.
    ///
    /// # Errors
    /// An error keeps this worker from starting. While the server starts, that ends the server.
    fn worker_start(&mut self, worker: Worker) -> Outcome {
        let _ = worker;
        Ok(())
    }

    /// A worker that stood by ([`Server::standby`](crate::Server::standby)) takes the seat of one
    /// that has died, before its first callback for a connection. `worker_start` has run already,
    /// when the seat was not known. May take as long as that: one that takes longer is killed.
    ///
    /// # Errors
    /// An error ends this worker, as a crash does.
    fn worker_seated(&mut self, worker: Worker) -> Outcome {
        let _ = worker;
        Ok(())
    }

    /// A client has connected.
    fn connect(&mut self, conn: &mut Conn<'_>) -> Outcome {
        let _ = conn;
        Ok(())
    }

    /// A message has come, as the [`Protocol`](crate::Protocol) cut it: never empty, framing
    /// included. The bytes lie in the memory that the server read them into, and are there
    /// until the callback returns.
    fn receive(&mut self, conn: &mut Conn<'_>, message: &[u8]) -> Outcome;

    /// The connection has ended; it is the last callback for it. What is sent here still reaches a
    /// peer that closed only its writing side.
    fn close(&mut self, conn: &mut Conn<'_>, closed: Closed) -> Outcome {
        let _ = (conn, closed);
        Ok(())
    }

    /// The peer reads too slowly: the output that waits for it passed the high-water mark, and the
    /// server has stopped reading from it.
    fn buffer_full(&mut self, conn: &mut Conn<'_>) -> Outcome {
        let _ = conn;
        Ok(())
    }

    /// After [`buffer_full`](Self::buffer_full): the output that waited has gone, and the server
    /// reads again.
    fn buffer_empty(&mut self, conn: &mut Conn<'_>) -> Outcome {
        let _ = conn;
        Ok(())
    }

    /// The worker is asked to end, after its last message. Not called when it crashes.
    fn worker_stop(&mut self) {}
}

/// Which worker this is.
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

    /// Which worker process of the server it is, from 1: no two have the same.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

/// The connection that a callback is about.
pub struct Conn<'a> {
    pub(crate) id: ConnId,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: usize,
    pub(crate) attempt: u8,
    pub(crate) output: &'a mut dyn Output,
}

impl Conn<'_> {
    /// The connection's name, good for as long as the server runs.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The client's address and port.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Which listener accepted it: the index of the address in the order of
    /// [`Server::listen`](crate::Server::listen).
    pub fn listener(&self) -> usize {
        self.listener
    }

    /// How many workers have begun this callback with this message before and died in it. 0 but
    /// under [`OnCrash::Redeliver`](crate::OnCrash::Redeliver).
    pub fn attempt(&self) -> u8 {
        self.attempt
    }

    /// Sends bytes to this connection. They are taken whole or not at all.
    ///
    /// In process mode nothing leaves before the callback returns (or [`flush`](Self::flush) is
    /// called): a worker that dies in between has sent nothing. In base mode what the socket
    /// takes leaves at once. A connection that is gone takes the bytes and drops them.
    ///
    /// In process mode the bytes are copied, but for those of the message that the callback was
    /// given: any part of it, to any connection of the same reactor, is sent from where it stands.
    ///
    /// # Errors
    /// [`SendError::TooMuch`] when one callback sends more than
    /// [`Server::output_limit`](crate::Server::output_limit).
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.output.send(self.id, bytes)
    }

    /// Closes this connection after what was sent to it: FIN, once the peer has taken everything.
    /// Messages of it that are still on their way to a worker are dropped, and `close` is
    /// called for it.
    pub fn close(&mut self) {
        self.output.close(self.id);
    }

    /// Closes this connection at once with RST. What was not sent yet is dropped, and `close` is
    /// called for it.
    pub fn reset(&mut self) {
        self.output.reset(self.id);
    }

    /// Says whose connection this is: any number that stands for a user, an account, a tenant. With
    /// [`Dispatch::UserId`](crate::Dispatch::UserId) all connections of one user are one worker's,
    /// from the next message on. Counts when the callback returns. In base mode a connection stays
    /// where it was accepted, and this does nothing.
    pub fn bind(&mut self, user: u64) {
        self.output.bind(self.id, user);
    }

    /// Lets what this callback has sent so far leave now. From here on its message can't be run
    /// again: if the worker dies in this callback, the connection is closed whatever the crash
    /// policy, but for [`OnCrash::Keep`](crate::OnCrash::Keep). Base mode has nothing to wait for.
    pub fn flush(&mut self) {
        self.output.flush();
    }

    /// Sends bytes to any connection of the server, as [`send`](Self::send) does. There is no order
    /// between what callbacks of different connections send to the same one.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`SendError::Elsewhere`] in base mode for a connection of
    /// another worker.
    pub fn send_to(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        self.output.send(conn, bytes)
    }

    /// Closes any connection of the server, as [`close`](Self::close) does. In base mode only this
    /// worker's own.
    pub fn close_other(&mut self, conn: ConnId) {
        self.output.close(conn);
    }

    /// Closes any connection of the server at once, as [`reset`](Self::reset) does. In base mode
    /// only this worker's own.
    pub fn reset_other(&mut self, conn: ConnId) {
        self.output.reset(conn);
    }

    /// Does what only a broken worker does.
    #[cfg(feature = "test-hooks")]
    #[doc(hidden)]
    pub fn forge(&mut self, forgery: &crate::testing::Forgery) {
        self.output.forge(forgery);
    }

    /// What the server is doing, as seen from this worker.
    pub fn stats(&self) -> Stats {
        self.output.stats()
    }
}

impl fmt::Debug for Conn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Why bytes could not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// One callback may send so many bytes.
    TooMuch {
        /// The limit, in bytes.
        limit: usize,
    },
    /// In base mode a connection belongs to one worker, and this is not the one.
    Elsewhere,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::TooMuch { limit } => {
                write!(
                    f,
                    "one callback may send {limit} bytes: raise output_limit, or flush in between"
                )
            }
            SendError::Elsewhere => {
                write!(
                    f,
                    "the connection is another worker's, out of reach in base mode"
                )
            }
        }
    }
}

impl std::error::Error for SendError {}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Closed {
    /// Who ended it.
    pub reason: CloseReason,
    /// The close deadline passed before a worker was free for this callback: the server has closed
    /// the socket already.
    pub late: bool,
    /// A worker has begun this callback before, and died in it.
    pub again: bool,
}

/// Who ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer sent FIN.
    Peer,
    /// The connection broke: the peer sent RST, or the network gave up.
    Broken,
    /// A callback closed or reset it.
    Handler,
    /// The server is shutting down.
    Shutdown,
    /// The peer took its output too slowly.
    SlowReader,
    /// The peer's bytes are no message.
    Refused,
    /// A worker died in one of its callbacks.
    Crash,
}

impl CloseReason {
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_code(code: u8) -> Option<CloseReason> {
        const ALL: [CloseReason; 7] = [
            CloseReason::Peer,
            CloseReason::Broken,
            CloseReason::Handler,
            CloseReason::Shutdown,
            CloseReason::SlowReader,
            CloseReason::Refused,
            CloseReason::Crash,
        ];
        ALL.get(usize::from(code)).copied()
    }
}

/// Figures of the running server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The worker that asks.
    pub worker: Worker,
    /// Callbacks that this worker process has finished.
    pub callbacks: u64,
    /// Connections open now: of the whole server in process mode, of this worker in base mode.
    pub connections: u64,
    /// Connections accepted since the start, counted likewise.
    pub accepted: u64,
    /// Callbacks that have killed as many workers as they may
    /// ([`OnCrash::Redeliver`](crate::OnCrash::Redeliver)). 0 in base mode.
    pub poisoned: u64,
}

/// Where a callback's output goes; one implementation for each mode.
pub(crate) trait Output {
    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), SendError>;
    fn close(&mut self, conn: ConnId);
    fn reset(&mut self, conn: ConnId);
    fn bind(&mut self, conn: ConnId, user: u64);
    fn flush(&mut self);
    fn stats(&self) -> Stats;
    #[cfg(feature = "test-hooks")]
    fn forge(&mut self, _: &crate::testing::Forgery) {}
}

#[cfg(test)]
mod tests {
    use super::CloseReason;

    #[test]
    fn every_close_reason_survives_its_code() {
        let mut code = 0;
        while let Some(reason) = CloseReason::from_code(code) {
            assert_eq!(reason.code(), code);
            code += 1;
        }
        assert_eq!(code, CloseReason::Crash.code() + 1);
    }
}
