//! A handler without a server: its callbacks run in the calling process, and return their commits.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::commit::{Action, Commit, TestOutput};
use super::conn::{Stage, TestConn};
use crate::config::policy::{Deciders, OnCrash};
use crate::config::{Config, ListenerId, Settings};
use crate::conn_id::{ConnId, MAX_KEYS};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::handler::{CloseReason, ConnInfo, Handler, Post, Posts, Session, Stats, To, Worker};
use crate::ipc::frame::Input;
use crate::peer::Peer;
use crate::worker::callback::{Frame, is_closed_to, run_callback};

/// Runs the callbacks of a handler in the calling process, as a worker of process mode does, but without
/// sockets, forks and rings: for unit tests of a handler.
///
/// ```
/// use tine::testing::{Action, TestServer};
/// use tine::{Conn, Context, receive_fn};
///
/// fn divide(_: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
///     conn.send(b"100 / ")?;
///     conn.send(line)?;
///     let divisor: i32 = std::str::from_utf8(line)?.trim_end().parse()?;
///     let quotient = 100_i32.checked_div(divisor).ok_or("divided by zero")?;
///     Ok(conn.send(format!("is {quotient}\n").as_bytes())?)
/// }
///
/// let mut server = TestServer::new(receive_fn(divide));
/// let client = server.connect();
/// server.send(client, b"5\n");
/// assert_eq!(server.conn(client).sent(), b"100 / 5\nis 20\n");
///
/// // An error commits nothing, and closes the connection.
/// let commit = server.send(client, b"0\n");
/// assert_eq!(commit.error().unwrap().to_string(), "divided by zero");
/// assert_eq!(commit.actions(), [Action::Close(client)]);
/// assert_eq!(server.conn(client).sent(), b"100 / 5\nis 20\n");
/// ```
#[derive(Debug)]
pub struct TestServer<H> {
    handler: H,
    config: Config,
    conns: BTreeMap<ConnId, TestConn>,
    accepted: u32,
    callbacks: u64,
    /// The tag of the timer, the task or the result of this callback.
    tag: Option<u64>,
    /// What posters have posted.
    posts: Arc<Posts>,
}

impl<H: Handler> TestServer<H> {
    /// Returns a server with default settings, and one worker with this handler.
    pub fn new(handler: H) -> TestServer<H> {
        TestServer::with_settings(Settings::default(), handler).expect("the defaults are valid")
    }

    /// Returns a server with these settings. Only its listeners, crash policy and output limit have an
    /// effect here.
    ///
    /// # Errors
    /// Those of [`Server::run`](crate::Server::run) for an invalid setting.
    pub fn with_settings(settings: Settings, handler: H) -> Result<TestServer<H>, Error> {
        let config = settings.validate(Deciders::default())?;
        Ok(TestServer {
            handler,
            posts: Posts::new(&config, None),
            config,
            conns: BTreeMap::new(),
            accepted: 0,
            callbacks: 0,
            tag: None,
        })
    }

    /// A client connects to the first listener: runs [`Handler::connect`].
    pub fn connect(&mut self) -> ConnId {
        self.connect_to(0)
    }

    /// A client connects to the listener with this index: runs [`Handler::connect`].
    ///
    /// # Panics
    /// If there is no such listener.
    #[track_caller]
    pub fn connect_to(&mut self, listener: usize) -> ConnId {
        let port = 1024 + ((self.accepted + 1) % 60_000) as u16;
        self.connect_from(listener, SocketAddr::from(([192, 0, 2, 1], port)).into())
    }

    /// This client connects to the listener with this index: as [`connect_to`](Self::connect_to).
    #[track_caller]
    pub fn connect_from(&mut self, listener: usize, peer: Peer) -> ConnId {
        assert!(
            listener < self.config.listeners.len(),
            "there is no listener {listener}"
        );
        self.accepted += 1;
        let key = self.accepted;
        let generation = NonZeroU32::new(key).expect("it was just counted up");
        let id = ConnId::new(0, key, generation);
        let conn = TestConn::new(id, peer, ListenerId(listener as u16));
        self.conns.insert(id, conn);
        self.happen(id, Event::Connect, &[]);
        id
    }

