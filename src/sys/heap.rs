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
        /// The most that glibc would raise it to.
        const USUAL: libc::c_int = 64 << 20;
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
        }
        drop(guard);
    }
}
