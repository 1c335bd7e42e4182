//! Processes that user code forks, pthread_atfork(3): they copy every descriptor of this process.
//!
//! Its one rule: such a child keeps no port open, and no connection past its end. What can't be had: a child that is
//! made by clone(2) itself is not seen, and connections of a process that is killed stay open in its children.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// The descriptors that children do not get, or -1: the listening sockets, of which a server may have 1024, and the
/// channel of a worker.
static KEPT: [AtomicI32; 1025] = [const { AtomicI32::new(-1) }; 1025];

/// User code has forked this process, and the child may have copies of its sockets.
static FORKED: AtomicBool = AtomicBool::new(false);
/// This process is such a child.
static CHILD: AtomicBool = AtomicBool::new(false);
/// A fork of the server itself is under way.
static OURS: AtomicBool = AtomicBool::new(false);

/// Notices forks from now on.
pub(crate) fn watch() -> io::Result<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    FORKED.store(false, Ordering::Relaxed);
    CHILD.store(false, Ordering::Relaxed);
    if REGISTERED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: the functions are never unloaded, and async-signal-safe as fork handlers must be: atomics, and the
    // system calls open, dup3 and close.
    match unsafe { libc::pthread_atfork(None, Some(in_parent), Some(in_child)) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

extern "C" fn in_parent() {
    if !OURS.load(Ordering::Relaxed) {
        FORKED.store(true, Ordering::Relaxed);
    }
}

extern "C" fn in_child() {
    if OURS.load(Ordering::Relaxed) {
        return;
    }
    CHILD.store(true, Ordering::Relaxed);
    // SAFETY: opens a file by a name with a NUL at its end.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    for kept in &KEPT {
        let number = kept.swap(-1, Ordering::Relaxed);
        if number >= 0 && null >= 0 {
            // The number stays in use: this process has a value that closes it.
            // SAFETY: takes three integers. Both descriptors are this process's own copies.
            unsafe { libc::dup3(null, number, libc::O_CLOEXEC) };
        }
    }
    if null >= 0 {
        // SAFETY: it was opened above, and nothing else closes it.
        unsafe { libc::close(null) };
    }
}

/// Carries out a fork of the server itself, whose child keeps what it needs.
pub(super) fn ours<T>(fork: impl FnOnce() -> T) -> T {
    OURS.store(true, Ordering::Relaxed);
    let forked = fork();
    OURS.store(false, Ordering::Relaxed);
    forked
}

/// The children of the parent are not those of this process, which the server has just forked.
pub(super) fn forget_those_of_the_parent() {
    FORKED.store(false, Ordering::Relaxed);
}

/// A socket that has come from another process may have copies there.
pub(crate) fn has_copies() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Whether closing a socket may not be enough to end its connection.
pub(crate) fn has_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Whether user code has forked this process: it must not go on as the one that it was forked from.
pub(crate) fn is_child() -> bool {
    CHILD.load(Ordering::Relaxed)
}

/// A descriptor was opened that children do not get.
pub(super) fn keeps(number: i32) {
    let free = KEPT.iter().find(|it| it.load(Ordering::Relaxed) < 0);
    if let Some(free) = free {
        free.store(number, Ordering::Relaxed);
    }
}

/// Such a descriptor is about to be closed.
pub(super) fn keeps_no_more(number: i32) {
    for kept in &KEPT {
        if kept.load(Ordering::Relaxed) == number {
            kept.store(-1, Ordering::Relaxed);
        }
    }
}
