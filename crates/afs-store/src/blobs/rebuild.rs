//! Rebuilds the index of blobs from packs and raw files alone, for when the journal's is lost or damaged.
//!
//! Guarantees: every record that is whole is found, also behind a damaged one (the next magic with a right header is searched for); every payload and raw
//! file is verified before it is listed; of an object in a git pack, that the record is whole (the object is verified whenever it is read); of a damaged raw file
//! that the index knew, those parts stay readable that are whole; an interrupted rebuild is noticed at the next opening.
//!
//! Deliberately absent: repair of damaged bytes; they are reported with file and offset.

use super::append::{AppendFiles, FILE_HEADER, Kind};
use super::flush::{NEXT, TOTALS, Totals};
use super::git::{self, GitObject};
use super::location::{Location, Packed};
use super::raw::RawStore;
use super::record::{Codec, HEADER, Header, MAGIC};
use super::state::{KEY_CHECK, REBUILDING, key_check, make_dir, recorded_next};
use crate::journal::{Batch, Journal, Space};
use afs_types::{BlobId, Error, Reason, Result};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries per batch.
const BATCH: usize = 4096;

/// A place in a file that could not be read as a blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// First byte that makes no sense.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// What a rebuild found.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Rebuilt {
    /// Blobs in the new index.
    pub blobs: u64,
    /// Packs read.
    pub packs: u64,
    /// Raw files read.
    pub raw_files: u64,
    /// What was left out. Bytes at the end of a pack that a crash cut off are expected and not dangerous.
    pub damaged: Vec<Damage>,
}

/// Replaces the index of blobs by what the files in `dir` say. The store must not be open.
pub fn rebuild_index(dir: &Path, tenant_key: [u8; 32], journal: &dyn Journal) -> Result<Rebuilt> {
    if journal.get(Space::Meta, KEY_CHECK)?.is_some_and(|check| check != key_check(&tenant_key)) {
        return Err(Error::new(Reason::InvalidArgument, "the store was made with another tenant key")
            .with("field", "tenant_key"));
    }
    let mut work = Rebuild {
        key: tenant_key,
        git_key: git::name_key(&tenant_key),
        objects: Vec::new(),
        journal,
        codec: Codec::new().map_err(|e| Error::io("start zstd", e))?,
        batch: Batch::new(),
        totals: Totals::default(),
        seen: HashSet::new(),
        found: Rebuilt::default(),
    };
    let raws = work.raws(&RawStore::open(dir, tenant_key)?)?;
    let mut start = Batch::new();
    start.put(Space::Meta, REBUILDING, b"1");
    start.delete_range(Space::Blob, [0u8; 0], [0xff; 33]);
    let at = journal.submit(start)?;
    journal.wait(at)?;
    // Raw files first: what has one and is in a pack, too, was expanded, and is read from the file.
    work.list_all(raws.whole)?;
    let next = work.packs(&make_dir(dir, "packs")?)?;
    work.list_all(raws.torn)?;
    work.list_objects(&dir.join("packs"))?;
    let logs = AppendFiles::list(&make_dir(dir, "log")?, Kind::Log)?;
    let next = logs.iter().map(|(number, _)| number + 1).max().unwrap_or(1).max(next);
    // A damaged value is replaced: that is what rebuilding is for.
    let recorded =
        recorded_next(journal).or_else(|e| if e.reason == Reason::Corrupt { Ok(1) } else { Err(e) });
    work.finish(next.max(recorded?))
}

struct Rebuild<'a> {
    key: [u8; 32],
    git_key: [u8; 32],
    /// Objects of git packs, with their packs: listed at the end, when it is known which packs are there.
    objects: Vec<(BlobId, Packed, BlobId)>,
    journal: &'a dyn Journal,
    codec: Codec,
    batch: Batch,
    totals: Totals,
    /// A crash may have left the same blob in two packs; 32 bytes each is what one needs to count right.
    seen: HashSet<BlobId>,
    found: Rebuilt,
}

/// Raw files: those that are what they are named after, and those of which some parts are.
#[derive(Default)]
struct Raws {
    whole: Vec<(BlobId, Location)>,
    torn: Vec<(BlobId, Location)>,
}

