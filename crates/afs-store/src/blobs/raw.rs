//! Large blobs: one raw contiguous file each, as passthrough, sendfile and mmap need them.
//!
//! Guarantees: a file under its final name was whole and synced when it got that name; its directory is synced before an index
//! entry names it. Reads through [`RawStore::read`] verify each chunk against the blob's own hash tree the first time it is touched after an
//! opening (chunks are 1 MiB up to 4 GiB, then larger, so that there are 4,096 at most), and not again while the file stays open. Blocks of zeros
//! take no disk.
//!
//! Deliberately absent: verification of what the kernel reads by itself through the path (see `BlobStore::verify`).

use super::append::{damaged, sync_dir};
use super::sparse;
use afs_types::{BlobId, Error, Reason, Result};
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use moka::sync::Cache;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Smallest chunk, log2.
const CHUNK_LOG2: u8 = 20;
/// Most chunks of one blob; the chunk length doubles beyond.
const MAX_CHUNKS: usize = 4096;
/// Most raw files kept open.
const MAX_OPEN: u64 = 512;
/// Files that are synced side by side, and from how many on that is worth threads.
const SYNC_THREADS: usize = 8;
const MIN_PARALLEL: usize = 4;

type Key = [u8; 32];

/// Length of a raw blob and the inner nodes of its BLAKE3 tree at the level of its chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RawShape {
    pub(super) len: u64,
    pub(super) chunk_log2: u8,
    /// Chaining value of each chunk; empty if there is only one chunk, whose hash is the id.
    pub(super) chunks: Vec<ChainingValue>,
}

impl RawShape {
    fn chunk_len(&self) -> u64 {
        1 << self.chunk_log2
    }
    fn count(&self) -> u64 {
        self.len.div_ceil(self.chunk_len()).max(1)
    }
    /// Whether the numbers fit each other.
    pub(super) fn is_sane(&self) -> bool {
        let listed = self.chunks.len() as u64;
        (CHUNK_LOG2..=50).contains(&self.chunk_log2)
            && (listed == self.count() || listed == 0 && self.count() == 1)
            && listed != 1
    }
    /// The id that the chaining values add up to; none for a single chunk.
    pub(super) fn id(&self, key: &Key) -> Option<BlobId> {
        if self.chunks.len() < 2 {
            return None;
        }
        let (left, right) = split(key, &self.chunks, self.chunk_len(), self.len);
        let hash = merge_subtrees_root(&left, &right, Mode::KeyedHash(key));
        Some(BlobId(*hash.as_bytes()))
    }
}

/// Chaining values of both halves of a tree.
fn split(key: &Key, chunks: &[ChainingValue], chunk_len: u64, len: u64) -> (ChainingValue, ChainingValue) {
    let left_len = left_subtree_len(len);
    let (left, right) = chunks.split_at((left_len / chunk_len) as usize);
    (node(key, left, chunk_len, left_len), node(key, right, chunk_len, len - left_len))
}

fn node(key: &Key, chunks: &[ChainingValue], chunk_len: u64, len: u64) -> ChainingValue {
    if let [one] = chunks {
        return *one;
    }
    let (left, right) = split(key, chunks, chunk_len, len);
    merge_subtrees_non_root(&left, &right, Mode::KeyedHash(key))
}

/// Hashes a stream chunk by chunk, in one pass.
struct TreeHasher {
    key: Key,
    chunk_log2: u8,
    chunks: Vec<ChainingValue>,
    /// Hash of the open chunk, and as if it were all.
    open: blake3::Hasher,
    open_len: u64,
    len: u64,
}

impl TreeHasher {
    fn new(key: Key) -> Self {
        let open = blake3::Hasher::new_keyed(&key);
        Self { key, chunk_log2: CHUNK_LOG2, chunks: Vec::new(), open, open_len: 0, len: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.open_len == 1 << self.chunk_log2 {
                self.close_chunk();
            }
            let room = (1 << self.chunk_log2) - self.open_len;
            let (now, later) = bytes.split_at(bytes.len().min(room as usize));
            self.open.update(now);
            self.open_len += now.len() as u64;
            self.len += now.len() as u64;
            bytes = later;
        }
    }

