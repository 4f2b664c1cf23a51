//! Who leaves RAM when what sessions changed takes much of it, and who may come in.
//!
//! Guarantees: from three quarters of the bytes that all overlays may take, sessions that nobody has open leave, the least recently used first, until half is
//! free; a layer that one of them was writing to stays as records, so that nobody waits for a disk to seal it, and is folded when the session is next used. Who was used in
//! the last [`FRESH`] stays, unless all is taken. When nothing is free and nobody can leave, a session that is not in RAM is refused with the limit, and those in RAM go on as
//! [`crate::session`] says; a restore and a commit go on, too. From three quarters on, one loads at a time, so that the bound is exceeded by one overlay at most, and
//! by one more for each of these.
//! Deliberately absent: a thread. The server asks every second, and whoever finds no room does it there and then.

use crate::engine::Engine;
use crate::session::all_full;
use afs_types::{Error, Reason, Result, limits};
use parking_lot::{Mutex, MutexGuard};
use std::time::Duration;

/// Who was used so recently will be used again.
const FRESH: Duration = Duration::from_secs(10);

impl Engine {
    /// Bytes of RAM that what sessions changed takes, as it is counted, and may take.
    pub fn overlay_bytes(&self) -> (u64, u64) {
        (self.shared.overlays.used(), self.shared.overlays.most())
    }

    /// Evicts idle sessions, the least recently used first, if overlays take three quarters of what they may, until they take half. Returns how many
    /// left RAM. One that cannot leave does not keep the others.
    pub fn make_room(&self) -> Result<usize> {
        if !self.shared.overlays.is_tight() {
            return Ok(0);
        }
        let _turn = turn(&self.room_turn)?;
        Ok(self.evict_until_room())
    }

    /// Lets go of what is kept of instants: for forks, which load it again, and for who asks what changed since, who is told "everything".
    pub fn forget_instants(&self) {
        self.shared.trees.forget();
        self.instants.forget();
    }

    /// The caller has the turn.
    fn evict_until_room(&self) -> usize {
        let all = &self.shared.overlays;
        if !all.is_tight() {
            return 0;
        }
        self.forget_instants();
        let fresh = self.shared.now_ns().saturating_sub(FRESH.as_nanos() as i64);
        let mut gone = 0;
        for (used, id) in self.by_use() {
            if all.has_room() || (used > fresh && !all.is_full()) {
                break;
            }
            if !self.resident(&id).is_some_and(|session| session.has_overlay()) {
                continue;
            }
            match self.evict_and(&id, drop) {
                Ok(left) => gone += usize::from(left),
                Err(error) => tracing::warn!(%id, %error, "evict a session to have RAM for others"),
            }
        }
        gone
    }

    /// Where RAM is short, waits until nobody else loads anything; before it makes room, `check` says whether there is anything to load. The caller
    /// holds no turn of a session in [`Engine::moving`].
    pub(crate) fn turn_to_load(
        &self,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<Option<MutexGuard<'_, ()>>> {
        let all = &self.shared.overlays;
        if !all.is_tight() {
            return Ok(None);
        }
        check()?;
        if all.is_full() {
            let _turn = turn(&self.room_turn)?;
            if all.is_full() {
                self.evict_until_room();
            }
        }
        let turn = turn(&self.load_turn)?;
        if all.is_full() { Err(all_full(all.most())) } else { Ok(Some(turn)) }
    }
}

/// A turn, or, after as long as calls wait for memory, an error.
fn turn(of: &Mutex<()>) -> Result<MutexGuard<'_, ()>> {
    let patience = Duration::from_millis(limits::MAX_MEMORY_WAIT_MS);
    of.try_lock_for(patience).ok_or_else(|| {
        Error::new(Reason::QueueFull, "others are waiting for memory for what sessions changed")
            .with("limit", patience.as_millis().to_string())
    })
}
