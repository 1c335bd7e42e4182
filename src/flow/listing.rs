//! The connections of one owner, listed for a callback, and counted for a status answer.
//!
//! Its one rule: a call looks at a bounded part of the table, so that nobody waits for the rest.

use std::time::Duration;

use super::Flow;
use crate::conn_id::ConnId;
use crate::handler::ConnInfo;
use crate::net::connection::Connection;
#[cfg(feature = "status")]
use crate::net::ended::Deadline;

/// The most places of the table that one call looks at.
const MOST_PLACES: usize = 1024;

impl Flow {
    /// Whether a connection is in the table.
    pub(crate) fn exists(&self, id: ConnId) -> bool {
        let is_known = |conn: &Connection| !conn.is_opening();
        !id.is_mailbox() && self.conn(id).is_some_and(is_known)
    }

    /// Calls `each` for connections from this place of the table on, `most` of them at most. Returns the place at
    /// which the next call goes on; `None` behind the last one.
    pub(crate) fn list(
        &self,
        from: usize,
        most: usize,
        mut each: impl FnMut(ConnInfo),
    ) -> Option<usize> {
        let end = self.table.places().min(from.saturating_add(MOST_PLACES));
        let mut listed = 0;
        for place in from..end {
            if listed == most {
                return Some(place);
            }
            if let Some(conn) = self.table.at(place).filter(|conn| !conn.is_opening()) {
                each(self.info(conn));
                listed += 1;
            }
        }
        (end < self.table.places()).then_some(end)
    }

    fn info(&self, conn: &Connection) -> ConnInfo {
        ConnInfo {
            id: conn.public,
            peer: conn.peer,
            listener: conn.listener,
            user: conn.work.user(),
            age: Duration::from_millis(self.now().saturating_sub(conn.since)),
            unsent: conn.writing.unsent.len(),
        }
    }

    /// Returns the numbers of connections that were ended. Those that were refused are counted by the first
    /// owner, for all.
    #[cfg(feature = "status")]
    pub(crate) fn ended(&self) -> crate::status::Ended {
        let at = |deadline| self.ended.at(deadline);
        let [refused, denied, hurried] = match self.owner() {
            0 => self.load.refused(),
            _ => [0; 3],
        };
        crate::status::Ended {
            open: at(Deadline::Open),
            message: at(Deadline::Message),
            idle: at(Deadline::Idle),
            write: at(Deadline::Write),
            queue: at(Deadline::Queue),
            answer: at(Deadline::Answer),
            refused,
            denied,
            hurried,
        }
    }
}
