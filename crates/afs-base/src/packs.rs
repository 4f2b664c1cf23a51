//! Reading of objects from the packs of a bare repository.
//!
//! Guarantees: an object is found or the error says which is missing; no object makes us hold more than
//! [`MAX_IN_MEMORY`] beside the kept bases, whatever a pack says, and no chain of deltas is endless. A [`Packs`] is shared by threads, a [`Reader`]
//! belongs to one; it keeps what deltas are made from, so that a family of deltas costs one inflating of each. [`Reader::measure`] tells what of a pack the
//! store can read by itself, and how long it is, without reading it.
//! Packs are mapped, so only those of a mirror are opened, whose files nobody else can cut off (see [`crate::clone_local`]), and never a source's own.
//! Deliberately absent: loose objects (a mirror has none, see [`crate::mirror`]), writing, and a check of object names:
//! git makes it when it fetches, and for a repository on this machine its owner is trusted as by `git clone --local`.

#[cfg(test)]
mod tests;

use crate::object::{Commit, Oid, hex, parse_commit};
use afs_store::git_pack::Delta;
use afs_store::{MAX_CHAIN, MAX_CHAIN_BYTES, MAX_DELTA_BYTES};
use afs_types::{Error, Reason, Result, limits};
use gix::odb::pack::data::entry::Header;
use gix::odb::pack::{data, index};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Larger objects are never decoded in memory: callers stream them through the `git` program.
pub(crate) const MAX_IN_MEMORY: usize = 64 << 20;
/// Bytes of what deltas are made from, kept per thread.
const BASES_BYTES: usize = 48 << 20;
/// A buffer larger than this is given back after use.
const KEEP_BUFFER: usize = 4 << 20;
/// Objects whose length is remembered because others are made from them, per thread.
const MAX_MEASURED: usize = 1 << 17;
/// The two lengths that a delta begins with are not longer.
const DELTA_HEAD: usize = 20;
const BAD_DELTA: &str = "a delta is damaged";

struct Pack {
    index: index::File,
    data: data::File,
}

impl Pack {
    fn open(path: &Path) -> Result<Self> {
        let idx = path.with_extension("idx");
        let index = index::File::at(&idx, gix::hash::Kind::Sha1).map_err(|e| damaged(&idx, e))?;
        let data = data::File::at(path, gix::hash::Kind::Sha1).map_err(|e| damaged(path, e))?;
        Ok(Self { index, data })
    }
}

/// The packs of one or more object directories, mapped.
pub(crate) struct Packs {
    packs: Vec<Pack>,
}

/// Where an object lies; sorts in the order that reads a disk and delta chains well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Place {
    /// Number of the pack.
    pub(crate) pack: u32,
    pub(crate) offset: u64,
}

/// What kind of object was read.
pub(crate) use gix::objs::Kind;

fn damaged(path: &Path, e: impl std::fmt::Display) -> Error {
    Error::new(Reason::Corrupt, format!("{}: {e}", path.display()))
}

/// The paths of the packs (`.pack`) in an object directory that have an index, sorted by name.
pub(crate) fn list(objects: &Path) -> Result<Vec<PathBuf>> {
    let dir = objects.join("pack");
    let step = |e| Error::io(format_args!("list {}", dir.display()), e);
    let mut packs = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(step)? {
        let path = entry.map_err(step)?.path();
        if path.extension().is_some_and(|e| e == "pack") && path.with_extension("idx").exists() {
            packs.push(path);
        }
    }
    packs.sort();
    Ok(packs)
}

impl Packs {
    /// Maps all packs of the object directories that exist. Packs that are deleted later stay readable.
    pub(crate) fn open(object_dirs: &[PathBuf]) -> Result<Self> {
        let mut tries = 0;
        loop {
            let mut packs = Vec::new();
            let mut paths = Vec::new();
            for dir in object_dirs.iter().filter(|d| d.exists()) {
                paths.extend(list(dir)?);
            }
            let opened = paths.iter().try_for_each(|path| {
                packs.push(Pack::open(path)?);
                Ok(())
            });
            tries += 1;
            match opened {
                Ok(()) => return Ok(Self { packs }),
                // Consolidated between the listing and the opening: its objects are in a newer pack. Git takes the index away first.
                Err(_)
                    if tries < 5
                        && paths.iter().any(|p| !p.exists() || !p.with_extension("idx").exists()) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Where an object is.
    pub(crate) fn find(&self, oid: &Oid) -> Option<Place> {
        let id = gix::hash::oid::try_from_bytes(oid).ok()?;
        self.packs.iter().enumerate().find_map(|(pack, p)| {
            let at = p.index.lookup(id)?;
            Some(Place { pack: pack as u32, offset: p.index.pack_offset_at_index(at) })
        })
    }

    /// Their files, in order of their numbers.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.packs.iter().map(|pack| pack.data.path())
    }

    /// A reader for one thread.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            packs: self,
            known: Bases::default(),
            measured: HashMap::new(),
            inflate: gix::zlib::Inflate::default(),
            buffer: Vec::new(),
            delta: Vec::new(),
        }
    }
}

