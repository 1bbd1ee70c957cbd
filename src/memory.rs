//! Giving memory back to the system.
//!
//! Rust code allocates with mimalloc, which saves about a tenth of the processor time of a call; SQLite allocates with the C
//! library. Both keep freed memory for later allocations.

/// Free bytes at the end of an arena from which the C library gives them back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM_THRESHOLD: i32 = 16 * 1024 * 1024;
/// Size from which the C library maps each allocation separately.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_THRESHOLD: i32 = 4 * 1024 * 1024;

/// Sets how much of what SQLite frees is kept until [`give_back`]. By itself glibc gives the end of an arena back as soon as
/// 128 KiB are free there, which is after nearly every transaction, and asks for it again in the next: a quarter of the
/// time of a start. To be called first.
pub fn set_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    set_thresholds();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "there is no safe way to call it")]
fn set_thresholds() {
    // SAFETY: `mallopt` takes two numbers and is called before there is a second thread (mallopt(3): MT-Unsafe init). A
    // threshold that is refused, which the result says, stays as it was.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    }
}

/// Gives the system back what SQLite has freed. glibc by itself gives back only what lies at the end of an arena. Takes
/// a millisecond, and some ten after much was freed; meanwhile, others may wait as long for memory. Does nothing with
/// another C library.
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

/// Gives the system back what lies in pages that the calling thread allocated and any thread has freed; some milliseconds
/// after much was freed. mimalloc by itself keeps nearly all that a crowd of connections took: only the thread that owns a
/// page can return it, and does so when it next allocates something of that size. The threads of the database need no
/// call: what they allocate here is small.
#[expect(unsafe_code, reason = "there is no safe way to call it")]
pub fn give_back_of_thread() {
    // SAFETY: `mi_collect` works on the heap of the calling thread, and on free parts of arenas, which it claims atomically;
    // it moves and ends no allocation. In a thread or a process without a heap of mimalloc it does nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
