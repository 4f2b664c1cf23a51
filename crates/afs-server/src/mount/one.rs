//! One session as a file system: every method is one engine call.

use crate::inode::{self, By, Set, Time};
use afs_fuse as vfs;
use afs_fuse::{
    Allocate, AllocateAction, Caller, CopyRange, DirEntry, DirSink, InvalidationSink, OpenMode, Opened,
    SetTime, StatFs, Vfs, WatchGuard, WriteMode, Written, XattrMode,
};
use afs_session::{Attr, Invalidation, NewFile, RenameMode, Session, Who};
use afs_types::{Clock, Ino, NameRef, ROOT_INO, Reason, Result};
use std::sync::Arc;

const BLOCK: u32 = 4096;

/// A session to be mounted.
pub struct OneSession {
    session: Arc<Session>,
    clock: Arc<dyn Clock>,
    who: Who,
}

impl OneSession {
    /// `who` names this mount among those that change the session.
    pub fn new(session: Arc<Session>, clock: Arc<dyn Clock>, who: Who) -> Self {
        Self { session, clock, who }
    }
    /// The session.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
    fn by(&self) -> By {
        By { who: self.who, op_id: 0 }
    }
    fn truncate(&self, ino: Ino, kill_priv: bool) -> Result<Attr> {
        let empty = Set { size: Some(0), kill_priv, ..Set::default() };
        inode::set(&self.session, &*self.clock, ino, empty, self.by()).map(|(attr, _)| attr)
    }
}

/// Attributes as the mount shows them.
pub(super) fn attr(a: &Attr) -> vfs::Attr {
    vfs::Attr {
        ino: a.ino,
        mode: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        size: a.size,
        blocks: a.blocks,
        atime_ns: a.atime_ns,
        mtime_ns: a.mtime_ns,
        ctime_ns: a.ctime_ns,
        rdev: a.rdev,
        version: a.version,
    }
}

/// A change by others as the kernel must hear of it.
pub(super) fn invalidation(change: &Invalidation) -> vfs::Invalidation {
    match &change.name {
        _ if change.all => vfs::Invalidation::Everything,
        Some(name) => vfs::Invalidation::Entry { parent: change.ino, name: (&**name).into() },
        None => vfs::Invalidation::Inode { ino: change.ino, data: change.data },
    }
}

fn new(mode: u32, rdev: u32, caller: Caller) -> NewFile {
    NewFile { mode, uid: caller.uid, gid: caller.gid, rdev }
}

fn time(time: SetTime) -> Time {
    match time {
        SetTime::Now => Time::Now,
        SetTime::At(ns) => Time::At(ns),
    }
}

impl Vfs for OneSession {
    fn watch(&self, sink: InvalidationSink) -> WatchGuard {
        let arrivals = sink.clone();
        let report = move |change: &Invalidation| sink.report(invalidation(change));
        let settle = move |patience| arrivals.settle(patience);
        WatchGuard::new(self.session.watch(self.who, Arc::new(report), Arc::new(settle)))
    }

    fn lookup(&self, parent: Ino, name: NameRef<'_>) -> Result<vfs::Attr> {
        self.session.lookup(parent, name.as_bytes()).map(|a| attr(&a))
    }

    fn getattr(&self, ino: Ino) -> Result<vfs::Attr> {
        self.session.getattr(ino).map(|a| attr(&a))
    }

    fn setattr(&self, ino: Ino, set: vfs::SetAttr) -> Result<vfs::Attr> {
        let set = Set {
            mode: set.mode,
            uid: set.uid,
            gid: set.gid,
            size: set.size,
            atime: set.atime.map(time),
            mtime: set.mtime.map(time),
            kill_priv: set.kill_priv,
        };
        inode::set(&self.session, &*self.clock, ino, set, self.by()).map(|(a, _)| attr(&a))
    }

    fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.session.readlink(ino).map(|target| target.to_vec())
    }

    fn mknod(
        &self,
        parent: Ino,
        name: NameRef<'_>,
        mode: u32,
        rdev: u32,
        caller: Caller,
    ) -> Result<vfs::Attr> {
        self.session
            .create(parent, name.as_bytes(), new(mode, rdev, caller), self.who, 0)
            .map(|(a, _)| attr(&a))
    }

    fn mkdir(&self, parent: Ino, name: NameRef<'_>, mode: u32, caller: Caller) -> Result<vfs::Attr> {
        self.session.mkdir(parent, name.as_bytes(), new(mode, 0, caller), self.who, 0).map(|(a, _)| attr(&a))
    }

    fn symlink(&self, parent: Ino, name: NameRef<'_>, target: &[u8], caller: Caller) -> Result<vfs::Attr> {
        let new = new(0, 0, caller);
        self.session.symlink(parent, name.as_bytes(), target, new, self.who, 0).map(|(a, _)| attr(&a))
    }

    fn link(&self, ino: Ino, parent: Ino, name: NameRef<'_>) -> Result<vfs::Attr> {
        self.session.link(ino, parent, name.as_bytes(), self.who, 0).map(|(a, _)| attr(&a))
    }

    fn unlink(&self, parent: Ino, name: NameRef<'_>) -> Result<()> {
        self.session.unlink(parent, name.as_bytes(), self.who, 0).map(drop)
    }

    fn rmdir(&self, parent: Ino, name: NameRef<'_>) -> Result<()> {
        self.session.rmdir(parent, name.as_bytes(), self.who, 0).map(drop)
    }

    fn rename(&self, from: (Ino, NameRef<'_>), to: (Ino, NameRef<'_>), mode: vfs::RenameMode) -> Result<()> {
        let mode = match mode {
            vfs::RenameMode::Replace => RenameMode::Replace,
            vfs::RenameMode::NoReplace => RenameMode::NoReplace,
            vfs::RenameMode::Exchange => RenameMode::Exchange,
        };
        let (from, to) = ((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()));
        self.session.rename(from, to, mode, self.who, 0).map(drop)
    }

    fn open(&self, ino: Ino, mode: OpenMode) -> Result<Opened> {
        self.session.open(ino)?;
        let opened =
            if mode.truncate { self.truncate(ino, mode.kill_priv) } else { self.session.getattr(ino) };
        match opened {
            Ok(attr) => Ok(Opened { fh: 0, version: attr.version }),
            Err(error) => {
                self.session.release(ino)?;
                Err(error)
            }
        }
    }

    fn create(
        &self,
        parent: Ino,
        name: NameRef<'_>,
        permissions: u32,
        open: OpenMode,
        exclusive: bool,
        caller: Caller,
    ) -> Result<(vfs::Attr, Opened)> {
        let new = new(permissions & 0o7777, 0, caller);
        let (made, is_new) =
            inode::create(&self.session, parent, name.as_bytes(), new, exclusive, self.by())?;
        let open = OpenMode { truncate: open.truncate && !is_new, ..open };
        let opened = self.open(made.ino, open)?;
        match self.session.getattr(made.ino) {
            Ok(now) => Ok((attr(&now), opened)),
            Err(error) => {
                self.session.release(made.ino)?;
                Err(error)
            }
        }
    }

    fn read(&self, ino: Ino, _: u64, offset: u64, length: usize, out: &mut dyn FnMut(&[u8])) -> Result<()> {
        let bytes = self.session.read(ino, offset, length)?;
        out(&bytes);
        Ok(())
    }

    fn write(&self, ino: Ino, _: u64, offset: u64, bytes: &[u8], mode: WriteMode) -> Result<Written> {
        let at = (!mode.append).then_some(offset);
        let done = inode::write(&self.session, ino, at, bytes, self.by())?;
        Ok(Written { bytes: bytes.len(), offset: done.offset, before: done.before, after: done.attr.version })
    }

    fn release(&self, ino: Ino, _: u64) {
        if let Err(error) = self.session.release(ino) {
            tracing::warn!(session = %self.session.id(), ino, ?error, "close a file");
        }
    }

    fn fsync(&self, _: Ino, _: u64, _: bool) -> Result<()> {
        self.session.fsync()
    }

    fn readdir(&self, ino: Ino, _: u64, cookie: u64, plus: bool, sink: &mut DirSink<'_>) -> Result<()> {
        self.session.readdir(ino, cookie, &mut |entry| {
            sink(DirEntry {
                ino: entry.attr.ino,
                mode: entry.attr.mode,
                name: entry.name,
                next: entry.next_cookie,
                attr: plus.then(|| attr(&entry.attr)),
            })
        })
    }

    fn parent(&self, ino: Ino) -> Ino {
        self.session.parent(ino).unwrap_or(ROOT_INO)
    }

    fn statfs(&self, _: Ino) -> Result<StatFs> {
        let usage = self.session.statfs()?;
        let free = usage.free_bytes / u64::from(BLOCK);
        Ok(StatFs {
            block_size: BLOCK,
            blocks: usage.total_bytes / u64::from(BLOCK),
            blocks_free: free,
            blocks_available: free,
            files: usage.files,
            files_free: usage.free_files,
        })
    }

    fn fallocate(&self, ino: Ino, _: u64, what: Allocate) -> Result<()> {
        let action = match what.action {
            AllocateAction::Reserve => inode::Allocate::Reserve,
            AllocateAction::PunchHole => inode::Allocate::Punch,
            AllocateAction::ZeroRange => inode::Allocate::Zero,
        };
        let range = (what.offset, what.length);
        inode::allocate(&self.session, ino, range, what.keep_size, action, self.by()).map(drop)
    }

    fn seek(&self, ino: Ino, _: u64, offset: u64, what: vfs::Seek) -> Result<Option<u64>> {
        let what = match what {
            vfs::Seek::Data => afs_session::Seek::Data,
            vfs::Seek::Hole => afs_session::Seek::Hole,
        };
        match self.session.seek(ino, offset, what) {
            Err(error) if error.reason == Reason::NoData => Ok(None),
            found => found.map(Some),
        }
    }

    fn copy_range(&self, r: CopyRange) -> Result<u64> {
        let (from, to) = ((r.from, r.from_offset), (r.to, r.to_offset));
        self.session.copy_range(from, to, r.length, self.who).map(|(count, _)| count)
    }

    fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let must = match mode {
            XattrMode::Any => None,
            XattrMode::Create => Some(false),
            XattrMode::Replace => Some(true),
        };
        self.session.setxattr(ino, name, value, must, self.who, 0).map(drop)
    }

    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.session.getxattr(ino, name).map(|value| value.to_vec())
    }

    fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let names = self.session.listxattr(ino)?;
        Ok(names.iter().flat_map(|name| name.iter().copied().chain([0])).collect())
    }

    fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.session.removexattr(ino, name, self.who, 0).map(drop)
    }
}
