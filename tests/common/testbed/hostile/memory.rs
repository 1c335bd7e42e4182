//! Attacks through the worker's own mappings.

use std::fs::{File, OpenOptions, read_to_string};
use std::io;
use std::os::unix::fs::FileExt;

use super::{Targets, Verdict};

/// A line of /proc/self/maps.
pub(super) struct Map {
    start: usize,
    end: usize,
    is_writable: bool,
    is_readable: bool,
    is_shared_with_the_server: bool,
    name: String,
}

pub(super) fn maps() -> Result<Vec<Map>, String> {
    let text = read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        Some(Map {
            start: usize::from_str_radix(start, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            is_readable: rest.starts_with('r'),
            is_writable: rest[1..].starts_with('w'),
            is_shared_with_the_server: rest.contains("memfd:tine"),
            name: line.to_owned(),
        })
    };
    Ok(text.lines().filter_map(parse).collect())
}

/// The mappings of memory that the server shares with this worker.
fn shared() -> Result<Vec<Map>, String> {
    let mut all = maps()?;
    all.retain(|map| map.is_shared_with_the_server);
    match all.is_empty() {
        true => Err("no memory is shared with the server: the attacks have no ground".into()),
        false => Ok(all),
    }
}

/// Copies memory of this process, as far as there is any: reading it directly would end the process where there is none.
fn peek(start: usize, buffer: &mut [u8]) -> usize {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: start as *mut _,
        iov_len: buffer.len(),
    };
    // SAFETY: the kernel writes into the buffer alone, and checks the other address.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    usize::try_from(read).unwrap_or(0)
}

/// Looks for the secret in a range of this process.
fn look(targets: &Targets, start: usize, end: usize) -> Verdict {
    const STEP: usize = 1 << 20;
    let mut buffer = vec![0; STEP + 64];
    let mut at = start;
    while at < end {
        let len = (end - at).min(buffer.len());
        let read = peek(at, &mut buffer[..len]);
        if targets.is_in(&buffer[..read]) {
            return Err(format!("the secret is readable from {at:#x} on"));
        }
        // Behind the end of a file there is no more.
        if read < len {
            return Ok(());
        }
        at += STEP;
    }
    Ok(())
}

/// Looks for the secret in all memory of this process.
pub(super) fn scan(targets: &Targets) -> Verdict {
    let readable = maps()?.into_iter().filter(|map| map.is_readable);
    for map in readable {
        look(targets, map.start, map.end).map_err(|found| format!("{found} ({})", map.name))?;
    }
    Ok(())
}

/// mremap(2): mappings grow over the rest of their file.
pub(super) fn grow(targets: &Targets) -> Verdict {
    const MORE: usize = 1 << 30;
    for map in shared()? {
        let len = map.end - map.start;
        // SAFETY: moves a mapping of the server's, which this worker uses no more: it ends after the attack.
        let grown = unsafe {
            let copy = libc::mremap(map.start as *mut _, 0, len, libc::MREMAP_MAYMOVE);
            match copy {
                libc::MAP_FAILED => copy,
                copy => libc::mremap(copy, len, len + MORE, libc::MREMAP_MAYMOVE),
            }
        };
        if grown != libc::MAP_FAILED {
            let start = grown as usize;
            look(targets, start, start + len + MORE)?;
        }
    }
    scan(targets)
}

/// mremap(2) with a length of 0: a second mapping, perhaps with more access.
pub(super) fn duplicate(targets: &Targets) -> Verdict {
    for map in shared()?.into_iter().filter(|map| !map.is_writable) {
        let len = map.end - map.start;
        // SAFETY: makes a mapping at a place that the kernel chooses.
        let copy = unsafe { libc::mremap(map.start as *mut _, 0, len, libc::MREMAP_MAYMOVE) };
        if copy != libc::MAP_FAILED {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: changes the protection of that mapping.
            if unsafe { libc::mprotect(copy, len, access) } == 0 {
                return Err(format!("a writable copy of {}", map.name));
            }
        }
    }
    scan(targets)
}

/// remap_file_pages(2): another page of the file at the same place.
pub(super) fn remap(targets: &Targets) -> Verdict {
    const PAGE: usize = 4096;
    for map in shared()? {
        // SAFETY: as in `grow`, of a copy.
        let copy = unsafe { libc::mremap(map.start as *mut _, 0, PAGE, libc::MREMAP_MAYMOVE) };
        if copy == libc::MAP_FAILED {
            continue;
        }
        for page in 0..4096_usize {
            // SAFETY: replaces that copy alone.
            unsafe { libc::syscall(libc::SYS_remap_file_pages, copy, PAGE, 0, page, 0) };
            look(targets, copy as usize, copy as usize + PAGE)?;
        }
    }
    Ok(())
}

/// mprotect(2): writes where this worker may only read.
pub(super) fn unprotect(targets: &Targets) -> Verdict {
    let read_only: Vec<Map> = shared()?.into_iter().filter(|it| !it.is_writable).collect();
    if read_only.len() < 3 {
        return Err(format!("{} mappings are read-only", read_only.len()));
    }
    for map in read_only {
        for access in [libc::PROT_WRITE, libc::PROT_READ | libc::PROT_WRITE] {
            // SAFETY: changes the protection of memory that no Rust reference points to.
            let changed =
                unsafe { libc::mprotect(map.start as *mut _, map.end - map.start, access) };
            if changed == 0 {
                return Err(format!("writable: {}", map.name));
            }
        }
    }
    scan(targets)
}

/// /proc/self/mem, which ignores the protection of private memory.
pub(super) fn write_by_proc(_: &Targets) -> Verdict {
    let Ok(memory) = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/mem")
    else {
        return Ok(());
    };
    for map in shared()?.into_iter().filter(|map| !map.is_writable) {
        if memory.write_at(&[0xff; 8], map.start as u64).is_ok() {
            return Err(format!("written: {}", map.name));
        }
    }
    Ok(())
}

/// madvise(2): takes pages out of the file.
pub(super) fn punch(_: &Targets) -> Verdict {
    for map in shared()?.into_iter().filter(|map| !map.is_writable) {
        let len = map.end - map.start;
        for advice in [libc::MADV_REMOVE, libc::MADV_POPULATE_WRITE] {
            // SAFETY: of memory that no Rust reference points to.
            if unsafe { libc::madvise(map.start as *mut _, len, advice) } == 0 {
                return Err(format!("advice {advice} for {}", map.name));
            }
        }
    }
    Ok(())
}

/// /proc/self/map_files: the file of a mapping, opened again.
pub(super) fn map_files(_: &Targets) -> Verdict {
    for map in shared()? {
        let path = format!("/proc/self/map_files/{:x}-{:x}", map.start, map.end);
        let opened = [
            File::open(&path),
            OpenOptions::new().write(true).open(&path),
        ];
        if opened.iter().any(io::Result::is_ok) {
            return Err(format!("{path} is open: {}", map.name));
        }
    }
    Ok(())
}

/// Lets children have all memory, madvise(2).
pub(super) fn share_with_children() -> Verdict {
    for map in shared()? {
        let len = map.end - map.start;
        // SAFETY: changes nothing in this process.
        unsafe { libc::madvise(map.start as *mut _, len, libc::MADV_DOFORK) };
    }
    Ok(())
}
