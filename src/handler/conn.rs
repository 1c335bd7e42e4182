//! A callback's access to connections: its own, and any other.

use std::fmt;
use std::time::Duration;

use super::{Origin, SendError, Session, SharedOutput, Timer};
use crate::config::{ListenerId, MOST_REPLY, MOST_STATE};
use crate::conn_id::ConnId;
use crate::peer::Peer;

/// The connection of a callback.
///
/// ```
/// use tine::{Conn, Context};
///
/// fn receive(_: &mut Context<'_>, conn: &mut Conn<'_>, message: &[u8]) -> tine::Result {
///     match message {
///         b"quit\n" => {
///             conn.send(b"bye\n")?;
///             conn.close();
///         }
///         b"who\n" => conn.send(format!("{} from {}\n", conn.id(), conn.peer()).as_bytes())?,
///         _ => conn.reset(),
///     }
///     Ok(())
/// }
///
/// let mut server = tine::testing::TestServer::new(tine::receive_fn(receive));
/// let client = server.connect();
/// server.send(client, b"quit\n");
/// assert_eq!(server.conn(client).sent(), b"bye\n");
/// assert!(server.conn(client).is_closed());
/// ```
pub struct Conn<'a> {
    pub(crate) id: ConnId,
    pub(crate) peer: Peer,
    pub(crate) listener: ListenerId,
    pub(crate) attempt: u8,
    pub(crate) message_number: Option<u64>,
    pub(crate) session: &'a mut Session,
    pub(crate) output: SharedOutput<'a>,
}

