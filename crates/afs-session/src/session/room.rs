//! What a session's overlay takes of the RAM that there is for it, and for all of them ([`crate::overlays`]).
//!
//! Guarantees: no change makes an overlay larger that is as large as one may be, or when all together are; what makes it no larger is never
//! refused, nor, for half as much again, are deletions: whoever has to make room must be able to. What was counted is taken off when the session leaves RAM.
//! Deliberately absent: waiting for room. Who is refused can let go of other sessions, and nobody else may be about to.

use super::{Session, State};
use crate::overlays::Overlays;
use afs_core::op::Op;
use afs_core::tree::Tree;
use afs_types::{Error, Reason, Result};
use std::sync::Arc;

impl State {
    /// Others will stand on the tree as it is.
    pub(super) fn share_overlay(&mut self, all: &Arc<Overlays>) {
        self.own.share(&self.tree, all);
    }

    /// The tree is another one, after `ops` operations.
    pub(super) fn counted(&mut self, ops: usize, all: &Overlays) {
        self.own.changed(&self.tree, ops, all);
    }
}

impl Session {
    /// Refuses an operation on `tree` that there is no RAM for.
    pub(super) fn check_room(&self, tree: &Tree, op: &Op) -> Result<()> {
        let bytes = tree.overlay_bytes();
        let (most, all) = (self.shared.config.overlay_bytes, &self.shared.overlays);
        let has_room = |bytes: u64, most: u64| {
            bytes < most || matches!(op, Op::Unlink { .. } if bytes < most.saturating_add(most / 2))
        };
        let fits = (has_room(bytes, most), has_room(all.used(), all.most()));
        if fits == (true, true) {
            return Ok(());
        }
        let mut after = tree.clone();
        after.apply(op, 0);
        if after.overlay_bytes() <= bytes {
            return Ok(());
        }
        Err(if fits.0 { all_full(all.most()) } else { self.is_full(most) })
    }

    fn is_full(&self, most: u64) -> Error {
        let message = format!("{}: what it changed takes {most} bytes of the server's memory", self.id);
        Error::new(Reason::QuotaExceeded, message)
            .with("limit", most.to_string())
            .next("delete files in it, or commit it and go on in a session on the new version")
    }
}

/// The error when all sessions together have all the RAM that there is for what they changed.
pub(crate) fn all_full(most: u64) -> Error {
    let message =
        format!("what sessions changed takes the {most} bytes of memory that the server has for it");
    Error::new(Reason::QuotaExceeded, message).with("limit", most.to_string()).next(
        "unmount, archive or delete sessions that nobody needs now, or give the server more: all_overlays_bytes",
    )
}

impl Drop for Session {
    fn drop(&mut self) {
        self.state.get_mut().own.end(&self.shared.overlays);
    }
}
