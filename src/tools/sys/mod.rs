//! Kernel facilities that the tools need and that no crate wraps safely.
//!
//! Its one rule: the program's unsafe code is here and nowhere else.
#![allow(unsafe_code)] // setsockopt(2), ioctl(2) and fork(2) are unsafe; each block says why it is sound.

pub(crate) mod child;
pub(crate) mod forged;
pub(crate) mod namespace;
pub(crate) mod options;
pub(crate) mod packets;
