//! Helpers of the tests.

use afs_journal::{JournalOptions, RocksJournal};
use afs_store::contract::Subject;
use afs_store::{Batch, GroupOptions, Journal, Position, Space};
use afs_types::Result;
use parking_lot::Mutex;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Small, so that hundreds can be opened.
pub(crate) fn options() -> JournalOptions {
    JournalOptions {
        ballast_bytes: 0,
        write_buffer_bytes: 4 << 20,
        cache_bytes: 4 << 20,
        ..JournalOptions::default()
    }
}

pub(crate) fn put(journal: &dyn Journal, key: u64, value: &[u8]) -> Position {
    let mut batch = Batch::new();
    batch.put(Space::Record, key.to_be_bytes(), value);
    journal.submit(batch).unwrap()
}

pub(crate) fn keys(journal: &dyn Journal) -> Vec<u64> {
    let mut found = Vec::new();
    let mut visit = |key: &[u8], _: &[u8]| {
        found.push(u64::from_be_bytes(key.try_into().unwrap()));
        Ok(ControlFlow::Continue(()))
    };
    journal.scan(Space::Record, b"", None, &mut visit).unwrap();
    found
}

/// Copies a journal's directory as it is now: what a process killed at this moment would leave. The mark goes first: it must
/// not be ahead of a database that was copied earlier. A real kill is of one instant; a copy during which
/// RocksDB adds or removes tables is not, and is made again.
pub(crate) fn copy(from: &Path, to: &Path) {
    loop {
        let _ = std::fs::remove_dir_all(to);
        std::fs::create_dir_all(to.join("rocks")).unwrap();
        let before = state(from);
        std::fs::copy(from.join("MARK"), to.join("MARK")).unwrap();
        for (name, _) in &before {
            let _ = std::fs::copy(from.join("rocks").join(name), to.join("rocks").join(name));
        }
        if before == state(from) {
            return;
        }
    }
}

/// Names of RocksDB's files, and the length of the one that lists them. WALs only grow, which is no harm.
fn state(dir: &Path) -> Vec<(String, u64)> {
    let list = std::fs::read_dir(dir.join("rocks")).unwrap().map(|e| e.unwrap());
    let mut found: Vec<_> = list
        .map(|e| (e.file_name().into_string().unwrap(), e.metadata().map_or(0, |m| m.len())))
        .filter(|(name, _)| name != "LOCK")
        .map(|(name, len)| if name.starts_with("MANIFEST") { (name, len) } else { (name, 0) })
        .collect();
    found.sort();
    found
}

/// For the contract suite: crashes are copies of the directory of the running journal.
pub(crate) struct RocksSubject {
    dir: tempfile::TempDir,
    now: Mutex<(u64, Option<Arc<RocksJournal>>)>,
}

impl RocksSubject {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), now: Mutex::new((0, None)) }
    }
    fn path(&self, generation: u64) -> PathBuf {
        self.dir.path().join(generation.to_string())
    }
}

impl Subject for RocksSubject {
    fn open(&self, group: GroupOptions) -> Result<Arc<dyn Journal>> {
        let mut now = self.now.lock();
        now.1 = None;
        let journal = RocksJournal::open(&self.path(now.0), JournalOptions { group, ..options() })?;
        now.1 = Some(Arc::clone(&journal));
        Ok(journal)
    }

    fn crash(&self, _: u64, group: GroupOptions) -> Result<Arc<dyn Journal>> {
        let mut now = self.now.lock();
        let (old, new) = (self.path(now.0), self.path(now.0 + 1));
        copy(&old, &new);
        now.1 = None;
        now.0 += 1;
        let journal = RocksJournal::open(&new, JournalOptions { group, ..options() })?;
        now.1 = Some(Arc::clone(&journal));
        Ok(journal)
    }
}
