//! File content as extents: which bytes of a file come from which blob or place in the data log.
//!
//! Guarantees: pieces never overlap, lie inside `[0, size)`, and are addressed by file offset in a persistent map, so that a
//! 4 KiB write into a 1 GiB file costs one piece and a fork shares the rest. What no piece covers is a hole and reads
//! as zeros. Deliberately absent: the bytes themselves, and hashing (a sealer does that, never the write path).

use crate::codec::{Dec, Enc};
use crate::pmap::PMap;
use afs_types::{BlobId, Result};
use std::sync::Arc;

/// A place in the data log: segment number and byte offset in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRef {
    /// Segment number.
    pub segment: u32,
    /// First byte.
    pub offset: u64,
}

/// Where bytes come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Bytes appended to the data log, not hashed.
    Log(LogRef),
    /// Bytes of a blob, from an offset in it.
    Blob(BlobId, u64),
}

impl Source {
    pub(crate) fn for_segment(&self, visit: &mut impl FnMut(u32)) {
        if let Self::Log(at) = self {
            visit(at.segment);
        }
    }
    fn skip(self, by: u64) -> Self {
        match self {
            Self::Log(at) => Self::Log(LogRef { segment: at.segment, offset: at.offset + by }),
            Self::Blob(id, offset) => Self::Blob(id, offset + by),
        }
    }
}

/// A run of bytes of a file with one source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Bytes.
    pub len: u64,
    /// Where they come from.
    pub source: Source,
}

/// The content of one inode. The forms without a map are the common ones and cost no allocation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Content {
    /// Nothing but holes.
    #[default]
    Empty,
    /// `[0, len)` is a whole blob; the number is the blob's length. A part of a blob is a piece of a map, so that nobody takes
    /// the blob for the content.
    Blob(BlobId, u64),
    /// `[0, len)` is one run of the data log.
    Log(LogRef, u64),
    /// Anything else, by file offset.
    Map(PMap<u64, Piece>),
    /// The target of a symbolic link.
    Inline(Arc<[u8]>),
}

/// A run of a read plan: file offset, bytes, source (none: a hole).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// First byte in the file.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Where they come from; none is a hole.
    pub source: Option<Source>,
}

impl Content {
    /// Puts `len` bytes at `offset`, replacing what was there. `size` is the size before.
    pub fn write(&mut self, size: u64, offset: u64, len: u64, source: Source) {
        if len == 0 {
            return;
        }
        match (&mut *self, source) {
            // A file written front to back in one go: the run grows in place.
            (Self::Log(at, have), Source::Log(new))
                if offset == *have && new.segment == at.segment && new.offset == at.offset + *have =>
            {
                *have += len;
            }
            (_, Source::Log(new)) if offset == 0 && len >= size => *self = Self::Log(new, len),
            _ => self.map_mut(size).put(offset, Piece { len, source }),
        }
    }

    /// Cuts everything from `size` on.
    pub fn truncate(&mut self, size: u64) {
        match self {
            Self::Empty | Self::Inline(_) => {}
            _ if size == 0 => *self = Self::Empty,
            Self::Log(_, len) => *len = (*len).min(size),
            Self::Blob(_, len) if *len <= size => {}
            // What is left is not that blob any more.
            Self::Blob(_, len) => {
                let len = *len;
                self.map_mut(len).clear(size, u64::MAX);
            }
            Self::Map(map) => map.clear(size, u64::MAX),
        }
    }

    /// Makes a hole. `size` is the size of the file.
    pub fn punch(&mut self, size: u64, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        if matches!(self, Self::Empty | Self::Inline(_)) || len == 0 {
            return;
        }
        if offset == 0 && end >= size {
            *self = Self::Empty;
            return;
        }
        self.map_mut(size).clear(offset, end);
    }

