//! The format of git's packs, as far as reading one object needs it: heads of entries, and deltas.
//!
//! Source: `gitformat-pack(5)`. Guarantees: whatever the bytes are, nothing outside of base and result is touched, and the result is as long as the
//! delta says. Deliberately absent: I/O, inflating, making deltas, and looking objects up by name (`afs-base`).

/// What an entry of a pack is made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A whole blob.
    Blob,
    /// A commit, tree or tag.
    Other,
    /// A delta on the entry that begins so many bytes before this one.
    OffsetDelta(u64),
    /// A delta on an object of which only the name is said.
    NamedDelta,
}

/// The head of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHead {
    /// What it is.
    pub kind: EntryKind,
    /// Bytes that its zlib stream gives: the object, or the delta.
    pub inflated_len: u64,
    /// Bytes of the head; the stream (of a named delta: the name, then the stream) follows.
    pub len: usize,
}

impl EntryHead {
    /// No head is longer.
    pub const MAX_LEN: usize = 32;

    /// Reads the head at the start of `bytes`. None if it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let mut inflated_len = u64::from(first & 0x0f);
        let mut len = 1;
        let mut more = first & 0x80 != 0;
        while more {
            // Four bits and eight times seven: one byte more can only have the four that are missing.
            let byte = *bytes.get(len).filter(|byte| len < 9 || len == 9 && **byte < 0x10)?;
            inflated_len |= u64::from(byte & 0x7f) << (4 + 7 * (len - 1));
            more = byte & 0x80 != 0;
            len += 1;
        }
        let kind = match first >> 4 & 7 {
            3 => EntryKind::Blob,
            1 | 2 | 4 => EntryKind::Other,
            6 => {
                let (distance, used) = distance(bytes.get(len..)?)?;
                len += used;
                EntryKind::OffsetDelta(distance)
            }
            7 => EntryKind::NamedDelta,
            _ => return None,
        };
        Some(Self { kind, inflated_len, len })
    }
}

