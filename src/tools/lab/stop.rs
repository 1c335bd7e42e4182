//! The reasons why an experiment stops early.

use std::fmt;
use std::io;

#[derive(Debug)]
pub(crate) enum Stop {
    /// A claim did not hold; the lesson's last check says which.
    Differs,
    /// A signal asked the program to end.
    Interrupted,
    /// An operation that the experiment needs failed or was refused: which, and why.
    Cannot(String),
    /// The output can't be written.
    Output(io::Error),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Differs => f.write_str("the kernel did not behave as the lesson says"),
            Stop::Interrupted => f.write_str("interrupted"),
            Stop::Cannot(why) => f.write_str(why),
            Stop::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

/// Adds the operation to an error.
pub(crate) trait Trying<T> {
    /// Makes errors such as "cannot connect to the server: timed out".
    fn trying(self, what: &str) -> Result<T, Stop>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, what: &str) -> Result<T, Stop> {
        self.map_err(|error| Stop::Cannot(format!("cannot {what}: {error}")))
    }
}
