//! The signs of life of one connection, from which its deadlines follow.
//!
//! Its one rule: a sign of life is one store of the turn's time ([`super::pace`]). Timers are not touched:
//! one that comes too early looks here, and is set again.

use std::num::NonZeroU64;

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
    pub(crate) stall: Option<Box<Stall>>,
    /// Since when it has waited for a place for its next frame.
    pub(crate) waiting_since: Option<NonZeroU64>,
    /// The `idle` callback is due.
    pub(crate) idle_due: bool,
}

/// Output that is unacknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    /// The last acknowledgement that was noticed, or the beginning.
    pub(crate) since: u64,
    /// The bytes that the peer had ever acknowledged then; `None` before the first look.
    acknowledged: Option<u64>,
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
            acknowledged: None,
        }
    }

    /// Looks at the bytes that the peer has ever acknowledged. The first look only begins: what happened
    /// before it is not known.
    pub(crate) fn look(&mut self, now: u64, acknowledged: u64) {
        if self.acknowledged.is_none_or(|last| acknowledged > last) {
            *self = Stall {
                since: now,
                acknowledged: Some(acknowledged),
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
        stall.look(20, 4000);
        assert_eq!(stall.since, 20, "the first look");
        stall.look(30, 4000);
        assert_eq!(stall.since, 20);
        stall.look(40, 4001);
        assert_eq!(stall.since, 40);
        stall.look(50, 4001);
        assert_eq!(stall.since, 40);
    }
}