    /// A whole message comes: runs [`Handler::receive`] with it. On a closed connection it is dropped.
    ///
    /// # Panics
    /// If this server never had such a connection.
    #[track_caller]
    pub fn send(&mut self, conn: ConnId, message: &[u8]) -> Commit {
        self.happen(conn, Event::Receive, message)
    }

    /// The server stops reading from a connection: runs [`Handler::paused`].
    ///
    /// # Panics
    /// If this server never had such a connection.
    #[track_caller]
    pub fn pause(&mut self, conn: ConnId) -> Commit {
        self.happen(conn, Event::Paused, &[])
    }

    /// The server reads from it again: runs [`Handler::resumed`].
    ///
    /// # Panics
    /// If this server never had such a connection.
    #[track_caller]
    pub fn resume(&mut self, conn: ConnId) -> Commit {
        self.happen(conn, Event::Resumed, &[])
    }

    /// A connection has been idle for long: runs [`Handler::idle`].
    ///
    /// # Panics
    /// If this server never had such a connection.
    #[track_caller]
    pub fn idle(&mut self, conn: ConnId) -> Commit {
        self.happen(conn, Event::Idle, &[])
    }

    /// The timer of a connection with this tag fires: runs [`Handler::timer`]. Without such a timer, nothing runs.
    ///
    /// # Panics
    /// If this server never had such a connection.
    #[track_caller]
    pub fn fire(&mut self, conn: ConnId, tag: u64) -> Commit {
        self.conn(conn);
        let timers = self.conns.get_mut(&conn).map(|conn| &mut conn.timers);
        if timers.and_then(|timers| timers.remove(&tag)).is_none() {
            return Commit::nothing();
        }
        self.tag = Some(tag);
        self.happen(conn, Event::Timer, &[])
    }

    /// The client has taken all output: runs [`Handler::drained`], if a callback has asked for it.
    ///
    /// # Panics
    /// If this server never had such a connection.
    #[track_caller]
    pub fn drain(&mut self, conn: ConnId) -> Commit {
        self.conn(conn);
        let asked = self.conns.get_mut(&conn).map(|conn| &mut conn.is_drain_due);
        match asked.is_some_and(std::mem::take) {
            true => self.happen(conn, Event::Drained, &[]),
            false => Commit::nothing(),
        }
    }

    /// Something is posted to this worker: runs [`Handler::post`].
    pub fn post(&mut self, bytes: &[u8]) -> Commit {
        self.run_for_none(Event::Post, None, bytes)
    }

    /// Waits until a thread has posted by a [`Poster`](crate::Poster) that a callback has made, and returns the
    /// oldest post that was not returned before. [`TestServer::post`] runs the callback.
    pub fn next_posted(&mut self) -> (To, Vec<u8>) {
        let Post { to, bytes } = self.posts.wait();
        (to, bytes.into())
    }

    /// A task worker is given a task, whose result is asked for if it has a tag: runs [`Handler::task`].
    pub fn task(&mut self, tag: Option<u64>, bytes: &[u8]) -> Commit {
        self.run_for_none(Event::Task, tag, bytes)
    }

    /// A task with this tag is done: runs [`Handler::finished`].
    pub fn finished(&mut self, tag: u64, result: &[u8]) -> Commit {
        self.run_for_none(Event::Finished, Some(tag), result)
    }

    /// A timer of the server with this tag fires: runs [`Handler::server_timer`].
    pub fn server_timer(&mut self, tag: u64) -> Commit {
        self.run_for_none(Event::ServerTimer, Some(tag), &[])
    }

    /// Runs a callback of no connection.
    fn run_for_none(&mut self, event: Event, tag: Option<u64>, bytes: &[u8]) -> Commit {
        let id = ConnId::new(0, MAX_KEYS, NonZeroU32::MIN);
        let nobody = TestConn::new(id, SocketAddr::from(([0; 4], 0)).into(), ListenerId(0));
        self.conns.insert(id, nobody);
        self.tag = tag;
        let mut commit = self.run(id, event, bytes);
        self.conns.remove(&id);
        // There is no connection to be closed.
        commit.actions.retain(|action| *action != Action::Close(id));
        self.run_close_callbacks(id, &commit);
        commit
    }

