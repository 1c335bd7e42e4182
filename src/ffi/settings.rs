//! What is set on a server before it runs: one function for each setting. What is called is
//! in [`super::on`].

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::policy::{
    self, DispatchIn, choose, decide, dispatch, redeliver, tine_crash_fn, tine_dispatch_fn,
};
use super::server::{required, set, tine_server};
use super::status::{Failure, tine_status};
use super::{Userdata, pick};
use crate::config::policy::OnCrash;
use crate::config::{LimitAction, Mode};
use crate::server::Server;

/// No deadline at all, for tine_server_set_close_deadline().
pub const TINE_NEVER: u64 = u64::MAX;

/// Where the connections live.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_mode {
    /// A master owns every socket, and workers run the callbacks: a worker's death or blocking is
    /// not its clients'. The default.
    TINE_MODE_PROCESS = 0,
    /// Each worker accepts and serves by itself: nothing between socket and callback, and nothing
    /// that outlives a worker.
    TINE_MODE_BASE = 1,
}

/// One of tine_mode, from C.
pub type ModeIn = i32;

/// What is done about a callback that runs longer than its limit.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_limit_action {
    /// The log says so, once a callback, with where the worker's stack stands.
    TINE_LIMIT_WARN = 0,
    /// It says so, and the worker is killed; the crash policy decides what becomes of the message.
    TINE_LIMIT_KILL = 1,
}

/// One of tine_limit_action, from C.
pub type LimitActionIn = i32;

/// Which byte of a length comes first.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_byte_order {
    /// The most significant one, called network byte order.
    TINE_BIG_ENDIAN = 0,
    /// The least significant one.
    TINE_LITTLE_ENDIAN = 1,
}

/// One of tine_byte_order, from C.
pub type ByteOrderIn = i32;

/// What the number in a length counts.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_counts {
    /// The bytes behind it.
    TINE_COUNTS_BODY = 0,
    /// The whole message, itself included.
    TINE_COUNTS_ALL = 1,
}

/// One of tine_counts, from C.
pub type CountsIn = i32;

/// A setting that takes any value: what is wrong with it is said by tine_server_run().
fn set_plain(server: *mut tine_server, apply: impl FnOnce(Server) -> Server) -> tine_status {
    set(server, || Ok(()), |server, ()| apply(server))
}

/// Where the connections live. Default: TINE_MODE_PROCESS.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_mode(
    server: *mut tine_server,
    mode: ModeIn,
) -> tine_status {
    const MODES: [(ModeIn, Mode); 2] = [
        (tine_mode::TINE_MODE_PROCESS as ModeIn, Mode::Process),
        (tine_mode::TINE_MODE_BASE as ModeIn, Mode::Base),
    ];
    set(server, || pick("mode", mode, &MODES), Server::mode)
}

/// How many worker processes, 1 to 511. Default: the cores of the machine.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_workers(
    server: *mut tine_server,
    workers: usize,
) -> tine_status {
    set_plain(server, |server| server.workers(workers))
}

/// The number of workers that are started beside those that serve, and wait with `worker_start` run:
/// the seat of one that dies is handed to them at once. 0 to 511. Default: 0.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_standby(
    server: *mut tine_server,
    workers: usize,
) -> tine_status {
    set_plain(server, |server| server.standby(workers))
}

/// How many reactor threads the master has, 1 to 1023. Base mode has none. Default: half the
/// cores, at least 1.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_reactors(
    server: *mut tine_server,
    reactors: usize,
) -> tine_status {
    set_plain(server, |server| server.reactors(reactors))
}

/// How many connections may be open at once, 1 to 4,194,304: in process mode in all, in base mode
/// in each worker. More wait in the kernel. Default: 65,536, or as many as the limit of open files
/// allows.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_max_connections(
    server: *mut tine_server,
    connections: usize,
) -> tine_status {
    set_plain(server, |server| server.max_connections(connections))
}

/// Which worker a connection's messages go to, in process mode. Default:
/// TINE_DISPATCH_LEAST_CONNECTIONS.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_dispatch(
    server: *mut tine_server,
    mode: DispatchIn,
) -> tine_status {
    set(server, || dispatch(mode), Server::dispatch)
}

/// A function chooses the seat of each callback, in process mode, in place of
/// tine_server_set_dispatch(). Callbacks of one connection
/// stay in order: one that goes elsewhere waits for those before it. A connection that it sends
/// to an empty seat waits for the next worker there.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_dispatch_fn(
    server: *mut tine_server,
    function: tine_dispatch_fn,
    userdata: *mut c_void,
) -> tine_status {
    let userdata = Userdata(userdata);
    set(
        server,
        || required(function),
        |server, function| server.dispatch_with(choose(function, userdata)),
    )
}

/// When a worker dies in a callback, its connection is closed after what was sent to it before:
/// the client learns at once. The default. This and the next three are one setting, of which the
/// last call counts; a function set by tine_server_set_crash_fn() is asked in place of it. See
/// tine_on_crash for what all have in common.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_crash_close(server: *mut tine_server) -> tine_status {
    set_plain(server, |server| server.on_crash(OnCrash::Close))
}

/// When a worker dies in a callback, the callback is run again in another worker, until it has
/// killed `attempts` of them, 1 to 255; then its message is logged and its connection closed. So
/// is the connection of a callback that has called tine_flush().
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_crash_redeliver(
    server: *mut tine_server,
    attempts: u32,
) -> tine_status {
    set(server, || redeliver(attempts), Server::on_crash)
}

