//! The errors of a callback's calls.

use std::fmt;

#[cfg(doc)]
use super::Conn;

/// Why a call on a connection was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The callback has sent more than the limit.
    #[non_exhaustive]
    OverLimit {
        /// The limit, in bytes: [`Server::output_limit`](crate::Server::output_limit).
        limit: usize,
    },
    /// In base mode a connection is with one worker at a time, and this is another one; or it came from another
    /// one, and is gone.
    OtherWorker,
    /// A state, a post, a task, a reply, the name of a group or what is published is longer than it can be.
    #[non_exhaustive]
    TooLong {
        /// The most bytes: [`Conn::MOST_STATE`], [`Conn::MOST_REPLY`],
        /// [`Context::MOST_POST`](super::Context::MOST_POST), [`Context::MOST_TASK`](super::Context::MOST_TASK),
        /// [`Context::MOST_NAME`](super::Context::MOST_NAME), [`Context::MOST_PUBLISH`](super::Context::MOST_PUBLISH).
        most: usize,
    },
    /// A connection is in as many groups as it can be.
    #[non_exhaustive]
    TooManyGroups {
        /// The most groups: [`Conn::MOST_GROUPS`].
        most: usize,
    },
    /// What is to be sent is not a regular file that is open for reading, without O_DIRECT.
    NotAFile,
    /// The file has not all bytes of the range.
    #[non_exhaustive]
    BadRange {
        /// The length of the file, in bytes.
        len: u64,
    },
    /// As many files are being sent as may be.
    #[non_exhaustive]
    TooManyFiles {
        /// The most files: of one commit, 16; of the server, in base mode of the worker, what its limit of open files
        /// leaves beside its connections, and at most one for each connection.
        most: usize,
    },
    /// This process has no free descriptor for the file.
    NoDescriptor,
    /// The master has not answered a question in time.
    NoAnswer,
    /// No worker has this seat.
    #[non_exhaustive]
    NoSeat {
        /// The number of seats, which are counted from 0.
        seats: usize,
    },
    /// The server keeps as much for its users as it may.
    #[non_exhaustive]
    Full {
        /// The most bytes, a share of [`Server::memory_budget`](crate::Server::memory_budget).
        most: usize,
    },
    /// As many tasks wait or run as may, or as many bytes of them.
    #[non_exhaustive]
    QueueFull {
        /// The most tasks: [`Server::task_queue`](crate::Server::task_queue).
        tasks: usize,
        /// The most bytes: [`Server::task_queue_bytes`](crate::Server::task_queue_bytes).
        bytes: usize,
    },
    /// The server has no [task workers](crate::Server::task_workers); in base mode it can't have any.
    NoTaskWorkers,
    /// The callback's own connection takes no more output: the callback has closed it, or is its `close` for a
    /// reason that leaves nothing to send on ([`CloseReason`](super::CloseReason)).
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::OverLimit { limit } => write!(
                f,
                "one callback may send at most {limit} bytes: raise output_limit, or flush in between"
            ),
            SendError::OtherWorker => f.write_str(
                "the connection belongs to another worker, which cannot be reached in base mode: use process mode"
            ),
            SendError::TooLong { most } => write!(
                f,
                "it has at most {most} bytes: keep more in a database, and its key here"
            ),
            SendError::TooManyGroups { most } => {
                write!(
                    f,
                    "a connection is in at most {most} groups: leave one first"
                )
            }
            SendError::NotAFile => f.write_str(
                "only a regular file that is open for reading can be sent, without O_DIRECT",
            ),
            SendError::BadRange { len } => {
                write!(
                    f,
                    "the range does not lie within the file, which has {len} bytes"
                )
            }
            SendError::TooManyFiles { most } => write!(
                f,
                "{most} files are being sent already: flush in between, or raise the limit of open files"
            ),
            SendError::NoDescriptor => f.write_str(
                "this worker has no free descriptor for the file: close some, or raise the limit of open files",
            ),
            SendError::NoAnswer => f.write_str(
                "the master has not answered in time: it is busy, or was stopped"
            ),
            SendError::NoSeat { seats } => {
                write!(f, "no worker has this seat: there are {seats}, from 0")
            }
            SendError::Full { most } => write!(
                f,
                "the server keeps {most} bytes of states, timers, promises, groups, posts and results already: raise memory_budget, or keep less"
            ),
            SendError::QueueFull { tasks, bytes } => write!(
                f,
                "the queue of tasks is full, with {tasks} tasks or {bytes} bytes of them: raise task_queue and \
                 task_queue_bytes, or the number of task workers"
            ),
            SendError::NoTaskWorkers => f.write_str(
                "no worker runs tasks: set task_workers, which needs process mode"
            ),
            SendError::Closed => f.write_str(
                "the connection is closed, and takes no more output: send before closing it"
            ),
        }
    }
}

impl std::error::Error for SendError {}