    fn close_chunk(&mut self) {
        self.chunks.push(self.open.finalize_non_root());
        if self.chunks.len() == MAX_CHUNKS {
            // All are full, and 4,096 is even: pairs become the chunks of twice the length.
            let key = self.key;
            let merge = |pair: &[ChainingValue; 2]| {
                merge_subtrees_non_root(&pair[0], &pair[1], Mode::KeyedHash(&key))
            };
            self.chunks = self.chunks.as_chunks::<2>().0.iter().map(merge).collect();
            self.chunk_log2 += 1;
        }
        self.open = blake3::Hasher::new_keyed(&self.key);
        self.open.set_input_offset(self.len);
        self.open_len = 0;
    }

    fn finish(mut self) -> (BlobId, RawShape) {
        let shape = |chunks| RawShape { len: self.len, chunk_log2: self.chunk_log2, chunks };
        if self.chunks.is_empty() {
            return (BlobId(*self.open.finalize().as_bytes()), shape(Vec::new()));
        }
        self.chunks.push(self.open.finalize_non_root());
        let shape = shape(std::mem::take(&mut self.chunks));
        // Two chunks or more: the tree has a root above them.
        let id = shape.id(&self.key).unwrap_or_default();
        (id, shape)
    }
}

/// A raw file that has been written and has no durable name yet.
pub(super) struct NewRaw {
    pub(super) id: BlobId,
    pub(super) open: Arc<OpenRaw>,
    temp: PathBuf,
    published: AtomicBool,
    /// Held while it is synced: whoever comes second waits until it is on disk. Big files are synced as soon as they are written, so that a
    /// commit does not wait for gigabytes of somebody else.
    synced: Mutex<Synced>,
    /// The blob is in the index already, as a record of a pack.
    pub(super) was_packed: bool,
}

/// Whether a file is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Synced {
    NotYet,
    Done,
    /// Linux reports an error of writing back once: a later sync would succeed although the bytes are gone.
    Failed,
}

impl NewRaw {
    fn new(id: BlobId, open: OpenRaw, temp: PathBuf) -> Self {
        let (published, synced) = (AtomicBool::new(false), Mutex::new(Synced::NotYet));
        Self { id, open: Arc::new(open), temp, published, synced, was_packed: false }
    }
    pub(super) fn is_published(&self) -> bool {
        self.published.load(Ordering::Acquire)
    }
    /// Removes the file of a blob that turned out to be there already.
    pub(super) fn discard(&self) {
        let _ = std::fs::remove_file(&self.temp);
    }
    /// Makes the file's bytes durable. Once that has failed, it fails for ever.
    pub(super) fn sync(&self) -> Result<()> {
        let mut synced = self.synced.lock();
        match *synced {
            Synced::Done => return Ok(()),
            Synced::Failed => {
                let file = self.temp.display();
                return Err(Error::new(
                    Reason::Io,
                    format!("{file} could not be synced, and is not tried again"),
                ));
            }
            Synced::NotYet => {}
        }
        let done = self.open.file.sync_data();
        *synced = if done.is_ok() { Synced::Done } else { Synced::Failed };
        done.map_err(|e| Error::io(format_args!("sync {}", self.temp.display()), e))
    }
}

/// An open raw file and which of its chunks have been verified.
pub(super) struct OpenRaw {
    file: File,
    pub(super) shape: Arc<RawShape>,
    verified: Vec<AtomicU64>,
}

