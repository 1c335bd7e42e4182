//! Timers of the server.

use std::ffi::c_void;
use std::time::Duration;

use super::conn::with_context;
use super::pick;
use super::server::{change, required, set, tine_server};
use super::status::{Failure, StatusIn, tine_status};
use crate::config::Run;

/// The workers that run the function for a timer of the server.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_run {
    /// One worker each time: the one with the fewest messages to handle, as far as the dispatch counts them.
    TINE_RUN_ONE = 0,
    /// Each worker that has a seat, but for task workers.
    TINE_RUN_EACH = 1,
}

/// One of tine_run, from C.
pub type RunIn = i32;

/// Worker: a timer of the server with this tag has fired.
pub type tine_server_timer_fn =
    Option<unsafe extern "C-unwind" fn(tag: u64, state: *mut c_void) -> StatusIn>;

fn run(run: RunIn) -> Result<Run, Failure> {
    const RUNS: [(RunIn, Run); 2] = [
        (tine_run::TINE_RUN_ONE as RunIn, Run::One),
        (tine_run::TINE_RUN_EACH as RunIn, Run::Each),
    ];
    pick("run", run, &RUNS)
}

/// Sets a timer of the server: tine_server_on_server_timer()'s function is called once with this tag when the time has
/// passed, in one worker or in each. It belongs to no connection, and is the master's: workers may come and go. The server
/// has one timer for each tag. If the same one is set already, nothing changes, so that each worker may set it; one with
/// another time, another `run`, or of tine_every(), is replaced. It is part of the callback's output, and its time counts
/// from the commit.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_FULL, TINE_ERROR_OVER_LIMIT as for tine_post_to_seat(), and
/// TINE_ERROR_OTHER_WORKER in base mode for TINE_RUN_EACH: there each worker has timers of its own, which end with it.
#[unsafe(no_mangle)]
pub extern "C" fn tine_after(milliseconds: u64, tag: u64, run: RunIn) -> tine_status {
    with_context(|cx| Ok(cx.after(Duration::from_millis(milliseconds), tag, self::run(run)?)?))
}

/// Sets a timer of the server as tine_after() does, which fires again each time that the interval has passed: at least a
/// millisecond. While its callbacks of the last time are under way, it does not fire: that time is left out.
/// tine_server_every() sets one from the start.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: as tine_after().
#[unsafe(no_mangle)]
pub extern "C" fn tine_every(milliseconds: u64, tag: u64, run: RunIn) -> tine_status {
    with_context(|cx| Ok(cx.every(Duration::from_millis(milliseconds), tag, self::run(run)?)?))
}

/// Cancels the timer of the server with this tag, if there is one. A callback that is on its way to a worker by then still
/// runs.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: TINE_ERROR_OUTSIDE, TINE_ERROR_OVER_LIMIT as for tine_post_to_seat().
#[unsafe(no_mangle)]
pub extern "C" fn tine_cancel(tag: u64) -> tine_status {
    with_context(|cx| Ok(cx.cancel(tag)?))
}

/// Sets a timer that the server has from its start, as tine_every() does later. In base mode each worker has timers of its
/// own, and tine_server_run() refuses TINE_RUN_ONE.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_every(
    server: *mut tine_server,
    milliseconds: u64,
    tag: u64,
    run: RunIn,
) -> tine_status {
    let interval = Duration::from_millis(milliseconds);
    set(
        server,
        || self::run(run),
        |server, run| server.every(interval, tag, run),
    )
}

/// Worker: a function for a timer of the server that has fired. It runs as tine_server_on_post()'s function does.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_server_timer(
    server: *mut tine_server,
    function: tine_server_timer_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.server_timer = Some(required(function)?);
        Ok(())
    })
}
