//! The types of the callbacks, and what they are told. Each says which process calls it.

use std::ffi::{c_char, c_void};

use super::conn::tine_conn;
use super::listener::tine_listener_id;
use super::settings::tine_mode;
use super::status::StatusIn;

/// Which worker this is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_worker {
    /// Its seat: the N of `worker#N`, from 0. The next process in the seat has the same. -1 for one
    /// that stands by.
    pub seat: i64,
    /// Which process of the server's workers it is, from 1: no two have the same.
    pub generation: u32,
}

/// Who ended a connection.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_close_reason {
    /// The peer sent FIN.
    TINE_CLOSE_PEER = 0,
    /// The connection broke: the peer sent RST, or the network gave up.
    TINE_CLOSE_BROKEN = 1,
    /// A callback closed or reset it.
    TINE_CLOSE_HANDLER = 2,
    /// The server is shutting down.
    TINE_CLOSE_SHUTDOWN = 3,
    /// The peer took its output too slowly.
    TINE_CLOSE_SLOW_READER = 4,
    /// The peer's bytes are no message.
    TINE_CLOSE_REFUSED = 5,
    /// A worker died in one of its callbacks, or one of them failed.
    TINE_CLOSE_CRASH = 6,
}

/// How a connection ended.
#[repr(C)]
pub struct tine_closed {
    /// Who ended it.
    pub reason: tine_close_reason,
    /// The close deadline passed before a worker was free for this callback: the server has closed
    /// the socket already.
    pub past_deadline: bool,
    /// This callback has been begun before: its worker has died in it, or it has failed.
    pub retried: bool,
}

/// Worker: it has started and serves nobody yet. `*state` is the pointer of
/// tine_server_set_userdata(); what the callback puts there instead is what the other callbacks of
/// this worker are given: a place for a database handle, say. See tine_server_on_worker_start().
pub type tine_worker_start_fn = Option<
    unsafe extern "C-unwind" fn(worker: *const tine_worker, state: *mut *mut c_void) -> StatusIn,
>;

/// Worker: one that stood by takes a seat, before its first callback for a connection.
pub type tine_worker_seated_fn =
    Option<unsafe extern "C-unwind" fn(worker: *const tine_worker, state: *mut c_void) -> StatusIn>;

/// Worker: it is asked to end, after its last callback for a connection.
pub type tine_worker_stop_fn = Option<unsafe extern "C-unwind" fn(state: *mut c_void)>;

/// Worker: something has happened to a connection that needs no more words.
pub type tine_conn_fn =
    Option<unsafe extern "C-unwind" fn(conn: tine_conn, state: *mut c_void) -> StatusIn>;

/// Worker: a message of `length` bytes has come, one at least, framing included. It belongs to the
/// library and is there until the callback returns.
pub type tine_receive_fn = Option<
    unsafe extern "C-unwind" fn(
        conn: tine_conn,
        message: *const c_void,
        length: usize,
        state: *mut c_void,
    ) -> StatusIn,
>;

/// Worker: a connection has ended.
pub type tine_close_fn = Option<
    unsafe extern "C-unwind" fn(
        conn: tine_conn,
        closed: *const tine_closed,
        state: *mut c_void,
    ) -> StatusIn,
>;

/// An address that a server listens on: one of a listener's.
#[repr(C)]
pub struct tine_endpoint {
    /// The address, with the real port: "127.0.0.1:9501".
    pub text: *const c_char,
    /// The name of the listener that it belongs to.
    pub name: *const c_char,
    /// That listener.
    pub listener: tine_listener_id,
}

/// A server that has started. All of it is there until the callback returns.
#[repr(C)]
pub struct tine_started {
    /// Every address that it listens on, in the order in which the listeners were added.
    pub addresses: *const tine_endpoint,
    /// How many addresses.
    pub addresses_length: usize,
    /// Where the connections live.
    pub mode: tine_mode,
    /// How many workers it has.
    pub workers: usize,
    /// How many reactors; 0 in base mode.
    pub reactors: usize,
    /// The process to send signals to: the master, in base mode the manager.
    pub pid: i32,
}

/// Master (base mode: manager): the server has started.
pub type tine_start_fn =
    Option<unsafe extern "C-unwind" fn(started: *const tine_started, userdata: *mut c_void)>;

/// Master or manager: something has happened that needs no more words.
pub type tine_server_fn = Option<unsafe extern "C-unwind" fn(userdata: *mut c_void)>;

/// How a worker ended.
#[repr(C)]
pub struct tine_worker_exit {
    /// Its seat: the N of `worker#N`; -1 for one that stood by.
    pub seat: i64,
    /// The process that ended.
    pub pid: i32,
    /// Its exit status, 0 if a signal ended it.
    pub status: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// It ended although it was not asked to, or otherwise than it was asked to.
    pub abnormal: bool,
}

/// Manager: a worker has ended.
pub type tine_worker_exit_fn =
    Option<unsafe extern "C-unwind" fn(exit: *const tine_worker_exit, userdata: *mut c_void)>;
