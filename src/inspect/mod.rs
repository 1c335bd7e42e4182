//! A process seen from outside: its state, its stack, its memory, and the kernel's OOM kills.
//!
//! Runs in the manager. Its one rule: it never waits for the inspected process, even if that is stuck,
//! and does not disturb it.

pub(crate) mod oom;
pub(crate) mod process;
#[cfg_attr(not(feature = "stack"), allow(dead_code))] // The copy is not read then.
pub(crate) mod stack;

#[cfg(test)]
mod tests;
