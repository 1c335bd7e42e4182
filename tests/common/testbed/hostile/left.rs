//! Attacks by a process that outlives its worker, and reads what the next one in the slot is given.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use super::{Targets, Verdict, descriptors, memory};

/// A child with all memory of the worker, madvise(2).
pub(super) fn fork(targets: &Targets) -> Verdict {
    memory::share_with_children()?;
    // SAFETY: the child makes system calls, and reads memory of its own.
    match unsafe { libc::fork() } {
        0 => watch(targets),
        -1 => Err("fork failed: the attack has no ground".into()),
        _ => Ok(()),
    }
}

/// A process that has the same memory, clone(2) with CLONE_VM: no copy, and no madvise(2) keeps it away.
pub(super) fn share(targets: &Targets) -> Verdict {
    const STACK: usize = 1 << 20;
    let stack = Box::leak(vec![0_u8; STACK].into_boxed_slice());
    let targets: *const Targets = targets;
    extern "C" fn run(targets: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the worker does not touch the targets again: it waits until this process has copied them.
        watch(unsafe { &*targets.cast::<Targets>() })
    }
    // SAFETY: the new process has a stack of its own, and shares everything else. It ends by a signal.
    let child = unsafe {
        let top = stack.as_mut_ptr().add(STACK).cast();
        libc::clone(run, top, libc::CLONE_VM, targets.cast_mut().cast())
    };
    // It allocates: of two processes that do so at the same time, and believe to be alone, one would break the heap.
    thread::sleep(Duration::from_secs(3600));
    Err(format!("clone = {child}"))
}

/// Whether the server has ended. It is not this process's to signal.
fn is_over(targets: &Targets) -> bool {
    // SAFETY: takes integers.
    let answer = unsafe { libc::kill(targets.master, 0) };
    answer == -1 && Errno::last() == Errno::ESRCH
}

/// A child that swallows the rings and the events of the worker, which goes on.
pub(super) fn swallow(targets: &Targets) -> Verdict {
    // SAFETY: the child makes system calls alone.
    match unsafe { libc::fork() } {
        0 => {
            descriptors::swallow(|| is_over(targets));
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        -1 => Err("fork failed: the attack has no ground".into()),
        _ => Ok(()),
    }
}

/// Looks for the secret, to the end of the server.
fn watch(targets: &Targets) -> ! {
    // SAFETY: takes integers: the signals of the server's end are not for this process.
    unsafe { libc::setsid() };
    let mut looks = 0_u64;
    while !is_over(targets) {
        if let Err(found) = memory::scan(targets) {
            let _ = fs::write(&targets.found, found);
        }
        looks += 1;
        let _ = fs::write(targets.found.with_extension("looks"), looks.to_string());
        thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: ends this process alone.
    unsafe { libc::_exit(0) }
}
