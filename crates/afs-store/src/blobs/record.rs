//! A record of a pack: one blob, self-describing, so that an index can be rebuilt from the packs alone.
//!
//! ```text
//! 0  magic "AFSR"      8  plain_len u32     16 id [32]
//! 4  version u8       12  stored_len u32    48 check [8]: first bytes of BLAKE3 of bytes 0..48
//! 5  codec u8          6  zero u16          56 payload
//!
//! codec: 0 = plain, 1 = a zstd frame (both version 1), 2 = a zlib stream (version 2),
//!        4 = a zstd frame of 256 KiB or more (version 4),
//!        3 = where an object of a git pack is (version 3): the pack's id [32], git's name of the object [20], offset u64
//! ```
//! The check proves the header; the id, a keyed hash of the plain bytes, proves the payload (codec 3: see [`super::git`]). Persisted: never change, add a version. A record has the
//! lowest version that has its codec, so that older programs read what they know and refuse the rest.
//!
//! Codec 2 is for what comes out of a git pack: git has compressed it once, as well as zstd would, and doing that again would be the dearest step of an import.
//! With it, and with codec 4, blobs of 256 KiB and more are in packs, until they are first read (see [`super::expand`]). Codec 4 is for what an import makes itself and few
//! will read, such as git's index.

use super::git::GitObject;
use afs_types::{BlobId, limits};
use sirocco::Format;
use sirocco::inflate::{self, Decoder};
use std::cell::RefCell;
use std::io;

/// Bytes before the payload.
pub(super) const HEADER: usize = 56;
/// First bytes of a record.
pub(super) const MAGIC: [u8; 4] = *b"AFSR";

/// How the payload says the plain bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Encoding {
    Plain = 0,
    Zstd = 1,
    Zlib = 2,
    /// They are in a git pack, of which the payload says where.
    Git = 3,
    LargeZstd = 4,
}

impl Encoding {
    /// The version of records that first had it.
    fn version(self) -> u8 {
        match self {
            Encoding::Plain | Encoding::Zstd => 1,
            Encoding::Zlib => 2,
            Encoding::Git => 3,
            Encoding::LargeZstd => 4,
        }
    }
    /// No plain bytes that it says are more than this.
    fn limit(self) -> u64 {
        match self {
            Encoding::Plain | Encoding::Zstd => limits::PACK_BLOB_BYTES - 1,
            Encoding::Zlib | Encoding::Git | Encoding::LargeZstd => limits::MAX_PACKED_BLOB_BYTES,
        }
    }
    fn parse(version: u8, codec: u8) -> Option<Self> {
        let all = [Encoding::Plain, Encoding::Zstd, Encoding::Zlib, Encoding::Git, Encoding::LargeZstd];
        all.into_iter().find(|e| *e as u8 == codec && e.version() == version)
    }
}

