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

mod config;
mod conn_id;
mod control;
mod error;
mod event;
#[cfg(feature = "capi")]
mod ffi;
mod flow;
pub mod guide;
mod handler;
mod inspect;
mod ipc;
#[cfg(feature = "logger")]
pub mod logger;
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
pub use manager::WorkerExit;
pub use peer::Peer;
pub use protocol::{
    ByteOrder, Found, LengthPrefix, ParseProtocolError, Protocol, ProtocolError, Refusal,
};
pub use role::Role;
pub use server::{Handle, HandleError, Server, Started};
