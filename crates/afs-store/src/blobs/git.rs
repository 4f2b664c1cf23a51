//! Contents that are objects of a git pack: the pack is a blob of the store, and a record says where in it the object is.
//!
//! Why: a repository's packs are in the store anyway, for the sessions' own git. Storing every file of a commit once more would double the bytes and make an
//! import as long as the contents are large; naming them costs the same for every content.
//!
//! Such a blob is named by the keyed BLAKE3, under a key of its own, of the whole reference: the pack's id, git's name of the object, its place, its length. So a name
//! stands for the same bytes for ever, or for the same error, whoever imports what: no other pack, and no wrong index of the same pack, changes what it leads to.
//!
//! Guarantees: what is read has the SHA-1 that git calls it by, and comes from bytes that have the pack's own hash; an object needs memory of
//! at most [`limits::MAX_PACKED_BLOB_BYTES`], or three times [`MAX_DELTA_BYTES`], and a piece of the pack; at most [`MAX_CHAIN_BYTES`] are made for it. What deltas are
//! made from is kept, up to a bound, so that a family of deltas costs one inflating of each. A large object gets a raw file when it is first read, under the name of its bytes: from then on its own name leads there.
//!
//! Deliberately absent: detection of SHA-1 collisions, which can confuse nobody here (the name is bound to the pack); looking objects up by
//! name: who imports has the pack's index, and stores as bytes what this cannot read (see [`GitObject`]).

use super::BlobStore;
use super::record;
use crate::git_pack::{Delta, EntryHead, EntryKind};
use afs_types::{BlobId, Error, Reason, Result, limits};
use bytes::Bytes;
use sha1::{Digest, Sha1};
use sirocco::Format;
use sirocco::inflate::Decoder;

/// An object of a git pack that the store has as a blob.
///
/// It can be read later if it is a blob of at most [`limits::MAX_PACKED_BLOB_BYTES`], or a delta on one through at most [`MAX_CHAIN`] deltas that say what they stand
/// on by its offset, none of them larger than [`MAX_DELTA_BYTES`] before or after they are applied, and together no more than [`MAX_CHAIN_BYTES`] afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GitObject {
    /// The pack, as a blob.
    pub pack: BlobId,
    /// Git's name of the object.
    pub oid: [u8; 20],
    /// Where its entry begins in the pack.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// Longest delta, and longest object that one is made from or makes.
pub const MAX_DELTA_BYTES: u64 = 16 << 20;
/// Longest chain of deltas; git makes none that is longer.
pub const MAX_CHAIN: usize = 4095;
/// Most bytes that the deltas of one chain may make, all together: who reads the last of them makes them all.
pub const MAX_CHAIN_BYTES: u64 = 64 << 20;
/// What is read of an entry at first: most are shorter.
const WINDOW: usize = 4096;
/// What is read of a longer one at a time.
const PIECE: usize = 64 << 10;
/// Larger ones are not kept for others that are made from them: the cache is behind with forgetting.
const MAX_KEPT: usize = 1 << 20;

impl GitObject {
    /// Bytes of a record's payload: pack, name, offset (little endian).
    pub(super) const PAYLOAD: usize = 60;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pack.0);
        out.extend_from_slice(&self.oid);
        out.extend_from_slice(&self.offset.to_le_bytes());
    }

    /// What a record says that has this payload and is about so many bytes.
    pub(super) fn decode(payload: &[u8], len: u32) -> Option<Self> {
        let (pack, rest) = payload.split_first_chunk()?;
        let (oid, offset) = rest.split_first_chunk()?;
        let offset = u64::from_le_bytes(offset.try_into().ok()?);
        Some(Self { pack: BlobId(*pack), oid: *oid, offset, len })
    }

    /// Its name in the store that has this key.
    pub(super) fn name(&self, key: &[u8; 32]) -> BlobId {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.pack.0);
        bytes[32..52].copy_from_slice(&self.oid);
        bytes[52..60].copy_from_slice(&self.offset.to_le_bytes());
        bytes[60..].copy_from_slice(&self.len.to_le_bytes());
        BlobId(*blake3::keyed_hash(key, &bytes).as_bytes())
    }
}

/// The key of names of objects, from the store's own: no bytes of a blob can have such a name.
pub(super) fn name_key(store_key: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("AetherFS 2026 names of objects of git packs", store_key)
}

/// What is wrong with an object, or why it could not be looked at.
enum Fault {
    Bad(&'static str),
    Failed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl BlobStore {
    /// The object that a record refers to. `anew`: with nothing that was kept of others.
    pub(super) fn read_object(&self, id: &BlobId, object: &GitObject, anew: bool) -> Result<Vec<u8>> {
        let plain = Resolving { store: self, pack: &object.pack, anew }.load(object.offset);
        let plain = plain.map_err(|fault| match fault {
            Fault::Bad(what) => self.bad_object(id, object, what),
            Fault::Failed(error) if error.reason == Reason::Corrupt => {
                self.bad_object(id, object, error.message())
            }
            Fault::Failed(error) => error,
        })?;
        if plain.len() != object.len as usize {
            return Err(self.bad_object(id, object, "it has another length than the record says"));
        }
        if !has_name(&plain, &object.oid) {
            return Err(self.bad_object(id, object, "its bytes do not have the name that git gave them"));
        }
        Ok(plain)
    }

    fn bad_object(&self, id: &BlobId, object: &GitObject, what: &str) -> Error {
        let oid: String = object.oid.iter().map(|byte| format!("{byte:02x}")).collect();
        let (pack, offset) = (object.pack.to_hex(), object.offset);
        let text = format!(
            "blob {}: git object {oid} at offset {offset} of the git pack that is blob {pack}: {what}",
            id.to_hex()
        );
        Error::new(Reason::Corrupt, text)
            .with("blob", id.to_hex())
            .with("object", oid)
            .with("pack", pack)
            .next("check the source with `git fsck`, and import a repaired copy of it under another path or URL; if the source is whole, restore the server's `blobs` from a backup")
    }
}

/// The reading of one object.
struct Resolving<'a> {
    store: &'a BlobStore,
    pack: &'a BlobId,
    anew: bool,
}

impl Resolving<'_> {
    fn kept(&self, at: u64) -> Option<Bytes> {
        if self.anew { None } else { self.store.bases.get(&(*self.pack, at)) }
    }

