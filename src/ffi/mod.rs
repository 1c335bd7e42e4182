//! The C ABI: what `tine.h` declares, for C and whatever else calls C. The header is made from what
//! stands here (`make header`), so its texts are written for who reads that.
//!
//! Its one rule: whatever C passes is looked at before it is used, and nothing but a status goes
//! back. What can't be looked at, a pointer that points nowhere, is all that is left to the caller.
#![allow(unsafe_code)]
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
mod handler;
mod listener;
mod log;
mod on;
mod policy;
mod server;
mod settings;
mod status;
mod version;

use std::ffi::{CStr, c_char, c_void};

use status::Failure;

/// The bytes that C means by a pointer and a length. A NULL of no length is fine.
///
/// # Safety
/// Unless it is NULL, `bytes` is so many bytes which nobody writes during `'a`.
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

/// The longest that an object in memory can be.
const LONGEST: usize = isize::MAX as usize;

/// The text that C means by a pointer.
///
/// # Safety
/// Unless it is NULL, `text` ends with a NUL, and nobody writes it during `'a`.
unsafe fn text<'a>(name: &str, text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: not NULL; the caller vouches for the NUL at its end.
    unsafe { CStr::from_ptr(text) }
        .to_str()
        .map_err(|error| Failure::invalid(format!("{name} is not UTF-8: {error}")))
}

/// The text that C means by a pointer, to be read by people: what is not UTF-8 in it is shown as
/// such.
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

/// Where a result goes.
///
/// # Safety
/// Unless it is NULL, `out` may be written as a `T`.
unsafe fn put<T>(name: &str, out: *mut T, value: T) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: not NULL; the caller vouches for the rest. What was there is C's and has no
    // destructor.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes a text with its NUL, or nothing.
///
/// # Safety
/// Unless it is NULL, `out` is `size` bytes that may be written.
unsafe fn put_text(name: &str, out: *mut c_char, size: usize, text: &str) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::null(name));
    }
    if text.len() >= size {
        let needed = text.len() + 1;
        return Err(Failure::new(
            status::tine_status::TINE_ERROR_TOO_SMALL,
            format!("{name}: {needed} bytes are needed, {size} are there"),
        ));
    }
    // SAFETY: `size` bytes may be written, and these are no more. A text of ours is elsewhere.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), out.cast(), text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// What a number from C stands for, by a table of those that are allowed.
fn pick<T: Clone>(name: &str, number: i32, table: &[(i32, T)]) -> Result<T, Failure> {
    let found = table.iter().find(|(allowed, _)| *allowed == number);
    found.map(|(_, value)| value.clone()).ok_or_else(|| {
        let allowed: Vec<String> = table
            .iter()
            .map(|(allowed, _)| allowed.to_string())
            .collect();
        Failure::invalid(format!(
            "{name}: {number} is none of {}, which tine.h has names for",
            allowed.join(", ")
        ))
    })
}

/// What belongs to a callback, as the user gave it: the library never looks into it.
///
/// It goes with its function wherever that goes: the header says by whom each is called, and that
/// what several threads call must bear it.
#[derive(Clone, Copy)]
struct Userdata(*mut c_void);

// SAFETY: the pointer is only passed on, and tine.h says which functions any thread may call.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}

impl Userdata {
    /// A method, so that a closure captures the whole of it.
    fn get(self) -> *mut c_void {
        self.0
    }
}
