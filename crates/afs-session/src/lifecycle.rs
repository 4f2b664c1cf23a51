//! Life of sessions: create, get, list, update, archive, resume, delete, and, in [`fork`], fork.
//!
//! Guarantees: every call returns after its journal group is on disk.

mod fork;
mod made;

pub use fork::Fork;
pub use made::Forked;

use made::{Made, Wanted};

use crate::engine::Engine;
use crate::records::{
    HeadRec, Labels, SessionRec, Stored, head_key, op_key, session_key, start_key, starts_end,
};
use crate::requests::Begin;
use crate::session::{Cut, Session};
use afs_store::{Batch, Position, Space};
use afs_types::{Error, LayerId, Reason, RequestId, Result, SessionId, SourceId, VersionId, limits};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A request for a session.
#[derive(Clone, Debug, Default)]
pub struct CreateSession {
    /// The id wanted; none: the server makes one.
    pub session_id: Option<SessionId>,
    /// Where the base comes from; none: an empty base.
    pub source: Option<SourceId>,
    /// The version of the source; none: its newest.
    pub version: Option<VersionId>,
    /// For people.
    pub display_name: String,
    /// For filters.
    pub labels: Labels,
    /// How long it lives, nanoseconds, at least one; none: until it is deleted.
    pub ttl_ns: Option<i64>,
    /// Makes retries safe.
    pub request_id: Option<RequestId>,
}

/// A session as callers see it.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// Its record.
    pub record: SessionRec,
    /// Sequence number of its newest change.
    pub revision: u64,
    /// In RAM now.
    pub resident: bool,
    /// Mounts and streams attached now.
    pub watchers: usize,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page starts; none at the end.
    pub next: Option<String>,
}

/// What is left of a page's bytes.
pub(crate) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(limits::MAX_PAGE_BYTES)
    }
}

impl Room {
    /// Whether an item fits; the first one always does, so that a list gets on.
    pub(crate) fn takes(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.0 || self.0 == limits::MAX_PAGE_BYTES;
        self.0 = self.0.saturating_sub(bytes.max(1));
        fits
    }
}

/// Which sessions to list.
#[derive(Clone, Debug, Default)]
pub struct ListSessions {
    /// Items of one page, 1 to `limits::MAX_PAGE`; 0 means the default.
    pub page_size: usize,
    /// The last id of the page before.
    pub after: Option<String>,
    /// Labels that must be there with these values.
    pub labels: Labels,
    /// Only sessions of this source.
    pub source: Option<SourceId>,
    /// Only forks of this session.
    pub parent: Option<SessionId>,
    /// Only archived ones, or only others.
    pub archived: Option<bool>,
}

/// Changes of a session's record; absent ones stay.
#[derive(Clone, Debug, Default)]
pub struct UpdateSession {
    /// For people.
    pub display_name: Option<String>,
    /// All labels.
    pub labels: Option<Labels>,
    /// How long it lives from now, as that of [`CreateSession`]; `Some(None)`: until it is deleted.
    pub ttl_ns: Option<Option<i64>>,
    /// Fails with `REVISION_MISMATCH` unless the record has this generation.
    pub if_generation: Option<u64>,
}

impl Engine {
    /// Makes a session on a base.
    pub fn create_session(self: &Arc<Self>, want: CreateSession) -> Result<SessionInfo> {
        check_text("display_name", &want.display_name)?;
        check_labels(&want.labels)?;
        check_ttl(want.ttl_ns)?;
        let print = format!("{want:?}");
        let attempt = match self.begin("CreateSession", want.request_id.as_ref(), &[print.as_bytes()])? {
            Begin::Done(ids) => return self.get_session(&SessionId::parse(&ids[0])?),
            Begin::Go(attempt) => attempt,
        };
        let source = self.base_source(want.source.as_ref(), want.version.as_ref())?;
        // Until the session is queued: who deletes the source finds it, or is waited for and has deleted it.
        let in_use = self.source_use(&source).read();
        let version = self.pick_version(&source, want.version)?;
        let family = self.family(&version)?;
        let mut wanted = Wanted::none(self, |_| "session_id".to_owned());
        wanted.reserve(want.session_id.as_slice())?;
        let tree = afs_core::tree::Tree::new(family.base.clone());
        let cut = Cut { layer: Default::default(), depth: 0, seq: 0, tree, share: None };
        let now = self.shared.now_ns();
        let created_ns = self.creation_ns(now);
        let record = SessionRec {
            source: family.record.source.clone(),
            version,
            display_name: want.display_name,
            labels: want.labels,
            parent: None,
            parent_checkpoint: None,
            last_commit: None,
            archived: false,
            created_ns,
            updated_ns: created_ns,
            expires_ns: want.ttl_ns.map(|t| now.saturating_add(t)),
            generation: 1,
            epoch: self.shared.epoch,
        };
        self.note_expiry(record.expires_ns);
        let made = Made {
            wanted: &wanted,
            count: 1,
            record: &record.view(),
            attempt: attempt.as_ref(),
            family: &family,
            now_ns: now,
        };
        let forked = self.make_sessions(&made, &cut.view())?;
        drop(in_use);
        // Again, now that a scan of the records sees it: the first may have been used up by one that came too early.
        self.note_expiry(record.expires_ns);
        self.shared.wait(forked.at)?;
        Ok(info(&forked.sessions[0], record))
    }

