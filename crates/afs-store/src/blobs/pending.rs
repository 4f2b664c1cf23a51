//! Blobs that are stored and not yet in the durable index, and those being stored right now.
//!
//! Guarantees: of several threads that put the same blob at once, one stores it and the others wait for it; a blob is
//! found here from the moment it is stored until the index entry is committed, never in neither place.

use super::location::Packed;
use super::raw::NewRaw;
use super::writer::WriterPack;
use afs_types::BlobId;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

const SHARDS: usize = 64;

/// Where a blob without durable index entry is.
#[derive(Clone)]
pub(super) enum Pending {
    /// In the pack all threads share.
    Shared(Packed),
    /// In the pack of one import, maybe still in its buffer.
    Owned(Packed, Arc<WriterPack>),
    /// In a raw file.
    Raw(Arc<NewRaw>),
    /// In the raw file of another blob with the same bytes, of this length.
    Same(BlobId, u64),
}

/// Ids are keyed hashes already, unpredictable without the tenant's key: eight of their bytes are as good a hash as any.
#[derive(Clone, Copy, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Called with the length of the array, then its 32 bytes; the byte that picks the shard is not among those used.
        if let Some(tail) = bytes.last_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*tail);
        }
    }
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Builds [`IdHasher`].
pub(super) type ById = BuildHasherDefault<IdHasher>;

enum Entry {
    /// A thread is storing it.
    Claimed,
    Stored(Pending),
}

#[derive(Default)]
struct Shard {
    entries: Mutex<HashMap<BlobId, Entry, ById>>,
    changed: Condvar,
}

/// All pending blobs.
pub(super) struct PendingMap {
    shards: [Shard; SHARDS],
}

/// The right to store one blob. Dropping it without [`Claim::stored`] lets the next one try.
pub(super) struct Claim<'a> {
    shard: &'a Shard,
    id: BlobId,
    done: bool,
}

/// What [`PendingMap::claim`] found.
pub(super) enum Claimed<'a> {
    Found(Pending),
    Mine(Claim<'a>),
}

impl PendingMap {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()) }
    }

    fn shard(&self, id: &BlobId) -> &Shard {
        &self.shards[id.0[0] as usize % SHARDS]
    }

    /// What is known of a blob that is not being stored at this moment.
    pub(super) fn get(&self, id: &BlobId) -> Option<Pending> {
        match self.shard(id).entries.lock().get(id) {
            Some(Entry::Stored(pending)) => Some(pending.clone()),
            _ => None,
        }
    }

    /// Finds a pending blob, or claims the right to store it. Waits for a thread that is storing it.
    pub(super) fn claim(&self, id: &BlobId) -> Claimed<'_> {
        let shard = self.shard(id);
        let mut entries = shard.entries.lock();
        loop {
            match entries.get(id) {
                Some(Entry::Stored(pending)) => return Claimed::Found(pending.clone()),
                Some(Entry::Claimed) => shard.changed.wait(&mut entries),
                None => {
                    entries.insert(*id, Entry::Claimed);
                    return Claimed::Mine(Claim { shard, id: *id, done: false });
                }
            }
        }
    }

    /// Forgets a blob: its index entry is durable, or its bytes are lost.
    pub(super) fn forget(&self, id: &BlobId) {
        self.shard(id).entries.lock().remove(id);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|s| s.entries.lock().len()).sum()
    }
}

impl Claim<'_> {
    /// The blob is stored, and handed to who makes it durable: from now on others find it.
    pub(super) fn stored(mut self, pending: Pending) {
        self.done = true;
        self.shard.entries.lock().insert(self.id, Entry::Stored(pending));
        self.shard.changed.notify_all();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.shard.entries.lock().remove(&self.id);
            self.shard.changed.notify_all();
        }
    }
}
