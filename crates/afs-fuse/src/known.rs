//! What the kernel knows of us: every inode it holds, and the version of the content in its page cache.
//!
//! Bounded by the kernel's own inode cache: an entry goes with its `FORGET`. Names are kept only for kernels
//! that cannot drop all names in one call (before Linux 6.16).

use afs_types::{Ino, ROOT_INO};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};

const SHARDS: usize = 16;

/// A directory and a name in it.
pub(crate) type EntryName = (Ino, Box<[u8]>);

pub(crate) struct Known {
    shards: [Mutex<HashMap<Ino, Inode>>; SHARDS],
    track_names: AtomicBool,
}

#[derive(Default)]
struct Inode {
    /// Look-ups the kernel has not yet given back.
    lookups: u64,
    /// Version of the content that the kernel's cached pages belong to.
    version: Option<u64>,
    names: BTreeSet<EntryName>,
}

impl Known {
    pub(crate) fn new() -> Self {
        let known = Self { shards: Default::default(), track_names: AtomicBool::new(false) };
        known.looked_up(ROOT_INO, None); // the kernel holds the root from the start and never gives it back
        known
    }

    pub(crate) fn track_names(&self) {
        self.track_names.store(true, Ordering::Relaxed);
    }

    /// The kernel is about to be told of an inode.
    pub(crate) fn looked_up(&self, ino: Ino, name: Option<(Ino, &[u8])>) {
        let mut shard = self.shard(ino).lock();
        let inode = shard.entry(ino).or_default();
        inode.lookups += 1;
        if let Some((parent, name)) = name
            && self.track_names.load(Ordering::Relaxed)
        {
            inode.names.insert((parent, name.into()));
        }
    }

    /// The kernel gives look-ups back; true if it holds the inode no longer.
    pub(crate) fn forget(&self, ino: Ino, lookups: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(inode) = shard.get_mut(&ino) else { return false };
        inode.lookups = inode.lookups.saturating_sub(lookups);
        let gone = inode.lookups == 0;
        if gone {
            shard.remove(&ino);
        }
        gone
    }

    /// An open at this version of the content: whether the kernel's pages may stay.
    pub(crate) fn opened(&self, ino: Ino, version: u64) -> bool {
        match self.shard(ino).lock().get_mut(&ino) {
            Some(inode) => inode.version.replace(version) == Some(version),
            None => false,
        }
    }

    /// A write through the kernel's own cache took the content from one version to the next: its pages
    /// follow, but only if they were of the version before (else another change came between).
    pub(crate) fn written(&self, ino: Ino, before: u64, after: u64) {
        if let Some(inode) = self.shard(ino).lock().get_mut(&ino)
            && inode.version == Some(before)
        {
            inode.version = Some(after);
        }
    }

    /// The inodes with numbers in a range.
    pub(crate) fn inodes(&self, range: &RangeInclusive<Ino>) -> Vec<Ino> {
        let of = |s: &Mutex<HashMap<Ino, Inode>>| -> Vec<Ino> {
            s.lock().keys().copied().filter(|ino| range.contains(ino)).collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// The names in directories with numbers in a range.
    pub(crate) fn names(&self, range: &RangeInclusive<Ino>) -> Vec<EntryName> {
        let of = |s: &Mutex<HashMap<Ino, Inode>>| -> Vec<EntryName> {
            let shard = s.lock();
            let names = shard.values().flat_map(|inode| inode.names.iter());
            names.filter(|(parent, _)| range.contains(parent)).cloned().collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, Inode>> {
        // Session in the high half, inode in the low one: both must spread.
        &self.shards[((ino ^ (ino >> 32)) % SHARDS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_live_until_every_lookup_is_given_back() {
        let known = Known::new();
        known.track_names();
        known.looked_up(7, Some((1, b"a")));
        known.looked_up(7, Some((1, b"b")));
        assert!(!known.forget(7, 1));
        assert_eq!(known.names(&(0..=Ino::MAX)), [(1, b"a"[..].into()), (1, b"b"[..].into())]);
        assert!(known.names(&(2..=7)).is_empty(), "the directory counts, not what is named");
        assert_eq!(known.inodes(&(2..=7)), [7]);
        assert!(known.forget(7, 1));
        assert_eq!(known.inodes(&(0..=Ino::MAX)), [ROOT_INO]);
        assert!(!known.forget(7, 1));
    }

    #[test]
    fn pages_stay_only_while_the_version_is_theirs() {
        let known = Known::new();
        known.looked_up(7, None);
        assert!(!known.opened(7, 5)); // never read before
        assert!(known.opened(7, 5));
        known.written(7, 5, 6);
        assert!(known.opened(7, 6)); // our own write keeps them
        known.written(7, 8, 9); // somebody else took it from 6 to 8
        assert!(!known.opened(7, 9));
        assert!(!known.opened(8, 1)); // unknown inodes have no pages
    }
}
