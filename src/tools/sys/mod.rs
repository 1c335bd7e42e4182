//! Kernel facilities that `tine lab` and `tine load` need and that no crate wraps safely.
//!
//! Its one rule: the program's unsafe code is here and nowhere else.
#![allow(unsafe_code)] // setsockopt(2) takes a pointer; the block says why it is sound.

pub(crate) mod options;
pub(crate) mod packets;
