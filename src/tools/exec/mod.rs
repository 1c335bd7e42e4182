//! `tine serve --exec`: each worker hands its messages to a program that it has started, and the program's output is
//! the answer.
//!
//! It runs in the workers. Its one rule: a program that does not do its part, in whatever way, is a dead worker. The
//! worker says why in one line and ends, so that deaths have one set of rules, those of the server.

mod command;
mod event;
mod exchange;
mod format;
mod frames;
mod json;
mod lines;
mod program;
mod relay;
mod watch;

use std::io;
use std::time::Duration;

pub(crate) use self::command::Command;
pub(crate) use self::event::Kind;
pub(crate) use self::format::Format;
use self::relay::Relay;

/// What `--exec` and its companions say.
#[derive(Clone)]
pub(crate) struct Exec {
    pub(crate) command: Command,
    pub(crate) format: Format,
    /// The events that the program is told of beside messages.
    pub(crate) events: Vec<Kind>,
    /// The longest line or frame of the program.
    pub(crate) longest: usize,
    /// How long the program may take to leave when its worker stops; as long again after SIGTERM.
    pub(crate) patience: Duration,
    /// Names this run of the server: connections have the same ids in each.
    pub(crate) run: String,
}

impl Exec {
    /// Starts the program, and returns the handler of a worker.
    ///
    /// # Errors
    /// The program does not start.
    pub(crate) fn start(&self) -> io::Result<Relay> {
        Relay::start(self)
    }
}
