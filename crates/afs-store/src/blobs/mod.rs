//! The content-addressed store: blobs by keyed BLAKE3, and the data log of bytes not yet sealed into blobs.
//!
//! ```text
//! dir/packs/<number>.pack   blobs below 256 KiB, compressed where it pays, self-describing records (`record`); and where in a git pack,
//!                           which is a blob itself, an object is (`git`)
//! dir/blobs/xx/<id>         larger blobs, one raw contiguous file each (`raw`); those that came compressed, from when they are first read (`expand`)
//! dir/log/<number>.log      the data log: bytes at (segment, offset)
//! dir/temp/                 raw files that have no name yet; emptied at every start
//! ```
//! Guarantees: what `put` and `append` returned may be named in any batch submitted afterwards: bytes, directory entries and index entries are
//! durable with that batch's group, never after it. The same blob is stored once, also when threads put it at the same time.
//!
//! What is verified, and when. Small blobs: header and keyed hash, each time they are read from disk (not when they come from the RAM
//! cache); of an object in a git pack its SHA-1. Raw blobs: length at each opening of the file; each chunk's hash when it is first read through `read` after an opening (at most 512 files stay
//! open); not what the kernel reads by itself from `raw_file`, unless [`BlobStore::verify`] is called. The data log: only
//! that the bytes are there; it is never hashed, sealing turns it into blobs.
//!
//! Deliberately absent: counting references and collecting garbage (the engine knows what lives), fetching from a backing store.

mod append;
mod expand;
mod flush;
mod git;
#[cfg(test)]
mod git_tests;
mod location;
mod pending;
mod raw;
mod rebuild;
mod record;
mod sparse;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub use git::{GitObject, MAX_CHAIN, MAX_CHAIN_BYTES, MAX_DELTA_BYTES};
pub use rebuild::{Damage, Rebuilt, rebuild_index};
pub use writer::PackWriter;

use crate::journal::{Journal, Space};
use crate::space::DiskReserve;
use afs_types::{BlobId, Error, Reason, Result, limits};
use append::{AppendFiles, Kind, Numbers, damaged, sync_dir};
use bytes::Bytes;
use flush::{Core, TOTALS, Totals};
use location::{Location, Packed};
use moka::sync::Cache;
use parking_lot::Mutex;
use pending::{ById, Claim, Claimed, Pending};
use raw::{NewRaw, RawShape, RawStore, Watch};
use record::Header;
use state::{check_state, make_dir, meta, recorded_next};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use writer::WriterPack;

/// A raw file of this length is synced as soon as it is written.
const SYNC_EARLY: u64 = 8 << 20;
/// Most threads that sync beside those that store. One more sync is done by who wants it, which keeps writers from running away from the disk.
const MAX_SYNCERS: usize = 4;
/// Most raw files without a durable name, each with an open descriptor.
const MAX_NEW_RAWS: usize = 1024;

/// Where bytes lie in the data log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LogRef {
    /// Number of the segment.
    pub segment: u32,
    /// Offset of the first byte. The bytes of one append are contiguous.
    pub offset: u64,
}

/// What is known of a blob without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlobStat {
    /// Plain bytes.
    pub len: u64,
    /// Bytes on disk, header included.
    pub stored_len: u64,
    /// It has a file of its own.
    pub raw: bool,
}

/// What the store holds on disk, garbage included.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Bytes of packs.
    pub pack_bytes: u64,
    /// Bytes of raw files.
    pub raw_bytes: u64,
    /// Bytes of the data log.
    pub log_bytes: u64,
    /// Blobs in the index, as of the newest group.
    pub blobs: u64,
}

/// How a store is opened; tests use small limits.
#[derive(Clone, Copy, Debug)]
pub struct BlobOptions {
    /// Bound of the RAM caches, in bytes.
    pub cache_bytes: u64,
    /// A pack is closed at this size.
    pub pack_bytes: u64,
    /// A segment of the data log is closed at this size.
    pub log_bytes: u64,
    /// Free disk space below which writers get `NO_SPACE`.
    pub reserve_bytes: u64,
}

impl BlobOptions {
    /// The product's limits.
    pub fn new(cache_bytes: u64) -> Self {
        Self {
            cache_bytes,
            pack_bytes: limits::MAX_PACK_BYTES,
            log_bytes: limits::MAX_LOG_SEGMENT_BYTES,
            reserve_bytes: 256 << 20,
        }
    }
}

