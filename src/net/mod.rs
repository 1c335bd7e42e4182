//! Connections and their resources: the table, buffers, budgets, deadlines, and the acceptor.
//!
//! Used by the master's reactors, and in base mode by every worker. Its one rule: the next step of a
//! connection is decided in the flow alone, never here.

pub(crate) mod acceptor;
pub(crate) mod addresses;
pub(crate) mod admission;
pub(crate) mod alarms;
pub(crate) mod arrival;
pub(crate) mod assigned;
pub(crate) mod budget;
pub(crate) mod buffers;
pub(crate) mod census;
pub(crate) mod connection;
pub(crate) mod disk;
pub(crate) mod ended;
pub(crate) mod files;
pub(crate) mod groups;
pub(crate) mod handover;
pub(crate) mod layer;
pub(crate) mod loads;
pub(crate) mod mail;
pub(crate) mod pace;
#[cfg_attr(not(feature = "proxy"), path = "no_proxy.rs")]
pub(crate) mod proxy;
pub(crate) mod pulse;
pub(crate) mod rare;
pub(crate) mod rates;
pub(crate) mod returned;
pub(crate) mod server_timers;
pub(crate) mod table;
pub(crate) mod tasks;
pub(crate) mod timers;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub(crate) mod tls;
pub(crate) mod trim;
pub(crate) mod unsent;
pub(crate) mod wheel;
