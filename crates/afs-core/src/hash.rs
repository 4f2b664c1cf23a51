//! The keyed hash of (directory, name), used by the base table and by the overlay.
//!
//! SipHash-1-3: names come from hostile trees, so whoever writes them must not be able to find names that
//! collide; the key is drawn at random when a base is made and never shown. Written out here because the
//! message always is one word and one short slice, which makes it twice as fast as a streaming hasher.

/// 64-bit hash of a name in a directory. The same for the same arguments for ever: it is stored in tables,
/// and readers get it as a directory cookie.
///
/// Equal to SipHash-1-3 of `parent` (8 bytes, little endian) followed by `name`, under a key made from `seed`.
#[inline]
pub fn name_hash(seed: u64, parent: u64, name: &[u8]) -> u64 {
    NameKey::new(seed).hash(parent, name)
}

/// A seed made ready for many hashes: the state that every hash under it starts with.
#[derive(Clone, Copy)]
pub struct NameKey([u64; 4]);

impl NameKey {
    /// The key of a seed.
    pub fn new(seed: u64) -> Self {
        let (k0, k1) = key(seed);
        Self([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    /// [`name_hash`] under this key.
    #[inline(always)]
    pub fn hash(&self, parent: u64, name: &[u8]) -> u64 {
        let mut v = self.0;
        let mut absorb = |word: u64| {
            v[3] ^= word;
            round(&mut v);
            v[0] ^= word;
        };
        absorb(parent);
        for word in name.as_chunks::<8>().0 {
            absorb(u64::from_le_bytes(*word));
        }
        // The top byte is the length of the whole message, modulo 256.
        absorb(last_bytes(name) | u64::from((name.len() as u8).wrapping_add(8)) << 56);
        v[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

/// The bytes behind the last whole word of a name, little endian: up to 7.
///
/// A copy of as many bytes as there are would be a call of `memcpy` for each hash; loads that overlap are not.
#[inline(always)]
fn last_bytes(name: &[u8]) -> u64 {
    let (len, rest) = (name.len(), name.len() % 8);
    if let Some(last) = name.last_chunk::<8>() {
        // By 64 for none, in two steps, since a shift by all bits of a word is not defined.
        return u64::from_le_bytes(*last) >> 1 >> (63 - 8 * rest);
    }
    if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first))
            | u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4));
    }
    name.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Two key words that have no simple relation, from one seed (the finisher of splitmix64).
fn key(seed: u64) -> (u64, u64) {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (seed, z ^ (z >> 31))
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use siphasher::sip::SipHasher13;

    #[test]
    fn is_siphash_1_3() {
        let name: Vec<u8> = (0..=255).cycle().take(300).map(|b: u8| b.wrapping_mul(37)).collect();
        for len in 0..name.len() {
            for (seed, parent) in [(0, 0), (1, 7), (u64::MAX, 1 << 40), (0x1234_5678_9abc_def0, 42)] {
                let (k0, k1) = key(seed);
                let message = [&u64::to_le_bytes(parent)[..], &name[..len]].concat();
                let want = SipHasher13::new_with_keys(k0, k1).hash(&message);
                assert_eq!(name_hash(seed, parent, &name[..len]), want, "{len} bytes");
            }
        }
    }

    /// Stored in every table: a change of the hash is a change of the format.
    #[test]
    fn is_pinned() {
        assert_eq!(name_hash(1, 2, b"Cargo.toml"), PINNED);
    }
    const PINNED: u64 = 0xbae8f74644bafeb2;
}
