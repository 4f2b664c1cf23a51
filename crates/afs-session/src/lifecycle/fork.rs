//! Forks: sessions that start as another one is, or was at a checkpoint or commit.
//!
//! Guarantees: a fork copies two roots and writes a few hundred bytes, whatever the sizes; n forks are one batch, all or nothing. Every call
//! returns after its journal group is on disk, except [`Engine::fork_start`], whose caller waits.

use super::made::{Forked, Made, Wanted};
use super::{SessionInfo, check_labels, check_ttl, info};
use crate::engine::Engine;
use crate::family::Family;
use crate::records::{CheckpointRec, CommitRec, Labels, SessionView};
use crate::requests::{Attempt, Begin};
use crate::session::{Cut, Session};
use afs_store::Space;
use afs_types::{CheckpointId, CommitId, Error, Reason, RequestId, Result, SessionId, limits};
use std::sync::Arc;

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
    /// How long they live, as that of [`CreateSession`].
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

/// What a fork starts from.
enum Origin<'a> {
    /// The state of a session now.
    Live(&'a Session),
    /// A checkpoint or commit.
    Kept(&'a Cut),
}

impl Engine {
    /// Forks: n new sessions that start as the parent is now, or was at a checkpoint or commit.
    pub fn fork(&self, want: &Fork) -> Result<Vec<SessionInfo>> {
        let print = want.request_id.as_ref().map_or_else(String::new, |_| format!("{want:?}"));
        let attempt = match self.begin("ForkSession", want.request_id.as_ref(), &[print.as_bytes()])? {
            Begin::Done(ids) => {
                return ids.iter().map(|id| self.get_session(&SessionId::parse(id)?)).collect();
            }
            Begin::Go(attempt) => attempt,
        };
        let now = self.shared.now_ns();
        let forked = self.fork_at(want, now, attempt.as_ref())?;
        self.shared.wait(forked.at)?;
        let Some(first) = forked.sessions.first() else { return Ok(Vec::new()) };
        let record = self.fork_record(want, first.family(), now, first.created_ns()).to_record();
        Ok(forked.sessions.iter().map(|s| info(s, record.clone())).collect())
    }

    /// The part of a fork that is done in RAM: registered and queued; the caller waits for `at` before it tells anyone.
    pub fn fork_start(&self, want: &Fork) -> Result<Forked> {
        self.fork_at(want, self.shared.now_ns(), None)
    }

    fn fork_at(&self, want: &Fork, now_ns: i64, attempt: Option<&Attempt<'_>>) -> Result<Forked> {
        check_labels(&want.labels)?;
        check_ttl(want.ttl_ns)?;
        if want.count == 0 || want.count > limits::MAX_FORKS || want.new_ids.len() > want.count as usize {
            return Err(Error::invalid(
                "count",
                format!("1 to {}, and at least as many as new_session_ids", limits::MAX_FORKS),
            ));
        }
        check_answer(want)?;
        let mut wanted = Wanted::none(self, |n| format!("new_session_ids[{n}]"));
        wanted.reserve(&want.new_ids)?;
        let (parent, kept);
        let (family, origin) = if want.checkpoint.is_some() || want.commit.is_some() {
            kept = self.fork_origin(want)?;
            (&kept.0, Origin::Kept(&kept.1))
        } else {
            parent = self.session_at(&want.session, now_ns)?;
            (parent.family(), Origin::Live(&parent))
        };
        let record = self.fork_record(want, family, now_ns, self.creation_ns(now_ns));
        self.note_expiry(record.expires_ns);
        let count = want.count as usize;
        let made = Made { wanted: &wanted, count, record: &record, attempt, family, now_ns };
        let forked = match origin {
            Origin::Kept(cut) => self.make_sessions(&made, &cut.view()),
            Origin::Live(parent) => self.fork_live(parent, &made),
        };
        self.note_expiry(record.expires_ns);
        forked
    }

    /// The record of forks, all of whose parts belong to the request and the family.
    fn fork_record<'a>(
        &self,
        want: &'a Fork,
        family: &'a Family,
        now_ns: i64,
        created_ns: i64,
    ) -> SessionView<'a> {
        SessionView {
            source: &family.record.source,
            version: &family.version,
            display_name: "",
            labels: &want.labels,
            parent: Some(&want.session),
            parent_checkpoint: want.checkpoint.as_ref(),
            last_commit: want.commit.as_ref(),
            archived: false,
            created_ns,
            updated_ns: created_ns,
            expires_ns: want.ttl_ns.map(|t| now_ns.saturating_add(t)),
            generation: 1,
            epoch: self.shared.epoch,
        }
    }

    /// The family and the instant of a checkpoint or commit.
    fn fork_origin(&self, want: &Fork) -> Result<(Arc<Family>, Cut)> {
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
            (None, None) => return Err(Error::invalid("checkpoint_id", "a checkpoint or a commit")),
        };
        if owner != want.session {
            return Err(Error::new(
                Reason::CheckpointNotFound,
                format!("{} has no such checkpoint or commit", want.session),
            ));
        }
        Ok((self.family(&version)?, self.instant(&version, layer)?))
    }
}

/// Every fork is in the answer with its labels: refused before, not after, when that would be more than a message holds.
fn check_answer(want: &Fork) -> Result<()> {
    let labels: usize = want.labels.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
    let most = limits::MAX_MESSAGE_SIZE_BYTES / want.count as usize - 600;
    if labels <= most {
        return Ok(());
    }
    Err(Error::above("labels", most, &format!("bytes in all for {} forks in one call", want.count))
        .next("fork fewer at once, or set labels afterwards"))
}
