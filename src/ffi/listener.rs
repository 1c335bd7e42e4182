//! Listeners of C: an address with its own protocol and limits.

use std::ffi::{c_char, c_void};

use super::conn::with_context;
use super::policy::{find_end, tine_framing_fn};
use super::server::{change, required, tine_server};
use super::settings::{ByteOrderIn, CountsIn, tine_byte_order, tine_counts};
use super::status::{Failure, boundary, tine_status};
use super::{Userdata, bytes, pick, put_text, text};
use crate::config::{Listener, ListenerId};
use crate::protocol::{ByteOrder, LengthPrefix, Protocol};

/// A listener before it is added to a server. One thread at a time may use it.
pub struct tine_listener {
    listener: Listener,
    /// The first setting that was refused.
    refused: Option<Failure>,
}

/// The number of a listener of a server, from 0, in the order in which they were added.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct tine_listener_id {
    /// The number.
    pub index: u32,
}

impl From<ListenerId> for tine_listener_id {
    fn from(id: ListenerId) -> tine_listener_id {
        tine_listener_id {
            index: u32::from(id.0),
        }
    }
}

impl tine_listener_id {
    fn id(self) -> Result<ListenerId, Failure> {
        let index = u16::try_from(self.index).map(ListenerId);
        index.map_err(|_| {
            Failure::invalid(format!(
                "listener: {} is not the index of a listener",
                self.index
            ))
        })
    }
}

/// Makes a TCP listener: raw, with the default limits. `address` is as for tine_server_listen(). Pass
/// it to tine_server_add_listener(), or free it with tine_listener_free(). Never NULL: an invalid
/// address is refused by tine_server_add_listener().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_tcp(address: *const c_char) -> *mut tine_listener {
    // SAFETY: tine.h asks it of the caller.
    make(unsafe { text("address", address) }, |text| {
        Listener::tcp(text)
    })
}

/// Makes a listener of a text; the error of one that is none is kept for tine_server_add_listener().
pub(super) fn make(
    text: Result<&str, Failure>,
    listener: impl FnOnce(&str) -> Listener,
) -> *mut tine_listener {
    let (text, refused) = match text {
        Ok(text) => (text, None),
        Err(failure) => ("", Some(failure)),
    };
    Box::into_raw(Box::new(tine_listener {
        listener: listener(text),
        refused,
    }))
}

/// Frees a listener that was not added to a server; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_free(listener: *mut tine_listener) {
    if !listener.is_null() {
        boundary(|| {
            // SAFETY: tine.h asks it of the caller.
            drop(unsafe { Box::from_raw(listener) });
            Ok(())
        });
    }
}

/// Adds a listener to a server, which owns it from here on, also after an error: it must not be used
/// again.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY, and the first error that a setter of the listener has
/// returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_add_listener(
    server: *mut tine_server,
    listener: *mut tine_listener,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    let given = (!listener.is_null()).then(|| *unsafe { Box::from_raw(listener) });
    change(server, |server| {
        let given = given.ok_or_else(|| Failure::null("listener"))?;
        match given.refused {
            Some(failure) => Err(failure),
            None => {
                server.listen(given.listener);
                Ok(())
            }
        }
    })
}

/// Changes a listener if the value is valid. The first error is kept for tine_server_add_listener().
///
/// `listener` is NULL or from a function that makes one: tine.h requires that of every caller.
pub(super) fn set<T>(
    listener: *mut tine_listener,
    value: impl FnOnce() -> Result<T, Failure>,
    apply: impl FnOnce(Listener, T) -> Listener,
) -> tine_status {
    boundary(|| {
        // SAFETY: as above.
        let handle = unsafe { listener.as_mut() }.ok_or_else(|| Failure::null("listener"))?;
        let value = value().inspect_err(|failure| {
            handle.refused.get_or_insert_with(|| failure.clone());
        })?;
        handle.listener = apply(handle.listener.clone(), value);
        Ok(())
    })
}

/// Sets the listener's name in logs, in tine_started and in tine_listener_name(). No two listeners of a
/// server may have the same name. Default: its address.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_name(
    listener: *mut tine_listener,
    name: *const c_char,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    set(listener, || unsafe { text("name", name) }, Listener::name)
}

