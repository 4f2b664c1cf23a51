//! [`RocksJournal`]: the journal on RocksDB, the only crate that links it.
//!
//! ```text
//! dir/LOCK     held while a process uses the directory
//! dir/MARK     the high-water mark (`mark`), outside of RocksDB's own files
//! dir/BALLAST  space given up when the disk is full, so that recovery can run
//! dir/rocks/   RocksDB: one column family, key = space byte + key
//! ```
//! Guarantees: those of [`Journal`]; and it never opens a state that is behind what it acknowledged. Every group carries a head (epoch, idx, and a BLAKE3
//! chained over all groups) in the same atomic write; the mark repeats it outside. RocksDB itself notices neither a WAL that was cut at a
//! record's border nor one that was deleted: comparing head and mark does, and refuses.
//!
//! The limit of that: the mark is written after each group, so it is exact after `kill -9`; it is synced at most every
//! 100 ms, so that a commit costs one fdatasync. After a power cut it may be that much behind, and damage to a WAL that loses no more than the last
//! 100 ms (plus one tick) before the cut would go unnoticed.
//!
//! Deliberately absent: repair. A refusal says what to restore; rolling back silently is never an answer.

mod errors;
mod mark;
mod rocks;

use afs_store::{Batch, Flusher, GroupCommit, GroupOptions, Journal, Position, Space, Visit};
use afs_types::Result;
use rocks::RocksStore;
use std::path::Path;
use std::sync::Arc;

/// How a journal is opened.
#[derive(Clone)]
pub struct JournalOptions {
    /// How groups are made; what happens when one cannot be written.
    pub group: GroupOptions,
    /// Sync each group. False only for negative controls: it must be caught by the tests of durability.
    pub sync: bool,
    /// RocksDB's cache of blocks, in bytes.
    pub cache_bytes: usize,
    /// One memtable, in bytes; there are three at most.
    pub write_buffer_bytes: usize,
    /// Most bytes of live WAL: what recovery has to read.
    pub wal_bytes: u64,
    /// Free disk space below which batches that free nothing get `NO_SPACE`.
    pub reserve_bytes: u64,
    /// Size of the ballast file; 0 for none.
    pub ballast_bytes: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            group: GroupOptions::default(),
            sync: true,
            cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            wal_bytes: 256 << 20,
            reserve_bytes: 128 << 20,
            ballast_bytes: 64 << 20,
        }
    }
}

/// The journal on RocksDB.
pub struct RocksJournal {
    commit: GroupCommit<RocksStore>,
}

impl RocksJournal {
    /// Opens or makes the journal in `dir`. The epoch grows by one, durably, before this returns.
    /// `IN_USE` if another process has it open; `CORRUPT` if it is damaged or behind its mark; `NO_SPACE` if the disk is too full to recover.
    pub fn open(dir: &Path, options: JournalOptions) -> Result<Arc<Self>> {
        let group = options.group.clone();
        let (store, last) = RocksStore::open(dir, &options)?;
        Ok(Arc::new(Self { commit: GroupCommit::start(store, last, group)? }))
    }
}

impl Journal for RocksJournal {
    fn submit(&self, batch: Batch) -> Result<Position> {
        self.commit.submit(batch)
    }
    fn wait_for_room(&self) -> Result<()> {
        self.commit.wait_for_room()
    }
    fn wait(&self, at: Position) -> Result<()> {
        self.commit.wait(at)
    }
    fn on_durable(&self, at: Position, then: Box<dyn FnOnce(Result<()>) + Send>) {
        self.commit.on_durable(at, then);
    }
    fn durable(&self) -> Position {
        self.commit.durable()
    }
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.commit.get(space, key)
    }
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        self.commit.scan(space, from, to, visit)
    }
    fn last_key(&self, space: Space, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>> {
        self.commit.last_key(space, from, to)
    }
    fn add_flusher(&self, flusher: Arc<dyn Flusher>) {
        self.commit.add_flusher(flusher);
    }
    fn sync(&self) -> Result<Position> {
        self.commit.sync()
    }
    fn close(&self) -> Result<()> {
        self.commit.close()
    }
}
