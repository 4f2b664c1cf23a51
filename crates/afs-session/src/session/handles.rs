//! Who has which inode open: a file without a name lives until nobody has.
//!
//! Guarantees: an inode that is held is not reaped; a hold ends once, also of an inode or a session that is gone meanwhile.
//! Deliberately absent: the reaping itself ([`super::State::due_reaps`] and whoever ends the last hold).

use super::{Life, Session, Unheld};
use afs_types::{Ino, Reason, Result};

impl Session {
    /// Keeps an inode alive while it has no name.
    pub(crate) fn hold(&self, ino: Ino) -> Result<()> {
        let mut state = self.state.write();
        state.check(&self.id)?;
        state.tree.attr(ino).ok_or(Reason::Stale)?;
        *state.handles.get_or_insert_default().entry(ino).or_insert(0) += 1;
        Ok(())
    }

    /// An inode without a name could not be reaped with its last release: the next change that succeeds does it.
    pub(crate) fn reap_later(&self) {
        let mut state = self.state.write();
        if state.reap_after_ns == i64::MAX {
            state.reap_after_ns = i64::MIN;
        }
    }

    /// Ends a hold, also of an inode that a restore has taken away, and of a session that is gone.
    pub(crate) fn unhold(&self, ino: Ino) -> Unheld {
        let mut guard = self.state.write();
        let state = &mut *guard;
        let Some(handles) = state.handles.as_mut() else { return Unheld::Nothing };
        let Some(count) = handles.get_mut(&ino) else { return Unheld::Nothing };
        *count -= 1;
        if *count > 0 {
            return Unheld::Hold;
        }
        handles.remove(&ino);
        if handles.is_empty() {
            state.handles = None;
        }
        let orphan = state.life == Life::Open && state.tree.attr(ino).is_some_and(|a| a.nlink == 0);
        if orphan { Unheld::Inode } else { Unheld::Hold }
    }
}
