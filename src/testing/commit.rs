//! The commit of a callback of a [`TestServer`](super::TestServer).

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::config::{FILES_AT_ONCE, MOST_POST, MOST_REPLY, MOST_TASK, Run, ServerTimer, charge};
use crate::conn_id::ConnId;
use crate::handler::{ConnInfo, Group, Output, SendError, ServerCall, Stats, TaskOrder, Timer, To};

/// A committed action of a callback.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Action {
    /// Bytes are sent to a connection.
    Send(ConnId, Vec<u8>),
    /// A part of a file is sent to a connection: these are its bytes at the time of the call.
    SendFile(ConnId, Vec<u8>),
    /// A connection is closed.
    Close(ConnId),
    /// A connection is closed with RST.
    Reset(ConnId),
    /// A connection is associated with a user id.
    SetUser(ConnId, u64),
    /// The state of the callback's connection is set.
    SetState(ConnId, Vec<u8>),
    /// A timer of a connection is set: after this time, with this tag. [`TestServer::fire`](super::TestServer::fire)
    /// runs its callback.
    SetTimer(ConnId, Duration, u64),
    /// The timer of a connection with this tag is cancelled.
    CancelTimer(ConnId, u64),
    /// The server stops reading from a connection.
    Pause(ConnId),
    /// The server reads from a connection again.
    Resume(ConnId),
    /// A connection is to be told when its output is sent. [`TestServer::drain`](super::TestServer::drain) runs its
    /// callback.
    NotifyDrained(ConnId),
    /// The answer of a connection comes within this time from a later callback, or it is these bytes.
    AnswerWithin(ConnId, Duration, Vec<u8>),
    /// Bytes are posted to workers. [`TestServer::post`](super::TestServer::post) runs the callback.
    Post(To, Vec<u8>),
    /// A task is queued. [`TestServer::task`](super::TestServer::task) runs the callback.
    Task(QueuedTask),
    /// The result of the callback's task is set.
    Finish(Vec<u8>),
    /// A connection joins a group.
    Join(ConnId, Vec<u8>),
    /// A connection leaves a group.
    Leave(ConnId, Vec<u8>),
    /// Bytes are published to a group.
    #[non_exhaustive]
    Publish {
        /// The name of the group.
        group: Vec<u8>,
        /// What its members get.
        bytes: Vec<u8>,
        /// The member that is left out.
        except: Option<ConnId>,
        /// Slow members miss it: [`Context::publish_lossy`](crate::Context::publish_lossy).
        is_lossy: bool,
    },
    /// A timer of the server is set, to fire once: after this time, with this tag.
    /// [`TestServer::server_timer`](super::TestServer::server_timer) runs its callback.
    After(Duration, u64, Run),
    /// A timer of the server is set, to fire again and again.
    Every(Duration, u64, Run),
    /// The timer of the server with this tag is cancelled.
    Cancel(u64),
    /// A flush: the actions before it were committed earlier than the rest.
    Flush,
    /// The server is shut down.
    StopServer,
    /// The workers are replaced.
    ReloadServer,
}

/// A task that a callback has queued.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct QueuedTask {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The time until it may run.
    pub delay: Duration,
    /// Its key, if it has one.
    pub key: Option<u64>,
    /// Its tag, if its result is asked for.
    pub tag: Option<u64>,
}

/// The outcome of one callback.
#[derive(Debug)]
pub struct Commit {
    pub(super) actions: Vec<Action>,
    pub(super) error: Option<Box<dyn StdError + Send + Sync>>,
}

impl Commit {
    /// Returns all committed actions, in order. After an error: those flushed before it, and those of the
    /// crash policy.
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// Returns the error of the callback; with the policy `Redeliver`, that of its last attempt.
    pub fn error(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.error.as_deref()
    }
}

impl Commit {
    pub(super) fn nothing() -> Commit {
        Commit {
            actions: Vec::new(),
            error: None,
        }
    }
}

