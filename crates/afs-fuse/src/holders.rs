//! Which processes use a mount. Only links in `/proc` are read, so a mount that does not answer cannot stop it.
//! Best effort: processes of others, and mounts copied into other namespaces, may stay unseen.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_SHOWN: usize = 8;

/// `pid (program)` of the first few.
pub(crate) fn of(dir: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|p| p.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| uses(*pid, dir)).take(MAX_SHOWN).map(describe).collect()
}

fn uses(pid: u32, dir: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let inside = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(dir));
    ["cwd", "root", "exe"].into_iter().any(|name| inside(process.join(name)))
        || ["fd", "map_files"].into_iter().any(|name| {
            fs::read_dir(process.join(name))
                .is_ok_and(|links| links.flatten().any(|link| inside(link.path())))
        })
}

fn describe(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{pid} ({})", name.trim())
}
