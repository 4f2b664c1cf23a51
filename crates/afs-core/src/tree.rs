//! A session's tree: an immutable base with an overlay of two persistent maps on top (DESIGN 2.1).
//!
//! Guarantees: identity is the inode, so hard links and directory renames cost one entry; cloning a tree copies two roots;
//! nothing here does I/O or knows the time. `plan_*` (in `plan`) decides and refuses, [`Tree::apply`] (in `apply`) changes.
//!
//! Deliberately absent: permission checks (the kernel or the API's authorisation does them), handles, locks.
//!
//! Overlay rules: an inode record replaces the base's whole record; a dentry slot replaces the base's entry of that
//! name, as another inode or as a whiteout. A record with mode 0 is a tombstone: the inode number is dead for ever.

mod apply;
mod packed;
pub mod plan;
mod readdir;
mod short;

use crate::base::{BaseEntry, BaseTable, NodeKind};
use crate::codec::{Dec, Enc};
use crate::extent::Content;
use crate::op::Bytes;
use crate::pmap::PMap;
use afs_types::{Ino, Name, NameRef, ROOT_INO, Reason, Result, SessionPath};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use packed::Packed;
pub use readdir::{DirItem, FIRST_COOKIE};
pub use short::ShortName;

/// File type bits of a mode.
pub const S_IFMT: u32 = 0o170_000;
/// Directory.
pub const S_IFDIR: u32 = 0o040_000;
/// Regular file.
pub const S_IFREG: u32 = 0o100_000;
/// Symbolic link.
pub const S_IFLNK: u32 = 0o120_000;

/// Extended attributes of one inode.
pub type Xattrs = Arc<BTreeMap<Bytes, Bytes>>;

/// An inode of the overlay, as operations see it; a tree keeps it in a smaller form (`packed`).
#[derive(Clone, PartialEq, Debug)]
pub struct Inode {
    /// Type and permissions; 0 marks a tombstone.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names; directories count 2 and one per subdirectory. 0: unlinked but open.
    pub nlink: u32,
    /// Device number of special files.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Access time, nanoseconds.
    pub atime_ns: i64,
    /// Modification time, nanoseconds.
    pub mtime_ns: i64,
    /// Change time, nanoseconds.
    pub ctime_ns: i64,
    /// Sequence number of the last change of content (bytes, or entries of a directory); 0 for the base's.
    pub version: u64,
    /// The directory of the newest name: exact for directories, a hint for others.
    pub parent: Ino,
    /// The bytes.
    pub content: Content,
    /// Extended attributes; none is the common case.
    pub xattrs: Option<Xattrs>,
}

/// A dentry slot of the overlay. Names whose hashes collide hang off `next`.
#[derive(Clone, PartialEq, Debug)]
pub struct Slot {
    /// The inode, 0 for a whiteout.
    pub ino: Ino,
    /// The name, to verify the hash.
    pub name: ShortName,
    /// The next slot with the same hash.
    pub next: Option<Arc<Slot>>,
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Type and permissions.
    pub mode: u32,
    /// Names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of special files.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks that are not holes.
    pub blocks: u64,
    /// Access time, nanoseconds.
    pub atime_ns: i64,
    /// Modification time, nanoseconds.
    pub mtime_ns: i64,
    /// Change time, nanoseconds.
    pub ctime_ns: i64,
    /// Sequence number of the last change of content; 0: as in the base.
    pub version: u64,
}

impl Attr {
    /// A directory?
    pub fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }
    /// A regular file?
    pub fn is_file(&self) -> bool {
        self.mode & S_IFMT == S_IFREG
    }
    /// A symbolic link?
    pub fn is_symlink(&self) -> bool {
        self.mode & S_IFMT == S_IFLNK
    }
}

/// A session's tree at one instant. Cloning is O(1).
#[derive(Clone)]
pub struct Tree {
    base: Arc<BaseTable>,
    inodes: PMap<Ino, Packed>,
    dentries: PMap<(Ino, u64), Slot>,
    /// Bytes of what the records of both maps have on the heap.
    heap: u64,
    /// Some directory of the base may be dead.
    buried_dirs: bool,
    /// Inodes without a name that were open when they lost the last one. Follows from the others; kept, so that nobody has to look for
    /// them: there are few or none.
    unnamed: Option<Box<PMap<Ino, ()>>>,
}