    /// A session's record and state.
    pub fn get_session(&self, id: &SessionId) -> Result<SessionInfo> {
        let record = self.session_record(id)?;
        if let Some(session) = self.resident(id) {
            return Ok(info(&session, record));
        }
        let head: Option<HeadRec> = self.shared.read(Space::Session, &head_key(id))?;
        let revision = match head {
            Some(head) if head.owned => self.last_seq(&head)?,
            Some(head) => head.seq,
            None => 0,
        };
        Ok(SessionInfo { id: id.clone(), record, revision, resident: false, watchers: 0 })
    }

    /// The newest sequence number of a layer that a session not in RAM appends to; without loading it, since lists ask for many.
    fn last_seq(&self, head: &HeadRec) -> Result<u64> {
        let (from, to) = (op_key(head.layer, 0), op_key(LayerId(head.layer.0 + 1), 0));
        let last = self.shared.ports.journal.last_key(Space::Record, &from, &to)?;
        Ok(last
            .and_then(|key| key.last_chunk::<8>().map(|b| u64::from_be_bytes(*b)))
            .map_or(head.seq, |seq| seq.max(head.seq)))
    }

    /// Sessions in order of id, which is order of creation for ids made by the server.
    pub fn list_sessions(&self, query: &ListSessions) -> Result<Page<SessionInfo>> {
        let size = page_size(query.page_size)?;
        let from = query.after.as_ref().map_or(b"s".to_vec(), |a| [b"s", a.as_bytes(), b"\0"].concat());
        let (mut found, mut more, mut room) = (Vec::new(), false, Room::default());
        self.shared.ports.journal.scan(Space::Session, &from, Some(b"t"), &mut |key, value| {
            let record = SessionRec::decode(value)?;
            if !query.matches(&record) {
                return Ok(ControlFlow::Continue(()));
            }
            if found.len() == size || !room.takes(value.len() + 300) {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            let id = std::str::from_utf8(&key[1..]).map_err(|_| Error::bare(Reason::Corrupt))?;
            found.push(SessionId::parse(id)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let next = if more { found.last().map(|id| id.as_str().to_owned()) } else { None };
        let mut items = Vec::with_capacity(found.len());
        for id in &found {
            match self.get_session(id) {
                Ok(info) => items.push(info),
                // Deleted since the scan.
                Err(e) if e.reason == Reason::SessionNotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Page { items, next })
    }

    /// Changes labels, name, or life time.
    pub fn update_session(&self, id: &SessionId, change: UpdateSession) -> Result<SessionInfo> {
        change.display_name.iter().try_for_each(|n| check_text("display_name", n))?;
        change.labels.iter().try_for_each(check_labels)?;
        check_ttl(change.ttl_ns.flatten())?;
        let mut expires_ns = None;
        let changed = self.change_record(id, |rec, now| {
            if change.if_generation.is_some_and(|g| g != rec.generation) {
                return Err(Error::new(
                    Reason::RevisionMismatch,
                    format!("{id} has etag {}, not the one given", rec.generation),
                )
                .with("etag", rec.generation.to_string()));
            }
            rec.display_name = change.display_name.unwrap_or(std::mem::take(&mut rec.display_name));
            rec.labels = change.labels.unwrap_or(std::mem::take(&mut rec.labels));
            if let Some(ttl) = change.ttl_ns {
                rec.expires_ns = ttl.map(|t| now.saturating_add(t));
                expires_ns = rec.expires_ns;
            }
            Ok(())
        });
        // Now that a scan of the records sees it, whatever became of the wait for the disk: one that came before has seen the old record.
        self.note_expiry(expires_ns);
        changed?;
        self.get_session(id)
    }

    pub(crate) fn change_record(
        &self,
        id: &SessionId,
        change: impl FnOnce(&mut SessionRec, i64) -> Result<()>,
    ) -> Result<()> {
        let _turn = self.record_turn(id);
        let mut record = self.session_record(id)?;
        let now = self.shared.now_ns();
        change(&mut record, now)?;
        record.updated_ns = now;
        record.generation += 1;
        let mut batch = Batch::new();
        batch.put_with(Space::Session, session_key(id), |e| record.encode_to(e));
        self.shared.commit(batch)
    }

    /// Moves a session out of RAM until it is resumed. Refused while mounts are attached or files are open; who still holds the session
    /// is refused from then on.
    pub fn archive_session(&self, id: &SessionId) -> Result<SessionInfo> {
        let _room = if self.resident(id).is_none() { Some(self.load_turn.lock()) } else { None };
        let turn = self.record_turn(id);
        let mut record = self.session_record(id)?;
        if record.archived {
            return self.get_session(id);
        }
        let alone = self.moving(id);
        let session = self.settled_session(id)?;
        record.archived = true;
        record.updated_ns = self.shared.now_ns();
        record.generation += 1;
        // In the batch that closes the session's layer, so that nothing is acknowledged after it.
        let (at, job) = session.archive(|batch| {
            batch.put_with(Space::Session, session_key(id), |e| record.encode_to(e));
        })?;
        self.shared.queue_fold(job);
        self.shared.wait(at)?;
        // Before anybody can resume and change it.
        session.tell_end(false);
        self.unregister(id);
        drop((alone, turn));
        self.get_session(id)
    }

    /// Makes an archived session usable again.
    pub fn resume_session(&self, id: &SessionId) -> Result<SessionInfo> {
        if self.session_record(id)?.archived {
            self.change_record(id, |rec, _| {
                rec.archived = false;
                Ok(())
            })?;
        }
        self.session(id)?;
        self.get_session(id)
    }

    /// Deletes a session. Its forks, checkpoints' forks and commits live on. `force` also when mounts are attached; they are refused from
    /// then on. Refused, it has changed nothing, for nobody: who watches goes on to hear of every change.
    pub fn delete_session(&self, id: &SessionId, force: bool, if_generation: Option<u64>) -> Result<()> {
        let turn = self.record_turn(id);
        let alone = self.moving(id);
        let record = self.session_record(id)?;
        if if_generation.is_some_and(|g| g != record.generation) {
            return Err(Error::new(Reason::RevisionMismatch, format!("{id} has changed")));
        }
        self.note_gone(record.created_ns);
        let session = self.resident(id);
        let ended = session.as_ref().map(|s| s.end(force)).transpose()?;
        // Nobody appends to it now. If the journal does not take the deletion, everything is as before.
        self.delete_records(id, ended).inspect_err(|_| session.iter().for_each(|s| s.revive()))?;
        // Before the id can be used again.
        session.iter().for_each(|s| s.tell_end(true));
        self.unregister(id);
        drop((alone, turn));
        Ok(())
    }

    fn delete_records(&self, id: &SessionId, ended: Option<Position>) -> Result<()> {
        if let Some(last) = ended {
            // Checkpoints that were under way are seen below.
            self.shared.wait(last)?;
        }
        let mut batch = Batch::new();
        batch.delete(Space::Session, session_key(id)).delete(Space::Session, head_key(id));
        batch.delete_range(Space::Session, start_key(id, 0), starts_end(id));
        self.drop_checkpoints(id, &mut batch)?;
        self.shared.commit(batch.freeing())
    }
}

impl ListSessions {
    fn matches(&self, rec: &SessionRec) -> bool {
        self.labels.iter().all(|(k, v)| rec.labels.get(k) == Some(v))
            && self.source.as_ref().is_none_or(|s| *s == rec.source)
            && self.parent.as_ref().is_none_or(|p| rec.parent.as_ref() == Some(p))
            && self.archived.is_none_or(|a| a == rec.archived)
    }
}

fn info(session: &Session, record: SessionRec) -> SessionInfo {
    SessionInfo {
        id: session.id().clone(),
        record,
        revision: session.stamp().seq,
        resident: true,
        watchers: session.watcher_count(),
    }
}

/// A page size within the limits; 0 is the default.
pub(crate) fn page_size(want: usize) -> Result<usize> {
    match want {
        0 => Ok(limits::DEFAULT_PAGE),
        n if n <= limits::MAX_PAGE => Ok(n),
        _ => Err(Error::above("page_size", limits::MAX_PAGE, "")),
    }
}

pub(crate) fn check_text(field: &'static str, text: &str) -> Result<()> {
    if text.len() > limits::MAX_MESSAGE_BYTES {
        return Err(Error::above(field, limits::MAX_MESSAGE_BYTES, "bytes"));
    }
    Ok(())
}

/// One that is over at once would make what is gone before anybody has seen it.
pub(crate) fn check_ttl(ttl_ns: Option<i64>) -> Result<()> {
    match ttl_ns {
        Some(..=0) => Err(Error::invalid("ttl", "more than 0s, or none")
            .with("limit", "0s")
            .next("leave it out to keep the session until it is deleted; to end one now, delete it")),
        _ => Ok(()),
    }
}

pub(crate) fn check_labels(labels: &Labels) -> Result<()> {
    if labels.len() > limits::MAX_LABELS {
        return Err(Error::above("labels", limits::MAX_LABELS, "labels"));
    }
    if labels.iter().any(|(k, v)| k.len().max(v.len()) > limits::MAX_LABEL_BYTES) {
        return Err(Error::above("labels", limits::MAX_LABEL_BYTES, "bytes in a key or value"));
    }
    if labels.keys().any(String::is_empty) {
        return Err(Error::invalid("labels", "keys that are not empty"));
    }
    Ok(())
}
