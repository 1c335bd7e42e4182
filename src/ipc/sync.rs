//! The atomics of `ipc`, in one place, so that loom can put its own in theirs.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
#[allow(unused_imports)] // The models use some.
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
