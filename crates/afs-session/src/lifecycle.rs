//! Life of sessions: create, fork, list, update, archive, resume, delete.
//!
//! Guarantees: fork copies two roots and writes a few hundred bytes, whatever the sizes; n forks are one batch, all or nothing.
//! Every call returns after its journal group is on disk, except `fork_start`, whose caller waits.

use crate::engine::Engine;
use crate::family::Family;
use crate::records::{CheckpointRec, CommitRec, HeadRec, Labels, SessionRec, Stored, head_key, session_key};
use crate::requests::{Attempt, Begin};
use crate::session::{Cut, Session};
use afs_store::{Batch, Position, Space};
use afs_types::{
    CheckpointId, CommitId, Error, Reason, RequestId, Result, SessionId, SourceId, VersionId, limits,
};
use std::collections::HashSet;
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
    /// How long it lives, nanoseconds.
    pub ttl_ns: Option<i64>,
    /// Makes retries safe.
    pub request_id: Option<RequestId>,
}

/// A request for forks.
#[derive(Clone, Debug)]
pub struct Fork {
    /// The session to fork.
    pub session: SessionId,
    /// One of its checkpoints to fork from, instead of its state now.
    pub checkpoint: Option<CheckpointId>,
    /// One of its commits to fork from.
    pub commit: Option<CommitId>,
    /// How many, 1 to `limits::MAX_FORKS`.
    pub count: u32,
    /// Ids wanted; the server makes the rest.
    pub new_ids: Vec<SessionId>,
    /// Labels of the forks.
    pub labels: Labels,
    /// How long they live, nanoseconds.
    pub ttl_ns: Option<i64>,
    /// Makes retries safe.
    pub request_id: Option<RequestId>,
}

impl Fork {
    /// One fork of the state now.
    pub fn of(session: SessionId) -> Self {
        Self {
            session,
            checkpoint: None,
            commit: None,
            count: 1,
            new_ids: Vec::new(),
            labels: Labels::new(),
            ttl_ns: None,
            request_id: None,
        }
    }
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
    /// How long it lives from now, nanoseconds.
    pub ttl_ns: Option<Option<i64>>,
    /// Fails with `REVISION_MISMATCH` unless the record has this generation.
    pub if_generation: Option<u64>,
}

/// Forks that are in RAM and queued, not yet durable.
pub struct Forked {
    /// The new sessions.
    pub sessions: Vec<Arc<Session>>,
    /// Durable when the journal has reached this.
    pub at: Position,
}

/// What a fork starts from.
enum Origin {
    /// The state of a session now.
    Live(Arc<Session>),
    /// A checkpoint or commit.
    Kept(Arc<Family>, Cut),
}

impl Origin {
    fn family(&self) -> &Arc<Family> {
        match self {
            Self::Live(session) => session.family(),
            Self::Kept(family, _) => family,
        }
    }
}

impl Engine {
    /// Makes a session on a base.
    pub fn create_session(self: &Arc<Self>, want: CreateSession) -> Result<SessionInfo> {
        check_text("display_name", &want.display_name)?;
        check_labels(&want.labels)?;
        let print = format!("{want:?}");
        let attempt = match self.begin("CreateSession", want.request_id.as_ref(), &[print.as_bytes()])? {
            Begin::Done(ids) => return self.get_session(&SessionId::parse(&ids[0])?),
            Begin::Go(attempt) => attempt,
        };
        let version = self.pick_version(want.source.as_ref(), want.version.as_ref())?;
        let family = self.family(&version)?;
        let ids = self.new_ids(want.session_id.as_slice(), 1)?;
        let cut = Cut {
            layer: Default::default(),
            depth: 0,
            seq: 0,
            tree: afs_core::tree::Tree::new(family.base.clone()),
        };
        let now = self.shared.now_ns();
        let record = SessionRec {
            source: family.record.source.clone(),
            version,
            display_name: want.display_name,
            labels: want.labels,
            parent: None,
            parent_checkpoint: None,
            last_commit: None,
            archived: false,
            created_ns: now,
            updated_ns: now,
            expires_ns: want.ttl_ns.map(|t| now.saturating_add(t)),
            generation: 1,
        };
        let mut batch = Batch::new();
        write_sessions(&ids, &record, &cut, attempt.as_ref(), &mut batch);
        let at = self.shared.submit(batch)?;
        self.add(&ids, &family, &cut, at)?;
        self.shared.wait(at)?;
        self.get_session(&ids[0])
    }

