//! Append-only numbered files: packs and segments of the data log.
//!
//! Guarantees: concurrent appends reserve an offset and `pwrite`, without a lock between them; a file from before this start is never
//! appended to and numbers are never used again; after `flush`, all appends that had returned before it began are on disk, names included.
//! No lock that appends or reads need is held across an fsync.
//!
//! Deliberately absent: what the bytes mean. A failed append leaves a gap, which readers never look at.

use afs_types::{BlobId, Error, Reason, Result};
use moka::sync::Cache;
use parking_lot::{Mutex, RwLock};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Bytes at the start of every file: magic [8], number u32, zero u32.
pub(super) const FILE_HEADER: u64 = 16;
/// Most open files kept for reading, of each kind (the process has 20,000 descriptors at most).
const MAX_OPEN: u64 = 512;

/// Hands out numbers of files.
#[derive(Debug)]
pub(super) struct Numbers {
    next: AtomicU32,
    /// What the journal knows, or is about to.
    recorded: AtomicU32,
    /// The first number of this start: no file below it is appended to.
    first: u32,
}

impl Numbers {
    /// Goes on after everything found on disk and everything the journal knows of.
    pub(super) fn new(recorded: u32, found: u32) -> Self {
        let first = recorded.max(found);
        Self { next: AtomicU32::new(first), recorded: AtomicU32::new(recorded), first }
    }
    pub(super) fn first(&self) -> u32 {
        self.first
    }
    pub(super) fn take(&self) -> Result<u32> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        if number >= u32::MAX / 2 {
            return Err(Error::new(Reason::Internal, "the store has used all file numbers"));
        }
        Ok(number)
    }
    /// The next number, if the journal does not know it yet.
    pub(super) fn unrecorded(&self) -> Option<u32> {
        let next = self.next.load(Ordering::SeqCst);
        (self.recorded.swap(next, Ordering::SeqCst) != next).then_some(next)
    }
}

/// One file that is being appended to.
pub(super) struct AppendFile {
    pub(super) number: u32,
    pub(super) file: Arc<File>,
    end: AtomicU64,
    dirty: AtomicBool,
}

/// A directory of them.
pub(super) struct AppendFiles {
    dir: PathBuf,
    kind: Kind,
    limit: u64,
    numbers: Arc<Numbers>,
    current: RwLock<Option<Arc<AppendFile>>>,
    dirty: Mutex<Vec<Arc<AppendFile>>>,
    /// Names were made that the directory on disk may lack. Cleared by `flush` only: its caller writes what refers to them.
    new_names: AtomicBool,
    open: Cache<u32, Arc<File>>,
    bytes: AtomicU64,
}

/// Which files: their magic and extension.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pack,
    Log,
}

impl Kind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Kind::Pack => b"AFSPACK\x01",
            Kind::Log => b"AFSLOG\0\x01",
        }
    }
    fn extension(self) -> &'static str {
        match self {
            Kind::Pack => "pack",
            Kind::Log => "log",
        }
    }
    fn header(self, number: u32) -> [u8; FILE_HEADER as usize] {
        let mut out = [0; FILE_HEADER as usize];
        out[..8].copy_from_slice(self.magic());
        out[8..12].copy_from_slice(&number.to_le_bytes());
        out
    }
}

impl AppendFiles {
    pub(super) fn new(dir: PathBuf, kind: Kind, limit: u64, numbers: Arc<Numbers>, bytes: u64) -> Self {
        Self {
            dir,
            kind,
            limit,
            numbers,
            current: RwLock::new(None),
            dirty: Mutex::default(),
            new_names: AtomicBool::new(false),
            open: Cache::new(MAX_OPEN),
            bytes: AtomicU64::new(bytes),
        }
    }