/// Why an object cannot be read; whoever knows its name makes an error of it.
enum Fault {
    TooLarge,
    Damaged(String),
}

impl From<gix::Error> for Fault {
    fn from(e: gix::Error) -> Self {
        Self::Damaged(e.to_string())
    }
}

fn fault(what: &str) -> Fault {
    Fault::Damaged(what.to_owned())
}

impl Pack {
    /// Inflates an entry into exactly `out`; returns the zlib stream that it is in the pack.
    fn inflate(
        &self,
        inflate: &mut gix::zlib::Inflate,
        entry: &data::Entry,
        out: &mut [u8],
    ) -> Result<&[u8], Fault> {
        let end = self.data.data_len() as u64;
        let input = self.data.entry_slice(entry.data_offset.min(end)..end).unwrap_or_default();
        inflate.reset();
        let (status, used, made) = inflate.once(input, out)?;
        if status != gix::zlib::Status::StreamEnd || made != out.len() {
            return Err(fault("its length is not the one in its header"));
        }
        Ok(&input[..used])
    }

    /// Length of what a delta makes, as it says itself; none if it is damaged, or anything about it is larger than the store reads.
    fn result_len(&self, inflate: &mut gix::zlib::Inflate, entry: &data::Entry) -> Option<u32> {
        if entry.decompressed_size > MAX_DELTA_BYTES {
            return None;
        }
        let end = self.data.data_len() as u64;
        let input = self.data.entry_slice(entry.data_offset.min(end)..end)?;
        let mut head = [0; DELTA_HEAD];
        inflate.reset();
        let (_, _, made) = inflate.prefix(input, &mut head).ok()?;
        let delta = Delta::parse(&head[..made])?;
        let fits = delta.base_len <= MAX_DELTA_BYTES && delta.result_len <= MAX_DELTA_BYTES;
        fits.then_some(delta.result_len as u32)
    }

    /// What a delta is made from; always in the same pack.
    fn base_of(&self, place: Place, entry: &data::Entry) -> Result<Place, Fault> {
        let offset = match &entry.header {
            Header::OfsDelta { base_distance } if *base_distance > 0 => place
                .offset
                .checked_sub(*base_distance)
                .ok_or_else(|| fault("it stands on bytes before the pack"))?,
            Header::RefDelta { base_id } => {
                let at = self
                    .index
                    .lookup(base_id)
                    .ok_or_else(|| fault("what it is made from is not in the pack"))?;
                self.index.pack_offset_at_index(at)
            }
            _ => return Err(fault("it is made from itself")),
        };
        Ok(Place { offset, ..place })
    }
}

/// Objects that others are made from, the oldest forgotten first.
#[derive(Default)]
struct Bases {
    all: HashMap<Place, (Kind, Rc<Vec<u8>>)>,
    order: VecDeque<Place>,
    bytes: usize,
}

impl Bases {
    fn get(&self, place: Place) -> Option<(Kind, Rc<Vec<u8>>)> {
        self.all.get(&place).cloned()
    }

    fn keep(&mut self, place: Place, kind: Kind, bytes: Rc<Vec<u8>>) {
        if bytes.len() > BASES_BYTES / 4 || self.all.contains_key(&place) {
            return;
        }
        self.bytes += bytes.len();
        self.all.insert(place, (kind, bytes));
        self.order.push_back(place);
        while self.bytes > BASES_BYTES {
            let Some((_, gone)) = self.order.pop_front().and_then(|oldest| self.all.remove(&oldest)) else {
                return;
            };
            self.bytes -= gone.len();
        }
    }
}

