//! What a file system must offer to be mounted: the trait [`Vfs`] and plain types, without any FUSE in them.
//!
//! The contract of every method:
//! - It may block, but only for a bounded time: a request that is never answered is a process in state D.
//! - It is called from several threads at once.
//! - Permission bits are *not* its business (the kernel checks them, see [`crate::MountOptions`]); ownership of
//!   new inodes, set-group-id inheritance from the parent directory, the sticky meaning of `kill_priv`, link
//!   counts and times are.
//! - An inode number names the same object for as long as the kernel knows it, and is never used again.
//!
//! Deliberately absent: locks (`flock` and `fcntl` stay in this kernel for now, so they do not reach other
//! mounts), `poll`, `ioctl`, `bmap`.

use afs_types::{Ino, NameRef, ROOT_INO, Reason, Result};
use std::sync::Arc;
use std::time::Duration;

/// Who sent a request. The process is the one seen from the mount's own pid namespace, 0 from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// User id (the file-system one).
    pub uid: u32,
    /// Group id (the file-system one).
    pub gid: u32,
    /// Thread id.
    pub pid: u32,
}

/// What `stat` shows of an inode, plus the version of its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Inode number, as `stat` shows it.
    pub ino: Ino,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// Last access, in nanoseconds since 1970.
    pub atime_ns: i64,
    /// Last change of the content, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of anything, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Device number of a device node, else 0.
    pub rdev: u32,
    /// Differs whenever the content (bytes of a file, entries of a directory) differs.
    pub version: u64,
}

/// A time to be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// The time of the file system's own clock.
    Now,
    /// Nanoseconds since 1970.
    At(i64),
}

/// Attributes to be changed; absent ones stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (0o7777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length: cut, or grown with a hole.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
    /// See `kill_priv` at [`Vfs`].
    pub kill_priv: bool,
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenMode {
    /// `O_RDONLY` or `O_RDWR`.
    pub read: bool,
    /// `O_WRONLY` or `O_RDWR`.
    pub write: bool,
    /// `O_APPEND`.
    pub append: bool,
    /// `O_TRUNC`: the file is made empty first, in the same operation.
    pub truncate: bool,
    /// Only with `truncate`: see `kill_priv` at [`Vfs`].
    pub kill_priv: bool,
}

/// An open file or directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Opened {
    /// The file system's own handle, given back with every operation on this open file.
    pub fh: u64,
    /// [`Attr::version`] at the moment of opening, after truncation. The kernel keeps its cached pages
    /// when it is the one they were read at.
    pub version: u64,
}

/// What a write did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Bytes taken; fewer than sent only at a limit.
    pub bytes: usize,
    /// Where they went: differs from the offset asked for only with `append`.
    pub offset: u64,
    /// [`Attr::version`] before the write.
    pub before: u64,
    /// [`Attr::version`] after the write.
    pub after: u64,
}

/// How a write is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteMode {
    /// `O_APPEND`: the bytes belong at the end of the file as it is now, wherever the kernel believes that to be.
    pub append: bool,
    /// See `kill_priv` at [`Vfs`].
    pub kill_priv: bool,
}

/// What a rename does with an existing destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// `RENAME_NOREPLACE`: the rename fails with `EEXIST`.
    NoReplace,
    /// `RENAME_EXCHANGE`: the two change places.
    Exchange,
}

/// What `fallocate` is to do with a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocate {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, at least 1.
    pub length: u64,
    /// Leave the length of the file alone even if the range ends behind it.
    pub keep_size: bool,
    /// What happens inside of the range.
    pub action: AllocateAction,
}

/// What happens inside of the range of an `fallocate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocateAction {
    /// Space is reserved, content stays.
    Reserve,
    /// `FALLOC_FL_PUNCH_HOLE` (always with `keep_size`).
    PunchHole,
    /// `FALLOC_FL_ZERO_RANGE`.
    ZeroRange,
}

