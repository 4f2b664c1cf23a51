//! Reads a table in place. [`BaseTable::open`] has proven every offset, so that no call here can fail.

use super::format::{
    Counts, HAS_OIDS, HEADER_BYTES, Header, Layout, MAGIC, RawAlias, RawAttr, RawClass, RawRow, SUMMED_FROM,
    VERSION, VERSION_1, corrupt, sum,
};
use super::{BaseEntry, NodeKind, Totals};
use crate::hash::NameKey;
use afs_types::{BlobId, Ino, Result, limits};
use bytes::Bytes;
use std::fmt;

/// An opened table. Share it in an `Arc`.
pub struct BaseTable {
    pub(super) bytes: Bytes,
    pub(super) layout: Layout,
    seed: u64,
    key: NameKey,
    pub(super) rows: usize,
    pub(super) index: Index,
    totals: Totals,
}

/// How names are found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    /// Version 1, see `slots`.
    Slots,
    /// Version 2, see `lines`.
    Lines,
}

/// A name in a directory, without the cost of the whole entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Child<'a> {
    /// The place in the table, plus 1.
    pub position: Ino,
    /// The inode that the name leads to.
    pub ino: Ino,
    /// The name.
    pub name: &'a [u8],
    /// Type and permission bits of the inode.
    pub mode: u32,
}

impl BaseTable {
    /// Checks the bytes of a table and takes them. [`afs_types::Reason::Corrupt`] if anything is wrong with them.
    pub fn open(bytes: Bytes) -> Result<Self> {
        let Some(head) = bytes.get(..HEADER_BYTES) else {
            return Err(corrupt(format_args!("{} bytes are too few for a header", bytes.len())));
        };
        let header: &Header = bytemuck::from_bytes(head);
        if header.magic != MAGIC {
            return Err(corrupt("not a base table"));
        }
        let (version, flags) = (header.version.get(), header.flags.get());
        let index = match version {
            VERSION_1 => Some(Index::Slots),
            VERSION => Some(Index::Lines),
            _ => None,
        };
        let Some(index) = index.filter(|_| flags & !HAS_OIDS == 0) else {
            return Err(corrupt(format_args!("format {version} is not known"))
                .next("use a server that is not older than the one that wrote it"));
        };
        let counts = Counts {
            entries: header.entries.get(),
            oids: header.oids.get(),
            blobs: header.blobs.get(),
            classes: header.classes.get(),
            aliases: header.aliases.get(),
            lines: header.lines.get(),
            names: header.names.get(),
        };
        let layout = Layout::new(&counts, version).filter(|l| l.length() == bytes.len());
        let Some(layout) = layout.filter(|_| header.length.get() == bytes.len() as u64) else {
            return Err(corrupt(format_args!("{} bytes are not its length", bytes.len())));
        };
        if sum(&bytes[SUMMED_FROM..]) != header.sum {
            return Err(corrupt("the checksum does not fit"));
        }
        let (seed, rows) = (header.seed.get(), counts.entries as usize);
        let (key, has_oids) = (NameKey::new(seed), flags & HAS_OIDS != 0);
        if !(1..=limits::MAX_BASE_ENTRIES).contains(&counts.entries) {
            return Err(corrupt("impossible number of entries"));
        }
        let mut table = Self { layout, seed, key, rows, index, totals: Totals::default(), bytes };
        table.totals = table.check_structure(&counts, has_oids)?;
        Ok(table)
    }

