//! How a connection came, from C.

use std::ffi::c_void;

use super::conn::{tine_conn, with_own};
use super::status::{Failure, tine_status};
use super::{pick, put};
use crate::handler::{Fact, Origin};

/// A fact about how a connection came.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_fact {
    /// The version of TLS: "TLSv1.3" or "TLSv1.2".
    TINE_FACT_TLS_VERSION = 0,
    /// The host name that the client has asked for (server name indication, RFC 6066).
    TINE_FACT_SERVER_NAME = 1,
    /// The protocol that was agreed on (ALPN, RFC 7301), such as "h2".
    TINE_FACT_APPLICATION_PROTOCOL = 2,
    /// The client's own certificate, X.509 in DER.
    TINE_FACT_CLIENT_CERTIFICATE = 3,
    /// The address and port of the proxy, which has named its client by the PROXY protocol, as text.
    TINE_FACT_PROXY = 4,
    /// The address and port that the client has connected to, as the proxy says, as text.
    TINE_FACT_DESTINATION = 5,
    /// The host name that the client has asked the proxy for.
    TINE_FACT_AUTHORITY = 6,
    /// The id that the proxy has given to the connection: up to 128 bytes.
    TINE_FACT_UNIQUE_ID = 7,
    /// The version of TLS between the client and the proxy.
    TINE_FACT_PROXY_TLS_VERSION = 8,
    /// The common name of the certificate that the client has shown to the proxy, which has verified it.
    TINE_FACT_PROXY_CLIENT_NAME = 9,
    /// The protocol that the client and the proxy have agreed on (ALPN).
    TINE_FACT_PROXY_APPLICATION_PROTOCOL = 10,
}

/// One of tine_fact, from C.
pub type FactIn = i32;

/// Writes a fact about how the callback's own connection came to `bytes` and `length`: what its TLS and the PROXY
/// protocol of its listener have told. They are valid until the callback returns, and no NUL is behind them. `bytes`
/// is NULL and `length` 0 if nothing is known of it.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_origin(
    conn: tine_conn,
    fact: FactIn,
    bytes: *mut *const c_void,
    length: *mut usize,
) -> tine_status {
    with_own(conn, |current| {
        let found = fact_of(&current.origin(), fact)?;
        // SAFETY: tine.h asks it of the caller, for both.
        unsafe {
            let start = found.map_or(std::ptr::null(), <[u8]>::as_ptr);
            put("bytes", bytes, start.cast())?;
            put("length", length, found.map_or(0, <[u8]>::len))
        }
    })
}

fn fact_of<'a>(origin: &Origin<'a>, fact: FactIn) -> Result<Option<&'a [u8]>, Failure> {
    use tine_fact::*;
    const FACTS: [(i32, Fact); 11] = [
        (TINE_FACT_TLS_VERSION as i32, Fact::TlsVersion),
        (TINE_FACT_SERVER_NAME as i32, Fact::ServerName),
        (TINE_FACT_APPLICATION_PROTOCOL as i32, Fact::Application),
        (TINE_FACT_CLIENT_CERTIFICATE as i32, Fact::Certificate),
        (TINE_FACT_PROXY as i32, Fact::Proxy),
        (TINE_FACT_DESTINATION as i32, Fact::Destination),
        (TINE_FACT_AUTHORITY as i32, Fact::Authority),
        (TINE_FACT_UNIQUE_ID as i32, Fact::UniqueId),
        (TINE_FACT_PROXY_TLS_VERSION as i32, Fact::ProxyTls),
        (TINE_FACT_PROXY_CLIENT_NAME as i32, Fact::ProxyName),
        (
            TINE_FACT_PROXY_APPLICATION_PROTOCOL as i32,
            Fact::ProxyApplication,
        ),
    ];
    Ok(origin.fact(pick("fact", fact, &FACTS)?))
}
