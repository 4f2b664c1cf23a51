//! Proves the structure of a table, once, when it is opened.
//!
//! After it holds: every offset lies in its section; the rows form one tree in breadth-first order; siblings
//! have valid names in strictly growing order; hard links lead to files; `nlink` counts are right; a probe of
//! the hash index ends, and its answers are those of the rows. That the index finds every name is checked by
//! [`BaseTable::verify_index`] alone, since a table that was damaged so does no harm: a name is not found.

use super::format::{Counts, ROWS_PER_START, RawAttr, RawClass, RawRow, corrupt, ensure};
use super::lines::lines_for;
use super::reader::{BaseTable, Index};
use super::{MODE_TYPE, NodeKind, Totals};
use afs_types::{NameRef, Result, limits};
use std::cmp::Ordering;

/// What the walk over the rows carries along.
struct Walk<'a> {
    table: &'a BaseTable,
    counts: Counts,
    totals: Totals,
    /// Where the children of the next directory must start.
    next_child: usize,
    /// The directory of the current row, and how many directories were seen in it.
    parent: usize,
    subdirs: u32,
    links: usize,
}

impl BaseTable {
    pub(super) fn check_structure(&self, counts: &Counts, has_oids: bool) -> Result<Totals> {
        ensure(has_oids || counts.oids == 0, "git ids without a column", 0)?;
        ensure(!has_oids || counts.oids >= counts.blobs, "too few git ids", 0)?;
        let has_lines = self.index == Index::Lines;
        ensure(!has_lines || counts.lines == lines_for(counts.entries - 1), "wrong number of lines", 0)?;
        self.check_classes()?;
        let mut walk = Walk {
            table: self,
            counts: *counts,
            totals: Totals { entries: counts.entries, ..Totals::default() },
            next_child: 1,
            parent: 0,
            subdirs: 0,
            links: 0,
        };
        for row in 0..self.rows {
            walk.row(row)?;
        }
        walk.leave_directory()?;
        ensure(walk.next_child == self.rows, "rows that belong to no directory", self.rows)?;
        ensure(walk.links as u64 == counts.aliases, "wrong number of hard links", self.rows)?;
        self.check_aliases()?;
        match self.index {
            Index::Slots => self.check_slots()?,
            Index::Lines => self.check_lines()?,
        }
        Ok(walk.totals)
    }

    /// Checks that the index leads to every name. For tables just built: every import asks.
    pub fn verify_index(&self) -> Result<()> {
        for row in 1..self.rows {
            let raw = self.raw(row);
            let found = self.find_row(u64::from(raw.parent.get()) + 1, self.name(raw));
            ensure(found == Some(row), "a name that the index does not find", row)?;
        }
        Ok(())
    }

    fn check_classes(&self) -> Result<()> {
        let classes: &[RawClass] = bytemuck::cast_slice(&self.bytes[self.layout.classes.clone()]);
        let kinds = [NodeKind::File, NodeKind::Dir, NodeKind::Symlink, NodeKind::Special];
        for (row, class) in classes.iter().enumerate() {
            let mode = class.mode.get();
            let known = kinds.iter().any(|kind| kind.mode_type(mode) == Some(mode & MODE_TYPE));
            ensure(known && mode <= 0o177_777, "impossible mode", row)?;
        }
        Ok(())
    }

    /// The list must hold exactly the hard links of the rows, by inode and position.
    fn check_aliases(&self) -> Result<()> {
        let mut before = None;
        for alias in self.alias_rows() {
            let (target, position) = (alias.target.get(), alias.position.get() as usize);
            ensure(before < Some((target, position)), "hard links out of order", position)?;
            before = Some((target, position));
            ensure(position < self.rows, "a hard link beyond the end", position)?;
            let raw = self.raw(position);
            let same = raw.kind == NodeKind::HardLink as u8 && raw.link.get() == target;
            ensure(same, "a hard link that is none", position)?;
        }
        let mut at = 0;
        let all = self.alias_rows();
        while at < all.len() {
            let target = all[at].target.get();
            let names = all[at..].iter().take_while(|alias| alias.target.get() == target).count();
            let inode = self.attr(target as usize);
            ensure(inode.nlink.get() as usize == names + 1, "wrong link count", target as usize)?;
            at += names;
        }
        // Every inode that claims more names than one is in the list.
        let linked = (0..self.rows).filter(|row| {
            let kind = self.raw(*row).kind;
            kind != NodeKind::Dir as u8 && kind != NodeKind::Gitlink as u8 && self.attr(*row).nlink.get() > 1
        });
        let groups = all.chunk_by(|a, b| a.target.get() == b.target.get()).count();
        ensure(linked.count() == groups, "wrong link count", self.rows)
    }
}