impl Conn<'_> {
    /// Returns the connection's id, valid in every process for as long as the server runs.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Returns the client.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Returns how the connection came: what TLS and the PROXY protocol have told of it.
    pub fn origin(&self) -> Origin<'_> {
        Origin::of(&self.session.origin)
    }

    /// Returns the listener that accepted it. [`Context::listener_name`](super::Context::listener_name)
    /// returns its name.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }

    /// Returns the number of earlier runs of this callback with this message, in which its worker died or
    /// that returned an error. Always 0 except under [`OnCrash::Redeliver`](crate::OnCrash::Redeliver), and
    /// in a `close` that runs a second time.
    pub fn attempt(&self) -> u8 {
        self.attempt
    }

    /// Sends bytes to this connection, all or none. They leave when the callback returns `Ok`, or at a
    /// [`flush`](Self::flush). For a connection that is gone, they are dropped.
    ///
    /// The bytes are copied once. Any part of the callback's own message, sent to any connection of the
    /// same reactor, is not copied at all.
    ///
    /// # Errors
    /// [`SendError::OverLimit`] when one callback sends more than
    /// [`Server::output_limit`](crate::Server::output_limit); [`SendError::Closed`] after
    /// [`close`](Self::close) or [`reset`](Self::reset), and in a `close` callback for most
    /// [reasons](super::CloseReason).
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.output.borrow_mut().send(self.id, bytes)
    }

    /// Closes this connection after its output: with FIN, once the peer has taken all of it. Messages of
    /// it that no callback has begun are dropped, and [`Handler::close`](super::Handler::close) is called
    /// for it.
    pub fn close(&mut self) {
        own(self.output.borrow_mut().close(self.id));
    }

    /// Closes this connection at once with RST. Unsent output is dropped, and
    /// [`Handler::close`](super::Handler::close) is called for it.
    pub fn reset(&mut self) {
        own(self.output.borrow_mut().reset(self.id));
    }

    /// Associates this connection with a user id: any number, such as that of a user, an account, a
    /// tenant. With [`Dispatch::UserId`](crate::Dispatch::UserId) all connections of one user id go to
    /// one worker, from the next message on. In base mode a connection stays with the worker that
    /// accepted it, and this has no effect.
    pub fn set_user(&mut self, user: u64) {
        self.session.set_user(user);
    }

    /// Returns the user id that this callback or an earlier one of this connection has set; `None` if none has.
    pub fn user(&self) -> Option<u64> {
        self.session.user
    }

    /// Returns the connection's state: the bytes that this callback or the last committed one of this connection
    /// has set, in whichever worker that ran. Empty at first.
    pub fn state(&self) -> &[u8] {
        &self.session.state
    }

    /// Sets the connection's state, at most [`MOST_STATE`](Self::MOST_STATE) bytes. It is part of the callback's
    /// output: it is committed with the answer, or not at all. It belongs to the connection and not to this
    /// worker: the next callback of the connection finds it wherever it runs, also after a crash, a reload or a
    /// recycling, until its `close` has run.
    ///
    /// Every frame brings the state to its worker, unless it follows another one of the same connection there: a
    /// short state is the fast one. States, timers, groups and posts may take up to half of
    /// [`Server::memory_budget`](crate::Server::memory_budget).
    ///
    /// # Errors
    /// [`SendError::TooLong`], [`SendError::Full`].
    pub fn set_state(&mut self, state: &[u8]) -> Result<(), SendError> {
        let more = state.len().saturating_sub(self.session.state.len());
        self.output.borrow_mut().claim(self.id, more)?;
        self.session.set_state(state)
    }

    /// The most bytes of a connection's state: 64 KiB.
    pub const MOST_STATE: usize = MOST_STATE;

    /// The most bytes of the reply to [`answer_within`](Self::answer_within).
    pub const MOST_REPLY: usize = MOST_REPLY;

    /// Returns the number of this message on its connection, from 0; `None` in callbacks for other events. It is the
    /// same in every [`attempt`](Self::attempt). With the [`id`](Self::id), which no other connection of this run of
    /// the server has, it tells whether an effect outside of tine was there already: a row with that key in a
    /// database, for example.
    pub fn message_number(&self) -> Option<u64> {
        self.message_number
    }

    /// Sets a timer of this connection: [`Handler::timer`](super::Handler::timer) is called with this tag when the time
    /// has passed, and not earlier, in whichever worker is there by then. A connection has one timer for each tag: the
    /// last call for it counts, also while it waits for its callback. It fires once; to repeat it, set it again in its
    /// callback. Timers end with their connection.
    ///
    /// It is part of the callback's output: it is committed with the answer, or not at all. Its time counts from
    /// then on, in milliseconds, and stands still while the whole server is stopped.
    ///
    /// # Errors
    /// [`SendError::OverLimit`] when the calls of one callback count more than
    /// [`Server::output_limit`](crate::Server::output_limit), 64 bytes each; [`SendError::Full`].
    pub fn after(&mut self, delay: Duration, tag: u64) -> Result<(), SendError> {
        self.output
            .borrow_mut()
            .set_timer(self.id, Timer::new(delay, tag))
    }

    /// Cancels this connection's timer with this tag, if there is one. A callback that is on its way to a worker by
    /// then still runs.
    ///
    /// # Errors
    /// [`SendError::OverLimit`] as [`after`](Self::after).
    pub fn cancel(&mut self, tag: u64) -> Result<(), SendError> {
        self.output.borrow_mut().cancel_timer(self.id, tag)
    }

    /// Asks for one call of [`Handler::drained`](super::Handler::drained), when the socket has taken all output of this
    /// connection; at once if it has. For an answer that is longer than one callback may send.
    ///
    /// # Errors
    /// [`SendError::OverLimit`] as [`after`](Self::after).
    pub fn notify_drained(&mut self) -> Result<(), SendError> {
        self.output.borrow_mut().notify_drained(self.id)
    }

    /// Promises that the answer comes within this time, an hour at most, from a later callback: of a timer, a post, a task,
    /// or another connection. The next output to this connection keeps the promise, whichever callback sends it. If there
    /// is none in time, the connection gets `reply` and is closed, with
    /// [`CloseReason::AnswerDeadline`](super::CloseReason); likewise, with [`CloseReason::Crash`](super::CloseReason), if
    /// a callback of this connection fails meanwhile and the crash policy closes the connection. So a client has its
    /// answer or the reply, whatever happens to the workers, unless a callback closes its connection or the server is
    /// forced to end.
    ///
    /// Whoever answers must be caused by this commit, as a timer, a post or a task of this callback is, or come after a
    /// [`flush`](Self::flush): an output that is committed before the promise does not keep it.
    ///
    /// Until then the next messages of this connection wait in the server, and so does its `close`: answers are in the
    /// order of their messages. Its timers and the other events run. A second call in the same callback or in a later
    /// one replaces the time and the reply. As part of the callback's output, the promise is committed with it; what
    /// this callback has sent before does not keep it.
    ///
    /// # Errors
    /// [`SendError::TooLong`] for a reply of more than [`MOST_REPLY`](Self::MOST_REPLY) bytes; [`SendError::Full`];
    /// [`SendError::OverLimit`] as [`after`](Self::after).
    pub fn answer_within(&mut self, time: Duration, reply: &[u8]) -> Result<(), SendError> {
        self.output
            .borrow_mut()
            .promise(self.id, Timer::new(time, 0).after, reply)
    }

    /// Stops reading from this connection, so that TCP slows its client down: until [`resume`](Self::resume), and for
    /// 60 seconds at most. Messages that were read before still have their callbacks, and the client's end is
    /// noticed meanwhile. As part of the callback's output, it is committed with the answer.
    ///
    /// # Errors
    /// [`SendError::OverLimit`] as [`after`](Self::after).
    pub fn pause(&mut self) -> Result<(), SendError> {
        self.output.borrow_mut().hold(self.id, true)
    }

    /// Reads from this connection again, after [`pause`](Self::pause).
    ///
    /// # Errors
    /// [`SendError::OverLimit`] as [`after`](Self::after).
    pub fn resume(&mut self) -> Result<(), SendError> {
        self.output.borrow_mut().hold(self.id, false)
    }

    /// Commits the output of this callback so far, which leaves now. From here on the callback can't be
    /// run again: if the worker dies in it, or it returns an error, the connection is closed.
    pub fn flush(&mut self) {
        self.stage_session();
        self.output.borrow_mut().flush();
    }

    /// Stages what has changed of the session.
    pub(crate) fn stage_session(&mut self) {
        if let Some(user) = self.session.take_new_user() {
            own(self.output.borrow_mut().set_user(self.id, user));
        }
        if let Some(state) = self.session.take_new_state() {
            own(self.output.borrow_mut().set_state(self.id, state));
        }
    }

    /// Writes to the outbox as only a faulty worker does.
    #[cfg(feature = "test-hooks")]
    #[doc(hidden)]
    pub fn forge(&mut self, forgery: &super::Forgery) {
        self.output.borrow_mut().forge(forgery);
    }
}

