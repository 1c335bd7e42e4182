//! Tuned numbers and hard limits: sizes of reads and rings, and how far each setting may go.
//!
//! Its one rule: a number that was found by measuring says here what was measured.

use std::time::Duration;

use super::listener::ListenerConfig;

pub(crate) const MIB: usize = 1 << 20;

/// The most bytes that one read takes, and so the longest raw message. With 64 KiB, messages of 1 MiB
/// take 17 % (process mode) to 42 % (base mode) more processor time; half a MiB would be a quarter of an
/// inbox.
pub(crate) const READ_SIZE: usize = 256 << 10;

/// A raw stream is read where there is room for this much, though one read may take more. It would wait
/// for more room than that at the price of two calls of epoll_ctl(2). Where messages are cut, an inbox has
/// as much beside the longest one.
pub(crate) const LEAST_READ: usize = 64 << 10;

/// The bytes that are read at a time of what is to be cut into messages.
pub(crate) const LARGE_BUFFER: usize = 64 << 10;

/// Where a connection is closed on this side first: how long the peer's own FIN is waited for, with
/// its bytes thrown away, so that it is not reset while it still reads our last bytes.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// The longest time that can be set: a year, in seconds.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Descriptors of one process beside connections, doorbells and listeners: standard streams, epoll,
/// pipes, and those that a library opens.
pub(super) const SPARE_FILES: u64 = 64;

/// The most connections where none were asked for and the limit of open files allows as many.
pub(super) const DEFAULT_MAX_CONNECTIONS: u64 = 65_536;

/// The most workers, and the most that stand by. Together, and with one more, they are no more than
/// a connection's name can tell apart.
pub(super) const MAX_WORKERS: usize = 511;

/// The most listeners of a server.
pub(super) const MAX_LISTENERS: usize = 1024;

/// The most addresses that they have together.
pub(super) const MAX_ADDRESSES: usize = 1024;

/// The longest message that can be accepted.
pub(super) const LONGEST_MESSAGE: usize = 1 << 30;

/// What an output of `len` bytes counts against the budget of one commit: its bytes, and its being
/// remembered.
pub(crate) const fn charge(len: usize) -> usize {
    len + 64
}

/// The most that one link holds of what a listener's connections have sent and is not a worker's yet.
pub(super) fn longest_held(listener: &ListenerConfig) -> usize {
    match listener.protocol.is_raw() {
        // A raw stream is held where a dispatch function is shown it.
        true => LARGE_BUFFER,
        false => listener.max_message,
    }
}

/// The bytes of an inbox that suits a listener. It holds a whole message, and while a worker is at it,
/// the next ones. Raw messages are short.
pub(super) fn inbox_size(listener: &ListenerConfig) -> usize {
    match listener.protocol.is_raw() {
        // With one MiB, twenty clients with 64 KiB each waited for room by turns, at two calls of
        // epoll_ctl(2) for a turn: 5 % more processor time than with two, and 8 % for 1 MiB each.
        // With four, what was read has left the cache when its turn comes.
        true => 2 * MIB,
        false => (listener.max_message + LEAST_READ)
            .next_power_of_two()
            .max(MIB),
    }
}
