//! How a table is laid out, byte for byte. Integers are little endian and need no alignment.
//!
//! ```text
//! header    192 B   magic, version, flags, BLAKE3 of everything behind it, length, seed, counts
//! slots     4 B each, in buckets of 16: 0 = free, else the position in as many low bits as the highest one needs
//!           and bits of the hash above; keyed by name_hash(seed, parent's ino, name); a full bucket goes on in
//!           the next one
//! rows      16 B each, by position: what a lookup reads
//! attrs     32 B each, by position: the rest of an entry
//! blobs     32 B each, distinct, in order of first use
//! oids      20 B each: first those of the blobs, row by row (zero = none), then those of directories and
//!           submodules; the column is absent in a table without git ids
//! classes   12 B each: distinct (mode, uid, gid)
//! aliases   8 B each: (inode's position, hard link's position), sorted
//! names     distinct, in order of first use
//! ```
//! In this order nothing that a lookup reads lies in two cache lines, if the table starts at a page.

use afs_types::{Error, Reason, Result, limits};
use bytemuck::{Pod, Zeroable};
use std::ops::Range;

pub(super) const MAGIC: [u8; 8] = *b"AFSBASE\0";
pub(super) const VERSION: u32 = 1;
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
    pub(super) buckets: U64,
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
    pub(super) buckets: u64,
    pub(super) names: u64,
}

/// Where each section lies in the bytes of a table.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) rows: Range<usize>,
    pub(super) attrs: Range<usize>,
    pub(super) oids: Range<usize>,
    pub(super) blobs: Range<usize>,
    pub(super) classes: Range<usize>,
    pub(super) aliases: Range<usize>,
    pub(super) buckets: Range<usize>,
    pub(super) names: Range<usize>,
}

impl Layout {
    /// None when the counts are beyond what any table has, so that all later arithmetic is exact.
    pub(super) fn new(counts: &Counts) -> Option<Self> {
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
            buckets: section(counts.buckets, size_of::<Bucket>())?,
            rows: section(counts.entries, size_of::<RawRow>())?,
            attrs: section(counts.entries, size_of::<RawAttr>())?,
            blobs: section(counts.blobs, 32)?,
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

/// Slots of the hash index that are looked at in one go.
pub(super) type Bucket = [U32; BUCKET];
pub(super) const BUCKET: usize = 16;

/// Buckets for so many names: at most 70 % full, and never quite full, so that a search for a miss ends.
pub(super) fn buckets_for(names: u64) -> u64 {
    (names * 10 / 7 + 1).div_ceil(BUCKET as u64)
}

/// Where a hash is looked for, and the bits of it that are kept in a slot: one cache line tells whether a
/// name is there, nearly always.
pub(super) struct Probe {
    pub(super) bucket: usize,
    /// Set above the bits of the position.
    pub(super) tag: u32,
}

/// Low bits of a slot that hold the position.
pub(super) fn position_bits(rows: usize) -> u32 {
    usize::BITS - (rows - 1).leading_zeros()
}

impl Probe {
    /// The bucket comes from the upper half of the hash, the tag from the lower.
    pub(super) fn new(hash: u64, buckets: usize, position_bits: u32) -> Self {
        let bucket = ((hash >> 32) * buckets as u64) >> 32;
        Self { bucket: bucket as usize, tag: (hash as u32).unbounded_shl(position_bits) }
    }
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
