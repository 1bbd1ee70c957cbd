//! How much memory this process may take: the machine's, or less where a limit is set on the process.

use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::system::sysinfo;

/// Where the kernel says which control group a process is in.
const OWN_GROUPS: &str = "/proc/self/cgroup";
/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes of memory: the least of what the machine has, the control group gets, and `ulimit -v` allows.
pub(super) fn available() -> u64 {
    let machine = sysinfo();
    let machine = machine
        .totalram
        .saturating_mul(u64::from(machine.mem_unit.max(1)));
    let groups = std::fs::read_to_string(OWN_GROUPS).unwrap_or_default();
    let limits = files(&groups).filter_map(|file| std::fs::read_to_string(file).ok());
    // `max` of version 2 is no number, and "no limit" of version 1 is larger than any machine.
    let limits = limits.filter_map(|text| text.trim().parse::<u64>().ok());
    let ulimit = getrlimit(Resource::As).current;
    limits.chain(ulimit).fold(machine, u64::min)
}

/// Where a limit on memory may stand, by what the kernel says of this process' groups: one line a hierarchy,
/// `4:memory:/a/b` or `0::/a/b`. In a container its own group is at the top.
fn files(groups: &str) -> impl Iterator<Item = std::path::PathBuf> {
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
        // A limit on any group above holds too.
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
    fn a_limit_may_stand_at_any_group_above_in_both_versions() {
        let groups = "4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/d\n";
        let found: Vec<_> = files(groups)
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
    fn there_is_some_memory() {
        assert!(available() > 16 * 1024 * 1024);
    }
}
