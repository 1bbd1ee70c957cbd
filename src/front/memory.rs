//! How much memory this process may use: that of the machine, or less if a limit is set for the process.

use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::system::sysinfo;

/// Lists the control groups of this process.
const OWN_GROUPS: &str = "/proc/self/cgroup";
/// The directory of the control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// The memory in bytes: the minimum of the machine's memory, the control group's limit and `ulimit -v`.
pub(super) fn available() -> u64 {
    let machine = sysinfo();
    let machine = machine
        .totalram
        .saturating_mul(u64::from(machine.mem_unit.max(1)));
    let groups = std::fs::read_to_string(OWN_GROUPS).unwrap_or_default();
    let limits = limit_files(&groups).filter_map(|file| std::fs::read_to_string(file).ok());
    // Without a limit, version 2 says `max`, which does not parse, and version 1 a number larger than any memory.
    let limits = limits.filter_map(|text| text.trim().parse::<u64>().ok());
    let ulimit = getrlimit(Resource::As).current;
    limits.chain(ulimit).fold(machine, u64::min)
}

/// The files that may contain a memory limit. `groups` has one line per hierarchy, `4:memory:/a/b` (version 1) or
/// `0::/a/b` (version 2). In a container, the files of its own group are at the top.
fn limit_files(groups: &str) -> impl Iterator<Item = std::path::PathBuf> {
    let lines = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    lines.flat_map(|(controllers, group)| {
        let (folder, file) = if controllers.split(',').any(|one| one == "memory") {
            ("memory", "memory.limit_in_bytes")
        } else if controllers.is_empty() {
            ("", "memory.max")
        } else {
            return Vec::new();
        };
        let top = Path::new(GROUPS).join(folder);
        let group = Path::new(group.trim_start_matches('/'));
        // The limits of all parent groups apply, too.
        group
            .ancestors()
            .map(|group| top.join(group).join(file))
            .collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_all_parent_groups_are_read_in_both_versions() {
        let groups = "4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/d\n";
        let found: Vec<_> = limit_files(groups)
            .map(|file| file.display().to_string())
            .collect();
        let expected = [
            "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/d/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn some_memory_is_available() {
        assert!(available() > 16 * 1024 * 1024);
    }
}
