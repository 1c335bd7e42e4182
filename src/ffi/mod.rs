//! The C ABI: what `tine.h` declares, for C and whatever else calls C.
#![allow(unsafe_code)]
#![allow(
    unreachable_pub,
    reason = "what C calls is reached by its symbol, and not by its path"
)]

mod version;
