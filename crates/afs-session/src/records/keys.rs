//! Keys of records, after the journal's space byte.
//!
//! Sessions by `s` + id, their heads by `h` + id and their starts by `e` + id NUL `epoch u32 BE`; layers and deltas by `layer u64 BE`;
//! operations by `layer u64 BE, seq u64 BE`. All others are text ids, or what `requests` says.

use afs_types::{LayerId, SessionId, limits};
use std::ops::Deref;

/// A key that is made where it is needed, on the stack.
#[derive(Clone, Copy)]
pub struct Key {
    len: usize,
    bytes: [u8; Self::MOST],
}

impl Key {
    /// A start of a session: the longest one.
    const MOST: usize = 1 + limits::MAX_ID_BYTES + 1 + 4;

    fn of(parts: &[&[u8]]) -> Self {
        let mut key = Self { len: 0, bytes: [0; Self::MOST] };
        for part in parts {
            // An id is never longer than the limit: it would not be one.
            key.bytes[key.len..][..part.len()].copy_from_slice(part);
            key.len += part.len();
        }
        key
    }
}

impl Deref for Key {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Key of a session's record.
pub fn session_key(id: &SessionId) -> Key {
    Key::of(&session_parts(id))
}

/// The parts of that key, for who appends it to something.
pub(crate) fn session_parts(id: &SessionId) -> [&[u8]; 2] {
    [b"s", id.as_str().as_bytes()]
}

/// Key of a session's head. Beside the record, so that a fork of a large family need not rewrite labels.
pub fn head_key(id: &SessionId) -> Key {
    Key::of(&head_parts(id))
}

/// The parts of that key.
pub(crate) fn head_parts(id: &SessionId) -> [&[u8]; 2] {
    [b"h", id.as_str().as_bytes()]
}

/// Key of where a session went on in an epoch; with 0 it is before all of them.
pub fn start_key(id: &SessionId, epoch: u32) -> Key {
    Key::of(&[b"e", id.as_str().as_bytes(), b"\0", &epoch.to_be_bytes()])
}

/// The end of the keys of [`start_key`].
pub fn starts_end(id: &SessionId) -> Key {
    Key::of(&[b"e", id.as_str().as_bytes(), b"\x01"])
}

/// Key of a layer or delta.
pub fn layer_key(layer: LayerId) -> Key {
    Key::of(&[&layer.0.to_be_bytes()])
}

/// Key of an operation record.
pub fn op_key(layer: LayerId, seq: u64) -> Key {
    Key::of(&[&layer.0.to_be_bytes(), &seq.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_the_header_says_also_of_the_longest_id() {
        let id = SessionId::parse(&format!("sess_{}", "x".repeat(limits::MAX_ID_BYTES - 5))).unwrap();
        let text = id.as_str().as_bytes();
        assert_eq!(&*session_key(&id), [b"s", text].concat());
        assert_eq!(&*head_key(&id), [b"h", text].concat());
        assert_eq!(&*start_key(&id, 0x0102), [b"e", text, b"\0\0\0\x01\x02"].concat());
        assert_eq!(&*starts_end(&id), [b"e", text, b"\x01"].concat());
        assert_eq!(*layer_key(LayerId(3)), [0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(*op_key(LayerId(1), 2), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    }
}
