//! Seen from outside: what a process is doing, where in its code it is, what memory it takes, and
//! whether the kernel has killed for want of memory; the kernel's sockets, and whose they are.
//!
//! Runs in the manager, the sockets' part in `tine lab` and `tine doctor`. Its one rule: it never
//! waits for the process that it looks at, whatever that one is stuck in, and that one never
//! notices.

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
