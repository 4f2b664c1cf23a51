//! The byte forms used by records, deltas and tables of records: varints, zigzag, length-prefixed bytes.
//!
//! Decoding never panics and never allocates more than the input is long; damage is `CORRUPT`.
//! LEB128 varints as in Protocol Buffers: 1 byte below 128, which most fields of an operation are.

use afs_types::{BlobId, Error, Reason, Result};

/// Appends values to a buffer.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Enc {
    /// What has been written.
    pub out: Vec<u8>,
}

impl Enc {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }
    /// One byte.
    #[inline]
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.out.push(v);
        self
    }
    /// Varint.
    #[inline]
    pub fn u64(&mut self, v: u64) -> &mut Self {
        if v < 0x80 { self.u8(v as u8) } else { self.long_u64(v) }
    }
    /// Varint.
    #[inline]
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.u64(u64::from(v))
    }
    /// Zigzag varint.
    #[inline]
    pub fn i64(&mut self, v: i64) -> &mut Self {
        self.u64(((v << 1) ^ (v >> 63)) as u64)
    }
    /// Length, then bytes.
    #[inline]
    pub fn bytes(&mut self, v: &[u8]) -> &mut Self {
        self.u64(v.len() as u64);
        self.out.extend_from_slice(v);
        self
    }
    /// 32 raw bytes.
    pub fn blob(&mut self, v: &BlobId) -> &mut Self {
        self.out.extend_from_slice(&v.0);
        self
    }
    /// Presence byte, then the value.
    #[inline]
    pub fn opt<T>(&mut self, v: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.u8(u8::from(v.is_some()));
        if let Some(v) = v {
            write(self, v);
        }
        self
    }
    /// Most numbers that are not small are times, of nine bytes: put together in registers and appended at once, since a byte at a time costs
    /// more than all the rest of a record.
    fn long_u64(&mut self, v: u64) -> &mut Self {
        let len = (70 - v.leading_zeros() as usize) / 7;
        // Seven bits in each byte with the mark that more follow; what is beyond `len` means nothing.
        let (mut low, high) = (0, v >> 56);
        for n in 0..8 {
            low |= (((v >> (7 * n)) & 0x7f) | 0x80) << (8 * n);
        }
        let all = (u128::from((high & 0x7f) | 0x80 | ((high >> 7) << 8)) << 64) | u128::from(low);
        let ended = all & !(0x80 << (8 * (len - 1)));
        let at = self.out.len();
        self.out.extend_from_slice(&ended.to_le_bytes());
        self.out.truncate(at + len);
        self
    }
}

/// Reads values from a buffer.
pub struct Dec<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Dec<'a> {
    /// Reads `input`, which is a `what` ("record", "delta"): errors name it.
    pub fn new(input: &'a [u8], what: &'static str) -> Self {
        Self { rest: input, what }
    }
    /// The error for damage found here.
    pub fn corrupt(&self, why: &str) -> Error {
        Error::new(Reason::Corrupt, format!("{} is damaged: {why}", self.what))
    }
    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| self.corrupt("it ends early"))?;
        self.rest = rest;
        Ok(*first)
    }
    /// Varint.
    pub fn u64(&mut self) -> Result<u64> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            v |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(v);
            }
        }
        Err(self.corrupt("a number is too long"))
    }
    /// Varint that must fit.
    pub fn u32(&mut self) -> Result<u32> {
        let v = self.u64()?;
        u32::try_from(v).map_err(|_| self.corrupt("a number is too large"))
    }
    /// 8 raw bytes, little endian: for hashes, which varints would make longer.
    pub fn u64_fixed(&mut self) -> Result<u64> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| self.corrupt("a number is short"))?))
    }
    /// Zigzag varint.
    pub fn i64(&mut self) -> Result<i64> {
        let v = self.u64()?;
        Ok((v >> 1) as i64 ^ -((v & 1) as i64))
    }
    /// Length, then bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.u64()?;
        self.take(len)
    }
    /// Length-prefixed UTF-8.
    pub fn text(&mut self) -> Result<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt("a text is not UTF-8"))
    }
    /// 32 raw bytes.
    pub fn blob(&mut self) -> Result<BlobId> {
        let bytes = self.take(32)?;
        Ok(BlobId(bytes.try_into().map_err(|_| self.corrupt("a hash is short"))?))
    }
    /// Presence byte, then the value.
    pub fn opt<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(self.corrupt("a presence byte is neither 0 nor 1")),
        }
    }
    /// A count of items that take at least one byte each, so that a damaged one cannot ask for memory.
    pub fn count(&mut self) -> Result<usize> {
        let n = self.u64()?;
        if n > self.rest.len() as u64 {
            return Err(self.corrupt("a count is larger than the input"));
        }
        Ok(n as usize)
    }
    /// True when all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    /// Fails unless all is read.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("bytes are left over")) }
    }
    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        if len > self.rest.len() as u64 {
            return Err(self.corrupt("it ends early"));
        }
        let (head, rest) = self.rest.split_at(len as usize);
        self.rest = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte at a time.
    fn plain(mut v: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
        out
    }

    #[test]
    fn varints_of_every_length_are_what_they_were() {
        let around = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1, u64::MAX >> bit]);
        let mut seed = 7u64;
        let random = (0..10_000).map(|n| {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            seed >> (n % 64)
        });
        for v in around.chain(random) {
            let mut e = Enc::new();
            e.u8(9).u64(v).i64(v as i64).u8(9);
            let zigzag = ((v as i64) << 1) ^ ((v as i64) >> 63);
            assert_eq!(e.out, [&[9], &plain(v)[..], &plain(zigzag as u64), &[9]].concat(), "{v}");
            let mut d = Dec::new(&e.out[1..], "test");
            assert_eq!((d.u64().unwrap(), d.i64().unwrap()), (v, v as i64));
        }
    }
}
