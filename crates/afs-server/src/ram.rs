//! How much RAM this process may take.
//!
//! Guarantees: the least of what the machine has and what the control groups (version 2) that the process is in allow; what cannot be read does not
//! count. Deliberately absent: swap, and how much is free now, which is no bound.

use std::path::Path;

/// In bytes.
pub(crate) fn total_bytes() -> u64 {
    let machine = rustix::system::sysinfo();
    let machine = u64::from(machine.mem_unit.max(1)).saturating_mul(machine.totalram as u64);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group(&groups).and_then(|path| least(Path::new("/sys/fs/cgroup"), path));
    group.map_or(machine, |group| group.min(machine))
}

/// The group of version 2 in a `/proc/*/cgroup`, relative to its root.
fn group(text: &str) -> Option<&Path> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(path))
}

/// The least `memory.max` of a group and those that it is in.
fn least(root: &Path, group: &Path) -> Option<u64> {
    let limit = |group: &Path| {
        let text = std::fs::read_to_string(root.join(group).join("memory.max")).ok()?;
        text.trim().parse::<u64>().ok() // "max": none
    };
    group.ancestors().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |group: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(group)).unwrap();
            std::fs::write(dir.path().join(group).join("memory.max"), text).unwrap();
        };
        write("a/b/c", "max\n");
        assert_eq!(least(dir.path(), Path::new("a/b/c")), None);
        write("a/b", "5000\n");
        write("a", "7000\n");
        assert_eq!(least(dir.path(), Path::new("a/b/c")), Some(5_000));
        write("a", "4000\n");
        assert_eq!(least(dir.path(), Path::new("a/b/c")), Some(4_000));
        assert_eq!(least(dir.path(), Path::new("not/there")), None);
    }

    #[test]
    fn the_group_of_version_2() {
        assert_eq!(group("1:cpu:/x\n0::/a/b c\n"), Some(Path::new("a/b c")));
        assert_eq!(group("0::/\n"), Some(Path::new("")));
        assert_eq!(group("4:memory:/x\n"), None);
    }

    #[test]
    fn this_machine_has_some() {
        assert!(total_bytes() > 64 << 20);
    }
}