/// Seven bits a byte, the highest first, each further byte counting from the one that would have been shorter.
fn distance(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(9) {
        if i > 0 {
            value += 1;
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// A delta whose two lengths have been read: an object said as copies from another one and new bytes.
pub struct Delta<'a> {
    /// Bytes that the base must have.
    pub base_len: u64,
    /// Bytes that come out.
    pub result_len: u64,
    steps: &'a [u8],
}

impl<'a> Delta<'a> {
    /// Reads the lengths of a delta. None if they are not there.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (base_len, rest) = length(bytes)?;
        let (result_len, steps) = length(rest)?;
        Some(Self { base_len, result_len, steps })
    }

    /// Fills `result`, which must have the length that the delta says, as must `base`. None if the delta is damaged.
    pub fn apply(&self, base: &[u8], result: &mut [u8]) -> Option<()> {
        if self.base_len != base.len() as u64 || self.result_len != result.len() as u64 {
            return None;
        }
        let (mut steps, mut at) = (self.steps, 0);
        while let Some((step, rest)) = steps.split_first() {
            let from = match step {
                0 => return None,
                // New bytes, as many as the number says.
                1..0x80 => {
                    let (new, rest) = rest.split_at_checked(usize::from(*step))?;
                    steps = rest;
                    new
                }
                _ => {
                    let (offset, rest) = number(*step, 0, 4, rest)?;
                    let (len, rest) = number(*step, 4, 3, rest)?;
                    steps = rest;
                    let len = if len == 0 { 0x1_0000 } else { len };
                    base.get(offset..offset + len)?
                }
            };
            result.get_mut(at..at + from.len())?.copy_from_slice(from);
            at += from.len();
        }
        (at == result.len()).then_some(())
    }
}

/// A number of up to `most` bytes, little endian, of which those are there whose bits in `present` are set, from bit `first` on.
fn number(present: u8, first: u8, most: u8, mut bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for i in 0..most {
        if present & 1 << (first + i) != 0 {
            let (byte, rest) = bytes.split_first()?;
            value |= usize::from(*byte) << (8 * i);
            bytes = rest;
        }
    }
    Some((value, bytes))
}

/// Seven bits a byte, the lowest first.
fn length(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn apply(base: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
        let delta = Delta::parse(delta)?;
        let mut result = vec![0; usize::try_from(delta.result_len).ok().filter(|len| *len < 1 << 20)?];
        delta.apply(base, &mut result)?;
        Some(result)
    }

    fn head(kind: EntryKind, inflated_len: u64, len: usize) -> Option<EntryHead> {
        Some(EntryHead { kind, inflated_len, len })
    }

    #[test]
    fn heads_are_gits() {
        assert_eq!(EntryHead::parse(&[0x35]), head(EntryKind::Blob, 5, 1));
        assert_eq!(EntryHead::parse(&[0xbf, 0x01]), head(EntryKind::Blob, 31, 2));
        assert_eq!(EntryHead::parse(&[0x10, 9]), head(EntryKind::Other, 0, 1));
        assert_eq!(EntryHead::parse(&[0x61, 0x7f]), head(EntryKind::OffsetDelta(127), 1, 2));
        assert_eq!(EntryHead::parse(&[0x61, 0x80, 0]), head(EntryKind::OffsetDelta(128), 1, 3));
        assert_eq!(EntryHead::parse(&[0x61, 0xff, 0x7f]), head(EntryKind::OffsetDelta(16_511), 1, 3));
        assert_eq!(EntryHead::parse(&[0x72]), head(EntryKind::NamedDelta, 2, 1));
        for bad in [
            &[][..],
            &[0x05],
            &[0x55],
            &[0xb5],
            &[0x65],
            &[0x65, 0x80],
            &[0xff; 40],
            &[0xb0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
        ] {
            assert_eq!(EntryHead::parse(bad), None, "{bad:?}");
        }
        let longest = [&[0xef][..], &[0xff; 8], &[0x0f], &[0xff; 8], &[0x7f]].concat();
        let parsed = EntryHead::parse(&longest).unwrap();
        assert_eq!((parsed.inflated_len, parsed.len), (u64::MAX, longest.len()));
        assert!(parsed.len <= EntryHead::MAX_LEN);
    }

    #[test]
    fn copies_and_new_bytes_make_the_result() {
        let base: Vec<u8> = (0..70_000u32).map(|i| (i * 7 / 3) as u8).collect();
        let head = [0xf0, 0xa2, 0x04];
        // Two new bytes; five from 0x0102; 0x10000 from 1, which is said as no length.
        let steps = [&[2, b'a', b'b'][..], &[0x93, 0x02, 0x01, 5], &[0x81, 1]].concat();
        let delta = [&head[..], &[0x87, 0x80, 0x04], &steps].concat();
        let want = [b"ab", &base[0x102..0x107], &base[1..0x1_0001]].concat();
        assert_eq!(apply(&base, &delta), Some(want));
        for cut in 0..delta.len() {
            assert_eq!(apply(&base, &delta[..cut]), None, "{cut}");
        }
        assert_eq!(apply(&base[1..], &delta), None);
        assert_eq!(apply(&base, &[&delta[..], &[0]].concat()), None);
        assert_eq!(apply(&base, &[&delta[..], &[1, b'c']].concat()), None);
        assert_eq!(apply(b"", &[0, 0]), Some(Vec::new()));
    }

    #[test]
    fn what_lies_outside_of_the_base_is_refused() {
        // From 3, two bytes, of a base of four.
        assert_eq!(apply(b"base", &[4, 2, 0x91, 3, 2]), None);
        assert_eq!(apply(b"base", &[4, 2, 0x91, 2, 2]), Some(b"se".to_vec()));
        assert_eq!(apply(b"base", &[4, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        // A length without an end.
        assert_eq!(apply(b"base", &[0xff; 20]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_refused(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x80), Just(0xb0), Just(0xff)], 0..40)) {
            if let Some(head) = EntryHead::parse(&bytes) {
                prop_assert!(head.len <= bytes.len().min(EntryHead::MAX_LEN));
                prop_assert_eq!(EntryHead::parse(&bytes[..head.len]), Some(head));
                prop_assert_eq!(EntryHead::parse(&bytes[..head.len - 1]), None);
            }
        }

        #[test]
        fn any_bytes_are_a_result_or_refused(base in prop::collection::vec(any::<u8>(), 0..40), mut delta in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(first) = delta.first_mut() {
                *first = base.len() as u8;
            }
            if let (Some(result), Some(parsed)) = (apply(&base, &delta), Delta::parse(&delta)) {
                prop_assert_eq!(result.len() as u64, parsed.result_len);
            }
        }
    }
}
