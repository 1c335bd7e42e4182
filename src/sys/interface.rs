//! Network interfaces, by name.

use nix::net::if_::if_nametoindex;

/// Returns the number of an interface by its name or its number; `None` if there is none of this name.
pub(crate) fn index(name: &str) -> Option<u32> {
    match name.parse() {
        Ok(index) => Some(index),
        Err(_) => if_nametoindex(name).ok(),
    }
}