/// The actions of one run of a callback.
pub(super) struct TestOutput {
    pub(super) actions: Vec<Action>,
    /// The number of actions that are flushed.
    pub(super) committed: usize,
    pub(super) sent: usize,
    /// The connection of the callback, and what its calls on others count.
    pub(super) current: ConnId,
    pub(super) records: usize,
    pub(super) limit: usize,
    pub(super) stats: Stats,
    /// The numbers of members of all groups.
    pub(super) sizes: HashMap<Vec<u8>, usize>,
    /// All connections.
    pub(super) conns: Vec<ConnInfo>,
    /// Its connection takes no more output.
    pub(super) is_closed: bool,
    /// How many files it has sent since the last commit.
    pub(super) files: usize,
}

impl TestOutput {
    /// Counts a call on another connection, as a worker of process mode does.
    fn charge_record(&mut self, conn: ConnId) -> Result<(), SendError> {
        if self.current != conn {
            let (charged, limit) = (self.records + charge(0), self.limit);
            if charged > limit {
                return Err(SendError::OverLimit { limit });
            }
            self.records = charged;
        }
        Ok(())
    }
}

impl TestOutput {
    /// Counts a call with bytes that are sent to no client.
    fn charge_bytes(&mut self, len: usize) -> Result<(), SendError> {
        let (charged, limit) = (self.records + charge(len), self.limit);
        if charged > limit {
            return Err(SendError::OverLimit { limit });
        }
        self.records = charged;
        Ok(())
    }
}