/// A header that has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) id: BlobId,
    pub(super) plain_len: u32,
    pub(super) stored_len: u32,
    encoding: Encoding,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = self.encoding.version();
        out[5] = self.encoding as u8;
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
        let encoding = Encoding::parse(bytes[4], bytes[5])?;
        if bytes[..4] != MAGIC || bytes[48..] != check(bytes) {
            return None;
        }
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[16..48]);
        let header = Self { id: BlobId(id), plain_len: number(8), stored_len: number(12), encoding };
        // A length from disk never decides how much memory is taken.
        let fits = match encoding {
            Encoding::Git => header.stored_len as usize == GitObject::PAYLOAD,
            _ => header.stored_len <= header.plain_len,
        };
        (fits && u64::from(header.plain_len) <= encoding.limit()).then_some(header)
    }

    /// The header of a record that refers to an object of a git pack.
    pub(super) fn of_object(id: BlobId, plain_len: u32) -> Self {
        Self { id, plain_len, stored_len: GitObject::PAYLOAD as u32, encoding: Encoding::Git }
    }

    /// The header of a record with a zstd frame of a blob of 256 KiB or more.
    pub(super) fn of_large(id: BlobId, plain: &[u8], frame: &[u8]) -> Self {
        let (plain_len, stored_len) = (plain.len() as u32, frame.len() as u32);
        Self { id, plain_len, stored_len, encoding: Encoding::LargeZstd }
    }

    /// Whether the payload only says where the bytes are: [`Codec::decode`] cannot give them.
    pub(super) fn is_object(&self) -> bool {
        self.encoding == Encoding::Git
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

/// Whether a stream is so much shorter than what it stands for that it is kept compressed.
pub(super) fn pays(stored: usize, plain: usize) -> bool {
    stored < plain - plain / 10
}

/// Turns blobs into records and back; keeps its contexts, which are far dearer than a small blob.
pub(super) struct Codec {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
    inflater: Box<Decoder>,
    scratch: Vec<u8>,
}

impl Codec {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            // Level 1: 3 and above cost twice the time for one or two points (DESIGN 2.6).
            compressor: zstd::bulk::Compressor::new(1)?,
            decompressor: zstd::bulk::Decompressor::new()?,
            inflater: Box::new(Decoder::new(Format::Zlib)),
            scratch: Vec::new(),
        })
    }

    /// Appends the record of a blob to `out`. Compresses where that saves more than 10 %; `zlib`, a stream of the same bytes, saves the compressing.
    pub(super) fn encode(
        &mut self,
        id: &BlobId,
        plain: &[u8],
        zlib: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> io::Result<Header> {
        let (encoding, stored) = match zlib {
            Some(stream) if pays(stream.len(), plain.len()) => (Encoding::Zlib, stream),
            // What zlib does not make smaller, zstd does not either.
            Some(_) => (Encoding::Plain, plain),
            None => {
                self.scratch.clear();
                self.scratch.reserve(zstd::zstd_safe::compress_bound(plain.len()));
                let packed = self.compressor.compress_to_buffer(plain, &mut self.scratch)?;
                if pays(packed, plain.len()) {
                    (Encoding::Zstd, &self.scratch[..packed])
                } else {
                    (Encoding::Plain, plain)
                }
            }
        };
        let (plain_len, stored_len) = (plain.len() as u32, stored.len() as u32);
        let header = Header { id: *id, plain_len, stored_len, encoding };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(stored);
        Ok(header)
    }

    /// A zstd frame of a large blob, for [`Header::of_large`]. None if it does not pay.
    pub(super) fn compress_large(&mut self, plain: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let frame = self.compressor.compress(plain)?;
        Ok(pays(frame.len(), plain.len()).then_some(frame))
    }

    /// Inflates the zlib stream that `input` begins with into exactly `out`. None if the stream goes on behind `input`; false if it is not one of that length.
    pub(super) fn inflate_prefix(&mut self, input: &[u8], out: &mut [u8]) -> Option<bool> {
        self.inflater.reset();
        match self.inflater.decompress(input, out, true) {
            Ok(end) => Some(end.done && end.output.len() == out.len()),
            Err(inflate::Error::Truncated) => None,
            Err(_) => Some(false),
        }
    }

    /// The plain bytes of a payload. Says what is wrong, not where.
    pub(super) fn decode(&mut self, header: &Header, payload: &[u8]) -> Result<Vec<u8>, &'static str> {
        const BAD: &str = "the payload does not decompress";
        let len = header.plain_len as usize;
        let plain = match header.encoding {
            Encoding::Plain => payload.to_vec(),
            Encoding::Zstd | Encoding::LargeZstd => {
                let mut plain = Vec::with_capacity(len);
                self.decompressor.decompress_to_buffer(payload, &mut plain).map_err(|_| BAD)?;
                plain
            }
            Encoding::Zlib => {
                let mut plain = vec![0; len];
                self.inflater.reset();
                let end = self.inflater.decompress(payload, &mut plain, true).map_err(|_| BAD)?;
                let (whole, made) = (end.done && end.consumed == payload.len(), end.output.len());
                plain.truncate(if whole { made } else { 0 });
                plain
            }
            Encoding::Git => return Err("the payload says where the bytes are, and is not them"),
        };
        if plain.len() == len {
            Ok(plain)
        } else {
            Err("the payload has another length than the header says")
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

/// 5,000 times the letter a, compressed by zlib.
#[cfg(test)]
pub(super) const ZLIB_OF_LETTERS: &[u8] = &[
    0x78, 0xda, 0xed, 0xc1, 0x31, 0x01, 0x00, 0x00, 0x00, 0xc2, 0xa0, 0xac, 0xeb, 0x5f, 0xc2, 0x14, 0x7e,
    0x40, 0x01, 0x00, 0x00, 0x00, 0x00, 0x6f, 0x03, 0x4b, 0x6f, 0x66, 0xf2,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A zlib stream of one stored block.
    fn stored_stream(plain: &[u8]) -> Vec<u8> {
        let len = plain.len() as u16;
        let (a, b) = plain.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        let head = [&[0x78, 1, 1][..], &len.to_le_bytes(), &(!len).to_le_bytes()].concat();
        [&head, plain, &(b << 16 | a).to_be_bytes()].concat()
    }

    #[test]
    fn records_survive_and_are_compressed_only_when_it_pays() {
        let mut codec = Codec::new().unwrap();
        let noise: Vec<u8> = (0..4000u64).map(|i| crate::sim::mix(i) as u8).collect();
        let letters = [b'a'; 5000];
        let expensive = stored_stream(&noise);
        type Case<'a> = (&'a [u8], Option<&'a [u8]>, Encoding);
        let cases: [Case<'_>; 6] = [
            (b"", None, Encoding::Plain),
            (b"x", None, Encoding::Plain),
            (&letters, None, Encoding::Zstd),
            (&noise, None, Encoding::Plain),
            (&letters, Some(ZLIB_OF_LETTERS), Encoding::Zlib),
            (&noise, Some(&expensive), Encoding::Plain),
        ];
        for (plain, zlib, encoding) in cases {
            let mut out = b"before".to_vec();
            let header = codec.encode(&BlobId([3; 32]), plain, zlib, &mut out).unwrap();
            assert_eq!(header.encoding, encoding);
            let record = &out[6..];
            assert_eq!(Header::decode(record), Some(header));
            assert_eq!(record.len(), header.record_len());
            assert_eq!(record[4], if encoding == Encoding::Zlib { 2 } else { 1 });
            assert_eq!(codec.decode(&header, &record[HEADER..]).unwrap(), plain);
        }
    }

    #[test]
    fn a_zlib_payload_that_is_not_what_it_was_is_refused() {
        let mut codec = Codec::new().unwrap();
        let mut out = Vec::new();
        let header = codec.encode(&BlobId([3; 32]), &[b'a'; 5000], Some(ZLIB_OF_LETTERS), &mut out).unwrap();
        let payload = &out[HEADER..];
        for cut in 0..payload.len() {
            codec.decode(&header, &payload[..cut]).unwrap_err();
        }
        codec.decode(&header, &[payload, b"x"].concat()).unwrap_err();
        for len in [4999, 5001] {
            codec.decode(&Header { plain_len: len, ..header }, payload).unwrap_err();
        }
        // A decoder that failed goes on with the next.
        assert_eq!(codec.decode(&header, payload).unwrap(), [b'a'; 5000]);
    }

    #[test]
    fn an_encoding_of_another_version_is_refused() {
        let mut out = Vec::new();
        let mut codec = Codec::new().unwrap();
        codec.encode(&BlobId([3; 32]), b"hello", None, &mut out).unwrap();
        for (version, encoding, known) in [
            (1, 0, true),
            (1, 2, false),
            (2, 0, false),
            (2, 2, true),
            (3, 2, false),
            (2, 3, false),
            (4, 1, false),
            (4, 4, true),
        ] {
            (out[4], out[5]) = (version, encoding);
            let head = check(out.first_chunk().unwrap());
            out[48..56].copy_from_slice(&head);
            assert_eq!(Header::decode(&out).is_some(), known, "{version} {encoding}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let mut out = Vec::new();
        Codec::new().unwrap().encode(&BlobId([3; 32]), b"hello", None, &mut out).unwrap();
        for bit in 0..HEADER * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            // Bytes 6 and 7 are inside the checked part, too.
            assert_eq!(Header::decode(&out), None, "bit {bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
