//! One end of a TCP connection, as RFC 9293 describes it: a state, and what it does with segments. Without
//! input, output or time. Its one rule: a state changes by a segment that is sent or arrives, by a call, or
//! by a timer, and by nothing else.
//!
//! Where Linux differs from RFC 9293, a comment says so.

use State::{
    CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent, TimeWait,
};

use crate::lab::picture::Segment;
use crate::sockets::State;

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(super) struct Host {
    /// `None`: the kernel has no socket.
    pub(super) state: Option<State>,
    /// A listener accepts the SYNs that arrive while there is no socket.
    pub(super) listens: bool,
    /// No process holds the socket.
    pub(super) is_orphan: bool,
    /// Bytes that have arrived and were not read.
    pub(super) unread: u32,
    /// The next sequence number (SND.NXT).
    next: u32,
    /// The highest acknowledgement number that has arrived (SND.UNA).
    acknowledged: u32,
    /// The sequence number that has to arrive next (RCV.NXT).
    expected: u32,
    /// The acknowledgement number of its own FIN, once that is sent.
    fin: Option<u32>,
}

/// Distance between the sequence numbers of two connections with the same addresses.
const NEXT_LIFE: u32 = 1_000_000;

/// Whether a sequence number is after another one: they wrap (RFC 9293, 3.4).
pub(super) fn is_after(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) > 0
}

impl Host {
    /// Changes the state as a segment leaves.
    ///
    /// # Errors
    /// When no socket in this state sends it.
    pub(super) fn sent(&mut self, it: Segment) -> Result<(), String> {
        let next = match (self.state, it) {
            // A host without a socket, or one that still waits for a SYN, answers what it does not
            // know (RFC 9293, 3.10.7.1 and 3.10.7.3).
            (None | Some(SynSent), Segment { rst: true, .. }) => return Ok(()),
            (Some(_), Segment { rst: true, .. }) => None,
            // The port is used again: the old socket has ended, or net.ipv4.tcp_tw_reuse replaces it.
            #[rustfmt::skip]
            (None | Some(SynSent | FinWait2 | TimeWait), Segment { syn: true, ack: false, .. }) => {
                *self = Host { listens: self.listens, acknowledged: it.seq, next: it.end(), ..Host::default() };
                Some(SynSent)
            }
            (
                Some(SynRecv),
                Segment {
                    syn: true,
                    ack: true,
                    ..
                },
            ) => {
                (self.acknowledged, self.next) = (it.seq, it.end());
                Some(SynRecv)
            }
            (Some(Established | SynRecv), Segment { fin: true, .. }) => Some(FinWait1),
            (Some(CloseWait), Segment { fin: true, .. }) => Some(LastAck),
            // Sent again, or behind data that had to wait.
            (Some(FinWait1 | Closing | LastAck), Segment { syn: false, .. }) => self.state,
            #[rustfmt::skip]
            (Some(Established | CloseWait), Segment { syn: false, .. })
            | (Some(SynRecv | FinWait2 | TimeWait), Segment { syn: false, fin: false, length: 0, .. }) => self.state,
            _ => return Err(self.cannot_send(it)),
        };
        self.state = next;
        if it.fin {
            self.fin = Some(it.end());
        }
        if is_after(it.end(), self.next) {
            self.next = it.end();
        }
        if it.ack && !it.rst {
            self.expected = it.acknowledges;
        }
        if next.is_none() {
            self.end();
        }
        Ok(())
    }

    fn cannot_send(&self, it: Segment) -> String {
        let flag = match it {
            Segment { syn: true, .. } => "a SYN",
            Segment { fin: true, .. } => "a FIN",
            Segment { length: 1.., .. } => "data",
            _ => "an acknowledgement",
        };
        let state = self.state.map_or("gone", State::name);
        format!("sends {flag} where it should be {state}")
    }

    /// Changes the state as a segment arrives. Returns the kernel's answer.
    pub(super) fn hears(&mut self, it: Segment) -> Option<Segment> {
        match self.state {
            None | Some(State::Close | State::Listen) => self.hears_unconnected(it),
            Some(SynSent) => self.hears_asking(it),
            Some(_) => self.hears_connected(it),
        }
    }

    /// RFC 9293, 3.10.7.1 and 3.10.7.2.
    fn hears_unconnected(&mut self, it: Segment) -> Option<Segment> {
        if it.rst {
            return None;
        }
        if it.syn && !it.ack && self.listens {
            return Some(self.accepts(it));
        }
        Some(match it.ack {
            true => reset(it.acknowledges),
            false => Segment {
                rst: true,
                ack: true,
                acknowledges: it.end(),
                ..Segment::default()
            },
        })
    }

    fn accepts(&mut self, it: Segment) -> Segment {
        *self = Host {
            state: Some(SynRecv),
            listens: true,
            acknowledged: self.next,
            next: self.next,
            expected: it.end(),
            ..Host::default()
        };
        Segment {
            syn: true,
            ..self.acknowledgement()
        }
    }

    /// RFC 9293, 3.10.7.3.
    fn hears_asking(&mut self, it: Segment) -> Option<Segment> {
        if it.ack && it.acknowledges != self.next {
            return (!it.rst).then(|| reset(it.acknowledges));
        }
        if it.rst && it.ack {
            self.end();
            return None;
        }
        if !it.rst && it.syn && it.ack {
            (self.acknowledged, self.expected) = (it.acknowledges, it.end());
            self.state = Some(Established);
            return Some(self.acknowledgement());
        }
        None
    }

