//! The base of the tests: the real program started as by a user, clients, and the kernel's view of both.
//!
//! Runs in the process of the tests. Its one rule: no fact comes from the server's own account. Facts come from the
//! program's output, from `/proc`, or from the other end of a connection.
#![allow(
    dead_code,
    reason = "each test and benchmark is a crate of its own and uses its share of this"
)]

/// A program of the package in `src/tools`. Cargo builds it for the tests of that package; for the
/// benchmarks, which are the library's, `make` does, without the features for tests.
macro_rules! built {
    ($name:literal) => {
        match option_env!(concat!("CARGO_BIN_EXE_", $name)) {
            Some(path) => path,
            None => concat!(env!("CARGO_TARGET_TMPDIR"), "/../release/", $name),
        }
    };
}

pub(crate) mod allocations;
pub(crate) mod c;
pub(crate) mod client;
pub(crate) mod doctor;
pub(crate) mod gates;
pub(crate) mod launch;
pub(crate) mod make;
pub(crate) mod process;
pub(crate) mod server;
pub(crate) mod sockets;
pub(crate) mod terminal;
pub(crate) mod tls;
pub(crate) mod traffic;

use std::fmt::Display;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The deadline for steps that are quick on an idle machine. Generous: a slow test must not fail.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Returns the root of the repository, which has more than one package.
pub(crate) fn root() -> &'static Path {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = folders.find(|folder| folder.join("Cargo.lock").exists());
    root.expect("a package of the repository")
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within `deadline`; the message names `what`.
#[track_caller]
pub(crate) fn eventually(
    deadline: Duration,
    what: impl Display,
    mut condition: impl FnMut() -> bool,
) {
    eventually_some(deadline, what, || condition().then_some(()));
}

/// Waits until `find` finds something, and returns it.
///
/// # Panics
/// If it does not within `deadline`.
#[track_caller]
pub(crate) fn eventually_some<T>(
    deadline: Duration,
    what: impl Display,
    mut find: impl FnMut() -> Option<T>,
) -> T {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(
            begin.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Checks for `duration`, again and again, that `condition` holds.
///
/// # Panics
/// As soon as it does not.
#[track_caller]
pub(crate) fn keeps(duration: Duration, what: impl Display, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < duration {
        assert!(
            condition(),
            "no longer so after {:?}: {what}",
            begin.elapsed()
        );
        thread::sleep(Duration::from_millis(50));
    }
}
