//! The index of a table: finds a name with one load from memory that another has to wait for.
//!
//! Names lie in lines of four slots, one cache line each, and a slot holds all that a lookup compares and answers, but
//! for the name's bytes. Which line it is follows from the hash and two small columns that the processor's caches hold
//! for a table of a million entries: `starts` (0.25 B an entry) tells where the names of the directory are, so that those
//! of one directory are neighbours, in the caches and on disk; `tags` (1.4 B an entry) tells nearly always whether the line
//! is worth a look, so that most misses read no line at all. A line is read while its tags are still under way: where
//! it lies does not depend on them.
//!
//! Guarantees: answers are exact, whatever the hash: the name's bytes are compared, always; [`BaseTable::check_lines`] proves
//! that every slot says what its row says, or nothing, and that every search ends, so that a damaged table that opens can fail to
//! find a name, or search long for it, and do nothing worse. What a lookup costs depends on the keyed hash, which authors of names cannot
//! know, and not on how the directories are laid out.
//!
//! Deliberately absent: a free slot kept for later (a table never changes), and the bytes of names in lines: they would cost
//! 30 B an entry, since names are 20 B long on average and most of them occur more than once.

use super::NodeKind;
use super::format::{LINE_BYTES, ROWS_PER_START, RawRow, U32, U64, ensure, starts_for};
use super::reader::BaseTable;
use crate::hash::NameKey;
use afs_types::{Ino, Result, limits};
use bytemuck::{Pod, Zeroable};

const SLOTS: usize = 4;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Line {
    keys: [U64; SLOTS],
    places: [U64; SLOTS],
}
const _: () = assert!(size_of::<Line>() == LINE_BYTES);

/// In a place: the name is a hard link, whose inode is elsewhere.
const HARD_LINK: u32 = 1 << 31;
const ROW: u32 = (1 << 27) - 1;
const _: () = assert!(limits::MAX_BASE_ENTRIES < ROW as u64);

/// In the tags of a line: some name lies behind it.
const PASSED: u32 = 0x80;
const TAGS: u32 = 0x7f7f_7f7f;
const LOWEST_BITS: u32 = 0x0101_0101;
const HIGHEST_BITS: u32 = 0x8080_8080;

/// The line for the name of this rank, all names in the order of the directories that hold them: 0.7 names for each slot.
fn line_of(rank: u64) -> usize {
    (rank * 23 / 64) as usize
}

/// Lines for so many names: more slots than names, so that there is a line that nothing passed.
pub(super) fn lines_for(names: u64) -> u64 {
    line_of(names) as u64 + 1
}

/// What a slot must say for a name to be there.
fn key_of(parent: u32, name_len: usize, hash: u64) -> u64 {
    u64::from(parent) << 32 | u64::from((hash as u32) << 8) | name_len as u64 & 0xff
}

fn tag_of(hash: u64) -> u32 {
    hash as u32 >> 24 & 0x7f
}

/// Whether one of the tags is this one, or, seldom, none.
#[inline(always)]
fn may_hold(tags: u32, tag: u32) -> bool {
    // The lowest byte that is zero gets its highest bit set.
    let others = (tags & TAGS) ^ (tag * LOWEST_BITS);
    others.wrapping_sub(LOWEST_BITS) & !others & HIGHEST_BITS != 0
}

/// A line as far on as the hash says in the names of the directories that a start stands for.
#[inline(always)]
fn home(starts: [u32; 2], hash: u64) -> usize {
    let among = u64::from(starts[1].wrapping_sub(starts[0]));
    line_of(u64::from(starts[0]) + (((hash >> 32) * among) >> 32))
}

/// Whether two names are equal. Nearly all are so short that a call of `memcmp` costs more than all of this.
#[inline(always)]
fn same(a: &[u8], b: &[u8]) -> bool {
    /// The first and the last bytes of a name, which meet or overlap if it has at most twice as many.
    fn ends<const N: usize>(name: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        Some((name.first_chunk()?, name.last_chunk()?))
    }
    if a.len() != b.len() || a.len() > 32 {
        return a == b;
    }
    if let (Some(a), Some(b)) = (ends::<16>(a), ends::<16>(b)) {
        return (a.0 == b.0) & (a.1 == b.1);
    }
    if let (Some(a), Some(b)) = (ends::<8>(a), ends::<8>(b)) {
        return (a.0 == b.0) & (a.1 == b.1);
    }
    a == b
}

