//! The worker processes, which run the user's callbacks: [`process`] in process mode, [`base`] in base
//! mode. Both call the handler through [`callback`].
//!
//! Their one rule: a worker of process mode holds nothing that matters to a client, so that it may block,
//! leak or crash at any instruction.

mod asides;
mod balance;
pub(crate) mod base;
pub(crate) mod callback;
mod claims;
mod direct;
mod exchange;
mod files;
mod incarnation;
mod output;
pub(crate) mod process;
mod sessions;
mod staged;
mod staging;

pub(crate) use self::incarnation::{BELL, Body, Incarnation};
