#![doc = include_str!("../README.md")]
//! # The layers
//!
//! Imports point downward only. Unsafe code is in `sys`, `ipc` and `ffi` alone.
//!
//! | layer | what it is for |
//! |---|---|
//! | `cli`, `ffi`, `testing` | the program, one file a subcommand; the C ABI; handlers tried without a server |
//! | `lab`, `doctor`, `load` | experiments with connections; what is wrong with a server's; what it can do |
//! | `server` | the composition root: bind, arena, fork the manager, run the master |
//! | `manager` | one worker's life: fork, wait, log, restart |
//! | `master`, `worker` | the loops of the processes |
//! | `inspect`, `status` | processes and sockets seen from outside; what a server says of itself |
//! | `flow` | one connection's bytes, top to bottom |
//! | `handler`, `ipc`, `net`, `protocol` | what a callback is given; rings and their commit; connections; messages |
//! | `config`, `control`, `event`, `peer` | settings; what processes tell each other; the events of a connection, and its client |
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
mod event;
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
mod peer;
mod protocol;
mod role;
mod server;
#[cfg(feature = "status")]
pub mod status;
mod sys;
pub mod testing;
mod worker;

pub use config::policy::{Crash, Dispatch, OnCrash, ParseOnCrashError, Route};
pub use config::{Endpoint, LimitAction, Listener, ListenerId, Mode, Settings};
pub use conn_id::ConnId;
pub use error::{Error, ErrorKind, Result};
pub use event::Event;
pub use handler::{
    CloseReason, Closed, Conn, ConnRef, Context, Handler, IntoHandler, SendError, ServerCalls,
    Stats, Worker, receive_fn,
};
pub use manager::handle::WorkerExit;
pub use peer::Peer;
pub use protocol::{
    ByteOrder, Counts, Delimiter, Found, Framing, LengthPrefix, ParseProtocolError, Protocol,
    ProtocolError, Refusal, Width,
};
pub use role::Role;
pub use server::{Handle, HandleError, Server, Started};
