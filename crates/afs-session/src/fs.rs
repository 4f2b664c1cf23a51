//! Inode-level file operations: what a mount, the Bridge and WebDAV call.
//!
//! Every call is planned by `afs-core` and acknowledged from RAM with a [`Stamp`]; [`Session::wait`] makes it durable and
//! [`Session::fsync`] does so for everything before it. Permissions are the caller's business (the kernel's, or the API's).

use crate::content::{append, read_content, regular};
use crate::session::{Ctx, Session, Stamp, Unheld, Who};
use afs_core::extent::{Content, LogRef, Source};
use afs_core::op::{AttrSet, Bytes, Op};
use afs_core::tree::plan::{NewNode, RenameMode};
use afs_core::tree::{Attr, S_IFDIR, S_IFLNK, S_IFREG, Tree};
use afs_types::{Error, Ino, NameRef, Reason, Result, limits};

/// A new inode's attributes and the caller.
#[derive(Clone, Copy, Debug)]
pub struct NewFile {
    /// Type (regular, fifo, socket, device) and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of special files.
    pub rdev: u32,
}

/// One entry of a listing.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Name.
    pub name: &'a [u8],
    /// Attributes of what it names.
    pub attr: Attr,
    /// Where to go on.
    pub next_cookie: u64,
}

/// What a file's holes look like to `lseek`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is stored.
    Data,
    /// The next byte that is not.
    Hole,
}

/// Sizes of the file system, as `statfs` shows them.
#[derive(Clone, Copy, Debug)]
pub struct FsUsage {
    /// Bytes of the store's disk.
    pub total_bytes: u64,
    /// Bytes free on it.
    pub free_bytes: u64,
    /// Inode numbers of the family.
    pub files: u64,
    /// Of them unused, at least.
    pub free_files: u64,
}

/// The source of no bytes.
const NOWHERE: Source = Source::Log(LogRef { segment: 0, offset: 0 });