    /// The runs that make up `[offset, offset + len)` of a file of `size` bytes, in order and without gaps.
    pub fn runs(&self, size: u64, offset: u64, len: u64) -> Vec<Run> {
        let end = offset.saturating_add(len).min(size);
        let mut runs = Vec::new();
        let mut at = offset;
        self.for_pieces(offset, end, &mut |start, piece| {
            let from = start.max(offset);
            let to = (start + piece.len).min(end);
            if from > at {
                runs.push(Run { start: at, len: from - at, source: None });
            }
            runs.push(Run { start: from, len: to - from, source: Some(piece.source.skip(from - start)) });
            at = to;
        });
        if at < end {
            runs.push(Run { start: at, len: end - at, source: None });
        }
        runs
    }

    /// The single blob that is exactly the whole content of a file of `size` bytes, if so.
    pub fn whole_blob(&self, size: u64) -> Option<BlobId> {
        match self {
            Self::Blob(id, len) if *len == size => Some(*id),
            _ => None,
        }
    }

    /// The content that consists of these pieces, in order of offset; what is between them are holes.
    pub fn of_pieces(pieces: impl IntoIterator<Item = (u64, Piece)>) -> Self {
        let mut map = PMap::new();
        for (start, piece) in pieces {
            map.insert(start, piece);
        }
        if map.is_empty() { Self::Empty } else { Self::Map(map) }
    }

    /// True when some bytes lie in the data log, so that a sealer has work.
    pub fn is_unsealed(&self) -> bool {
        match self {
            Self::Log(..) => true,
            Self::Map(map) => map.iter().any(|(_, p)| matches!(p.source, Source::Log(_))),
            Self::Empty | Self::Blob(..) | Self::Inline(_) => false,
        }
    }

    /// Bytes that are not holes.
    pub fn allocated(&self, size: u64) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Inline(target) => target.len() as u64,
            Self::Blob(_, len) | Self::Log(_, len) => (*len).min(size),
            Self::Map(map) => map.iter().map(|(_, p)| p.len).sum(),
        }
    }

    /// Bytes on the heap, as if nothing were shared.
    pub(crate) fn heap_bytes(&self) -> u64 {
        // A piece with its offset, and its share of the map's nodes.
        const PIECE: u64 = size_of::<(u64, Piece)>() as u64 * 9 / 8;
        match self {
            Self::Empty | Self::Blob(..) | Self::Log(..) => 0,
            Self::Map(map) => map.len() as u64 * PIECE,
            Self::Inline(target) => target.len() as u64 + 2 * size_of::<usize>() as u64,
        }
    }

    /// Calls `visit` with every blob named.
    pub fn for_blobs(&self, visit: &mut impl FnMut(&BlobId)) {
        match self {
            Self::Blob(id, _) => visit(id),
            Self::Map(map) => map.iter().for_each(|(_, p)| {
                if let Source::Blob(id, _) = &p.source {
                    visit(id);
                }
            }),
            Self::Empty | Self::Log(..) | Self::Inline(_) => {}
        }
    }

    /// Calls `visit` with the segments of the data log that are named; some more than once.
    pub fn for_segments(&self, visit: &mut impl FnMut(u32)) {
        match self {
            Self::Log(at, _) => visit(at.segment),
            Self::Map(map) => map.iter().for_each(|(_, p)| p.source.for_segment(visit)),
            Self::Empty | Self::Blob(..) | Self::Inline(_) => {}
        }
    }

    fn for_pieces(&self, from: u64, to: u64, visit: &mut impl FnMut(u64, Piece)) {
        let mut one = |len: u64, source| {
            if from < len && from < to {
                visit(0, Piece { len, source });
            }
        };
        match self {
            Self::Empty | Self::Inline(_) => {}
            Self::Blob(id, len) => one(*len, Source::Blob(*id, 0)),
            Self::Log(at, len) => one(*len, Source::Log(*at)),
            Self::Map(map) => {
                let first = map.at_or_before(from).filter(|(s, p)| s + p.len > from);
                let start = first.map_or(from, |(s, _)| s);
                for (s, p) in map.range(start..to) {
                    visit(*s, *p);
                }
            }
        }
    }

    fn map_mut(&mut self, size: u64) -> &mut PMap<u64, Piece> {
        if !matches!(self, Self::Map(_)) {
            let mut map = PMap::new();
            self.for_pieces(0, size, &mut |start, piece| {
                map.insert(start, Piece { len: piece.len.min(size - start), source: piece.source });
            });
            *self = Self::Map(map);
        }
        match self {
            Self::Map(map) => map,
            // The line above made it one.
            _ => unreachable!("content was made a map"),
        }
    }

    pub(crate) fn encode(&self, e: &mut Enc) {
        match self {
            Self::Empty => {
                e.u8(0);
            }
            Self::Blob(id, len) => {
                e.u8(1).blob(id).u64(*len);
            }
            Self::Log(at, len) => {
                e.u8(2).u32(at.segment).u64(at.offset).u64(*len);
            }
            Self::Map(map) => {
                e.u8(3).u64(map.len() as u64);
                for (start, piece) in map.iter() {
                    e.u64(*start).u64(piece.len);
                    encode_source(&piece.source, e);
                }
            }
            Self::Inline(bytes) => {
                e.u8(4).bytes(bytes);
            }
        }
    }

    pub(crate) fn decode(d: &mut Dec<'_>) -> Result<Self> {
        Ok(match d.u8()? {
            0 => Self::Empty,
            1 => Self::Blob(d.blob()?, d.u64()?),
            2 => Self::Log(LogRef { segment: d.u32()?, offset: d.u64()? }, d.u64()?),
            3 => {
                let mut map = PMap::new();
                for _ in 0..d.count()? {
                    let (start, len) = (d.u64()?, d.u64()?);
                    map.insert(start, Piece { len, source: decode_source(d)? });
                }
                Self::Map(map)
            }
            4 => Self::Inline(d.bytes()?.into()),
            _ => return Err(d.corrupt("unknown kind of content")),
        })
    }
}

