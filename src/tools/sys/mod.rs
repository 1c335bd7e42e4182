//! Kernel facilities that the experiments of `tine lab` need and that have no safe wrapper
//! elsewhere.
//!
//! Its one rule: unsafe code is here and nowhere else in this program.
#![allow(unsafe_code)] // A socket option is set by a pointer; the block says why it holds.

pub(crate) mod options;
pub(crate) mod packets;
