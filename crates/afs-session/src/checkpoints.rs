//! Checkpoints: named instants of a session, and going back to one.
//!
//! Guarantees: a checkpoint is of one instant, O(1) whatever the overlay's size, and never changes; a restore keeps the
//! state before it as an automatic checkpoint, and revisions go on growing.

use crate::engine::Engine;
use crate::lifecycle::{Page, Room, check_text, page_size};
use crate::records::{CheckpointRec, Stored};
use crate::requests::Begin;
use crate::session::{CutRef, Session};
use afs_core::diff::diff;
use afs_store::{Batch, Space};
use afs_types::{CheckpointId, Error, Reason, RequestId, Result, SessionId};
use std::ops::ControlFlow;

/// A checkpoint as callers see it.
#[derive(Clone, Debug)]
pub struct CheckpointInfo {
    /// Its id.
    pub id: CheckpointId,
    /// Its record.
    pub record: CheckpointRec,
}

/// What a restore did.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The session's revision after it.
    pub revision: u64,
    /// The state before it.
    pub safety_checkpoint: CheckpointId,
    /// Paths that changed.
    pub files_changed: u64,
}

impl Engine {
    /// Names this instant of a session.
    pub fn checkpoint(
        &self,
        session: &SessionId,
        name: &str,
        message: &str,
        request_id: Option<&RequestId>,
    ) -> Result<CheckpointInfo> {
        check_text("name", name)?;
        check_text("message", message)?;
        let parts = [session.as_str().as_bytes(), name.as_bytes(), message.as_bytes()];
        let attempt = match self.begin("CreateCheckpoint", request_id, &parts)? {
            Begin::Done(ids) => return self.get_checkpoint(session, &CheckpointId::parse(&ids[0])?),
            Begin::Go(attempt) => attempt,
        };
        let live = self.session(session)?;
        let id = CheckpointId::from_ulid(self.shared.next_ulid());
        let draft = Draft { id: &id, name, message, automatic: false, now_ns: self.shared.now_ns() };
        let (record, at, job) = live.cut(|cut, batch| {
            let record = draft.record(&live, cut);
            draft.write(&record, batch);
            if let Some(attempt) = &attempt {
                attempt.remember(&[id.to_string()], batch);
            }
            Ok(record)
        })?;
        self.shared.queue_fold(job);
        self.shared.wait(at)?;
        Ok(CheckpointInfo { id, record })
    }

    /// One checkpoint of a session.
    pub fn get_checkpoint(&self, session: &SessionId, id: &CheckpointId) -> Result<CheckpointInfo> {
        let record: Option<CheckpointRec> = self.shared.read(Space::Checkpoint, id.as_str().as_bytes())?;
        match record {
            Some(record) if record.session == *session => Ok(CheckpointInfo { id: id.clone(), record }),
            _ => Err(id.not_found()),
        }
    }