impl Tree {
    /// The base, unchanged.
    pub fn new(base: Arc<BaseTable>) -> Self {
        Self { base, inodes: PMap::new(), dentries: PMap::new(), heap: 0, buried_dirs: false, unnamed: None }
    }
    /// The base under this tree.
    pub fn base(&self) -> &Arc<BaseTable> {
        &self.base
    }
    /// The overlay's inodes, in the form they are kept in.
    pub(crate) fn inodes(&self) -> &PMap<Ino, Packed> {
        &self.inodes
    }
    /// The overlay's live inodes.
    pub fn overlay_inodes(&self) -> impl Iterator<Item = (Ino, Inode)> {
        self.inodes.iter().filter_map(|(ino, packed)| Some((*ino, packed.to_inode()?)))
    }
    /// Whether the overlay says something about an inode.
    pub fn is_overlaid(&self, ino: Ino) -> bool {
        self.inodes.contains_key(&ino)
    }
    /// The overlay's dentries, by (directory, keyed hash of the name).
    pub fn dentries(&self) -> &PMap<(Ino, u64), Slot> {
        &self.dentries
    }
    /// Inodes that have no name, and are kept for those who have them open.
    pub fn unnamed(&self) -> impl Iterator<Item = Ino> {
        self.unnamed.iter().flat_map(|all| all.iter().map(|(ino, ())| *ino))
    }
    /// True when both are the same instant of the same history (pointers, not contents).
    pub fn same_as(&self, other: &Self) -> bool {
        self.inodes.ptr_eq(&other.inodes) && self.dentries.ptr_eq(&other.dentries)
    }
    /// Entries of the overlay.
    pub fn overlay_len(&self) -> usize {
        self.inodes.len() + self.dentries.len()
    }
    /// Bytes of RAM that the overlay takes if it shares nothing, estimated from how records and nodes are laid out: for limits, not for bills. O(1).
    pub fn overlay_bytes(&self) -> u64 {
        let unnamed = self.unnamed.as_ref().map_or(0, |all| all.len());
        self.inodes.len() as u64 * INODE_BYTES
            + self.dentries.len() as u64 * DENTRY_BYTES
            + unnamed as u64 * UNNAMED_BYTES
            + self.heap
    }

