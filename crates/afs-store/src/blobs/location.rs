//! Where a blob lies: the value of an index entry (`Space::Blob`, key = the 32 bytes of the id). Little endian.
//!
//! ```text
//! pack: 1 | pack u32 | offset u64 | stored_len u32 | plain_len u32
//! raw:  2 | len u64 | log2 of the chunk length u8 | chaining value [32] per chunk, none if there is one chunk
//! same: 3 | len u64 | id [32] of a raw blob with the same bytes (see `git`)
//! ```

use super::git::GitObject;
use super::raw::RawShape;
use super::record;
use afs_types::{BlobId, Error, Reason, Result, limits};
use std::sync::Arc;

const PACK: u8 = 1;
const RAW: u8 = 2;
const SAME: u8 = 3;

/// Where a blob lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Location {
    /// A record in a pack.
    Pack(Packed),
    /// A file of its own, `blobs/xx/<id>`.
    Raw(Arc<RawShape>),
    /// The file of another blob, which has these bytes and is named by their hash; and their length.
    Same(BlobId, u64),
}

/// A record in a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packed {
    pub(super) pack: u32,
    /// Of the record's header.
    pub(super) offset: u64,
    /// Of the payload, without the header.
    pub(super) stored_len: u32,
    pub(super) plain_len: u32,
}

impl Packed {
    /// Whether it is of the size that gets a raw file when it is read.
    pub(super) fn is_large(&self) -> bool {
        u64::from(self.plain_len) >= limits::PACK_BLOB_BYTES
    }

    /// First byte behind the record.
    pub(super) fn end(&self) -> u64 {
        self.offset + (record::HEADER + self.stored_len as usize) as u64
    }
}

impl Location {
    pub(super) fn len(&self) -> u64 {
        match self {
            Location::Pack(at) => u64::from(at.plain_len),
            Location::Raw(shape) => shape.len,
            Location::Same(_, len) => *len,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Location::Pack(at) => {
                let mut out = vec![PACK];
                out.extend(at.pack.to_le_bytes());
                out.extend(at.offset.to_le_bytes());
                out.extend(at.stored_len.to_le_bytes());
                out.extend(at.plain_len.to_le_bytes());
                out
            }
            Location::Raw(shape) => {
                let mut out = vec![RAW];
                out.extend(shape.len.to_le_bytes());
                out.push(shape.chunk_log2);
                out.extend(shape.chunks.iter().flatten());
                out
            }
            Location::Same(id, len) => {
                let mut out = vec![SAME];
                out.extend(len.to_le_bytes());
                out.extend(id.0);
                out
            }
        }
    }

    pub(super) fn decode(id: &BlobId, value: &[u8]) -> Result<Self> {
        parse(value).ok_or_else(|| {
            Error::new(Reason::Corrupt, format!("the index entry of blob {} is damaged", id.to_hex()))
                .with("blob", id.to_hex())
                .next("stop the server and rebuild the index of blobs: afs-server repair --data DIR")
        })
    }

    /// Bytes one entry of a cache of locations needs, roughly.
    pub(super) fn weight(&self) -> u32 {
        96 + match self {
            Location::Pack(_) | Location::Same(..) => 0,
            Location::Raw(shape) => 64 + 32 * shape.chunks.len() as u32,
        }
    }
}

fn parse(value: &[u8]) -> Option<Location> {
    let (kind, rest) = value.split_first()?;
    match *kind {
        PACK => {
            let rest: &[u8; 20] = rest.try_into().ok()?;
            let at = Packed {
                pack: u32::from_le_bytes(rest[..4].try_into().ok()?),
                offset: u64::from_le_bytes(rest[4..12].try_into().ok()?),
                stored_len: u32::from_le_bytes(rest[12..16].try_into().ok()?),
                plain_len: u32::from_le_bytes(rest[16..].try_into().ok()?),
            };
            let sane = u64::from(at.plain_len) <= limits::MAX_PACKED_BLOB_BYTES
                && at.stored_len <= at.plain_len.max(GitObject::PAYLOAD as u32);
            sane.then_some(Location::Pack(at))
        }
        RAW => {
            let (len, rest) = rest.split_first_chunk::<8>()?;
            let (chunk_log2, rest) = rest.split_first()?;
            let (chunks, []) = rest.as_chunks::<32>() else { return None };
            let shape =
                RawShape { len: u64::from_le_bytes(*len), chunk_log2: *chunk_log2, chunks: chunks.to_vec() };
            shape.is_sane().then(|| Location::Raw(Arc::new(shape)))
        }
        SAME => {
            let (len, id) = rest.split_first_chunk::<8>()?;
            Some(Location::Same(BlobId(id.try_into().ok()?), u64::from_le_bytes(*len)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(location: Location) {
        let bytes = location.encode();
        let id = BlobId([7; 32]);
        assert_eq!(Location::decode(&id, &bytes).unwrap(), location);
        for cut in 0..bytes.len() {
            let error = Location::decode(&id, &bytes[..cut]).unwrap_err();
            assert_eq!(error.reason, Reason::Corrupt);
            assert!(error.message().contains(&id.to_hex()));
        }
        assert!(Location::decode(&id, &[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn entries_survive_and_damage_is_seen() {
        check(Location::Pack(Packed { pack: 7, offset: 1 << 33, stored_len: 20, plain_len: 30 }));
        check(Location::Pack(Packed { pack: 0, offset: 0, stored_len: 0, plain_len: 0 }));
        let whole = RawShape { len: 1 << 20, chunk_log2: 20, chunks: Vec::new() };
        check(Location::Raw(Arc::new(whole)));
        let parts = RawShape { len: (2 << 20) + 1, chunk_log2: 20, chunks: vec![[1; 32], [2; 32], [3; 32]] };
        check(Location::Raw(Arc::new(parts)));
        check(Location::Same(BlobId([9; 32]), 300_000));
    }
}