    /// Checkpoints of a session, oldest first.
    pub fn list_checkpoints(
        &self,
        session: &SessionId,
        size: usize,
        after: Option<&str>,
        automatic_too: bool,
    ) -> Result<Page<CheckpointInfo>> {
        self.session_record(session)?;
        let size = page_size(size)?;
        let (mut items, mut more, mut room) = (Vec::new(), false, Room::default());
        self.checkpoint_ids(session, after, &mut |id| {
            let info = match self.get_checkpoint(session, &id) {
                // Deleted since the list began.
                Err(error) if error.reason == Reason::CheckpointNotFound => {
                    return Ok(ControlFlow::Continue(()));
                }
                other => other?,
            };
            if info.record.automatic && !automatic_too {
                return Ok(ControlFlow::Continue(()));
            }
            if items.len() == size || !room.takes(info.record.name.len() + info.record.message.len() + 200) {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            items.push(info);
            Ok(ControlFlow::Continue(()))
        })?;
        let next = if more { items.last().map(|i: &CheckpointInfo| i.id.to_string()) } else { None };
        Ok(Page { items, next })
    }

    /// Forgets a checkpoint. Sessions forked from it live on.
    pub fn delete_checkpoint(&self, session: &SessionId, id: &CheckpointId) -> Result<()> {
        self.get_checkpoint(session, id)?;
        let mut batch = Batch::new();
        batch.delete(Space::Checkpoint, id.as_str()).delete(Space::Name, by_session(session, id));
        self.shared.commit(batch.freeing())
    }

    /// Puts a session back to a checkpoint (of its own). What it was is kept as an automatic checkpoint.
    pub fn restore(
        &self,
        session: &SessionId,
        checkpoint: &CheckpointId,
        if_revision: Option<u64>,
        request_id: Option<&RequestId>,
    ) -> Result<Restored> {
        let at = if_revision.map_or(Vec::new(), |r| r.to_le_bytes().to_vec());
        let parts = [session.as_str().as_bytes(), checkpoint.as_str().as_bytes(), &at];
        let attempt = match self.begin("RestoreCheckpoint", request_id, &parts)? {
            Begin::Done(answer) => return remembered(&answer),
            Begin::Go(attempt) => attempt,
        };
        let target = self.get_checkpoint(session, checkpoint)?.record;
        let live = self.session(session)?;
        let to = self.instant_anyway(&target.version, target.layer)?;
        let id = CheckpointId::from_ulid(self.shared.next_ulid());
        let name = format!("before restore to {checkpoint}");
        let draft =
            Draft { id: &id, name: &name, message: "", automatic: true, now_ns: self.shared.now_ns() };
        for attempts_left in (0..COUNT_TRIES).rev() {
            // Counted before the lock is taken; in the end under it, if others never stop writing.
            let seen = live.tree();
            let mut files_changed = diff(&seen, &to.tree).len() as u64;
            let mut moved = false;
            let jumped = live.jump(&to, if_revision, |before, seq, batch| {
                if !before.tree.same_as(&seen) {
                    if attempts_left > 0 {
                        moved = true;
                        return Err(Reason::Unavailable.into());
                    }
                    files_changed = diff(before.tree, &to.tree).len() as u64;
                }
                draft.write(&draft.record(&live, before), batch);
                if let Some(attempt) = &attempt {
                    attempt.remember(&[seq.to_string(), id.to_string(), files_changed.to_string()], batch);
                }
                Ok(())
            });
            if moved {
                continue;
            }
            let (stamp, job) = jumped?;
            self.shared.queue_fold(job);
            live.wait(stamp)?;
            return Ok(Restored { revision: stamp.seq, safety_checkpoint: id, files_changed });
        }
        Err(Reason::Internal.into())
    }

    /// Visits the checkpoints of a session in order of their ids, after one.
    fn checkpoint_ids(
        &self,
        session: &SessionId,
        after: Option<&str>,
        visit: &mut dyn FnMut(CheckpointId) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let prefix = by_session_prefix(session);
        let from = after.map_or(prefix.clone(), |a| [prefix.as_slice(), a.as_bytes(), b"\0"].concat());
        self.shared.ports.journal.scan(Space::Name, &from, None, &mut |key, _| {
            let Some(id) = key.strip_prefix(prefix.as_slice()) else { return Ok(ControlFlow::Break(())) };
            visit(CheckpointId::parse(&String::from_utf8_lossy(id))?)
        })
    }

    /// Removes all checkpoints of a session that is being deleted.
    pub(crate) fn drop_checkpoints(&self, session: &SessionId, batch: &mut Batch) -> Result<()> {
        self.checkpoint_ids(session, None, &mut |id| {
            batch.delete(Space::Checkpoint, id.as_str()).delete(Space::Name, by_session(session, &id));
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// How often a restore counts what it changes before it does so with writers waiting.
const COUNT_TRIES: u32 = 4;

/// A checkpoint that is about to be written.
struct Draft<'a> {
    id: &'a CheckpointId,
    name: &'a str,
    message: &'a str,
    automatic: bool,
    now_ns: i64,
}

impl Draft<'_> {
    fn record(&self, session: &Session, cut: &CutRef<'_>) -> CheckpointRec {
        CheckpointRec {
            session: session.id().clone(),
            layer: cut.layer,
            version: session.family().version.clone(),
            seq: cut.seq,
            name: self.name.to_owned(),
            message: self.message.to_owned(),
            automatic: self.automatic,
            created_ns: self.now_ns,
        }
    }
    fn write(&self, record: &CheckpointRec, batch: &mut Batch) {
        batch.put_with(Space::Checkpoint, self.id.as_str(), |e| record.encode_to(e));
        batch.put(Space::Name, by_session(&record.session, self.id), b"");
    }
}

fn by_session_prefix(session: &SessionId) -> Vec<u8> {
    format!("checkpoint\0{session}\0").into_bytes()
}

fn by_session(session: &SessionId, id: &CheckpointId) -> Vec<u8> {
    [by_session_prefix(session).as_slice(), id.as_str().as_bytes()].concat()
}

fn remembered(answer: &[String]) -> Result<Restored> {
    let [revision, safety, files] = answer else { return Err(Reason::Corrupt.into()) };
    let number = |t: &str| t.parse().map_err(|_| Error::bare(Reason::Corrupt));
    Ok(Restored {
        revision: number(revision)?,
        safety_checkpoint: CheckpointId::parse(safety)?,
        files_changed: number(files)?,
    })
}