impl OpenRaw {
    fn new(file: File, shape: Arc<RawShape>) -> Self {
        let words = shape.count().div_ceil(64);
        Self { file, shape, verified: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }
    fn is_verified(&self, chunk: u64) -> bool {
        self.verified[(chunk / 64) as usize].load(Ordering::Relaxed) & (1 << (chunk % 64)) != 0
    }
    fn set_verified(&self, chunk: u64) {
        self.verified[(chunk / 64) as usize].fetch_or(1 << (chunk % 64), Ordering::Relaxed);
    }
}

/// Told of bytes of a large file as they are read; an error ends the reading.
pub(super) type Watch<'a> = &'a dyn Fn(u64) -> Result<()>;

/// All raw files.
pub(super) struct RawStore {
    key: Key,
    dir: PathBuf,
    temp: PathBuf,
    next_temp: AtomicU64,
    open: Cache<BlobId, Arc<OpenRaw>>,
}

impl RawStore {
    /// Makes the directories and removes what an earlier process left half written.
    pub(super) fn open(dir: &Path, key: Key) -> Result<Self> {
        let (blobs, temp) = (dir.join("blobs"), dir.join("temp"));
        let made = (|| {
            for i in 0..=255u8 {
                std::fs::create_dir_all(blobs.join(format!("{i:02x}")))?;
            }
            std::fs::create_dir_all(&temp)?;
            for entry in std::fs::read_dir(&temp)? {
                std::fs::remove_file(entry?.path())?;
            }
            Ok(())
        })();
        made.map_err(|e| Error::io(format_args!("prepare {}", blobs.display()), e))?;
        sync_dir(&blobs)?;
        Ok(Self { key, dir: blobs, temp, next_temp: AtomicU64::new(0), open: Cache::new(MAX_OPEN) })
    }

    pub(super) fn path(&self, id: &BlobId) -> PathBuf {
        let hex = id.to_hex();
        self.dir.join(&hex[..2]).join(hex)
    }

    /// Writes a stream to a file without a name. Calls `admit` with each number of bytes before they take disk.
    pub(super) fn write(
        &self,
        reader: &mut dyn Read,
        watch: Watch<'_>,
        admit: &dyn Fn(u64) -> Result<()>,
    ) -> Result<Arc<NewRaw>> {
        let temp = self.temp();
        let written = self.fill(&temp, reader, watch, admit);
        let (id, open) = written.inspect_err(|_| std::fs::remove_file(&temp).unwrap_or_default())?;
        Ok(Arc::new(NewRaw::new(id, open, temp)))
    }

    /// Writes bytes that have been hashed.
    pub(super) fn write_hashed(&self, bytes: &[u8], id: BlobId, shape: RawShape) -> Result<NewRaw> {
        let temp = self.temp();
        let written = create(&temp).and_then(|file| {
            sparse::write(&file, bytes, 0)?;
            file.set_len(bytes.len() as u64)?;
            Ok(file)
        });
        let file = written.map_err(|e| {
            let _ = std::fs::remove_file(&temp);
            Error::io(format_args!("write {}", temp.display()), e)
        })?;
        Ok(NewRaw::new(id, OpenRaw::new(file, Arc::new(shape)), temp))
    }