    /// Rows: every name, and the root.
    #[allow(clippy::len_without_is_empty, reason = "a table always has its root")]
    pub fn len(&self) -> u64 {
        self.rows as u64
    }
    /// The highest position. New inodes of sessions are numbered above it.
    pub fn max_ino(&self) -> Ino {
        self.rows as Ino
    }
    /// [`crate::hash::name_hash`] for this table and the overlays on it.
    #[inline(always)]
    pub(crate) fn name_hash(&self, parent: Ino, name: &[u8]) -> u64 {
        self.key.hash(parent, name)
    }
    /// A name for this table that differs from that of every other one. Public, unlike the seed.
    pub fn mark(&self) -> String {
        super::mark_of(self.seed)
    }
    /// What the table holds.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The inode with this number; none for a number that a hard link's row takes up.
    pub fn entry(&self, ino: Ino) -> Option<BaseEntry<'_>> {
        self.at(ino).filter(|entry| entry.kind != NodeKind::HardLink)
    }
    /// The row at a position (as in [`BaseEntry::position`]), hard links included.
    pub fn at(&self, position: Ino) -> Option<BaseEntry<'_>> {
        let row = usize::try_from(position).ok()?.checked_sub(1).filter(|row| *row < self.rows)?;
        Some(self.view(row))
    }
    /// The inode that a name in a directory leads to.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Option<Ino> {
        self.lookup_hashed(parent, name, self.name_hash(parent, name))
    }
    /// The same for a name whose hash is known.
    #[inline(always)]
    pub(crate) fn lookup_hashed(&self, parent: Ino, name: &[u8], hash: u64) -> Option<Ino> {
        let row = match self.index {
            Index::Slots => self.target(self.find_in_slots(parent, name, hash)?),
            Index::Lines => match self.find_in_lines(parent, name, hash)? {
                (row, true) => self.target(row),
                // The row itself would be one more load.
                (row, false) => row,
            },
        };
        Some(row as Ino + 1)
    }
    /// The row of a name in a directory.
    pub fn find(&self, parent: Ino, name: &[u8]) -> Option<BaseEntry<'_>> {
        Some(self.view(self.find_row(parent, name)?))
    }
    /// The entries of a directory in order of names; empty for all else.
    pub fn children(&self, dir: Ino) -> impl Iterator<Item = BaseEntry<'_>> {
        self.children_from(dir, 0)
    }
    /// The entries of a directory whose position is `>= position`.
    pub fn children_from(&self, dir: Ino, position: Ino) -> impl Iterator<Item = BaseEntry<'_>> {
        self.child_rows(dir, position).map(|row| self.view(row))
    }
    /// The names of a directory whose position is `>= position`, cheaper than whole entries.
    pub fn names_from(&self, dir: Ino, position: Ino) -> impl Iterator<Item = Child<'_>> {
        self.child_rows(dir, position).map(|row| self.child(row))
    }
    /// The positions of the further names of an inode: `nlink - 1` for a file.
    pub fn aliases(&self, ino: Ino) -> impl Iterator<Item = Ino> {
        let all = self.alias_rows();
        let from = all.partition_point(|alias| Ino::from(alias.target.get()) + 1 < ino);
        let of_ino = all[from..].iter().take_while(move |alias| Ino::from(alias.target.get()) + 1 == ino);
        of_ino.map(|alias| Ino::from(alias.position.get()) + 1)
    }

    fn child_rows(&self, dir: Ino, position: Ino) -> std::ops::Range<usize> {
        let row = usize::try_from(dir).ok().and_then(|ino| ino.checked_sub(1));
        let Some(row) = row.filter(|row| *row < self.rows) else { return 0..0 };
        let raw = self.raw(row);
        if raw.kind != NodeKind::Dir as u8 {
            return 0..0;
        }
        let (first, count) = (raw.link.get() as usize, self.attr(row).count.get() as usize);
        let from = usize::try_from(position.saturating_sub(1)).unwrap_or(usize::MAX);
        from.clamp(first, first + count)..first + count
    }

    pub(super) fn find_row(&self, parent: Ino, name: &[u8]) -> Option<usize> {
        let hash = self.name_hash(parent, name);
        match self.index {
            Index::Slots => self.find_in_slots(parent, name, hash),
            Index::Lines => self.find_in_lines(parent, name, hash).map(|(row, _)| row),
        }
    }

    /// Where the inode of a row is: elsewhere for a hard link.
    pub(super) fn target(&self, row: usize) -> usize {
        let raw = self.raw(row);
        if raw.kind == NodeKind::HardLink as u8 { raw.link.get() as usize } else { row }
    }

    pub(super) fn raw(&self, row: usize) -> &RawRow {
        let at = self.layout.rows.start + row * size_of::<RawRow>();
        bytemuck::from_bytes(&self.bytes[at..at + size_of::<RawRow>()])
    }

    pub(super) fn attr(&self, row: usize) -> &RawAttr {
        let at = self.layout.attrs.start + row * size_of::<RawAttr>();
        bytemuck::from_bytes(&self.bytes[at..at + size_of::<RawAttr>()])
    }

    pub(super) fn name(&self, raw: &RawRow) -> &[u8] {
        let at = self.layout.names.start + raw.name.get() as usize;
        &self.bytes[at..at + usize::from(raw.name_len)]
    }

    pub(super) fn class(&self, attr: &RawAttr) -> &RawClass {
        let at = self.layout.classes.start + attr.class.get() as usize * size_of::<RawClass>();
        bytemuck::from_bytes(&self.bytes[at..at + size_of::<RawClass>()])
    }

    pub(super) fn alias_rows(&self) -> &[RawAlias] {
        bytemuck::cast_slice(&self.bytes[self.layout.aliases.clone()])
    }

    /// Column values of zeros mean "none": no hash is zero.
    pub(super) fn blob(&self, attr: &RawAttr) -> Option<BlobId> {
        let row = (attr.content.get() as usize).checked_sub(1)?;
        let column: &[[u8; 32]] = bytemuck::cast_slice(&self.bytes[self.layout.blobs.clone()]);
        column.get(row).filter(|id| **id != [0; 32]).map(|id| BlobId(*id))
    }

    fn git_oid(&self, attr: &RawAttr) -> Option<[u8; 20]> {
        let row = (attr.content.get() as usize).checked_sub(1)?;
        let column: &[[u8; 20]] = bytemuck::cast_slice(&self.bytes[self.layout.oids.clone()]);
        column.get(row).filter(|oid| **oid != [0; 20]).copied()
    }

    fn child(&self, row: usize) -> Child<'_> {
        let target = self.target(row);
        Child {
            position: row as Ino + 1,
            ino: target as Ino + 1,
            name: self.name(self.raw(row)),
            mode: self.class(self.attr(target)).mode.get(),
        }
    }

    fn view(&self, row: usize) -> BaseEntry<'_> {
        let raw = self.raw(row);
        let target = self.target(row);
        let (inode, attr) = (self.raw(target), self.attr(target));
        let class = self.class(attr);
        // `open` has seen every kind.
        let kind = NodeKind::from_u8(raw.kind).unwrap_or(NodeKind::Special);
        let first = Ino::from(inode.link.get()) + 1;
        let is_dir = kind == NodeKind::Dir;
        BaseEntry {
            ino: target as Ino + 1,
            position: row as Ino + 1,
            parent: Ino::from(raw.parent.get()) + 1,
            name: self.name(raw),
            kind,
            mode: class.mode.get(),
            uid: class.uid.get(),
            gid: class.gid.get(),
            nlink: attr.nlink.get(),
            size: attr.size.get(),
            mtime_ns: attr.mtime_ns.get(),
            rdev: if inode.kind == NodeKind::Special as u8 { inode.link.get() } else { 0 },
            blob: self.blob(attr),
            git_oid: self.git_oid(attr),
            children: if is_dir { first..first + Ino::from(attr.count.get()) } else { 0..0 },
        }
    }
}

impl fmt::Debug for BaseTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseTable({:?})", self.totals)
    }
}
