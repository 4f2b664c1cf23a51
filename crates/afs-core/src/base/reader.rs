//! Reads a table in place. [`BaseTable::open`] has proven every offset, so that no call here can fail.

use super::format::{
    BUCKET, Bucket, Counts, HAS_OIDS, HEADER_BYTES, Header, Layout, MAGIC, Probe, RawAlias, RawAttr,
    RawClass, RawRow, SUMMED_FROM, VERSION, corrupt, position_bits, sum,
};
use super::{BaseEntry, NodeKind, Totals};
use crate::hash::name_hash;
use afs_types::{BlobId, Ino, Result, limits};
use bytes::Bytes;
use std::fmt;

/// An opened table. Share it in an `Arc`.
pub struct BaseTable {
    pub(super) bytes: Bytes,
    pub(super) layout: Layout,
    pub(super) seed: u64,
    pub(super) rows: usize,
    pub(super) position_bits: u32,
    pub(super) totals: Totals,
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
        if header.version.get() != VERSION || header.flags.get() & !HAS_OIDS != 0 {
            return Err(corrupt(format_args!("format {} is not known", header.version.get()))
                .next("use a server that is not older than the one that wrote it"));
        }
        let counts = Counts {
            entries: header.entries.get(),
            oids: header.oids.get(),
            blobs: header.blobs.get(),
            classes: header.classes.get(),
            aliases: header.aliases.get(),
            buckets: header.buckets.get(),
            names: header.names.get(),
        };
        let layout = Layout::new(&counts).filter(|l| l.length() == bytes.len());
        let Some(layout) = layout.filter(|_| header.length.get() == bytes.len() as u64) else {
            return Err(corrupt(format_args!("{} bytes are not its length", bytes.len())));
        };
        if sum(&bytes[SUMMED_FROM..]) != header.sum {
            return Err(corrupt("the checksum does not fit"));
        }
        let (seed, rows) = (header.seed.get(), counts.entries as usize);
        let has_oids = header.flags.get() & HAS_OIDS != 0;
        if !(1..=limits::MAX_BASE_ENTRIES).contains(&counts.entries) {
            return Err(corrupt("impossible number of entries"));
        }
        let position_bits = position_bits(rows);
        let mut table = Self { layout, seed, rows, position_bits, totals: Totals::default(), bytes };
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
    /// The key of [`name_hash`] for this table and the overlays on it.
    pub fn name_seed(&self) -> u64 {
        self.seed
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
        Some(self.target(self.find_row(parent, name)?) as Ino + 1)
    }
    /// The same for a name whose [`name_hash`] is known.
    pub(crate) fn lookup_hashed(&self, parent: Ino, name: &[u8], hash: u64) -> Option<Ino> {
        Some(self.target(self.find_hashed(parent, name, hash)?) as Ino + 1)
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
        self.find_hashed(parent, name, name_hash(self.seed, parent, name))
    }

    fn find_hashed(&self, parent: Ino, name: &[u8], hash: u64) -> Option<usize> {
        let up = u32::try_from(parent.checked_sub(1)?).ok()?;
        let buckets: &[Bucket] = bytemuck::cast_slice(&self.bytes[self.layout.buckets.clone()]);
        let positions = (1 << self.position_bits) - 1;
        let probe = Probe::new(hash, buckets.len(), self.position_bits);
        let mut at = probe.bucket;
        // `open` made sure that there is a free slot.
        loop {
            // Without a branch per slot: a wrongly predicted one would wait for memory.
            let slots = buckets[at].map(|slot| slot.get());
            let mut found = slots_that(&slots, |slot| slot & !positions == probe.tag);
            while found != 0 {
                let row = (slots[found.trailing_zeros() as usize] & positions) as usize;
                let raw = self.raw(row);
                // A free slot looks like row 0, the root, which has no name.
                if raw.parent.get() == up && self.name(raw) == name && row > 0 {
                    return Some(row);
                }
                found &= found - 1;
            }
            if slots_that(&slots, |slot| slot == 0) != 0 {
                return None;
            }
            at += 1;
            if at == buckets.len() {
                at = 0;
            }
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

/// One bit for each slot that fits. Shaped so that it compiles to a few vector instructions.
#[inline(always)]
fn slots_that(slots: &[u32; BUCKET], fits: impl Fn(u32) -> bool) -> u32 {
    const BITS: [u32; BUCKET] = {
        let mut bits = [0; BUCKET];
        let mut i = 0;
        while i < BUCKET {
            bits[i] = 1 << i;
            i += 1;
        }
        bits
    };
    slots.iter().zip(BITS).fold(0, |all, (slot, bit)| all | if fits(*slot) { bit } else { 0 })
}

impl fmt::Debug for BaseTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseTable({:?})", self.totals)
    }
}