    fn temp(&self) -> PathBuf {
        self.temp.join(self.next_temp.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// A clone of a whole file that shares its blocks, where the file system can do that; else none.
    pub(super) fn clone_file(
        &self,
        source: &File,
        len: u64,
        watch: Watch<'_>,
    ) -> Result<Option<Arc<NewRaw>>> {
        let temp = self.temp();
        let action = || format!("write {}", temp.display());
        let file = create(&temp).map_err(|e| Error::io(action(), e))?;
        let cloned = rustix::fs::ioctl_ficlone(&file, source).is_ok();
        if !cloned || file.metadata().map_err(|e| Error::io(action(), e))?.len() != len {
            let _ = std::fs::remove_file(&temp);
            return Ok(None);
        }
        // The clone is hashed, not the source: that may change meanwhile.
        let measured = self.measure_watched(&mut &file, watch);
        let (id, shape) = measured.inspect_err(|_| std::fs::remove_file(&temp).unwrap_or_default())?;
        Ok(Some(Arc::new(NewRaw::new(id, OpenRaw::new(file, Arc::new(shape)), temp))))
    }

    /// One more name of a whole file that nobody writes to any more; none where the file system cannot do that.
    pub(super) fn link_file(&self, path: &Path, file: &File) -> Result<Option<Arc<NewRaw>>> {
        let temp = self.temp();
        if std::fs::hard_link(path, &temp).is_err() {
            return Ok(None);
        }
        let linked = File::open(&temp).and_then(|linked| Ok((file_id(file)? == file_id(&linked)?, linked)));
        let measured = linked.map_err(|e| Error::io(format_args!("open {}", temp.display()), e)).and_then(
            |(is_same, linked)| {
                // The name may have been given to another file, or a symbolic link, meanwhile.
                let measured = if is_same { Some(self.measure(&mut &linked)?) } else { None };
                Ok(measured.map(|found| (found, linked)))
            },
        );
        match measured {
            Ok(Some(((id, shape), linked))) => {
                Ok(Some(Arc::new(NewRaw::new(id, OpenRaw::new(linked, Arc::new(shape)), temp))))
            }
            other => {
                let _ = std::fs::remove_file(&temp);
                other.map(|_| None)
            }
        }
    }

    fn fill(
        &self,
        temp: &Path,
        reader: &mut dyn Read,
        watch: Watch<'_>,
        admit: &dyn Fn(u64) -> Result<()>,
    ) -> Result<(BlobId, OpenRaw)> {
        let action = || format!("write {}", temp.display());
        let file = create(temp).map_err(|e| Error::io(action(), e))?;
        let mut hasher = TreeHasher::new(self.key);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("read the content of a blob", e)),
            };
            watch(n as u64)?;
            let offset = hasher.len;
            for run in sparse::runs(&buffer[..n], offset) {
                admit(run.len() as u64)?;
                let at = offset + run.start as u64;
                file.write_all_at(&buffer[run], at).map_err(|e| Error::io(action(), e))?;
            }
            hasher.update(&buffer[..n]);
        }
        let (id, shape) = hasher.finish();
        // It may end with zeros.
        file.set_len(shape.len).map_err(|e| Error::io(action(), e))?;
        Ok((id, OpenRaw::new(file, Arc::new(shape))))
    }

    /// Gives files their final names: synced before, directories synced after.
    pub(super) fn publish(&self, new: &[Arc<NewRaw>]) -> Result<()> {
        sync_all(new)?;
        let mut dirs = Vec::new();
        for raw in new {
            let path = self.path(&raw.id);
            let renamed = std::fs::rename(&raw.temp, &path);
            renamed.map_err(|e| Error::io(format_args!("rename to {}", path.display()), e))?;
            raw.published.store(true, Ordering::Release);
            self.open.insert(raw.id, Arc::clone(&raw.open));
            dirs.extend(path.parent().map(Path::to_path_buf));
        }
        dirs.sort_unstable();
        dirs.dedup();
        dirs.iter().try_for_each(|dir| sync_dir(dir))
    }

