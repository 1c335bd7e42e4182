//! What an experiment has found: plain data, that text, JSON, pictures and pages are made from.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::picture::Picture;
use crate::sockets::{Socket, State, Timer, as_seconds};

/// One experiment, run once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Lesson {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What somebody would ask who needs this lesson.
    pub(crate) question: &'static str,
    pub(crate) steps: Vec<Step>,
    /// What to do about it, a paragraph each.
    pub(crate) advice: Vec<String>,
    pub(crate) pictures: Vec<Picture>,
    /// Whether the kernel has shown all that is taught.
    pub(crate) held: bool,
    #[serde(rename = "took_s", serialize_with = "as_seconds")]
    pub(crate) took: Duration,
}

/// One thing that is done, and what is seen then.
#[derive(Clone, Default, Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) did: String,
    /// In the order in which they came about.
    pub(crate) findings: Vec<Finding>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finding {
    /// A command that was run, as a reader can run it.
    Command(String),
    /// A line that a program has printed.
    Printed(String),
    /// The sockets in play.
    Sockets(Vec<Row>),
    /// What is taught, and whether the kernel shows it.
    Check(Check),
    /// What that means, a paragraph.
    Meaning(String),
}

/// A line of the socket table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) state: State,
    pub(crate) recv_q: u32,
    pub(crate) send_q: u32,
    pub(crate) local: SocketAddr,
    /// All zero of a listener.
    pub(crate) remote: SocketAddr,
    /// Role and process, such as `master[4711]`; none where no process holds it any more.
    pub(crate) owners: Vec<String>,
    pub(crate) timer: Option<Timer>,
}

impl Row {
    pub(crate) fn new(socket: &Socket, owners: Vec<String>) -> Row {
        Row {
            state: socket.state,
            recv_q: socket.recv_q,
            send_q: socket.send_q,
            local: socket.local,
            remote: socket.remote,
            owners,
            timer: socket.timer,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) claim: String,
    pub(crate) held: bool,
    /// What was seen instead, where it was not; a figure, where there is one.
    pub(crate) seen: Option<String>,
}
