//! An overlay inode as a tree keeps it: 64 bytes for what nearly all of them are, the whole record on the heap for the rest.
//!
//! Guarantees: `Packed::of(i).to_inode()` is `i`; cloning one copies 64 bytes and at most counts one reference. Ten thousand sessions with a
//! thousand edited files each are ten million of these: they, not the trees' nodes, are what sessions cost in RAM.
//!
//! Deliberately absent: a byte form ([`Inode::encode`] is the persisted one), and rules: nothing here decides what an operation does.

use super::{Attr, Inode};
use crate::extent::{Content, LogRef, Piece, Source};
use crate::pmap::PMap;
use afs_types::{BlobId, Ino};
use std::sync::Arc;

/// An overlay inode. The fields before `head` fill the place beside the tag; see [`Inode`] for what they mean.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Packed {
    /// The inode number is dead for ever.
    Dead,
    /// No bytes: directories, empty files, files of holes.
    Empty { nlink: u8, mode: u16, parent: u32, head: Head },
    /// One run of the data log, as long as the file: one that was written whole.
    Log { nlink: u8, mode: u16, parent: u32, head: Head, segment: u32, offset: u32 },
    /// A blob with one run of the data log laid over it: a file of the base that was written into, or appended to.
    Patched { nlink: u8, mode: u16, parent: u32, head: Head, patch: Arc<Patch> },
    /// Any other content.
    Other { nlink: u8, mode: u16, parent: u32, head: Head, content: Arc<Content> },
    /// A device, one with extended attributes, or with a number that has no room above.
    Whole(Arc<Inode>),
}

/// What all forms have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    size: u64,
    atime_ns: i64,
    mtime_ns: i64,
    ctime_ns: i64,
    version: u64,
    uid: u32,
    gid: u32,
}

/// `[at, at + len)` comes from the data log, the rest of the file from the same offsets of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Patch {
    blob: BlobId,
    at: u64,
    len: u32,
    segment: u32,
    offset: u32,
}

const _: () = assert!(size_of::<Packed>() == 64);

/// The fields of a record that are beside the head.
struct Beside {
    nlink: u8,
    mode: u16,
    parent: u32,
}

impl Packed {
    /// Takes a record.
    pub(crate) fn of(inode: Inode) -> Self {
        if inode.mode == 0 {
            return Self::Dead;
        }
        let Some(Beside { nlink, mode, parent }) = Beside::of(&inode) else {
            return Self::Whole(Arc::new(inode));
        };
        let Inode { uid, gid, size, atime_ns, mtime_ns, ctime_ns, version, content, .. } = inode;
        let head = Head { size, atime_ns, mtime_ns, ctime_ns, version, uid, gid };
        match content {
            Content::Empty => Self::Empty { nlink, mode, parent, head },
            Content::Log(LogRef { segment, offset }, len) if len == size && offset <= u64::from(u32::MAX) => {
                Self::Log { nlink, mode, parent, head, segment, offset: offset as u32 }
            }
            content => match Patch::of(&content, size) {
                Some(patch) => Self::Patched { nlink, mode, parent, head, patch: Arc::new(patch) },
                None => Self::Other { nlink, mode, parent, head, content: Arc::new(content) },
            },
        }
    }

    /// The record; none for a dead one.
    pub(crate) fn to_inode(&self) -> Option<Inode> {
        self.clone().into_inode()
    }

    /// The record, without a copy of what nobody else has; none for a dead one.
    pub(crate) fn into_inode(self) -> Option<Inode> {
        let (Beside { nlink, mode, parent }, head, content) = match self {
            Self::Dead => return None,
            Self::Whole(inode) => return Some(Arc::unwrap_or_clone(inode)),
            Self::Empty { nlink, mode, parent, head } => {
                (Beside { nlink, mode, parent }, head, Content::Empty)
            }
            Self::Log { nlink, mode, parent, head, segment, offset } => {
                let at = LogRef { segment, offset: u64::from(offset) };
                (Beside { nlink, mode, parent }, head, Content::Log(at, head.size))
            }
            Self::Patched { nlink, mode, parent, head, patch } => {
                (Beside { nlink, mode, parent }, head, patch.content(head.size))
            }
            Self::Other { nlink, mode, parent, head, content } => {
                (Beside { nlink, mode, parent }, head, Arc::unwrap_or_clone(content))
            }
        };
        let Head { size, atime_ns, mtime_ns, ctime_ns, version, uid, gid } = head;
        Some(Inode {
            mode: u32::from(mode),
            uid,
            gid,
            nlink: u32::from(nlink),
            rdev: 0,
            size,
            atime_ns,
            mtime_ns,
            ctime_ns,
            version,
            parent: Ino::from(parent),
            content,
            xattrs: None,
        })
    }

    /// The record, a tombstone for a dead one.
    pub(crate) fn record(&self) -> Inode {
        self.to_inode().unwrap_or_else(Inode::dead)
    }

