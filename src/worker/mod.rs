//! The worker processes, which run the user's callbacks: [`process`] in process mode, [`base`] in base
//! mode. Both call the handler by [`callback`].
//!
//! Their one rule: nothing that matters to a client is in a process mode worker alone, so that it may
//! block, leak or crash at any instruction.

mod balance;
pub(crate) mod base;
pub(crate) mod callback;
mod direct;
mod incarnation;
mod output;
pub(crate) mod process;
mod staged;

pub(crate) use self::incarnation::{Body, Incarnation};
