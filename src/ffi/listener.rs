//! A listener from C: an address, with a protocol and limits of its own.

use std::ffi::{c_char, c_void};

use super::conn::with_context;
use super::policy::{find_end, tine_framing_fn};
use super::server::{change, required, tine_server};
use super::settings::{ByteOrderIn, CountsIn, tine_byte_order, tine_counts};
use super::status::{Failure, boundary, tine_status};
use super::{Userdata, bytes, pick, put_text, text};
use crate::config::{Listener, ListenerId};
use crate::protocol::{ByteOrder, LengthPrefix, Protocol};

/// A listener to be. One thread at a time may use it.
pub struct tine_listener {
    listener: Listener,
    /// The first setting that was refused.
    refused: Option<Failure>,
}

/// Names a listener of a server: its place in the order in which they were added, from 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct tine_listener_id {
    /// That place.
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
            Failure::invalid(format!("listener: {} is no listener's index", self.index))
        })
    }
}

/// Makes a listener for TCP: raw, with the default limits. `address` is as for tine_server_listen().
/// To be given to tine_server_add_listener(), or else freed with tine_listener_free(). Never NULL: a
/// wrong address is refused where it is added.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_tcp(address: *const c_char) -> *mut tine_listener {
    // SAFETY: tine.h asks it of the caller.
    let (address, refused) = match unsafe { text("address", address) } {
        Ok(address) => (address, None),
        Err(failure) => ("", Some(failure)),
    };
    Box::into_raw(Box::new(tine_listener {
        listener: Listener::tcp(address),
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

/// Adds a listener to a server. The listener is the server's from here on, whatever this returns,
/// and must not be used again.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY, and the first that a setter of the listener has
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

/// Changes a listener, if what it is changed to can be had. What was refused is remembered for
/// tine_server_add_listener().
///
/// `listener` is NULL or of `tine_listener_tcp`: tine.h asks that of every caller.
fn set<T>(
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

/// How logs, tine_started and tine_listener_name() call it, in place of its address. No two listeners
/// of a server may have the same name.
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

/// How bytes become messages, as a text: "raw" (whatever has been read; the default),
/// "delimiter=TEXT" where \r \n \t \0 \\ and \xHH stand for a byte,
/// "length=1|2|4[,big|little][,body|all]". What the three functions below say in C.
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

/// A message ends with these bytes, 1 to 64, "\r\n" say. They are copied.
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

/// A function finds where messages end. Wherever a delimiter or a length prefix says the same,
/// they are the safer choice.
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

/// The longest message that is accepted, in bytes, framing included, 1 byte to 1 GiB. A raw message
/// is at most 256 KiB besides, and shorter under a small output limit, so that it can be echoed.
/// Default: 8 MiB. Where messages are cut, each link of a reactor and a worker has memory for at
/// least one of the longest.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_max_message(
    listener: *mut tine_listener,
    bytes: usize,
) -> tine_status {
    set(listener, || Ok(bytes), Listener::max_message)
}

/// The most connections that wait in the kernel to be accepted, listen(2), 0 to INT_MAX. The kernel
/// allows at most net.core.somaxconn; the log says so. Default: 4096.
///
/// Errors: TINE_ERROR_NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_listener_set_backlog(
    listener: *mut tine_listener,
    connections: u32,
) -> tine_status {
    set(listener, || Ok(connections), Listener::backlog)
}

/// The name of a listener, as a text with its NUL: the one that it was given, or its address. `text`
/// is `size` bytes.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a listener that the server has not,
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