    /// The inode that `name` names in `parent`.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Option<Ino> {
        let hash = self.hash(parent, name);
        // Asked first, though the overlay decides: the base's load from memory is then under way while the overlay, which
        // mostly lies in the caches, is searched.
        let below = self.base.lookup_hashed(parent, name, hash);
        match self.slot(parent, name, hash) {
            Some(slot) => (slot.ino != 0).then_some(slot.ino),
            // A dead directory's slots were dropped: its base entries must not show again.
            None => below.filter(|_| !self.is_dead_dir(parent)),
        }
    }

    /// The attributes of an inode; none when it is dead or was never there.
    pub fn attr(&self, ino: Ino) -> Option<Attr> {
        match self.inodes.get(&ino) {
            Some(packed) => packed.attr(ino),
            None => self.base.entry(ino).map(|e| base_attr(&e)),
        }
    }

    /// The whole record of an inode, from the overlay or made from the base.
    pub fn inode(&self, ino: Ino) -> Option<Inode> {
        match self.inodes.get(&ino) {
            Some(packed) => packed.to_inode(),
            None => self.base.entry(ino).map(|e| base_inode(&e)),
        }
    }

    /// Content and size of an inode, without copying the rest.
    pub fn content(&self, ino: Ino) -> Option<(Content, u64)> {
        match self.inodes.get(&ino) {
            Some(packed) => packed.content(),
            None => self.base.entry(ino).map(|e| (base_content(&e), e.size)),
        }
    }

    /// An extended attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Option<Bytes> {
        self.xattrs(ino).and_then(|x| x.get(name).cloned())
    }
    /// All extended attributes of an inode, if it has any.
    pub fn xattrs(&self, ino: Ino) -> Option<Xattrs> {
        self.inodes.get(&ino)?.whole()?.xattrs.clone()
    }

    /// Follows names from the root, without following symbolic links.
    pub fn walk(&self, path: &SessionPath) -> Option<Ino> {
        path.names().iter().try_fold(ROOT_INO, |dir, name| self.lookup(dir, name.as_bytes()))
    }

    /// The directory that holds a directory, or the newest name of another inode.
    pub fn parent_of(&self, ino: Ino) -> Option<Ino> {
        match self.inodes.get(&ino) {
            Some(packed) => Some(packed.parent()),
            None => self.base.entry(ino).map(|e| e.parent),
        }
    }

    /// A name of `ino` in `dir`. Costs the overlay entries of that directory when the base does not know it.
    pub fn name_in(&self, dir: Ino, ino: Ino) -> Option<Vec<u8>> {
        if let Some(e) = self.base.entry(ino)
            && e.parent == dir
            && self.lookup(dir, e.name) == Some(ino)
        {
            return Some(e.name.to_vec());
        }
        let found = self.slots_of(dir).find(|s| s.ino == ino).map(|s| s.name.to_vec());
        found.or_else(|| {
            let mut children = self.base.children(dir);
            children.find(|e| e.ino == ino && self.lookup(dir, e.name) == Some(ino)).map(|e| e.name.to_vec())
        })
    }

    /// One path of an inode; none when it has no name any more.
    pub fn path_of(&self, ino: Ino) -> Option<SessionPath> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != ROOT_INO {
            let dir = self.parent_of(at)?;
            let name = self.name_in(dir, at).or_else(|| {
                // The hint of a file with several names can be out of date: look at every overlay entry.
                self.dentries.iter().find_map(|(_, s)| s.find_ino(at)).map(|n| n.to_vec())
            })?;
            names.push(Name::new(&name).ok()?);
            if names.len() > 1 << 16 {
                return None;
            }
            at = dir;
        }
        names.reverse();
        Some(SessionPath::from(names))
    }

    /// Slots of one directory, in order of hash; whiteouts included.
    fn slots_of(&self, dir: Ino) -> impl Iterator<Item = &Slot> {
        self.dentries.range((dir, 0)..=(dir, u64::MAX)).flat_map(|(_, slot)| slot.chain())
    }

    fn slot(&self, parent: Ino, name: &[u8], hash: u64) -> Option<&Slot> {
        let first = self.dentries.get(&(parent, hash))?;
        first.chain().find(|s| *s.name == *name)
    }

    fn is_dead_dir(&self, ino: Ino) -> bool {
        // Nearly no session removes a directory of its base, and a look into the map would be a third of a look-up.
        self.buried_dirs && self.inodes.get(&ino).is_some_and(|i| i.nlink() == 0)
    }

    fn hash(&self, parent: Ino, name: &[u8]) -> u64 {
        self.base.name_hash(parent, name)
    }

    /// A directory, alive or removed but open.
    fn directory(&self, ino: Ino) -> Result<Attr> {
        let attr = self.attr(ino).ok_or(Reason::Stale)?;
        if attr.is_dir() { Ok(attr) } else { Err(Reason::NotADirectory.into()) }
    }

    /// A directory that takes new names.
    fn dir(&self, ino: Ino) -> Result<Attr> {
        let attr = self.directory(ino)?;
        if attr.nlink == 0 { Err(Reason::NotFound.into()) } else { Ok(attr) }
    }

    fn child(&self, parent: Ino, name: NameRef<'_>) -> Result<Ino> {
        self.dir(parent)?;
        self.lookup(parent, name.as_bytes()).ok_or_else(|| Reason::NotFound.into())
    }

    /// True when a directory shows no entry.
    pub fn is_empty_dir(&self, dir: Ino) -> bool {
        let mut empty = true;
        self.readdir(dir, FIRST_COOKIE, &mut |_| {
            empty = false;
            false
        });
        empty
    }

    pub(crate) fn put_inode(&mut self, ino: Ino, inode: Option<Inode>) {
        match inode {
            Some(inode) => {
                self.note_burial(ino, inode.nlink);
                self.note_unnamed(ino, inode.nlink == 0 && inode.mode != 0);
                self.set_inode(ino, Some(Packed::of(inode)));
            }
            None => {
                self.note_unnamed(ino, false);
                self.set_inode(ino, None);
            }
        }
    }
    fn set_inode(&mut self, ino: Ino, packed: Option<Packed>) {
        let new = packed.as_ref().map_or(0, Packed::heap_bytes);
        let old = match packed {
            Some(packed) => self.inodes.insert(ino, packed),
            None => self.inodes.remove(&ino),
        };
        self.heap = self.heap + new - old.map_or(0, |old| old.heap_bytes());
    }
    /// Notes whether a live inode has no name.
    fn note_unnamed(&mut self, ino: Ino, is_unnamed: bool) {
        if is_unnamed {
            self.unnamed.get_or_insert_default().insert(ino, ());
        } else if let Some(all) = &mut self.unnamed {
            all.remove(&ino);
            if all.is_empty() {
                self.unnamed = None;
            }
        }
    }
    /// Notes that an inode has `nlink` names, if it is a directory of the base and they are none.
    fn note_burial(&mut self, ino: Ino, nlink: u32) {
        self.buried_dirs |=
            nlink == 0 && self.base.entry(ino).is_some_and(|e| base_mode(&e) & S_IFMT == S_IFDIR);
    }
    pub(crate) fn put_slot(&mut self, key: (Ino, u64), slot: Option<Slot>) {
        let new = slot.as_ref().map_or(0, Slot::heap_bytes);
        let old = match slot {
            Some(slot) => self.dentries.insert(key, slot),
            None => self.dentries.remove(&key),
        };
        self.heap = self.heap + new - old.map_or(0, |old| old.heap_bytes());
    }
}