/// What `lseek` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// The next byte that is not in a hole.
    Data,
    /// The next byte in a hole; the end of the file counts as one.
    Hole,
}

/// How `setxattr` treats an existing attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Create or replace.
    Any,
    /// Only create, else `EEXIST`.
    Create,
    /// Only replace, else `ENODATA`.
    Replace,
}

/// One range copied inside the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyRange {
    /// Source inode.
    pub from: Ino,
    /// Source handle.
    pub from_fh: u64,
    /// Source offset.
    pub from_offset: u64,
    /// Destination inode.
    pub to: Ino,
    /// Destination handle.
    pub to_fh: u64,
    /// Destination offset.
    pub to_offset: u64,
    /// Most bytes to copy.
    pub length: u64,
}

/// One entry of a directory, without `.` and `..` (the adapter adds them).
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: Ino,
    /// Type bits of the mode; the others may be 0.
    pub mode: u32,
    /// Name.
    pub name: &'a [u8],
    /// Where to go on after this entry: below 2^62, never 0.
    pub next: u64,
    /// Attributes, for `readdirplus`. None, if they would cost too much: the kernel then asks when somebody wants them.
    pub attr: Option<Attr>,
}

/// Takes one entry; false means: full, this one was not taken, stop.
pub type DirSink<'a> = dyn FnMut(DirEntry<'_>) -> bool + 'a;

/// Size and use of the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatFs {
    /// Unit of the block counts, in bytes.
    pub block_size: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for users who are not root.
    pub blocks_available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// A change made by somebody else (another mount, an API call): what the kernel must not believe any more.
/// Reported after the new state is visible.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Invalidation {
    /// Attributes of an inode changed; with `data` also its bytes, or the entries of a directory.
    Inode {
        /// The inode.
        ino: Ino,
        /// Whether content changed too.
        data: bool,
    },
    /// A name appeared, went, or now means another inode. Includes the directory's own attributes and listing.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name in it.
        name: Box<[u8]>,
    },
    /// Anything may have changed about the inodes with these numbers (one tree of several: it was restored, or has ended).
    Range {
        /// The first.
        first: Ino,
        /// The last, included.
        last: Ino,
        /// Whether also what the names in them lead to changed.
        names: bool,
    },
    /// Anything may have changed (restore, lost connection, overflow).
    Everything,
}

/// Where a file system reports changes by others.
#[derive(Clone)]
pub struct InvalidationSink {
    report: Arc<dyn Fn(Invalidation) + Send + Sync>,
    settle: Arc<dyn Fn(Duration) -> bool + Send + Sync>,
}

impl InvalidationSink {
    /// One that hands changes to `report`; `settle` is [`InvalidationSink::settle`].
    pub fn new(
        report: impl Fn(Invalidation) + Send + Sync + 'static,
        settle: impl Fn(Duration) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { report: Arc::new(report), settle: Arc::new(settle) }
    }
    /// Reports a change. Never blocks, may be called under locks.
    pub fn report(&self, change: Invalidation) {
        (self.report)(change);
    }
    /// Waits until the kernel has heard of everything that was reported so far; false if that takes longer than `patience`, and then at once until it has
    /// caught up. Never under a lock: the kernel may have to end other requests first.
    pub fn settle(&self, patience: Duration) -> bool {
        (self.settle)(patience)
    }
}

/// Keeps a watch alive; dropping it ends the watch.
pub struct WatchGuard(#[expect(dead_code, reason = "held for its drop")] Option<Box<dyn Send + Sync>>);

impl WatchGuard {
    /// A guard that drops `guard`.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(guard)))
    }
    /// For a file system that nobody else can change.
    pub fn none() -> Self {
        Self(None)
    }
}

/// What changed since an instant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// The name of the present instant, for the next question: letters, digits and `-`.
    pub instant: String,
    /// Paths from the root on, without a leading `/`; a directory stands for everything below it. None: everything.
    pub paths: Option<Vec<Vec<u8>>>,
}

