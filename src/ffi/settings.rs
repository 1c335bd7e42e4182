//! The setters of settings: one for each. The setters of callbacks are in [`super::on`].

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::policy::{
    self, DispatchIn, choose, decide, dispatch, redeliver, tine_crash_fn, tine_dispatch_fn,
};
use super::server::{required, set, tine_server};
use super::status::{Failure, tine_status};
use super::{Userdata, pick, text};
use crate::config::policy::OnCrash;
use crate::config::{LimitAction, Mode};
use crate::server::Server;

/// No deadline, for the setters of deadlines that name it.
pub const TINE_NEVER: u64 = u64::MAX;

/// Where the connections live.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_mode {
    /// A master owns every socket, and workers run the callbacks: connections outlive a worker that dies
    /// or blocks. The default.
    TINE_MODE_PROCESS = 0,
    /// Each worker accepts and serves its own connections: no process is between socket and callback,
    /// and no connection outlives its worker.
    TINE_MODE_BASE = 1,
}

/// One of tine_mode, from C.
pub type ModeIn = i32;

/// The action for a callback that runs longer than its limit.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_limit_action {
    /// Log a warning with the worker's stack, once for each callback.
    TINE_LIMIT_WARN = 0,
    /// Log it, and kill the worker; the crash policy decides the fate of the message.
    TINE_LIMIT_KILL = 1,
}

/// One of tine_limit_action, from C.
pub type LimitActionIn = i32;

/// The byte order of a length.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_byte_order {
    /// The most significant byte first: network byte order.
    TINE_BIG_ENDIAN = 0,
    /// The least significant byte first.
    TINE_LITTLE_ENDIAN = 1,
}

/// One of tine_byte_order, from C.
pub type ByteOrderIn = i32;

/// The bytes that a length counts.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_counts {
    /// The bytes after it.
    TINE_COUNTS_BODY = 0,
    /// The whole message, the length included.
    TINE_COUNTS_ALL = 1,
}

/// One of tine_counts, from C.
pub type CountsIn = i32;

/// A setting that takes any value: tine_server_run() checks it.
pub(super) fn set_plain(
    server: *mut tine_server,
    apply: impl FnOnce(Server) -> Server,
) -> tine_status {
    set(server, || Ok(()), |server, ()| apply(server))
}

/// Sets where the connections live. Default: TINE_MODE_PROCESS.
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

/// Sets the number of worker processes, 1 to 511. Default: the cores of the machine.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_workers(
    server: *mut tine_server,
    workers: usize,
) -> tine_status {
    set_plain(server, |server| server.workers(workers))
}

/// Sets the number of standby workers, 0 to 511: they start and run `worker_start`, and when a worker
/// dies, one of them takes its seat at once. Default: 0.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_standby(
    server: *mut tine_server,
    workers: usize,
) -> tine_status {
    set_plain(server, |server| server.standby(workers))
}

/// Sets the number of reactor threads of the master, 1 to 1023. Base mode has none. Default: half the
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

/// Sets the most connections that are open at once, 1 to 4,194,304: of the server in process mode, of
/// each worker in base mode. Further clients wait in the kernel. Default: 65,536, or as many as the limit
/// of open files allows.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_max_connections(
    server: *mut tine_server,
    connections: usize,
) -> tine_status {
    set_plain(server, |server| server.max_connections(connections))
}

/// Sets the most connections of one client address that are open at once, 1 to 4,194,304: of the server in
/// process mode, of each worker in base mode. Further connections from there are reset as soon as they are
/// accepted. An IPv6 client counts by its first 64 bits. Default: no limit.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_max_connections_per_address(
    server: *mut tine_server,
    connections: usize,
) -> tine_status {
    set_plain(server, |server| {
        server.max_connections_per_address(connections)
    })
}

/// Sets which worker a connection's messages go to, in process mode. Default:
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

/// Sets a function that chooses the seat of each callback, in process mode, in place of
/// tine_server_set_dispatch(). Callbacks of one connection stay in order: one for another seat waits for
/// those before it. A connection for an empty seat waits for the next worker there.
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

/// When a worker dies in a callback, its connection is closed after its committed output, so that the
/// client learns of it at once. The default. This and the next three set one setting: the last call
/// counts. A function set by tine_server_set_crash_fn() replaces it. tine_on_crash has the rules for all.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_crash_close(server: *mut tine_server) -> tine_status {
    set_plain(server, |server| server.on_crash(OnCrash::Close))
}

/// When a worker dies in a callback, the callback is run again in another worker, up to `attempts` times
/// in all, 1 to 255, the first run included; other numbers are refused. With 1 it is not run again, unless it is a `close`
/// in which a worker died. Then its message is logged and its connection closed. A callback that has called
/// tine_flush() is not run again, and its connection is closed.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_crash_redeliver(
    server: *mut tine_server,
    attempts: u32,
) -> tine_status {
    set(server, || redeliver(attempts), Server::on_crash)
}

/// When a worker dies in a callback, these bytes are sent, and the connection is closed: a ready-made
/// "502 Bad Gateway", for example. They are copied. After a tine_flush() the connection is only closed.
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
        || unsafe { policy::reply(reply, length) }.map(OnCrash::Reply),
        Server::on_crash,
    )
}

