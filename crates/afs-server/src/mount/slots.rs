//! Which session has which high half of inode numbers in the mount of all sessions.
//!
//! Guarantees: a slot names one session for the life of the mount and is never used for another, also not for a later one with the same
//! id (a session is its id and when it was made), so an inode number that the kernel still has can only mean what it meant, or nothing
//! any more; a session that was let go gets its old slot again. Who is watched by a slot is replaced only by the object that the engine
//! has now, so no session that takes calls is ever without its watch while the kernel knows something of it.

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

/// One session among all that have had its id: when it was made, nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Incarnation {
    pub(super) id: SessionId,
    pub(super) created_ns: i64,
}

#[derive(Default)]
pub(super) struct Slots {
    state: RwLock<State>,
}

struct State {
    all: Vec<Incarnation>,
    /// The slot of the youngest session that had the id.
    by_id: HashMap<SessionId, u32>,
    live: HashMap<u32, Arc<Live>>,
    /// Let go of since they were live.
    dropped: HashSet<u32>,
    /// Names that were asked for and not there. None: too many to remember.
    absent: Option<HashSet<SessionId>>,
}

impl Default for State {
    fn default() -> Self {
        let (all, by_id, live, dropped) = Default::default();
        Self { all, by_id, live, dropped, absent: Some(HashSet::new()) }
    }
}

impl State {
    fn get(&self, slot: u32) -> Option<&Incarnation> {
        self.all.get((slot as usize).checked_sub(1)?)
    }

    /// The slot of an id, and whose it is.
    fn known(&self, id: &SessionId) -> Option<(u32, i64)> {
        let slot = *self.by_id.get(id)?;
        Some((slot, self.get(slot)?.created_ns))
    }
}

impl Slots {
    /// The session's slot, given on first use. True: another session had the id before, and the kernel may still take its name for that one.
    /// [`Reason::Stale`]: this session is gone, and another has its id.
    pub(super) fn of(&self, id: &SessionId, created_ns: i64) -> Result<(u32, bool)> {
        let known = |state: &State| match state.known(id) {
            Some((slot, had)) if had == created_ns => Some(Ok((slot, false))),
            Some((_, had)) if had > created_ns => Some(Err(Error::bare(Reason::Stale))),
            _ => None,
        };
        if let Some(found) = known(&self.state.read()) {
            return found;
        }
        let mut state = self.state.write();
        if let Some(found) = known(&state) {
            return found;
        }
        if state.all.len() >= MAX_SLOTS {
            return Err(Error::new(Reason::QuotaExceeded, "this mount has shown too many sessions")
                .next("unmount it and mount it again"));
        }
        state.all.push(Incarnation { id: id.clone(), created_ns });
        let slot = state.all.len() as u32;
        let before = state.by_id.insert(id.clone(), slot);
        Ok((slot, before.is_some()))
    }

    /// Whose slot it is.
    pub(super) fn get(&self, slot: u32) -> Result<Incarnation> {
        self.state.read().get(slot).cloned().ok_or_else(|| Reason::Stale.into())
    }

    pub(super) fn live(&self, slot: u32) -> Option<Arc<Live>> {
        self.state.read().live.get(&slot).cloned()
    }

    /// Keeps a session; if somebody else did so first, theirs, unless that one is over. True: it was let go before, and nobody watched it
    /// since.
    pub(super) fn keep(&self, slot: u32, live: Live, is_over: impl Fn(&Live) -> bool) -> (Arc<Live>, bool) {
        let mut state = self.state.write();
        let new = Arc::new(live);
        let (kept, other) = match state.live.get(&slot) {
            Some(theirs) if !is_over(theirs) => (theirs.clone(), Some(new)),
            _ => {
                let over = state.live.insert(slot, new.clone());
                (new, over)
            }
        };
        let was_dropped = state.dropped.remove(&slot);
        drop(state);
        drop(other); // its watch ends outside of the lock
        (kept, was_dropped)
    }

    /// Lets a session go of which the kernel knows nothing any more. It comes back when the kernel asks for it again.
    pub(super) fn drop_live(&self, slot: u32) {
        self.drop_if(slot, |_| true);
    }

    /// Lets a session go if it is over.
    pub(super) fn drop_if(&self, slot: u32, is_over: impl Fn(&Live) -> bool) {
        let mut state = self.state.write();
        if !state.live.get(&slot).is_some_and(|there| is_over(there)) {
            return;
        }
        let gone = state.live.remove(&slot);
        state.dropped.insert(slot);
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

    /// The slot of the youngest session that had the id, and when that one was made.
    pub(super) fn known(&self, id: &SessionId) -> Option<(u32, i64)> {
        self.state.read().known(id)
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
        let of = |id, made| slots.of(id, made).unwrap();
        assert_eq!((of(&a, 5), of(&b, 5), of(&a, 5)), ((1, false), (2, false), (1, false)));
        assert_eq!(slots.get(2).unwrap(), Incarnation { id: b.clone(), created_ns: 5 });
        assert!(slots.get(0).is_err() && slots.get(3).is_err());
        slots.note_absent(&a);
        assert!(slots.was_absent(&a) && !slots.was_absent(&a) && !slots.was_absent(&b));
        assert_eq!(split(join(7, 42)), (7, 42));
        assert_eq!(split(ROOT_INO), (0, 1));
    }

    #[test]
    fn an_id_that_is_used_again_gets_another_slot_and_the_old_one_stays_what_it_was() {
        let (slots, a) = (Slots::default(), SessionId::parse("sess_a").unwrap());
        assert_eq!(slots.of(&a, 5).unwrap(), (1, false));
        assert_eq!(slots.of(&a, 6).unwrap(), (2, true), "another one had the name");
        assert_eq!(slots.of(&a, 6).unwrap(), (2, false), "that is news once");
        assert_eq!((slots.get(1).unwrap().created_ns, slots.known(&a)), (5, Some((2, 6))));
        assert_eq!(
            slots.of(&a, 5).unwrap_err().reason,
            Reason::Stale,
            "whoever comes late does not bring it back"
        );
        assert_eq!(slots.known(&a), Some((2, 6)));
    }
}
