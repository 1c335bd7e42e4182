//! Output: committed bytes go straight to the sockets; bytes that a socket does not take are kept, within
//! the limits of the connection and of the process.

use crate::limited::{Topic, limited};
use std::os::fd::AsFd;

use super::Flow;
use crate::config::PAUSE;
use crate::conn_id::ConnId;
use crate::handler::{CloseReason, Timer};
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::Output;
use crate::net::connection::{Input, Level, Wait};
use crate::sys::socket;

impl Flow {
    /// Applies a committed output.
    pub(crate) fn apply(&mut self, output: Output, bytes: SharedBytes<'_>) {
        match output {
            Output::Send(id) => self.send(id, bytes),
            Output::Close(id) => self.close(id, CloseReason::Handler),
            Output::Reset(id) => {
                self.reset(id, CloseReason::Handler);
            }
            Output::SetUser(id, user) => self.set_user(id, user),
            Output::SetState(id) => self.set_state(id, bytes),
            Output::SetTimer(id, Timer { after, tag }) => self.set_timer(id, after, tag),
            Output::CancelTimer(id, tag) => self.cancel_timer(id, tag),
            Output::NotifyDrained(id) => self.notify_drained(id),
            Output::Hold(id) => self.hold(id),
            Output::Unhold(id) => self.unhold(id),
            Output::Promise(id, within) => self.promise(id, within, bytes),
            Output::Post(to) => self.deliver_post(to, bytes),
            Output::Task(order) => self.queue_task(order, bytes),
            Output::Finish(id) => self.set_result(id, bytes),
            // Handled by the link or the reactor: commit records, parts of a message, which the link has
            // turned into `Send`, and server calls.
            Output::Flush
            | Output::Done(_)
            | Output::Failed(_)
            | Output::SendReceived(..)
            | Output::CallServer(_) => {}
        }
    }

    /// Sets the connection's user. It may belong to another seat now.
    fn set_user(&mut self, id: ConnId, user: u64) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if conn.work.user() == Some(user) {
            return;
        }
        conn.work.set_user(Some(user));
        if conn.work.wait == Wait::Room {
            self.wait_is_over(id);
        }
    }

    /// Sets the connection's state.
    fn set_state(&mut self, id: ConnId, bytes: SharedBytes<'_>) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        self.kept -= conn.work.state_len();
        conn.work.set_state(|state| bytes.append_to(state));
        self.kept += bytes.len();
    }

    fn notify_drained(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.work.is_drain_due = true;
            self.table.touch(id);
        }
    }

    /// Stops reading from the connection, for a while.
    fn hold(&mut self, id: ConnId) {
        let now = self.look_at_clock();
        if let Some(conn) = self.table.get_mut(id).filter(|conn| conn.is_open()) {
            conn.reading.is_held = true;
            self.holds.set(id, now);
            self.table.touch(id);
        }
    }

    /// Reads from the connection again.
    pub(super) fn unhold(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id)
            && std::mem::take(&mut conn.reading.is_held)
        {
            self.holds.remove(id);
            self.table.touch(id);
        }
    }

    /// Sends bytes straight to the socket, and keeps those that it does not take.
    pub(super) fn send(&mut self, id: ConnId, bytes: SharedBytes<'_>) {
        let now = self.pace.now();
        let Some(conn) = self.table.get_mut(id).filter(|conn| conn.is_open()) else {
            return;
        };
        conn.pulse.speak(now);
        if conn.work.awaits_answer {
            self.end_promise(id);
            return self.send(id, bytes);
        }
        let mut rest = bytes;
        if conn.writing.unsent.is_empty()
            && !conn.is_paused
            && let Some(socket) = &conn.socket
        {
            match rest.send(socket.as_fd()) {
                Ok(Some(n)) => {
                    rest = rest.skip(n);
                    conn.writing.written += n as u64;
                }
                Ok(None) => {}
                Err(error) if socket::is_shortage(&error) => self.pause(id, &error),
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
        // A connection that is no longer read needs no back-pressure.
        if unsent > high_water && conn.reading.input == Input::Open {
            conn.writing.level = Level::High;
        }
        self.budget.take(rest.len());
        self.table.touch(id);
        self.begin_stall(id);
        if unsent > limit {
            let lost = self.reset(id, CloseReason::SlowReader);
            limited!(
                warn,
                Topic::SlowReader,
                "connection {id} is reset: {unsent} bytes are unsent, output_limit is {limit}; {lost} bytes of output are lost"
            );
        } else if self.budget.is_exceeded() {
            self.enforce_budget();
        }
    }

    /// The socket has room again: sends unsent bytes.
    pub(super) fn write_unsent(&mut self, id: ConnId) {
        let (low_water, now) = (self.config.output_high_water / 2, self.pace.now());
        let Some(conn) = self.table.get_mut(id).filter(|conn| !conn.is_paused) else {
            return;
        };
        let Some(socket) = &conn.socket else { return };
        let writing = &mut conn.writing;
        match socket::write(socket.as_fd(), writing.unsent.front()) {
            Ok(Some(n)) => {
                writing.unsent.sent(n);
                writing.written += n as u64;
                // For the peer, the output begins now.
                conn.pulse.sent = now;
                if writing.unsent.len() <= low_water {
                    writing.level = Level::Low;
                }
                self.budget.give_back(n);
                self.table.touch(id);
            }
            Ok(None) => {}
            Err(error) if socket::is_shortage(&error) => self.pause(id, &error),
            Err(error) => self.broken(id, &error),
        }
    }

    /// The kernel has no memory for the socket now. That is no end of the connection: its next call comes after
    /// a pause.
    pub(super) fn pause(&mut self, id: ConnId, error: &std::io::Error) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        conn.is_paused = true;
        limited!(
            warn,
            Topic::Memory,
            "connection {id} from {} waits: the kernel has no memory for its socket ({error}); next try in {PAUSE:?}",
            conn.peer
        );
        let now = self.look_at_clock();
        self.pauses.set(id, now);
        self.table.touch(id);
    }

    /// A pause is over.
    pub(super) fn go_on(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.is_paused = false;
            self.table.touch(id);
        }
    }

    /// Resets the connections that hold most, until the memory budget is kept.
    pub(super) fn enforce_budget(&mut self) {
        while self.budget.is_exceeded() {
            let largest = self.table.iter().map(|conn| (conn.held(), conn.id)).max();
            let Some((held, id)) = largest.filter(|(held, _)| *held > 0) else {
                return;
            };
            let lost = self.reset(id, CloseReason::SlowReader);
            limited!(
                warn,
                Topic::SlowReader,
                "connection {id} is reset: memory_budget is exceeded, and it holds the most ({held} bytes); {lost} bytes of output are lost"
            );
        }
    }
}
