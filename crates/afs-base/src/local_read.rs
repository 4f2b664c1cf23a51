//! One directory of a local import: its entries, and the contents of its files.
//!
//! Guarantees: what is stored of a file is what one descriptor gave; an entry that vanishes in between is left out, one
//! that changes its type is looked at again. Deliberately absent: the order of directories ([`crate::local`]).

use crate::local::{Steps, Task, Walk, unreadable};
use crate::object::join;
use crate::sink::Sink;
use afs_core::base::{NewEntry, NodeKind};
use afs_types::{BlobId, Error, Reason, Result, limits};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One entry as it was found.
pub(crate) struct Found {
    pub(crate) name: Box<[u8]>,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime_ns: i64,
    rdev: u32,
    pub(crate) size: u64,
    /// The stored content; the outer none for what has no content, or when another thread reads it.
    pub(crate) content: Option<Option<BlobId>>,
    /// Device and inode, if it has several names.
    pub(crate) link: Option<(u64, u64)>,
    /// Number of a directory.
    pub(crate) dir: Option<u32>,
}

impl Found {
    pub(crate) fn of(name: &[u8], stat: &Stat) -> Self {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Self {
            name: name.into(),
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime_ns: stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64,
            rdev: stat.st_rdev as u32,
            size: 0,
            content: None,
            link: (!is_dir && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino)),
            dir: None,
        }
    }

    pub(crate) fn kind(&self) -> NodeKind {
        match FileType::from_raw_mode(self.mode) {
            FileType::Directory => NodeKind::Dir,
            FileType::RegularFile => NodeKind::File,
            FileType::Symlink => NodeKind::Symlink,
            _ => NodeKind::Special,
        }
    }

    pub(crate) fn entry(&self, kind: NodeKind) -> NewEntry {
        NewEntry {
            uid: self.uid,
            gid: self.gid,
            size: self.size,
            mtime_ns: self.mtime_ns,
            rdev: if kind == NodeKind::Special { self.rdev } else { 0 },
            blob: self.content.flatten(),
            ..NewEntry::new(kind, self.mode)
        }
    }
}

/// Buffers of one thread.
pub(crate) struct Reading<'w> {
    walk: &'w Walk<'w>,
    names: Vec<(Box<[u8]>, FileType)>,
    list: Vec<u8>,
    content: Vec<u8>,
    /// Files since the last word of progress.
    files: u64,
}

/// How often a file that changes while it is read is read again, and a name that changes its type looked at again.
const TRIES: usize = 4;
const LIST_BYTES: usize = 32 << 10;

impl<'w> Reading<'w> {
    pub(crate) fn new(walk: &'w Walk<'w>) -> Self {
        let content = vec![0; limits::PACK_BLOB_BYTES as usize + 1];
        Self { walk, names: Vec::new(), list: Vec::with_capacity(LIST_BYTES), content, files: 0 }
    }

    fn list(&mut self, dir: &OwnedFd) -> rustix::io::Result<()> {
        self.names.clear();
        let buffer: &mut [MaybeUninit<u8>] = self.list.spare_capacity_mut();
        let mut entries = RawDir::new(dir, buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                self.names.push((name.into(), entry.file_type()));
            }
        }
        Ok(())
    }
}

/// Reads a directory: its entries, and the directories to read next.
pub(crate) fn read_dir(
    walk: &Walk<'_>,
    task: &Task,
    reading: &mut Reading<'_>,
    sink: &mut Sink<'_>,
) -> Result<(Vec<Found>, Vec<Task>)> {
    let fail = |e| unreadable(&walk.path_of(&task.path), e);
    let dir = match walk.open(task) {
        Ok(dir) => Arc::new(dir),
        // Removed, or replaced by something else, since its name was read: as if it had been empty.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if task.dir != 0 => return Ok(Default::default()),
        Err(e) => return Err(fail(e)),
    };
    let stat = rustix::fs::fstat(&dir).map_err(fail)?;
    walk.check_dir(task, (stat.st_dev, stat.st_ino))?;
    reading.list(&dir).map_err(fail)?;
    let names = std::mem::take(&mut reading.names);
    let (mut files, mut more) = (Vec::with_capacity(names.len()), Vec::new());
    for (name, kind) in &names {
        let read = read_entry(&dir, name, *kind, reading, sink);
        let Some(mut found) = read.map_err(|e| name_error(e, walk, task, name))? else { continue };
        if found.kind() == NodeKind::Dir {
            let number = walk.dirs.fetch_add(1, Ordering::Relaxed) as u32;
            let steps = Steps { up: Some(task.path.clone()), name: name.clone(), depth: task.path.depth + 1 };
            found.dir = Some(number);
            more.push(Task { dir: number, path: Arc::new(steps), parent: Some(dir.clone()) });
        }
        files.push(found);
        reading.files += 1;
    }
    reading.names = names;
    if reading.files >= 256 {
        walk.files.fetch_add(reading.files, Ordering::Relaxed);
        reading.files = 0;
        walk.tell();
    }
    Ok((files, more))
}

