//! The types of the callbacks and of their arguments. Each names the process that calls it.

use std::ffi::{c_char, c_void};

use super::conn::tine_conn;
use super::listener::tine_listener_id;
use super::settings::tine_mode;
use super::status::StatusIn;

/// A worker process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_worker {
    /// Its seat: the N of `worker#N`, from 0. The next process in the seat has the same. -1 for a
    /// standby worker.
    pub seat: i64,
    /// The number of the worker process, from 1: no two have the same.
    pub generation: u32,
    /// It runs tasks (tine_server_set_task_workers()) and serves no clients. False for a standby worker, which may get
    /// either kind of seat.
    pub runs_tasks: bool,
}

/// Why a connection ended. Where the close callback can't send, tine_conn_send() returns TINE_ERROR_CLOSED.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_close_reason {
    /// The peer sent FIN. The callback can send, until the close deadline.
    TINE_CLOSE_PEER = 0,
    /// The connection broke: the peer sent RST, or the network gave up. The callback can't send.
    TINE_CLOSE_BROKEN = 1,
    /// A callback closed or reset it, and sent its last bytes before. The close callback can't send.
    TINE_CLOSE_HANDLER = 2,
    /// The server is shutting down. The callback can send, until the shutdown deadline.
    TINE_CLOSE_SHUTDOWN = 3,
    /// The peer took its output too slowly, and was reset. The callback can't send.
    TINE_CLOSE_SLOW_READER = 4,
    /// The protocol refused the peer's bytes. The messages before them are answered first; the callback can
    /// send the last answer, which says what was refused.
    TINE_CLOSE_REFUSED = 5,
    /// A worker died in one of its callbacks, or one of them failed. The callback can't send: the last answer is
    /// that of the crash policy (tine_on_crash).
    TINE_CLOSE_CRASH = 6,
    /// tine_listener_set_open_deadline(): neither side has said anything. The callback can't send.
    TINE_CLOSE_OPEN_DEADLINE = 7,
    /// tine_listener_set_message_deadline(): a message was incomplete for too long. The messages before
    /// it are answered first; the callback can send the last answer.
    TINE_CLOSE_MESSAGE_DEADLINE = 8,
    /// tine_listener_set_idle(): the peer was silent, and nothing was due to it. The callback
    /// can't send.
    TINE_CLOSE_IDLE_DEADLINE = 9,
    /// tine_listener_set_write_deadline(): output was unsent, and the peer acknowledged
    /// nothing. The callback can't send.
    TINE_CLOSE_WRITE_DEADLINE = 10,
    /// tine_listener_set_queue_deadline(): no worker has begun a message of it. The callback
    /// can't send: the last answer is that of the crash policy.
    TINE_CLOSE_QUEUE_DEADLINE = 11,
    /// tine_conn_answer_within(): no callback has sent to it in time. The callback can't send: the last answer is the
    /// reply that was named there.
    TINE_CLOSE_ANSWER_DEADLINE = 12,
    /// tine_conn_send_file(): a file could not be read to the end of its part, since it has become shorter or its disk
    /// failed. The connection was reset; the callback can't send.
    TINE_CLOSE_FILE_FAILED = 13,
}

/// How a connection ended.
#[repr(C)]
pub struct tine_closed {
    /// Why it ended.
    pub reason: tine_close_reason,
    /// The bytes of output that were lost: the socket was closed, with RST, before the peer had
    /// acknowledged them. 0 if they were lost only after this callback: then the log alone has the number.
    pub lost: u64,
    /// The close deadline passed before a worker was free for this callback: the server has closed
    /// the socket already.
    pub past_deadline: bool,
    /// This callback has run before: its worker died in it, or it failed.
    pub retried: bool,
}

/// Worker: it has started, and serves no client yet. `*state` is the pointer of
/// tine_server_set_userdata(). The callback may replace it, with a database handle for example: the
/// other callbacks of this worker are given the new pointer. See tine_server_on_worker_start().
pub type tine_worker_start_fn = Option<
    unsafe extern "C-unwind" fn(worker: *const tine_worker, state: *mut *mut c_void) -> StatusIn,
>;

/// Worker: a standby worker takes a seat, before its first callback for a connection.
pub type tine_worker_seated_fn =
    Option<unsafe extern "C-unwind" fn(worker: *const tine_worker, state: *mut c_void) -> StatusIn>;

/// Worker: it leaves as asked, after its last callback for a connection.
pub type tine_worker_stop_fn = Option<unsafe extern "C-unwind" fn(state: *mut c_void)>;

/// Worker: an event of a connection without further arguments.
pub type tine_conn_fn =
    Option<unsafe extern "C-unwind" fn(conn: tine_conn, state: *mut c_void) -> StatusIn>;

/// Worker: the connection's timer with this tag has fired.
pub type tine_timer_fn =
    Option<unsafe extern "C-unwind" fn(conn: tine_conn, tag: u64, state: *mut c_void) -> StatusIn>;

/// Worker: a callback has posted `length` bytes to it. They belong to the library and are valid until the callback
/// returns.
pub type tine_post_fn = Option<
    unsafe extern "C-unwind" fn(
        bytes: *const c_void,
        length: usize,
        state: *mut c_void,
    ) -> StatusIn,
>;

/// Worker: a message of `length` bytes has come, at least one, framing included. It belongs to the
/// library and is valid until the callback returns.
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

/// An address that a server listens on.
#[repr(C)]
pub struct tine_endpoint {
    /// The address, with the real port: "127.0.0.1:9501".
    pub text: *const c_char,
    /// The name of its listener.
    pub name: *const c_char,
    /// Its listener.
    pub listener: tine_listener_id,
}

/// A server that has started. Valid until the callback returns.
#[repr(C)]
pub struct tine_started {
    /// Every address that it listens on, in the order in which the listeners were added.
    pub addresses: *const tine_endpoint,
    /// The number of addresses.
    pub addresses_length: usize,
    /// Where the connections live.
    pub mode: tine_mode,
    /// The number of workers with seats.
    pub workers: usize,
    /// The number of reactors; 0 in base mode.
    pub reactors: usize,
    /// The process to send signals to: the master, in base mode the manager.
    pub pid: i32,
    /// The number of task workers. They have the seats after those of the workers for clients.
    pub task_workers: usize,
}

/// Master (base mode: manager): the server has started.
pub type tine_start_fn =
    Option<unsafe extern "C-unwind" fn(started: *const tine_started, userdata: *mut c_void)>;

/// Master or manager: an event without further arguments.
pub type tine_server_fn = Option<unsafe extern "C-unwind" fn(userdata: *mut c_void)>;

/// How a worker ended.
#[repr(C)]
pub struct tine_worker_exit {
    /// Its seat: the N of `worker#N`; -1 for a standby worker.
    pub seat: i64,
    /// The pid of the process.
    pub pid: i32,
    /// Its exit status; 0 if a signal ended it.
    pub status: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// The exit is abnormal: the worker was not asked to leave, or did not leave in order.
    pub abnormal: bool,
}

/// Manager: a worker has ended.
pub type tine_worker_exit_fn =
    Option<unsafe extern "C-unwind" fn(exit: *const tine_worker_exit, userdata: *mut c_void)>;