/// What a search goes by.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    name: &'a [u8],
    key: u64,
    tag: u32,
}

impl BaseTable {
    /// The row of a name, and whether it is a hard link.
    #[inline(always)]
    pub(super) fn find_in_lines(&self, parent: Ino, name: &[u8], hash: u64) -> Option<(usize, bool)> {
        let up = parent.checked_sub(1).filter(|up| *up < self.rows as u64)?;
        // No such name is anywhere, and its length would pass for another in the key.
        if name.is_empty() || name.len() > limits::MAX_NAME_BYTES {
            return None;
        }
        let at = home(self.starts(up as usize / ROWS_PER_START), hash);
        let wanted = Wanted { name, key: key_of(up as u32, name.len(), hash), tag: tag_of(hash) };
        let tags = self.tags(at);
        if may_hold(tags, wanted.tag) {
            // Without a branch for each slot: a wrongly predicted one would wait for memory.
            let line = self.line(at);
            let slot = (1..SLOTS)
                .fold(0, |found, slot| found | if line.keys[slot].get() == wanted.key { slot } else { 0 });
            if let Some(found) = self.slot(line, slot & (SLOTS - 1), &wanted) {
                return Some(found);
            }
        } else if tags & PASSED == 0 {
            return None;
        }
        self.search(at, wanted)
    }

    /// The whole search: for the few names that do not lie where they belong, and for those that are not there.
    #[cold]
    #[inline(never)]
    fn search(&self, mut at: usize, wanted: Wanted<'_>) -> Option<(usize, bool)> {
        loop {
            let tags = self.tags(at);
            if may_hold(tags, wanted.tag) {
                let line = self.line(at);
                if let Some(found) = (0..SLOTS).find_map(|slot| self.slot(line, slot, &wanted)) {
                    return Some(found);
                }
            }
            if tags & PASSED == 0 {
                return None;
            }
            at = if at + 1 == self.lines() { 0 } else { at + 1 };
        }
    }

    /// What a slot holds, if it is what is wanted.
    #[inline(always)]
    fn slot(&self, line: &Line, slot: usize, wanted: &Wanted<'_>) -> Option<(usize, bool)> {
        if line.keys[slot].get() != wanted.key {
            return None;
        }
        let place = line.places[slot].get();
        let from = self.layout.names.start + (place >> 32) as usize;
        let name = self.bytes.get(from..from + wanted.name.len())?;
        let row = (place as u32 & ROW) as usize;
        same(name, wanted.name).then_some((row, place as u32 & HARD_LINK != 0))
    }

    /// How many lines behind the one where it belongs a name lies that is there.
    #[cfg(test)]
    pub(super) fn steps(&self, parent: Ino, name: &[u8]) -> usize {
        let row = self.find_row(parent, name).unwrap() as u32;
        let group = (parent as usize - 1) / ROWS_PER_START;
        let home = home(self.starts(group), self.name_hash(parent, name));
        let holds = |at: usize| self.line(at).places.iter().any(|place| place.get() as u32 & ROW == row);
        (0..self.lines()).find(|step| holds((home + step) % self.lines())).unwrap()
    }

    fn lines(&self) -> usize {
        self.layout.lines.len() / LINE_BYTES
    }
    fn line(&self, at: usize) -> &Line {
        let from = self.layout.lines.start + at * LINE_BYTES;
        bytemuck::from_bytes(&self.bytes[from..from + LINE_BYTES])
    }
    fn tags(&self, at: usize) -> u32 {
        let from = self.layout.tags.start + at * size_of::<U32>();
        let tags: &U32 = bytemuck::from_bytes(&self.bytes[from..from + size_of::<U32>()]);
        tags.get()
    }
    /// How many names the directories before a group of rows hold, and those before the next group.
    pub(super) fn starts(&self, group: usize) -> [u32; 2] {
        let from = self.layout.starts.start + group * size_of::<U32>();
        let both: &[U32; 2] = bytemuck::from_bytes(&self.bytes[from..from + size_of::<[U32; 2]>()]);
        both.map(U32::get)
    }