/// A record with its key and its share of the nodes.
const INODE_BYTES: u64 = 80;
const DENTRY_BYTES: u64 = 64;
const UNNAMED_BYTES: u64 = 12;

impl Slot {
    /// This slot and the ones behind it.
    pub fn chain(&self) -> impl Iterator<Item = &Slot> {
        std::iter::successors(Some(self), |s| s.next.as_deref())
    }
    fn heap_bytes(&self) -> u64 {
        let names: u64 = self.chain().map(|s| s.name.heap_bytes()).sum();
        names + (self.chain().count() as u64 - 1) * DENTRY_BYTES
    }
    fn find_ino(&self, ino: Ino) -> Option<&[u8]> {
        self.chain().find(|s| s.ino == ino).map(|s| &*s.name)
    }
}

impl Inode {
    fn attr(&self, ino: Ino) -> Attr {
        let blocks = self.content.allocated(self.size).div_ceil(512);
        let Self { mode, uid, gid, nlink, rdev, size, atime_ns, mtime_ns, ctime_ns, version, .. } = *self;
        Attr { ino, mode, nlink, uid, gid, rdev, size, blocks, atime_ns, mtime_ns, ctime_ns, version }
    }

    /// A tombstone.
    fn dead() -> Self {
        Self {
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 0,
            rdev: 0,
            size: 0,
            atime_ns: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            version: 0,
            parent: 0,
            content: Content::Empty,
            xattrs: None,
        }
    }

    pub(crate) fn encode(&self, e: &mut Enc) {
        e.u32(self.mode).u32(self.uid).u32(self.gid).u32(self.nlink).u32(self.rdev).u64(self.size);
        e.i64(self.atime_ns).i64(self.mtime_ns).i64(self.ctime_ns).u64(self.version).u64(self.parent);
        self.content.encode(e);
        let xattrs = self.xattrs.as_deref();
        e.u64(xattrs.map_or(0, |x| x.len() as u64));
        for (name, value) in xattrs.into_iter().flatten() {
            e.bytes(name).bytes(value);
        }
    }

    pub(crate) fn decode(d: &mut Dec<'_>) -> Result<Self> {
        let mut inode = Self {
            mode: d.u32()?,
            uid: d.u32()?,
            gid: d.u32()?,
            nlink: d.u32()?,
            rdev: d.u32()?,
            size: d.u64()?,
            atime_ns: d.i64()?,
            mtime_ns: d.i64()?,
            ctime_ns: d.i64()?,
            version: d.u64()?,
            parent: d.u64()?,
            content: Content::decode(d)?,
            xattrs: None,
        };
        let mut xattrs = BTreeMap::new();
        for _ in 0..d.count()? {
            xattrs.insert(d.bytes()?.into(), d.bytes()?.into());
        }
        inode.xattrs = (!xattrs.is_empty()).then(|| Arc::new(xattrs));
        Ok(inode)
    }
}

/// Mode as shown: a submodule entry looks like an empty directory.
fn base_mode(e: &BaseEntry<'_>) -> u32 {
    if e.kind == NodeKind::Gitlink { S_IFDIR | 0o755 } else { e.mode }
}

fn base_attr(e: &BaseEntry<'_>) -> Attr {
    Attr {
        ino: e.ino,
        mode: base_mode(e),
        nlink: e.nlink,
        uid: e.uid,
        gid: e.gid,
        rdev: e.rdev,
        size: e.size,
        blocks: e.size.div_ceil(512),
        atime_ns: e.mtime_ns,
        mtime_ns: e.mtime_ns,
        ctime_ns: e.mtime_ns,
        version: 0,
    }
}

fn base_content(e: &BaseEntry<'_>) -> Content {
    e.blob.map_or(Content::Empty, |id| Content::Blob(id, e.size))
}

fn base_inode(e: &BaseEntry<'_>) -> Inode {
    Inode {
        mode: base_mode(e),
        uid: e.uid,
        gid: e.gid,
        nlink: e.nlink,
        rdev: e.rdev,
        size: e.size,
        atime_ns: e.mtime_ns,
        mtime_ns: e.mtime_ns,
        ctime_ns: e.mtime_ns,
        version: 0,
        parent: e.parent,
        content: base_content(e),
        xattrs: None,
    }
}

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;