    /// The client closes: runs [`Handler::close`]. For a connection that a callback has closed, it runs
    /// without this.
    ///
    /// # Panics
    /// If this server never had such a connection.
    #[track_caller]
    pub fn close(&mut self, conn: ConnId) -> Commit {
        if self.conn(conn).is_closed() {
            return Commit::nothing();
        }
        self.end(conn, CloseReason::Peer);
        let commit = self.run(conn, Event::Close, &[]);
        self.run_close_callbacks(conn, &commit);
        commit
    }

    /// Returns a connection, open or closed.
    ///
    /// # Panics
    /// If this server never had such a connection.
    #[track_caller]
    pub fn conn(&self, id: ConnId) -> &TestConn {
        match self.conns.get(&id) {
            Some(conn) => conn,
            None => panic!("this server never had a connection {id}"),
        }
    }

    /// Returns the handler.
    pub fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    #[track_caller]
    fn happen(&mut self, conn: ConnId, event: Event, body: &[u8]) -> Commit {
        if self.conn(conn).is_closed() {
            return Commit::nothing();
        }
        let commit = self.run(conn, event, body);
        self.run_close_callbacks(conn, &commit);
        commit
    }

    /// Runs `close` for the connections that a callback of `of` has closed, and for those that these
    /// callbacks close.
    fn run_close_callbacks(&mut self, of: ConnId, commit: &Commit) {
        let mut queue = VecDeque::from(commit.actions.clone());
        while let Some(action) = queue.pop_front() {
            if let Action::Close(id) | Action::Reset(id) = action
                && let Some(conn) = self.conns.get(&id)
                && !conn.is_closed()
            {
                let has_failed = id == of && commit.error.is_some();
                self.end(
                    id,
                    match has_failed {
                        true => CloseReason::Crash,
                        false => CloseReason::Handler,
                    },
                );
                queue.extend(self.run(id, Event::Close, &[]).actions);
            }
        }
    }

