//! The kernel's TCP sockets, as `ss` sees them: any program's, without privilege.
//!
//! This file says what a socket is; [`table`] asks the kernel, [`answer`] reads what it says.
//! [`owners`] finds the processes that hold it, [`counters`] reads what the kernel counts of all.

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

/// The states of RFC 9293, section 3.3.2, and the kernel's own for a connection that it has not
/// made a socket of yet.
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
    /// The kernel knows the socket, and no connection: it was reset, or never bound.
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

    /// By the numbers of `include/net/tcp_states.h`.
    fn from_number(number: u8) -> Option<State> {
        Some(match number {
            1 => State::Established,
            2 => State::SynSent,
            // 12 is TCP_NEW_SYN_RECV, which is the same to anybody outside.
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

    /// The name that people know it by.
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
    /// Bytes that the process has not read, and the peer's FIN counts as one; of a listener, the
    /// connections that wait to be accepted.
    pub(crate) recv_q: u32,
    /// Bytes that the peer has not acknowledged; of a listener, how many may wait, less one.
    pub(crate) send_q: u32,
    pub(crate) uid: u32,
    /// 0 when no process holds it: TIME_WAIT, or closed by its process.
    pub(crate) inode: u64,
    /// How long until the kernel acts by itself.
    pub(crate) timer: Option<Timer>,
    pub(crate) quiet: Option<Quiet>,
    id: SocketId,
}

/// What the kernel waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Timer {
    pub(crate) kind: TimerKind,
    #[serde(rename = "left_s", serialize_with = "as_seconds")]
    pub(crate) left: Duration,
    /// How often it has sent the same again.
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

/// How long nothing has come, by `TCP_INFO`. The kernel keeps no time for a state, but these bound
/// one: see [`Socket::close_wait_age`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Quiet {
    /// Since data came.
    pub(crate) data_received: Duration,
    /// Since any segment came that was in order.
    pub(crate) segment_received: Duration,
}

impl Socket {
    pub(crate) fn is_listener(&self) -> bool {
        self.state == State::Listen
    }

    /// Both addresses, the local one first.
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.local, self.remote)
    }

    /// Bytes that came and were not read; of a socket that its peer has closed, without the FIN.
    pub(crate) fn unread(&self) -> u32 {
        match self.state {
            State::CloseWait | State::LastAck | State::Closing => self.recv_q.saturating_sub(1),
            _ => self.recv_q,
        }
    }

    /// Whether the process has still to find out that the peer has closed: it has not read up to the
    /// FIN.
    pub(crate) fn has_unread_end(&self) -> bool {
        self.state == State::CloseWait && self.recv_q > 0
    }

    /// For how long it is in CLOSE_WAIT, at least: nothing comes after a FIN except acknowledgements,
    /// so that the FIN is as old as the last segment, or older.
    ///
    /// It is exact (to the kernel's tick) while this side sends nothing. What it sends is
    /// acknowledged, and starts this age anew: data, and its own keepalive probes. The peer's probes do
    /// not, nor its close() after a shutdown(), nor the end of its FIN_WAIT2. A FIN that was lost counts
    /// from when it came at last.
    pub(crate) fn close_wait_age(&self) -> Option<Duration> {
        let quiet = self.quiet.filter(|_| self.state == State::CloseWait)?;
        Some(quiet.segment_received)
    }

    /// For how long it is in CLOSE_WAIT, at most: no data comes after a FIN. Where none ever came, it
    /// is the age of the connection.
    pub(crate) fn close_wait_age_at_most(&self) -> Option<Duration> {
        let quiet = self.quiet.filter(|_| self.state == State::CloseWait)?;
        Some(quiet.data_received)
    }

    /// A number that no other socket has or had since the machine was started.
    pub(crate) fn cookie(&self) -> u64 {
        u64::from_ne_bytes(self.id.cookie)
    }
}

/// Times are seconds in JSON.
pub(crate) fn as_seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}
