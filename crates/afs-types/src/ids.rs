//! Ids. Text ids are `prefix_` + 26 lowercase ULID characters when made by a server, or a client's
//! choice of 1 to 60 of `[a-z0-9_-]` after the prefix. An id is a name, never a capability.

use crate::{Error, Reason, Result, limits};
use std::fmt;
use std::sync::Arc;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $reason:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);
        impl $name {
            /// What every id of this kind starts with.
            pub const PREFIX: &'static str = $prefix;
            /// Checks and takes an id.
            pub fn parse(text: &str) -> Result<Self> {
                check(text, $prefix, stringify!($name)).map(|()| Self(text.into()))
            }
            /// Makes an id from a generated ULID.
            pub fn from_ulid(ulid: u128) -> Self {
                // On the stack: a fork makes an id, and has a microsecond for everything.
                let mut text = [0; $prefix.len() + 26];
                text[..$prefix.len()].copy_from_slice($prefix.as_bytes());
                ulid_text(ulid, &mut text[$prefix.len()..]);
                // Always text: the alphabet is ASCII.
                Self(std::str::from_utf8(&text).unwrap_or_default().into())
            }
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// True when [`Self::from_ulid`] could have made it, so that a caller must not choose it for something new.
            pub fn looks_made(&self) -> bool {
                is_ulid_text(&self.0.as_bytes()[$prefix.len()..])
            }
            /// The error for an id that names nothing.
            pub fn not_found(&self) -> Error {
                Error::new(Reason::$reason, format!("{} does not exist", self.0)).with("id", self.as_str())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(/** A session: a copy-on-write workspace over a base. */ SessionId, "sess_", SessionNotFound);
text_id!(/** A source: where bases come from. */ SourceId, "src_", SourceNotFound);
text_id!(/** One immutable version (base) of a source. */ VersionId, "ver_", VersionNotFound);
text_id!(/** A checkpoint: a named instant of a session. */ CheckpointId, "ckpt_", CheckpointNotFound);
text_id!(/** A commit: a durable outcome of a session. */ CommitId, "cmt_", CommitNotFound);
text_id!(/** One attachment of a mount to a session. */ MountId, "mnt_", MountNotFound);

/// An inode number. 1 is the root of a session; base entries are numbered by position, new inodes from
/// blocks leased per base; never above [`limits::MAX_INO`].
pub type Ino = u64;
/// The root directory of every session.
pub const ROOT_INO: Ino = 1;

/// A node of the layer tree (DESIGN 2.3). 0 means "the base itself".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LayerId(pub u64);

/// A blob's name: the keyed BLAKE3 of its plain bytes, or of where in a git pack they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlobId(pub [u8; 32]);

impl BlobId {
    /// Lowercase hexadecimal, 64 characters.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// What [`BlobId::to_hex`] gave, back. None for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digit = |b: u8| char::from(b).to_digit(16).filter(|_| !b.is_ascii_uppercase()).map(|d| d as u8);
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().ok()?;
        let mut id = [0; 32];
        for (out, [high, low]) in id.iter_mut().zip(pairs) {
            *out = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(id))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// A caller's name for one mutating request: a retry with the same one has one effect and one answer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes a request id; the empty text means the caller gave none.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > limits::MAX_REQUEST_ID_BYTES || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid(
                "request_id",
                format!("at most {} printable ASCII characters", limits::MAX_REQUEST_ID_BYTES),
            ));
        }
        Ok(Some(Self(text.into())))
    }
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str, prefix: &str, what: &str) -> Result<()> {
    let rest = text.strip_prefix(prefix).unwrap_or("");
    let ok = !rest.is_empty()
        && text.len() <= limits::MAX_ID_BYTES
        && rest.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if ok {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(Error::new(
        Reason::InvalidId,
        format!(
            "{shown:?} is not a {what}: want {prefix} and then [a-z0-9_-], at most {} bytes in all",
            limits::MAX_ID_BYTES
        ),
    )
    .with("field", what))
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// What [`ulid_text`] writes.
fn is_ulid_text(text: &[u8]) -> bool {
    // 26 digits of 5 bits are 2 bits more than an id has.
    text.len() == 26 && text[0] <= b'7' && text.iter().all(|c| ALPHABET.contains(c))
}

/// Crockford base 32, lowercase, 26 characters, sorts by time.
fn ulid_text(ulid: u128, out: &mut [u8]) {
    // 12 digits are 60 bits. In words, since shifting 128 bits 26 times takes longer than all the rest of making an id.
    let words = [(ulid >> 120) as u64, (ulid >> 60) as u64, ulid as u64];
    for (digits, mut word) in out.rchunks_mut(12).zip(words.into_iter().rev()) {
        for digit in digits.iter_mut().rev() {
            *digit = ALPHABET[word as usize & 31];
            word >>= 5;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_blobs_survive_as_text() {
        let id = BlobId(std::array::from_fn(|i| i as u8 * 9));
        assert_eq!(BlobId::from_hex(&id.to_hex()), Some(id));
        for bad in [
            "",
            "0",
            &id.to_hex()[1..],
            &id.to_hex()[2..],
            &id.to_hex().to_uppercase(),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            assert_eq!(BlobId::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_keep_their_shape() {
        assert!(SessionId::parse("sess_design_review").is_ok());
        for bad in ["", "sess_", "src_x", "sess_A", "sess_a b", "sess_é", &format!("sess_{}", "a".repeat(60))]
        {
            assert_eq!(SessionId::parse(bad).unwrap_err().reason, Reason::InvalidId, "{bad:?}");
        }
        assert_eq!(SessionId::from_ulid(0).as_str().len(), "sess_".len() + 26);
        assert!(SessionId::from_ulid(1 << 90) > SessionId::from_ulid(1 << 80));
        SessionId::parse(SessionId::from_ulid(u128::MAX).as_str()).unwrap();
    }

    #[test]
    fn made_ids_are_the_digits_of_their_number() {
        let mut number = 1u128;
        for n in 0..10_000u32 {
            number = number.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
            let ulid = number >> (n % 128);
            let mut digits: Vec<u8> = (0..26).map(|d| ALPHABET[(ulid >> (5 * d)) as usize & 31]).collect();
            digits.reverse();
            assert_eq!(SessionId::from_ulid(ulid).as_str().as_bytes(), [b"sess_", &digits[..]].concat());
        }
    }

    #[test]
    fn made_ids_are_told_from_chosen_ones() {
        for made in [0, 1, 1 << 80, u128::MAX] {
            assert!(SessionId::from_ulid(made).looks_made());
        }
        let zeros = "0".repeat(26);
        for chosen in
            ["design_review", &zeros[1..], &"0".repeat(27), &format!("8{}", &zeros[1..]), &"u".repeat(26)]
        {
            assert!(!SessionId::parse(&format!("sess_{chosen}")).unwrap().looks_made(), "{chosen}");
        }
    }
}