    /// Proves what a search relies on; see the header.
    pub(super) fn check_lines(&self) -> Result<()> {
        let mut used = 0;
        for at in 0..self.lines() {
            let (line, before) = (self.line(at), used);
            for (key, place) in line.keys.iter().zip(&line.places) {
                match place.get() {
                    // With a key it would pass for the root.
                    0 => ensure(key.get() == 0, "a free index slot with a key", at)?,
                    place => {
                        self.check_slot(key.get(), place)?;
                        used += 1;
                    }
                }
            }
            let full = used - before == SLOTS;
            ensure(full || self.tags(at) & PASSED == 0, "a passed line of the index with room", at)?;
        }
        // Fewer names than slots: some line is not full, was not passed, and ends every search.
        ensure(used == self.rows - 1, "wrong number of index slots", used)
    }

    fn check_slot(&self, key: u64, place: u64) -> Result<()> {
        let row = (place as u32 & ROW) as usize;
        ensure(row >= 1 && row < self.rows, "an index slot beyond the end", row)?;
        let raw = self.raw(row);
        let linked = if raw.kind == NodeKind::HardLink as u8 { HARD_LINK } else { 0 };
        let same = place == place_of(row as u32, linked, raw)
            && key >> 32 == u64::from(raw.parent.get())
            && key as u8 == raw.name_len;
        ensure(same, "an index slot that is not like its row", row)
    }
}

fn place_of(row: u32, linked: u32, raw: &RawRow) -> u64 {
    u64::from(raw.name.get()) << 32 | u64::from(row | linked)
}

/// The two columns beside the lines.
pub(super) struct Columns {
    pub(super) tags: Vec<U32>,
    pub(super) starts: Vec<U32>,
}

/// Fills lines, which are all zeros, with the names of all rows, and makes the columns.
pub(super) fn write(key: &NameKey, rows: &[RawRow], names: &[u8], lines: &mut [u8]) -> Columns {
    let lines: &mut [Line] = bytemuck::cast_slice_mut(lines);
    let starts = starts(rows);
    let mut tags = vec![0; lines.len()];
    for (row, raw) in rows.iter().enumerate().skip(1) {
        let (parent, from) = (raw.parent.get(), raw.name.get() as usize);
        let len = usize::from(raw.name_len);
        let hash = key.hash(u64::from(parent) + 1, &names[from..from + len]);
        let group = parent as usize / ROWS_PER_START;
        let mut at = home([starts[group], starts[group + 1]], hash);
        let slot = loop {
            match lines[at].places.iter().position(|place| place.get() == 0) {
                Some(free) => break free,
                None => tags[at] |= PASSED,
            }
            at = if at + 1 == lines.len() { 0 } else { at + 1 };
        };
        let linked = if raw.kind == NodeKind::HardLink as u8 { HARD_LINK } else { 0 };
        lines[at].keys[slot] = key_of(parent, len, hash).into();
        lines[at].places[slot] = place_of(row as u32, linked, raw).into();
        tags[at] |= tag_of(hash) << (8 * slot);
    }
    let column = |words: Vec<u32>| words.into_iter().map(U32::from).collect();
    Columns { tags: column(tags), starts: column(starts) }
}

/// For each group of rows, and for the end, how many names the directories before it hold.
fn starts(rows: &[RawRow]) -> Vec<u32> {
    let mut starts = vec![0; starts_for(rows.len() as u64) as usize];
    for raw in &rows[1..] {
        starts[raw.parent.get() as usize / ROWS_PER_START + 1] += 1;
    }
    let mut before = 0;
    for start in &mut starts {
        before += *start;
        *start = before;
    }
    starts
}
