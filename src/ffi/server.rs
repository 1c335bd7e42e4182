//! The server of C: made, run, stopped, freed. Its settings are in [`super::settings`].

use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::callbacks::{tine_endpoint, tine_started};
use super::handler::{CallbackHandler, Callbacks};
use super::settings::tine_mode;
use super::status::{Failure, boundary, tine_status};
use super::{Userdata, text};
use crate::config::{Listener, Mode};
use crate::server::{Handle, HandleError, Server, Started};

/// A server before its start: its settings and its callbacks. One thread at a time may use it.
pub struct tine_server {
    /// `None` once it runs.
    server: Option<Server>,
    pub(super) callbacks: Callbacks,
    pub(super) userdata: Userdata,
    /// The first setting that was refused.
    refused: Option<Failure>,
    /// Works while the server runs.
    handle: Handle,
}

impl tine_server {
    /// Adds a listener to a server that has not run yet.
    pub(super) fn listen(&mut self, listener: Listener) {
        self.server = self.server.take().map(|server| server.listen(listener));
    }
}

/// Makes a server with default settings: process mode, 127.0.0.1:9501, as many workers as the
/// machine has cores, half as many reactors. It takes no resources of the system yet. Free it with
/// tine_server_free(). Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tine_server_new() -> *mut tine_server {
    let server = Server::new();
    Box::into_raw(Box::new(tine_server {
        handle: server.handle(),
        server: Some(server),
        callbacks: Callbacks::default(),
        userdata: Userdata(ptr::null_mut()),
        refused: None,
    }))
}

/// Frees a server, whether it has run or not; NULL is fine. Every `userdata` remains the program's to
/// free. Must not be called while it runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_free(server: *mut tine_server) {
    if !server.is_null() {
        boundary(|| {
            // SAFETY: tine.h asks it of the caller.
            drop(unsafe { Box::from_raw(server) });
            Ok(())
        });
    }
}

/// Adds a raw listener with the default limits, on an address: "127.0.0.1:9501", "[::1]:9501",
/// "localhost:9501" (on every address of the name, looked up by tine_server_run()). "0.0.0.0:9501" is every
/// IPv4 address of the machine, and "[::]:9501" every IPv6 address alone. With port 0 the kernel chooses a port, which is in
/// tine_started. "unix:PATH" is as of tine_listener_unix(), and "fd:3", "systemd" and "systemd:NAME" as of
/// tine_listener_inherited(). A server without a listener listens on 127.0.0.1:9501. The address is checked by
/// tine_server_run(). tine_listener_tcp() makes a listener with its own protocol and limits.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_listen(
    server: *mut tine_server,
    address: *const c_char,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    let address = || unsafe { text("address", address) };
    set(server, address, Server::listen)
}

/// Runs the server until SIGTERM, SIGINT, tine_server_stop() or tine_stop() stops it, then returns; a
/// server can be run once. It forks, and must be called while the process has one thread, and in no
/// callback. The calling process becomes the master, in base mode the manager. The other processes exit
/// inside this function, and never return from it.
///
/// While it runs, signals of the calling process are the server's: TERM, INT and QUIT shut it down
/// gracefully, a second INT by force if it comes half a second after the first or later, USR1 replaces the
/// workers one at a time; HUP, USR2, PIPE and XFSZ have no effect. Handlers that the program has set for
/// these and for CHLD are set aside, and not called; they are back when it returns. ALRM, VTALRM, PROF, POLL,
/// STKFLT, PWR and real-time signals have no effect either, unless the program has a handler. In a worker they
/// are as the program has set them.
///
/// Errors: TINE_ERROR_NULL. TINE_ERROR_INVALID for a server without a `receive` callback. The first
/// error that a setter has returned. TINE_ERROR_ALREADY, also in a callback. All from TINE_ERROR_SETTING
/// on. In every case, no process is left running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_run(server: *mut tine_server) -> tine_status {
    boundary(|| {
        // SAFETY: tine.h asks it of the caller. The borrow ends before any callback runs, which may
        // have the same pointer.
        let (server, callbacks, userdata, _running) = unsafe { taken(server) }?;
        super::conn::see_to_forks()?;
        super::log::start_by_default();
        server.run(|worker| CallbackHandler::start(callbacks, userdata, worker))?;
        Ok(())
    })
}

/// Shuts a running server down gracefully, as SIGTERM does. Returns at once. Master (base mode: manager):
/// any thread, while tine_server_run() runs. In a callback of a connection, use tine_stop().
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_NOT_RUNNING, TINE_ERROR_WRONG_PROCESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_stop(server: *const tine_server) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    boundary(|| unsafe { running(server) }?.stop().map_err(Failure::from))
}

/// Replaces the workers of a running server, one at a time, as SIGUSR1 does. Returns at once. Master
/// (base mode: manager): any thread, while tine_server_run() runs. In a callback of a connection, use
/// tine_reload().
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_NOT_RUNNING, TINE_ERROR_WRONG_PROCESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_reload(server: *const tine_server) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    boundary(|| unsafe { running(server) }?.reload().map_err(Failure::from))
}

/// # Safety
/// As [`tine_server_run`]. While that runs, the server is not changed.
pub(super) unsafe fn running<'a>(server: *const tine_server) -> Result<&'a Handle, Failure> {
    if server.is_null() {
        return Err(Failure::null("server"));
    }
    // SAFETY: not NULL, and the caller vouches for the rest. Only this field is read.
    Ok(unsafe { &(*server).handle })
}

