//! Reading of objects from the packs of a bare repository.
//!
//! Guarantees: an object is found or the error says which is missing; no object makes us allocate more than
//! [`MAX_IN_MEMORY`]. A [`Packs`] is shared by threads, a [`Reader`] belongs to one and caches delta bases.
//! Deliberately absent: loose objects (a mirror has none, see [`crate::mirror`]) and writing.

use crate::object::{Commit, Oid, hex, parse_commit};
use afs_types::{Error, Reason, Result};
use gix::odb::pack::cache::lru::MemoryCappedHashmap;
use gix::odb::pack::data::decode::entry::ResolvedBase;
use gix::odb::pack::{data, index};
use std::path::{Path, PathBuf};

/// Larger objects are never decoded in memory: callers stream them through the `git` program.
pub(crate) const MAX_IN_MEMORY: usize = 64 << 20;
/// Delta bases kept per thread, in bytes.
const CACHE_BYTES: usize = 48 << 20;

struct Pack {
    index: index::File,
    data: data::File,
}

impl Pack {
    fn open(path: &Path, id: u32) -> Result<Self> {
        let idx = path.with_extension("idx");
        let index = index::File::at(&idx, gix::hash::Kind::Sha1).map_err(|e| damaged(&idx, e))?;
        let data = data::File::at(path, gix::hash::Kind::Sha1).map_err(|e| damaged(path, e))?;
        let mut data = data.with_alloc_limit_bytes(Some(MAX_IN_MEMORY));
        // The delta cache is keyed by this number: it must be unique in a `Packs`.
        data.id = id;
        Ok(Self { index, data })
    }
}

/// The packs of one or more object directories, mapped.
pub(crate) struct Packs {
    packs: Vec<Pack>,
}

/// Where an object lies; sorts in the order that reads a disk and delta chains well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pack: u32,
    offset: u64,
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
                packs.push(Pack::open(path, packs.len() as u32)?);
                Ok(())
            });
            tries += 1;
            match opened {
                Ok(()) => return Ok(Self { packs }),
                // Consolidated between the listing and the opening: its objects are in a newer pack.
                Err(_) if tries < 5 && paths.iter().any(|p| !p.exists()) => {}
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

    /// A reader for one thread.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            packs: self,
            cache: MemoryCappedHashmap::new(CACHE_BYTES),
            inflate: gix::zlib::Inflate::default(),
            buffer: Vec::new(),
        }
    }
}

/// Reads objects; one per thread.
pub(crate) struct Reader<'a> {
    packs: &'a Packs,
    cache: MemoryCappedHashmap,
    inflate: gix::zlib::Inflate,
    buffer: Vec<u8>,
}

/// The outcome of reading an object.
pub(crate) enum Object<'a> {
    Whole(Kind, &'a [u8]),
    /// More than [`MAX_IN_MEMORY`] would be needed.
    TooLarge,
}

impl Reader<'_> {
    /// Reads the object at `place`; `oid` is for errors.
    pub(crate) fn read_at(&mut self, oid: &Oid, place: Place) -> Result<Object<'_>> {
        let pack = &self.packs.packs[place.pack as usize];
        let path = pack.data.path();
        let bad = |e: gix::Error| damaged(path, format_args!("object {}: {e}", hex(oid)));
        let entry = pack.data.entry(place.offset).map_err(bad)?;
        let resolve = |id: &gix::oid, _: &mut Vec<u8>| -> gix::Result<Option<ResolvedBase>> {
            let Some(at) = pack.index.lookup(id) else { return Ok(None) };
            let base = pack.data.entry(pack.index.pack_offset_at_index(at))?;
            Ok(Some(ResolvedBase::InPack(base)))
        };
        let read =
            pack.data.decode_entry(entry, &mut self.buffer, &mut self.inflate, &resolve, &mut self.cache);
        let outcome = match read {
            Ok(outcome) => outcome,
            Err(e) if gix::error::classify(&e).is_resource_exhausted() => return Ok(Object::TooLarge),
            Err(e) => return Err(bad(e)),
        };
        // Large objects are rare: do not keep their memory. (`outcome.object_size` is wrong for what came from the cache.)
        if self.buffer.capacity() > 4 << 20 && self.buffer.len() < 1 << 20 {
            self.buffer.shrink_to(1 << 20);
        }
        Ok(Object::Whole(outcome.kind, &self.buffer))
    }

    /// Reads an object of a kind that must be small enough and must be there.
    pub(crate) fn expect(&mut self, oid: &Oid, want: Kind) -> Result<&[u8]> {
        let Some(place) = self.packs.find(oid) else { return Err(missing(oid)) };
        match self.read_at(oid, place)? {
            Object::Whole(kind, bytes) if kind == want => Ok(bytes),
            Object::Whole(kind, _) => Err(wrong_kind(oid, kind, want)),
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

/// An object that should be there is not.
pub(crate) fn missing(oid: &Oid) -> Error {
    Error::new(Reason::SourceUnavailable, format!("the source lacks object {}", hex(oid)))
        .next("check the source with `git fsck`; a partial clone cannot be imported")
}

/// An object is of another kind than its user says.
pub(crate) fn wrong_kind(oid: &Oid, is: Kind, want: Kind) -> Error {
    Error::new(Reason::HostileTree, format!("object {} is a {is}, not a {want}", hex(oid)))
}