impl Output for TestOutput {
    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        if conn == self.current && self.is_closed {
            return Err(SendError::Closed);
        }
        let (charged, limit) = (self.sent + charge(bytes.len()), self.limit);
        if charged > limit {
            return Err(SendError::OverLimit { limit });
        }
        self.sent = charged;
        self.actions.push(Action::Send(conn, bytes.to_vec()));
        Ok(())
    }

    fn send_file(
        &mut self,
        conn: ConnId,
        file: OwnedFd,
        range: Range<u64>,
    ) -> Result<(), SendError> {
        if conn == self.current && self.is_closed {
            return Err(SendError::Closed);
        }
        if self.files >= FILES_AT_ONCE {
            let most = FILES_AT_ONCE;
            return Err(SendError::TooManyFiles { most });
        }
        self.charge_bytes(0)?;
        self.files += 1;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let read = File::from(file).read_exact_at(&mut bytes, range.start);
        read.map_err(|_| SendError::NotAFile)?;
        self.actions.push(Action::SendFile(conn, bytes));
        Ok(())
    }

    fn close(&mut self, conn: ConnId) -> Result<(), SendError> {
        self.charge_record(conn)?;
        self.actions.push(Action::Close(conn));
        self.is_closed |= conn == self.current;
        Ok(())
    }

    fn reset(&mut self, conn: ConnId) -> Result<(), SendError> {
        self.charge_record(conn)?;
        self.actions.push(Action::Reset(conn));
        self.is_closed |= conn == self.current;
        Ok(())
    }

    fn set_user(&mut self, conn: ConnId, user: u64) -> Result<(), SendError> {
        self.charge_record(conn)?;
        self.actions.push(Action::SetUser(conn, user));
        Ok(())
    }

    fn set_state(&mut self, conn: ConnId, state: &[u8]) -> Result<(), SendError> {
        self.actions.push(Action::SetState(conn, state.to_vec()));
        Ok(())
    }

    fn set_timer(&mut self, conn: ConnId, timer: Timer) -> Result<(), SendError> {
        self.charge_record(conn)?;
        let after = Duration::from_millis(timer.after);
        self.actions.push(Action::SetTimer(conn, after, timer.tag));
        Ok(())
    }

    fn cancel_timer(&mut self, conn: ConnId, tag: u64) -> Result<(), SendError> {
        self.charge_record(conn)?;
        self.actions.push(Action::CancelTimer(conn, tag));
        Ok(())
    }

    fn notify_drained(&mut self, conn: ConnId) -> Result<(), SendError> {
        self.charge_record(conn)?;
        self.actions.push(Action::NotifyDrained(conn));
        Ok(())
    }

    fn promise(&mut self, conn: ConnId, within: u64, reply: &[u8]) -> Result<(), SendError> {
        if reply.len() > MOST_REPLY {
            return Err(SendError::TooLong { most: MOST_REPLY });
        }
        self.charge_record(conn)?;
        let time = Duration::from_millis(within);
        self.actions
            .push(Action::AnswerWithin(conn, time, reply.to_vec()));
        Ok(())
    }

    fn hold(&mut self, conn: ConnId, is_held: bool) -> Result<(), SendError> {
        self.charge_record(conn)?;
        self.actions.push(match is_held {
            true => Action::Pause(conn),
            false => Action::Resume(conn),
        });
        Ok(())
    }

    fn post(&mut self, to: To, bytes: &[u8]) -> Result<(), SendError> {
        if bytes.len() > MOST_POST {
            return Err(SendError::TooLong { most: MOST_POST });
        }
        self.charge_bytes(bytes.len())?;
        self.actions.push(Action::Post(to, bytes.to_vec()));
        Ok(())
    }

    fn join(&mut self, conn: ConnId, group: &[u8]) -> Result<(), SendError> {
        self.charge_record(conn)?;
        self.actions.push(Action::Join(conn, group.to_vec()));
        Ok(())
    }

    fn leave(&mut self, conn: ConnId, group: &[u8]) -> Result<(), SendError> {
        self.charge_record(conn)?;
        self.actions.push(Action::Leave(conn, group.to_vec()));
        Ok(())
    }

    fn publish(&mut self, to: Group<'_>, bytes: &[u8]) -> Result<(), SendError> {
        self.charge_bytes(to.name.len() + bytes.len())?;
        self.actions.push(Action::Publish {
            group: to.name.to_vec(),
            bytes: bytes.to_vec(),
            except: to.except,
            is_lossy: to.is_lossy,
        });
        Ok(())
    }

    fn exists(&mut self, conn: ConnId) -> Result<bool, SendError> {
        Ok(self.conns.iter().any(|info| info.id == conn))
    }

    fn connections(&mut self) -> Result<Vec<ConnInfo>, SendError> {
        Ok(self.conns.clone())
    }

    fn group_size(&mut self, group: &[u8]) -> Result<usize, SendError> {
        Ok(self.sizes.get(group).copied().unwrap_or(0))
    }

    /// As if there were task workers.
    fn task(&mut self, order: TaskOrder, bytes: &[u8]) -> Result<(), SendError> {
        if bytes.len() > MOST_TASK {
            return Err(SendError::TooLong { most: MOST_TASK });
        }
        self.charge_bytes(bytes.len())?;
        self.actions.push(Action::Task(QueuedTask {
            bytes: bytes.to_vec(),
            delay: Duration::from_millis(order.delay),
            key: order.key,
            tag: order.tag,
        }));
        Ok(())
    }

    fn finish(&mut self, result: &[u8]) -> Result<(), SendError> {
        if result.len() > MOST_TASK {
            return Err(SendError::TooLong { most: MOST_TASK });
        }
        self.charge_bytes(result.len())?;
        self.actions.push(Action::Finish(result.to_vec()));
        Ok(())
    }

    fn set_server_timer(&mut self, timer: ServerTimer) -> Result<(), SendError> {
        self.charge_bytes(0)?;
        let (time, tag, run) = (Duration::from_millis(timer.time), timer.tag, timer.run);
        self.actions.push(match timer.repeats {
            true => Action::Every(time, tag, run),
            false => Action::After(time, tag, run),
        });
        Ok(())
    }

    fn cancel_server_timer(&mut self, tag: u64) -> Result<(), SendError> {
        self.charge_bytes(0)?;
        self.actions.push(Action::Cancel(tag));
        Ok(())
    }

    /// There is always room in a test.
    fn claim(&mut self, _: ConnId, _: usize) -> Result<(), SendError> {
        Ok(())
    }

    fn call_server(&mut self, call: ServerCall) {
        self.actions.push(match call {
            ServerCall::Stop => Action::StopServer,
            ServerCall::Reload => Action::ReloadServer,
        });
    }

    fn flush(&mut self) {
        self.actions.push(Action::Flush);
        self.committed = self.actions.len();
        (self.sent, self.records, self.files) = (0, 0, 0);
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "failed: {error}"),
            None => write!(f, "{} actions", self.actions.len()),
        }
    }
}
