//! Kernel facilities that `tine lab` and `tine load` need and that no crate wraps safely.
//!
//! Its one rule: the program's unsafe code is here and nowhere else.
#![allow(unsafe_code)] // setsockopt(2) and ioctl(2) take pointers; each block says why it is sound.

pub(crate) mod forged;
pub(crate) mod namespace;
pub(crate) mod options;
pub(crate) mod packets;
