//! `tine doctor`: finds and explains the faults of any TCP server's connections on this machine.
//!
//! Runs in a process of its own, as the user that started it. Its one rule: it looks at processes and
//! sockets and changes none, except in [`reap`], which the user asks for.
//!
//! An [`examination::Examination`] looks at the kernel's table again and again; its result is a
//! [`report::Report`], plain data. The [`verdict`] is a pure function of the report, and [`text`], JSON
//! and the terminal [`screen`] show both.

mod departed;
pub(crate) mod examination;
mod holder;
mod measure;
mod queues;
pub(crate) mod reap;
pub(crate) mod report;
pub(crate) mod scope;
mod screen;
mod sort;
pub(crate) mod text;
pub(crate) mod unclosed;
mod verdict;
pub(crate) mod watch;
mod words;

use std::fmt;
use std::io;

/// Why nothing could be examined: one line with the failure, its cause, and the way out.
#[derive(Debug)]
pub(crate) struct Problem(pub(crate) String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    Problem(Problem),
    /// The result could not be written.
    Output(io::Error),
    /// Connections were destroyed, and the list of them could not be written: a summary, and the cause.
    Unsaid(String, io::Error),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::Problem(problem)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}