impl Walk<'_> {
    fn row(&mut self, row: usize) -> Result<()> {
        let raw = self.table.raw(row);
        if row.is_multiple_of(ROWS_PER_START) && self.table.index == Index::Lines {
            let starts = self.table.starts(row / ROWS_PER_START);
            ensure(starts[0] as usize == self.next_child - 1, "a wrong count of names", row)?;
            // No start follows on the last one but the end.
            let is_last = row + ROWS_PER_START >= self.table.rows;
            ensure(!is_last || starts[1] as usize == self.table.rows - 1, "a wrong count of names", row)?;
        }
        let name_end = u64::from(raw.name.get()) + u64::from(raw.name_len);
        ensure(name_end <= self.counts.names, "a name beyond the end", row)?;
        let Some(kind) = NodeKind::from_u8(raw.kind) else {
            return Err(corrupt(format_args!("kind {} is not known (entry {row})", raw.kind)));
        };
        if row == 0 {
            let is_root = kind == NodeKind::Dir && raw.parent.get() == 0 && raw.name_len == 0;
            ensure(is_root, "no root", 0)?;
        } else {
            self.place(row, raw)?;
        }
        if kind == NodeKind::HardLink {
            return self.hard_link(row, raw);
        }
        let attr = self.table.attr(row);
        let class = u64::from(attr.class.get());
        ensure(class < self.counts.classes, "attributes beyond the end", row)?;
        let mode = self.table.class(attr).mode.get();
        ensure(kind.mode_type(mode) == Some(mode & MODE_TYPE), "a mode that does not fit the kind", row)?;
        self.subdirs += u32::from(matches!(kind, NodeKind::Dir | NodeKind::Gitlink) && row > 0);
        self.content(row, attr, kind)?;
        self.count(attr, kind);
        if kind == NodeKind::Dir { self.directory(row, raw, attr) } else { self.leaf(row, raw, attr, kind) }
    }

    /// A row lies among the children of its parent, behind a sibling of a smaller name.
    fn place(&mut self, row: usize, raw: &RawRow) -> Result<()> {
        let parent = raw.parent.get() as usize;
        ensure(parent < row, "a parent behind its child", row)?;
        let up = self.table.raw(parent);
        let first = up.link.get() as usize;
        let children = first..first + self.table.attr(parent).count.get() as usize;
        let inside = up.kind == NodeKind::Dir as u8 && children.contains(&row);
        ensure(inside, "an entry outside of its directory", row)?;
        let name = self.table.name(raw);
        NameRef::new(name).map_err(|e| corrupt(format_args!("{} (entry {row})", e.message())))?;
        if parent != self.parent {
            self.leave_directory()?;
            self.parent = parent;
        } else if row > children.start {
            let before = self.table.name(self.table.raw(row - 1));
            ensure(before.cmp(name) == Ordering::Less, "names out of order", row)?;
        }
        Ok(())
    }

    fn leave_directory(&mut self) -> Result<()> {
        let links = self.table.attr(self.parent).nlink.get();
        ensure(links == 2 + self.subdirs, "wrong link count", self.parent)?;
        self.subdirs = 0;
        Ok(())
    }

    fn directory(&mut self, row: usize, raw: &RawRow, attr: &RawAttr) -> Result<()> {
        let (first, count) = (raw.link.get() as usize, attr.count.get() as usize);
        ensure(first == self.next_child, "children out of order", row)?;
        self.next_child += count;
        ensure(self.next_child <= self.table.rows, "children beyond the end", row)?;
        // Of a directory that no row names as its parent, no one else looks at the count.
        ensure(count > 0 || attr.nlink.get() == 2, "wrong link count", row)
    }

    fn leaf(&self, row: usize, raw: &RawRow, attr: &RawAttr, kind: NodeKind) -> Result<()> {
        ensure(attr.count.get() == 0, "children of a file", row)?;
        ensure(raw.link.get() == 0 || kind == NodeKind::Special, "a device number of a file", row)?;
        let links = attr.nlink.get();
        let fits = match kind {
            NodeKind::Gitlink => links == 2,
            _ => (1..=limits::MAX_LINKS).contains(&links),
        };
        ensure(fits, "wrong link count", row)
    }

    fn hard_link(&mut self, row: usize, raw: &RawRow) -> Result<()> {
        self.links += 1;
        let target = raw.link.get() as usize;
        ensure(target < self.table.rows, "a hard link beyond the end", row)?;
        let kind = NodeKind::from_u8(self.table.raw(target).kind);
        let to_file = matches!(kind, Some(NodeKind::File | NodeKind::Symlink | NodeKind::Special));
        ensure(to_file, "a hard link to what has none", row)
    }

    fn content(&self, row: usize, attr: &RawAttr, kind: NodeKind) -> Result<()> {
        let content = u64::from(attr.content.get());
        let (blobs, oids) = (self.counts.blobs, self.counts.oids);
        let fits = match kind {
            NodeKind::File | NodeKind::Symlink => content <= blobs,
            NodeKind::Dir | NodeKind::Gitlink => content == 0 || (content > blobs && content <= oids),
            NodeKind::Special | NodeKind::HardLink => content == 0,
        };
        ensure(fits, "a blob beyond the end", row)?;
        let size = attr.size.get();
        let (most, has_blob) = match kind {
            NodeKind::File => (limits::MAX_FILE_BYTES, size == 0 || self.table.blob(attr).is_some()),
            NodeKind::Symlink => {
                (limits::MAX_SYMLINK_BYTES as u64, size > 0 && self.table.blob(attr).is_some())
            }
            _ => (limits::MAX_FILE_BYTES, true),
        };
        ensure(size <= most, "impossible size", row)?;
        ensure(has_blob, "a file without content", row)
    }

    fn count(&mut self, attr: &RawAttr, kind: NodeKind) {
        let totals = &mut self.totals;
        match kind {
            NodeKind::File => {
                totals.files += 1;
                totals.bytes = totals.bytes.saturating_add(attr.size.get());
            }
            NodeKind::Dir => totals.dirs += 1,
            NodeKind::Symlink => totals.symlinks += 1,
            NodeKind::Special | NodeKind::HardLink | NodeKind::Gitlink => {}
        }
    }
}
