//! A record of a pack: one small blob, self-describing, so that an index can be rebuilt from the packs alone.
//!
//! ```text
//! 0  magic "AFSR"      8  plain_len u32     16 id [32]
//! 4  version u8 = 1   12  stored_len u32    48 check [8]: first bytes of BLAKE3 of bytes 0..48
//! 5  flags u8 (1 = zstd)   6 zero u16       56 payload
//! ```
//! The check proves the header; the id, a keyed hash of the plain bytes, proves the payload. Persisted: never change, add a version.

use afs_types::{BlobId, limits};
use std::cell::RefCell;
use std::io;

/// Bytes before the payload.
pub(super) const HEADER: usize = 56;
/// First bytes of a record.
pub(super) const MAGIC: [u8; 4] = *b"AFSR";
const VERSION: u8 = 1;
const ZSTD: u8 = 1;

/// A header that has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) id: BlobId,
    pub(super) plain_len: u32,
    pub(super) stored_len: u32,
    zstd: bool,
}

impl Header {
    fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = if self.zstd { ZSTD } else { 0 };
        out[8..12].copy_from_slice(&self.plain_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.stored_len.to_le_bytes());
        out[16..48].copy_from_slice(&self.id.0);
        let check = check(&out);
        out[48..].copy_from_slice(&check);
        out
    }

    /// The header at the start of `bytes`, or none if it is not one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let right = bytes[..4] == MAGIC && bytes[4] == VERSION && bytes[48..] == check(bytes);
        if !right || bytes[5] & !ZSTD != 0 {
            return None;
        }
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[16..48]);
        let header =
            Self { id: BlobId(id), plain_len: number(8), stored_len: number(12), zstd: bytes[5] == ZSTD };
        // A length from disk never decides how much memory is taken.
        let sane =
            u64::from(header.plain_len) < limits::PACK_BLOB_BYTES && header.stored_len <= header.plain_len;
        sane.then_some(header)
    }

    /// Header and payload.
    pub(super) fn record_len(&self) -> usize {
        HEADER + self.stored_len as usize
    }
}

fn check(header: &[u8; HEADER]) -> [u8; 8] {
    let hash = blake3::hash(&header[..48]);
    let mut out = [0; 8];
    out.copy_from_slice(&hash.as_bytes()[..8]);
    out
}

/// Turns blobs into records and back; keeps its zstd contexts, which are far dearer than a small blob.
pub(super) struct Codec {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
    scratch: Vec<u8>,
}

impl Codec {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            // Level 1: 3 and above cost twice the time for one or two points (DESIGN 2.6).
            compressor: zstd::bulk::Compressor::new(1)?,
            decompressor: zstd::bulk::Decompressor::new()?,
            scratch: Vec::new(),
        })
    }

    /// Appends the record of a blob to `out`. Compresses where that saves more than 10 %.
    pub(super) fn encode(&mut self, id: &BlobId, plain: &[u8], out: &mut Vec<u8>) -> io::Result<Header> {
        self.scratch.clear();
        // Too small a buffer is zstd's way to say that compressing does not pay.
        let worth = plain.len() - plain.len() / 10;
        self.scratch.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let packed = self.compressor.compress_to_buffer(plain, &mut self.scratch)?;
        let zstd = packed < worth;
        let stored = if zstd { &self.scratch[..packed] } else { plain };
        let header = Header { id: *id, plain_len: plain.len() as u32, stored_len: stored.len() as u32, zstd };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(stored);
        Ok(header)
    }

    /// The plain bytes of a payload. Says what is wrong, not where.
    pub(super) fn decode(&mut self, header: &Header, payload: &[u8]) -> Result<Vec<u8>, &'static str> {
        if !header.zstd {
            return Ok(payload.to_vec());
        }
        let mut plain = Vec::with_capacity(header.plain_len as usize);
        match self.decompressor.decompress_to_buffer(payload, &mut plain) {
            Ok(n) if n == header.plain_len as usize => Ok(plain),
            Ok(_) => Err("the payload has another length than the header says"),
            Err(_) => Err("the payload does not decompress"),
        }
    }
}

/// Lends this thread's codec.
pub(super) fn with_codec<T>(work: impl FnOnce(&mut Codec) -> T) -> io::Result<T> {
    thread_local! {
        static CODEC: RefCell<Option<Codec>> = const { RefCell::new(None) };
    }
    CODEC.with_borrow_mut(|codec| match codec {
        Some(codec) => Ok(work(codec)),
        None => Ok(work(codec.insert(Codec::new()?))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_are_compressed_only_when_it_pays() {
        let mut codec = Codec::new().unwrap();
        let noise: Vec<u8> = (0..4000u64).map(|i| crate::sim::mix(i) as u8).collect();
        for (plain, zstd) in [(&b""[..], false), (b"x", false), (&[b'a'; 5000], true), (&noise, false)] {
            let mut out = b"before".to_vec();
            let header = codec.encode(&BlobId([3; 32]), plain, &mut out).unwrap();
            assert_eq!(header.zstd, zstd);
            let record = &out[6..];
            assert_eq!(Header::decode(record), Some(header));
            assert_eq!(record.len(), header.record_len());
            assert_eq!(codec.decode(&header, &record[HEADER..]).unwrap(), plain);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let mut out = Vec::new();
        Codec::new().unwrap().encode(&BlobId([3; 32]), b"hello", &mut out).unwrap();
        for bit in 0..HEADER * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            // Bytes 6 and 7 are inside the checked part, too.
            assert_eq!(Header::decode(&out), None, "bit {bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
