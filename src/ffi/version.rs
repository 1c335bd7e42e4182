//! The version of the library that a program runs with.

use std::ffi::c_char;

/// Returns the version of the library that runs: "0.1.0", for example. TINE_VERSION is the version of the
/// header that the program was compiled with. Never NULL; the text is never freed. Any thread of any
/// process may call it.
#[unsafe(no_mangle)]
pub extern "C" fn tine_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Returns the version of the library that runs as a number that grows, to be compared with
/// TINE_VERSION_NUMBER: 0x000100 for 0.1.0, with a byte for each of its parts.
#[unsafe(no_mangle)]
pub extern "C" fn tine_version_number() -> u32 {
    const fn part(text: &str) -> u32 {
        match u32::from_str_radix(text, 10) {
            Ok(part @ 0..=255) => part,
            _ => panic!("a part of the version is no number of one byte"),
        }
    }
    const MAJOR: u32 = part(env!("CARGO_PKG_VERSION_MAJOR"));
    const MINOR: u32 = part(env!("CARGO_PKG_VERSION_MINOR"));
    const PATCH: u32 = part(env!("CARGO_PKG_VERSION_PATCH"));
    MAJOR << 16 | MINOR << 8 | PATCH
}
