//! The setters of callbacks: one for each callback of workers, master and manager.

use std::ffi::c_void;

use super::Userdata;
use super::callbacks::{
    tine_close_fn, tine_conn_fn, tine_post_fn, tine_receive_fn, tine_server_fn, tine_start_fn,
    tine_timer_fn, tine_worker_exit, tine_worker_exit_fn, tine_worker_seated_fn,
    tine_worker_start_fn, tine_worker_stop_fn,
};
use super::handler::seat;
use super::server::{change, required, set, tell_started, tine_server};
use super::status::tine_status;

/// Sets a pointer for the callbacks of the workers: their `state`, until `worker_start` replaces it in
/// its worker. Each worker has its own copy of all memory as of its fork: the target of the pointer is
/// a copy, and no other process sees changes that one worker makes to it. Default: NULL.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_userdata(
    server: *mut tine_server,
    userdata: *mut c_void,
) -> tine_status {
    change(server, |server| {
        server.userdata = Userdata(userdata);
        Ok(())
    })
}

/// Worker: a function that prepares the worker, for resources that each worker has of its own: a
/// database handle, a random seed. It may block. If it fails, the worker does not start, and a starting
/// server ends. In a running server, a worker that takes longer than a minute, the shutdown deadline and
/// twice the longest start so far is killed, and another one is started.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_worker_start(
    server: *mut tine_server,
    function: tine_worker_start_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.worker_start = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function for a standby worker that takes the seat of a dead one, called before its first
/// callback for a connection. Its `worker_start` has run already, without a seat. If it fails, the
/// worker exits, as after a crash.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_worker_seated(
    server: *mut tine_server,
    function: tine_worker_seated_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.worker_seated = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function for a client that has connected. With tine_server_set_crash_redeliver() it may run
/// more than once for a connection; and `close` follows also after a `connect` that has killed its last
/// worker.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_connect(
    server: *mut tine_server,
    function: tine_conn_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.connect = Some(required(function)?);
        Ok(())
    })
}

/// Worker: the function for a message, the one callback that a server must have.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_receive(
    server: *mut tine_server,
    function: tine_receive_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.receive = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function for a connection that has ended, its last callback. Bytes sent there still reach a
/// peer that has closed only its writing side.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_close(
    server: *mut tine_server,
    function: tine_close_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.close = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function for a connection from which reading has paused, as its peer reads too slowly: see
/// tine_server_set_output_high_water().
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_paused(
    server: *mut tine_server,
    function: tine_conn_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.paused = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function for the end of the pause: unsent output has fallen to half of the high-water mark,
/// and the server reads from the connection again.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_resumed(
    server: *mut tine_server,
    function: tine_conn_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.resumed = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function for a connection that has been idle for as long as tine_listener_set_idle() allows, if
/// its listener has TINE_IDLE_CALL. It may send a ping, or close the connection; without a function the
/// connection is closed.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_idle(
    server: *mut tine_server,
    function: tine_conn_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.idle = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function for a timer that has fired, which a callback has set by tine_conn_after(). Its output and the
/// end of the timer are committed together: if its worker dies, the crash policy decides whether it runs again, as
/// for a message.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_timer(
    server: *mut tine_server,
    function: tine_timer_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.timer = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function that is called when the socket has taken all output of a connection, once for each
/// tine_conn_notify_drained(). More can be sent there, up to the output limit, and so on: an answer of any length is
/// streamed without waiting for a slow client, and without being cut.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_drained(
    server: *mut tine_server,
    function: tine_conn_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.drained = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function for what callbacks have posted to this worker by tine_post_to_seat() and its like. Its output and the end
/// of the post are committed together; if its worker dies in it, or it fails, it runs again, as often as
/// tine_server_set_post_attempts() allows, in base mode once. It is about no connection.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_post(
    server: *mut tine_server,
    function: tine_post_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.post = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function that releases the resources of `worker_start`, when the worker leaves as asked. Not
/// called when it crashes. After it, the worker ends by _exit(2): handlers of atexit(3) belong to the
/// process that has forked it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_worker_stop(
    server: *mut tine_server,
    function: tine_worker_stop_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.worker_stop = Some(required(function)?);
        Ok(())
    })
}

/// Master (base mode: manager): a function that is called once every worker is ready. In the master it
/// may start threads, in the manager it must not. No signal is handled before it returns, and in process
/// mode no connection accepted.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_start(
    server: *mut tine_server,
    function: tine_start_fn,
    userdata: *mut c_void,
) -> tine_status {
    let userdata = Userdata(userdata);
    set(
        server,
        || required(function),
        |server, function| {
            server.on_start(move |started| tell_started(started, function, userdata))
        },
    )
}

/// Master (base mode: manager): a function that is called after an orderly end, when every worker
/// has ended.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_shutdown(
    server: *mut tine_server,
    function: tine_server_fn,
    userdata: *mut c_void,
) -> tine_status {
    let userdata = Userdata(userdata);
    set(
        server,
        || required(function),
        |server, function| {
            // SAFETY: the user's function, called where tine.h says.
            server.on_shutdown(move || unsafe { function(userdata.get()) })
        },
    )
}

/// Manager: a function that is called before the first worker is forked. It must start no thread.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_manager_start(
    server: *mut tine_server,
    function: tine_server_fn,
    userdata: *mut c_void,
) -> tine_status {
    let userdata = Userdata(userdata);
    set(
        server,
        || required(function),
        |server, function| {
            // SAFETY: the user's function, called where tine.h says.
            server.on_manager_start(move || unsafe { function(userdata.get()) })
        },
    )
}

/// Manager: a function that is called when the last worker has left.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_manager_stop(
    server: *mut tine_server,
    function: tine_server_fn,
    userdata: *mut c_void,
) -> tine_status {
    let userdata = Userdata(userdata);
    set(
        server,
        || required(function),
        |server, function| {
            // SAFETY: the user's function, called where tine.h says.
            server.on_manager_stop(move || unsafe { function(userdata.get()) })
        },
    )
}

/// Manager: a function that is called when a worker has exited, abnormally or not, after its log line and
/// after its seat was refilled. No worker is forked or reaped before it returns, and it must start no
/// thread.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_worker_exit(
    server: *mut tine_server,
    function: tine_worker_exit_fn,
    userdata: *mut c_void,
) -> tine_status {
    let userdata = Userdata(userdata);
    set(
        server,
        || required(function),
        |server, function| {
            server.on_worker_exit(move |exit| {
                let exit = tine_worker_exit {
                    seat: seat(exit.seat()),
                    pid: exit.pid(),
                    status: exit.status(),
                    signal: exit.signal(),
                    abnormal: exit.is_abnormal(),
                };
                // SAFETY: the user's function, called where tine.h says.
                unsafe { function(&exit, userdata.get()) };
            })
        },
    )
}