/// Sets the protocol, which cuts bytes into messages, by its text: "raw" (the bytes of one read; the
/// default), "lines", "varint", "delimiter=TEXT" where TEXT may have \r \n \t \0 \\ and \xHH for single
/// bytes, "length=WIDTH[,big|little][,body|all][,offset=N][,adjust=N]" with a WIDTH of 1 to 8 bytes. A message has its
/// framing: its delimiter at the end, or its length at the beginning. Bytes that are no whole message when the peer
/// closes, such as a last line without a line feed, are dropped, with no callback and no log line.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_protocol(
    listener: *mut tine_listener,
    protocol: *const c_char,
) -> tine_status {
    set(
        listener,
        || {
            // SAFETY: tine.h asks it of the caller.
            let protocol = unsafe { text("protocol", protocol) }?;
            let parsed = protocol.parse::<Protocol>();
            parsed.map_err(|error| Failure::invalid(format!("protocol: {error}")))
        },
        Listener::protocol,
    )
}

/// A message ends with these bytes, 1 to 256 of them: "\r\n", for example. They are part of the message. Bytes after
/// the last of them are dropped when the peer closes, with no callback and no log line. The delimiter is copied.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_delimiter(
    listener: *mut tine_listener,
    delimiter: *const c_void,
    length: usize,
) -> tine_status {
    set(
        listener,
        || {
            // SAFETY: tine.h asks it of the caller.
            let delimiter = unsafe { bytes("delimiter", delimiter, length) }?;
            Protocol::delimiter(delimiter).map_err(|error| Failure::invalid(error.to_string()))
        },
        Listener::protocol,
    )
}

/// A message begins with its length, an unsigned number of `width` bytes: 1 to 8.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_length_prefix(
    listener: *mut tine_listener,
    width: usize,
    order: ByteOrderIn,
    counts: CountsIn,
) -> tine_status {
    const ORDERS: [(ByteOrderIn, ByteOrder); 2] = [
        (
            tine_byte_order::TINE_BIG_ENDIAN as ByteOrderIn,
            ByteOrder::Big,
        ),
        (
            tine_byte_order::TINE_LITTLE_ENDIAN as ByteOrderIn,
            ByteOrder::Little,
        ),
    ];
    const COUNTS_ALL: [(CountsIn, bool); 2] = [
        (tine_counts::TINE_COUNTS_BODY as CountsIn, false),
        (tine_counts::TINE_COUNTS_ALL as CountsIn, true),
    ];
    set(
        listener,
        || {
            let prefix = LengthPrefix::new(width)
                .map_err(|error| Failure::invalid(error.to_string()))?
                .order(pick("order", order, &ORDERS)?);
            let itself = match pick("counts", counts, &COUNTS_ALL)? {
                true => width as i64,
                false => 0,
            };
            Ok(Protocol::length_prefix(prefix.adjust(-itself)))
        },
        Listener::protocol,
    )
}

/// A function finds the end of a message. If a delimiter or a length prefix can express the same, it is
/// the safer choice.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_framing_fn(
    listener: *mut tine_listener,
    function: tine_framing_fn,
    userdata: *mut c_void,
) -> tine_status {
    let userdata = Userdata(userdata);
    set(
        listener,
        || required(function),
        |listener, function| listener.protocol(Protocol::function(find_end(function, userdata))),
    )
}

/// Sets the longest accepted message in bytes, framing included, 1 byte to 1 GiB. A raw message is also
/// at most 256 KiB long, and shorter under a small output limit, so that it can be echoed. Default:
/// 8 MiB. With any protocol but raw, each pair of a reactor and a worker has memory for at least one
/// message of this length.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_max_message(
    listener: *mut tine_listener,
    bytes: usize,
) -> tine_status {
    set(listener, || Ok(bytes), Listener::max_message)
}

/// Sets the most connections that wait in the kernel to be accepted, listen(2), 0 to INT_MAX. The
/// kernel's maximum is net.core.somaxconn; the log warns if it is exceeded. Default: 4096.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_backlog(
    listener: *mut tine_listener,
    connections: u32,
) -> tine_status {
    set(listener, || Ok(connections), Listener::backlog)
}

/// Writes the name of a listener with its NUL: the name that was set, or its address. `text` has `size`
/// bytes.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a listener that the server does not have,
/// TINE_ERROR_TOO_SMALL, TINE_ERROR_OUTSIDE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_name(
    listener: tine_listener_id,
    text: *mut c_char,
    size: usize,
) -> tine_status {
    with_context(|cx| {
        let name = cx.listener_name(listener.id()?);
        if name.is_empty() {
            let index = listener.index;
            return Err(Failure::invalid(format!(
                "listener: the server has none with the index {index}"
            )));
        }
        // SAFETY: tine.h asks it of the caller.
        unsafe { put_text("text", text, size, name) }
    })
}