/// A callback can reach its own connection in every mode.
fn own(done: Result<(), SendError>) {
    debug_assert!(done.is_ok(), "{done:?}");
}

impl fmt::Debug for Conn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Any connection of the server, by its id: [`Context::conn`](super::Context::conn).
///
/// It is not known here whether the connection still exists: calls for one that is gone have no effect.
/// There is no order between the outputs of callbacks of different connections to the same one.
pub struct ConnRef<'a> {
    pub(crate) id: ConnId,
    pub(crate) output: SharedOutput<'a>,
}

impl ConnRef<'_> {
    /// Returns the connection's id.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Sends bytes to the connection, as [`Conn::send`] does.
    ///
    /// # Errors
    /// [`SendError::OverLimit`] when one callback sends more than
    /// [`Server::output_limit`](crate::Server::output_limit); [`SendError::OtherWorker`] in
    /// base mode for a connection of another worker.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.output.borrow_mut().send(self.id, bytes)
    }

    /// Closes the connection after its output, as [`Conn::close`] does. In process mode, messages of it
    /// that are in a worker's inbox by then still have their callbacks.
    ///
    /// # Errors
    /// [`SendError::OverLimit`] when the calls of one callback on other connections count more than
    /// [`Server::output_limit`](crate::Server::output_limit), 64 bytes each, in process mode;
    /// [`SendError::OtherWorker`] in base mode for a connection of another worker.
    pub fn close(&mut self) -> Result<(), SendError> {
        self.output.borrow_mut().close(self.id)
    }

    /// Closes the connection at once with RST, as [`Conn::reset`] does.
    ///
    /// # Errors
    /// [`SendError::OverLimit`] as [`close`](Self::close);
    /// [`SendError::OtherWorker`] in base mode for a connection of another worker.
    pub fn reset(&mut self) -> Result<(), SendError> {
        self.output.borrow_mut().reset(self.id)
    }

    /// Associates the connection with a user id, as [`Conn::set_user`] does.
    ///
    /// # Errors
    /// [`SendError::OverLimit`] as [`close`](Self::close);
    /// [`SendError::OtherWorker`] in base mode for a connection of another worker.
    pub fn set_user(&mut self, user: u64) -> Result<(), SendError> {
        self.output.borrow_mut().set_user(self.id, user)
    }
}

impl fmt::Debug for ConnRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnRef")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
