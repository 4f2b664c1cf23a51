//! The port every durable fact goes through: one ordered keyspace, changed by atomic batches in one total order.
//!
//! Guarantees of every implementation (shown by [`crate::contract`]): a batch is all or nothing; order of `submit`
//! is order of commit; what survives a crash is a prefix of what was submitted and holds everything waited for;
//! the flushers ran before a group is written, and their changes are in the same atomic write as the group.
//!
//! Deliberately absent: transactions that read (the engine decides under its own locks), snapshots, column families.

use afs_types::{Error, Result, limits};
use std::ops::ControlFlow;
use std::sync::Arc;

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
}

/// One change of one key, or of a range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Sets a key.
    Put {
        /// Space of the key.
        space: Space,
        /// The key, without the space byte.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Removes a key; it need not be there.
    Delete {
        /// Space of the key.
        space: Space,
        /// The key, without the space byte.
        key: Vec<u8>,
    },
    /// Removes all keys `from <= key < to`.
    DeleteRange {
        /// Space of the keys.
        space: Space,
        /// First key.
        from: Vec<u8>,
        /// First key that stays.
        to: Vec<u8>,
    },
}

impl Change {
    /// Refuses a value that no store takes: one that is dropped while the rest of its batch is written would tear the batch.
    pub fn check(&self) -> Result<()> {
        match self {
            Change::Put { value, .. } if value.len() > limits::MAX_JOURNAL_VALUE_BYTES => Err(Error::above(
                "value",
                limits::MAX_JOURNAL_VALUE_BYTES,
                "bytes in one record of the journal",
            )),
            _ => Ok(()),
        }
    }

    /// Bytes this change needs in a queue, roughly.
    pub fn bytes(&self) -> usize {
        // 48 stands for the enum and two allocations: an empty batch of a million deletes is not free.
        48 + match self {
            Change::Put { key, value, .. } => key.len() + value.len(),
            Change::Delete { key, .. } => key.len(),
            Change::DeleteRange { from, to, .. } => from.len() + to.len(),
        }
    }
}

/// Changes that become visible and durable together. Later changes win over earlier ones of the same batch.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// True if committing this frees space: such batches are admitted even when the disk is nearly full.
    pub frees_space: bool,
}

impl Batch {
    /// A batch without changes. Submitting it is allowed: it is a barrier, and makes the flushers run.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets a key.
    pub fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.changes.push(Change::Put { space, key: key.into(), value: value.into() });
        self
    }
    /// Removes a key.
    pub fn delete(&mut self, space: Space, key: impl Into<Vec<u8>>) -> &mut Self {
        self.changes.push(Change::Delete { space, key: key.into() });
        self
    }
    /// Removes all keys `from <= key < to`; nothing if `from >= to`.
    pub fn delete_range(
        &mut self,
        space: Space,
        from: impl Into<Vec<u8>>,
        to: impl Into<Vec<u8>>,
    ) -> &mut Self {
        self.changes.push(Change::DeleteRange { space, from: from.into(), to: to.into() });
        self
    }
    /// Marks the batch as one that frees space (deleting a session, collecting garbage).
    pub fn freeing(mut self) -> Self {
        self.frees_space = true;
        self
    }
    /// Appends the changes of another batch.
    pub fn append(&mut self, mut other: Batch) -> &mut Self {
        self.changes.append(&mut other.changes);
        self.frees_space |= other.frees_space;
        self
    }
    /// True without changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
    /// Bytes this batch needs in a queue, roughly; what the queue's bound counts.
    pub fn bytes(&self) -> usize {
        64 + self.changes.iter().map(Change::bytes).sum::<usize>()
    }
}

impl From<Vec<Change>> for Batch {
    fn from(changes: Vec<Change>) -> Self {
        Self { changes, frees_space: false }
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
