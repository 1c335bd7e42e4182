//! Checks the protocol of the rings and their bells, the very files of the crate, under every
//! interleaving that loom finds.
//!
//! A package of its own, so that the crate carries neither loom nor its switches. Run by `make
//! loom`.
#![cfg(all(test, loom))]

mod ipc;
mod models;
