//! The manager's handle of a worker process: the pid to signal and to wait for, and the pipe of its
//! notes. Everything else about a worker is in the [`roster`](super::roster).

use super::passage::Passage;
use super::watchdog::Watch;
use crate::control::NoteSet;
use crate::sys::pipe::{Received, Receiver, Sender};
use crate::sys::process::ProcessId;

/// The most bytes that a pipe holds.
const PIPE_CAPACITY: usize = 65_536;

/// One process, until it is reaped.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) pid: ProcessId,
    /// The pipe of its notes, until end-of-file.
    pub(super) notes: Option<Receiver>,
    /// The way of connections from and to it, in base mode.
    pub(super) passage: Option<Passage>,
    /// Tells the worker by end-of-file that the manager is dead. Nothing is sent.
    _lifeline: Sender,
    /// The watchdog's record of its current callback.
    pub(super) watch: Option<Watch>,
}

impl Handle {
    pub(super) fn new(
        pid: ProcessId,
        notes: Receiver,
        lifeline: Sender,
        passage: Option<Passage>,
    ) -> Handle {
        Handle {
            pid,
            passage,
            notes: Some(notes),
            _lifeline: lifeline,
            watch: None,
        }
    }

    /// Reads a bounded number of notes: a worker that floods its pipe does not keep the manager from the
    /// others. Returns the notes, and whether the pipe is at its end.
    pub(super) fn read_notes(&mut self) -> (NoteSet, bool) {
        self.read_into(&mut [0; 256])
    }

    /// Reads the notes that the process has left in its pipe. One read takes all that a pipe holds,
    /// pipe(7).
    pub(super) fn read_last_notes(&mut self) -> NoteSet {
        self.read_into(&mut vec![0; PIPE_CAPACITY]).0
    }

    fn read_into(&mut self, bytes: &mut [u8]) -> (NoteSet, bool) {
        match self.notes.as_mut().map(|pipe| pipe.receive(bytes)) {
            Some(Ok(Received::Bytes(n))) => (NoteSet::from_bytes(&bytes[..n]), false),
            Some(Ok(Received::Nothing)) | None => (NoteSet::EMPTY, false),
            // Its process is about to be reaped; the rest happens then.
            Some(Ok(Received::End) | Err(_)) => (NoteSet::EMPTY, true),
        }
    }
}
