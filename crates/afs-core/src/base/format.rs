//! How a table is laid out, byte for byte. Integers are little endian and need no alignment.
//!
//! Version 2, which is what is written:
//!
//! ```text
//! header    192 B   magic, version, flags, BLAKE3 of everything behind it, length, seed, counts; the rest zeros
//! lines     64 B each: four slots of the index. First the keys, 8 B each: the name's length in bits 0 to 7, bits 0 to
//!           23 of its hash above, from bit 32 on the parent's position; then the places, 8 B each: the position of
//!           the name in bits 0 to 26, bit 31 for a hard link, from bit 32 on where the name's bytes are. A free slot
//!           is all zeros: no name has position 0. See `lines` for which name lies in which line
//! rows      16 B each, by position
//! attrs     32 B each, by position: the rest of an entry
//! blobs     32 B each, distinct, in order of first use
//! tags      4 B for each line, 1 B for each of its slots: bits 24 to 30 of the name's hash, zero for a free slot.
//!           Bit 7 of the first byte: a name that belongs into this line, or passed it, lies behind it
//! starts    4 B for each 16 rows and 4 B at the end: how many names the directories before these rows hold
//! oids      20 B each: first those of the blobs, row by row (zero = none), then those of directories and
//!           submodules; the column is absent in a table without git ids
//! classes   12 B each: distinct (mode, uid, gid)
//! aliases   8 B each: (inode's position, hard link's position), sorted
//! names     distinct, in order of first use
//! ```
//! In this order no line, row or tags of a line lie in two cache lines, if the table starts at a page.
//!
//! Version 1, which is still read: without lines, tags and starts; in the place of the lines
//!
//! ```text
//! slots     4 B each, in buckets of 16: 0 = free, else the position in as many low bits as the highest one needs
//!           and bits of the hash above; a full bucket goes on in the next one
//! ```
//! The hash is `name_hash(seed, parent's ino, name)` in both.

use afs_types::{Error, Reason, Result, limits};
use bytemuck::{Pod, Zeroable};
use std::ops::Range;

pub(super) const MAGIC: [u8; 8] = *b"AFSBASE\0";
/// What is written.
pub(super) const VERSION: u32 = 2;
/// What builds before the first release wrote.
pub(super) const VERSION_1: u32 = 1;
/// The checksum covers everything behind itself.
pub(super) const SUMMED_FROM: usize = 48;
pub(super) const HAS_OIDS: u32 = 1;

macro_rules! little_endian {
    ($name:ident, $int:ty, $bytes:literal) => {
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(transparent)]
        pub(super) struct $name([u8; $bytes]);
        impl $name {
            pub(super) fn get(self) -> $int {
                <$int>::from_le_bytes(self.0)
            }
        }
        impl From<$int> for $name {
            fn from(value: $int) -> Self {
                Self(value.to_le_bytes())
            }
        }
    };
}
little_endian!(U32, u32, 4);
little_endian!(U64, u64, 8);
little_endian!(I64, i64, 8);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: U32,
    pub(super) flags: U32,
    pub(super) sum: [u8; 32],
    pub(super) length: U64,
    pub(super) seed: U64,
    pub(super) entries: U64,
    pub(super) oids: U64,
    pub(super) blobs: U64,
    pub(super) classes: U64,
    pub(super) aliases: U64,
    /// Lines of the index; in version 1 its buckets.
    pub(super) lines: U64,
    pub(super) names: U64,
    pub(super) reserved: [u8; 72],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RawRow {
    pub(super) name: U32,
    pub(super) parent: U32,
    /// Directory: position of the first child. Hard link: position of the inode. Special: device number.
    pub(super) link: U32,
    pub(super) name_len: u8,
    pub(super) kind: u8,
    pub(super) reserved: [u8; 2],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RawAttr {
    pub(super) size: U64,
    pub(super) mtime_ns: I64,
    /// Directory: number of children.
    pub(super) count: U32,
    pub(super) nlink: U32,
    pub(super) class: U32,
    /// Row of the blob or oid, plus 1; 0 = none.
    pub(super) content: U32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RawClass {
    pub(super) mode: U32,
    pub(super) uid: U32,
    pub(super) gid: U32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RawAlias {
    pub(super) target: U32,
    pub(super) position: U32,
}

pub(super) const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(HEADER_BYTES == 192 && size_of::<RawRow>() == 16 && size_of::<RawAttr>() == 32);

/// How many rows each section has.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) oids: u64,
    pub(super) blobs: u64,
    pub(super) classes: u64,
    pub(super) aliases: u64,
    pub(super) lines: u64,
    pub(super) names: u64,
}

/// Where each section lies in the bytes of a table.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// In version 1 the buckets.
    pub(super) lines: Range<usize>,
    pub(super) rows: Range<usize>,
    pub(super) attrs: Range<usize>,
    pub(super) blobs: Range<usize>,
    /// Empty in version 1, like the next.
    pub(super) tags: Range<usize>,
    pub(super) starts: Range<usize>,
    pub(super) oids: Range<usize>,
    pub(super) classes: Range<usize>,
    pub(super) aliases: Range<usize>,
    pub(super) names: Range<usize>,
}

impl Layout {
    /// None when the counts are beyond what any table has, so that all later arithmetic is exact.
    pub(super) fn new(counts: &Counts, version: u32) -> Option<Self> {
        let (tags, starts) = match version {
            VERSION_1 => (0, 0),
            _ => (counts.lines, starts_for(counts.entries)),
        };
        let mut at = HEADER_BYTES;
        let mut section = |rows: u64, row_bytes: usize| {
            // Each row belongs to an entry, a few to one: a generous bound keeps the products small.
            if rows > 8 * limits::MAX_BASE_ENTRIES {
                return None;
            }
            let from = at;
            at = at.checked_add(usize::try_from(rows).ok()?.checked_mul(row_bytes)?)?;
            Some(from..at)
        };
        let layout = Self {
            lines: section(counts.lines, LINE_BYTES)?,
            rows: section(counts.entries, size_of::<RawRow>())?,
            attrs: section(counts.entries, size_of::<RawAttr>())?,
            blobs: section(counts.blobs, 32)?,
            tags: section(tags, size_of::<U32>())?,
            starts: section(starts, size_of::<U32>())?,
            oids: section(counts.oids, 20)?,
            classes: section(counts.classes, size_of::<RawClass>())?,
            aliases: section(counts.aliases, size_of::<RawAlias>())?,
            names: 0..0,
        };
        if counts.names > u64::from(u32::MAX) {
            return None;
        }
        let end = at.checked_add(usize::try_from(counts.names).ok()?)?;
        Some(Self { names: at..end, ..layout })
    }

    pub(super) fn length(&self) -> usize {
        self.names.end
    }
}

/// A cache line, and what one step of a lookup reads: a line of the index, in version 1 a bucket.
pub(super) const LINE_BYTES: usize = 64;
/// Rows that share a number in the column of starts.
pub(super) const ROWS_PER_START: usize = 16;

pub(super) fn starts_for(rows: u64) -> u64 {
    rows.div_ceil(ROWS_PER_START as u64) + 1
}

/// The checksum of what lies behind [`SUMMED_FROM`].
pub(super) fn sum(body: &[u8]) -> [u8; 32] {
    *blake3::hash(body).as_bytes()
}

pub(super) fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::new(Reason::Corrupt, format!("base table: {what}"))
}

pub(super) fn ensure(ok: bool, what: &'static str, position: usize) -> Result<()> {
    if ok { Ok(()) } else { Err(corrupt(format_args!("{what} (entry {position})"))) }
}
