//! RLIMIT_NOFILE, getrlimit(2): how many descriptors this process may hold.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files so that at least `needed` descriptors fit, past the hard limit
/// where the process has the right to (CAP_SYS_RESOURCE).
///
/// # Errors
/// The limit that could be reached, when it is less than `needed`.
pub(crate) fn raise_open_files(needed: u64) -> Result<(), u64> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Err(0);
    };
    if soft >= needed {
        return Ok(());
    }
    if needed <= hard {
        return setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(|_| soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, needed).map_err(|_| hard)
}

/// The most descriptors that this process may hold without any privilege.
pub(crate) fn hard_open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard)
}
