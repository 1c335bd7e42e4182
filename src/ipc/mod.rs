//! Shared memory between the master's reactors and the workers: the arena, the rings in it, and the
//! commit.
//!
//! Its one rule: a process that is killed, at whatever instruction, leaves words behind that the
//! other side can act on; and the master believes nothing that a worker wrote before it has copied
//! and checked it.
#![allow(unsafe_code)] // Memory that other processes write; each block says why it holds.

pub(crate) mod activity;
pub(crate) mod answer;
pub(crate) mod arena;
pub(crate) mod carried;
pub(crate) mod claim;
pub(crate) mod files;
pub(crate) mod frame;
#[cfg(feature = "test-hooks")]
pub(crate) mod kill_point;
pub(crate) mod layout;
pub(crate) mod link;
pub(crate) mod listed;
pub(crate) mod memory;
pub(crate) mod position;
pub(crate) mod queued;
pub(crate) mod record;
pub(crate) mod ring;
#[cfg(all(test, not(miri)))] // Miri has no shared mappings.
mod ring_model;
pub(crate) mod sleeper;
pub(crate) mod sync;