    /// RFC 9293, 3.10.7.4.
    fn hears_connected(&mut self, it: Segment) -> Option<Segment> {
        if it.rst {
            if it.seq == self.expected {
                self.end();
                return None;
            }
            // RFC 5961, 3.2: a challenge.
            return Some(self.acknowledgement());
        }
        if it.syn {
            return Some(self.hears_another_syn(it));
        }
        if it.ack && is_after(it.acknowledges, self.acknowledged) {
            self.acknowledged = it.acknowledges;
            self.is_acknowledged();
        }
        self.state?;
        if !it.is_acknowledged() {
            return None;
        }
        // A part of it may have arrived before.
        let is_new = is_after(it.end(), self.expected);
        if is_new && !is_after(it.seq, self.expected) {
            let bytes = it.end().wrapping_sub(self.expected) - u32::from(it.fin);
            if bytes > 0 && !self.takes_data(bytes) {
                return Some(reset(it.acknowledges));
            }
            self.expected = it.end();
            if it.fin {
                self.state = self.after_fin();
            }
        }
        Some(self.acknowledgement())
    }

    fn hears_another_syn(&mut self, it: Segment) -> Segment {
        match self.state {
            Some(SynRecv) if !it.ack => Segment {
                syn: true,
                seq: self.acknowledged,
                ..self.acknowledgement()
            },
            // RFC 9293, 3.6.1: a new connection may replace a TIME_WAIT.
            Some(TimeWait) if !it.ack && self.listens => {
                self.end();
                self.accepts(it)
            }
            // RFC 5961, 4.2: a challenge, whatever its sequence number.
            _ => self.acknowledgement(),
        }
    }

    /// The acknowledgement number that has arrived may be that of its SYN or FIN.
    fn is_acknowledged(&mut self) {
        let is_fin = self.fin == Some(self.acknowledged);
        self.state = match self.state {
            Some(SynRecv) => Some(Established),
            Some(FinWait1) if is_fin => Some(FinWait2),
            Some(Closing) if is_fin => Some(TimeWait),
            Some(LastAck) if is_fin => return self.end(),
            other => other,
        };
    }

    /// Returns whether a process may still read these bytes. RFC 9293, 3.10.7.4 leaves that to RFC 1122,
    /// 4.2.2.13; Linux answers RST (tcp_rcv_state_process and tcp_timewait_state_process).
    fn takes_data(&mut self, bytes: u32) -> bool {
        match self.state {
            Some(FinWait1 | FinWait2) if self.is_orphan => false,
            Some(Established | FinWait1 | FinWait2) => {
                self.unread += bytes;
                true
            }
            _ => true,
        }
    }

    /// Returns the state after the peer's FIN.
    fn after_fin(&self) -> Option<State> {
        match self.state {
            Some(Established) => Some(CloseWait),
            // Its own FIN is not acknowledged: otherwise it would be in FIN_WAIT2 by now.
            Some(FinWait1) => Some(Closing),
            Some(FinWait2) => Some(TimeWait),
            other => other,
        }
    }

    /// A program's call ends this direction, while its FIN has to wait behind data.
    pub(super) fn closes(&mut self) -> bool {
        self.state = match self.state {
            Some(Established) => Some(FinWait1),
            Some(CloseWait) => Some(LastAck),
            _ => return false,
        };
        true
    }

    /// Whether a timer may end the socket.
    pub(super) fn has_end_timer(&self) -> bool {
        match self.state {
            Some(TimeWait) => true,
            Some(FinWait2) => self.is_orphan,
            _ => false,
        }
    }

    /// The socket ends.
    pub(super) fn end(&mut self) {
        *self = Host {
            listens: self.listens,
            next: self.next.wrapping_add(NEXT_LIFE),
            ..Host::default()
        };
    }

    fn acknowledgement(&self) -> Segment {
        Segment {
            ack: true,
            seq: self.next,
            acknowledges: self.expected,
            ..Segment::default()
        }
    }

    /// Returns the next segment with this data and flags.
    pub(super) fn next_segment(&self, length: u32, fin: bool) -> Segment {
        Segment {
            fin,
            length: length as usize,
            ..self.acknowledgement()
        }
    }

    /// Returns a keepalive probe: it has the number before the next one, so that the peer answers (RFC 9293,
    /// 3.8.4).
    pub(super) fn probe(&self) -> Segment {
        Segment {
            seq: self.next.wrapping_sub(1),
            ..self.acknowledgement()
        }
    }

    /// Returns a segment that is sent again: it acknowledges everything that has arrived since.
    pub(super) fn repeated(&self, it: Segment) -> Segment {
        Segment {
            acknowledges: if it.ack { self.expected } else { 0 },
            ..it
        }
    }

    pub(super) fn syn(&self) -> Segment {
        Segment {
            syn: true,
            seq: self.next,
            ..Segment::default()
        }
    }

    /// Returns the RST of a call that aborts the connection.
    pub(super) fn abort(&self) -> Segment {
        Segment {
            rst: true,
            ..self.acknowledgement()
        }
    }

    /// Whether the peer has acknowledged the segment.
    pub(super) fn is_known(&self, it: Segment) -> bool {
        !is_after(it.end(), self.acknowledged)
    }
}

fn reset(seq: u32) -> Segment {
    Segment {
        rst: true,
        seq,
        ..Segment::default()
    }
}

#[cfg(test)]
mod tests;
