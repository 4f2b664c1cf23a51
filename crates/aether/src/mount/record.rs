//! What other processes can learn of a mount: a record file and, beside it, a socket that answers with the live state.
//! Records of processes that are gone are ignored, and removed by `forget_dead`.

use crate::paths;
use afs_types::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A mount served by a process of this user.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) pid: u32,
    /// Start of the process in clock ticks since boot: a pid alone may have gone to another program.
    pub(crate) started: u64,
    pub(crate) session: String,
    pub(crate) endpoint: String,
    pub(crate) dir: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) log: Option<PathBuf>,
}

/// The live state of a mount.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Live {
    pub(crate) mount_id: String,
    pub(crate) connected: bool,
    pub(crate) down_seconds: u64,
    pub(crate) trouble: String,
    pub(crate) revision: u64,
    pub(crate) reconnects: u64,
    pub(crate) lost_operations: bool,
    /// Requests of the kernel by kind.
    pub(crate) counters: BTreeMap<String, u64>,
}

impl Record {
    pub(crate) fn path(&self) -> Result<PathBuf> {
        Ok(paths::runtime_dir()?.join(format!("mount-{}.json", self.pid)))
    }

    pub(crate) fn socket(&self) -> Result<PathBuf> {
        Ok(paths::runtime_dir()?.join(format!("mount-{}.sock", self.pid)))
    }

    /// Writes the record; under its name it is always whole.
    pub(crate) fn write(&self) -> Result<()> {
        let path = self.path()?;
        let failed = |e| Error::io(format!("write {}", path.display()), e);
        let text = serde_json::to_vec(self).map_err(|e| failed(e.into()))?;
        let part = path.with_extension("part");
        fs::write(&part, text).map_err(failed)?;
        fs::rename(&part, &path).map_err(failed)
    }

    pub(crate) fn remove(&self) {
        for path in [self.path(), self.socket()].into_iter().flatten() {
            let _ = fs::remove_file(path); // there may be none
        }
    }

    fn is_alive(&self) -> bool {
        start_of(self.pid) == Some(self.started)
    }
}

/// When a process began, in clock ticks since boot; none if there is none, or only what nobody has collected of it.
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    parse_start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may hold anything; after it come the state and, 18 fields later, the start time.
fn parse_start(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| !has_ended)
}

fn all() -> Result<Vec<(Record, PathBuf)>> {
    let dir = paths::runtime_dir()?;
    let files = fs::read_dir(&dir).map_err(|e| Error::io(format!("list {}", dir.display()), e))?;
    let records = files.flatten().map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "json"));
    let read = |path: PathBuf| Some((serde_json::from_slice(&fs::read(&path).ok()?).ok()?, path));
    Ok(records.filter_map(read).collect())
}

/// Mounts of this user whose process lives.
pub(crate) fn records() -> Result<Vec<Record>> {
    Ok(all()?.into_iter().map(|(record, _)| record).filter(Record::is_alive).collect())
}

/// Removes what processes that are gone have left; returns how many.
pub(crate) fn forget_dead() -> Result<usize> {
    let dead: Vec<Record> = all()?.into_iter().map(|(r, _)| r).filter(|r| !r.is_alive()).collect();
    dead.iter().for_each(Record::remove);
    Ok(dead.len())
}

/// Waits for the process of a mount to end; false if it takes longer than `patience`.
pub(crate) async fn wait_gone(record: &Record, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while record.is_alive() {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Asks a mount for its state; none if it does not answer within two seconds.
pub(crate) fn ask(record: &Record) -> Option<Live> {
    let mut socket = UnixStream::connect(record.socket().ok()?).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut text = Vec::new();
    socket.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_gone_before_it_is_collected() {
        let stat = |state| format!("7 (a) b) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0");
        assert_eq!(parse_start(&stat("S")), Some(4242));
        assert_eq!(parse_start(&stat("Z")), None);
        assert!(start_of(std::process::id()).is_some());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while start_of(child.id()).is_some() {}
        child.wait().unwrap();
    }
}