impl Session {
    /// The inode that a name names.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.with_tree(|t| {
            let found = t.lookup(parent, name).and_then(|ino| t.attr(ino));
            found.ok_or_else(|| match t.attr(parent) {
                None => Reason::Stale.into(),
                Some(p) if !p.is_dir() => Reason::NotADirectory.into(),
                _ if name.len() > limits::MAX_NAME_BYTES => Reason::NameTooLong.into(),
                _ => Error::bare(Reason::NotFound),
            })
        })?
    }

    /// Attributes of an inode.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.with_tree(|t| t.attr(ino))?.ok_or_else(|| Reason::Stale.into())
    }

    /// The directory that holds an inode (exact for directories).
    pub fn parent(&self, ino: Ino) -> Result<Ino> {
        self.with_tree(|t| t.parent_of(ino))?.ok_or_else(|| Reason::Stale.into())
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<bytes::Bytes> {
        let attr = self.getattr(ino)?;
        if !attr.is_symlink() {
            return Err(Reason::WrongType.into());
        }
        let (content, size) = self.content(ino)?;
        read_content(&self.shared().ports.blobs, &content, size, 0, limits::MAX_SYMLINK_BYTES)
    }

    /// Entries of a directory after a cookie, until `visit` returns false. `.` and `..` are the caller's.
    pub fn readdir(&self, dir: Ino, cookie: u64, visit: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<()> {
        // A snapshot, so that a slow consumer holds no lock.
        let tree = self.with_tree(Tree::clone)?;
        let attr = tree.attr(dir).ok_or(Reason::Stale)?;
        if !attr.is_dir() {
            return Err(Reason::NotADirectory.into());
        }
        tree.readdir(dir, cookie, &mut |item| match tree.attr(item.ino) {
            Some(attr) => visit(DirEntry { name: item.name, attr, next_cookie: item.next_cookie }),
            None => true,
        });
        Ok(())
    }

    /// A new file (not a directory or symbolic link).
    pub fn create(
        &self,
        parent: Ino,
        name: &[u8],
        new: NewFile,
        who: Who,
        op_id: u64,
    ) -> Result<(Attr, Stamp)> {
        let mode = if new.mode & afs_core::tree::S_IFMT == 0 { new.mode | S_IFREG } else { new.mode };
        if matches!(mode & afs_core::tree::S_IFMT, S_IFDIR | S_IFLNK) {
            return Err(Error::invalid("mode", "a type other than directory and symbolic link"));
        }
        self.make(parent, name, NewFile { mode, ..new }, None, who, op_id)
    }

    /// A new directory.
    pub fn mkdir(
        &self,
        parent: Ino,
        name: &[u8],
        new: NewFile,
        who: Who,
        op_id: u64,
    ) -> Result<(Attr, Stamp)> {
        let mode = S_IFDIR | (new.mode & 0o7777);
        self.make(parent, name, NewFile { mode, rdev: 0, ..new }, None, who, op_id)
    }

    /// A new symbolic link.
    pub fn symlink(
        &self,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        new: NewFile,
        who: Who,
        op_id: u64,
    ) -> Result<(Attr, Stamp)> {
        let new = NewFile { mode: S_IFLNK | 0o777, rdev: 0, ..new };
        self.make(parent, name, new, Some(target), who, op_id)
    }

    fn make(
        &self,
        parent: Ino,
        name: &[u8],
        new: NewFile,
        target: Option<&[u8]>,
        who: Who,
        op_id: u64,
    ) -> Result<(Attr, Stamp)> {
        let name = NameRef::new(name)?;
        let NewFile { mode, uid, gid, rdev } = new;
        let node = NewNode { mode, uid, gid, rdev, target };
        let (attr, stamp) = self.one(
            who,
            op_id,
            |c| {
                let mut op = c.tree.plan_create(parent, name, 0, &node, c.now_ns)?;
                // Only now, so that failing creates do not use numbers up.
                if let Op::Create { ino, .. } = &mut op {
                    *ino = c.new_ino()?;
                }
                Ok(Some(op))
            },
            created,
        )?;
        Ok((attr.flatten().ok_or(Reason::Internal)?, stamp))
    }

    /// One more name for an inode.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8], who: Who, op_id: u64) -> Result<(Attr, Stamp)> {
        let name = NameRef::new(name)?;
        self.attr_of(ino, who, op_id, |t, now| t.plan_link(ino, parent, name, now))
    }

    /// A name goes.
    pub fn unlink(&self, parent: Ino, name: &[u8], who: Who, op_id: u64) -> Result<Stamp> {
        let name = NameRef::new(name)?;
        let plan = |c: &mut Ctx<'_>| c.tree.plan_unlink(parent, name, |i| c.is_open(i), c.now_ns).map(Some);
        self.one(who, op_id, plan, |_, _| ()).map(|(_, stamp)| stamp)
    }

    /// An empty directory goes.
    pub fn rmdir(&self, parent: Ino, name: &[u8], who: Who, op_id: u64) -> Result<Stamp> {
        let name = NameRef::new(name)?;
        let plan = |c: &mut Ctx<'_>| c.tree.plan_rmdir(parent, name, |i| c.is_open(i), c.now_ns).map(Some);
        self.one(who, op_id, plan, |_, _| ()).map(|(_, stamp)| stamp)
    }

    /// A name moves.
    pub fn rename(
        &self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: RenameMode,
        who: Who,
        op_id: u64,
    ) -> Result<Stamp> {
        let (name, new_name) = (NameRef::new(from.1)?, NameRef::new(to.1)?);
        let plan = |c: &mut Ctx<'_>| {
            c.tree.plan_rename(from.0, name, to.0, new_name, mode, |i| c.is_open(i), c.now_ns)
        };
        self.one(who, op_id, plan, |_, _| ()).map(|(_, stamp)| stamp)
    }

    /// Attributes change.
    pub fn setattr(&self, ino: Ino, set: AttrSet, who: Who, op_id: u64) -> Result<(Attr, Stamp)> {
        self.attr_of(ino, who, op_id, |t, now| t.plan_setattr(ino, set, now))
    }

    /// Bytes change. At most `limits::MAX_IO_BYTES` a call.
    pub fn write(&self, ino: Ino, offset: u64, bytes: &[u8], who: Who, op_id: u64) -> Result<(Attr, Stamp)> {
        if bytes.len() > limits::MAX_IO_BYTES {
            return Err(Error::invalid(
                "data",
                format!("at most {} bytes in one write", limits::MAX_IO_BYTES),
            ));
        }
        if bytes.is_empty() {
            return self.write_nothing(ino, offset);
        }
        let source = append(&self.shared().ports.blobs, bytes)?;
        self.attr_of(ino, who, op_id, |t, now| t.plan_write(ino, offset, bytes.len() as u64, source, now))
    }

    /// Bytes at the end of the file, wherever that is by now: appends of several writers never overlap.
    pub fn append(&self, ino: Ino, bytes: &[u8], who: Who, op_id: u64) -> Result<(Attr, Stamp)> {
        if bytes.len() > limits::MAX_IO_BYTES {
            return Err(Error::invalid(
                "data",
                format!("at most {} bytes in one write", limits::MAX_IO_BYTES),
            ));
        }
        if bytes.is_empty() {
            return self.write_nothing(ino, 0);
        }
        let source = append(&self.shared().ports.blobs, bytes)?;
        self.attr_of(ino, who, op_id, |t, now| {
            let end = t.attr(ino).ok_or(Reason::Stale)?.size;
            t.plan_write(ino, end, bytes.len() as u64, source, now)
        })
    }

    /// A write without bytes is checked and changes nothing.
    fn write_nothing(&self, ino: Ino, offset: u64) -> Result<(Attr, Stamp)> {
        self.with_tree(|t| t.plan_write(ino, offset, 0, NOWHERE, 0).map(drop))??;
        Ok((self.getattr(ino)?, self.stamp()))
    }

    /// Space is reserved (the file grows unless `keep_size`; nothing is allocated, holes stay holes) or punched out.
    #[allow(clippy::too_many_arguments, reason = "the arguments of fallocate, and who asks")]
    pub fn fallocate(
        &self,
        ino: Ino,
        offset: u64,
        len: u64,
        punch: bool,
        keep_size: bool,
        who: Who,
        op_id: u64,
    ) -> Result<(Attr, Stamp)> {
        let end = offset.checked_add(len).filter(|_| len > 0);
        let end = end.ok_or_else(|| Error::invalid("length", "more than 0 bytes, ending below 16 TiB"))?;
        if punch {
            return self.attr_of(ino, who, op_id, |t, now| t.plan_punch(ino, offset, len, now));
        }
        if keep_size {
            self.with_tree(|t| t.plan_punch(ino, 0, 1, 0).map(drop))??;
            return Ok((self.getattr(ino)?, self.stamp()));
        }
        self.grow(ino, end, who, op_id)
    }

    /// Makes a file at least so long. Decided under the lock: what others append meanwhile is never cut off.
    pub fn grow(&self, ino: Ino, end: u64, who: Who, op_id: u64) -> Result<(Attr, Stamp)> {
        let plan = |c: &mut Ctx<'_>| {
            c.tree.plan_punch(ino, 0, 1, 0)?;
            let size = c.tree.attr(ino).ok_or(Reason::Stale)?.size;
            let set = AttrSet { size: Some(end), ..AttrSet::default() };
            if end <= size { Ok(None) } else { c.tree.plan_setattr(ino, set, c.now_ns).map(Some) }
        };
        let (_, stamp) = self.one(who, op_id, plan, |_, _| ())?;
        Ok((self.getattr(ino)?, stamp))
    }

    /// Copies a range between files of this session by sharing extents: no byte is read or written. Returns the bytes copied.
    pub fn copy_range(&self, from: (Ino, u64), to: (Ino, u64), len: u64, who: Who) -> Result<(u64, Stamp)> {
        to.1.checked_add(len).ok_or(Reason::FileTooLarge)?;
        if from.0 == to.0 && from.1 < to.1.saturating_add(len) && to.1 < from.1.saturating_add(len) {
            return Err(Error::invalid("offset", "ranges that do not overlap"));
        }
        self.many(
            who,
            |txn| {
                regular(txn.tree(), from.0)?;
                regular(txn.tree(), to.0)?;
                let (content, size) = txn.tree().content(from.0).ok_or(Reason::Stale)?;
                let runs = content.runs(size, from.1, len);
                for run in &runs {
                    let at = to.1 + (run.start - from.1);
                    let end = at + run.len;
                    let Some(source) = run.source else {
                        // No bytes at the end: the file grows, and loses setuid, as by any write.
                        txn.run(|c| c.tree.plan_write(to.0, end, 0, NOWHERE, c.now_ns).map(Some))?;
                        txn.run(|c| c.tree.plan_punch(to.0, at, run.len, c.now_ns).map(Some))?;
                        continue;
                    };
                    txn.run(|c| c.tree.plan_write(to.0, at, run.len, source, c.now_ns).map(Some))?;
                }
                Ok(runs.iter().map(|r| r.len).sum())
            },
            |_, _, _| {},
        )
    }

    /// Where data, or a hole, begins at or after an offset. The end of the file is a hole.
    pub fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64> {
        let (content, size) = self.with_tree(|t| t.content(ino))?.ok_or(Reason::Stale)?;
        if offset >= size {
            return Err(Reason::NoData.into());
        }
        let want_data = what == Seek::Data;
        let runs = content.runs(size, offset, size - offset);
        match runs.iter().find(|r| r.source.is_some() == want_data) {
            Some(run) => Ok(run.start),
            None if want_data => Err(Reason::NoData.into()),
            None => Ok(size),
        }
    }

    /// An extended attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes> {
        self.getattr(ino)?;
        self.with_tree(|t| t.xattr(ino, name))?.ok_or_else(|| Reason::NoAttribute.into())
    }

    /// Names of the extended attributes.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<Bytes>> {
        self.getattr(ino)?;
        Ok(self.with_tree(|t| t.xattrs(ino))?.map_or_else(Vec::new, |x| x.keys().cloned().collect()))
    }

    /// Sets an extended attribute; `must` demands that it is there (true) or not (false).
    pub fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        must: Option<bool>,
        who: Who,
        op_id: u64,
    ) -> Result<Stamp> {
        let plan = |t: &Tree, now| {
            t.attr(ino).ok_or(Reason::Stale)?;
            let there = t.xattr(ino, name).is_some();
            match must {
                _ if value.len() > limits::MAX_XATTR_VALUE_BYTES => t.plan_xattr(ino, name, Some(value), now),
                Some(true) if !there => Err(Reason::NoAttribute.into()),
                Some(false) if there => Err(Reason::AlreadyExists.into()),
                _ => t.plan_xattr(ino, name, Some(value), now),
            }
        };
        self.attr_of(ino, who, op_id, plan).map(|(_, stamp)| stamp)
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, ino: Ino, name: &[u8], who: Who, op_id: u64) -> Result<Stamp> {
        self.attr_of(ino, who, op_id, |t, now| t.plan_xattr(ino, name, None, now)).map(|(_, stamp)| stamp)
    }

    /// Keeps an inode alive while it is open, also without a name.
    pub fn open(&self, ino: Ino) -> Result<()> {
        self.hold(ino)
    }

    /// Ends an `open`. An inode without names goes with its last one.
    pub fn release(&self, ino: Ino) -> Result<()> {
        match self.unhold(ino) {
            Unheld::Nothing => self.getattr(ino).map(drop),
            Unheld::Hold => Ok(()),
            Unheld::Inode => {
                let reap = self.one(0, 0, |c| Ok((!c.is_open(ino)).then_some(Op::Reap { ino })), |_, _| ());
                match reap {
                    // The inode went with its session.
                    Err(e) if matches!(e.reason, Reason::SessionNotFound | Reason::SessionArchived) => Ok(()),
                    Err(error) => {
                        self.reap_later();
                        Err(error)
                    }
                    Ok(_) => Ok(()),
                }
            }
        }
    }

    /// Everything of this session up to `stamp` is on disk when this returns.
    pub fn wait(&self, stamp: Stamp) -> Result<()> {
        self.shared().wait(stamp.at)
    }

    /// Everything of this session so far is on disk when this returns. Refused once the session is archived or deleted.
    pub fn fsync(&self) -> Result<()> {
        self.wait(self.live_stamp()?)
    }

    /// Sizes of the file system.
    pub fn statfs(&self) -> Result<FsUsage> {
        let disk = rustix::fs::statvfs(&self.shared().config.dir);
        let disk = disk.map_err(|e| Error::io("statvfs the data directory", e.into()))?;
        let used = self.family().base.max_ino();
        Ok(FsUsage {
            total_bytes: disk.f_blocks * disk.f_frsize,
            free_bytes: disk.f_bavail * disk.f_frsize,
            files: limits::MAX_INO,
            free_files: limits::MAX_INO - used,
        })
    }

    /// The content map of a file, for surfaces that serve raw blobs.
    pub fn content(&self, ino: Ino) -> Result<(Content, u64)> {
        self.with_tree(|t| t.content(ino))?.ok_or_else(|| Reason::Stale.into())
    }

    fn attr_of(
        &self,
        ino: Ino,
        who: Who,
        op_id: u64,
        plan: impl FnOnce(&Tree, i64) -> Result<Op>,
    ) -> Result<(Attr, Stamp)> {
        let (attr, stamp) = self.one(who, op_id, |c| plan(c.tree, c.now_ns).map(Some), |t, _| t.attr(ino))?;
        Ok((attr.flatten().ok_or(Reason::Stale)?, stamp))
    }
}

fn created(tree: &Tree, op: &Op) -> Option<Attr> {
    match op {
        Op::Create { ino, .. } => tree.attr(*ino),
        _ => None,
    }
}
