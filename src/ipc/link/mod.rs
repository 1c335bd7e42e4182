//! A link joins one reactor and one slot: the two ends of an inbox ring and an outbox ring, and the
//! commit between them.
//!
//! The commit in one paragraph. The reactor keeps every frame of the inbox until it is retired, and
//! only the reactor retires. The worker stages the output of a callback beyond the published mark of
//! the outbox; when the callback returns, one release store publishes all of it together with a
//! `Done` that names the inbox frame. The reactor applies frames only up to such a commit record, so
//! that it sees reply and acknowledgement, or neither. Output that it holds without a record when
//! the worker dies is cut.

mod broken;
mod commits;
mod pages;
mod questions;
mod reactor;
mod returning;
mod worker;

pub(crate) use crate::config::limits::charge;
pub(crate) use broken::Broken;
pub(crate) use commits::Commit;
pub(crate) use questions::{NO_MORE, of_page, page};
pub(crate) use reactor::ReactorLink;
pub(crate) use returning::{Failed, Legacy, Returned};
pub(crate) use worker::{Take, Taken, WorkerLink, WorkerOutbox};

#[cfg(all(test, not(miri)))] // Miri has no shared mappings.
mod tests;
