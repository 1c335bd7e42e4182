//! A proxy may send anything, cut anywhere. A header is the same however it was cut, or it is refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tine::testing::proxy(data));