    fn keep(&self, at: u64, bytes: &Bytes) {
        if !self.anew && bytes.len() <= MAX_KEPT {
            self.store.bases.insert((*self.pack, at), bytes.clone());
        }
    }

    /// Up the chain of deltas to something whole or kept, then down again, delta by delta.
    fn load(&self, offset: u64) -> Result<Vec<u8>, Fault> {
        let (mut chain, mut at) = (Vec::new(), offset);
        let mut base = loop {
            if let Some(known) = self.kept(at) {
                break known;
            }
            let entry = self.entry(at)?;
            match entry.head.kind {
                EntryKind::Blob if chain.is_empty() => {
                    return self.inflate(&entry, limits::MAX_PACKED_BLOB_BYTES);
                }
                EntryKind::Blob => {
                    let bytes = Bytes::from(self.inflate(&entry, MAX_DELTA_BYTES)?);
                    self.keep(at, &bytes);
                    break bytes;
                }
                EntryKind::OffsetDelta(distance) if chain.len() < MAX_CHAIN => {
                    let below = at.checked_sub(distance).filter(|_| distance > 0);
                    chain.push((at, entry));
                    at = below
                        .ok_or(Fault::Bad("it is made from something that is not before it in the pack"))?;
                }
                EntryKind::OffsetDelta(_) => {
                    return Err(Fault::Bad("it is made from more than 4,095 others"));
                }
                EntryKind::NamedDelta | EntryKind::Other => {
                    return Err(Fault::Bad("it is not made from a blob"));
                }
            }
        };
        let mut made = 0;
        while let Some((at, entry)) = chain.pop() {
            let result = apply(&self.inflate(&entry, MAX_DELTA_BYTES)?, &base)?;
            if chain.is_empty() {
                return Ok(result);
            }
            made += result.len() as u64;
            if made > MAX_CHAIN_BYTES {
                return Err(Fault::Bad("more than 64 MiB have to be made for it"));
            }
            base = Bytes::from(result);
            self.keep(at, &base);
        }
        // The object is what others are made from, and was kept.
        Ok(base.to_vec())
    }

    fn entry(&self, at: u64) -> Result<Entry, Fault> {
        let window = self.store.read(self.pack, at, WINDOW)?;
        let head = EntryHead::parse(&window).ok_or(Fault::Bad("there is no object at that place"))?;
        Ok(Entry { at, head, window: window.slice(head.len..) })
    }

    /// What an entry's stream gives.
    fn inflate(&self, entry: &Entry, most: u64) -> Result<Vec<u8>, Fault> {
        let len = entry.head.inflated_len;
        if len > most {
            return Err(Fault::Bad("it is larger than anything that is named and not stored"));
        }
        let mut plain = vec![0; len as usize];
        if plain.len() <= 4 * WINDOW {
            let whole = record::with_codec(|codec| codec.inflate_prefix(&entry.window, &mut plain));
            match whole.map_err(|e| Error::io("start a decompressor", e))? {
                Some(true) => return Ok(plain),
                Some(false) => return Err(BAD_STREAM),
                // It goes on behind the window.
                None => {}
            }
        }
        self.inflate_pieces(entry, &mut plain)?;
        Ok(plain)
    }

    /// The same piece by piece: how long the stream is, only its end tells.
    fn inflate_pieces(&self, entry: &Entry, plain: &mut [u8]) -> Result<(), Fault> {
        let mut decoder = Box::new(Decoder::new(Format::Zlib));
        let (mut at, mut piece, mut made) = (entry.at + entry.head.len as u64, entry.window.clone(), 0);
        loop {
            let step = decoder.decompress(&piece, plain, false).map_err(|_| BAD_STREAM)?;
            let (used, new) = (step.consumed, step.output.len());
            made += new;
            if step.done {
                return if made == plain.len() { Ok(()) } else { Err(BAD_STREAM) };
            }
            if used == 0 && new == 0 {
                // The pack ends, or the stream wants more room than its head says.
                return Err(BAD_STREAM);
            }
            at += used as u64;
            piece = self.store.read(self.pack, at, PIECE)?;
        }
    }
}

const BAD_STREAM: Fault = Fault::Bad("its stream does not decompress to the length that its head says");

/// An entry whose head has been read.
struct Entry {
    at: u64,
    head: EntryHead,
    /// What comes behind the head, or the first of it.
    window: Bytes,
}

fn apply(delta: &[u8], base: &[u8]) -> Result<Vec<u8>, Fault> {
    const BAD: Fault = Fault::Bad("a delta is damaged");
    let delta = Delta::parse(delta).ok_or(BAD)?;
    if delta.result_len > MAX_DELTA_BYTES {
        return Err(Fault::Bad("a delta makes more than may be made of one"));
    }
    let mut result = vec![0; delta.result_len as usize];
    delta.apply(base, &mut result).ok_or(BAD)?;
    Ok(result)
}

/// Whether git calls a blob of these bytes so.
fn has_name(bytes: &[u8], oid: &[u8; 20]) -> bool {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hasher.finalize()[..] == oid[..]
}
