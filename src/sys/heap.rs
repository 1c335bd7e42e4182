//! malloc_trim(3) and mallopt(3): free memory of the heap goes back to the machine. glibc keeps it otherwise;
//! with other libraries of C these functions do nothing.

#[cfg(target_env = "gnu")]
use std::hint::black_box;
#[cfg(target_env = "gnu")]
use std::sync::Mutex;

/// Gives back the free memory between what is in use, of all threads, and at the end of the first thread's
/// heap.
pub(crate) fn trim_all() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it locks the heaps one after the other, and changes no memory that is in use.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Gives back the free memory at the end of this thread's heap, which [`trim_all`] leaves alone (mtrim in
/// `malloc.c` of glibc): free(3) does, where more is free than a threshold, which rises with use.
pub(crate) fn trim_own_end() {
    #[cfg(target_env = "gnu")]
    {
        const LOW: libc::c_int = 128 << 10;
        /// The most that glibc would raise it to, and from which size it would map a block by itself then.
        const USUAL: libc::c_int = 64 << 20;
        const MAPPED: libc::c_int = 32 << 20;
        /// Large enough for free(3) to look at the threshold, and too small for a mapping of its own.
        const LARGE: usize = 96 << 10;
        // The threshold is that of the process.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let guard = ONE_AT_A_TIME.lock();
        // SAFETY: takes integers; the memory is freed at once.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, LOW);
            libc::free(black_box(libc::malloc(LARGE)));
            libc::mallopt(libc::M_TRIM_THRESHOLD, USUAL);
            // Once the one is set, glibc raises neither: every block of 128 KiB would be a mapping of its own.
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
        }
        drop(guard);
    }
}

#[cfg(all(test, target_env = "gnu", not(miri)))]
mod tests {
    use super::*;

    /// Whether malloc(3) makes a mapping for a block of this size.
    fn is_mapped(size: usize) -> bool {
        // SAFETY: below a block is its size, with flags of which 2 is that of a mapping (`malloc.c` of glibc).
        unsafe {
            let block = black_box(libc::malloc(size));
            assert!(!block.is_null());
            let flags = block.cast::<usize>().sub(1).read();
            libc::free(block);
            flags & 2 != 0
        }
    }

    #[test]
    fn after_a_trim_long_blocks_come_from_the_heap_as_before() {
        trim_own_end();
        // Longer than any block of another test, which would have raised the limit of glibc.
        assert!(!is_mapped(24 << 20));
        assert!(is_mapped(40 << 20));
    }
}
