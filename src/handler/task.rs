//! Tasks: work that callbacks queue for task workers.

use std::fmt;
use std::time::Duration;

use super::{SendError, SharedOutput, Timer};

/// A task to be queued by [`Context::task`](super::Context::task): bytes, and how they are handled.
///
/// ```
/// use std::time::Duration;
/// use tine::testing::{Action, TestServer};
/// use tine::{Conn, Context, NewTask, receive_fn};
///
/// /// Saves the text of each user a second after the last change.
/// fn receive(cx: &mut Context<'_>, conn: &mut Conn<'_>, text: &[u8]) -> tine::Result {
///     let user = conn.user().unwrap_or(0);
///     cx.task(NewTask::new(text).after(Duration::from_secs(1)).key(user))?;
///     Ok(conn.send(b"noted\n")?)
/// }
///
/// let mut server = TestServer::new(receive_fn(receive));
/// let client = server.connect();
/// let commit = server.send(client, b"draft\n");
/// let [Action::Task(task), Action::Send(..)] = commit.actions() else { panic!("{commit:?}") };
/// assert_eq!((&task.bytes[..], task.key), (&b"draft\n"[..], Some(0)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a task is queued by Context::task"]
pub struct NewTask<'a> {
    pub(crate) bytes: &'a [u8],
    delay: Duration,
    key: Option<u64>,
    tag: Option<u64>,
}

impl<'a> NewTask<'a> {
    /// Returns a task of these bytes: to be run as soon as a task worker is free.
    pub fn new(bytes: &'a [u8]) -> NewTask<'a> {
        NewTask {
            bytes,
            delay: Duration::ZERO,
            key: None,
            tag: None,
        }
    }

    /// Runs it when this time has passed since the commit, and not earlier.
    pub fn after(mut self, delay: Duration) -> NewTask<'a> {
        self.delay = delay;
        self
    }

    /// Gives it a key, any number: it replaces a waiting task with the same key, which is then not run. A task that a
    /// worker was given already is not replaced.
    pub fn key(mut self, key: u64) -> NewTask<'a> {
        self.key = Some(key);
        self
    }

    /// Asks for its result: [`Handler::finished`](super::Handler::finished) is called with this tag, any number, in the
    /// worker that has the sender's seat by then.
    pub fn tag(mut self, tag: u64) -> NewTask<'a> {
        self.tag = Some(tag);
        self
    }

    pub(crate) fn order(&self) -> TaskOrder {
        TaskOrder {
            key: self.key,
            tag: self.tag,
            delay: Timer::new(self.delay, 0).after,
            sender: 0,
        }
    }
}

impl<'a> From<&'a [u8]> for NewTask<'a> {
    fn from(bytes: &'a [u8]) -> NewTask<'a> {
        NewTask::new(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for NewTask<'a> {
    fn from(bytes: &'a [u8; N]) -> NewTask<'a> {
        NewTask::new(bytes)
    }
}

/// What a task has beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TaskOrder {
    pub(crate) key: Option<u64>,
    pub(crate) tag: Option<u64>,
    /// The time until it may run, in milliseconds.
    pub(crate) delay: u64,
    /// The seat of the worker that has queued it. Set by the master, which knows.
    pub(crate) sender: u16,
}

/// The task of a [`Handler::task`](super::Handler::task) callback.
pub struct Task<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) tag: Option<u64>,
    pub(crate) output: SharedOutput<'a>,
}

impl Task<'_> {
    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Returns its tag, if its sender has asked for the result.
    pub fn tag(&self) -> Option<u64> {
        self.tag
    }

    /// Sets the result of the task, up to [`Context::MOST_TASK`](super::Context::MOST_TASK) bytes: the last one counts,
    /// and an empty one if there is none. As part of the callback's output, it is committed with the end of the task.
    /// Without a tag, nobody gets it.
    ///
    /// # Errors
    /// [`SendError::TooLong`], [`SendError::Full`]; [`SendError::OverLimit`] as [`Context::post`](super::Context::post).
    pub fn finish(&mut self, result: &[u8]) -> Result<(), SendError> {
        self.output.borrow_mut().finish(result)
    }
}

impl fmt::Debug for Task<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("bytes", &self.bytes.len())
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}
