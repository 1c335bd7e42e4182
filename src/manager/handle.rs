//! A worker process as its parent holds it: the pid to signal and to wait for, and the pipe of its
//! notes. Everything else that is known of it is in the [`roster`](super::roster).

use super::watchdog::Watch;
use crate::control::NoteSet;
use crate::sys::pipe::{Received, Receiver};
use crate::sys::process::ProcessId;

/// One process, until it is reaped.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) pid: ProcessId,
    /// The pipe of its notes, until its end.
    pub(super) notes: Option<Receiver>,
    /// What the watchdog knows of the callback that it is in.
    pub(super) watch: Option<Watch>,
}

impl Handle {
    pub(super) fn new(pid: ProcessId, notes: Receiver) -> Handle {
        Handle {
            pid,
            notes: Some(notes),
            watch: None,
        }
    }

    /// Reads a bounded part of what it has written: a worker that floods its pipe keeps the manager
    /// from no other. Returns the notes in there, and whether the pipe has come to its end.
    pub(super) fn hear(&mut self) -> (NoteSet, bool) {
        let mut bytes = [0; 256];
        match self.notes.as_mut().map(|pipe| pipe.receive(&mut bytes)) {
            Some(Ok(Received::Bytes(n))) => (NoteSet::from_bytes(&bytes[..n]), false),
            Some(Ok(Received::Nothing)) | None => (NoteSet::EMPTY, false),
            // Its process is about to be reaped, and is dealt with then.
            Some(Ok(Received::End) | Err(_)) => (NoteSet::EMPTY, true),
        }
    }
}
