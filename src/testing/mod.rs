//! What this crate's own tests, fuzz targets and benchmarks may open, behind hidden features. Nothing
//! of it is in a server that people run.

#[cfg(feature = "test-hooks")]
mod hooks;
#[cfg(feature = "bench-hooks")]
pub mod parts;

#[cfg(feature = "test-hooks")]
pub use self::hooks::{Forgery, KillPoint, outbox, split};
