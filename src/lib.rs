#![doc = include_str!("../README.md")]
//! # The layers
//!
//! Imports point downward only. Unsafe code is in `sys`, `ipc` and `ffi` alone.
//!
//! | layer | what it is for |
//! |---|---|
//! | `cli`, `ffi` | the program, one file a subcommand; the C ABI |
//! | `lab`, `doctor`, `load` | experiments with connections; what is wrong with a server's; what it can do |
//! | `server` | the composition root: bind, arena, fork the manager, run the master |
//! | `manager` | one worker's life: fork, wait, log, restart |
//! | `master`, `worker` | the loops of the processes |
//! | `inspect`, `status` | processes and sockets seen from outside; what a server says of itself |
//! | `flow` | one connection's bytes, top to bottom |
//! | `ipc`, `net`, `protocol`, `config` | rings and their commit; connections; messages; settings |
//! | `sys`, `error` | system calls; the one error type |

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "sockets")]
mod columns;
mod config;
mod conn_id;
mod control;
#[cfg(feature = "doctor")]
mod doctor;
mod error;
#[cfg(feature = "capi")]
mod ffi;
mod flow;
mod handler;
mod inspect;
mod ipc;
#[cfg(feature = "lab")]
mod lab;
#[cfg(feature = "load")]
mod load;
#[cfg(any(feature = "capi", feature = "cli"))]
mod logger;
mod manager;
mod master;
mod net;
mod protocol;
mod role;
mod server;
#[cfg(feature = "status")]
pub mod status;
mod sys;
#[cfg(any(feature = "bench-hooks", feature = "test-hooks"))]
#[doc(hidden)]
pub mod testing;
mod worker;

pub use config::policy::{Callback, Crash, Dispatch, OnCrash, ParseOnCrashError, Route};
pub use config::{LimitAction, Mode};
pub use conn_id::ConnId;
pub use error::Error;
pub use handler::{CloseReason, Closed, Conn, Handler, Outcome, SendError, Stats, Worker};
pub use manager::handle::WorkerExit;
pub use protocol::{
    ByteOrder, Counts, Delimiter, Found, Framing, LengthPrefix, ParseProtocolError, Protocol,
    ProtocolError, Refusal, Width,
};
pub use role::Role;
pub use server::{Server, Started};
