//! Operations that an earlier start of the server was sent and did not answer.
//!
//! Attachments end with the server, and with them the answers that they kept (`replies`). What is left is the journal: every record of a
//! mount has the name of its operation, made of the first attachment that it was sent over and its `op_id`, so that it is one among all
//! mounts and starts. Guarantees: what cannot be done twice is applied only if the records say that it was not, and answered like the
//! first time if they say that it was.
//!
//! Not known, and then TIMED_OUT: what was sent to this start, over an attachment that ended meanwhile (it may still be on its way to be
//! applied, and nothing says when it is not any more), and what would be in records that were folded since (`afs_session::Before`).

use super::registry::Registry;
use crate::reply::field;
use afs_proto::v1;
use afs_proto::v1::op::Op as Kind;
use afs_session::{Before, Did, Session};
use afs_types::{Error, MountId, Reason, Result};

/// What the operations of an attachment are called in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names(u64);

impl Names {
    /// Depends on the id alone, also in other versions of the server: an older one may have written the records.
    pub(crate) fn of(id: &MountId) -> Self {
        let hash = blake3::hash(id.as_str().as_bytes());
        Self(hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    /// Two attachments meet in one name only if their hashes are as close as their numbers of operations; 0 would be no name.
    pub(crate) fn of_op(self, op_id: u64) -> u64 {
        self.0.wrapping_add(op_id).max(1)
    }
}

/// How operations were sent before.
pub(crate) struct Resent {
    /// Of the first attachment.
    pub(crate) names: Names,
    since: u64,
    /// Whether the process that got them is gone, so that what it has not done is not done.
    is_settled: bool,
}

impl Resent {
    /// From a message. `epoch` is this start of the server.
    pub(crate) fn read(mounts: &Registry, epoch: u32, sent: &v1::SentBefore) -> Result<Self> {
        let id = field("sent_before.mount_id", MountId::parse(&sent.mount_id))?;
        let is_settled = sent.epoch != 0 && sent.epoch < epoch && !mounts.is_attached(&id);
        Ok(Self { names: Names::of(&id), since: sent.revision, is_settled })
    }

    /// What an operation has done. None: nothing, or what may be done again.
    pub(crate) fn became(&self, session: &Session, kind: &Kind, name: u64) -> Result<Option<Did>> {
        // A write at an offset may be done again if nothing is known of it; if it is, what others wrote there since must stay.
        let is_once_only = is_once_only(kind);
        if !is_once_only && !matches!(kind, Kind::Write(_)) {
            return Ok(None);
        }
        let before = if self.is_settled { session.before_start(name, self.since) } else { Before::Unknown };
        match before {
            Before::Done(did) => Ok(Some(did)),
            Before::NotDone => Ok(None),
            Before::Unknown if !is_once_only => Ok(None),
            Before::Unknown => Err(Error::new(
                Reason::TimedOut,
                "the server restarted while a change was under way, and what became of it cannot be known any more",
            )
            .next("look at the result before doing it again")),
        }
    }
}

/// Whether a second effect would be another than the first, or an error. Each of these leaves one record; others may leave two, of which
/// a crash may have kept one, and are simply done again.
fn is_once_only(kind: &Kind) -> bool {
    match kind {
        Kind::Unlink(_)
        | Kind::Rename(_)
        | Kind::Link(_)
        | Kind::Mkdir(_)
        | Kind::Symlink(_)
        | Kind::Mknod(_) => true,
        Kind::Create(op) => op.exclusive,
        Kind::Write(op) => op.append,
        Kind::Xattr(op) => op.remove || op.flags != 0,
        Kind::Setattr(_) | Kind::Fallocate(_) | Kind::CopyRange(_) | Kind::Open(_) | Kind::Release(_) => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records outlive the server that wrote them, so the names in them are as good as a format.
    #[test]
    fn names_are_of_one_attachment_and_stay() {
        let [a, b] = ["mnt_a", "mnt_b"].map(|id| Names::of(&MountId::parse(id).unwrap()));
        assert_eq!(a, Names::of(&MountId::parse("mnt_a").unwrap()));
        assert!(a.0.abs_diff(b.0) > 1 << 32, "{a:?} {b:?}");
        assert_eq!(a.of_op(8), a.of_op(7).wrapping_add(1));
        assert_eq!(Names(u64::MAX).of_op(1), 1);
    }
}