/// The content-addressed store of one tenant. See the module.
pub struct BlobStore {
    core: Arc<Core>,
    journal: Arc<dyn Journal>,
    key: [u8; 32],
    /// For names of objects of git packs.
    git_key: [u8; 32],
    pack_bytes: u64,
    reserve: DiskReserve,
    /// Plain bytes of small blobs.
    small: Cache<BlobId, Bytes, ById>,
    locations: Cache<BlobId, Location, ById>,
    /// What deltas of git packs are made from, by pack and offset.
    bases: Cache<(BlobId, u64), Bytes>,
    /// Packs of finished writers that are not full.
    idle_packs: Mutex<Vec<Arc<WriterPack>>>,
    syncers: Arc<AtomicUsize>,
}

/// What [`BlobStore::find`] found.
enum Found<'a> {
    Durable,
    Pending(Pending),
    Absent(Claim<'a>),
}

impl BlobStore {
    /// Opens or makes the store in `dir` with the product's limits, and registers it with the journal as a flusher.
    pub fn open(
        dir: &Path,
        tenant_key: [u8; 32],
        cache_bytes: u64,
        journal: Arc<dyn Journal>,
    ) -> Result<Arc<Self>> {
        Self::open_with(dir, tenant_key, BlobOptions::new(cache_bytes), journal)
    }

    /// Opens or makes the store in `dir`.
    pub fn open_with(
        dir: &Path,
        tenant_key: [u8; 32],
        options: BlobOptions,
        journal: Arc<dyn Journal>,
    ) -> Result<Arc<Self>> {
        check_state(dir, &tenant_key, &*journal)?;
        let (packs, logs) = (make_dir(dir, "packs")?, make_dir(dir, "log")?);
        let raw = RawStore::open(dir, tenant_key)?;
        sync_dir(dir)?;
        let (old_packs, old_logs) =
            (AppendFiles::list(&packs, Kind::Pack)?, AppendFiles::list(&logs, Kind::Log)?);
        let recorded = recorded_next(&*journal)?;
        let found = old_packs.iter().chain(&old_logs).map(|(number, _)| number + 1).max().unwrap_or(1);
        let numbers = Arc::new(Numbers::new(recorded, found));
        let totals = meta(&*journal, TOTALS, Totals::decode)?.unwrap_or_default();
        let sum = |files: &[(u32, u64)]| files.iter().map(|(_, bytes)| bytes).sum();
        let packs =
            AppendFiles::new(packs, Kind::Pack, options.pack_bytes, Arc::clone(&numbers), sum(&old_packs));
        let log = AppendFiles::new(logs, Kind::Log, options.log_bytes, Arc::clone(&numbers), sum(&old_logs));
        let core = Arc::new(Core::new(packs, log, raw, numbers, totals));
        journal.add_flusher(Arc::clone(&core) as _);
        Ok(Arc::new(Self {
            core,
            journal,
            key: tenant_key,
            git_key: git::name_key(&tenant_key),
            pack_bytes: options.pack_bytes,
            reserve: DiskReserve::new(dir, options.reserve_bytes),
            small: Cache::builder()
                .max_capacity(options.cache_bytes / 8 * 6)
                .weigher(|_, bytes: &Bytes| 128 + bytes.len() as u32)
                .build_with_hasher(ById::default()),
            bases: Cache::builder()
                .max_capacity(options.cache_bytes / 8)
                .weigher(|_, bytes: &Bytes| 160 + bytes.len() as u32)
                .build(),
            locations: Cache::builder()
                .max_capacity(options.cache_bytes / 8)
                .weigher(|_, location: &Location| location.weight())
                .build_with_hasher(ById::default()),
            idle_packs: Mutex::default(),
            syncers: Arc::default(),
        }))
    }

    /// The name of these bytes in this store.
    pub fn hash(&self, bytes: &[u8]) -> BlobId {
        BlobId(*blake3::keyed_hash(&self.key, bytes).as_bytes())
    }

