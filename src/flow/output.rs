//! Output: committed bytes go straight to the sockets; bytes that a socket does not take are kept, within
//! the limits of the connection and of the process.

use crate::limited::{Topic, limited};
use std::collections::BinaryHeap;
use std::os::fd::AsFd;

use super::Flow;
use super::files::Written;
use crate::config::{MOST_FILES, PAUSE};
use crate::conn_id::ConnId;
use crate::handler::{CloseReason, Timer};
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::Output;
use crate::net::connection::{Connection, Input, Level, Wait};
use crate::net::groups::Publication;
use crate::sys::socket;

/// The most unsent bytes that one event writes, before other connections have their turn; the last chunk may go beyond.
const MOST_WRITTEN: usize = 64 << 10;

/// With more unsent files, reading pauses as at the high-water mark.
const HIGH_FILES: usize = MOST_FILES / 4;

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
            Output::Join(id) => self.join(id, bytes),
            Output::Leave(id) => self.leave(id, bytes),
            // In base mode. In process mode the reactors put it into one order first.
            Output::Publish(publish) => {
                self.deliver(&Publication::copy_of(publish, bytes).for_members(0));
            }
            Output::SetServerTimer(timer) => self.set_server_timer(timer),
            Output::CancelServerTimer(tag) => self.cancel_server_timer(tag),
            // Handled by the link or the reactor: commit records, parts of a message, which the link has
            // turned into `Send`, files, and server calls.
            Output::Flush
            | Output::Done(_)
            | Output::Failed(_)
            | Output::SendReceived(..)
            | Output::File(..)
            | Output::Ask(_)
            | Output::Aside
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
        if let Some(sent) = self.send_now(id, bytes, true)
            && sent < bytes.len()
        {
            self.keep_unsent(id, bytes.skip(sent));
        }
    }

    /// Sends as many bytes as the socket takes now, and returns their number. `None` if the connection takes no output
    /// any more. An answer may be one that was promised.
    pub(super) fn send_now(
        &mut self,
        id: ConnId,
        bytes: SharedBytes<'_>,
        is_answer: bool,
    ) -> Option<usize> {
        let now = self.pace.now();
        let conn = self.table.get_mut(id).filter(|conn| conn.takes_output())?;
        conn.pulse.speak(now);
        if is_answer && conn.work.awaits_answer && !bytes.is_empty() {
            self.end_promise(id);
            return self.send_now(id, bytes, is_answer);
        }
        if conn.writing.unsent.is_empty()
            && !conn.is_paused
            && let Some(socket) = &conn.socket
        {
            if conn.rare.layer().is_some() {
                return self.send_sealed(id, bytes);
            }
            match bytes.send(socket.as_fd()) {
                Ok(Some(n)) => {
                    conn.writing.written += n as u64;
                    return Some(n);
                }
                Ok(None) => {}
                Err(error) if socket::is_shortage(&error) => self.pause(id, &error),
                Err(error) => {
                    self.broken(id, &error);
                    return None;
                }
            }
        }
        Some(0)
    }

    pub(super) fn keep_unsent(&mut self, id: ConnId, rest: SharedBytes<'_>) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.writing.unsent.push(rest);
            self.budget.take(rest.len());
        }
        self.unsent_has_grown(id);
    }

    /// More output of a connection is unsent: looks at its limits.
    pub(super) fn unsent_has_grown(&mut self, id: ConnId) {
        let (high_water, limit) = (self.config.output_high_water, self.config.output_limit);
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let (unsent, files) = (conn.writing.unsent.len(), conn.writing.unsent.files());
        let is_high = conn.writing.unsent.total() > high_water as u64 || files > HIGH_FILES;
        // A connection that is no longer read needs no back-pressure.
        if is_high && conn.reading.input == Input::Open {
            conn.writing.level = Level::High;
        }
        self.table.touch(id);
        self.begin_stall(id);
        if unsent > limit {
            let lost = self.reset(id, CloseReason::SlowReader);
            limited!(
                warn,
                Topic::SlowReader,
                "connection {id} is reset: {unsent} bytes are unsent, output_limit is {limit}; {lost} bytes of output are lost"
            );
        } else if files > MOST_FILES {
            let lost = self.reset(id, CloseReason::SlowReader);
            limited!(
                warn,
                Topic::SlowReader,
                "connection {id} is reset: {files} files are unsent; {lost} bytes of output are lost"
            );
        } else if self.budget.is_exceeded() {
            self.enforce_budget();
        }
    }

    /// The socket has room again: sends unsent bytes.
    pub(super) fn write_unsent(&mut self, id: ConnId) {
        self.with_out(|flow, out| flow.write_through(id, out));
    }

    fn write_through(&mut self, id: ConnId, out: &mut Vec<u8>) {
        let conn = self.table.get_mut(id).filter(|conn| !conn.is_paused);
        let Some((mut sink, unsent)) = conn.and_then(|conn| conn.sink(out)) else {
            return;
        };
        let (mut sent, mut failed) = (0, None);
        // What was published is in chunks of its own, which may be short.
        while sent < MOST_WRITTEN && !unsent.is_empty() {
            let written = match unsent.front() {
                _ if !unsent.sealed().is_empty() => match sink.write_kept(unsent) {
                    Ok((n, is_all)) => {
                        self.budget.give_back(n);
                        Written::of(n, is_all)
                    }
                    Err(error) => Written::Broken(error),
                },
                [] => self.files.write((id, &mut sink), unsent),
                front => {
                    let len = front.len();
                    match sink.write(front) {
                        Ok(Some(n)) => {
                            self.budget.give_back(unsent.sent(n));
                            let is_kept = sink.settle(unsent);
                            Written::of(n, !is_kept && (n == len || sink.is_sealed()))
                        }
                        Ok(None) => Written::Last,
                        Err(error) => Written::Broken(error),
                    }
                }
            };
            match written {
                Written::Some(n) => sent += n,
                Written::Last => break,
                Written::Broken(_) | Written::Unreadable(_) => {
                    failed = Some(written);
                    break;
                }
            }
        }
        let (to_kernel, kept) = (sink.written, sink.kept);
        self.budget.take(kept);
        self.has_sent(id, to_kernel);
        match failed {
            Some(Written::Broken(error)) => self.write_failed(id, &error),
            Some(Written::Unreadable(error)) => self.cut_off_file(id, &error),
            Some(Written::Some(_) | Written::Last) | None => {}
        }
    }

    /// The socket has taken so many bytes of what was unsent.
    pub(super) fn has_sent(&mut self, id: ConnId, sent: u64) {
        let (low_water, now) = (self.config.output_high_water / 2, self.pace.now());
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let is_awaited = conn.writing.unsent.is_awaited();
        if sent > 0 {
            let writing = &mut conn.writing;
            writing.written += sent;
            // For the peer, the output begins now.
            conn.pulse.sent = now;
            let unsent = &writing.unsent;
            if unsent.total() <= low_water as u64 && unsent.files() <= HIGH_FILES / 2 {
                writing.level = Level::Low;
            }
        }
        if sent > 0 || is_awaited {
            self.table.touch(id);
        }
    }

    /// A write to the socket has failed.
    pub(super) fn write_failed(&mut self, id: ConnId, error: &std::io::Error) {
        match socket::is_shortage(error) {
            true => self.pause(id, error),
            false => self.broken(id, error),
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
        // Members that share most are side by side, so that those of one group free what they share.
        let rank = |conn: &Connection| {
            let shared_with = conn.writing.unsent.shared_with();
            (conn.weight(), shared_with, conn.id)
        };
        let mut held: BinaryHeap<_> = self.table.iter().map(rank).collect();
        while self.budget.is_exceeded() {
            let Some((held, _, id)) = held.pop().filter(|(held, ..)| *held > 0) else {
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
