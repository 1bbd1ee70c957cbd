//! Where tests have their folders.

use std::path::Path;

use rustix::fs::statvfs;
use tempfile::TempDir;

/// A disk in memory, on Linux.
const IN_MEMORY: &str = "/dev/shm";
/// How many bytes must be free there.
const FREE_MIN: u64 = 2 * 1024 * 1024 * 1024;

/// A folder of one test, in memory if enough is free: otherwise half of the time of most tests goes by until a disk has
/// confirmed each change. The crash tests are about disks, and use a real one.
pub fn folder() -> TempDir {
    let is_about_disks = env!("CARGO_CRATE_NAME") == "crash";
    let free = statvfs(Path::new(IN_MEMORY)).map(|disk| disk.f_bavail * disk.f_frsize);
    let in_memory = !is_about_disks && free.is_ok_and(|bytes| bytes >= FREE_MIN);
    let made = in_memory.then(|| tempfile::tempdir_in(IN_MEMORY).ok());
    made.flatten()
        .unwrap_or_else(|| tempfile::tempdir().unwrap())
}
