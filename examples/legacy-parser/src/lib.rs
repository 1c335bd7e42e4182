//! The declaration of a C function that crashes on some input: see the example `crashy`.

use std::ffi::c_char;

unsafe extern "C" {
    /// Writes at most `size` bytes, a final zero byte included, to `answer`.
    ///
    /// # Safety
    /// `line` must end with a zero byte, and `answer` have `size` bytes. Even then it crashes where
    /// `line` has no `=`.
    pub fn legacy_parse(line: *const c_char, answer: *mut c_char, size: usize);
}
