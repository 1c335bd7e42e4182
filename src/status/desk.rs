//! Where a process of the server answers: in the master's main thread and in the manager.
//!
//! Its one rule: it waits for nobody, and reads nothing that a visitor sends. It is to be watched like a
//! bell, which rings once for each visitor: when descriptors have run out, one who can't be let in must not
//! keep the process awake.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::{Packet, name_of};
use crate::sys::local::{LocalListener, LocalSocket};

/// How many visitors are seen to at a time: as many as may wait.
const AT_A_TIME: usize = LocalListener::BACKLOG + 1;

pub(crate) struct Desk(LocalListener);

/// Somebody who has asked and may know. It hears the end when the last copy of this is dropped.
#[derive(Clone)]
pub(crate) struct Visitor(Arc<LocalSocket>);

impl Desk {
    /// `None` if that can't be; the server does without it.
    pub(crate) fn open() -> Option<Desk> {
        let name = name_of(std::process::id() as i32);
        match LocalListener::bind(&name) {
            Ok(listener) => Some(Desk(listener)),
            Err(error) => {
                log::warn!(
                    "`tine doctor` can't ask this process, @{name} is not to be had: {error}"
                );
                None
            }
        }
    }

    /// Who has come since. Who is of another user is sent away without an answer, but root.
    pub(crate) fn visitors(&self) -> Vec<Visitor> {
        let mut visitors = Vec::new();
        for _ in 0..AT_A_TIME {
            match self.0.accept() {
                Ok(Some(socket)) => visitors.push(socket),
                Ok(None) => break,
                Err(error) => {
                    log::debug!("somebody wanted to know the status: {error}");
                    break;
                }
            }
        }
        let own = nix::unistd::geteuid().as_raw();
        visitors.retain(|visitor| {
            visitor
                .peer()
                .is_ok_and(|peer| [0, own].contains(&peer.uid))
        });
        visitors
            .into_iter()
            .map(|it| Visitor(Arc::new(it)))
            .collect()
    }
}

impl AsFd for Desk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Visitor {
    /// One who does not take it now does not get it.
    pub(crate) fn tell(&self, packet: &Packet) {
        let told = serde_json::to_vec(packet)
            .map_err(std::io::Error::from)
            .and_then(|bytes| self.0.send(&bytes));
        if let Err(error) = told {
            log::debug!("somebody who wanted to know the status did not take it: {error}");
        }
    }
}