/// What a file system can do and how long the kernel may trust its answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caps {
    /// How long a name may be trusted. Long when [`Vfs::watch`] reports every change by others.
    pub entry_ttl: Duration,
    /// How long attributes may be trusted.
    pub attr_ttl: Duration,
    /// How long the absence of a name may be trusted.
    pub negative_ttl: Duration,
    /// Whether extended attributes exist. Without them the kernel is told once and never asks again.
    pub xattrs: bool,
    /// Whether [`Vfs::flush`] does something, so that `close` must call it.
    pub flush: bool,
    /// Whether calls wait for a network: more threads then serve the kernel.
    pub remote: bool,
    /// Whether [`Vfs::changed_since`] answers.
    pub changes: bool,
}

impl Default for Caps {
    fn default() -> Self {
        let long = Duration::from_secs(3600);
        Self {
            entry_ttl: long,
            attr_ttl: long,
            negative_ttl: long,
            xattrs: true,
            flush: false,
            remote: false,
            changes: false,
        }
    }
}

/// A file system that can be mounted. Errors become `errno` through [`afs_types::Error::errno`].
///
/// # kill_priv
/// Where a request carries `kill_priv`, the file loses its set-user-id bit, its set-group-id bit if the
/// group may execute it, and its `security.capability` attribute, in the same operation. The adapter decides when
/// (POSIX: on write, truncate and change of owner), the file system only does it. Directories are never touched.
pub trait Vfs: Send + Sync + 'static {
    /// Fixed for the life of the mount.
    fn caps(&self) -> Caps {
        Caps::default()
    }

    /// Starts to report changes by others. Called once, before the first request.
    fn watch(&self, sink: InvalidationSink) -> WatchGuard;

    /// The inode behind a name. [`Reason::NotFound`] is cached by the kernel as "absent".
    fn lookup(&self, parent: Ino, name: NameRef<'_>) -> Result<Attr>;

    /// The kernel has dropped an inode: nothing refers to it until it is looked up again. Not called at unmount.
    fn forget(&self, ino: Ino) {
        let _ = ino;
    }

    /// Attributes.
    fn getattr(&self, ino: Ino) -> Result<Attr>;

    /// Changes attributes and returns all of them.
    fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr>;

    /// Target of a symbolic link.
    fn readlink(&self, ino: Ino) -> Result<Vec<u8>>;

    /// Makes a regular file, fifo, socket or device node. `mode` has type bits and is already masked.
    fn mknod(&self, parent: Ino, name: NameRef<'_>, mode: u32, rdev: u32, caller: Caller) -> Result<Attr>;

    /// Makes a directory.
    fn mkdir(&self, parent: Ino, name: NameRef<'_>, mode: u32, caller: Caller) -> Result<Attr>;

    /// Makes a symbolic link.
    fn symlink(&self, parent: Ino, name: NameRef<'_>, target: &[u8], caller: Caller) -> Result<Attr>;

    /// Makes one more name for an inode and returns its attributes.
    fn link(&self, ino: Ino, parent: Ino, name: NameRef<'_>) -> Result<Attr>;

    /// Removes a name that is not a directory. An open inode lives on until it is released.
    fn unlink(&self, parent: Ino, name: NameRef<'_>) -> Result<()>;

    /// Removes an empty directory.
    fn rmdir(&self, parent: Ino, name: NameRef<'_>) -> Result<()>;

    /// Renames.
    fn rename(&self, from: (Ino, NameRef<'_>), to: (Ino, NameRef<'_>), mode: RenameMode) -> Result<()>;

    /// Opens a regular file. The inode stays alive until [`Vfs::release`].
    fn open(&self, ino: Ino, mode: OpenMode) -> Result<Opened>;

    /// Makes and opens a regular file. If the name exists: an error with `exclusive`, else it is opened
    /// as [`Vfs::open`] does.
    fn create(
        &self,
        parent: Ino,
        name: NameRef<'_>,
        permissions: u32,
        open: OpenMode,
        exclusive: bool,
        caller: Caller,
    ) -> Result<(Attr, Opened)>;

    /// Reads up to `length` bytes and hands them to `out`, once; fewer than asked for only at the end of the file.
    fn read(&self, ino: Ino, fh: u64, offset: u64, length: usize, out: &mut dyn FnMut(&[u8])) -> Result<()>;

    /// Writes.
    fn write(&self, ino: Ino, fh: u64, offset: u64, bytes: &[u8], mode: WriteMode) -> Result<Written>;

    /// A descriptor is closed (several times per open file if it was duplicated). Only with [`Caps::flush`].
    fn flush(&self, ino: Ino, fh: u64) -> Result<()> {
        let _ = (ino, fh);
        Ok(())
    }

    /// The last descriptor of an open file is closed.
    fn release(&self, ino: Ino, fh: u64);

    /// Makes everything done so far durable. Also called for directories. An error that concerns several handles (what was done is
    /// lost) is told to each of them once.
    fn fsync(&self, ino: Ino, fh: u64, data_only: bool) -> Result<()>;

    /// Opens a directory.
    fn opendir(&self, ino: Ino) -> Result<Opened> {
        Ok(Opened { fh: 0, version: self.getattr(ino)?.version })
    }

    /// Closes a directory.
    fn releasedir(&self, ino: Ino, fh: u64) {
        let _ = (ino, fh);
    }

    /// Lists a directory from a cookie (0 = start). Entries that exist during the whole scan are
    /// seen exactly once, whatever is created or removed meanwhile. With `plus`, entries carry attributes.
    fn readdir(&self, ino: Ino, fh: u64, cookie: u64, plus: bool, sink: &mut DirSink<'_>) -> Result<()>;

    /// Whether a directory is the root of a tree of its own, about which [`Vfs::changed_since`] can be asked.
    fn is_tree_root(&self, ino: Ino) -> bool {
        ino == ROOT_INO
    }

    /// The root of the tree that an inode belongs to, and its path from the mount's root (empty for that root itself). None: in no
    /// tree.
    fn tree_of(&self, ino: Ino) -> Option<(Ino, Vec<u8>)> {
        let _ = ino;
        Some((ROOT_INO, Vec::new()))
    }

    /// What may look different in the tree of `root` from what it was at an instant that an earlier answer named. Every change
    /// that the answer's own instant includes must have been reported to the watch before this returns.
    fn changed_since(&self, root: Ino, instant: &str) -> Result<Changes> {
        let _ = (root, instant);
        Err(Reason::Unsupported.into())
    }

    /// Inode number of `..`; only for show.
    fn parent(&self, ino: Ino) -> Ino {
        let _ = ino;
        ROOT_INO
    }

    /// Size and use.
    fn statfs(&self, ino: Ino) -> Result<StatFs>;

    /// Reserves, punches or zeroes a range.
    fn fallocate(&self, ino: Ino, fh: u64, what: Allocate) -> Result<()>;

    /// Finds data or a hole at or after `offset`; none (`ENXIO`) at or behind the end, or if only a hole follows.
    fn seek(&self, ino: Ino, fh: u64, offset: u64, what: Seek) -> Result<Option<u64>>;

    /// Copies a range and returns the number of bytes copied; 0 at the end of the source.
    fn copy_range(&self, range: CopyRange) -> Result<u64>;

    /// Sets an extended attribute.
    fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let _ = (ino, name, value, mode);
        Err(Reason::Unsupported.into())
    }

    /// Reads an extended attribute; [`Reason::NoAttribute`] if it is not there.
    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let _ = (ino, name);
        Err(Reason::Unsupported.into())
    }

    /// Names of all extended attributes, each followed by a NUL.
    fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let _ = ino;
        Err(Reason::Unsupported.into())
    }

    /// Removes an extended attribute.
    fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        let _ = (ino, name);
        Err(Reason::Unsupported.into())
    }
}