/// When a worker dies in a callback, these bytes are sent, and the connection is closed: a ready-
/// made "502 Bad Gateway", say. They are copied. After a tine_flush() the connection is only
/// closed.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_crash_reply(
    server: *mut tine_server,
    reply: *const c_void,
    length: usize,
) -> tine_status {
    set(
        server,
        // SAFETY: tine.h asks it of the caller.
        || unsafe { policy::reply(reply, length) },
        Server::on_crash,
    )
}

/// When a worker dies in a callback, nothing is done: the client waits, and a connection that it
/// closes stays in CLOSE_WAIT. What other servers do; here it is for seeing what comes of it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_crash_keep(server: *mut tine_server) -> tine_status {
    set_plain(server, |server| server.on_crash(OnCrash::Keep))
}

/// A function decides the fate of each callback in which a worker has died.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_crash_fn(
    server: *mut tine_server,
    function: tine_crash_fn,
    userdata: *mut c_void,
) -> tine_status {
    let userdata = Userdata(userdata);
    set(
        server,
        || required(function),
        |server, function| server.on_crash_with(decide(function, userdata)),
    )
}

/// How many milliseconds a callback may run, 1 or more, and what is done then. Time in which the
/// worker is stopped or the machine sleeps does not count. Default: no limit.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_callback_limit(
    server: *mut tine_server,
    milliseconds: u64,
    action: LimitActionIn,
) -> tine_status {
    const ACTIONS: [(LimitActionIn, LimitAction); 2] = [
        (
            tine_limit_action::TINE_LIMIT_WARN as LimitActionIn,
            LimitAction::Warn,
        ),
        (
            tine_limit_action::TINE_LIMIT_KILL as LimitActionIn,
            LimitAction::Kill,
        ),
    ];
    set(
        server,
        || pick("action", action, &ACTIONS),
        |server, action| {
            let limit = Duration::from_millis(milliseconds);
            server.callback_limit(limit).on_limit(action)
        },
    )
}

/// Recycles a worker after this many messages, plus up to 25 % so that workers are not all recycled at
/// once: one seat at a time, the new worker first. 1 or more. Default: never.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_max_requests(
    server: *mut tine_server,
    messages: u64,
) -> tine_status {
    set_plain(server, |server| server.max_requests(messages))
}

/// Recycles a worker that has more than this many bytes of private memory, and kills one that has
/// twice as many. At least 1 MiB. Default: no limit.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_worker_memory(
    server: *mut tine_server,
    bytes: u64,
) -> tine_status {
    set_plain(server, |server| server.worker_memory(bytes))
}

/// Ends the server with TINE_ERROR_CRASH_LOOP when for so many milliseconds every worker has died young
/// without having served anybody. Default: it goes on trying.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_fail_on_crash_loop(
    server: *mut tine_server,
    milliseconds: u64,
) -> tine_status {
    let after = Duration::from_millis(milliseconds);
    set_plain(server, |server| server.fail_on_crash_loop(after))
}

/// How many milliseconds after the peer's FIN, or after the last byte that it took since, the
/// socket is closed whatever the worker does. With TINE_NEVER the socket may stay in CLOSE_WAIT
/// for good. Default: 5,000.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_close_deadline(
    server: *mut tine_server,
    milliseconds: u64,
) -> tine_status {
    let deadline = (milliseconds != TINE_NEVER).then(|| Duration::from_millis(milliseconds));
    set_plain(server, |server| server.close_deadline(deadline))
}

/// How many milliseconds a server that was asked to end, or a worker that is replaced, may take
/// to finish what it has begun. Default: 10,000.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_shutdown_deadline(
    server: *mut tine_server,
    milliseconds: u64,
) -> tine_status {
    let deadline = Duration::from_millis(milliseconds);
    set_plain(server, |server| server.shutdown_deadline(deadline))
}

/// Writes the pid of the process that takes the signals (the master, in base mode the manager) to
/// a file, whole or not at all, and removes it at the end. Default: no file.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_pid_file(
    server: *mut tine_server,
    path: *const c_char,
) -> tine_status {
    set(
        server,
        || {
            if path.is_null() {
                return Err(Failure::null("path"));
            }
            // SAFETY: not NULL; the caller vouches for the NUL at its end. A path is any bytes.
            let path = unsafe { CStr::from_ptr(path) }.to_bytes();
            Ok(PathBuf::from(OsStr::from_bytes(path)))
        },
        Server::pid_file,
    )
}

/// High-water mark: reading from a connection pauses while more than this many of its bytes are
/// unsent, and resumes at half of it; `paused` and `resumed` tell the worker. 1 up to the output
/// limit, at most 8 GiB. Default: 1 MiB.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_output_high_water(
    server: *mut tine_server,
    bytes: usize,
) -> tine_status {
    set_plain(server, |server| server.output_high_water(bytes))
}

/// With more bytes than this unsent, a connection is closed as a slow reader; and one callback
/// can send no more (TINE_ERROR_OVER_LIMIT). Each tine_conn_send() counts 64 bytes besides, and more than
/// 128 KiB count as several. At least the high-water mark, at most 16 GiB. Default: the high-water
/// mark and what one inbox holds, at least 16 MiB.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_output_limit(
    server: *mut tine_server,
    bytes: usize,
) -> tine_status {
    set_plain(server, |server| server.output_limit(bytes))
}

/// How many bytes the process that owns the sockets may hold for all its connections: unsent
/// output, and messages that are not complete. Past it, the connections that hold most are
/// closed. At least the output limit (and the longest message, where messages are cut) for each
/// reactor. Default: twice that, at least 256 MiB.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_memory_budget(
    server: *mut tine_server,
    bytes: usize,
) -> tine_status {
    set_plain(server, |server| server.memory_budget(bytes))
}
