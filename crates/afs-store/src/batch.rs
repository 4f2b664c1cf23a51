//! Batches: changes that become visible and durable together, written one behind the other into one buffer.
//!
//! Guarantees: a batch costs one allocation, which grows, however many changes it has; its changes are read back in the order in which they
//! were added; a value that no store takes makes the whole batch one that is refused, and is not copied. The bytes are never persisted: a
//! store reads the changes and writes them in a form of its own.
//!
//! Deliberately absent: taking a change out of a batch again, and more than appending to a value that is being written.
//!
//! A change is `kind u8, space u8, length of the key u32, length of the value u32, key, value`, numbers little endian. The value of a range's
//! deletion is the end of the range, a deletion's is empty.

use crate::journal::Space;
use afs_core::codec::Enc;
use afs_types::{Error, Result, limits};
use std::fmt;

/// Bytes before a change's key.
const HEADER: usize = 10;
/// Bytes of a first allocation: enough for what one call of a client usually changes.
const USUAL_BYTES: usize = 512;
/// What a batch takes in a queue beside its changes: an empty one is not free.
const OWN_BYTES: usize = 16;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// One change of one key, or of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    /// Sets a key.
    Put {
        /// Space of the key.
        space: Space,
        /// The key, without the space byte.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Removes a key; it need not be there.
    Delete {
        /// Space of the key.
        space: Space,
        /// The key, without the space byte.
        key: &'a [u8],
    },
    /// Removes all keys `from <= key < to`.
    DeleteRange {
        /// Space of the keys.
        space: Space,
        /// First key.
        from: &'a [u8],
        /// First key that stays.
        to: &'a [u8],
    },
}

impl Change<'_> {
    /// The space whose keys it changes.
    pub fn space(&self) -> Space {
        match self {
            Self::Put { space, .. } | Self::Delete { space, .. } | Self::DeleteRange { space, .. } => *space,
        }
    }
}

/// Changes that become visible and durable together. Later changes win over earlier ones of the same batch.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Batch {
    enc: Enc,
    len: usize,
    /// Something in it is larger than a store takes, and was left out.
    is_too_large: bool,
    /// True if committing this frees space: such batches are admitted even when the disk is nearly full.
    pub frees_space: bool,
}

impl Batch {
    /// A batch without changes. Submitting it is allowed: it is a barrier, and makes the flushers run.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets a key.
    pub fn put(&mut self, space: Space, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.add(PUT, space, &[key.as_ref()], value.as_ref())
    }
    /// Sets a key to the value that `write` appends.
    pub fn put_with(
        &mut self,
        space: Space,
        key: impl AsRef<[u8]>,
        write: impl FnOnce(&mut Enc),
    ) -> &mut Self {
        self.put_parts(space, [key.as_ref()], write)
    }
    /// The same, with a key whose parts are not joined yet.
    pub fn put_parts<const N: usize>(
        &mut self,
        space: Space,
        key: [&[u8]; N],
        write: impl FnOnce(&mut Enc),
    ) -> &mut Self {
        let at = self.enc.out.len();
        self.add(PUT, space, &key, &[]);
        let value = self.enc.out.len();
        if value == at {
            return self; // refused
        }
        write(&mut self.enc);
        let len = self.enc.out.len().saturating_sub(value);
        match u32::try_from(len) {
            Ok(header) if len <= limits::MAX_JOURNAL_VALUE_BYTES => {
                self.enc.out[at + 6..at + HEADER].copy_from_slice(&header.to_le_bytes());
            }
            _ => {
                self.enc.out.truncate(at);
                self.enc.out.shrink_to_fit();
                self.is_too_large = true;
            }
        }
        self
    }
    /// Removes a key.
    pub fn delete(&mut self, space: Space, key: impl AsRef<[u8]>) -> &mut Self {
        self.add(DELETE, space, &[key.as_ref()], &[])
    }
    /// Removes all keys `from <= key < to`; nothing if `from >= to`.
    pub fn delete_range(&mut self, space: Space, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> &mut Self {
        self.add(DELETE_RANGE, space, &[from.as_ref()], to.as_ref())
    }
    /// Adds a change of another batch.
    pub fn push(&mut self, change: Change<'_>) -> &mut Self {
        match change {
            Change::Put { space, key, value } => self.put(space, key, value),
            Change::Delete { space, key } => self.delete(space, key),
            Change::DeleteRange { space, from, to } => self.delete_range(space, from, to),
        }
    }
    /// Marks the batch as one that frees space (deleting a session, collecting garbage).
    pub fn freeing(mut self) -> Self {
        self.frees_space = true;
        self
    }
    /// Appends the changes of another batch.
    pub fn append(&mut self, other: Batch) -> &mut Self {
        self.frees_space |= other.frees_space;
        self.is_too_large |= other.is_too_large;
        self.len += other.len;
        if self.enc.out.is_empty() {
            self.enc.out = other.enc.out;
        } else {
            self.enc.out.extend_from_slice(&other.enc.out);
        }
        self
    }
    /// How many changes it has.
    pub fn len(&self) -> usize {
        self.len
    }
    /// True without changes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The changes, in order.
    pub fn changes(&self) -> Changes<'_> {
        Changes::of(&self.enc.out)
    }
    /// Bytes this batch needs in a queue; what the queue's bound counts.
    pub fn bytes(&self) -> usize {
        OWN_BYTES + self.enc.out.len()
    }
    /// Refuses a batch with a value that no store takes: one that is dropped while the rest is written would tear the batch.
    pub fn check(&self) -> Result<()> {
        if self.is_too_large {
            let most = limits::MAX_JOURNAL_VALUE_BYTES;
            return Err(Error::above("value", most, "bytes in one record of the journal"));
        }
        Ok(())
    }

