//! The users, states and groups of the connections whose frames one link brings, in the worker of process mode.
//!
//! A frame that follows another one of its connection carries neither: it finds what the callbacks before it have
//! left here. Its one rule: an entry is kept while a frame that needs it may come, and not for long after that, so
//! that a worker which is never idle does not collect them.

use std::collections::HashMap;

use crate::conn_id::ConnId;
use crate::handler::Session;
use crate::ipc::carried::Carried;
use crate::ipc::frame::Input;
use crate::ipc::link::WorkerLink;

/// The entries of one link.
#[derive(Default)]
pub(super) struct Sessions {
    /// Those of frames since the last change of generations.
    young: HashMap<ConnId, Session>,
    /// Those of frames before it. Each goes when no frame can need it any more.
    old: HashMap<ConnId, Session>,
    /// What the old ones wait for.
    until: Option<Until>,
    /// For the next new entry.
    spare: Session,
}

/// The steps after which no frame needs an entry that has not been used since.
#[derive(Clone, Copy)]
enum Until {
    /// The reactor has read the output of all frames up to this mark: a frame that it submits from then on carries
    /// everything, or follows a later one.
    Read(u64),
    /// This worker has taken all frames that were published by then.
    Taken(u64),
}

impl Sessions {
    /// Returns what the callback of a frame finds.
    pub(super) fn take(&mut self, input: &Input, carried: Carried<'_>) -> Session {
        let mut known = match self.is_empty() {
            true => None,
            false => self
                .young
                .remove(&input.conn)
                .or(self.old.remove(&input.conn)),
        };
        if let (Some(session), true) = (&known, input.follows) {
            debug_assert!(!session.has_changes(), "they were committed");
        } else {
            known
                .get_or_insert_with(|| std::mem::take(&mut self.spare))
                .fill(carried.user, carried.state, carried.groups, carried.origin);
        }
        known.unwrap_or_default()
    }

    /// Keeps what the callback has left, for frames that follow. Nothing of a connection that has nothing.
    pub(super) fn keep(&mut self, conn: ConnId, session: Session) {
        if session.is_empty() {
            self.spare = session;
        } else {
            self.young.insert(conn, session);
        }
    }

    /// After the last frame of a connection, or one whose callback has failed: frames that come carry everything.
    pub(super) fn forget(&mut self, session: Session) {
        self.spare = session;
    }

    fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// Drops the entries that no frame can need any more.
    pub(super) fn sweep(&mut self, link: &WorkerLink) {
        if self.is_empty() {
            self.until = None;
            return;
        }
        let marks = link.marks();
        match self.until {
            Some(Until::Read(mark)) if marks.read >= mark => {
                self.until = Some(Until::Taken(marks.published));
            }
            Some(Until::Taken(mark)) if marks.taken >= mark => {
                self.old.clear();
                self.until = None;
            }
            Some(_) => {}
            None => {
                self.old = std::mem::take(&mut self.young);
                self.until = Some(Until::Read(marks.written));
            }
        }
    }
}