/// Why an entry could not be read.
enum Failed {
    Os(Errno),
    Ours(Error),
}

impl From<Errno> for Failed {
    fn from(e: Errno) -> Self {
        Self::Os(e)
    }
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Self::Ours(e)
    }
}

fn name_error(e: Failed, walk: &Walk<'_>, task: &Task, name: &[u8]) -> Error {
    let path = join(&walk.path_of(&task.path), name);
    match e {
        Failed::Os(e) => unreadable(&path, e),
        Failed::Ours(e) => e.with("path", afs_types::Name::lossy(&path)),
    }
}

/// One entry; none if it has vanished.
fn read_entry(
    dir: &OwnedFd,
    name: &[u8],
    mut kind: FileType,
    reading: &mut Reading<'_>,
    sink: &mut Sink<'_>,
) -> Result<Option<Found>, Failed> {
    for _ in 0..TRIES {
        let read = match kind {
            FileType::RegularFile => read_file(dir, name, reading, sink),
            _ => read_other(dir, name, kind, reading, sink),
        };
        match read {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) | Err(Failed::Os(Errno::LOOP | Errno::NXIO | Errno::INVAL)) => {}
            Err(Failed::Os(Errno::NOENT)) => return Ok(None),
            Err(e) => return Err(e),
        }
        // Not what the directory's list said, or the list did not say.
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => kind = FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    Err(Error::new(Reason::Unavailable, "an entry keeps changing its type").into())
}

/// A directory, symbolic link, pipe, socket or device. None if it is not of this kind.
fn read_other(
    dir: &OwnedFd,
    name: &[u8],
    kind: FileType,
    reading: &Reading<'_>,
    sink: &mut Sink<'_>,
) -> Result<Option<Found>, Failed> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if kind == FileType::Unknown || FileType::from_raw_mode(stat.st_mode) != kind {
        return Ok(None);
    }
    let mut found = Found::of(name, &stat);
    if kind == FileType::Symlink && found.link.is_none_or(|key| reading.walk.claim(key)) {
        let target = rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes();
        found.size = target.len() as u64;
        found.content = Some(sink.put(&target)?);
    }
    Ok(Some(found))
}

/// A regular file with its content. None if it is not one.
fn read_file(
    dir: &OwnedFd,
    name: &[u8],
    reading: &mut Reading<'_>,
    sink: &mut Sink<'_>,
) -> Result<Option<Found>, Failed> {
    // NONBLOCK: a pipe put in the file's place must not hold us up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let mut stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let found = Found::of(name, &stat);
    if found.link.is_some_and(|key| !reading.walk.claim(key)) {
        return Ok(Some(found));
    }
    for _ in 0..TRIES {
        let (size, blob) = store(&file, stat.st_size as u64, reading, sink)?;
        let after = rustix::fs::fstat(&file)?;
        let same = unchanged(&stat, &after) && size == after.st_size as u64;
        stat = after;
        if same {
            let content = Some(blob);
            return Ok(Some(Found { size, content, ..Found::of(name, &stat) }));
        }
    }
    // Somebody keeps writing to it: as many bytes as it had a moment ago, as any copy would.
    let size = stat.st_size as u64;
    let walk = reading.walk;
    let content = Some(sink.put_file(&file, size, &|n| walk.stored(n))?);
    Ok(Some(Found { size, content, ..Found::of(name, &stat) }))
}

fn unchanged(a: &Stat, b: &Stat) -> bool {
    (a.st_size, a.st_mtime, a.st_mtime_nsec, a.st_ctime, a.st_ctime_nsec)
        == (b.st_size, b.st_mtime, b.st_mtime_nsec, b.st_ctime, b.st_ctime_nsec)
}

/// Stores what a file holds now. The buffer is a byte larger than the largest small file, which shows its end.
fn store(
    file: &File,
    size: u64,
    reading: &mut Reading<'_>,
    sink: &mut Sink<'_>,
) -> Result<(u64, Option<BlobId>), Failed> {
    let (walk, buffer) = (reading.walk, &mut reading.content);
    if size >= limits::PACK_BLOB_BYTES {
        return Ok((size, sink.put_file(file, size, &|n| walk.stored(n))?));
    }
    let mut len = 0;
    while len < buffer.len() {
        let n = match rustix::io::pread(file.as_fd(), &mut buffer[len..], len as u64) {
            Err(Errno::INTR) => continue,
            n => n?,
        };
        len += n;
        // As long as it says it is: one system call less.
        if n == 0 || len as u64 == size && size > 0 {
            break;
        }
    }
    if len == buffer.len() {
        // It has grown: the caller sees that and comes again.
        return Ok((len as u64, None));
    }
    walk.stored(len as u64)?;
    Ok((len as u64, sink.put(&buffer[..len])?))
}