    /// The open file of a blob with an index entry. Checks its length and that the entry's tree adds up to the id.
    pub(super) fn opened(&self, id: &BlobId, shape: &Arc<RawShape>) -> Result<Arc<OpenRaw>> {
        if let Some(open) = self.open.get(id) {
            return Ok(open);
        }
        let path = self.path(id);
        if shape.id(&self.key).is_some_and(|sum| sum != *id) {
            return Err(damaged(&path, Some(id), "the index entry's hash tree does not add up to the id"));
        }
        let file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => damaged(&path, Some(id), "the file is missing"),
            _ => Error::io(format_args!("open {}", path.display()), e),
        })?;
        self.check_len(id, shape, &file)?;
        let open = Arc::new(OpenRaw::new(file, Arc::clone(shape)));
        self.open.insert(*id, Arc::clone(&open));
        Ok(open)
    }

    fn check_len(&self, id: &BlobId, shape: &RawShape, file: &File) -> Result<()> {
        let path = self.path(id);
        let len =
            file.metadata().map_err(|e| Error::io(format_args!("look at {}", path.display()), e))?.len();
        if len != shape.len {
            return Err(damaged(&path, Some(id), &format!("{len} bytes long instead of {}", shape.len)));
        }
        Ok(())
    }

    /// Up to `len` bytes at `offset`; chunks not seen before are verified.
    pub(super) fn read(&self, id: &BlobId, open: &OpenRaw, offset: u64, len: usize) -> Result<Vec<u8>> {
        let end = open.shape.len.min(offset.saturating_add(len as u64));
        if offset >= end {
            return Ok(Vec::new());
        }
        for chunk in offset >> open.shape.chunk_log2..=(end - 1) >> open.shape.chunk_log2 {
            if !open.is_verified(chunk) {
                self.verify_chunk(id, open, chunk)?;
                open.set_verified(chunk);
            }
        }
        let mut out = vec![0; (end - offset) as usize];
        self.read_exact(id, open, offset, &mut out)?;
        Ok(out)
    }

    /// Reads and verifies every byte, whatever was verified before.
    pub(super) fn verify(&self, id: &BlobId, open: &OpenRaw) -> Result<()> {
        self.check_len(id, &open.shape, &open.file)?;
        for chunk in 0..open.shape.count() {
            self.verify_chunk(id, open, chunk)?;
            open.set_verified(chunk);
        }
        Ok(())
    }

    fn verify_chunk(&self, id: &BlobId, open: &OpenRaw, chunk: u64) -> Result<()> {
        let shape = &open.shape;
        let start = chunk << shape.chunk_log2;
        let end = shape.len.min(start + shape.chunk_len());
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.set_input_offset(start);
        let mut buffer = vec![0; (end - start).min(1 << 20) as usize];
        let mut at = start;
        while at < end {
            let part = &mut buffer[..(end - at).min(1 << 20) as usize];
            self.read_exact(id, open, at, part)?;
            hasher.update(part);
            at += part.len() as u64;
        }
        let right = match shape.chunks.get(chunk as usize) {
            Some(value) => hasher.finalize_non_root() == *value,
            None => hasher.finalize() == blake3::Hash::from_bytes(id.0),
        };
        if right {
            return Ok(());
        }
        Err(damaged(&self.path(id), Some(id), &format!("bytes {start}..{end} do not have the hash they had")))
    }

    fn read_exact(&self, id: &BlobId, open: &OpenRaw, offset: u64, out: &mut [u8]) -> Result<()> {
        open.file.read_exact_at(out, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged(&self.path(id), Some(id), "the file is too short"),
            _ => Error::io(format_args!("read {}", self.path(id).display()), e),
        })
    }

    /// Id and shape of bytes.
    pub(super) fn hash(&self, bytes: &[u8]) -> (BlobId, RawShape) {
        let mut hasher = TreeHasher::new(self.key);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Id and shape of all that a reader gives.
    pub(super) fn measure(&self, reader: &mut dyn Read) -> Result<(BlobId, RawShape)> {
        self.measure_watched(reader, &|_| Ok(()))
    }

    /// The same, for somebody who wants to know how far it is.
    pub(super) fn measure_watched(
        &self,
        reader: &mut dyn Read,
        watch: Watch<'_>,
    ) -> Result<(BlobId, RawShape)> {
        let mut hasher = TreeHasher::new(self.key);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(n) => {
                    watch(n as u64)?;
                    hasher.update(&buffer[..n]);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read the content of a blob", e)),
            }
        }
    }

    /// Id and shape of a file, from its bytes alone; for rebuilding an index.
    pub(super) fn measure_path(&self, path: &Path) -> Result<(BlobId, RawShape)> {
        let action = |e| Error::io(format_args!("read {}", path.display()), e);
        self.measure(&mut File::open(path).map_err(action)?)
            .map_err(|e| e.with("file", path.display().to_string()))
    }

    /// Paths of all files with a final name.
    pub(super) fn list(&self) -> Result<Vec<PathBuf>> {
        let listed: std::io::Result<Vec<PathBuf>> = (|| {
            let mut found = Vec::new();
            for i in 0..=255u8 {
                for entry in std::fs::read_dir(self.dir.join(format!("{i:02x}")))? {
                    found.push(entry?.path());
                }
            }
            Ok(found)
        })();
        listed.map_err(|e| Error::io(format_args!("list {}", self.dir.display()), e))
    }
}

