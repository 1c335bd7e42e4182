//! TLS and the PROXY protocol of a listener, from C.

use std::ffi::c_char;

use super::deadlines::time;
use super::listener::{set, tine_listener};
use super::status::tine_status;
use super::text;
use crate::config::{Listener, Tls};

/// Adds a certificate to the listener, which speaks TLS from the first one on: PEM files with the chain, the server's
/// own certificate first, and with its private key. A client gets the first one that is valid for the host name that
/// it asks for, and else the first of all. The files are read when the server starts, in process mode by the master
/// alone, and anew at SIGHUP.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_add_certificate(
    listener: *mut tine_listener,
    chain: *const c_char,
    key: *const c_char,
) -> tine_status {
    set(
        listener,
        // SAFETY: tine.h asks it of the caller, for both.
        || unsafe { Ok((text("chain", chain)?, text("key", key)?)) },
        |listener, (chain, key)| {
            listener.change_tls(|tls| match tls {
                None => Tls::files(chain, key),
                Some(tls) => tls.certificate(chain, key),
            })
        },
    )
}

/// Asks each client of the listener for a certificate, which one of those in this PEM file must vouch for. With
/// `may_be_unknown`, a client without a certificate is taken, too. Without a certificate of the server, there is no
/// TLS, and tine_server_run() refuses this.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_client_authorities(
    listener: *mut tine_listener,
    file: *const c_char,
    may_be_unknown: bool,
) -> tine_status {
    set(
        listener,
        // SAFETY: tine.h asks it of the caller.
        || unsafe { text("file", file) },
        |listener, file| {
            listener.change_tls(|tls| {
                let tls = tls.unwrap_or_else(Tls::none).client_authorities(file);
                match may_be_unknown {
                    true => tls.clients_may_be_unknown(),
                    false => tls,
                }
            })
        },
    )
}

/// Sets the protocols that the server speaks on this listener (ALPN), the most wanted first, with commas between:
/// "h2,http/1.1". A client that offers others only is refused. Without a certificate of the server, there is no TLS,
/// and tine_server_run() refuses this.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_application_protocols(
    listener: *mut tine_listener,
    names: *const c_char,
) -> tine_status {
    set(
        listener,
        // SAFETY: tine.h asks it of the caller.
        || unsafe { text("names", names) },
        |listener, names| {
            listener.change_tls(|tls| {
                tls.unwrap_or_else(Tls::none)
                    .application_protocols(names.split(','))
            })
        },
    )
}

/// Expects the header of the PROXY protocol, version 1 or 2, at the begin of each connection of the listener, from
/// proxies in these networks, with commas between: "10.0.0.0/8,::1/128". The client that the header names is the peer
/// from then on. Connections from elsewhere are reset, and so is one without a right header. A text that is no network is
/// found by tine_server_run().
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_proxy_protocol(
    listener: *mut tine_listener,
    networks: *const c_char,
) -> tine_status {
    set(
        listener,
        || {
            // SAFETY: tine.h asks it of the caller.
            let networks = unsafe { text("networks", networks) }?;
            Ok(networks.split(','))
        },
        Listener::proxy_protocol,
    )
}

/// Sets how many milliseconds the header of the PROXY protocol and the handshake of TLS may take together: then the
/// connection is reset, and no callback knows of it. TINE_NEVER for no limit. Default: 10,000.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_opening_deadline(
    listener: *mut tine_listener,
    milliseconds: u64,
) -> tine_status {
    set(
        listener,
        || Ok(time(milliseconds)),
        Listener::opening_deadline,
    )
}
