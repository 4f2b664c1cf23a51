//! The blob store's half of a group commit: bytes and names on disk first, then their index entries in the group.
//!
//! Order matters here. `put` publishes a blob in this order: bytes written, file marked dirty, entry listed, found by others.
//! `flush` takes in the reverse order: entries, then dirty files. So whatever entry it takes, its bytes are among those it syncs.

use super::append::{AppendFiles, Numbers};
use super::location::{Location, Packed};
use super::pending::PendingMap;
use super::raw::{NewRaw, RawStore};
use super::writer::WriterPack;
use crate::journal::{Batch, Flusher, Space};
use afs_types::{BlobId, Result};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Key of the next file number in `Space::Meta`, u32 little endian.
pub(super) const NEXT: &[u8] = b"blobs.next";
/// Key of the totals in `Space::Meta`: blobs u64, bytes of raw files u64, little endian.
pub(super) const TOTALS: &[u8] = b"blobs.totals";

/// What flushing needs; apart from the journal, which holds it.
pub(super) struct Core {
    dirty: AtomicBool,
    /// Entries in the shared pack.
    pub(super) fresh: Mutex<Vec<(BlobId, Packed)>>,
    pub(super) raws: Mutex<Vec<Arc<NewRaw>>>,
    /// Blobs that lead to another one from now on, which has the same bytes, and their length.
    pub(super) same: Mutex<Vec<(BlobId, BlobId, u64)>>,
    /// Writers' packs that somebody else depends on.
    wanted: Mutex<Vec<Arc<WriterPack>>>,
    /// Entries whose bytes are synced already.
    pub(super) ready: Mutex<Vec<(BlobId, Packed)>>,
    /// In the group being committed.
    handed: Mutex<Vec<BlobId>>,
    pub(super) pending: PendingMap,
    pub(super) packs: AppendFiles,
    pub(super) log: AppendFiles,
    pub(super) raw: RawStore,
    pub(super) numbers: Arc<Numbers>,
    pub(super) totals: Mutex<Totals>,
}

/// Counted with the index entries, in the same batches.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Totals {
    pub(super) blobs: u64,
    pub(super) raw_bytes: u64,
}

impl Totals {
    pub(super) fn encode(&self) -> Vec<u8> {
        [self.blobs.to_le_bytes(), self.raw_bytes.to_le_bytes()].concat()
    }
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (blobs, rest) = bytes.split_first_chunk::<8>()?;
        let raw_bytes = rest.try_into().ok()?;
        Some(Self { blobs: u64::from_le_bytes(*blobs), raw_bytes: u64::from_le_bytes(raw_bytes) })
    }
    pub(super) fn add(&mut self, location: &Location) {
        self.blobs += 1;
        if matches!(location, Location::Raw(_)) {
            self.raw_bytes += location.len();
        }
    }
}

/// An index entry that is safe to write.
struct Entry {
    id: BlobId,
    at: Location,
    /// It replaces the entry of a record in a pack.
    was_packed: bool,
}

impl Core {
    pub(super) fn new(
        packs: AppendFiles,
        log: AppendFiles,
        raw: RawStore,
        numbers: Arc<Numbers>,
        totals: Totals,
    ) -> Self {
        Self {
            dirty: AtomicBool::new(false),
            fresh: Mutex::default(),
            raws: Mutex::default(),
            same: Mutex::default(),
            wanted: Mutex::default(),
            ready: Mutex::default(),
            handed: Mutex::default(),
            pending: PendingMap::new(),
            packs,
            log,
            raw,
            numbers,
            totals: Mutex::new(totals),
        }
    }

    /// There is something to flush; called after it was listed.
    pub(super) fn mark_dirty(&self) {
        if !self.dirty.load(Ordering::SeqCst) {
            self.dirty.store(true, Ordering::SeqCst);
        }
    }

    /// The next group must cover what this writer's pack holds so far.
    pub(super) fn want(&self, pack: Arc<WriterPack>) {
        self.wanted.lock().push(pack);
        self.mark_dirty();
    }

    /// Syncs everything taken; returns the entries that are safe to write now.
    fn settle(&self) -> Result<Vec<Entry>> {
        // Before the raw files: each leads to one that was listed before it.
        let same = std::mem::take(&mut *self.same.lock());
        let mut packed = std::mem::take(&mut *self.fresh.lock());
        self.log.flush()?;
        self.packs.flush()?;
        self.sync_wanted(&mut packed)?;
        // After the wanted packs: an entry that left one of them meanwhile is here.
        let ready = std::mem::take(&mut *self.ready.lock());
        if !ready.is_empty() {
            // Their writers synced the bytes; a pack made since `packs.flush` may still lack its name.
            self.packs.flush()?;
            packed.extend(ready);
            // Among them may be objects of a git pack, which was handed over before them, and maybe since this began.
            self.sync_wanted(&mut packed)?;
        }
        // Last, for the same reason: what refers to a git pack never gets an entry before the pack does.
        let raws = std::mem::take(&mut *self.raws.lock());
        self.raw.publish(&raws)?;
        let mut entries: Vec<_> = packed
            .into_iter()
            .map(|(id, at)| Entry { id, at: Location::Pack(at), was_packed: false })
            .collect();
        entries.extend(raws.into_iter().map(|raw| {
            let at = Location::Raw(Arc::clone(&raw.open.shape));
            Entry { id: raw.id, at, was_packed: raw.was_packed }
        }));
        entries.extend(same.into_iter().map(|(id, other, len)| Entry {
            id,
            at: Location::Same(other, len),
            was_packed: true,
        }));
        Ok(entries)
    }

    fn sync_wanted(&self, packed: &mut Vec<(BlobId, Packed)>) -> Result<()> {
        let mut wanted = std::mem::take(&mut *self.wanted.lock());
        wanted.sort_unstable_by_key(|pack| pack.number);
        wanted.dedup_by_key(|pack| pack.number);
        wanted.into_iter().try_for_each(|pack| pack.sync(|entries| packed.extend(entries)))
    }
}

impl Flusher for Core {
    fn flush(&self) -> Result<Batch> {
        let mut batch = Batch::new();
        if !self.dirty.load(Ordering::SeqCst) || !self.dirty.swap(false, Ordering::SeqCst) {
            return Ok(batch);
        }
        let entries = self.settle()?;
        if let Some(next) = self.numbers.unrecorded() {
            batch.put(Space::Meta, NEXT, next.to_le_bytes());
        }
        if entries.is_empty() {
            return Ok(batch);
        }
        let mut totals = self.totals.lock();
        let mut handed = self.handed.lock();
        for entry in entries {
            totals.add(&entry.at);
            totals.blobs -= u64::from(entry.was_packed);
            batch.put(Space::Blob, entry.id.0, entry.at.encode());
            handed.push(entry.id);
        }
        batch.put(Space::Meta, TOTALS, totals.encode());
        Ok(batch)
    }

    fn committed(&self) {
        let handed = std::mem::take(&mut *self.handed.lock());
        for id in handed {
            self.pending.forget(&id);
        }
    }
}
