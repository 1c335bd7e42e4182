//! The clock that all processes of the server share: CLOCK_MONOTONIC, in milliseconds since boot.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of CLOCK_MONOTONIC. The clock is one for the whole machine (clock_gettime(2)), so a
/// time stamped by the master can be compared in a worker, which `Instant` does not promise.
pub(crate) fn now_ms() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists on every Linux");
    now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000
}
