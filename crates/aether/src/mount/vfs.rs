//! [`Vfs`] over an attached session: packs, sends, unpacks. The kernel's caches are the cache; the Sync stream
//! takes back what others change.
//!
//! Every call blocks its thread for at most the mount's patience. Deliberately absent (later): write-back, prefetch,
//! locks across mounts.

use afs_client::api::{self, op::Op};
use afs_client::{Applied, Change, Mount};
use afs_fuse::{
    Allocate, AllocateAction, Attr, Caller, Caps, Changes, CopyRange, DirEntry, DirSink, Invalidation,
    InvalidationSink, OpenMode, Opened, RenameMode, Seek, SetAttr, SetTime, StatFs, Vfs, WatchGuard,
    WriteMode, Written, XattrMode,
};
use afs_types::{Error, Ino, NameRef, Reason, Result};
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use tokio::runtime::Handle;

const S_IFREG: u32 = 0o100_000;
const READDIR_STOP: u64 = 0;

/// A session at the other end of a connection.
pub(crate) struct Remote {
    mount: Arc<Mount>,
    runtime: Handle,
    owner: Owner,
}

/// Whose the files are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// As the session has them.
    AsStored,
    /// All of them seem to belong to this user (who could not change them otherwise); new ones are stored as
    /// belonging to the owner of the session's root.
    Me {
        /// User and group shown.
        shown: (u32, u32),
        /// User and group stored.
        stored: (u32, u32),
    },
}

impl Remote {
    pub(crate) fn new(mount: Arc<Mount>, runtime: Handle, owner: Owner) -> Self {
        Self { mount, runtime, owner }
    }

    fn wait<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(call).map_err(nothing_left)
    }

    fn apply(&self, op: Op) -> Result<Applied> {
        self.wait(self.mount.apply(op))
    }

    fn made(&self, op: Op) -> Result<Attr> {
        self.attr_of(self.apply(op)?)
    }

    fn attr_of(&self, applied: Applied) -> Result<Attr> {
        match applied.attributes {
            Some(attributes) => Ok(self.attr(&attributes)),
            None => Err(Error::new(Reason::Internal, "the server sent no attributes")),
        }
    }

    fn attr(&self, a: &api::Attributes) -> Attr {
        let (uid, gid) = match self.owner {
            Owner::AsStored => (a.uid, a.gid),
            Owner::Me { shown, .. } => shown,
        };
        Attr {
            ino: a.inode,
            mode: a.mode,
            nlink: a.nlink,
            uid,
            gid,
            size: a.size,
            blocks: a.blocks,
            atime_ns: a.atime_ns,
            mtime_ns: a.mtime_ns,
            ctime_ns: a.ctime_ns,
            rdev: a.rdev as u32,
            version: a.version,
        }
    }

    /// Opens something. The server needs the inode only; the handle is for what its holder must be told.
    fn with_handle<T>(&self, open: impl Future<Output = Result<T>>) -> Result<(u64, T)> {
        let fh = self.mount.open_handle();
        let opened = self.wait(open);
        if opened.is_err() {
            self.mount.close_handle(fh);
        }
        Ok((fh, opened?))
    }

    fn new_owner(&self, caller: Caller) -> (u32, u32) {
        match self.owner {
            Owner::AsStored => (caller.uid, caller.gid),
            Owner::Me { stored, .. } => stored,
        }
    }

    /// An owner to be set; where all seem to be ours, the only one that can be asked for is the one shown.
    fn set_owner(&self, id: Option<u32>, shown: impl Fn((u32, u32)) -> u32) -> Result<Option<u32>> {
        match (self.owner, id) {
            (Owner::Me { shown: me, .. }, Some(id)) if id != shown(me) => Err(Reason::NotPermitted.into()),
            (Owner::Me { .. }, _) => Ok(None),
            (Owner::AsStored, id) => Ok(id),
        }
    }
}

fn bytes(name: NameRef<'_>) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn opened(fh: u64, applied: &Applied) -> Opened {
    Opened { fh, version: applied.attributes.as_ref().map_or(0, |a| a.version) }
}

/// What is left of a session that was deleted has nothing behind it any more; that no such session is there is no answer about a file.
fn nothing_left(error: Error) -> Error {
    match error.reason {
        Reason::SessionNotFound => Error::new(Reason::Stale, error.message().to_owned()),
        _ => error,
    }
}

impl Vfs for Remote {
    fn caps(&self) -> Caps {
        Caps { remote: true, changes: true, ..Caps::default() }
    }

    fn watch(&self, sink: InvalidationSink) -> WatchGuard {
        let arrivals = sink.clone();
        let report = move |change| {
            sink.report(match change {
                Change::Inode { ino, data } => Invalidation::Inode { ino, data },
                Change::Entry { parent, name } => Invalidation::Entry { parent, name: name.into() },
                Change::Everything => Invalidation::Everything,
            });
        };
        self.mount.listen(Arc::new(report), Arc::new(move |patience| arrivals.settle(patience)));
        WatchGuard::none() // ends with the attachment
    }

