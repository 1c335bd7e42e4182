//! Processes seen from outside: what a worker is doing, where in its code it is, what memory it
//! takes, and whether the kernel has killed for want of memory.
//!
//! Runs in the manager. Its one rule: it never waits for the process that it looks at, whatever
//! that one is stuck in, and that one never notices.

#[cfg(feature = "sockets")]
pub(crate) mod counters;
pub(crate) mod oom;
#[cfg(feature = "sockets")]
#[cfg_attr(not(feature = "doctor"), allow(dead_code))] // The lab looks at less.
pub(crate) mod owners;
pub(crate) mod process;
#[cfg(feature = "sockets")]
#[cfg_attr(not(feature = "doctor"), allow(dead_code))] // The lab looks at less.
pub(crate) mod sockets;
#[cfg_attr(not(feature = "stack"), allow(dead_code))] // Nobody reads what was copied.
pub(crate) mod stack;
