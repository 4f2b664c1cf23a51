//! The disk: one file served through FUSE, and the log of what happened to it.
//!
//! Guarantees: an event is in the log before its request is answered, and in the order in which the requests were answered, so a mark made
//! after an acknowledgement stands after every write and flush that the acknowledgement waited for.
//! Deliberately absent: discards (refused; the loop device does without) and any caching of our own.

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use parking_lot::Mutex;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// The name of the file inside of the FUSE mount.
pub(crate) const FILE: &str = "disk.img";
const FILE_INO: INodeNo = INodeNo(2);
/// Nothing but this process changes the file, so the kernel may remember its attributes.
const TTL: Duration = Duration::from_secs(3600);

/// One thing that happened, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// `len` bytes at `offset` of the disk, kept at `at` of the log's file.
    Write { offset: u64, at: u64, len: u64 },
    /// All writes before it are on the disk for certain.
    Flush,
    /// An acknowledgement reached the test.
    Mark(u64),
}

/// Events in memory, bytes in a file.
pub(crate) struct Log {
    events: Vec<Event>,
    bytes: File,
    used: u64,
}

impl Log {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let bytes = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Self { events: Vec::new(), bytes, used: 0 })
    }
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }
    pub(crate) fn mark(&mut self, number: u64) {
        self.events.push(Event::Mark(number));
    }
    fn flush(&mut self) {
        self.events.push(Event::Flush);
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.write_all_at(data, self.used)?;
        let len = data.len() as u64;
        self.events.push(Event::Write { offset, at: self.used, len });
        self.used += len;
        Ok(())
    }
    /// The bytes of a write.
    pub(crate) fn read(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut data = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.bytes.read_exact_at(&mut data, at)?;
        Ok(data)
    }
}

/// The file system with the one file in it.
pub(crate) struct Disk {
    live: File,
    size: u64,
    log: Arc<Mutex<Log>>,
}

impl Disk {
    pub(crate) fn open(live: &Path, log: Arc<Mutex<Log>>) -> io::Result<Self> {
        let live = OpenOptions::new().read(true).write(true).open(live)?;
        let size = live.metadata()?.len();
        Ok(Self { live, size, log })
    }

    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, perm, nlink, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0o700, 2, 0),
            FILE_INO => (FileType::RegularFile, 0o600, 1, self.size),
            _ => return None,
        };
        Some(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        })
    }

    /// One lock over both, so that the disk and its log agree about the order of overlapping writes.
    fn store(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut log = self.log.lock();
        self.live.write_all_at(data, offset)?;
        log.write(offset, data)
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attr(FILE_INO) {
            Some(attr) if parent == INodeNo::ROOT && name == FILE => reply.entry(&TTL, &attr, Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut data = vec![0; (self.size.saturating_sub(offset)).min(u64::from(size)) as usize];
        match self.live.read_exact_at(&mut data, offset) {
            Ok(()) => reply.data(&data),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.store(offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.log.lock().flush();
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // The end of a file handle, which no disk hears of.
        reply.ok();
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if offset == 0 {
            let _ = reply.add(FILE_INO, 1, FileType::RegularFile, FILE);
        }
        reply.ok();
    }
}
