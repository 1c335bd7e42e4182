//! The results of an experiment: plain data from which text, JSON, pictures and pages are made.

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
    /// The question that a reader brings to this lesson.
    pub(crate) question: &'static str,
    pub(crate) steps: Vec<Step>,
    /// Remedies, a paragraph each.
    pub(crate) advice: Vec<String>,
    pub(crate) pictures: Vec<Picture>,
    /// Whether every claim held.
    pub(crate) held: bool,
    #[serde(rename = "took_s", serialize_with = "as_seconds")]
    pub(crate) took: Duration,
}

/// One action, and its findings.
#[derive(Clone, Default, Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) did: String,
    /// In the order in which they were made.
    pub(crate) findings: Vec<Finding>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finding {
    /// A command that was run, in a form that the reader can run too.
    Command(String),
    /// A line that a program has printed.
    Printed(String),
    /// The experiment's sockets.
    Sockets(Vec<Row>),
    /// A claim, and whether it held.
    Check(Check),
    /// The explanation of the findings before, a paragraph.
    Meaning(String),
}

/// A line of the socket table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) state: State,
    pub(crate) recv_q: u32,
    pub(crate) send_q: u32,
    pub(crate) local: SocketAddr,
    /// All zero for a listener.
    pub(crate) remote: SocketAddr,
    /// Role and pid, such as `master[4711]`; empty when no process holds the socket.
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
    /// A figure of a claim that held; the state that was found instead, of one that did not.
    pub(crate) seen: Option<String>,
}