    /// What `stat` shows; none for a dead one.
    pub(crate) fn attr(&self, ino: Ino) -> Option<Attr> {
        let (nlink, mode, head, allocated) = match self {
            Self::Dead => return None,
            Self::Whole(inode) => return Some(inode.attr(ino)),
            Self::Empty { nlink, mode, head, .. } => (nlink, mode, head, 0),
            // Both have a byte for every byte of the file.
            Self::Log { nlink, mode, head, .. } | Self::Patched { nlink, mode, head, .. } => {
                (nlink, mode, head, head.size)
            }
            Self::Other { nlink, mode, head, content, .. } => {
                (nlink, mode, head, content.allocated(head.size))
            }
        };
        let Head { size, atime_ns, mtime_ns, ctime_ns, version, uid, gid } = *head;
        let (mode, nlink, blocks) = (u32::from(*mode), u32::from(*nlink), allocated.div_ceil(512));
        Some(Attr {
            ino,
            mode,
            nlink,
            uid,
            gid,
            rdev: 0,
            size,
            blocks,
            atime_ns,
            mtime_ns,
            ctime_ns,
            version,
        })
    }

    /// Content and size; none for a dead one.
    pub(crate) fn content(&self) -> Option<(Content, u64)> {
        match self {
            Self::Dead => None,
            Self::Whole(inode) => Some((inode.content.clone(), inode.size)),
            Self::Empty { head, .. } => Some((Content::Empty, head.size)),
            Self::Log { head, segment, offset, .. } => {
                let at = LogRef { segment: *segment, offset: u64::from(*offset) };
                Some((Content::Log(at, head.size), head.size))
            }
            Self::Patched { head, patch, .. } => Some((patch.content(head.size), head.size)),
            Self::Other { head, content, .. } => Some((Content::clone(content), head.size)),
        }
    }

    /// See [`Inode::parent`]; 0 for a dead one.
    pub(crate) fn parent(&self) -> Ino {
        match self {
            Self::Dead => 0,
            Self::Whole(inode) => inode.parent,
            Self::Empty { parent, .. }
            | Self::Log { parent, .. }
            | Self::Patched { parent, .. }
            | Self::Other { parent, .. } => Ino::from(*parent),
        }
    }

    /// See [`Inode::nlink`]; 0 for a dead one.
    pub(crate) fn nlink(&self) -> u32 {
        match self {
            Self::Dead => 0,
            Self::Whole(inode) => inode.nlink,
            Self::Empty { nlink, .. }
            | Self::Log { nlink, .. }
            | Self::Patched { nlink, .. }
            | Self::Other { nlink, .. } => u32::from(*nlink),
        }
    }

    /// Bytes on the heap, as if nothing were shared.
    pub(crate) fn heap_bytes(&self) -> u64 {
        const COUNTS: u64 = 2 * size_of::<usize>() as u64;
        match self {
            Self::Dead | Self::Empty { .. } | Self::Log { .. } => 0,
            Self::Patched { .. } => COUNTS + size_of::<Patch>() as u64,
            Self::Other { content, .. } => COUNTS + size_of::<Content>() as u64 + content.heap_bytes(),
            Self::Whole(inode) => {
                let xattrs = inode.xattrs.iter().flat_map(|all| all.iter());
                let xattrs: u64 = xattrs.map(|(name, value)| (name.len() + value.len()) as u64 + 64).sum();
                COUNTS + size_of::<Inode>() as u64 + inode.content.heap_bytes() + xattrs
            }
        }
    }

    /// The record, if it is kept as one: only then there are extended attributes.
    pub(crate) fn whole(&self) -> Option<&Inode> {
        match self {
            Self::Whole(inode) => Some(inode),
            _ => None,
        }
    }
}

impl Beside {
    /// None if something has no room in the small forms.
    fn of(inode: &Inode) -> Option<Self> {
        if inode.rdev != 0 || inode.xattrs.is_some() {
            return None;
        }
        let nlink = u8::try_from(inode.nlink).ok()?;
        let mode = u16::try_from(inode.mode).ok()?;
        let parent = u32::try_from(inode.parent).ok()?;
        Some(Self { nlink, mode, parent })
    }
}

impl Patch {
    fn of(content: &Content, size: u64) -> Option<Self> {
        let Content::Map(map) = content else { return None };
        // Most edits are one piece of the log between, or behind, what was there.
        if !(2..=3).contains(&map.len()) {
            return None;
        }
        let (at, piece) = map.iter().find(|(_, piece)| matches!(piece.source, Source::Log(_)))?;
        let Source::Log(LogRef { segment, offset }) = piece.source else { return None };
        let blob = map.iter().find_map(|(_, piece)| match piece.source {
            Source::Blob(id, _) => Some(id),
            Source::Log(_) => None,
        })?;
        let (len, offset) = (u32::try_from(piece.len).ok()?, u32::try_from(offset).ok()?);
        let patch = Self { blob, at: *at, len, segment, offset };
        // Whatever else is in the map, holes too, shows here.
        patch.pieces(size).eq(map.iter().map(|(start, piece)| (*start, *piece))).then_some(patch)
    }

