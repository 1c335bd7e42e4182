//! The sockets of a listener, of C: unix sockets and inherited ones, and who may connect.

use std::ffi::c_char;
use std::time::Duration;

use super::listener::{make, set, tine_listener};
use super::status::tine_status;
use super::text;
use crate::config::Listener;

/// Makes a listener on a unix socket: raw, with the default limits. `path` is a path, or "@" and an abstract name. A socket
/// that is there is replaced if nobody answers on it; anything else is left, and tine_server_run() returns
/// TINE_ERROR_LISTEN. The file is removed when the server ends in order. Its clients have credentials in the place of
/// addresses: see tine_conn_peer(). Otherwise as tine_listener_tcp().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_unix(path: *const c_char) -> *mut tine_listener {
    // SAFETY: tine.h asks it of the caller.
    make(unsafe { text("path", path) }, |path| Listener::unix(path))
}

/// Makes a listener of sockets that the program which has started this one passes: "fd:3" for a descriptor, "systemd" for all that
/// are passed by the variables of sd_listen_fds(3), or "systemd:NAME" for those with this name. They belong to the
/// server from tine_server_run() on. Otherwise as tine_listener_tcp().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_inherited(which: *const c_char) -> *mut tine_listener {
    // SAFETY: tine.h asks it of the caller.
    make(unsafe { text("which", which) }, |text| Listener::from(text))
}

/// Sets the permissions of a unix socket's file, as chmod(2) takes them: 0660. A client needs the right to write. Default:
/// all, less the umask of the process.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_mode(
    listener: *mut tine_listener,
    mode: u32,
) -> tine_status {
    set(listener, || Ok(mode), Listener::mode)
}

/// Sets the owner of a unix socket's file, before anybody can connect: "app", "app:www-data" or ":www-data", by names or
/// numbers. Default: the user and the group of the process.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_owner(
    listener: *mut tine_listener,
    owner: *const c_char,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    set(
        listener,
        || unsafe { text("owner", owner) },
        Listener::owner,
    )
}

/// Sets whether a listener on an IPv6 address takes clients of IPv6 alone, ipv6(7). With false, "[::]:9501" takes those of IPv4
/// too, which have their IPv4 addresses. Default: true.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_v6only(
    listener: *mut tine_listener,
    v6only: bool,
) -> tine_status {
    set(listener, || Ok(v6only), Listener::v6only)
}

/// Accepts a TCP client when its first bytes have come, or after this many milliseconds, 1,000 to 3,600,000: TCP_DEFER_ACCEPT,
/// tcp(7). 0 is off, the default. Not for protocols in which the server speaks first.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_defer_accept(
    listener: *mut tine_listener,
    milliseconds: u64,
) -> tine_status {
    let time = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
    set(listener, || Ok(time), Listener::defer_accept)
}

/// Sets the size of the kernel's buffer for bytes that have come and were not read, of each connection: SO_RCVBUF, socket(7),
/// 1 KiB to 1 GiB. Default: the kernel's, which tunes it.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_receive_buffer(
    listener: *mut tine_listener,
    bytes: usize,
) -> tine_status {
    set(listener, || Ok(bytes), Listener::receive_buffer)
}

/// Sets the size of the kernel's buffer for bytes that were sent and that the peer does not have, of each connection:
/// SO_SNDBUF, as above.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_send_buffer(
    listener: *mut tine_listener,
    bytes: usize,
) -> tine_status {
    set(listener, || Ok(bytes), Listener::send_buffer)
}

/// Adds a network whose clients may connect: "10.0.0.0/8", "2001:db8::/32", or the address of one client. Others are reset as
/// they come, and so are those of a network of tine_listener_deny(). Default: every client may.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_allow(
    listener: *mut tine_listener,
    network: *const c_char,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    let network = || unsafe { text("network", network) };
    set(listener, network, |listener, it| listener.allow([it]))
}

/// Adds a network whose clients may not connect, as above. It wins over tine_listener_allow().
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_deny(
    listener: *mut tine_listener,
    network: *const c_char,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    let network = || unsafe { text("network", network) };
    set(listener, network, |listener, it| listener.deny([it]))
}

/// Sets the most new connections of one client in a second, 1 to 1,000,000; further ones are reset as they come. A
/// client is an address, or a network as of the next function; of a unix socket, a user. In base mode each worker
/// counts for itself. Default: no limit.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_max_new_per_second(
    listener: *mut tine_listener,
    connections: u32,
) -> tine_status {
    set(listener, || Ok(connections), Listener::max_new_per_second)
}

/// Sets the bits of an IPv4 address, 1 to 32, and of an IPv6 address, 1 to 128, by which clients are told apart where they are
/// counted. Default: 32 and 64.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_address_prefix(
    listener: *mut tine_listener,
    v4: u8,
    v6: u8,
) -> tine_status {
    let prefix = |listener: Listener, (v4, v6)| listener.address_prefix(v4, v6);
    set(listener, || Ok((v4, v6)), prefix)
}