impl From<HandleError> for Failure {
    fn from(error: HandleError) -> Failure {
        let status = match error {
            HandleError::NotStarted | HandleError::Ended => tine_status::TINE_ERROR_NOT_RUNNING,
            HandleError::WrongProcess => tine_status::TINE_ERROR_WRONG_PROCESS,
            HandleError::Post(error) => return error.into(),
        };
        Failure::new(status, error.to_string())
    }
}

/// While it exists, a server runs in this process, or this is a process of one.
struct Running;

/// The forked processes have it as it was, and never come to the end of `tine_server_run`.
static RUNNING: AtomicBool = AtomicBool::new(false);

impl Running {
    fn start() -> Result<Running, Failure> {
        match RUNNING.swap(true, Ordering::Relaxed) {
            false => Ok(Running),
            true => Err(Failure::new(
                tine_status::TINE_ERROR_ALREADY,
                "this is a process of a running server: a callback can't run another server",
            )),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.store(false, Ordering::Relaxed);
    }
}

/// # Safety
/// As [`tine_server_run`].
unsafe fn taken(
    server: *mut tine_server,
) -> Result<(Server, Callbacks, Userdata, Running), Failure> {
    // SAFETY: tine.h asks it of the caller.
    let handle = unsafe { server.as_mut() }.ok_or_else(|| Failure::null("server"))?;
    if let Some(refused) = &handle.refused {
        return Err(refused.clone());
    }
    if handle.callbacks.receive.is_none() {
        return Err(Failure::invalid(
            "the server has no receive callback: give it one with tine_server_on_receive()",
        ));
    }
    if handle.server.is_none() {
        return Err(has_run());
    }
    // First: a server that is refused here can run later.
    let running = Running::start()?;
    let server = handle.server.take().ok_or_else(has_run)?;
    Ok((server, handle.callbacks, handle.userdata, running))
}

fn has_run() -> Failure {
    Failure::new(
        tine_status::TINE_ERROR_ALREADY,
        "this server runs or has run: make a new one with tine_server_new()",
    )
}

/// Changes a server if the value is valid. The first error is kept for tine_server_run().
///
/// `server` is NULL or from `tine_server_new`: tine.h requires that of every caller.
pub(super) fn set<T>(
    server: *mut tine_server,
    value: impl FnOnce() -> Result<T, Failure>,
    apply: impl FnOnce(Server, T) -> Server,
) -> tine_status {
    change(server, |handle| {
        if handle.server.is_none() {
            return Err(has_run());
        }
        let value = value()?;
        handle.server = handle.server.take().map(|server| apply(server, value));
        Ok(())
    })
}

/// As [`set`], for values that are kept beside the settings.
pub(super) fn change(
    server: *mut tine_server,
    change: impl FnOnce(&mut tine_server) -> Result<(), Failure>,
) -> tine_status {
    boundary(|| {
        // SAFETY: as `set` says.
        let handle = unsafe { server.as_mut() }.ok_or_else(|| Failure::null("server"))?;
        let changed = match handle.server {
            Some(_) => change(handle),
            None => Err(has_run()),
        };
        changed.inspect_err(|failure| {
            handle.refused.get_or_insert_with(|| failure.clone());
        })
    })
}

/// Returns a function that must not be NULL.
pub(super) fn required<T>(function: Option<T>) -> Result<T, Failure> {
    function.ok_or_else(|| Failure::null("function"))
}

/// Calls C's function for the start of the server.
pub(super) fn tell_started(
    started: &Started,
    function: unsafe extern "C-unwind" fn(*const tine_started, *mut c_void),
    userdata: Userdata,
) {
    let c_text = |text: String| CString::new(text).unwrap_or_default();
    let texts: Vec<(CString, CString)> = started
        .addresses
        .iter()
        .map(|endpoint| (c_text(endpoint.to_string()), c_text(endpoint.name().into())))
        .collect();
    let endpoints = started.addresses.iter().zip(&texts);
    let addresses: Vec<tine_endpoint> = endpoints
        .map(|(endpoint, (text, name))| tine_endpoint {
            text: text.as_ptr(),
            name: name.as_ptr(),
            listener: endpoint.listener().into(),
        })
        .collect();
    let started = tine_started {
        addresses: addresses.as_ptr(),
        addresses_length: addresses.len(),
        mode: match started.mode {
            Mode::Process => tine_mode::TINE_MODE_PROCESS,
            Mode::Base => tine_mode::TINE_MODE_BASE,
        },
        workers: started.workers,
        reactors: started.reactors,
        pid: started.pid as i32,
        task_workers: started.task_workers,
    };
    // SAFETY: the user's function, called as tine.h says; its argument lives until it returns.
    unsafe { function(&started, userdata.get()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C-unwind" fn receive(
        _: super::super::conn::tine_conn,
        _: *const c_void,
        _: usize,
        _: *mut c_void,
    ) -> i32 {
        0
    }

    #[test]
    fn a_server_that_is_refused_in_a_callback_can_run_later() {
        let server = tine_server_new();
        // SAFETY: the pointer is from tine_server_new(), and nobody else has it.
        unsafe {
            (*server).callbacks.receive = Some(receive);
            let running = Running::start().ok();
            assert!(running.is_some());
            assert!(taken(server).is_err());
            drop(running);
            assert!(taken(server).is_ok());
            tine_server_free(server);
        }
    }
}
