//! [guide]: crate::guide
#![doc = include_str!("../README.md")]
//! # The layers
//!
//! Imports point downward only, and not to the side; a test holds every file to this table. Unsafe code
//! is in `sys`, `ipc` and `ffi` alone.
//!
//! | modules | purpose |
//! |---|---|
//! | `guide`, `ffi`, `testing` | pages for users; the C ABI; tests of handlers, and hooks for tests |
//! | `server` | settings in, processes out: bind, map, fork the manager, run the master |
//! | `manager` | the life of the workers: fork, wait, log, replace |
//! | `master`, `worker` | the loops of the processes |
//! | `flow` | one connection's bytes, top to bottom |
//! | `net`, `status` | connections and their memory; the status of a server |
//! | `ipc` | memory that processes share: the arena, the rings, the commit |
//! | `handler`, `control` | the arguments of callbacks; news, orders and notes between processes |
//! | `config` | settings, checked |
//! | `protocol`, `event`, `peer`, `inspect`, `logger`, `panics` | bytes to messages; events and clients; processes from outside; log lines |
//! | `error`, `conn_id`, `role`, `printable`, `limited`, `words` | the error type; the names of connections and processes; text of others; log lines that clients cause, and those of several processes |
//! | `sys` | system calls |

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
mod limited;
#[cfg(feature = "logger")]
pub mod logger;
mod manager;
mod master;
mod net;
mod panics;
mod peer;
mod printable;
mod protocol;
mod role;
mod server;
#[cfg(feature = "status")]
pub mod status;
mod sys;
pub mod testing;
mod words;
mod worker;

#[cfg(feature = "tls")]
pub use config::Tls;
pub use config::policy::{Crash, Dispatch, FailedTask, OnCrash, ParseOnCrashError, Route};
pub use config::{
    Endpoint, Inherited, LimitAction, Listener, ListenerId, Mode, OnIdle, Run, Settings,
};
pub use conn_id::ConnId;
pub use error::{Error, ErrorKind, Result};
pub use event::Event;
pub use handler::{
    CloseReason, Closed, Conn, ConnInfo, ConnRef, Context, Groups, Handler, IntoHandler, NewTask,
    Origin, PostError, Poster, SendError, ServerCalls, Stats, Task, To, Worker, receive_fn,
};
pub use manager::WorkerExit;
pub use peer::{Credentials, ParsePeerError, Peer};
pub use protocol::{
    ByteOrder, Found, LengthPrefix, ParseProtocolError, Protocol, ProtocolError, Refusal, Search,
};
pub use role::Role;
pub use server::{Handle, HandleError, Server, Started};
