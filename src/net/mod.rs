//! Connections: what is known of each, the table that names them, the budgets and deadlines they
//! live under, and which seat serves them. Used by the master's reactors, and in base mode by every
//! worker.

pub(crate) mod acceptor;
pub(crate) mod budget;
mod closing;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod deadline;
pub(crate) mod dispatch;
#[cfg(feature = "status")]
mod owed;
pub(crate) mod returned;
pub(crate) mod scratch;
pub(crate) mod spares;
pub(crate) mod unsent;
