//! What the flow moves, and what it moves it with: one connection, the table that names them, the
//! buffers, budgets and deadlines they live under, and the acceptor they come from.
//!
//! Used by the master's reactors, and in base mode by every worker. Its one rule: nothing here decides
//! what a connection does next. That is the flow's business.

pub(crate) mod acceptor;
pub(crate) mod budget;
pub(crate) mod buffers;
pub(crate) mod connection;
pub(crate) mod loads;
pub(crate) mod returned;
pub(crate) mod table;
pub(crate) mod timers;
pub(crate) mod unsent;