    /// Forks: n new sessions that start as the parent is now, or was at a checkpoint or commit.
    pub fn fork(&self, want: &Fork) -> Result<Vec<SessionInfo>> {
        check_labels(&want.labels)?;
        let print = format!("{want:?}");
        let attempt = match self.begin("ForkSession", want.request_id.as_ref(), &[print.as_bytes()])? {
            Begin::Done(ids) => {
                return ids.iter().map(|id| self.get_session(&SessionId::parse(id)?)).collect();
            }
            Begin::Go(attempt) => attempt,
        };
        let (forked, record) = self.fork_with(want, attempt.as_ref())?;
        self.shared.wait(forked.at)?;
        Ok(forked.sessions.iter().map(|s| info(s, record.clone())).collect())
    }

    /// The part of a fork that is done in RAM: registered and queued; the caller waits for `at` before it tells anyone.
    pub fn fork_start(&self, want: &Fork) -> Result<Forked> {
        self.fork_with(want, None).map(|(forked, _)| forked)
    }

    fn fork_with(&self, want: &Fork, attempt: Option<&Attempt<'_>>) -> Result<(Forked, SessionRec)> {
        if want.count == 0 || want.count > limits::MAX_FORKS || want.new_ids.len() > want.count as usize {
            return Err(Error::invalid(
                "count",
                format!("1 to {}, and at least as many as new_session_ids", limits::MAX_FORKS),
            ));
        }
        let ids = self.new_ids(&want.new_ids, want.count as usize)?;
        let origin = self.fork_origin(want)?;
        let family = origin.family();
        let now = self.shared.now_ns();
        let record = SessionRec {
            source: family.record.source.clone(),
            version: family.version.clone(),
            display_name: String::new(),
            labels: want.labels.clone(),
            parent: Some(want.session.clone()),
            parent_checkpoint: want.checkpoint.clone(),
            last_commit: want.commit.clone(),
            archived: false,
            created_ns: now,
            updated_ns: now,
            expires_ns: want.ttl_ns.map(|t| now.saturating_add(t)),
            generation: 1,
        };
        let (cut, at) = match &origin {
            Origin::Kept(_, cut) => {
                let mut batch = Batch::new();
                write_sessions(&ids, &record, cut, attempt, &mut batch);
                (cut.clone(), self.shared.submit(batch)?)
            }
            Origin::Live(parent) => {
                let (cut, at, job) = parent.cut(|cut, batch| {
                    write_sessions(&ids, &record, cut, attempt, batch);
                    Ok(())
                })?;
                job.into_iter().for_each(|job| self.queue_fold(job));
                (cut, at)
            }
        };
        let sessions = self.add(&ids, family, &cut, at)?;
        Ok((Forked { sessions, at }, record))
    }

