//! A file name that lies where it is kept, if it is short: nearly all names are, and an allocation each would double what a dentry costs.

use crate::op::Bytes;
use std::fmt;
use std::ops::Deref;

/// Longest name that needs no allocation.
const INLINE: usize = 22;

/// A name of any length.
#[derive(Clone, PartialEq, Eq)]
pub struct ShortName(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    Inline(u8, [u8; INLINE]),
    Heap(Bytes),
}

const _: () = assert!(size_of::<ShortName>() == 24);

impl ShortName {
    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> u64 {
        match &self.0 {
            Form::Inline(..) => 0,
            Form::Heap(bytes) => bytes.len() as u64 + 2 * size_of::<usize>() as u64,
        }
    }
}

impl Deref for ShortName {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Form::Heap(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for ShortName {
    fn from(name: &[u8]) -> Self {
        if name.len() > INLINE {
            return Self(Form::Heap(name.into()));
        }
        let mut bytes = [0; INLINE];
        bytes[..name.len()].copy_from_slice(name);
        Self(Form::Inline(name.len() as u8, bytes))
    }
}

impl From<&Bytes> for ShortName {
    /// Shares a long name.
    fn from(name: &Bytes) -> Self {
        if name.len() > INLINE { Self(Form::Heap(name.clone())) } else { Self::from(&**name) }
    }
}

impl fmt::Debug for ShortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_are_kept() {
        for len in 0..=255 {
            let name: Vec<u8> = (0..len).map(|i| i as u8 ^ 0x5a).collect();
            let shared: Bytes = name.as_slice().into();
            assert_eq!(*ShortName::from(&*name), name[..]);
            assert_eq!(*ShortName::from(&shared).clone(), name[..]);
        }
    }
}
