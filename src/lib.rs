//! placeholder

mod base;
mod callback;
mod config;
mod error;
mod handler;
mod id;
mod ipc;
mod manager;
mod master;
mod net;
mod pipeline;
mod protocol;
mod role;
mod server;
mod sys;
#[cfg(feature = "test-hooks")]
#[doc(hidden)]
pub mod testing;
mod worker;

pub use config::{Mode, OnCrash};
pub use error::Error;
pub use handler::{CloseReason, Closed, Conn, Handler, Outcome, SendError, Stats, Worker};
pub use id::ConnId;
pub use manager::handle::WorkerExit;
pub use protocol::{
    ByteOrder, Counts, Delimiter, LengthPrefix, ParseProtocolError, Protocol, ProtocolError,
    Refusal, Width,
};
pub use role::Role;
pub use server::{Server, Started};
