//! Tuned numbers and hard limits: the sizes of reads and rings, and the range of each setting.
//!
//! Its one rule: a number that was found by measuring has the measurement in its comment.

use std::time::Duration;

use super::listener::ListenerConfig;

pub(crate) const MIB: usize = 1 << 20;

/// The most bytes that one read takes, and so the longest raw message. With 64 KiB, messages of 1 MiB
/// take 17 % (process mode) to 42 % (base mode) more processor time; half a MiB would be a quarter of an
/// inbox.
pub(crate) const READ_SIZE: usize = 256 << 10;

/// The least room for which a raw stream is read; one read may take more. Waiting for more room would
/// cost two calls of epoll_ctl(2). For listeners with messages, an inbox has as much room beside the
/// longest message.
pub(crate) const LEAST_READ: usize = 64 << 10;

/// The bytes that one read takes where messages are cut.
pub(crate) const LARGE_BUFFER: usize = 64 << 10;

/// How long a socket that this side has closed first waits for the peer's FIN, discarding its bytes, so
/// that the peer gets no RST while it still reads our last bytes. The time counts from when the peer has
/// acknowledged them.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// How long a process may take to leave once no client waits for it any more. It is killed then.
pub(crate) const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// How long the last callbacks may take once the shutdown deadline has passed and every connection is closed.
pub(crate) const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a server that shuts down waits for the first bytes of a client that has just come, from its accept, and for
/// the rest of a message, from the last bytes.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// The time until the next try of a call for which the kernel had no memory.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// The time between two looks at a socket that waits until the peer has acknowledged everything.
pub(crate) const LOOK: Duration = Duration::from_millis(250);

/// The most bytes that a socket leaves to the kernel when both sides have closed; with more, it waits until
/// the peer has taken them, or for the close deadline.
pub(crate) const MOST_ORPHANED: u64 = 64 << 10;

/// The longest time that can be set: a year.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The part of the memory of a cgroup or machine that connections may take by default, one in this many: the rest is for
/// rings, workers, the kernel's buffers of sockets (which count in a cgroup too), and the page cache.
pub(super) const MEMORY_SHARE: u64 = 4;

/// The most bytes of a poisonous message that a log line can show.
pub(super) const MOST_SHOWN: usize = 64 << 10;

/// Descriptors of one process beside connections, doorbells and listeners: standard streams, epoll,
/// pipes, and those of the user's libraries.
pub(super) const SPARE_FILES: u64 = 64;

/// The default of `max_connections`, if the limit of open files allows as many.
pub(super) const DEFAULT_MAX_CONNECTIONS: u64 = 65_536;

/// The most workers with seats, and the most on standby. Together with one more they must fit into
/// [`MAX_OWNERS`](crate::conn_id::MAX_OWNERS).
pub(super) const MAX_WORKERS: usize = 511;

/// The most workers that leave their seats side by side in a reload. Each costs address space and a doorbell.
pub(super) const MOST_LEAVING: usize = 16;

/// The most listeners of a server.
pub(super) const MAX_LISTENERS: usize = 1024;

/// The most addresses of all listeners together.
pub(super) const MAX_ADDRESSES: usize = 1024;

/// The longest message that can be accepted.
pub(super) const LONGEST_MESSAGE: usize = 1 << 30;

/// The most files that one commit sends, and that a worker has sent without the reactors having read it: as many again.
pub(crate) const FILES_AT_ONCE: usize = 16;

/// The most files that a connection waits to be sent. Reading stops at a quarter of it, as at the high-water mark; then
/// the messages that are with a worker are still answered.
pub(crate) const MOST_FILES: usize = 256;

/// How long a callback can stop the reading from its connection.
pub(crate) const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// How long a callback waits for the answer to a question. A reactor that is not stopped answers in its next turn.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// The most bytes of a post.
pub(crate) const MOST_POST: usize = 64 << 10;

/// The most bytes of a task, and of its result.
pub(crate) const MOST_TASK: usize = 64 << 10;

/// What a task counts beside its bytes.
pub(crate) const TASK_BYTES: usize = 256;

/// The most tasks that can be allowed to wait.
pub(super) const MOST_QUEUED: usize = 1 << 24;

/// The most bytes of a connection's state.
pub(crate) const MOST_STATE: usize = 64 << 10;

/// The longest time for which an answer can be promised: until then a connection is kept, also past its close deadline.
pub(crate) const MOST_PROMISE: Duration = Duration::from_secs(3600);

/// The most bytes of the reply that takes the place of an answer which was promised.
pub(crate) const MOST_REPLY: usize = 4 << 10;

/// The most bytes of what is published at once.
pub(crate) const MOST_PUBLISH: usize = 64 << 10;

/// The most bytes of a group's name.
pub(crate) const MOST_NAME: usize = 128;

/// The most groups that a connection is in.
pub(crate) const MOST_GROUPS: usize = 128;

/// The most bytes of what is known of the origin of a connection. One whose client has sent a longer certificate is
/// refused.
pub(crate) const MOST_ORIGIN: usize = 16 << 10;

/// What a frame has beside its message, with the longest state, the names of all groups and the longest origin.
const MOST_CARRIED: usize = MOST_STATE + MOST_GROUPS * (MOST_NAME + 1) + MOST_ORIGIN + 128;

/// The most handshakes that a turn of a loop goes on with: each takes up to a millisecond, and other clients wait
/// meanwhile.
pub(crate) const MOST_HANDSHAKES: u32 = 4;

/// Returns what an output of `len` bytes counts against the budget of one commit: its bytes, and the
/// memory for its record.
pub(crate) const fn charge(len: usize) -> usize {
    len + 64
}

/// Returns the most bytes of one connection that are held before they are submitted to a worker.
pub(super) fn longest_held(listener: &ListenerConfig) -> usize {
    match listener.protocol.is_raw() {
        // Raw bytes are held if a dispatch function sees them first.
        true => LARGE_BUFFER,
        false => listener.max_message,
    }
}

/// Returns the bytes of an inbox for a listener. It holds a whole message, and the next ones while a
/// worker handles it. Raw messages are short.
pub(super) fn inbox_size(listener: &ListenerConfig) -> usize {
    match listener.protocol.is_raw() {
        // With 1 MiB, twenty clients with 64 KiB each waited for room in turns, each turn at two calls
        // of epoll_ctl(2): 5 % more processor time than with 2 MiB, and 8 % for clients with 1 MiB each.
        // With 4 MiB, bytes have left the cache before the worker reads them.
        true => 2 * MIB,
        false => (listener.max_message + LEAST_READ.max(MOST_CARRIED))
            .next_power_of_two()
            .max(MIB),
    }
}