    /// The family, and the instant unless it is the live state.
    fn fork_origin(&self, want: &Fork) -> Result<Origin> {
        let (version, layer, owner) = match (&want.checkpoint, &want.commit) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("checkpoint_id", "either a checkpoint or a commit, not both"));
            }
            (Some(id), None) => {
                let rec: CheckpointRec = self
                    .shared
                    .read(Space::Checkpoint, id.as_str().as_bytes())?
                    .ok_or_else(|| id.not_found())?;
                (rec.version, rec.layer, rec.session)
            }
            (None, Some(id)) => {
                let rec: CommitRec =
                    self.shared.read(Space::Commit, id.as_str().as_bytes())?.ok_or_else(|| id.not_found())?;
                (rec.version, rec.layer, rec.session)
            }
            (None, None) => return Ok(Origin::Live(self.session(&want.session)?)),
        };
        if owner != want.session {
            return Err(Error::new(
                Reason::CheckpointNotFound,
                format!("{} has no such checkpoint or commit", want.session),
            ));
        }
        Ok(Origin::Kept(self.family(&version)?, self.instant(&version, layer)?))
    }

    fn add(
        &self,
        ids: &[SessionId],
        family: &Arc<Family>,
        cut: &Cut,
        at: Position,
    ) -> Result<Vec<Arc<Session>>> {
        let make = |id: &SessionId| {
            Session::new(id.clone(), self.shared.clone(), family.clone(), cut.clone(), None, at)
        };
        let sessions: Vec<_> = ids.iter().map(make).collect();
        for session in &sessions {
            if !self.register(session.clone()) {
                return Err(taken(session.id()));
            }
        }
        Ok(sessions)
    }

    /// The ids wanted, checked to be free, and made ones up to `count`.
    fn new_ids(&self, want: &[SessionId], count: usize) -> Result<Vec<SessionId>> {
        let mut seen = HashSet::new();
        for id in want {
            if !seen.insert(id) || self.resident(id).is_some() || self.is_known(id)? {
                return Err(taken(id));
            }
        }
        let made = (want.len()..count).map(|_| SessionId::from_ulid(self.shared.ports.ids.next_ulid()));
        Ok(want.iter().cloned().chain(made).collect())
    }

    fn is_known(&self, id: &SessionId) -> Result<bool> {
        Ok(self.shared.ports.journal.get(Space::Session, &session_key(id))?.is_some())
    }

    /// A session's record and state.
    pub fn get_session(&self, id: &SessionId) -> Result<SessionInfo> {
        let record = self.session_record(id)?;
        if let Some(session) = self.resident(id) {
            return Ok(info(&session, record));
        }
        let head: Option<HeadRec> = self.shared.read(Space::Session, &head_key(id))?;
        let revision = match head {
            Some(head) if head.owned => {
                if record.archived {
                    head.seq
                } else {
                    self.session(id)?.stamp().seq
                }
            }
            Some(head) => head.seq,
            None => 0,
        };
        Ok(SessionInfo { id: id.clone(), record, revision, resident: false, watchers: 0 })
    }

    /// Sessions in order of id, which is order of creation for ids made by the server.
    pub fn list_sessions(&self, query: &ListSessions) -> Result<Page<SessionInfo>> {
        let size = page_size(query.page_size)?;
        let from = query.after.as_ref().map_or(b"s".to_vec(), |a| [b"s", a.as_bytes(), b"\0"].concat());
        let (mut found, mut more) = (Vec::new(), false);
        self.shared.ports.journal.scan(Space::Session, &from, Some(b"t"), &mut |key, value| {
            let record = SessionRec::decode(value)?;
            if !query.matches(&record) {
                return Ok(ControlFlow::Continue(()));
            }
            if found.len() == size {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            let id = std::str::from_utf8(&key[1..]).map_err(|_| Error::bare(Reason::Corrupt))?;
            found.push(SessionId::parse(id)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let next = if more { found.last().map(|id| id.as_str().to_owned()) } else { None };
        let infos: Result<Vec<_>> = found.iter().map(|id| self.get_session(id)).collect();
        Ok(Page { items: infos?, next })
    }

    /// Changes labels, name, or life time.
    pub fn update_session(&self, id: &SessionId, change: UpdateSession) -> Result<SessionInfo> {
        change.display_name.iter().try_for_each(|n| check_text("display_name", n))?;
        change.labels.iter().try_for_each(check_labels)?;
        self.change_record(id, |rec, now| {
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
                rec.expires_ns = ttl.map(|t| now + t);
            }
            Ok(())
        })?;
        self.get_session(id)
    }

    pub(crate) fn change_record(
        &self,
        id: &SessionId,
        change: impl FnOnce(&mut SessionRec, i64) -> Result<()>,
    ) -> Result<()> {
        let _turn = self.record_turns.lock();
        let mut record = self.session_record(id)?;
        let now = self.shared.now_ns();
        change(&mut record, now)?;
        record.updated_ns = now;
        record.generation += 1;
        let mut batch = Batch::new();
        batch.put(Space::Session, session_key(id), record.encode());
        self.shared.commit(batch)
    }

    /// Moves a session out of RAM until it is resumed. Refused while mounts are attached.
    pub fn archive_session(&self, id: &SessionId) -> Result<SessionInfo> {
        let record = self.session_record(id)?;
        if record.archived {
            return self.get_session(id);
        }
        let session = self.session(id)?;
        if !session.is_idle() {
            return Err(Error::new(Reason::InUse, format!("{id} has files open or mounts attached"))
                .next("unmount it first: aether unmount --all"));
        }
        self.seal(&session)?;
        let (_, at, job) = session.cut(|_, _| Ok(()))?;
        job.into_iter().for_each(|j| self.queue_fold(j));
        self.shared.wait(at)?;
        drop(session);
        self.change_record(id, |rec, _| {
            rec.archived = true;
            Ok(())
        })?;
        self.evict(id)?;
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

    /// Deletes a session. Its forks, checkpoints' forks and commits live on. `force` also when mounts are attached.
    pub fn delete_session(&self, id: &SessionId, force: bool, if_generation: Option<u64>) -> Result<()> {
        let record = self.session_record(id)?;
        if if_generation.is_some_and(|g| g != record.generation) {
            return Err(Error::new(Reason::RevisionMismatch, format!("{id} has changed")));
        }
        if let Some(session) = self.resident(id)
            && !force
            && !session.is_idle()
        {
            return Err(Error::new(Reason::InUse, format!("{id} has files open or mounts attached"))
                .next("unmount it first, or delete with force"));
        }
        let mut batch = Batch::new();
        batch.delete(Space::Session, session_key(id)).delete(Space::Session, head_key(id));
        self.drop_checkpoints(id, &mut batch)?;
        self.shared.commit(batch.freeing())?;
        self.unregister(id);
        Ok(())
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

fn write_sessions(
    ids: &[SessionId],
    record: &SessionRec,
    cut: &Cut,
    attempt: Option<&Attempt<'_>>,
    batch: &mut Batch,
) {
    let record = record.encode();
    let head = HeadRec { layer: cut.layer, owned: false, seq: cut.seq }.encode();
    for id in ids {
        batch.put(Space::Session, session_key(id), record.clone());
        batch.put(Space::Session, head_key(id), head.clone());
    }
    if let Some(attempt) = attempt {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        attempt.remember(&ids, batch);
    }
}

fn taken(id: &SessionId) -> Error {
    Error::new(Reason::AlreadyExists, format!("{id} exists already")).with("id", id.as_str())
}

/// A page size within the limits; 0 is the default.
pub(crate) fn page_size(want: usize) -> Result<usize> {
    match want {
        0 => Ok(limits::DEFAULT_PAGE),
        n if n <= limits::MAX_PAGE => Ok(n),
        _ => Err(Error::invalid("page_size", format!("at most {}", limits::MAX_PAGE))),
    }
}

pub(crate) fn check_text(field: &'static str, text: &str) -> Result<()> {
    if text.len() > limits::MAX_MESSAGE_BYTES {
        return Err(Error::invalid(field, format!("at most {} bytes", limits::MAX_MESSAGE_BYTES)));
    }
    Ok(())
}

pub(crate) fn check_labels(labels: &Labels) -> Result<()> {
    let bad = labels.len() > limits::MAX_LABELS
        || labels.iter().any(|(k, v)| k.is_empty() || k.len().max(v.len()) > limits::MAX_LABEL_BYTES);
    if bad {
        return Err(Error::invalid(
            "labels",
            format!(
                "at most {} labels of at most {} bytes each",
                limits::MAX_LABELS,
                limits::MAX_LABEL_BYTES
            ),
        ));
    }
    Ok(())
}
