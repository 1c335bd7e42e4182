//! Trying a handler without a server: [`TestServer`] runs its callbacks in the calling process and shows
//! what they have committed.
//!
//! Behind hidden features it also has what this crate's own tests, fuzz targets and benchmarks may
//! open. Nothing of that is in a server that people run.

mod commit;
#[cfg(feature = "test-hooks")]
mod hooks;
#[cfg(feature = "bench-hooks")]
#[doc(hidden)]
pub mod parts;
mod server;

pub use self::commit::{Action, Commit};
#[cfg(feature = "test-hooks")]
#[doc(hidden)]
pub use self::hooks::{Forgery, KillPoint, outbox, split};
pub use self::server::{TestConn, TestServer};
