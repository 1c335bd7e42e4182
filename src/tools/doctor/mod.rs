//! `tine doctor`: what is wrong with any TCP server's connections on this machine.
//!
//! Runs in a process of its own, as whoever started it. Its one rule: it looks and touches nothing,
//! neither a process nor a socket, but for [`reap`], which was asked to.
//!
//! An [`examination::Examination`] looks at the kernel's table again and again; what it has found is a
//! [`report::Report`], plain data. The [`verdict`] is a pure function of that, and [`text`], JSON and
//! the terminal [`screen`] show both.

pub(crate) mod examination;
mod holder;
mod measure;
pub(crate) mod owing;
pub(crate) mod reap;
pub(crate) mod report;
pub(crate) mod scope;
mod screen;
mod sort;
pub(crate) mod text;
mod verdict;
pub(crate) mod watch;
mod words;

use std::fmt;
use std::io;

/// Why nothing could be examined: one line that says what, why, and what to do about it.
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
    /// Something was done, and not all of it could be written: what it was, in short.
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
