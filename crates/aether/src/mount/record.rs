//! What other processes can learn of a mount: a record file and, beside it, a socket that answers with the live state.
//! Records of processes that are gone are ignored, and removed by `forget_dead`. The record does not need the socket.
//!
//! The last thing that a serving process does is to write into its record how it ended, for the one who waits for that: a record
//! without it is of a process that was killed, and tells nobody that all is well. It stays for [`KEEP_ENDED_SECONDS`] at most.

use crate::paths;
use afs_client::Problem;
use afs_types::{Clock, Error, Result, SystemClock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longer than anybody waits for it.
const KEEP_ENDED_SECONDS: i64 = 600;

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
    /// How it ended; none while it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<End>,
}

/// How a mount ended.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Why something that was written through it is not on the server's disk, or not known to be; none: everything is.
    pub(crate) problem: Option<Problem>,
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

    /// Says how it ended, as the last thing that its process does. If that fails, whoever waits takes it for killed.
    pub(crate) fn end(mut self, end: &Result<()>) {
        self.ended = Some(End { problem: end.as_ref().err().map(Problem::from) });
        if let Ok(socket) = self.socket() {
            let _ = fs::remove_file(socket); // there may be none
        }
        if let Err(error) = self.write() {
            tracing::error!(?error, "nobody will learn how this mount ended");
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
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

/// Mounts of this user whose process lives. Forgets those that ended in order a while ago.
pub(crate) fn records() -> Result<Vec<Record>> {
    let mut alive = Vec::new();
    for (record, path) in all()? {
        if record.is_alive() {
            alive.push(record);
        } else if record.ended.is_some() && is_old(&path) {
            record.remove();
        }
    }
    Ok(alive)
}

fn is_old(path: &Path) -> bool {
    let Ok(meta) = fs::metadata(path) else { return false };
    SystemClock.now_ns() / 1_000_000_000 - meta.mtime() > KEEP_ENDED_SECONDS
}

/// The process that serves the mount at a directory, or served it until it was killed; the newest, if there were several.
pub(crate) fn record_at(dir: &Path) -> Result<Option<Record>> {
    let served = all()?.into_iter().map(|(record, _)| record).filter(|r| r.dir == dir && r.ended.is_none());
    Ok(served.max_by_key(|record| (record.is_alive(), record.started)))
}

/// How a mount ended whose process is gone; none if that did not say.
pub(crate) fn end_of(record: &Record) -> Option<End> {
    let now: Record = serde_json::from_slice(&fs::read(record.path().ok()?).ok()?).ok()?;
    now.ended.filter(|_| now.started == record.started)
}

/// Removes what processes that are gone have left, and returns how many. Not how one has just ended: somebody may be waiting for that,
/// to whom it would seem to be killed.
pub(crate) fn forget_dead() -> Result<usize> {
    // How it ended is looked up once it is known to be gone: then nobody writes it any more.
    let is_waste =
        |(record, path): &(Record, PathBuf)| !record.is_alive() && (end_of(record).is_none() || is_old(path));
    let dead: Vec<_> = all()?.into_iter().filter(is_waste).collect();
    dead.iter().for_each(|(record, _)| record.remove());
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
