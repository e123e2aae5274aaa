//! How the allocator keeps memory.

#![allow(unsafe_code)] // one call that no crate of ours wraps

/// What is larger gets pages of its own, bytes, which go back to the system with it.
const LARGE: libc::c_int = 64 << 10;

/// Lets all threads share one heap. The C library gives each its own, and what one frees the others cannot use: measured over
/// a run of 8,375 cells, 121 MiB became 72 MiB. Threads here wait for networks, not for the allocator.
pub(crate) fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: changes a number that is read when a thread allocates for the first time; there is no second thread yet.
    // A libc that does not know the option says so, and everything goes on as before.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // By itself the library takes ever larger pieces from the heap, once one of that size was given back.
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