pub(crate) fn encode_source(source: &Source, e: &mut Enc) {
    match source {
        Source::Log(at) => e.u8(0).u32(at.segment).u64(at.offset),
        Source::Blob(id, offset) => e.u8(1).blob(id).u64(*offset),
    };
}

pub(crate) fn decode_source(d: &mut Dec<'_>) -> Result<Source> {
    match d.u8()? {
        0 => Ok(Source::Log(LogRef { segment: d.u32()?, offset: d.u64()? })),
        1 => Ok(Source::Blob(d.blob()?, d.u64()?)),
        _ => Err(d.corrupt("unknown kind of source")),
    }
}

/// The two edits of an extent map.
trait Extents {
    fn at_or_before(&self, offset: u64) -> Option<(u64, Piece)>;
    fn clear(&mut self, from: u64, to: u64);
    fn put(&mut self, start: u64, piece: Piece);
}

impl Extents for PMap<u64, Piece> {
    fn at_or_before(&self, offset: u64) -> Option<(u64, Piece)> {
        self.floor(&offset).map(|(s, p)| (*s, *p))
    }

    /// Removes `[from, to)`, splitting the pieces at its ends.
    fn clear(&mut self, from: u64, to: u64) {
        if let Some((start, piece)) = self.at_or_before(from)
            && start < from
            && start + piece.len > from
        {
            self.insert(start, Piece { len: from - start, source: piece.source });
            if start + piece.len > to {
                self.insert(to, Piece { len: start + piece.len - to, source: piece.source.skip(to - start) });
                return;
            }
        }
        let inside: Vec<(u64, Piece)> = self.range(from..to).map(|(s, p)| (*s, *p)).collect();
        for (start, piece) in inside {
            self.remove(&start);
            if start + piece.len > to {
                self.insert(to, Piece { len: start + piece.len - to, source: piece.source.skip(to - start) });
            }
        }
    }

    /// Puts a piece, joined with the one before when it goes on in the same place.
    fn put(&mut self, start: u64, piece: Piece) {
        self.clear(start, start + piece.len);
        if let Some((s, before)) = start.checked_sub(1).and_then(|at| self.at_or_before(at))
            && s + before.len == start
            && before.source.skip(before.len) == piece.source
        {
            self.insert(s, Piece { len: before.len + piece.len, source: before.source });
            return;
        }
        self.insert(start, piece);
    }
}

#[cfg(test)]
#[path = "extent_tests.rs"]
mod tests;