    fn pieces(&self, size: u64) -> impl Iterator<Item = (u64, Piece)> {
        let end = self.at + u64::from(self.len);
        let below =
            |from: u64, to: u64| (from, Piece { len: to - from, source: Source::Blob(self.blob, from) });
        let log = Source::Log(LogRef { segment: self.segment, offset: u64::from(self.offset) });
        let before = (self.at > 0).then(|| below(0, self.at));
        let behind = (end < size).then(|| below(end, size));
        before.into_iter().chain([(self.at, Piece { len: u64::from(self.len), source: log })]).chain(behind)
    }

    fn content(&self, size: u64) -> Content {
        Content::Map(self.pieces(size).collect::<PMap<_, _>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MODE_CHAR;
    use crate::tree::{S_IFDIR, S_IFREG};
    use std::collections::BTreeMap;

    fn file(content: Content, size: u64) -> Inode {
        Inode {
            mode: S_IFREG | 0o4755,
            uid: 1,
            gid: u32::MAX,
            nlink: 2,
            rdev: 0,
            size,
            atime_ns: i64::MIN,
            mtime_ns: 5,
            ctime_ns: i64::MAX,
            version: u64::MAX,
            parent: 77,
            content,
            xattrs: None,
        }
    }

    fn log(offset: u64) -> Source {
        Source::Log(LogRef { segment: 3, offset })
    }

    /// Written as operations write, so that the pieces are those that come up.
    fn written(size: u64, writes: &[(u64, u64, Source)]) -> Inode {
        let mut content = Content::Blob(BlobId([7; 32]), size);
        let mut now = size;
        for (at, len, source) in writes {
            content.write(now, *at, *len, *source);
            now = now.max(at + len);
        }
        file(content, now)
    }

    #[test]
    fn every_kind_of_inode_comes_back_as_it_was() {
        let xattrs = Some(Arc::new(BTreeMap::from([(b"user.a"[..].into(), b"1"[..].into())])));
        let other = Source::Blob(BlobId([8; 32]), 0);
        let cases: Vec<(&str, Inode)> = vec![
            ("Dead", Inode::dead()),
            ("Empty", Inode { mode: S_IFDIR | 0o755, ..file(Content::Empty, 0) }),
            ("Empty", file(Content::Empty, 1 << 40)),
            ("Log", file(Content::Log(LogRef { segment: u32::MAX, offset: 9 }, 100), 100)),
            // A hole behind it, and an offset that no segment has.
            ("Other", file(Content::Log(LogRef { segment: 1, offset: 9 }, 99), 100)),
            ("Other", file(Content::Log(LogRef { segment: 1, offset: 1 << 32 }, 100), 100)),
            ("Other", file(Content::Blob(BlobId([7; 32]), 100), 100)),
            ("Other", file(Content::Inline(b"target"[..].into()), 6)),
            ("Patched", written(1000, &[(0, 100, log(0))])),
            ("Patched", written(1000, &[(500, 100, log(u64::from(u32::MAX)))])),
            ("Patched", written(1000, &[(900, 100, log(0))])),
            ("Patched", written(1000, &[(1000, 100, log(0))])),
            // Two edits; a hole in between; another blob; the same blob elsewhere; more than a segment can hold.
            ("Other", written(1000, &[(0, 100, log(0)), (200, 10, log(100))])),
            ("Other", written(1000, &[(1001, 100, log(0))])),
            ("Other", written(1000, &[(0, 100, other)])),
            ("Other", written(1000, &[(0, 100, Source::Blob(BlobId([7; 32]), 1)), (100, 1, log(0))])),
            ("Other", written(1000, &[(10, 100, log(1 << 32))])),
            ("Other", written(1 << 40, &[(10, 1 << 33, log(0))])),
            ("Whole", Inode { nlink: 256, ..file(Content::Empty, 0) }),
            ("Whole", Inode { parent: 1 << 32, ..file(Content::Empty, 0) }),
            ("Whole", Inode { mode: MODE_CHAR, rdev: 5, ..file(Content::Empty, 0) }),
            ("Whole", Inode { xattrs, ..file(Content::Empty, 0) }),
        ];
        for (form, inode) in cases {
            let packed = Packed::of(inode.clone());
            let shown = format!("{packed:?}");
            assert!(shown.starts_with(form), "{form}: {shown}");
            if matches!(packed, Packed::Dead) {
                assert!(
                    packed.to_inode().is_none() && packed.attr(1).is_none() && packed.content().is_none()
                );
                continue;
            }
            assert_eq!(packed.attr(9), Some(inode.attr(9)), "{shown}");
            // As much as the fields say: the smallest forms have nothing there.
            assert_eq!(packed.heap_bytes() == 0, ["Empty", "Log"].contains(&form), "{shown}");
            assert_eq!((packed.parent(), packed.nlink()), (inode.parent, inode.nlink));
            let (content, size) = packed.content().unwrap();
            assert_eq!((format!("{content:?}"), size), (format!("{:?}", inode.content), inode.size));
            assert_eq!(format!("{:?}", packed.to_inode().unwrap()), format!("{inode:?}"), "{shown}");
        }
    }
}
