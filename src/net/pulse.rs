//! The signs of life of one connection, from which its deadlines follow.
//!
//! Its one rule: a sign of life is one store of the turn's time ([`super::pace`]). Timers are not touched:
//! one that comes too early looks here, and is set again.

/// All times are those of the owner's [`Pace`](super::pace::Pace).
#[derive(Debug)]
pub(crate) struct Pulse {
    /// The last bytes from the peer, or the end of its last callback, whichever was later.
    pub(crate) heard: u64,
    /// The last output.
    pub(crate) sent: u64,
    /// Either side has said something.
    pub(crate) has_spoken: bool,
    /// The first bytes of the incomplete message were read then, while there is one.
    pub(crate) message_since: u64,
    /// The message deadline has passed while bytes were unread: they are read before it counts.
    pub(crate) is_overdue: bool,
    /// The peer has not acknowledged all output; as of the last look.
    pub(crate) stall: Option<Stall>,
    /// Since when it has waited for a place for its next frame.
    pub(crate) waiting_since: Option<u64>,
    /// The `idle` callback is due.
    pub(crate) idle_due: bool,
}

/// Output that is unacknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    /// The last acknowledgement that was noticed, or the beginning.
    pub(crate) since: u64,
    /// The bytes in the kernel's queue then; `None` before the first look.
    queued: Option<u64>,
    /// The bytes that had ever been written then.
    written: u64,
}

impl Pulse {
    pub(crate) fn new() -> Pulse {
        Pulse {
            heard: 0,
            sent: 0,
            has_spoken: false,
            message_since: 0,
            is_overdue: false,
            stall: None,
            waiting_since: None,
            idle_due: false,
        }
    }

    /// Bytes have come.
    pub(crate) fn hear(&mut self, now: u64) {
        (self.heard, self.has_spoken) = (now, true);
    }

    /// Output was made.
    pub(crate) fn speak(&mut self, now: u64) {
        (self.sent, self.has_spoken) = (now, true);
    }
}

impl Stall {
    /// Output could not be written.
    pub(crate) fn begin(now: u64) -> Stall {
        Stall {
            since: now,
            queued: None,
            written: 0,
        }
    }

    /// Looks: `queued` bytes are in the kernel's queue, and `written` were ever written. Whatever has left
    /// the queue was acknowledged. The first look only begins: what happened before it is not known.
    pub(crate) fn look(&mut self, now: u64, queued: u64, written: u64) {
        let is_progress = self
            .queued
            .is_none_or(|last| last + (written - self.written) > queued);
        if is_progress {
            *self = Stall {
                since: now,
                queued: Some(queued),
                written,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stall;

    #[test]
    fn only_an_acknowledgement_is_progress() {
        let mut stall = Stall::begin(10);
        stall.look(20, 1000, 5000);
        assert_eq!(stall.since, 20, "the first look");
        stall.look(30, 1400, 5400);
        assert_eq!(stall.since, 20, "the kernel's buffer took 400 bytes more");
        stall.look(40, 1400, 5401);
        assert_eq!(stall.since, 40, "a byte was acknowledged");
        stall.look(50, 1400, 5401);
        assert_eq!(stall.since, 40);
    }
}
