//! Why an experiment does not go on.

use std::fmt;
use std::io;

#[derive(Debug)]
pub(crate) enum Stop {
    /// The kernel shows something else than is taught; the lesson has it.
    Differs,
    /// A signal asked for it.
    Interrupted,
    /// Something was refused or failed that the experiment needs: what, and why.
    Cannot(String),
    /// Nobody hears it: the output can't be written.
    Unheard(io::Error),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Differs => f.write_str("the kernel shows something else than is taught"),
            Stop::Interrupted => f.write_str("interrupted"),
            Stop::Cannot(why) => f.write_str(why),
            Stop::Unheard(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

/// What was tried when an operation failed.
pub(crate) trait Trying<T> {
    /// As in "cannot connect to the server: timed out".
    fn trying(self, what: &str) -> Result<T, Stop>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, what: &str) -> Result<T, Stop> {
        self.map_err(|error| Stop::Cannot(format!("cannot {what}: {error}")))
    }
}
