//! Which session has which high half of inode numbers in the mount of all sessions.
//!
//! Guarantees: a slot names one session for the life of the mount and is never used for another, so an inode number
//! that the kernel still has can only mean what it meant; a session that was let go gets its old slot again.

use super::one::OneSession;
use afs_fuse::WatchGuard;
use afs_types::{Error, Ino, ROOT_INO, Reason, Result, SessionId};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Slot 0 is the directory of sessions.
const MAX_SLOTS: usize = u32::MAX as usize >> 1;
/// Most absent names that are remembered one by one.
const MAX_ABSENT: usize = 4096;

/// A session that the kernel knows.
pub(super) struct Live {
    pub(super) fs: OneSession,
    pub(super) _watch: WatchGuard,
}

#[derive(Default)]
pub(super) struct Slots {
    state: RwLock<State>,
}

struct State {
    ids: Vec<SessionId>,
    by_id: HashMap<SessionId, u32>,
    live: HashMap<u32, Arc<Live>>,
    /// Let go of since they were live.
    dropped: HashSet<u32>,
    /// Names that were asked for and not there. None: too many to remember.
    absent: Option<HashSet<SessionId>>,
}

impl Default for State {
    fn default() -> Self {
        let (ids, by_id, live, dropped) = Default::default();
        Self { ids, by_id, live, dropped, absent: Some(HashSet::new()) }
    }
}

impl Slots {
    /// The session's slot, given on first use.
    pub(super) fn of(&self, id: &SessionId) -> Result<u32> {
        if let Some(slot) = self.known(id) {
            return Ok(slot);
        }
        let mut state = self.state.write();
        if let Some(slot) = state.by_id.get(id) {
            return Ok(*slot);
        }
        if state.ids.len() >= MAX_SLOTS {
            return Err(Error::new(Reason::QuotaExceeded, "this mount has shown too many sessions")
                .next("unmount it and mount it again"));
        }
        state.ids.push(id.clone());
        let slot = state.ids.len() as u32;
        state.by_id.insert(id.clone(), slot);
        Ok(slot)
    }

    /// The session of a slot.
    pub(super) fn id(&self, slot: u32) -> Result<SessionId> {
        let state = self.state.read();
        let index = (slot as usize).checked_sub(1).ok_or(Reason::Stale)?;
        state.ids.get(index).cloned().ok_or_else(|| Reason::Stale.into())
    }

    pub(super) fn live(&self, slot: u32) -> Option<Arc<Live>> {
        self.state.read().live.get(&slot).cloned()
    }

    /// Keeps a session; if somebody else did so first, theirs. True: it was let go before, and nobody watched it since.
    pub(super) fn keep(&self, slot: u32, live: Live) -> (Arc<Live>, bool) {
        let mut state = self.state.write();
        let live = state.live.entry(slot).or_insert_with(|| Arc::new(live)).clone();
        (live, state.dropped.remove(&slot))
    }

    /// Lets a session go. It comes back when the kernel asks for it again.
    pub(super) fn drop_live(&self, slot: u32) {
        let mut state = self.state.write();
        let gone = state.live.remove(&slot);
        if gone.is_some() {
            state.dropped.insert(slot);
        }
        drop(state);
        drop(gone); // its watch ends outside of the lock
    }

    /// Remembers that the kernel was told of a session that is not there.
    pub(super) fn note_absent(&self, id: &SessionId) {
        let mut state = self.state.write();
        if let Some(absent) = &mut state.absent {
            absent.insert(id.clone());
            if absent.len() > MAX_ABSENT {
                state.absent = None;
            }
        }
    }

    /// Whether the kernel may have been told that a session is not there; asked once.
    pub(super) fn was_absent(&self, id: &SessionId) -> bool {
        self.state.write().absent.as_mut().is_none_or(|absent| absent.remove(id))
    }

    /// The slot of a session that has one.
    pub(super) fn known(&self, id: &SessionId) -> Option<u32> {
        self.state.read().by_id.get(id).copied()
    }
}

/// The number in the mount of an inode of a session.
pub(super) fn join(slot: u32, ino: Ino) -> Ino {
    u64::from(slot) << 32 | ino
}

/// Slot and inode number. The directory of sessions is (0, 1).
pub(super) fn split(ino: Ino) -> (u32, Ino) {
    ((ino >> 32) as u32, ino & 0xffff_ffff)
}

/// The number of a session's root.
pub(super) fn root(slot: u32) -> Ino {
    join(slot, ROOT_INO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_stay() {
        let (slots, a, b) =
            (Slots::default(), SessionId::parse("sess_a").unwrap(), SessionId::parse("sess_b").unwrap());
        assert_eq!((slots.of(&a).unwrap(), slots.of(&b).unwrap(), slots.of(&a).unwrap()), (1, 2, 1));
        assert_eq!(slots.id(2).unwrap(), b);
        assert!(slots.id(0).is_err() && slots.id(3).is_err());
        slots.note_absent(&a);
        assert!(slots.was_absent(&a) && !slots.was_absent(&a) && !slots.was_absent(&b));
        assert_eq!(split(join(7, 42)), (7, 42));
        assert_eq!(split(ROOT_INO), (0, 1));
    }
}
