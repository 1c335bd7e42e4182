//! A client may send anything, cut anywhere. The protocols must find the same messages however the bytes were cut, or
//! refuse them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tine::testing::split(data));