    fn lookup(&self, parent: Ino, name: NameRef<'_>) -> Result<Attr> {
        match self.wait(self.mount.lookup(parent, bytes(name)))? {
            Some(attributes) => Ok(self.attr(&attributes)),
            None => Err(Reason::NotFound.into()),
        }
    }

    fn getattr(&self, ino: Ino) -> Result<Attr> {
        Ok(self.attr(&self.wait(self.mount.getattr(ino))?))
    }

    fn setattr(&self, inode: Ino, set: SetAttr) -> Result<Attr> {
        let at = |time: Option<SetTime>| match time {
            Some(SetTime::At(ns)) => Some(ns),
            Some(SetTime::Now) | None => None,
        };
        self.made(Op::Setattr(api::SetAttrOp {
            inode,
            mode: set.mode,
            uid: self.set_owner(set.uid, |me| me.0)?,
            gid: self.set_owner(set.gid, |me| me.1)?,
            size: set.size,
            atime_ns: at(set.atime),
            mtime_ns: at(set.mtime),
            atime_now: set.atime == Some(SetTime::Now),
            mtime_now: set.mtime == Some(SetTime::Now),
            kill_priv: set.kill_priv,
        }))
    }

    fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        Ok(self.wait(self.mount.readlink(ino))?.to_vec())
    }

    fn mknod(&self, parent: Ino, name: NameRef<'_>, mode: u32, rdev: u32, caller: Caller) -> Result<Attr> {
        let (uid, gid) = self.new_owner(caller);
        let rdev = rdev.into();
        self.made(Op::Mknod(api::MakeNodeOp { parent, name: bytes(name), mode, uid, gid, rdev }))
    }

    fn mkdir(&self, parent: Ino, name: NameRef<'_>, mode: u32, caller: Caller) -> Result<Attr> {
        let (uid, gid) = self.new_owner(caller);
        self.made(Op::Mkdir(api::MakeDirectoryOp { parent, name: bytes(name), mode, uid, gid }))
    }

    fn symlink(&self, parent: Ino, name: NameRef<'_>, target: &[u8], caller: Caller) -> Result<Attr> {
        let (uid, gid) = self.new_owner(caller);
        let target = Bytes::copy_from_slice(target);
        self.made(Op::Symlink(api::MakeSymlinkOp { parent, name: bytes(name), target, uid, gid }))
    }

    fn link(&self, inode: Ino, parent: Ino, name: NameRef<'_>) -> Result<Attr> {
        self.made(Op::Link(api::LinkOp { inode, parent, name: bytes(name) }))
    }

    fn unlink(&self, parent: Ino, name: NameRef<'_>) -> Result<()> {
        self.apply(Op::Unlink(api::UnlinkOp { parent, name: bytes(name), directory: false })).map(drop)
    }

    fn rmdir(&self, parent: Ino, name: NameRef<'_>) -> Result<()> {
        self.apply(Op::Unlink(api::UnlinkOp { parent, name: bytes(name), directory: true })).map(drop)
    }

    fn rename(&self, from: (Ino, NameRef<'_>), to: (Ino, NameRef<'_>), mode: RenameMode) -> Result<()> {
        let flags = match mode {
            RenameMode::Replace => 0,
            RenameMode::NoReplace => 1,
            RenameMode::Exchange => 2,
        };
        self.apply(Op::Rename(api::RenameOp {
            from_parent: from.0,
            from_name: bytes(from.1),
            to_parent: to.0,
            to_name: bytes(to.1),
            flags,
        }))
        .map(drop)
    }

    fn open(&self, inode: Ino, mode: OpenMode) -> Result<Opened> {
        let open = api::OpenOp { inode, truncate: mode.truncate, kill_priv: mode.kill_priv };
        let (fh, applied) = self.with_handle(self.mount.open(open))?;
        Ok(opened(fh, &applied))
    }

    fn create(
        &self,
        parent: Ino,
        name: NameRef<'_>,
        permissions: u32,
        open: OpenMode,
        exclusive: bool,
        caller: Caller,
    ) -> Result<(Attr, Opened)> {
        let (uid, gid) = self.new_owner(caller);
        let create = api::CreateOp {
            parent,
            name: bytes(name),
            exclusive,
            mode: S_IFREG | permissions,
            uid,
            gid,
            open: true,
            truncate: open.truncate,
            kill_priv: open.kill_priv,
        };
        let (fh, (attr, created)) = self.with_handle(async {
            let created = self.mount.create(create).await?;
            Ok((self.attr_of(created.clone())?, created))
        })?;
        Ok((attr, opened(fh, &created)))
    }

    fn read(&self, ino: Ino, _: u64, offset: u64, length: usize, out: &mut dyn FnMut(&[u8])) -> Result<()> {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let pieces = self.wait(self.mount.read(ino, offset, length))?;
        match pieces.as_slice() {
            [one] => out(one),
            many => out(&many.concat()),
        }
        Ok(())
    }

    fn write(&self, inode: Ino, _: u64, offset: u64, data: &[u8], mode: WriteMode) -> Result<Written> {
        let written = self.wait(self.mount.write(api::WriteDataOp {
            inode,
            offset,
            data: Bytes::copy_from_slice(data),
            append: mode.append,
            kill_priv: mode.kill_priv,
        }))?;
        Ok(Written {
            bytes: written.count as usize,
            offset: written.offset,
            before: written.version_before,
            after: written.attributes.map_or(0, |a| a.version),
        })
    }

    fn release(&self, ino: Ino, fh: u64) {
        self.mount.close_handle(fh);
        self.runtime.block_on(self.mount.release(ino));
    }

    fn fsync(&self, _: Ino, fh: u64, _: bool) -> Result<()> {
        self.wait(self.mount.fsync(fh))
    }

    fn opendir(&self, ino: Ino) -> Result<Opened> {
        let (fh, attributes) = self.with_handle(self.mount.getattr(ino))?;
        Ok(Opened { fh, version: attributes.version })
    }

    fn releasedir(&self, _: Ino, fh: u64) {
        self.mount.close_handle(fh);
    }

    fn readdir(&self, ino: Ino, _: u64, cookie: u64, _: bool, sink: &mut DirSink<'_>) -> Result<()> {
        let mut cookie = cookie;
        loop {
            let page = self.wait(self.mount.readdir(ino, cookie))?;
            for entry in &page.entries {
                let Some(attributes) = &entry.attributes else {
                    return Err(Error::new(Reason::Internal, "the server sent an entry without attributes"));
                };
                let attr = self.attr(attributes);
                let next = entry.next_cookie;
                let (mode, name) = (attr.mode, &entry.name[..]);
                if !sink(DirEntry { ino: attr.ino, mode, name, next, attr: Some(attr) }) {
                    return Ok(());
                }
                cookie = next;
            }
            if page.end || page.entries.is_empty() || cookie == READDIR_STOP {
                return Ok(());
            }
        }
    }

    fn changed_since(&self, _: Ino, instant: &str) -> Result<Changes> {
        let since = self.wait(self.mount.changed_since(instant))?;
        Ok(Changes { instant: since.instant, paths: since.paths })
    }

    fn statfs(&self, _: Ino) -> Result<StatFs> {
        let s = self.wait(self.mount.statfs())?;
        let block_size = s.block_size.max(512);
        let blocks = |bytes: u64| bytes / u64::from(block_size);
        Ok(StatFs {
            block_size,
            blocks: blocks(s.total_bytes),
            blocks_free: blocks(s.free_bytes),
            blocks_available: blocks(s.free_bytes),
            files: s.files,
            files_free: s.free_files,
        })
    }

    fn fallocate(&self, inode: Ino, _: u64, what: Allocate) -> Result<()> {
        let action = match what.action {
            AllocateAction::Reserve => 0,
            AllocateAction::PunchHole => 2,
            AllocateAction::ZeroRange => 16,
        };
        let mode = action | u32::from(what.keep_size);
        let op = api::FallocateOp { inode, offset: what.offset, length: what.length, mode };
        self.apply(Op::Fallocate(op)).map(drop)
    }

    fn seek(&self, ino: Ino, _: u64, offset: u64, what: Seek) -> Result<Option<u64>> {
        let whence = match what {
            Seek::Data => api::SeekWhence::Data,
            Seek::Hole => api::SeekWhence::Hole,
        };
        self.wait(self.mount.seek(ino, offset, whence))
    }

    fn copy_range(&self, range: CopyRange) -> Result<u64> {
        let op = api::CopyRangeOp {
            from_inode: range.from,
            from_offset: range.from_offset,
            to_inode: range.to,
            to_offset: range.to_offset,
            length: range.length,
        };
        Ok(self.apply(Op::CopyRange(op))?.count)
    }

    fn setxattr(&self, inode: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let flags = match mode {
            XattrMode::Any => 0,
            XattrMode::Create => 1,
            XattrMode::Replace => 2,
        };
        let (name, value) = (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
        self.apply(Op::Xattr(api::XattrOp { inode, name, value, remove: false, flags })).map(drop)
    }

    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        Ok(self.wait(self.mount.getxattr(ino, Bytes::copy_from_slice(name)))?.to_vec())
    }

    fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let names = self.wait(self.mount.listxattr(ino))?;
        Ok(names.iter().flat_map(|n| [n, &b"\0"[..]].concat()).collect())
    }

    fn removexattr(&self, inode: Ino, name: &[u8]) -> Result<()> {
        let (name, value) = (Bytes::copy_from_slice(name), Bytes::new());
        self.apply(Op::Xattr(api::XattrOp { inode, name, value, remove: true, flags: 0 })).map(drop)
    }
}