impl Rebuild<'_> {
    /// Reads all packs; returns the number after the highest.
    fn packs(&mut self, dir: &Path) -> Result<u32> {
        let mut next = 1;
        for (number, _) in AppendFiles::list(dir, Kind::Pack)? {
            let path = dir.join(format!("{number:010}.pack"));
            // 256 MiB at most, and rebuilding is rare: simpler than a window.
            let bytes =
                std::fs::read(&path).map_err(|e| Error::io(format_args!("read {}", path.display()), e))?;
            self.pack(number, &path, &bytes)?;
            self.found.packs += 1;
            next = number + 1;
        }
        Ok(next)
    }

    fn pack(&mut self, number: u32, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut at = FILE_HEADER as usize;
        while at < bytes.len() {
            match self.record(&bytes[at..]) {
                Ok((header, object)) => {
                    let (stored_len, plain_len) = (header.stored_len, header.plain_len);
                    let packed = Packed { pack: number, offset: at as u64, stored_len, plain_len };
                    match object {
                        Some(object) => self.objects.push((header.id, packed, object.pack)),
                        None => self.list(header.id, &Location::Pack(packed))?,
                    }
                    at += header.record_len();
                }
                Err(what) => {
                    self.damage(path, at as u64, what);
                    at = next_record(bytes, at + 1);
                }
            }
        }
        Ok(())
    }

    /// A record that is right, and what it refers to, if it is about an object of a git pack.
    fn record(&mut self, bytes: &[u8]) -> Result<(Header, Option<GitObject>), &'static str> {
        let header = Header::decode(bytes).ok_or("not a record")?;
        let payload = bytes.get(HEADER..header.record_len()).ok_or("the record is cut off")?;
        if header.is_object() {
            let object = GitObject::decode(payload, header.plain_len)
                .filter(|object| object.name(&self.git_key) == header.id);
            return object.map(|object| (header, Some(object))).ok_or("it belongs to another blob");
        }
        let plain = self.codec.decode(&header, payload)?;
        let right = blake3::keyed_hash(&self.key, &plain) == blake3::Hash::from_bytes(header.id.0);
        if right { Ok((header, None)) } else { Err("the bytes do not have the hash they had") }
    }

    /// Lists the objects of git packs. Also those of a pack that is not there: who reads one is told so, and it may come back.
    fn list_objects(&mut self, dir: &Path) -> Result<()> {
        let mut gone = HashSet::new();
        for (id, at, pack) in std::mem::take(&mut self.objects) {
            if !self.seen.contains(&pack) && gone.insert(pack) {
                let what = format!(
                    "the git pack that this and other objects are in, blob {}, is not there",
                    pack.to_hex()
                );
                self.damage(&dir.join(format!("{:010}.pack", at.pack)), at.offset, &what);
            }
            self.list(id, &Location::Pack(at))?;
        }
        Ok(())
    }

    /// Reads all raw files.
    fn raws(&mut self, store: &RawStore) -> Result<Raws> {
        let mut raws = Raws::default();
        for path in store.list()? {
            let (id, shape) = store.measure_path(&path)?;
            self.found.raw_files += 1;
            if path == store.path(&id) {
                raws.whole.push((id, Location::Raw(Arc::new(shape))));
                continue;
            }
            self.damage(&path, 0, "the bytes do not have the hash the file is named after");
            raws.torn.extend(self.torn(&path, shape.len));
        }
        Ok(raws)
    }

    /// The index entry of a damaged file, if what it says of the file's parts is proven by the id: the parts that are whole can be read with it.
    fn torn(&self, path: &Path, len: u64) -> Option<(BlobId, Location)> {
        let id = BlobId::from_hex(path.file_name()?.to_str()?)?;
        let value = self.journal.get(Space::Blob, &id.0).ok()??;
        let location = Location::decode(&id, &value).ok()?;
        let proven =
            matches!(&location, Location::Raw(shape) if shape.len == len && shape.id(&self.key) == Some(id));
        proven.then_some((id, location))
    }

    fn list_all(&mut self, all: Vec<(BlobId, Location)>) -> Result<()> {
        all.iter().try_for_each(|(id, location)| self.list(*id, location))
    }

    fn damage(&mut self, file: &Path, offset: u64, what: &str) {
        self.found.damaged.push(Damage { file: file.to_path_buf(), offset, what: what.into() });
    }

    fn list(&mut self, id: BlobId, location: &Location) -> Result<()> {
        if !self.seen.insert(id) {
            return Ok(());
        }
        self.totals.add(location);
        self.batch.put(Space::Blob, id.0, location.encode());
        if self.batch.len() >= BATCH {
            self.journal.submit(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }

    fn finish(mut self, next: u32) -> Result<Rebuilt> {
        self.batch.put(Space::Meta, NEXT, next.to_le_bytes());
        self.batch.put(Space::Meta, TOTALS, self.totals.encode());
        self.batch.put(Space::Meta, KEY_CHECK, key_check(&self.key));
        self.batch.delete(Space::Meta, REBUILDING);
        let at = self.journal.submit(self.batch)?;
        self.journal.wait(at)?;
        Ok(Rebuilt { blobs: self.totals.blobs, ..self.found })
    }
}

/// Offset of the next thing that looks like a record, or the end.
fn next_record(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at + HEADER <= bytes.len() {
        if bytes[at..].starts_with(&MAGIC) && Header::decode(&bytes[at..]).is_some() {
            return at;
        }
        at += 1;
    }
    bytes.len()
}