    /// Numbers and sizes of the files in a directory.
    pub(super) fn list(dir: &Path, kind: Kind) -> Result<Vec<(u32, u64)>> {
        let action = || format!("list {}", dir.display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| Error::io(action(), e))? {
            let entry = entry.map_err(|e| Error::io(action(), e))?;
            let path = PathBuf::from(entry.file_name());
            let right = path.extension().is_some_and(|e| e == kind.extension());
            let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
            if let (true, Some(number)) = (right, number) {
                let size = entry.metadata().map_err(|e| Error::io(action(), e))?.len();
                found.push((number, size));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:010}.{}", self.kind.extension()))
    }

    /// Bytes in all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A new file, its header written. Its name is durable after the next `flush`.
    pub(super) fn create(&self) -> Result<(u32, Arc<File>)> {
        let number = self.numbers.take()?;
        let path = self.path(number);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = Arc::new(file.map_err(|e| Error::io(format_args!("create {}", path.display()), e))?);
        self.new_names.store(true, Ordering::SeqCst);
        let header = self.kind.header(number);
        file.write_all_at(&header, 0).map_err(|e| Error::io(format_args!("write {}", path.display()), e))?;
        self.count(FILE_HEADER);
        self.open.insert(number, Arc::clone(&file));
        Ok((number, file))
    }

    /// Appends; durable after the next `flush`.
    pub(super) fn append(&self, bytes: &[u8]) -> Result<(u32, u64)> {
        let len = bytes.len() as u64;
        if len > self.limit - FILE_HEADER {
            return Err(Error::new(
                Reason::MessageTooLarge,
                format!("{len} bytes in one append, the limit is {}", self.limit - FILE_HEADER),
            ));
        }
        let mut full = None;
        loop {
            let file = self.current(full)?;
            let offset = file.end.fetch_add(len, Ordering::Relaxed);
            if offset + len > self.limit {
                full = Some(file.number);
                continue;
            }
            let written = file.file.write_all_at(bytes, offset);
            written
                .map_err(|e| Error::io(format_args!("append to {}", self.path(file.number).display()), e))?;
            self.count(len);
            // After the bytes: a flush that clears this flag syncs what was written before it was set.
            if !file.dirty.swap(true, Ordering::SeqCst) {
                self.dirty.lock().push(Arc::clone(&file));
            }
            return Ok((file.number, offset));
        }
    }

    /// The file to append to, another one than `full`.
    fn current(&self, full: Option<u32>) -> Result<Arc<AppendFile>> {
        let usable = |file: &&Arc<AppendFile>| Some(file.number) != full;
        if let Some(file) = self.current.read().as_ref().filter(usable) {
            return Ok(Arc::clone(file));
        }
        let mut current = self.current.write();
        if let Some(file) = current.as_ref().filter(usable) {
            return Ok(Arc::clone(file));
        }
        let (number, file) = self.create()?;
        let end = AtomicU64::new(FILE_HEADER);
        let file = Arc::new(AppendFile { number, file, end, dirty: AtomicBool::new(false) });
        *current = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Makes everything appended so far durable. One caller at a time.
    pub(super) fn flush(&self) -> Result<()> {
        let dirty = std::mem::take(&mut *self.dirty.lock());
        for file in dirty {
            file.dirty.store(false, Ordering::SeqCst);
            file.file
                .sync_data()
                .map_err(|e| Error::io(format_args!("sync {}", self.path(file.number).display()), e))?;
        }
        if self.new_names.swap(false, Ordering::SeqCst) {
            sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Removes files of earlier starts that are in `numbers` and not in `keep`. Returns their bytes.
    pub(super) fn remove_old(&self, numbers: std::ops::Range<u32>, keep: &HashSet<u32>) -> Result<u64> {
        let mut gone = 0;
        for (number, bytes) in Self::list(&self.dir, self.kind)? {
            if !numbers.contains(&number) || number >= self.numbers.first() || keep.contains(&number) {
                continue;
            }
            let path = self.path(number);
            std::fs::remove_file(&path)
                .map_err(|e| Error::io(format_args!("remove {}", path.display()), e))?;
            self.open.invalidate(&number);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            gone += bytes;
        }
        Ok(gone)
    }

    /// Fills `out` from a file. `Corrupt`, naming the file, when it is missing or too short.
    pub(super) fn read(&self, number: u32, offset: u64, out: &mut [u8]) -> Result<()> {
        let file = self.reader(number)?;
        file.read_exact_at(out, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                let wanted = out.len();
                damaged(&self.path(number), None, &format!("no {wanted} bytes at offset {offset}"))
            }
            _ => Error::io(format_args!("read {}", self.path(number).display()), e),
        })
    }

    fn reader(&self, number: u32) -> Result<Arc<File>> {
        if let Some(file) = self.open.get(&number) {
            return Ok(file);
        }
        let path = self.path(number);
        let file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => damaged(&path, None, "the file is missing"),
            _ => Error::io(format_args!("open {}", path.display()), e),
        })?;
        let mut header = [0; FILE_HEADER as usize];
        let right = file.read_exact_at(&mut header, 0).is_ok() && header == self.kind.header(number);
        if !right {
            return Err(damaged(&path, None, "the file's header is damaged"));
        }
        let file = Arc::new(file);
        self.open.insert(number, Arc::clone(&file));
        Ok(file)
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|d| d.sync_all());
    synced.map_err(|e| Error::io(format_args!("sync directory {}", dir.display()), e))
}

/// The error for bytes on disk that are not what was written: names the file, the blob, and the way out.
pub(super) fn damaged(path: &Path, id: Option<&BlobId>, what: &str) -> Error {
    let file = path.display().to_string();
    let error = match id {
        Some(id) => Error::new(Reason::Corrupt, format!("blob {}: {file}: {what}", id.to_hex()))
            .with("blob", id.to_hex()),
        None => Error::new(Reason::Corrupt, format!("{file}: {what}")),
    };
    let next = format!(
        "restore {file} from a backup, then run: afs-server repair --data DIR; other files are not affected"
    );
    error.with("file", file).next(next)
}
