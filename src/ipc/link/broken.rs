//! How a worker breaks the ring's protocol.

use std::fmt;

use crate::conn_id::ConnId;
use crate::ipc::files::FileLie;
use crate::ipc::record::{BadFrame, Part};
use crate::ipc::ring::BadMark;

/// How a worker broke the ring's protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Broken {
    Mark(BadMark),
    Frame(BadFrame),
    /// Fewer bytes are published than a header has.
    Torn(u64),
    Done {
        position: u64,
        expected: Option<u64>,
    },
    /// A part that the message under way does not have, or that is for another reactor, or where no
    /// message is under way.
    Part {
        part: Part,
        message: Option<u32>,
    },
    /// A flush with no frame under way.
    Flush,
    /// Output of a callback in a commit of posts that are of none.
    Aside,
    /// A state, a timer or the like for a connection whose frame is not under way.
    OtherConnection(ConnId),
    /// One more group for a connection that is in as many as it can be, or a group for what is no connection.
    Groups(ConnId),
    /// A commit made the server keep more for users than twice of what a worker may ask for.
    Kept(usize),
    /// A result where no task is under way.
    Finish,
    /// A task in a server without task workers.
    NoTasks,
    /// A commit made more tasks wait than all workers together may queue if each looks at the limit.
    Tasks(u64),
    /// A file that was not sent as it must be, or that is none.
    File(FileLie),
    /// More output in one commit than the budget allows.
    OverBudget(usize),
}

impl From<BadMark> for Broken {
    fn from(mark: BadMark) -> Broken {
        Broken::Mark(mark)
    }
}

impl From<BadFrame> for Broken {
    fn from(frame: BadFrame) -> Broken {
        Broken::Frame(frame)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Mark(mark) => mark.fmt(f),
            Broken::Frame(frame) => frame.fmt(f),
            Broken::Torn(len) => write!(f, "{len} bytes are no frame"),
            Broken::Done {
                position,
                expected: Some(expected),
            } => {
                write!(
                    f,
                    "position {position} is done where {expected} is under way"
                )
            }
            Broken::Done {
                position,
                expected: None,
            } => write!(f, "position {position} is done where nothing is under way"),
            Broken::Part {
                part: Part { offset, len },
                message: Some(message),
            } => {
                write!(
                    f,
                    "{len} bytes from {offset} on of a message of {message} bytes, or for another reactor"
                )
            }
            Broken::Part { message: None, .. } => {
                write!(f, "bytes of a message where none is under way")
            }
            Broken::Flush => write!(f, "a flush where nothing is under way"),
            Broken::Aside => write!(f, "output other than posts outside of a callback"),
            Broken::OtherConnection(conn) => {
                write!(
                    f,
                    "a record of connection {conn}, whose callback is not under way"
                )
            }
            Broken::Groups(conn) => {
                write!(f, "more groups for connection {conn} than it can be in")
            }
            Broken::Kept(most) => write!(
                f,
                "a commit that made states, timers, groups and posts count more than {most} bytes"
            ),
            Broken::Finish => write!(f, "the result of a task where none is under way"),
            Broken::NoTasks => write!(f, "a task where there are no task workers"),
            Broken::Tasks(most) => write!(
                f,
                "a commit that made more than {most} tasks wait, or as many bytes of them"
            ),
            Broken::File(lie) => lie.fmt(f),
            Broken::OverBudget(budget) => write!(
                f,
                "the output of one callback counts more than {budget} bytes"
            ),
        }
    }
}
