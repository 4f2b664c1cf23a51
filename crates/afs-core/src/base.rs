//! The base table: an immutable tree of files as one flat, checksummed array of bytes, made to be mapped.
//!
//! Guarantees: the inode number of an entry is its position + 1 (the root is 1) and never changes; positions
//! are breadth-first, so the children of a directory are contiguous, and they are sorted by name bytes;
//! [`BaseTable::open`] refuses bytes that are not what [`BaseBuilder::finish`] wrote, and after it no call
//! panics or reads outside of the table; the bytes depend on the tree and the seed alone, not on the order
//! in which importers found the files.
//!
//! Deliberately absent: file contents (a [`BlobId`] names them), I/O, and change: sessions lay an overlay over it.

mod builder;
mod check;
mod format;
mod index;
mod lines;
mod reader;
mod slots;
#[cfg(test)]
mod tests;

use afs_types::{BlobId, Ino};
use std::ops::Range;

pub use builder::{BaseBuilder, NewEntry, NodeHandle};
pub use reader::{BaseTable, Child};

/// The type bits of a mode (`S_IFMT`).
pub const MODE_TYPE: u32 = 0o170_000;
/// A regular file (`S_IFREG`).
pub const MODE_FILE: u32 = 0o100_000;
/// A directory (`S_IFDIR`).
pub const MODE_DIR: u32 = 0o040_000;
/// A symbolic link (`S_IFLNK`).
pub const MODE_SYMLINK: u32 = 0o120_000;
/// A named pipe (`S_IFIFO`).
pub const MODE_FIFO: u32 = 0o010_000;
/// A socket (`S_IFSOCK`).
pub const MODE_SOCKET: u32 = 0o140_000;
/// A character device (`S_IFCHR`).
pub const MODE_CHAR: u32 = 0o020_000;
/// A block device (`S_IFBLK`).
pub const MODE_BLOCK: u32 = 0o060_000;

/// A name for a table that differs from that of every other table, and tells nothing of the key of its name hash.
fn mark_of(seed: u64) -> String {
    let hash = blake3::derive_key("AetherFS 2026 the mark of a base table", &seed.to_le_bytes());
    hash[..16].iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum NodeKind {
    /// A regular file.
    File = 1,
    /// A directory.
    Dir = 2,
    /// A symbolic link; its target is the content of its blob.
    Symlink = 3,
    /// A pipe, socket or device: see the mode.
    Special = 4,
    /// One more name of another entry's inode.
    HardLink = 5,
    /// A submodule of a git tree: shows as an empty directory and keeps its commit id.
    Gitlink = 6,
}

impl NodeKind {
    fn from_u8(raw: u8) -> Option<Self> {
        use NodeKind::{Dir, File, Gitlink, HardLink, Special, Symlink};
        [File, Dir, Symlink, Special, HardLink, Gitlink].into_iter().find(|kind| *kind as u8 == raw)
    }

    /// The mode's type bits for this kind, given those that an importer saw; none if they do not fit.
    fn mode_type(self, seen: u32) -> Option<u32> {
        match self {
            NodeKind::File => Some(MODE_FILE),
            NodeKind::Dir | NodeKind::Gitlink => Some(MODE_DIR),
            NodeKind::Symlink => Some(MODE_SYMLINK),
            NodeKind::Special => {
                let special = [MODE_FIFO, MODE_SOCKET, MODE_CHAR, MODE_BLOCK];
                special.into_iter().find(|kind| *kind == seen & MODE_TYPE)
            }
            NodeKind::HardLink => None,
        }
    }
}

/// One entry of a table. For a [`NodeKind::HardLink`], all but `position`, `parent`, `name` and `kind` are
/// those of the inode it names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseEntry<'a> {
    /// The inode number.
    pub ino: Ino,
    /// The place in the table, plus 1: differs from `ino` for hard links. Grows with the name in a directory.
    pub position: Ino,
    /// The directory that holds this name; the root's is the root.
    pub parent: Ino,
    /// The name; empty for the root.
    pub name: &'a [u8],
    /// What it is.
    pub kind: NodeKind,
    /// Type and permission bits (`st_mode`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of the inode; for a directory 2 and one for each directory in it.
    pub nlink: u32,
    /// Bytes of the content; of the target for a symbolic link.
    pub size: u64,
    /// Time of the last change of the content, ns since 1970.
    pub mtime_ns: i64,
    /// Device number (`st_rdev`).
    pub rdev: u32,
    /// The content; none for an empty file and for what has no content.
    pub blob: Option<BlobId>,
    /// The object in the git repository that it was imported from (blob, tree, or a submodule's commit).
    pub git_oid: Option<[u8; 20]>,
    /// Positions of a directory's entries.
    pub children: Range<Ino>,
}

/// What a table holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Rows: every name, and the root.
    pub entries: u64,
    /// Regular files, each counted once whatever its names.
    pub files: u64,
    /// Directories, the root included, submodules not.
    pub dirs: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of all regular files.
    pub bytes: u64,
}
