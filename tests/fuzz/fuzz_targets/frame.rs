//! A worker may write anything into its outbox. The master reads it and must refuse invalid content: no panic, no read out
//! of bounds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tine::testing::outbox(data));