/// What is known of the result of a delta.
#[derive(Clone, Copy, Default)]
struct Measured {
    len: u32,
    /// Deltas from here down.
    depth: usize,
    /// Bytes that those below make.
    made: u64,
}

impl Measured {
    /// The result of a delta on this. None if that is too much work for whoever reads it.
    fn above(self, len: u32) -> Option<Self> {
        let made = if self.depth > 0 { self.made + u64::from(self.len) } else { 0 };
        let above = Self { len, depth: self.depth + 1, made };
        (above.depth <= MAX_CHAIN && made <= MAX_CHAIN_BYTES).then_some(above)
    }
}

/// Reads objects; one per thread.
pub(crate) struct Reader<'a> {
    packs: &'a Packs,
    known: Bases,
    /// Deltas that have been looked at, if the store can make what they make.
    measured: HashMap<Place, Option<Measured>>,
    inflate: gix::zlib::Inflate,
    /// The newest object, and what an earlier one needed more.
    buffer: Vec<u8>,
    delta: Vec<u8>,
}

/// The outcome of reading an object.
pub(crate) enum Object<'a> {
    Whole {
        kind: Kind,
        bytes: &'a [u8],
        /// The zlib stream of these bytes in the pack, if the object is not a delta.
        zlib: Option<&'a [u8]>,
    },
    /// More than [`MAX_IN_MEMORY`] would be needed.
    TooLarge,
}

impl<'a> Reader<'a> {
    /// Reads the object at `place`; `oid` is for errors.
    pub(crate) fn read_at(&mut self, oid: &Oid, place: Place) -> Result<Object<'_>> {
        // Large objects are rare: their memory is not kept.
        if self.buffer.len() > KEEP_BUFFER {
            self.buffer = Vec::new();
        }
        if self.delta.len() > KEEP_BUFFER {
            self.delta = Vec::new();
        }
        match self.load(place) {
            Ok((kind, len, zlib)) => Ok(Object::Whole { kind, bytes: &self.buffer[..len], zlib }),
            Err(Fault::TooLarge) => Ok(Object::TooLarge),
            Err(Fault::Damaged(what)) => {
                let path = self.packs.packs[place.pack as usize].data.path();
                Err(damaged(path, format_args!("object {}: {what}", hex(oid))))
            }
        }
    }

    /// Length of the object at `place` if the store can read it by itself (see [`afs_store::GitObject`]). None for all else, damage and what is not a blob
    /// included: whoever then reads it learns what is wrong. An object whose streams lie is found out when it is read from the store.
    pub(crate) fn measure(&mut self, place: Place) -> Option<u32> {
        let pack = &self.packs.packs[place.pack as usize];
        if self.measured.len() >= MAX_MEASURED {
            self.measured.clear();
        }
        let (mut chain, mut at) = (Vec::new(), place);
        let mut below = loop {
            if let Some(known) = self.measured.get(&at) {
                break *known;
            }
            let entry = pack.data.entry(at.offset).ok()?;
            match &entry.header {
                Header::Blob if chain.is_empty() => {
                    let fits = entry.decompressed_size <= limits::MAX_PACKED_BLOB_BYTES;
                    return fits.then_some(entry.decompressed_size as u32);
                }
                Header::Blob => {
                    let fits = entry.decompressed_size <= MAX_DELTA_BYTES;
                    break fits.then_some(Measured::default());
                }
                Header::OfsDelta { .. } if chain.len() < MAX_CHAIN => {
                    chain.push((at, pack.result_len(&mut self.inflate, &entry)));
                    at = pack.base_of(at, &entry).ok()?;
                }
                _ => break None,
            }
        };
        for (at, len) in chain.into_iter().rev() {
            below = len.and_then(|len| below?.above(len));
            self.measured.insert(at, below);
        }
        below.map(|object| object.len)
    }

    /// Puts an object into the buffer. Returns its kind, its length, and the stream it came from, if it came from one.
    fn load(&mut self, place: Place) -> Result<(Kind, usize, Option<&'a [u8]>), Fault> {
        let packs = self.packs;
        let pack = &packs.packs[place.pack as usize];
        let entry = pack.data.entry(place.offset)?;
        let Some(kind) = entry.header.as_kind() else {
            let (kind, len) = self.load_delta(pack, place, entry)?;
            return Ok((kind, len, None));
        };
        let len = in_memory(entry.decompressed_size, 0)?;
        let zlib = pack.inflate(&mut self.inflate, &entry, room(&mut self.buffer, len))?;
        Ok((kind, len, Some(zlib)))
    }

    /// The same for a delta: up to something known or whole, then down again, delta by delta.
    fn load_delta(&mut self, pack: &Pack, place: Place, entry: data::Entry) -> Result<(Kind, usize), Fault> {
        let mut chain = Vec::new();
        let (mut at, mut entry) = (place, entry);
        let (kind, mut base) = loop {
            if let Some(known) = self.known.get(at) {
                break known;
            }
            if let Some(kind) = entry.header.as_kind() {
                let mut bytes = vec![0; in_memory(entry.decompressed_size, 0)?];
                pack.inflate(&mut self.inflate, &entry, &mut bytes)?;
                let bytes = Rc::new(bytes);
                self.known.keep(at, kind, Rc::clone(&bytes));
                break (kind, bytes);
            }
            let next = pack.base_of(at, &entry)?;
            if chain.len() == MAX_CHAIN {
                return Err(fault("it is made from more than 4,095 others, one of another"));
            }
            chain.push((at, entry));
            (at, entry) = (next, pack.data.entry(next.offset)?);
        };
        let mut len = base.len();
        let steps = chain.len();
        for (step, (at, entry)) in chain.into_iter().rev().enumerate() {
            let delta_len = in_memory(entry.decompressed_size, base.len() as u64)?;
            let bytes = room(&mut self.delta, delta_len);
            pack.inflate(&mut self.inflate, &entry, bytes)?;
            let delta = Delta::parse(bytes).ok_or_else(|| fault(BAD_DELTA))?;
            len = in_memory(delta.result_len, (base.len() + delta_len) as u64)?;
            if step + 1 == steps {
                delta.apply(&base, room(&mut self.buffer, len)).ok_or_else(|| fault(BAD_DELTA))?;
                return Ok((kind, len));
            }
            let mut result = vec![0; len];
            delta.apply(&base, &mut result).ok_or_else(|| fault(BAD_DELTA))?;
            base = Rc::new(result);
            self.known.keep(at, kind, Rc::clone(&base));
        }
        // The object itself was known.
        room(&mut self.buffer, len).copy_from_slice(&base);
        Ok((kind, len))
    }

    /// Reads an object of a kind that must be small enough and must be there.
    pub(crate) fn expect(&mut self, oid: &Oid, want: Kind) -> Result<&[u8]> {
        let Some(place) = self.packs.find(oid) else { return Err(missing(oid)) };
        match self.read_at(oid, place)? {
            Object::Whole { kind, bytes, .. } if kind == want => Ok(bytes),
            Object::Whole { kind, .. } => Err(wrong_kind(oid, kind, want)),
            Object::TooLarge => {
                Err(Error::new(Reason::HostileTree, format!("{want} {} is larger than 64 MiB", hex(oid))))
            }
        }
    }

    /// Reads a commit.
    pub(crate) fn commit(&mut self, oid: &Oid) -> Result<Commit> {
        parse_commit(self.expect(oid, Kind::Commit)?)
    }
}

