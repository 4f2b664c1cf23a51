//! What mounts did before the server started: a mount that was not answered asks whether its change happened, or does it again.
//!
//! Guarantees: of a change that was named in its record, and whose caller had seen revision `since` before it sent it, [`Past::of`] says
//! that it was made only if it is in the session's history, and that it was not only if every change behind `since` was looked at.
//! Gathered when the session is loaded, since the first change of a start closes the layer before it, whose records folding removes.
//! Bounded: the newest [`MOST`] changes, for as long as mounts from before have to come back. What is older is not known.
//! Deliberately absent: changes of this start, whose answers the attachments keep themselves.

use afs_core::op::{Op, Record};
use afs_types::{Ino, limits};
use std::collections::VecDeque;

/// Changes of one session that are remembered. Those under way in a crash are among the newest: a mount has some dozens at a time.
const MOST: usize = 1024;

/// A change that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// An inode with its first name.
    Created(Ino),
    /// One more name.
    Linked,
    /// A name went.
    Unlinked,
    /// A name moved.
    Renamed,
    /// Bytes.
    Written {
        /// Where they went.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// An extended attribute was set or removed.
    Xattr,
}

/// What is known of a change from before the server started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It was made, and is kept.
    Done(Did),
    /// It was not made, or the crash took it back.
    NotDone,
    /// The records that would say it were folded, or are not of this history.
    Unknown,
}

/// The changes of mounts in the newest part of a session's history.
#[derive(Default)]
pub(crate) struct Past {
    /// All behind this sequence number are here.
    from: u64,
    /// Names and sequence numbers.
    done: VecDeque<(u64, u64, Did)>,
    /// Nobody comes back for it from this time on, nanoseconds.
    pub(crate) until_ns: i64,
}

impl Past {
    /// What comes is behind `seq`, with nothing known of what is before.
    pub(crate) fn restart(&mut self, seq: u64) {
        self.done.clear();
        self.from = seq;
    }

    /// A layer that begins at `seq` follows on a history that ends at `last`. Numbers go on, or jump as at each start of the server
    /// (`State::base_seq`); after another jump (a restore) there were changes between that this history does not have.
    pub(crate) fn follow(&mut self, last: u64, seq: u64) {
        if seq != last && seq != last.saturating_add(limits::SEQ_STEP_PER_START) {
            self.restart(seq);
        }
    }

    /// The next change. Those of start `epoch`, which is the present one, are left out.
    pub(crate) fn note(&mut self, record: &Record, seq: u64, epoch: u32) {
        if record.op_id == 0 || record.epoch == epoch {
            return;
        }
        let did = match &record.op {
            Op::Create { ino, .. } => Did::Created(*ino),
            Op::Link { .. } => Did::Linked,
            Op::Unlink { .. } => Did::Unlinked,
            Op::Rename { .. } => Did::Renamed,
            Op::Write { offset, len, .. } => Did::Written { offset: *offset, len: *len },
            Op::Xattr { .. } => Did::Xattr,
            // Nobody asks: done twice they are as good as done once.
            Op::SetAttr { .. }
            | Op::Punch { .. }
            | Op::Replace { .. }
            | Op::Reap { .. }
            | Op::Seal { .. } => {
                return;
            }
        };
        if self.done.len() == MOST
            && let Some((_, oldest, _)) = self.done.pop_front()
        {
            self.from = oldest;
        }
        self.done.push_back((record.op_id, seq, did));
    }

    /// What is known of the change of this name, which was sent after its caller had seen revision `since`.
    pub(crate) fn of(&self, op_id: u64, since: u64) -> Before {
        match self.done.iter().rev().find(|(name, ..)| *name == op_id) {
            Some((_, _, did)) => Before::Done(*did),
            None if since >= self.from => Before::NotDone,
            None => Before::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unlinked(op_id: u64, epoch: u32) -> Record {
        let op = Op::Unlink { parent: 1, name: b"f".as_slice().into(), keep: false, time_ns: 0 };
        Record { epoch, op_id, op }
    }

    #[test]
    fn not_done_is_said_only_of_what_was_looked_at() {
        let mut past = Past::default();
        past.follow(0, 0);
        past.note(&unlinked(7, 1), 1, 3);
        past.note(&unlinked(0, 1), 2, 3);
        past.note(&unlinked(8, 3), 3, 3);
        assert_eq!(past.of(7, 0), Before::Done(Did::Unlinked));
        assert_eq!((past.of(8, 0), past.of(0, 0)), (Before::NotDone, Before::NotDone));
        // The next start of the server.
        past.follow(3, 3 + limits::SEQ_STEP_PER_START);
        assert_eq!(past.of(7, 0), Before::Done(Did::Unlinked));
        // A restore: what was done between stands in another branch.
        past.follow(3, 90);
        assert_eq!(past.of(7, 89), Before::Unknown);
        assert_eq!(past.of(7, 90), Before::NotDone);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_not_is_unknown() {
        let mut past = Past::default();
        let many = MOST as u64 + 10;
        for n in 1..=many {
            past.note(&unlinked(n, 1), n, 2);
        }
        assert_eq!(past.done.len(), MOST);
        assert_eq!((past.of(10, 9), past.of(11, 10)), (Before::Unknown, Before::Done(Did::Unlinked)));
        assert_eq!((past.of(many + 1, 10), past.of(many + 1, 9)), (Before::NotDone, Before::Unknown));
    }
}