    /// A hasher for names of blobs in this store.
    pub fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.key)
    }

    /// Stores a blob, unless it is there. Safe to name in a batch submitted after this returned.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobId> {
        if bytes.len() as u64 >= limits::PACK_BLOB_BYTES {
            return self.put_large(bytes);
        }
        let id = self.hash(bytes);
        match self.find(&id)? {
            Found::Durable => {}
            Found::Pending(pending) => self.cover(pending)?,
            Found::Absent(claim) => self.store_small(claim, &id, bytes)?,
        }
        Ok(id)
    }

    fn put_large(&self, bytes: &[u8]) -> Result<BlobId> {
        let (id, shape) = self.core.raw.hash(bytes);
        self.put_large_hashed(bytes, id, shape)?;
        Ok(id)
    }

    fn put_large_hashed(&self, bytes: &[u8], id: BlobId, shape: RawShape) -> Result<()> {
        match self.find(&id)? {
            Found::Durable => {}
            Found::Pending(pending) => self.cover(pending)?,
            Found::Absent(claim) => {
                self.reserve.admit(bytes.len() as u64)?;
                let raw = self.core.raw.write_hashed(bytes, id, shape)?;
                self.store_raw(claim, Arc::new(raw))?;
            }
        }
        Ok(())
    }

    /// Stores a stream, unless it is there; returns its length, too. Safe to name like [`BlobStore::put`].
    pub fn put_reader(&self, reader: &mut dyn Read) -> Result<(BlobId, u64)> {
        let mut head = Vec::new();
        let limited = reader.take(limits::PACK_BLOB_BYTES).read_to_end(&mut head);
        limited.map_err(|e| Error::io("read the content of a blob", e))?;
        if (head.len() as u64) < limits::PACK_BLOB_BYTES {
            return Ok((self.put(&head)?, head.len() as u64));
        }
        let raw =
            self.core.raw.write(&mut (&head[..]).chain(reader), &|_| Ok(()), &|n| self.reserve.admit(n))?;
        let len = raw.open.shape.len;
        Ok((self.adopt(raw)?.0, len))
    }

    /// Stores the first `len` bytes of a file, unless they are there. Safe to name like [`BlobStore::put`].
    /// `UNAVAILABLE` if the file turns out to be shorter: somebody changes it.
    pub fn put_file(&self, file: &File, len: u64) -> Result<BlobId> {
        if len < limits::PACK_BLOB_BYTES {
            let mut bytes = vec![0; len as usize];
            read_all(file, &mut bytes)?;
            return self.put(&bytes);
        }
        self.put_large_file(file, len, &|_| Ok(())).map(|(id, _)| id)
    }

    /// The id of the first `len` bytes of a large file if the store has them: reads the file, writes nothing.
    fn known_file(&self, file: &File, len: u64, watch: Watch<'_>) -> Result<Option<BlobId>> {
        let (id, shape) = self.core.raw.measure_watched(&mut FileReader { file, at: 0, end: len }, watch)?;
        if shape.len != len {
            return Err(became_shorter());
        }
        match self.find(&id)? {
            Found::Durable => Ok(Some(id)),
            Found::Pending(pending) => self.cover(pending).map(|()| Some(id)),
            // Not stored from here: the file may change before it is read again.
            Found::Absent(_) => Ok(None),
        }
    }

    /// Stores a large file; says, too, whether it was there already and writing it was in vain.
    fn put_large_file(&self, file: &File, len: u64, watch: Watch<'_>) -> Result<(BlobId, bool)> {
        let admit = |n| self.reserve.admit(n);
        let raw = match self.core.raw.clone_file(file, len, watch)? {
            Some(raw) => raw,
            None => self.core.raw.write(&mut FileReader { file, at: 0, end: len }, watch, &admit)?,
        };
        if raw.open.shape.len != len {
            raw.discard();
            return Err(became_shorter());
        }
        self.adopt(raw)
    }

    /// A writer for one thread of an import.
    pub fn pack_writer(self: &Arc<Self>) -> Result<PackWriter> {
        PackWriter::new(Arc::clone(self))
    }

    /// Whether the blob is in the store.
    pub fn contains(&self, id: &BlobId) -> Result<bool> {
        Ok(self.locations.contains_key(id)
            || self.core.pending.get(id).is_some()
            || self.journal.get(Space::Blob, &id.0)?.is_some())
    }

    /// Lengths of a blob, or none if it is not in the store.
    pub fn stat(&self, id: &BlobId) -> Result<Option<BlobStat>> {
        let packed = |at: Packed| BlobStat {
            len: u64::from(at.plain_len),
            stored_len: at.end() - at.offset,
            raw: false,
        };
        let raw = |len| BlobStat { len, stored_len: len, raw: true };
        Ok(self.locate(id)?.map(|place| match place {
            Place::Pending(Pending::Shared(at) | Pending::Owned(at, _)) | Place::At(Location::Pack(at)) => {
                packed(at)
            }
            Place::Pending(Pending::Raw(new)) => raw(new.open.shape.len),
            Place::At(Location::Raw(shape)) => raw(shape.len),
            Place::Pending(Pending::Same(_, len)) | Place::At(Location::Same(_, len)) => raw(len),
        }))
    }

    /// Up to `len` bytes at `offset`: fewer at the end, none behind it. `CORRUPT`, naming blob and file, if the bytes on disk are
    /// not what was put, or the blob is not there.
    pub fn read(&self, id: &BlobId, offset: u64, len: usize) -> Result<Bytes> {
        if let Some(bytes) = self.small.get(id) {
            return Ok(slice(&bytes, offset, len));
        }
        match self.locate(id)?.ok_or_else(|| missing(id))? {
            Place::Pending(Pending::Raw(new)) => Ok(self.core.raw.read(id, &new.open, offset, len)?.into()),
            Place::At(Location::Raw(shape)) => {
                let open = self.core.raw.opened(id, &shape)?;
                Ok(self.core.raw.read(id, &open, offset, len)?.into())
            }
            Place::Pending(Pending::Same(other, _)) | Place::At(Location::Same(other, _)) => {
                self.read(&other, offset, len)
            }
            Place::At(Location::Pack(at)) if at.is_large() => self.read_expanded(id, &at, offset, len),
            Place::Pending(Pending::Shared(at)) | Place::At(Location::Pack(at)) => {
                self.read_small(id, &at, None).map(|bytes| slice(&bytes, offset, len))
            }
            Place::Pending(Pending::Owned(at, pack)) => {
                self.read_small(id, &at, Some(&pack)).map(|bytes| slice(&bytes, offset, len))
            }
        }
    }

    /// Reads every byte of a blob from disk and checks it, whatever is cached. Of an object of a git pack its own bytes; the pack is a blob, too.
    pub fn verify(&self, id: &BlobId) -> Result<()> {
        match self.locate(id)?.ok_or_else(|| missing(id))? {
            Place::Pending(Pending::Raw(new)) => self.core.raw.verify(id, &new.open),
            Place::At(Location::Raw(shape)) => {
                let open = self.core.raw.opened(id, &shape)?;
                self.core.raw.verify(id, &open)
            }
            Place::Pending(Pending::Same(other, _)) | Place::At(Location::Same(other, _)) => {
                self.verify(&other)
            }
            Place::Pending(Pending::Shared(at)) | Place::At(Location::Pack(at)) => {
                self.decode(id, &at, None, true).map(drop)
            }
            Place::Pending(Pending::Owned(at, pack)) => self.decode(id, &at, Some(&pack), true).map(drop),
        }
    }

    /// The file of a large blob, for passthrough and sendfile; none for a small one and for one whose group is not committed yet
    /// (read that with [`BlobStore::read`]), or whose file is only being made because of this call. Its content is not verified here.
    pub fn raw_file(&self, id: &BlobId) -> Result<Option<PathBuf>> {
        Ok(match self.locate(id)?.ok_or_else(|| missing(id))? {
            Place::At(Location::Pack(at)) if at.is_large() => self.expanded_path(id, &at)?,
            Place::Pending(Pending::Raw(new)) => new.is_published().then(|| self.core.raw.path(id)),
            Place::At(Location::Raw(_)) => Some(self.core.raw.path(id)),
            Place::Pending(Pending::Same(other, _)) | Place::At(Location::Same(other, _)) => {
                self.raw_file(&other)?
            }
            _ => None,
        })
    }

    /// Appends to the data log. Safe to name in a batch submitted after this returned.
    pub fn append(&self, bytes: &[u8]) -> Result<LogRef> {
        self.reserve.admit(bytes.len() as u64)?;
        let (segment, offset) = self.core.log.append(bytes)?;
        self.core.mark_dirty();
        Ok(LogRef { segment, offset })
    }

    /// Fills `out` with the bytes at `at` of the data log. `CORRUPT`, naming the file, if they are not there.
    pub fn read_log(&self, at: LogRef, out: &mut [u8]) -> Result<()> {
        self.core.log.read(at.segment, at.offset, out)
    }

    /// Every segment of the data log that this start makes has this number or a higher one, every earlier segment a lower one.
    pub fn first_segment(&self) -> u32 {
        self.core.numbers.first()
    }

    /// Removes segments of the data log in `numbers` that are not in `keep` and of earlier starts. The caller knows that
    /// nothing names them: no record, and no tree in RAM. Returns the bytes that are free now.
    pub fn remove_log_segments(&self, numbers: Range<u32>, keep: &HashSet<u32>) -> Result<u64> {
        self.core.log.remove_old(numbers, keep)
    }

    /// What the store holds.
    pub fn usage(&self) -> Usage {
        let totals = *self.core.totals.lock();
        Usage {
            pack_bytes: self.core.packs.bytes(),
            raw_bytes: totals.raw_bytes,
            log_bytes: self.core.log.bytes(),
            blobs: totals.blobs,
        }
    }
}