    fn end(&mut self, id: ConnId, reason: CloseReason) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.end.get_or_insert(reason);
        }
    }

    /// Runs a callback, more than once if the crash policy says so, and applies its commit.
    fn run(&mut self, id: ConnId, event: Event, body: &[u8]) -> Commit {
        let most = match self.config.on_crash {
            OnCrash::Redeliver { attempts } => attempts,
            OnCrash::Close | OnCrash::Reply(_) | OnCrash::Answer(_) | OnCrash::Keep => 1,
        };
        let mut commit = Commit::nothing();
        for attempt in 0..most {
            commit = self.run_once(id, event, body, attempt);
            let has_flushed = commit.actions.contains(&Action::Flush);
            if commit.error.is_none() || has_flushed {
                break;
            }
        }
        if commit.error.is_some() && event != Event::Close {
            let has_flushed = commit.actions.contains(&Action::Flush);
            let policy = &self.config.on_crash;
            if let (OnCrash::Reply(reply) | OnCrash::Answer(reply), false) = (policy, has_flushed) {
                commit.actions.push(Action::Send(id, reply.clone()));
            }
            let stays = event == Event::Receive && matches!(policy, OnCrash::Answer(_));
            match (has_flushed, stays) {
                (true, _) => commit.actions.push(Action::Reset(id)),
                (false, true) => {}
                (false, false) => commit.actions.push(Action::Close(id)),
            }
        }
        for action in &commit.actions {
            self.apply(action);
        }
        match event {
            Event::Close => self.reach(id, Stage::Gone),
            Event::Receive => self.count_message(id),
            Event::Connect
            | Event::Paused
            | Event::Resumed
            | Event::Idle
            | Event::Timer
            | Event::Drained
            | Event::Post
            | Event::Task
            | Event::Finished
            | Event::ServerTimer => {}
        }
        commit
    }

    fn count_message(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.messages += 1;
        }
    }

    fn run_once(&mut self, id: ConnId, event: Event, body: &[u8], attempt: u8) -> Commit {
        let conn = self.conn(id);
        let input = Input {
            kind: event.into(),
            conn: id,
            peer: conn.peer,
            listener: conn.listener.0,
            attempt,
            detail: match event {
                Event::Task => u8::from(self.tag.is_some()),
                _ => conn.end.unwrap_or(CloseReason::Peer).code(),
            },
            deadline: 0,
            value: match event {
                Event::Timer | Event::Task | Event::Finished | Event::ServerTimer => {
                    self.tag.unwrap_or(0)
                }
                _ => conn.messages,
            },
            follows: false,
            carries: false,
            is_gone: false,
            is_firm: false,
            submitted: 0,
            len: body.len() as u32,
        };
        let mut output = TestOutput {
            actions: Vec::new(),
            committed: 0,
            sent: 0,
            records: 0,
            limit: self.config.output_limit,
            stats: self.stats(),
            sizes: self.sizes(),
            conns: self.infos(),
            current: id,
            is_closed: is_closed_to(event, &input),
            files: 0,
        };
        let frame = Frame {
            event,
            input: &input,
            body,
            worker: Worker::new(Some(0), 1, 1),
            listeners: &self.config.listeners,
        };
        let mut session = Session::default();
        session.fill(conn.user, &conn.state, conn.groups.as_bytes(), &[]);
        let handler = &mut self.handler;
        let run = || run_callback(handler, &frame, &mut session, &mut output);
        let outcome = self.posts.during(run);
        self.callbacks += 1;
        if outcome.is_err() {
            output.actions.truncate(output.committed);
        }
        Commit {
            actions: output.actions,
            error: outcome.err(),
        }
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::Send(id, bytes) | Action::SendFile(id, bytes) => {
                if let Some(conn) = self.conns.get_mut(id).filter(|it| it.stage == Stage::Open) {
                    conn.sent.extend_from_slice(bytes);
                }
            }
            Action::Reset(id) => {
                if let Some(conn) = self.conns.get_mut(id).filter(|it| it.stage != Stage::Gone) {
                    conn.was_reset = true;
                }
                self.reach(*id, Stage::Gone);
            }
            Action::Close(id) => self.reach(*id, Stage::Closing),
            Action::SetUser(id, _)
            | Action::SetState(id, _)
            | Action::SetTimer(id, ..)
            | Action::CancelTimer(id, _)
            | Action::NotifyDrained(id)
            | Action::Join(id, _)
            | Action::Leave(id, _) => {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.assign(action);
                }
            }
            Action::Publish {
                group,
                bytes,
                except,
                is_lossy: _,
            } => {
                for conn in self.conns.values_mut().filter(|it| is_member(it, group)) {
                    if conn.stage == Stage::Open && Some(conn.id) != *except {
                        conn.sent.extend_from_slice(bytes);
                    }
                }
            }
            Action::Post(..)
            | Action::AnswerWithin(..)
            | Action::Task(_)
            | Action::Finish(_)
            | Action::After(..)
            | Action::Every(..)
            | Action::Cancel(_)
            | Action::Pause(_)
            | Action::Resume(_)
            | Action::Flush
            | Action::StopServer
            | Action::ReloadServer => {}
        }
    }

    /// The reason of the end is recorded where `close` runs.
    fn reach(&mut self, id: ConnId, stage: Stage) {
        if let Some(conn) = self.conns.get_mut(&id).filter(|it| it.stage != Stage::Gone) {
            conn.stage = stage;
        }
    }

    fn sizes(&self) -> HashMap<Vec<u8>, usize> {
        let mut sizes = HashMap::new();
        let members = self.conns.values().filter(|it| it.stage != Stage::Gone);
        for name in members.flat_map(TestConn::groups) {
            *sizes.entry(name.to_vec()).or_default() += 1;
        }
        sizes
    }

    fn infos(&self) -> Vec<ConnInfo> {
        let conns = self.conns.values().filter(|conn| conn.stage != Stage::Gone);
        let conns = conns.filter(|conn| !conn.id.is_mailbox());
        conns.map(TestConn::info).collect()
    }

    fn stats(&self) -> Stats {
        let is_open = |conn: &&TestConn| !conn.is_closed() && !conn.id.is_mailbox();
        Stats {
            callbacks: self.callbacks,
            connections: self.conns.values().filter(is_open).count() as u64,
            accepted: u64::from(self.accepted),
            poisoned: 0,
        }
    }
}

fn is_member(conn: &TestConn, group: &[u8]) -> bool {
    conn.groups.contains(group)
}

#[cfg(test)]
mod tests;
