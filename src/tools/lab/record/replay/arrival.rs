//! What the captured segments tell of each other: which arrived, in which order, and which had to wait.

use std::time::Instant;

use super::LATE;
use crate::lab::picture::{Segment, Side};
use crate::lab::record::journal::{Call, Caller, Does};
use crate::lab::record::model::is_after;
use crate::lab::record::states::Seen;
use crate::lab::record::{Evidence, Sent};
use crate::sockets::State;

impl Evidence {
    /// Whether a segment arrived.
    pub(super) fn arrives(&self, number: usize) -> bool {
        let (at, from, segment) = self.segments[number];
        if segment.late {
            return true;
        }
        match self.is_deaf(from.other(), at) {
            Some(true) => false,
            is_deaf if !segment.is_acknowledged() => self.arrives_alone(number, is_deaf),
            Some(false) if segment.syn => self.is_answered(number, true),
            // Sent again or not: a kernel may send again what has arrived (a tail loss probe, RFC 8985), since
            // the peer acknowledges a FIN up to 40 ms late.
            Some(false) => self.is_answered(number, false) || !self.is_repeated(number),
            None => self.is_answered(number, true),
        }
    }

    /// Whether the peer answers a segment, `soon`: before it is sent again. A SYN may be answered by an
    /// acknowledgement of something else, or by RST; there is no answer where the queue of the listener is full.
    fn is_answered(&self, number: usize, soon: bool) -> bool {
        let (_, from, segment) = self.segments[number];
        let later = &self.segments[number + 1..];
        let again = later.iter().position(|it| is_same(it, from, segment));
        let until = again.filter(|_| soon).unwrap_or(later.len());
        let is_answer = |it: &Sent| {
            it.1 != from
                && (segment.syn
                    || it.2.rst
                    || it.2.ack && !is_after(segment.end(), it.2.acknowledges))
        };
        later[..until].iter().any(is_answer)
    }

    /// Whether a segment is sent twice or more.
    fn is_repeated(&self, number: usize) -> bool {
        let (_, from, segment) = self.segments[number];
        let same = self.segments.iter().filter(|it| is_same(it, from, segment));
        same.count() > 1
    }

    /// Whether a segment without data and flags arrived, which is not acknowledged.
    fn arrives_alone(&self, number: usize, is_deaf: Option<bool>) -> bool {
        let (_, from, segment) = self.segments[number];
        let (before, later) = (&self.segments[..number], &self.segments[number + 1..]);
        // A probe has the number before, and asks for an answer (RFC 9293, 3.8.4).
        let since = before.iter().rposition(|it| it.2.syn).unwrap_or(0);
        let mut own = before[since..]
            .iter()
            .filter(|it| it.1 == from && !it.2.late);
        if !segment.rst && own.any(|it| is_after(it.2.end(), segment.seq)) {
            return later.first().is_some_and(|it| it.1 != from);
        }
        // If the receiver began or ceased to be deaf just then, it sends again what this segment would have
        // acknowledged.
        let is_missed = |it: &Sent| {
            it.1 != from && it.2.is_acknowledged() && it.2.end() == segment.acknowledges
        };
        is_deaf.is_some() || !later.iter().any(is_missed)
    }

    /// Whether the socket table showed a side in this state at about that time.
    pub(super) fn is_seen_about(&self, at: Instant, side: Side, state: State) -> bool {
        let mut own = self.seen.iter().filter(|it| it.side == side);
        own.any(|it| {
            let is_near = it.first.asked < at + LATE && it.last.answered + LATE > at;
            it.state == Some(state) && is_near
        })
    }

    /// Whether a kernel without a socket answers this segment, which has no data: by RST with the number that it
    /// acknowledges (RFC 9293, 3.10.7.1). A socket in FIN_WAIT2 or TIME_WAIT acknowledges such a segment.
    pub(super) fn is_refused(&self, number: usize) -> bool {
        let (_, from, segment) = self.segments[number];
        let mut later = self.segments[number + 1..].iter();
        let is_empty = segment.ack && !segment.syn && !segment.rst && segment.length == 0;
        let answer = later.find(|it| it.1 != from).map(|it| it.2);
        let is_refusal =
            |it: Segment| it.rst && !it.ack && it.seq == segment.acknowledges && it.length == 0;
        is_empty && answer.is_some_and(is_refusal)
    }

    /// Whether a side dropped every segment at this time; `None` if it began or ceased just then.
    fn is_deaf(&self, side: Side, at: Instant) -> Option<bool> {
        let mut deaf = Some(false);
        for call in &self.calls {
            if let (Caller::End(_, by), Does::Deaf(begins)) = (call.by, call.does)
                && by == side
                && call.began <= at
            {
                let is_over = call.ended.is_some_and(|ended| ended <= at);
                deaf = is_over.then_some(begins);
            }
        }
        deaf
    }

