//! The kernel's TCP sockets, of all programs, as `ss` shows them; no privilege is needed.
//!
//! This file describes a socket; [`table`] asks the kernel, [`answer`] reads its answer, [`owners`] finds
//! the processes that hold a socket, [`counters`] reads the kernel's counters and settings.

mod answer;
pub(crate) mod counters;
pub(crate) mod owners;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use netlink_packet_sock_diag::inet::SocketId;
use serde::Serialize;

pub(crate) use self::table::SocketTable;

/// The states of RFC 9293, section 3.3.2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    Listen,
    SynSent,
    SynRecv,
    Established,
    #[serde(rename = "FIN_WAIT1")]
    FinWait1,
    #[serde(rename = "FIN_WAIT2")]
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    /// A socket without a connection: it was reset, or never connected.
    Close,
}

impl State {
    pub(crate) const ALL: [State; 11] = [
        State::Listen,
        State::SynSent,
        State::SynRecv,
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::Closing,
        State::LastAck,
        State::TimeWait,
        State::Close,
    ];

    /// Reads the numbers of `include/net/tcp_states.h`.
    fn from_number(number: u8) -> Option<State> {
        Some(match number {
            1 => State::Established,
            2 => State::SynSent,
            // 12 is TCP_NEW_SYN_RECV, the same state before the kernel has made a socket for it.
            3 | 12 => State::SynRecv,
            4 => State::FinWait1,
            5 => State::FinWait2,
            6 => State::TimeWait,
            7 => State::Close,
            8 => State::CloseWait,
            9 => State::LastAck,
            10 => State::Listen,
            11 => State::Closing,
            _ => return None,
        })
    }

    /// Returns the name that people know the state by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Listen => "LISTEN",
            State::SynSent => "SYN_SENT",
            State::SynRecv => "SYN_RECV",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN_WAIT1",
            State::FinWait2 => "FIN_WAIT2",
            State::CloseWait => "CLOSE_WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST_ACK",
            State::TimeWait => "TIME_WAIT",
            State::Close => "CLOSE",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One end of a connection, or a listener.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    pub(crate) state: State,
    pub(crate) local: SocketAddr,
    /// All zero for a listener.
    pub(crate) remote: SocketAddr,
    /// Bytes that the process has not read, where the peer's FIN counts as one; for a listener, the
    /// connections that wait to be accepted.
    pub(crate) recv_q: u32,
    /// Bytes that the peer has not acknowledged; for a listener, the maximum of `recv_q`, less one.
    pub(crate) send_q: u32,
    pub(crate) uid: u32,
    /// 0 when no process holds the socket: in TIME_WAIT, or closed by its process.
    pub(crate) inode: u64,
    pub(crate) timer: Option<Timer>,
    pub(crate) quiet: Option<Quiet>,
    id: SocketId,
}

/// The timer after which the kernel acts on the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Timer {
    pub(crate) kind: TimerKind,
    #[serde(rename = "left_s", serialize_with = "as_seconds")]
    pub(crate) left: Duration,
    /// Number of times that the kernel has sent the same segment again.
    pub(crate) retransmits: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TimerKind {
    Retransmit,
    Keepalive,
    /// The end of TIME_WAIT, or of a FIN_WAIT2 that no process holds.
    End,
    Probe,
}

/// Times since segments last came and went, from `TCP_INFO`; the age of the connection, if none has. The kernel does not record when a state began, but
/// these bound the age of CLOSE_WAIT: see [`Socket::close_wait_age`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Quiet {
    /// Since data arrived.
    pub(crate) data_received: Duration,
    /// Since any segment arrived in order.
    pub(crate) segment_received: Duration,
    /// Since this side sent data.
    pub(crate) data_sent: Duration,
}

impl Socket {
    pub(crate) fn is_listener(&self) -> bool {
        self.state == State::Listen
    }

    /// Returns both addresses, the local one first.
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.local, self.remote)
    }

    /// Returns the bytes that arrived and were not read, without the FIN of a peer that has closed.
    pub(crate) fn unread(&self) -> u32 {
        match self.state {
            State::CloseWait | State::LastAck | State::Closing => self.recv_q.saturating_sub(1),
            _ => self.recv_q,
        }
    }

    /// Whether the process has not read up to the peer's FIN, and so does not know yet that the peer has
    /// closed.
    pub(crate) fn has_unread_end(&self) -> bool {
        self.state == State::CloseWait && self.recv_q > 0
    }

    /// Returns the minimum time that the socket has been in CLOSE_WAIT. Only acknowledgements arrive after
    /// a FIN, so the FIN is at least as old as the last segment.
    ///
    /// The age is exact (to the kernel's tick) while this side sends nothing. Data and keepalive probes
    /// that it sends are acknowledged, and each acknowledgement restarts this age. The peer's probes do not
    /// restart it, nor its close() after a shutdown(), nor the end of its FIN_WAIT2. A FIN that was lost
    /// and sent again counts from its arrival.
    pub(crate) fn close_wait_age(&self) -> Option<Duration> {
        let quiet = self.quiet.filter(|_| self.state == State::CloseWait)?;
        Some(quiet.segment_received)
    }

    /// Returns the maximum time that the socket has been in CLOSE_WAIT: no data arrives after a FIN. For a
    /// connection that never received data, it is the age of the connection.
    pub(crate) fn close_wait_age_at_most(&self) -> Option<Duration> {
        let quiet = self.quiet.filter(|_| self.state == State::CloseWait)?;
        Some(quiet.data_received)
    }

    /// Whether the peer has closed its window: it does not read, and this side may not send.
    pub(crate) fn has_closed_window(&self) -> bool {
        self.timer
            .is_some_and(|timer| timer.kind == TimerKind::Probe)
    }

    /// Returns the time for which an established connection has been without a byte in either direction, if no
    /// timer of the kernel would notice that its peer is gone.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        let is_unwatched = self.state == State::Established && self.timer.is_none();
        let quiet = self.quiet.filter(|_| is_unwatched)?;
        let received = quiet.data_received.min(quiet.segment_received);
        Some(received.min(quiet.data_sent))
    }

    /// Returns the kernel's cookie of the socket: no other socket has had it since the machine started.
    pub(crate) fn cookie(&self) -> u64 {
        u64::from_ne_bytes(self.id.cookie)
    }
}

/// Writes a time as seconds.
pub(crate) fn as_seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}
