//! What every handler does around its call of the file system: errors and panics, counting, what the kernel may
//! trust, and the two things only this side knows (see `adapter.rs`).

use crate::counters::{Count, Counting};
use crate::git_place::{Place, Places};
use crate::known::Known;
use crate::notifier::{Notifier, Queue};
use crate::questions::Questions;
use crate::vfs::{Attr, Caps, DirEntry, Invalidation, Opened, Vfs, Written};
use crate::{errors, pack};
use afs_types::{Ino, NameRef, Reason, Result, limits};
use fuser::{
    Errno, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, ReplyAttr, ReplyEmpty, ReplyEntry,
    ReplyXattr,
};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Inode numbers are never used again, so there is only one generation.
pub(crate) const GENERATION: Generation = Generation(0);
/// Cookies 1 and 2 are behind `.` and `..`; the file system's own start at 2.
pub(crate) const DOT_ENTRIES: u64 = 2;
const MAX_BACKGROUND: u16 = 64;
/// How long "no such name" may be trusted by a kernel that cannot drop all names at once: nobody can list
/// the absent names it holds.
pub(crate) const NEGATIVE_TTL_WITHOUT_EPOCHS: Duration = Duration::from_secs(10);

pub(crate) struct Adapter {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) caps: Caps,
    pub(crate) counting: Arc<Counting>,
    pub(crate) known: Arc<Known>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) places: Places,
    pub(crate) reads: Option<Arc<ReadLog>>,
}

/// Inodes that content was read from.
pub(crate) type ReadLog = Mutex<BTreeSet<Ino>>;

