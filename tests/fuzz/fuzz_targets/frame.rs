//! A worker may write anything into its outbox. The master walks it and must refuse what is wrong: no panic, no read out
//! of bounds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tine::testing::outbox(data));
