//! RLIMIT_NOFILE, getrlimit(2): the limit of this process's connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files to at least `needed`, past the hard limit if the process may
/// (CAP_SYS_RESOURCE).
///
/// # Errors
/// Returns the limit that could be reached, when it is less than `needed`.
pub(super) fn raise_open_files(needed: u64) -> Result<(), u64> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Err(0);
    };
    if soft >= needed {
        return Ok(());
    }
    let reached = if needed <= hard { soft } else { hard };
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).map_err(|_| reached)
}