/// Syncs files side by side: the disk and the file system's log serve many waiting syncs at once, and one after the other each would wait for a
/// round of its own.
fn sync_all(new: &[Arc<NewRaw>]) -> Result<()> {
    if new.len() < MIN_PARALLEL {
        return new.iter().try_for_each(|raw| raw.sync());
    }
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(raw) = new.get(next.fetch_add(1, Ordering::Relaxed)) {
            raw.sync()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..SYNC_THREADS).map(|_| scope.spawn(work)).collect();
        let mine = work();
        // A thread that panicked has synced less than it took: whoever commits must not go on.
        others
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
            .fold(mine, Result::and)
    })
}

/// Which file it is.
fn file_id(file: &File) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    file.metadata().map(|m| (m.dev(), m.ino()))
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: &Key, bytes: &[u8]) -> (BlobId, RawShape) {
        let mut hasher = TreeHasher::new(*key);
        for part in bytes.chunks(77_777) {
            hasher.update(part);
        }
        hasher.finish()
    }

    #[test]
    fn the_tree_hash_is_the_keyed_blake3_of_the_whole() {
        let key = [9; 32];
        let bytes: Vec<u8> = (0..5_500_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mib = 1 << 20;
        for len in [0, 1, mib - 1, mib, mib + 1, 2 * mib, 3 * mib - 5, 4 * mib, 5 * mib + 7] {
            let (id, shape) = hash(&key, &bytes[..len]);
            assert_eq!(id.0, *blake3::keyed_hash(&key, &bytes[..len]).as_bytes(), "{len}");
            assert!(shape.is_sane(), "{len}");
            assert_eq!(shape.id(&key), (shape.chunks.len() > 1).then_some(id), "{len}");
        }
    }

    /// The kernel tells of lost pages once; the second sync of such a file says that all is well.
    #[test]
    fn a_sync_that_failed_is_not_tried_again() {
        // A pipe cannot be synced, so the first attempt fails, and each later one would again: what counts is that there is none.
        let (reader, _writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let shape = RawShape { len: 0, chunk_log2: CHUNK_LOG2, chunks: Vec::new() };
        let raw = NewRaw::new(BlobId([1; 32]), OpenRaw::new(file, Arc::new(shape)), PathBuf::from("temp/0"));
        assert!(raw.sync().unwrap_err().message().contains("os error"));
        assert_eq!(*raw.synced.lock(), Synced::Failed);
        for _ in 0..2 {
            assert!(raw.sync().unwrap_err().message().contains("not tried again"));
        }
    }

    #[test]
    fn chunks_double_beyond_their_limit() {
        let key = [9; 32];
        let part = vec![5; 1 << 20];
        let mut tree = TreeHasher::new(key);
        let mut whole = blake3::Hasher::new_keyed(&key);
        for _ in 0..MAX_CHUNKS + 3 {
            tree.update(&part);
            whole.update(&part);
        }
        let (id, shape) = tree.finish();
        assert_eq!(id.0, *whole.finalize().as_bytes());
        assert!(shape.chunk_log2 == 21 && shape.chunks.len() == 2050 && shape.is_sane());
    }
}
