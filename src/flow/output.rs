//! Output: what callbacks send goes straight to the sockets, and what a socket does not take is kept
//! within the limits of its connection and of this process.

use std::os::fd::AsFd;

use super::Flow;
use crate::conn_id::ConnId;
use crate::handler::CloseReason;
use crate::ipc::frame::Output;
use crate::ipc::memory::SharedBytes;
use crate::net::connection::{Input, Level, Wait};
use crate::sys::socket;

impl Flow {
    /// Carries out what a callback asked for.
    pub(crate) fn apply(&mut self, output: Output, bytes: SharedBytes<'_>) {
        match output {
            Output::Send(id) => self.send(id, bytes),
            Output::Close(id) => self.close(id, CloseReason::Handler),
            Output::Reset(id) => self.reset(id, CloseReason::Handler),
            Output::SetUser(id, user) => self.set_user(id, user),
            // The link or the reactor has acted on it: commit records, parts of a message, of which the
            // link has made a `Send`, and calls of the server.
            Output::Flush
            | Output::Done(_)
            | Output::Failed(_)
            | Output::SendReceived(..)
            | Output::CallServer(_) => {}
        }
    }

    /// Notes the connection's user. It may belong to another seat now.
    fn set_user(&mut self, id: ConnId, user: u64) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        conn.work.user = Some(user);
        if conn.work.wait == Wait::Room {
            self.wait_is_over(id);
        }
    }

    /// Sends: straight to the socket, and what it does not take is kept.
    fn send(&mut self, id: ConnId, bytes: SharedBytes<'_>) {
        let Some(conn) = self.table.get_mut(id).filter(|conn| conn.is_open()) else {
            return;
        };
        let mut rest = bytes;
        if conn.writing.unsent.is_empty()
            && let Some(socket) = &conn.socket
        {
            match rest.send(socket.as_fd()) {
                Ok(Some(n)) => {
                    rest = rest.skip(n);
                    conn.writing.progress = true;
                }
                Ok(None) => {}
                Err(error) => return self.broken(id, &error),
            }
        }
        if !rest.is_empty() {
            self.keep_unsent(id, rest);
        }
    }

    fn keep_unsent(&mut self, id: ConnId, rest: SharedBytes<'_>) {
        let (high_water, limit) = (self.config.output_high_water, self.config.output_limit);
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        conn.writing.unsent.push(rest);
        let unsent = conn.writing.unsent.len();
        // What is not read any more needs no holding back.
        if unsent > high_water && conn.reading.input == Input::Open {
            conn.writing.level = Level::High;
        }
        self.budget.take(rest.len());
        self.table.touch(id);
        if unsent > limit {
            log::warn!(
                "connection {id}: {unsent} bytes unsent are over output_limit ({limit}): closed"
            );
            self.reset(id, CloseReason::SlowReader);
        } else if self.budget.is_exceeded() {
            self.relieve();
        }
    }

    /// The socket has room again: what is unsent goes on.
    pub(super) fn write_unsent(&mut self, id: ConnId) {
        let low_water = self.config.output_high_water / 2;
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let Some(socket) = &conn.socket else { return };
        let writing = &mut conn.writing;
        match socket::write(socket.as_fd(), writing.unsent.front()) {
            Ok(Some(n)) => {
                writing.unsent.sent(n);
                writing.progress = true;
                if writing.unsent.len() <= low_water {
                    writing.level = Level::Low;
                }
                self.budget.give_back(n);
                self.table.touch(id);
            }
            Ok(None) => {}
            Err(error) => self.broken(id, &error),
        }
    }

    /// The budget of this process is exceeded: the connection that holds most of it goes.
    pub(super) fn relieve(&mut self) {
        while self.budget.is_exceeded() {
            let largest = self.table.iter().map(|conn| (conn.held(), conn.id)).max();
            let Some((held, id)) = largest.filter(|(held, _)| *held > 0) else {
                return;
            };
            log::warn!(
                "memory_budget is exceeded: connection {id}, which holds {held} bytes of it, is closed"
            );
            self.reset(id, CloseReason::SlowReader);
        }
    }
}
