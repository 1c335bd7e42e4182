//! Tests of a handler without a server: [`TestServer`] runs its callbacks in the calling process and
//! returns their commits.
//!
//! Behind hidden features it also has the internals for this crate's own tests, fuzz targets and
//! benchmarks. They are not part of any other build.

mod commit;
mod conn;
#[cfg(feature = "test-hooks")]
mod hooks;
#[cfg(feature = "bench-hooks")]
#[doc(hidden)]
pub mod parts;
mod server;

pub use self::commit::{Action, Commit, QueuedTask};
pub use self::conn::TestConn;
#[cfg(all(feature = "proxy", feature = "test-hooks"))]
#[doc(hidden)]
pub use self::hooks::proxy;
#[cfg(feature = "test-hooks")]
#[doc(hidden)]
pub use self::hooks::{Forgery, KillPoint, outbox, split};
pub use self::server::TestServer;
