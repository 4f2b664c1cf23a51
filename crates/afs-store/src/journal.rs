//! The port every durable fact goes through: one ordered keyspace, changed by atomic batches in one total order.
//!
//! Guarantees of every implementation (shown by [`crate::contract`]): a batch is all or nothing; order of `submit`
//! is order of commit; what survives a crash is a prefix of what was submitted and holds everything waited for;
//! the flushers ran before a group is written, and their changes are in the same atomic write as the group.
//!
//! Deliberately absent: transactions that read (the engine decides under its own locks), snapshots, column families.

use afs_types::Result;
use std::ops::ControlFlow;
use std::sync::Arc;

pub use crate::batch::{Batch, Change, Changes};

/// The first byte of every key: who owns it. Persisted; never renumber.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Space {
    /// Facts about the store itself. The key `head` belongs to the journal, keys that start with `blobs.` to the blob store.
    Meta = 1,
    /// Operations of sessions, by (layer, seq).
    Record = 2,
    /// Layers.
    Layer = 3,
    /// Sessions.
    Session = 4,
    /// Sources.
    Source = 5,
    /// Versions of sources.
    Version = 6,
    /// Checkpoints.
    Checkpoint = 7,
    /// Commits.
    Commit = 8,
    /// Where each blob lies.
    Blob = 9,
    /// Answers kept for repeated requests.
    Request = 10,
    /// Folded layers.
    Delta = 11,
    /// Names of things.
    Name = 12,
}

impl Space {
    /// Every space, for tests and tools.
    pub const ALL: [Space; 12] = [
        Space::Meta,
        Space::Record,
        Space::Layer,
        Space::Session,
        Space::Source,
        Space::Version,
        Space::Checkpoint,
        Space::Commit,
        Space::Blob,
        Space::Request,
        Space::Delta,
        Space::Name,
    ];

    /// The space that a number stands for.
    pub(crate) fn of(number: u8) -> Option<Self> {
        // `ALL` is in order of numbers, which begin at 1.
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// Where a batch stands in the total order of batches. `idx` grows by one for each batch and never restarts;
/// `epoch` grows with each opening of the journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// Opening of the journal.
    pub epoch: u32,
    /// Number of the batch.
    pub idx: u64,
}

/// What [`Journal::scan`] calls for each key (without the space byte) and value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>> + 'a;

/// A durable, totally ordered keyspace. All calls are thread-safe and block for a bounded time.
pub trait Journal: Send + Sync {
    /// Queues a batch and returns its position at once; order of submit is order of commit. When the queue holds its
    /// limit of bytes this blocks until there is room, 10 s at most, then it is `QUEUE_FULL`. `NO_SPACE` when
    /// the disk is nearly full and the batch does not free space; `UNAVAILABLE` after `close`.
    fn submit(&self, batch: Batch) -> Result<Position>;
    /// Blocks while the queue is more than half full, as `submit` does when it is full. Whoever takes a lock before it submits calls this
    /// before the lock, so that nobody waits for a disk with the lock held.
    fn wait_for_room(&self) -> Result<()> {
        Ok(())
    }
    /// Blocks until the batch at `at` and all before it are on disk.
    fn wait(&self, at: Position) -> Result<()>;
    /// Calls `then` when the batch at `at` is on disk, or when that has become impossible. Runs on the committer's thread, or on
    /// the caller's if `at` is durable already; it must not block and must not wait for the journal.
    fn on_durable(&self, at: Position, then: Box<dyn FnOnce(Result<()>) + Send>);
    /// The newest durable position.
    fn durable(&self) -> Position;
    /// The value of a key, as of the newest committed group. Waits for nothing.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Visits `from <= key < to` (to the end of the space without `to`) in order of keys, as of one instant.
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()>;
    /// The last key `from <= key < to`, without visiting those before it. As of the newest committed group.
    fn last_key(&self, space: Space, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Adds a flusher; it is called before each group from now on.
    fn add_flusher(&self, flusher: Arc<dyn Flusher>);
    /// Everything submitted so far, and everything flushers hold, is durable when this returns.
    fn sync(&self) -> Result<Position>;
    /// Commits what is queued, syncs, stops. Later submits are `UNAVAILABLE`; reads go on working.
    fn close(&self) -> Result<()>;
}

/// Something whose bytes batches refer to (the blob store): made durable before the group that may name them.
pub trait Flusher: Send + Sync {
    /// Makes every byte handed out so far durable and returns the index changes that belong to it. Called by one
    /// thread at a time, before each group; must cost one atomic load when nothing is dirty.
    fn flush(&self) -> Result<Batch>;
    /// The changes returned by the last `flush` are durable and visible now. Must not block.
    fn committed(&self) {}
}
