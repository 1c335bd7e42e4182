//! The only folder with system calls: one kernel facility a file, each wrapped so that the rest of
//! the crate is safe code.
//!
//! Its one rule: descriptors are stored as `OwnedFd`, passed as `BorrowedFd`, and made with
//! close-on-exec.
#![allow(unsafe_code)] // System calls that nix does not wrap; each block says why it holds.

pub(crate) mod accounts;
pub(crate) mod activation;
pub(crate) mod address;
pub(crate) mod contents;
pub(crate) mod doorbell;
pub(crate) mod epoll;
mod fault;
#[cfg(feature = "stack")]
pub(crate) mod file;
pub(crate) mod forks;
pub(crate) mod heap;
pub(crate) mod interface;
pub(crate) mod limits;
pub(crate) mod listener;
#[cfg(feature = "status")]
pub(crate) mod local;
pub(crate) mod memory;
#[cfg(feature = "logger")]
pub(crate) mod notice;
pub(crate) mod notify;
pub(crate) mod parcel;
pub(crate) mod pipe;
pub(crate) mod process;
#[cfg(test)]
pub(crate) mod puppet;
pub(crate) mod room;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod socket_file;
pub(crate) mod standard;
pub(crate) mod stream;
pub(crate) mod time;
pub(crate) mod title;
#[cfg_attr(not(feature = "stack"), allow(dead_code))] // Nobody reads the registers.
pub(crate) mod trace;