    /// Whether the server's kernel answers this SYN with a SYN.
    pub(super) fn is_accepted(&self, number: usize) -> bool {
        let mut later = self.segments[number + 1..].iter();
        let answer = later.find(|it| it.1 == Side::Server);
        answer.is_some_and(|it| it.2.syn)
    }

    /// Whether an RST ends this side's socket at about this time.
    pub(super) fn is_reset_about(&self, at: Instant, side: Side) -> bool {
        let mut later = self.segments.iter().filter(|it| it.0 > at);
        // From then on it is another connection with the same addresses.
        let again = later.find(|it| it.1 == side && it.2.syn).map(|it| it.0);
        let until = again.map_or(at + LATE, |again| again.min(at + LATE));
        let is_near = |it: &Sent| it.0 < until && it.0 + LATE >= at;
        self.segments.iter().any(|it| is_near(it) && it.2.rst)
    }

    /// Whether the FIN of this call, if it is a close, has to wait behind data for which the peer has no room.
    pub(super) fn waits(&self, call: &Call, side: Side) -> bool {
        if !matches!(call.does, Does::Close | Does::FinishWriting) {
            return false;
        }
        let own = self
            .segments
            .iter()
            .filter(|it| it.1 == side && it.0 >= call.began);
        let own: Vec<&Sent> = own.take_while(|it| !it.2.syn).collect();
        let Some(fin) = own.iter().position(|it| it.2.fin || it.2.rst) else {
            return true;
        };
        let is_late = call.ended.is_some_and(|ended| own[fin].0 > ended);
        let has_data = own[..=fin].iter().any(|it| it.2.length > 0);
        is_late && has_data && !own[fin].2.rst
    }

    /// Whether the socket table showed that another process had closed, long before the FIN was sent.
    pub(super) fn closed_unseen(&self, seen: &Seen) -> bool {
        let is_own = |call: &Call| matches!(call.by, Caller::End(_, side) if side == seen.side);
        let until = seen.first.answered;
        let own = self.segments.iter().filter(|it| it.1 == seen.side);
        // Of this connection, not of an earlier one with the same addresses.
        let begins = own.clone().rfind(|it| it.0 <= until && it.2.syn);
        let since = begins.map_or(until, |begin| begin.0);
        let fin = own.clone().find(|it| it.0 >= since && it.2.fin);
        !self.calls.iter().any(is_own) && fin.is_none_or(|fin| fin.0 > until + LATE)
    }

    /// Puts a segment that was sent before another one arrived before that one, where they crossed: both
    /// were on their way, each on its own processor, and the other one was captured first.
    pub(super) fn uncrossed(&self) -> Evidence {
        let mut evidence = self.clone();
        for number in 1..evidence.segments.len() {
            if let Some(before) = evidence.crossed_by(number) {
                evidence.segments[before..=number].rotate_right(1);
            }
        }
        super::super::settle_times(&mut evidence.segments);
        evidence
    }

    /// Returns the number of the first segment before this one which its sender did not know yet: each
    /// segment acknowledges all that has arrived (RFC 9293, 3.10.7.4).
    fn crossed_by(&self, number: usize) -> Option<usize> {
        let (_, from, late) = self.segments[number];
        if !late.ack || late.syn || late.rst || late.late {
            return None;
        }
        let is_border = |it: &Sent| it.2.syn || it.2.rst;
        let since = self.segments[..number].iter().rposition(is_border);
        // The third segment of a handshake is after the second one.
        let since = since.map_or(0, |border| border + 1);
        let is_unknown = |other: &usize| {
            let (_, side, it) = self.segments[*other];
            side != from
                && !it.late
                && it.is_acknowledged()
                && is_after(it.end(), late.acknowledges)
        };
        let before = (since..number).find(|it| is_unknown(it) && self.arrives(*it))?;
        // Nothing between them may follow from this one.
        let is_caused = |it: &Sent| {
            let is_answer = late.is_acknowledged() && !is_after(late.end(), it.2.acknowledges);
            it.1 == from || is_answer && !self.is_sent_before(before, from, late)
        };
        let is_free = !self.segments[before..number].iter().any(is_caused);
        is_free.then_some(before)
    }

    /// Whether a side had sent the same before.
    fn is_sent_before(&self, before: usize, from: Side, segment: Segment) -> bool {
        let is_same = |it: &Sent| it.1 == from && it.2.end() == segment.end();
        self.segments[..before].iter().any(is_same)
    }
}

/// Whether a side sends this segment, or the same again.
fn is_same(it: &Sent, from: Side, segment: Segment) -> bool {
    it.1 == from && !it.2.late && it.2.is_acknowledged() && it.2.end() == segment.end()
}
