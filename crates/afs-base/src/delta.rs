//! Git's deltas: an object said as copies from another one and new bytes.
//!
//! Guarantees: whatever the bytes are, nothing outside of base and result is touched, and the result is as long as the delta says.
//! Deliberately absent: making deltas, and finding what they stand on ([`crate::packs`]).

/// A delta whose two lengths have been read.
pub(crate) struct Delta<'a> {
    /// Bytes that the base must have.
    pub(crate) base_len: u64,
    /// Bytes that come out.
    pub(crate) result_len: u64,
    steps: &'a [u8],
}

impl<'a> Delta<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (base_len, rest) = length(bytes)?;
        let (result_len, steps) = length(rest)?;
        Some(Self { base_len, result_len, steps })
    }

    /// Fills `result`, which must have the length that the delta says, as must `base`. None if the delta is damaged.
    pub(crate) fn apply(&self, base: &[u8], result: &mut [u8]) -> Option<()> {
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