/// When a worker dies in `receive`, these bytes are the answer to the message, and the connection stays: the error of a
/// protocol, for example. They are copied. Listeners need a protocol that knows where the next message begins. After a
/// tine_flush(), and for other callbacks, it is as with tine_server_set_crash_reply().
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_crash_answer(
    server: *mut tine_server,
    answer: *const c_void,
    length: usize,
) -> tine_status {
    set(
        server,
        // SAFETY: tine.h asks it of the caller.
        || unsafe { policy::reply(answer, length) }.map(OnCrash::Answer),
        Server::on_crash,
    )
}

/// When a worker dies in a callback, its message is dropped: the client waits, and a connection that it
/// closes stays in CLOSE_WAIT. Other servers behave like that; it is here for comparison.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_crash_keep(server: *mut tine_server) -> tine_status {
    set_plain(server, |server| server.on_crash(OnCrash::Keep))
}

/// Sets a function that decides the fate of each callback in which a worker died, or that failed.
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

/// Sets how many milliseconds a callback may run, 1 or more, and the action for one that runs longer.
/// Time in which the worker is stopped or the machine is suspended does not count. Default: no limit.
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

/// Recycles a worker after this many messages, 1 or more, plus up to 25 % jitter so that workers are not
/// all recycled at once. One seat at a time; the new worker starts first. Default: never.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_max_requests(
    server: *mut tine_server,
    messages: u64,
) -> tine_status {
    set_plain(server, |server| server.max_requests(messages))
}

/// Recycles a worker with more than this many bytes of private memory, at least 1 MiB, and kills one with
/// more than twice as many. Default: no limit.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_worker_memory(
    server: *mut tine_server,
    bytes: u64,
) -> tine_status {
    set_plain(server, |server| server.worker_memory(bytes))
}

/// Ends the server with TINE_ERROR_CRASH_LOOP when every seat has been in back-off for this many
/// milliseconds: its workers died young, before their first callback. Default: the server keeps trying.
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

/// Sets how many milliseconds after the peer's FIN, or after the last byte that the peer took since, the
/// socket is closed, whether or not the worker has finished. With TINE_NEVER the socket may stay in
/// CLOSE_WAIT. Default: 5,000.
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

/// Sets how many milliseconds a server that is shut down, or a worker that is replaced, may take to
/// finish its work. Default: 10,000.
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

/// Writes the pid of the process that handles signals (the master, in base mode the manager) to a file,
/// atomically, and removes the file at the end if it is still this server's. A file that names another
/// process which runs is refused, and so is anything but a regular file. Default: no file.
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

/// Sets the name of the server in the titles of its processes, for ps(1) and pkill -f: `tine[NAME] worker#0: `
/// and the command line. 1 to 64 letters, digits, '.', '_', '-' and ':'. Default: the first port that it listens
/// on.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_name(
    server: *mut tine_server,
    name: *const c_char,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    let name = || unsafe { text("name", name) };
    set(server, name, Server::name)
}

/// Sets a process, by pid, with which the server ends: by force, as after a second SIGINT. It need not be the
/// parent of the calling process. Default: none.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_die_with(
    server: *mut tine_server,
    pid: u32,
) -> tine_status {
    set_plain(server, |server| server.die_with(pid))
}

/// Sets the most bytes of a poisonous message, one that has used up its attempts, that the log shows, on one
/// line: 0 to 65536. With 0 the log has its length alone. Default: 256.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_poison_shown(
    server: *mut tine_server,
    bytes: usize,
) -> tine_status {
    set_plain(server, |server| server.poison_shown(bytes))
}

/// Sets how many times the function for a post (tine_server_on_post()) is called, if the worker dies in it or it fails,
/// before the post is dropped and logged: 1 to 255. Default: 3.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_post_attempts(
    server: *mut tine_server,
    attempts: u8,
) -> tine_status {
    set_plain(server, |server| server.post_attempts(attempts))
}

/// Sets the high-water mark: reading from a connection pauses while more than this many of its bytes are
/// unsent, and resumes at half of it; `paused` and `resumed` are called. 1 up to the output limit, at most
/// 8 GiB. Default: 1 MiB.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_output_high_water(
    server: *mut tine_server,
    bytes: usize,
) -> tine_status {
    set_plain(server, |server| server.output_high_water(bytes))
}

/// Sets the most unsent bytes of a connection: one with more is closed as a slow reader. Also the most
/// bytes that one callback can send (TINE_ERROR_OVER_LIMIT): each tine_conn_send() counts 64 bytes more
/// than it sends, and one with more than 128 KiB counts as several. At least the high-water mark, at most
/// 16 GiB. Default: the high-water mark plus the size of an inbox and of the longest message; at
/// least 16 MiB, where the default of the memory budget has room for it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_output_limit(
    server: *mut tine_server,
    bytes: usize,
) -> tine_status {
    set_plain(server, |server| server.output_limit(bytes))
}

/// Sets the most bytes that the process which owns the sockets holds for all its connections: unsent
/// output, and incomplete messages. Over the budget, the connections that hold most are closed. At least
/// the output limit (and the longest message, unless raw) for each reactor. Default: twice that, at least
/// 256 MiB; but no more than a quarter of the memory that the server may use (the limits of its cgroups and of its
/// address space, RAM), unless the least is more.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_memory_budget(
    server: *mut tine_server,
    bytes: usize,
) -> tine_status {
    set_plain(server, |server| server.memory_budget(bytes))
}