/// Where a blob was found.
enum Place {
    Pending(Pending),
    At(Location),
}

impl BlobStore {
    /// Finds a blob or claims the right to store it.
    fn find(&self, id: &BlobId) -> Result<Found<'_>> {
        if self.locations.contains_key(id) {
            return Ok(Found::Durable);
        }
        match self.core.pending.claim(id) {
            Claimed::Found(pending) => Ok(Found::Pending(pending)),
            Claimed::Mine(claim) => match self.journal.get(Space::Blob, &id.0)? {
                Some(_) => Ok(Found::Durable),
                None => Ok(Found::Absent(claim)),
            },
        }
    }

    /// Pending first: an entry goes from there to the index, and is in both for a moment.
    fn locate(&self, id: &BlobId) -> Result<Option<Place>> {
        if let Some(location) = self.locations.get(id) {
            return Ok(Some(Place::At(location)));
        }
        if let Some(pending) = self.core.pending.get(id) {
            return Ok(Some(Place::Pending(pending)));
        }
        let Some(value) = self.journal.get(Space::Blob, &id.0)? else { return Ok(None) };
        let location = Location::decode(id, &value)?;
        // What will be expanded moves, and a cache that is behind would say the old place for ever.
        if !matches!(&location, Location::Pack(at) if at.is_large()) {
            self.locations.insert(*id, location.clone());
        }
        Ok(Some(Place::At(location)))
    }

    /// Makes sure that the next group covers a pending blob that this caller is going to name.
    fn cover(&self, pending: Pending) -> Result<()> {
        if let Pending::Owned(at, pack) = pending {
            pack.ensure(at.end())?;
            self.core.want(pack);
        }
        Ok(())
    }

    fn store_small(&self, claim: Claim<'_>, id: &BlobId, bytes: &[u8]) -> Result<()> {
        self.reserve.admit(bytes.len() as u64)?;
        let mut out = Vec::with_capacity(record::HEADER + bytes.len());
        let encoded = record::with_codec(|codec| codec.encode(id, bytes, None, &mut out));
        let header = encoded.flatten().map_err(|e| Error::io("compress a blob", e))?;
        let (pack, offset) = self.core.packs.append(&out)?;
        let at = Packed { pack, offset, stored_len: header.stored_len, plain_len: header.plain_len };
        self.core.fresh.lock().push((*id, at));
        self.core.mark_dirty();
        claim.stored(Pending::Shared(at));
        Ok(())
    }

    fn store_raw(&self, claim: Claim<'_>, raw: Arc<NewRaw>) -> Result<()> {
        let waiting = {
            let mut raws = self.core.raws.lock();
            raws.push(Arc::clone(&raw));
            raws.len()
        };
        self.core.mark_dirty();
        claim.stored(Pending::Raw(Arc::clone(&raw)));
        if raw.open.shape.len >= SYNC_EARLY {
            // Should it fail, the group that covers the file fails, too.
            self.beside(move || raw.sync())?;
        }
        if waiting >= MAX_NEW_RAWS {
            self.journal.sync()?;
        }
        Ok(())
    }

    /// Syncs on a thread of its own, so that the caller need not wait for the disk. An error is the caller's only where it waits; elsewhere the file's
    /// own state remembers it for the group that needs the file.
    fn beside(&self, sync: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        if self.syncers.fetch_add(1, Ordering::SeqCst) >= MAX_SYNCERS {
            self.syncers.fetch_sub(1, Ordering::SeqCst);
            return sync();
        }
        let syncers = Arc::clone(&self.syncers);
        let work = move || {
            if let Err(error) = sync() {
                tracing::warn!(?error, "sync of an import's file");
            }
            syncers.fetch_sub(1, Ordering::SeqCst);
        };
        let spawned = std::thread::Builder::new().name("afs-sync".into()).spawn(work);
        if spawned.is_err() {
            // Nothing is lost: the group that needs the file syncs it.
            self.syncers.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Takes a raw file into the store, unless its blob is there; says whether it was.
    fn adopt(&self, raw: Arc<NewRaw>) -> Result<(BlobId, bool)> {
        let id = raw.id;
        let found = self.find(&id).inspect_err(|_| raw.discard())?;
        match found {
            Found::Absent(claim) => {
                self.store_raw(claim, raw)?;
                return Ok((id, false));
            }
            Found::Durable => raw.discard(),
            Found::Pending(pending) => {
                raw.discard();
                self.cover(pending)?;
            }
        }
        Ok((id, true))
    }

    fn read_small(&self, id: &BlobId, at: &Packed, owner: Option<&WriterPack>) -> Result<Bytes> {
        let bytes = Bytes::from(self.decode(id, at, owner, false)?);
        self.small.insert(*id, bytes.clone());
        Ok(bytes)
    }

    /// Reads a record, decodes it and checks everything; `anew`: with nothing that was kept of other blobs.
    fn decode(&self, id: &BlobId, at: &Packed, owner: Option<&WriterPack>, anew: bool) -> Result<Vec<u8>> {
        let path = || self.core.packs.path(at.pack);
        let wrong =
            |what: &str| damaged(&path(), Some(id), &format!("record at offset {}: {what}", at.offset));
        let record = match owner.and_then(|pack| pack.buffered(at)) {
            Some(record) => record,
            None => {
                let mut record = vec![0; (at.end() - at.offset) as usize];
                self.core
                    .packs
                    .read(at.pack, at.offset, &mut record)
                    .map_err(|e| if e.reason == Reason::Corrupt { wrong(e.message()) } else { e })?;
                record
            }
        };
        let header = Header::decode(&record).ok_or_else(|| wrong("its header is damaged"))?;
        if header.id != *id || header.record_len() != record.len() || header.plain_len != at.plain_len {
            return Err(wrong("it belongs to another blob"));
        }
        let payload = &record[record::HEADER..];
        if header.is_object() {
            let object = GitObject::decode(payload, header.plain_len);
            let object = object.filter(|object| object.name(&self.git_key) == *id);
            let object = object.ok_or_else(|| wrong("it refers to something else than it is named after"))?;
            return self.read_object(id, &object, anew);
        }
        let plain = record::with_codec(|codec| codec.decode(&header, payload));
        let plain = plain.map_err(|e| Error::io("start zstd", e))?.map_err(wrong)?;
        if self.hash(&plain) != *id {
            return Err(wrong("its bytes do not have the hash they had"));
        }
        Ok(plain)
    }
}

/// Reads a file by position, to a given length.
struct FileReader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let want = (self.end - self.at).min(out.len() as u64) as usize;
        let n = self.file.read_at(&mut out[..want], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

fn read_all(file: &File, out: &mut [u8]) -> Result<()> {
    file.read_exact_at(out, 0).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => became_shorter(),
        _ => Error::io("read a file to store", e),
    })
}

fn became_shorter() -> Error {
    Error::new(Reason::Unavailable, "the file became shorter while it was read")
}

fn missing(id: &BlobId) -> Error {
    Error::new(Reason::Corrupt, format!("blob {} is named by a record and is not in the store", id.to_hex()))
        .with("blob", id.to_hex())
        .next("stop the server and rebuild the index of blobs (afs-server repair --data DIR); if it stays missing, restore `packs` and `blobs` from a backup")
}

fn slice(bytes: &Bytes, offset: u64, len: usize) -> Bytes {
    let from = offset.min(bytes.len() as u64) as usize;
    bytes.slice(from..from + len.min(bytes.len() - from))
}