impl Adapter {
    /// Calls the file system; an error is counted and logged and becomes an errno.
    pub(crate) fn call<T>(&self, operation: &'static str, f: impl FnOnce() -> Result<T>) -> Result<T, Errno> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if !matches!(error.reason, Reason::NotFound | Reason::NoAttribute) {
                    self.counting.errors.one();
                }
                Err(errors::errno(operation, &error))
            }
            Err(_) => {
                self.counting.panics.one();
                tracing::error!(operation, "the file system panicked; the request gets EIO");
                Err(Errno::EIO)
            }
        }
    }

    /// Calls something that tells the kernel of an inode; also says how long its attributes may be trusted:
    /// not at all if anything was changed by others meanwhile (see `notifier.rs`).
    pub(crate) fn attrs<T>(
        &self,
        operation: &'static str,
        f: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Duration), Errno> {
        let epoch = self.queue.epoch();
        let value = self.call(operation, f)?;
        Ok((value, self.trust_since(epoch)))
    }

    pub(crate) fn trust_since(&self, epoch: u64) -> Duration {
        if self.queue.epoch() == epoch { self.caps.attr_ttl } else { Duration::ZERO }
    }

    pub(crate) fn entry(
        &self,
        operation: &'static str,
        count: &Count,
        (parent, name): (INodeNo, &OsStr),
        reply: ReplyEntry,
        f: impl FnOnce(NameRef<'_>) -> Result<Attr>,
    ) {
        count.one();
        match self.attrs(operation, || f(NameRef::new(name.as_bytes())?)) {
            Ok((attr, ttl)) => {
                self.known.looked_up(attr.ino, Some((parent.0, name.as_bytes())));
                reply.entry_with_ttls(&ttl, &self.caps.entry_ttl, &pack::attr(&attr), GENERATION);
            }
            Err(errno) => reply.error(errno),
        }
    }

    pub(crate) fn done(
        &self,
        operation: &'static str,
        count: &Count,
        reply: ReplyEmpty,
        f: impl FnOnce() -> Result<()>,
    ) {
        count.one();
        match self.call(operation, f) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    pub(crate) fn attr(&self, operation: &'static str, reply: ReplyAttr, f: impl FnOnce() -> Result<Attr>) {
        // No race here: the kernel has the inode and ignores answers older than its last invalidation.
        match self.call(operation, f) {
            Ok(attr) => reply.attr(&self.caps.attr_ttl, &pack::attr(&attr)),
            Err(errno) => reply.error(errno),
        }
    }

    pub(crate) fn xattr(&self, reply: ReplyXattr, size: u32, f: impl FnOnce() -> Result<Vec<u8>>) {
        self.counting.xattrs.one();
        match self.call("xattr", f) {
            Ok(value) if size == 0 => reply.size(value.len() as u32),
            Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
            Ok(value) => reply.data(&value),
            Err(errno) => reply.error(errno),
        }
    }

    /// `system.*` (access control lists) would be stored but not enforced: refused, as a file system without them does.
    pub(crate) fn xattr_name<'a>(&self, name: &'a OsStr) -> Result<&'a [u8]> {
        let name = name.as_bytes();
        let known = !name.starts_with(b"system.") && name.len() <= limits::MAX_XATTR_NAME_BYTES;
        if known { Ok(name) } else { Err(Reason::Unsupported.into()) }
    }

    pub(crate) fn file_flags(&self, ino: Ino, opened: &Opened) -> FopenFlags {
        let mut flags = FopenFlags::empty();
        if self.known.opened(ino, opened.version) {
            self.counting.opens_cached.one();
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        if !self.caps.flush {
            flags |= FopenFlags::FOPEN_NOFLUSH;
        }
        flags
    }

    /// Reads an index whose name is to be filled in, if it still is as it was.
    pub(crate) fn read_placed(
        &self,
        place: &Place,
        ino: Ino,
        fh: u64,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.vfs.read(ino, fh, offset, size, &mut |piece| bytes = piece.to_vec())?;
        if self.vfs.getattr(ino)?.version == 0 {
            place.fill(&*self.vfs, offset, &mut bytes)?;
        }
        Ok(bytes)
    }

    pub(crate) fn after_write(&self, ino: Ino, asked: u64, written: &Written) {
        self.counting.write_bytes.add(written.bytes as u64);
        if written.offset == asked {
            self.known.written(ino, written.before, written.after);
        } else {
            // An append went behind what the kernel took for the end: its page has our bytes in the wrong place.
            self.queue.push(Invalidation::Inode { ino, data: true });
        }
    }

    pub(crate) fn negotiate(&self, config: &mut KernelConfig) {
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_ASYNC_DIO,
            // Lets the kernel skip a GETXATTR(security.capability) before every write.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ];
        for flag in wanted {
            if let Err(missing) = config.add_capabilities(flag) {
                tracing::debug!(?missing, "an older kernel: works without");
            }
        }
        // The bounds below are valid for every kernel; a refusal leaves the default, which is right too.
        let _ = config.set_max_write(limits::MAX_IO_BYTES as u32);
        let _ = config.set_max_background(MAX_BACKGROUND);
    }

    /// `.`, `..`, then the file system's own entries; `add` takes an entry and where to go on after it.
    pub(crate) fn list(
        &self,
        ino: Ino,
        fh: u64,
        offset: u64,
        plus: bool,
        add: &mut dyn FnMut(DirEntry<'_>, u64) -> bool,
    ) -> Result<(), Errno> {
        self.counting.readdirs.one();
        self.call("readdir", || {
            for (at, name) in [(0, &b"."[..]), (1, b"..")] {
                if offset > at {
                    continue;
                }
                let target = if at == 0 { ino } else { self.vfs.parent(ino) };
                let attr = plus.then_some(Attr { ino: target, ..DIRECTORY });
                let entry = DirEntry { ino: target, mode: libc::S_IFDIR, name, next: at + 1, attr };
                if !add(entry, at + 1) {
                    return Ok(());
                }
            }
            let cookie = offset.saturating_sub(DOT_ENTRIES);
            self.vfs.readdir(ino, fh, cookie, plus, &mut |entry| {
                let taken = add(entry, entry.next.saturating_add(DOT_ENTRIES));
                self.counting.readdir_entries.add(u64::from(taken));
                taken
            })
        })
    }
}

/// Stands for `.` and `..` in `readdirplus`, of which the kernel looks only at number and type, and for an entry whose attributes
/// are not known: it then gets these, which expire at once.
pub(crate) const DIRECTORY: Attr = Attr {
    ino: 0,
    mode: libc::S_IFDIR,
    nlink: 2,
    uid: 0,
    gid: 0,
    size: 0,
    blocks: 0,
    atime_ns: 0,
    mtime_ns: 0,
    ctime_ns: 0,
    rdev: 0,
    version: 0,
};
