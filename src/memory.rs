//! Giving memory back to the system.
//!
//! The allocator is that of the C library. mimalloc saves some tenth of the processor's time of each call, but keeps what a
//! crowd of connections took, in the memory of each thread; jemalloc is built by make and a shell, and this program by Rust
//! and a C compiler alone.

/// Gives the system back what this process has freed. glibc by itself keeps nearly all that a crowd of connections took:
/// it gives back only what lies at the end of an arena. Takes a millisecond, and some ten after much was freed;
/// meanwhile, others may wait as long for memory. Does nothing with another C library.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    trim();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "there is no safe way to call it")]
fn trim() {
    // SAFETY: `malloc_trim` takes a number and touches only pages that nothing is allocated in; it locks each arena
    // itself, so any thread may call it at any time (malloc_trim(3): MT-Safe). The result only says whether anything
    // was given back.
    unsafe { libc::malloc_trim(0) };
}
