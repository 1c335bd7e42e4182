//! Seen from outside: what a process is doing, where in its code it is, what memory it takes, and
//! whether the kernel has killed for want of memory.
//!
//! Runs in the manager. Its one rule: it never waits for the process that it looks at, whatever that
//! one is stuck in, and that one never notices.

pub(crate) mod oom;
pub(crate) mod process;
#[cfg_attr(not(feature = "stack"), allow(dead_code))] // Nobody reads what was copied.
pub(crate) mod stack;

#[cfg(test)]
mod tests;
