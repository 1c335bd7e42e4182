//! The formats in which a program is asked, and answers.

use super::event::Event;
use super::exchange::Step;
use super::{frames, json, lines};

/// How events and answers are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Lines,
    Frames,
    Json,
}

/// What a program has said in its answer.
pub(super) enum Said<'a> {
    Send(&'a [u8]),
    Close,
}

impl Format {
    /// Returns its name, which the program finds in its environment.
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Lines => "lines",
            Format::Frames => "frames",
            Format::Json => "json",
        }
    }

    /// Writes an event into `head`. Returns the bytes that follow it as they are.
    pub(super) fn ask<'a>(self, event: &Event<'a>, head: &mut Vec<u8>) -> &'a [u8] {
        match self {
            Format::Lines => lines::ask(event, head),
            Format::Frames => frames::ask(event, head),
            Format::Json => json::ask(event, head),
        }
    }

    /// Reads a record of an answer from the beginning of `bytes`, of which the first `seen` are no record.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn answer(
        self,
        bytes: &[u8],
        seen: usize,
        said: &mut dyn FnMut(Said<'_>) -> Result<(), String>,
    ) -> Result<Step, String> {
        match self {
            Format::Lines => lines::answer(bytes, seen, said),
            Format::Frames => frames::answer(bytes, said),
            Format::Json => json::answer(bytes, seen, said),
        }
    }
}
