//! The files of the crate, by path.

#[allow(dead_code)] // The rest of the crate uses what the models do not.
#[path = "../../../src/ipc/answer.rs"]
pub(crate) mod answer;
#[allow(dead_code)] // As above.
#[path = "../../../src/ipc/claim.rs"]
pub(crate) mod claim;
#[allow(dead_code)] // As above.
#[path = "../../../src/ipc/position.rs"]
pub(crate) mod position;
#[allow(dead_code, unreachable_pub)] // As above.
#[path = "../../../src/ipc/ring.rs"]
pub(crate) mod ring;
#[allow(dead_code)] // As above.
#[path = "../../../src/ipc/sleeper.rs"]
pub(crate) mod sleeper;
#[path = "../../../src/ipc/sync.rs"]
pub(crate) mod sync;
