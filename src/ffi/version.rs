//! Which library a program was linked with.

use std::ffi::c_char;

/// The version of the library that runs, as a text: "0.1.0". TINE_VERSION is that of the header
/// which a program was compiled with.
#[unsafe(no_mangle)]
pub extern "C" fn tine_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
