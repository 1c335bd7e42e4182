//! Open: an accepted connection gets its id, its place in the table, and its worker.

use super::deliver::Deliver;
use super::{Flow, Next};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::net::acceptor::Accepted;
use crate::net::connection::Step;

impl Flow {
    /// Takes over an accepted connection, which is counted as this owner's already.
    pub(crate) fn adopt(&mut self, workers: &mut impl Deliver, accepted: Accepted) {
        let Accepted {
            socket,
            peer,
            listener,
        } = accepted;
        let now = self.now();
        match self.table.add(socket, peer, listener) {
            Ok(conn) => {
                let id = conn.id;
                conn.since = now;
                workers.opened(conn);
                self.begin_silence(id);
                if self.is_draining {
                    self.drain_one(id);
                }
            }
            Err(error) => self.refuse((peer, listener), &error),
        }
    }

    /// Submits `connect`, before any other event of the connection.
    pub(super) fn submit_connect(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        match self.table.get_mut(id) {
            Some(conn) if conn.work.connect == Step::Due => {
                self.submit_event(workers, id, Event::Connect)
            }
            Some(_) | None => Next::Continue(()),
        }
    }
}