/// A length from outside, if it and what is there already fit into memory.
fn in_memory(len: u64, beside: u64) -> Result<usize, Fault> {
    let fits = len.checked_add(beside).is_some_and(|all| all <= MAX_IN_MEMORY as u64);
    if fits { Ok(len as usize) } else { Err(Fault::TooLarge) }
}

/// The first `len` bytes of a buffer that only grows: clearing it each time would cost as much as reading small objects does.
fn room(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

/// Metadata of an error about an object that is not there: its name.
pub(crate) const MISSING: &str = "missing_object";

/// An object that should be there is not.
pub(crate) fn missing(oid: &Oid) -> Error {
    Error::new(Reason::SourceUnavailable, format!("the source is damaged: it lacks object {}", hex(oid)))
        .with(MISSING, hex(oid))
        .next("check the source with `git fsck`, and repair it, for instance with a new clone")
}

/// An object is not the one that its name says.
pub(crate) fn misnamed(oid: &Oid) -> Error {
    Error::new(Reason::Corrupt, format!("what the source has as object {} has another name", hex(oid)))
        .next("check the source with `git fsck`")
}

/// An object is of another kind than its user says.
pub(crate) fn wrong_kind(oid: &Oid, is: Kind, want: Kind) -> Error {
    Error::new(Reason::HostileTree, format!("object {} is a {is}, not a {want}", hex(oid)))
}
