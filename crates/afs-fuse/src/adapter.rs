//! fuser's interface on one side, [`Vfs`](crate::Vfs) on the other: unpack, call, pack, count. No rules, with two exceptions
//! that only this side can know: which requests must take privileges off a file (`kill_priv`), and whether
//! the kernel's pages are still good (`KEEP_CACHE`).
//!
//! A panic below is an `EIO` for that request; the thread that serves the kernel lives on.

use crate::dispatch::{Adapter, DIRECTORY, DOT_ENTRIES, GENERATION, NEGATIVE_TTL_WITHOUT_EPOCHS};
use crate::pack;
use crate::questions::{self, is_question};
use crate::vfs::{Attr, CopyRange, DirEntry, Seek, SetAttr, WriteMode, XattrMode};
use afs_types::{NameRef, Reason, limits};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, Version, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A handler: whatever happens in it, its thread goes on and the request is answered (a dropped reply is `EIO`).
impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.negotiate(config);
        if config.kernel_abi() >= Version(7, 44) {
            self.notifier.use_epochs();
        } else {
            self.known.track_names();
            self.caps.negative_ttl = self.caps.negative_ttl.min(NEGATIVE_TTL_WITHOUT_EPOCHS);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.counting.lookups.one();
        if self.caps.changes
            && let Some(instant) = questions::instant_of(name.as_bytes())
            && self.vfs.is_tree_root(parent.0)
        {
            let attr = self.questions.ask(parent.0, instant);
            return reply.entry(&Duration::ZERO, &pack::attr(&attr), GENERATION);
        }
        let found =
            self.attrs("lookup", || match self.vfs.lookup(parent.0, NameRef::new(name.as_bytes())?) {
                Ok(attr) => Ok(Some(attr)),
                Err(error) if error.reason == Reason::NotFound => Ok(None),
                Err(error) => Err(error),
            });
        match found {
            Ok((Some(attr), ttl)) => {
                self.known.looked_up(attr.ino, Some((parent.0, name.as_bytes())));
                reply.entry_with_ttls(&ttl, &self.caps.entry_ttl, &pack::attr(&attr), GENERATION);
            }
            Ok((None, _)) => {
                self.counting.negative_lookups.one();
                let ttl = self.caps.negative_ttl;
                match ttl.is_zero() {
                    true => reply.error(Errno::ENOENT),
                    false => reply.entry(&ttl, &pack::absent(), GENERATION),
                }
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        if is_question(ino.0) {
            return self.questions.forget(ino.0); // every look-up made a new one
        }
        if self.known.forget(ino.0, lookups) {
            self.counting.forgets.one();
            self.places.forget(ino.0);
            let _ = self.call("forget", || {
                self.vfs.forget(ino.0);
                Ok(())
            }); // has no answer
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.counting.getattrs.one();
        if is_question(ino.0) {
            return match self.call("getattr", || self.questions.attr(ino.0)) {
                Ok(attr) => reply.attr(&Duration::ZERO, &pack::attr(&attr)),
                Err(errno) => reply.error(errno),
            };
        }
        self.attr("getattr", reply, || self.vfs.getattr(ino.0));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.counting.setattrs.one();
        // The kernel leaves it to us since HANDLE_KILLPRIV_V2, and fuser does not hand over its flag for
        // truncation: the owner changes, or somebody other than root truncates. An empty request is what remains
        // of `chown(-1, -1)` and of "this write must take the bits off" after the kernel removed its own markers.
        let nothing = mode.is_none() && size.is_none() && atime.is_none() && mtime.is_none();
        let chown = uid.is_some() || gid.is_some();
        let kill_priv = chown || nothing || (size.is_some() && request.uid() != 0);
        let set = SetAttr {
            mode: mode.map(|m| m & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(pack::set_time),
            mtime: mtime.map(pack::set_time),
            kill_priv,
        };
        self.attr("setattr", reply, || self.vfs.setattr(ino.0, set));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.counting.readlinks.one();
        match self.call("readlink", || self.vfs.readlink(ino.0)) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let make = |name: NameRef<'_>| self.vfs.mknod(parent.0, name, mode, rdev, pack::caller(req));
        self.entry("mknod", &self.counting.creates, (parent, name), reply, make);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let make = |name: NameRef<'_>| self.vfs.mkdir(parent.0, name, mode, pack::caller(req));
        self.entry("mkdir", &self.counting.creates, (parent, name), reply, make);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        let make = |name: NameRef<'_>| self.vfs.symlink(parent.0, name, target, pack::caller(req));
        self.entry("symlink", &self.counting.creates, (parent, name), reply, make);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let make = |name: NameRef<'_>| self.vfs.link(ino.0, parent.0, name);
        self.entry("link", &self.counting.creates, (parent, name), reply, make);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let unlink = || self.vfs.unlink(parent.0, NameRef::new(name.as_bytes())?);
        self.done("unlink", &self.counting.removes, reply, unlink);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let rmdir = || self.vfs.rmdir(parent.0, NameRef::new(name.as_bytes())?);
        self.done("rmdir", &self.counting.removes, reply, rmdir);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.done("rename", &self.counting.renames, reply, || {
            let mode = pack::rename_mode(flags).ok_or(Reason::InvalidArgument)?;
            let from = (parent.0, NameRef::new(name.as_bytes())?);
            let to = (new_parent.0, NameRef::new(new_name.as_bytes())?);
            self.vfs.rename(from, to, mode)
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.counting.opens.one();
        let mode = pack::open_mode(flags, request.uid() == 0);
        if is_question(ino.0) {
            return if mode.write { reply.error(Errno::EACCES) } else { self.answer(ino.0, reply) };
        }
        match self.call("open", || self.vfs.open(ino.0, mode)) {
            Ok(opened) => {
                if self.caps.changes && opened.version == 0 && !mode.write {
                    self.places.opened(&*self.vfs, ino.0);
                }
                reply.opened(FileHandle(opened.fh), self.file_flags(ino.0, &opened));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.counting.creates.one();
        let open = pack::open_mode(OpenFlags(flags), request.uid() == 0);
        let exclusive = flags & libc::O_EXCL != 0;
        let created = self.attrs("create", || {
            let bytes = NameRef::new(name.as_bytes())?;
            self.vfs.create(parent.0, bytes, mode & 0o7777, open, exclusive, pack::caller(request))
        });
        match created {
            Ok(((attr, opened), ttl)) => {
                self.known.looked_up(attr.ino, Some((parent.0, name.as_bytes())));
                let flags = self.file_flags(attr.ino, &opened);
                // fuser has one time to live here: the shorter one is right for both.
                let ttl = ttl.min(self.caps.entry_ttl);
                reply.created(&ttl, &pack::attr(&attr), GENERATION, FileHandle(opened.fh), flags);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if is_question(ino.0) {
            return match self.call("read", || self.questions.read(fh.0, offset, size as usize)) {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(errno),
            };
        }
        self.counting.reads.one();
        if let Some(log) = &self.reads {
            log.lock().insert(ino.0);
        }
        if let Some(place) = self.places.of(ino.0) {
            let read = || self.read_placed(&place, ino.0, fh.0, offset, size as usize);
            return match self.call("read", read) {
                Ok(bytes) => {
                    self.counting.read_bytes.add(bytes.len() as u64);
                    reply.data(&bytes);
                }
                Err(errno) => reply.error(errno),
            };
        }
        let mut reply = Some(reply);
        let mut out = |bytes: &[u8]| {
            if let Some(reply) = reply.take() {
                self.counting.read_bytes.add(bytes.len() as u64);
                reply.data(bytes);
            }
        };
        let read = self.call("read", || self.vfs.read(ino.0, fh.0, offset, size as usize, &mut out));
        match (read, reply) {
            (_, None) => {} // answered by `out`
            (Ok(()), Some(reply)) => reply.data(&[]),
            (Err(errno), Some(reply)) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        bytes: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.counting.writes.one();
        let mode = WriteMode {
            // Pages written back from a mapping have their place, whatever the descriptor says.
            append: flags.0 & libc::O_APPEND != 0 && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
            kill_priv: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        match self.call("write", || self.vfs.write(ino.0, fh.0, offset, bytes, mode)) {
            Ok(written) => {
                self.after_write(ino.0, offset, &written);
                reply.written(written.bytes as u32);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, ino: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.done("flush", &self.counting.flushes, reply, || self.vfs.flush(ino.0, fh.0));
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.done("release", &self.counting.releases, reply, || {
            if is_question(ino.0) {
                self.questions.release(fh.0);
                return Ok(());
            }
            self.vfs.release(ino.0, fh.0);
            Ok(())
        });
    }

    fn fsync(&self, _: &Request, ino: INodeNo, fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        if is_question(ino.0) {
            return reply.ok(); // its handle is ours, and nothing of it was ever written
        }
        self.done("fsync", &self.counting.fsyncs, reply, || self.vfs.fsync(ino.0, fh.0, data_only));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        self.done("fsyncdir", &self.counting.fsyncs, reply, || self.vfs.fsync(ino.0, fh.0, data_only));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.counting.opendirs.one();
        match self.call("opendir", || self.vfs.opendir(ino.0)) {
            Ok(opened) => {
                let mut flags = FopenFlags::FOPEN_CACHE_DIR;
                if self.known.opened(ino.0, opened.version) {
                    flags |= FopenFlags::FOPEN_KEEP_CACHE;
                }
                reply.opened(FileHandle(opened.fh), flags);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn releasedir(&self, _: &Request, ino: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.done("releasedir", &self.counting.releases, reply, || {
            self.vfs.releasedir(ino.0, fh.0);
            Ok(())
        });
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut add = |entry: DirEntry<'_>, next: u64| {
            let name = OsStr::from_bytes(entry.name);
            !reply.add(INodeNo(entry.ino), next, pack::file_type(entry.mode), name)
        };
        match self.list(ino.0, fh.0, offset, false, &mut add) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let epoch = self.queue.epoch();
        let mut add = |entry: DirEntry<'_>, next: u64| {
            // Checked after the file system gave the attributes, as for a look-up.
            let ttl = self.trust_since(epoch).min(self.caps.entry_ttl);
            let unknown = Attr { ino: entry.ino, mode: entry.mode | 0o700, ..DIRECTORY };
            let (attr, ttl) = entry.attr.map_or((unknown, Duration::ZERO), |attr| (attr, ttl));
            let name = OsStr::from_bytes(entry.name);
            let full = reply.add(INodeNo(entry.ino), next, name, &ttl, &pack::attr(&attr), GENERATION);
            // The kernel takes no reference through `.` and `..`.
            if !full && next > DOT_ENTRIES {
                self.known.looked_up(entry.ino, Some((ino.0, entry.name)));
            }
            !full
        };
        match self.list(ino.0, fh.0, offset, true, &mut add) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.counting.statfs.one();
        match self.call("statfs", || self.vfs.statfs(ino.0)) {
            Ok(s) => reply.statfs(
                s.blocks,
                s.blocks_free,
                s.blocks_available,
                s.files,
                s.files_free,
                s.block_size,
                limits::MAX_NAME_BYTES as u32,
                s.block_size,
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        if !self.caps.xattrs {
            return reply.error(Errno::ENOSYS); // the kernel remembers and never asks again
        }
        self.done("setxattr", &self.counting.xattrs, reply, || {
            let mode = match flags {
                0 => XattrMode::Any,
                libc::XATTR_CREATE => XattrMode::Create,
                libc::XATTR_REPLACE => XattrMode::Replace,
                _ => return Err(Reason::InvalidArgument.into()),
            };
            self.vfs.setxattr(ino.0, self.xattr_name(name)?, value, mode)
        });
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.caps.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        self.xattr(reply, size, || self.vfs.getxattr(ino.0, self.xattr_name(name)?));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.caps.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        self.xattr(reply, size, || self.vfs.listxattr(ino.0));
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if !self.caps.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        let remove = || self.vfs.removexattr(ino.0, self.xattr_name(name)?);
        self.done("removexattr", &self.counting.xattrs, reply, remove);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS); // the kernel has checked by itself (default_permissions)
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        // Python asks every file whether it is a terminal: answered without touching the file system.
        self.counting.ioctls.one();
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.done("fallocate", &self.counting.fallocates, reply, || {
            let what = pack::allocate(offset, length, mode).ok_or(Reason::Unsupported)?;
            self.vfs.fallocate(ino.0, fh.0, what)
        });
    }

    fn lseek(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.counting.seeks.one();
        let found = self.call("lseek", || {
            let what = match whence {
                libc::SEEK_DATA => Seek::Data,
                libc::SEEK_HOLE => Seek::Hole,
                _ => return Err(Reason::InvalidArgument.into()),
            };
            match u64::try_from(offset) {
                Ok(offset) => self.vfs.seek(ino.0, fh.0, offset, what),
                Err(_) => Ok(None),
            }
        });
        match found {
            Ok(Some(at)) => reply.offset(at as i64),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(errno) => reply.error(errno),
        }
    }

    fn copy_file_range(
        &self,
        _: &Request,
        from: INodeNo,
        from_fh: FileHandle,
        from_offset: u64,
        to: INodeNo,
        to_fh: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.counting.copy_ranges.one();
        let range = CopyRange {
            from: from.0,
            from_fh: from_fh.0,
            from_offset,
            to: to.0,
            to_fh: to_fh.0,
            to_offset,
            // The answer has 32 bits.
            length: length.min(u64::from(u32::MAX) & !0xfff),
        };
        if self.places.of(from.0).is_some() {
            // What is shown is not what is stored: the kernel then reads and writes.
            return reply.error(Errno::EOPNOTSUPP);
        }
        match self.call("copy_file_range", || self.vfs.copy_range(range)) {
            Ok(copied) => reply.written(copied as u32),
            Err(errno) => reply.error(errno),
        }
    }
}