    /// Its changes as [`Changes::of`] reads them.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.enc.out
    }

    fn add(&mut self, kind: u8, space: Space, key: &[&[u8]], value: &[u8]) -> &mut Self {
        self.len += 1;
        let key_bytes = key.iter().map(|part| part.len()).sum::<usize>();
        let is_kept = kind != PUT || value.len() <= limits::MAX_JOURNAL_VALUE_BYTES;
        let (mut header, lengths) = ([0; HEADER], (u32::try_from(key_bytes), u32::try_from(value.len())));
        (header[0], header[1]) = (kind, space as u8);
        let (true, (Ok(key_len), Ok(value_len))) = (is_kept, lengths) else {
            self.is_too_large = true;
            return self;
        };
        header[2..6].copy_from_slice(&key_len.to_le_bytes());
        header[6..].copy_from_slice(&value_len.to_le_bytes());
        if self.enc.out.capacity() == 0 {
            self.enc.out.reserve_exact(USUAL_BYTES.max(HEADER + key_bytes + value.len()));
        }
        self.enc.out.extend_from_slice(&header);
        key.iter().for_each(|part| self.enc.out.extend_from_slice(part));
        self.enc.out.extend_from_slice(value);
        self
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.changes()).finish()
    }
}

impl<'a> FromIterator<Change<'a>> for Batch {
    fn from_iter<I: IntoIterator<Item = Change<'a>>>(changes: I) -> Self {
        let mut batch = Self::new();
        changes.into_iter().for_each(|change| {
            batch.push(change);
        });
        batch
    }
}

/// The changes of a [`Batch`], or of several, in order.
#[derive(Clone)]
pub struct Changes<'a> {
    rest: &'a [u8],
}

impl<'a> Changes<'a> {
    /// Of the bytes of batches, one behind the other.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        let (header, rest) = self.rest.split_first_chunk::<HEADER>()?;
        let [kind, space, k0, k1, k2, k3, v0, v1, v2, v3] = *header;
        let space = Space::of(space)?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes([k0, k1, k2, k3]) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes([v0, v1, v2, v3]) as usize)?;
        self.rest = rest;
        Some(match kind {
            PUT => Change::Put { space, key, value },
            DELETE => Change::Delete { space, key },
            _ => Change::DeleteRange { space, from: key, to: value },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Batch {
        let mut batch = Batch::new();
        batch.put(Space::Name, b"k", b"value").delete(Space::Record, b"gone").put(Space::Name, b"", b"");
        batch
            .delete_range(Space::Layer, b"a", b"b")
            .put_with(Space::Session, b"s", |e| e.out.extend(*b"xyz"));
        batch
    }

    fn sample_changes() -> [Change<'static>; 5] {
        [
            Change::Put { space: Space::Name, key: b"k", value: b"value" },
            Change::Delete { space: Space::Record, key: b"gone" },
            Change::Put { space: Space::Name, key: b"", value: b"" },
            Change::DeleteRange { space: Space::Layer, from: b"a", to: b"b" },
            Change::Put { space: Space::Session, key: b"s", value: b"xyz" },
        ]
    }

    #[test]
    fn changes_come_back_as_they_were_added() {
        let batch = sample();
        assert_eq!(batch.changes().collect::<Vec<_>>(), sample_changes());
        assert_eq!(batch.len(), 5);
        assert_eq!(batch.changes().collect::<Batch>(), batch);
        let mut twice = Batch::new();
        twice.append(batch.clone()).append(batch.freeing());
        assert!(twice.frees_space && twice.len() == 10);
        assert_eq!(twice.changes().collect::<Vec<_>>(), [sample_changes(), sample_changes()].concat());
        assert!(Batch::new().is_empty() && Batch::new().changes().next().is_none());
        for space in Space::ALL {
            let mut one = Batch::new();
            one.delete(space, b"k");
            assert_eq!(one.changes().next().map(|change| change.space()), Some(space));
        }
    }

    #[test]
    fn a_usual_batch_is_one_allocation() {
        let mut batch = Batch::new();
        batch.put(Space::Session, [0; 32], [1; 200]);
        let at = batch.enc.out.as_ptr();
        batch.put(Space::Session, [0; 32], [1; 16]).put(Space::Request, [0; 60], [1; 90]);
        assert_eq!(batch.enc.out.as_ptr(), at);
    }

    #[test]
    fn a_value_above_the_limit_is_refused_and_not_copied() {
        let most = limits::MAX_JOURNAL_VALUE_BYTES;
        let large = vec![0; most + 1];
        for which in 0..2 {
            let mut batch = sample();
            match which {
                0 => batch.put(Space::Delta, b"k", &large),
                _ => batch.put_with(Space::Delta, b"k", |e| e.out.resize(e.out.len() + most + 1, 0)),
            };
            assert!(batch.check().is_err() && batch.bytes() < 1 << 10 && batch.enc.out.capacity() < 1 << 20);
            let rest: Vec<_> = batch.changes().collect();
            assert_eq!(rest, sample().changes().collect::<Vec<_>>(), "nothing half is left");
            let mut all = Batch::new();
            all.append(batch);
            assert!(all.check().is_err(), "the refusal was lost");
        }
        let mut batch = Batch::new();
        batch.put(Space::Delta, b"k", &large[..most]);
        batch.check().unwrap();
    }
}
