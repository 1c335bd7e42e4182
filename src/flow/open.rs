//! Open: a connection that was accepted gets its name, its place in the table, and its worker.

use super::deliver::Deliver;
use super::{Flow, Next};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::net::acceptor::Accepted;
use crate::net::connection::Step;

impl Flow {
    /// Takes over a connection that was counted as this owner's.
    pub(crate) fn adopt(&mut self, workers: &mut impl Deliver, accepted: Accepted) {
        let Accepted {
            socket,
            peer,
            listener,
        } = accepted;
        match self.table.add(socket, peer, listener) {
            Ok(conn) => workers.opened(conn),
            Err(error) => {
                log::error!("cannot watch a connection from {peer}: {error}");
                self.load.socket_closed();
                self.load.leave();
            }
        }
    }

    /// The worker learns of it before it gets anything else.
    pub(super) fn submit_connect(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        match self.table.get_mut(id) {
            Some(conn) if conn.work.connect == Step::Due => {
                self.submit_event(workers, id, Event::Connect)
            }
            Some(_) | None => Next::Continue(()),
        }
    }
}
