//! Deadlines of a listener's connections, from C.

use std::time::Duration;

use super::listener::{set, tine_listener};
use super::pick;
use super::settings::TINE_NEVER;
use super::status::tine_status;
use crate::config::{Listener, OnIdle};

/// The action at the idle deadline of a connection.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_on_idle {
    /// The connection is closed with FIN, whatever the workers do. The default.
    TINE_IDLE_CLOSE = 0,
    /// tine_server_on_idle() is called, each time that the deadline has passed.
    TINE_IDLE_CALL = 1,
}

/// One of tine_on_idle, from C.
pub type OnIdleIn = i32;

/// Returns a time in milliseconds; `None` for never.
pub(super) fn time(milliseconds: u64) -> Option<Duration> {
    (milliseconds != TINE_NEVER).then(|| Duration::from_millis(milliseconds))
}

/// Sets how many milliseconds a connection may last on which neither side has said anything, from the end of
/// its `connect`: it is closed with FIN. TINE_NEVER for no limit. Default: 60,000.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_open_deadline(
    listener: *mut tine_listener,
    milliseconds: u64,
) -> tine_status {
    set(listener, || Ok(time(milliseconds)), Listener::open_deadline)
}

/// Sets how many milliseconds the peer may take for one message, from its first byte to its last: a slower
/// one is closed with FIN, after the answers to its earlier messages. Raw streams have no such messages.
/// TINE_NEVER for no limit. Default: 120,000.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_message_deadline(
    listener: *mut tine_listener,
    milliseconds: u64,
) -> tine_status {
    set(
        listener,
        || Ok(time(milliseconds)),
        Listener::message_deadline,
    )
}

/// Sets how many milliseconds the peer may be silent while nothing is due to it: no message of it is with a
/// worker or waits for one, and it has acknowledged all output. Output that it acknowledges ends its silence,
/// too. Then tine_listener_set_on_idle() says what happens. Default: TINE_NEVER, since a client of a chat may
/// listen for hours.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_idle(
    listener: *mut tine_listener,
    milliseconds: u64,
) -> tine_status {
    set(listener, || Ok(time(milliseconds)), Listener::idle)
}

/// Sets the action at the idle deadline. Default: TINE_IDLE_CLOSE.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_on_idle(
    listener: *mut tine_listener,
    action: OnIdleIn,
) -> tine_status {
    const ACTIONS: [(OnIdleIn, OnIdle); 2] = [
        (tine_on_idle::TINE_IDLE_CLOSE as OnIdleIn, OnIdle::Close),
        (tine_on_idle::TINE_IDLE_CALL as OnIdleIn, OnIdle::Call),
    ];
    set(
        listener,
        || pick("on_idle", action, &ACTIONS),
        Listener::on_idle,
    )
}

/// Sets how many milliseconds output may be unsent while the peer acknowledges nothing: the connection is
/// reset, since after FIN the client would take a part for the whole. It is noticed up to an eighth later.
/// TINE_NEVER for no limit. Default: 60,000.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_write_deadline(
    listener: *mut tine_listener,
    milliseconds: u64,
) -> tine_status {
    set(
        listener,
        || Ok(time(milliseconds)),
        Listener::write_deadline,
    )
}

/// Sets how many milliseconds a message or another event of a connection may wait for a worker that begins
/// its callback, in process mode: then its client gets the reply of the crash policy, if that has one, and the
/// connection is closed, after the answers to its earlier messages. The callback is not run. In base mode
/// messages wait in the kernel, and this has no effect. Default: TINE_NEVER.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_queue_deadline(
    listener: *mut tine_listener,
    milliseconds: u64,
) -> tine_status {
    set(
        listener,
        || Ok(time(milliseconds)),
        Listener::queue_deadline,
    )
}

/// Sets TCP keepalive, tcp(7): after this many milliseconds without a segment from the peer, 1,000 to
/// 32,767,000, the kernel probes it, six times in as long again; a peer that answers none is gone, and its
/// connection broken. TINE_NEVER sends no probes. Default: 60,000.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_keepalive(
    listener: *mut tine_listener,
    milliseconds: u64,
) -> tine_status {
    set(listener, || Ok(time(milliseconds)), Listener::keepalive)
}

/// Sets TCP_USER_TIMEOUT, tcp(7): how many milliseconds output may be unacknowledged, or the peer's window
/// closed, until the kernel breaks the connection; at most 24 days. TINE_NEVER leaves it to
/// net.ipv4.tcp_retries2. Default: 120,000, or as long as the write deadline or twice the keepalive time if
/// that is longer; TINE_NEVER without a write deadline.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_user_timeout(
    listener: *mut tine_listener,
    milliseconds: u64,
) -> tine_status {
    set(listener, || Ok(time(milliseconds)), Listener::user_timeout)
}
