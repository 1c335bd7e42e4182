//! The C ABI, declared in `tine.h`, for C and other languages that call C. `make header` makes the header
//! from this module, so the docs here are written for readers of the header.
//!
//! Its one rule: every argument from C is checked before it is used, and the result is always a status.
//! Only what can't be checked, the validity of a pointer, is left to the caller.
#![allow(unsafe_code)] // Pointers from C; each block says what makes it sound.
#![allow(
    unreachable_pub,
    reason = "what C calls is reached by its symbol, and not by its path"
)]
#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(
    clippy::missing_safety_doc,
    reason = "what every function asks of its caller, tine.h says once, at its head"
)]

mod address;
mod callbacks;
mod conn;
mod deadlines;
mod files;
mod groups;
mod handler;
mod listener;
mod listing;
mod log;
mod log_file;
mod on;
mod opening;
mod origin;
mod policy;
mod post;
mod poster;
mod server;
mod session;
mod settings;
mod sockets;
mod status;
mod tasks;
mod timers;
mod version;

use std::ffi::{CStr, c_char, c_void};

use status::Failure;

/// Returns the bytes of a pointer and a length. NULL with length 0 is fine.
///
/// # Safety
/// Unless it is NULL, `bytes` points to `length` bytes which are not written during `'a`.
unsafe fn bytes<'a>(name: &str, bytes: *const c_void, length: usize) -> Result<&'a [u8], Failure> {
    match (bytes.is_null(), length) {
        (true, 0) => Ok(&[]),
        (true, _) => Err(Failure::null(name)),
        (false, 0..=LONGEST) => {
            // SAFETY: not NULL, and no longer than a slice may be; the caller vouches for the rest.
            Ok(unsafe { std::slice::from_raw_parts(bytes.cast(), length) })
        }
        (false, _) => Err(Failure::invalid(format!(
            "{name}: {length} bytes are more than memory can hold"
        ))),
    }
}

/// The longest object in memory.
const LONGEST: usize = isize::MAX as usize;

/// Returns the text of a pointer.
///
/// # Safety
/// Unless it is NULL, `text` ends with a NUL, and is not written during `'a`.
unsafe fn text<'a>(name: &str, text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: not NULL; the caller vouches for the NUL at its end.
    unsafe { CStr::from_ptr(text) }
        .to_str()
        .map_err(|error| Failure::invalid(format!("{name} is not UTF-8: {error}")))
}

/// Returns the text of a pointer for people to read: bytes that are not UTF-8 are replaced.
///
/// # Safety
/// Unless it is NULL, `text` ends with a NUL.
unsafe fn lossy(name: &str, text: *const c_char) -> Result<String, Failure> {
    if text.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: not NULL; the caller vouches for the NUL at its end.
    Ok(unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned())
}

/// Writes a result.
///
/// # Safety
/// Unless it is NULL, `out` may be written as a `T`.
unsafe fn put<T>(name: &str, out: *mut T, value: T) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: not NULL; the caller vouches for the rest. The old value is C's and has no destructor.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes a text with its NUL, or nothing if it does not fit.
///
/// # Safety
/// Unless it is NULL, `out` points to `size` bytes that may be written.
unsafe fn put_text(name: &str, out: *mut c_char, size: usize, text: &str) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::null(name));
    }
    if text.len() >= size {
        let needed = text.len() + 1;
        return Err(Failure::new(
            status::tine_status::TINE_ERROR_TOO_SMALL,
            format!("{name}: {needed} bytes are needed, the size is {size}"),
        ));
    }
    // SAFETY: `size` bytes may be written, and these are no more. The library's text does not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), out.cast(), text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// Returns the value of a number from C, by the table of allowed ones.
fn pick<T: Clone>(name: &str, number: i32, table: &[(i32, T)]) -> Result<T, Failure> {
    let found = table.iter().find(|(allowed, _)| *allowed == number);
    found.map(|(_, value)| value.clone()).ok_or_else(|| {
        let allowed: Vec<String> = table
            .iter()
            .map(|(allowed, _)| allowed.to_string())
            .collect();
        Failure::invalid(format!(
            "{name}: {number} is not one of {} (see tine.h)",
            allowed.join(", ")
        ))
    })
}

/// The userdata of a callback: the library never reads its target.
///
/// It goes to every thread that calls its function: the header names the threads of each function, and
/// requires the functions of several threads to be thread-safe.
#[derive(Clone, Copy)]
struct Userdata(*mut c_void);

// SAFETY: the pointer is only passed on, and tine.h names the functions that any thread may call.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}

impl Userdata {
    /// A method, so that a closure captures the whole of it.
    fn get(self) -> *mut c_void {
        self.0
    }
}
