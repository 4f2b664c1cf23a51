//! From a session back to git: commit, promote, and what changed.
//!
//! Guarantees: a commit is of one instant, its tree is exactly the session's tracked content (every path of the session's commit before,
//! or of the base if there is none, that is still there, and new ones that no `.gitignore` leaves out, but for what git staged or took out in the
//! session's own index since; never anything named `.git`, and of a submodule the commit that is checked out, not its files), converted as its `.gitattributes` say and git does when it adds a file; its record and
//! the git objects are on disk before the call returns. A session's commits stand one on the other, the first on the newest commit of the session it was forked from whose content it has, or on the base.
//! Promote never loses somebody else's commit: it moves a branch forward, or replaces exactly the commit the caller names.
//! Deliberately absent: merging (a later service), signing, running git inside a session's tree, and commits that somebody makes with
//! git in a mount: they are in the session's own `.git`; what they changed in the files is in the next commit here like any other change.

mod convert;
mod edits;
mod nested;
mod scope;
mod staged;

use crate::engine::Engine;
use crate::lifecycle::{Page, Room, check_text, page_size};
use crate::records::{CheckpointRec, CommitRec, Stored, VersionRec, session_key};
use crate::requests::Begin;
use crate::session::{Cut, Session};
use afs_base::{CommitMeta, NoProgress, Tracked};
use afs_core::diff::{PathChange, diff};
use afs_core::tree::Tree;
use afs_store::{Batch, Space};
use afs_types::{CheckpointId, CommitId, Error, LayerId, Reason, RequestId, Result, SessionId, VersionId};
use edits::{Before, tree_edits};
pub use scope::DiffScope;
use std::ops::ControlFlow;

/// A request for a commit.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// Whose content.
    pub session: SessionId,
    /// Subject and body.
    pub message: String,
    /// Author; a default when empty.
    pub author_name: String,
    /// Author's address; a default when empty.
    pub author_email: String,
    /// Refuse unless the session is at this revision.
    pub if_revision: Option<u64>,
    /// Commit also when nothing changed.
    pub allow_empty: bool,
    /// Makes retries safe.
    pub request_id: Option<RequestId>,
}

/// A commit as callers see it.
#[derive(Clone, Debug)]
pub struct CommitInfo {
    /// Its id.
    pub id: CommitId,
    /// Its record.
    pub record: CommitRec,
}

/// A request to put a commit on a branch of its source.
#[derive(Clone, Debug)]
pub struct PromoteRequest {
    /// Which commit.
    pub commit: CommitId,
    /// Which branch; `refs/heads/` may be before its name.
    pub branch: String,
    /// None: fast-forward only, or a new branch. A commit id: replace exactly that one. Empty: the branch must not exist.
    pub expect: Option<String>,
}

/// What a promote did.
#[derive(Clone, Debug)]
pub struct Promoted {
    /// The commit.
    pub commit: CommitInfo,
    /// The branch, without `refs/heads/`.
    pub branch: String,
    /// What the branch was before; none if it is new.
    pub old_oid: Option<String>,
}

impl Engine {
    /// Makes a git commit of a session's tracked content.
    pub fn commit(&self, want: &CommitRequest) -> Result<CommitInfo> {
        check_text("message", &want.message)?;
        if want.message.trim().is_empty() {
            return Err(Error::invalid("message", "a commit message that is not empty"));
        }
        let print = format!("{want:?}");
        let attempt = match self.begin("CreateCommit", want.request_id.as_ref(), &[print.as_bytes()])? {
            Begin::Done(ids) => return self.get_commit(&CommitId::parse(&ids[0])?),
            Begin::Go(attempt) => attempt,
        };
        let live = self.session(&want.session)?;
        let git = GitBase::of(self, &live)?;
        let _turn = self.commit_turn(&want.session);
        let (cut, at, job) = live.cut(|cut, _| match want.if_revision {
            Some(r) if r != cut.seq => Err(Error::new(
                Reason::RevisionMismatch,
                format!("{} is at revision {}, not {r}", want.session, cut.seq),
            )),
            _ => Ok(cut.to_cut()),
        })?;
        self.shared.queue_fold(job);
        self.shared.wait(at)?;
        let id = CommitId::from_ulid(self.shared.next_ulid());
        let record = self.write_commit(&live, &git, &cut, want)?;
        let mut batch = Batch::new();
        batch.put_with(Space::Commit, id.as_str(), |e| record.encode_to(e));
        if let Some(attempt) = &attempt {
            attempt.remember(&[id.to_string()], &mut batch);
        }
        self.note_commit(&want.session, &id, batch)?;
        Ok(CommitInfo { id, record })
    }

    fn write_commit(
        &self,
        live: &Session,
        git: &GitBase,
        cut: &Cut,
        want: &CommitRequest,
    ) -> Result<CommitRec> {
        let previous = self.last_commit(live, cut)?;
        let parent_oid = previous.as_ref().map_or(&git.commit, |c| &c.record.oid).clone();
        let base = Tree::new(live.family().base.clone());
        let blobs = self.shared.ports.blobs.clone();
        let before = previous.as_ref().map(|c| self.before(live, git, &c.record)).transpose()?;
        let stop = &self.shared.stop;
        let span = tracing::warn_span!("commit", session = %live.id());
        let edits = span.in_scope(|| tree_edits((&git.commit, &base), &cut.tree, &blobs, before, stop))?;
        let now = self.shared.now_ns();
        let or =
            |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        let meta = CommitMeta {
            message: want.message.clone(),
            author_name: or(&want.author_name, "AetherFS"),
            author_email: or(&want.author_email, "session@aetherfs.invalid"),
            time_ns: now,
        };
        let parents = [parent_oid];
        let written = afs_base::write_commit(&git.mirror, &git.commit, &parents, edits, meta)?;
        let parent_tree = previous.as_ref().map(|c| c.record.tree_oid.as_str());
        let unchanged = match parent_tree {
            Some(tree) => tree == written.tree_oid,
            None => written.files_changed == 0,
        };
        if unchanged && !want.allow_empty {
            return Err(Error::new(
                Reason::NothingToCommit,
                format!("{} has no changes to commit", live.id()),
            ));
        }
        Ok(CommitRec {
            session: live.id().clone(),
            source: live.family().record.source.clone(),
            version: live.family().version.clone(),
            layer: cut.layer,
            seq: cut.seq,
            message: want.message.clone(),
            oid: written.oid,
            tree_oid: written.tree_oid,
            files_changed: written.files_changed,
            parent: previous.map(|c| c.id),
            pushed: None,
            created_ns: now,
        })
    }

    /// What the commit before has, as the next one needs it.
    fn before(&self, live: &Session, git: &GitBase, record: &CommitRec) -> Result<Before> {
        let tracked = Tracked::open(&git.mirror, &record.tree_oid)?;
        let is_comparable = record.version == live.family().version;
        let then = is_comparable.then(|| self.instant_anyway(&record.version, record.layer)).transpose()?;
        Ok(Before { tracked, tree: then.map(|cut| cut.tree) })
    }

    /// The commit that the next one stands on; none: the base's.
    fn last_commit(&self, live: &Session, cut: &Cut) -> Result<Option<CommitInfo>> {
        let mut record = self.session_record(live.id())?;
        if let Some(id) = &record.last_commit {
            return self.get_commit(id).map(Some);
        }
        // Of those it was forked from, directly or not: their newest commit that was made before the fork.
        while let Some(parent) = record.parent.take() {
            record = match self.session_record(&parent) {
                Err(error) if error.reason == Reason::SessionNotFound => return Ok(None),
                other => other?,
            };
            let mut next = record.last_commit.clone();
            while let Some(id) = next {
                let info = self.get_commit(&id)?;
                if self.stands_on(cut.layer, info.record.layer)? {
                    return Ok(Some(info));
                }
                next = info.record.parent;
            }
        }
        Ok(None)
    }

    /// Whether one layer is, or lies on, another: numbers grow upwards.
    fn stands_on(&self, mut layer: LayerId, other: LayerId) -> Result<bool> {
        while layer > other {
            layer = self.shared.layer(layer)?.parent;
        }
        Ok(layer == other)
    }

    /// Writes the commit's record and makes it the session's newest, in one batch.
    fn note_commit(&self, session: &SessionId, id: &CommitId, mut batch: Batch) -> Result<()> {
        let _turn = self.record_turn(session);
        let mut record = self.session_record(session)?;
        record.last_commit = Some(id.clone());
        record.updated_ns = self.shared.now_ns();
        record.generation += 1;
        batch.put_with(Space::Session, session_key(session), |e| record.encode_to(e));
        self.shared.commit(batch)
    }

    /// One commit.
    pub fn get_commit(&self, id: &CommitId) -> Result<CommitInfo> {
        let record: Option<CommitRec> = self.shared.read(Space::Commit, id.as_str().as_bytes())?;
        Ok(CommitInfo { id: id.clone(), record: record.ok_or_else(|| id.not_found())? })
    }

    /// Commits, oldest first; of one session if given.
    pub fn list_commits(
        &self,
        session: Option<&SessionId>,
        size: usize,
        after: Option<&str>,
    ) -> Result<Page<CommitInfo>> {
        let size = page_size(size)?;
        let from = after.map_or(Vec::new(), |a| [a.as_bytes(), b"\0"].concat());
        let (mut items, mut more, mut room) = (Vec::new(), false, Room::default());
        self.shared.ports.journal.scan(Space::Commit, &from, None, &mut |key, value| {
            let record = CommitRec::decode(value)?;
            if session.is_some_and(|s| *s != record.session) {
                return Ok(ControlFlow::Continue(()));
            }
            if items.len() == size || !room.takes(record.message.len() + 400) {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            items.push(CommitInfo { id: CommitId::parse(&String::from_utf8_lossy(key))?, record });
            Ok(ControlFlow::Continue(()))
        })?;
        let next = if more { items.last().map(|c: &CommitInfo| c.id.to_string()) } else { None };
        Ok(Page { items, next })
    }

    /// Puts a commit on a branch of the source. See [`PromoteRequest::expect`] for what is refused.
    pub fn promote(&self, want: &PromoteRequest) -> Result<Promoted> {
        let info = self.get_commit(&want.commit)?;
        let source = self.source_of_commit(&info.id, &info.record)?;
        let mirror = afs_base::mirror_of(&source.location, &self.import_dirs())?;
        let pushed = afs_base::push(
            &mirror,
            &source.location,
            &info.record.oid,
            &want.branch,
            want.expect.as_deref(),
            &NoProgress,
        )?;
        let mut record = info.record;
        record.pushed = Some(pushed.branch.clone());
        let mut batch = Batch::new();
        batch.put_with(Space::Commit, want.commit.as_str(), |e| record.encode_to(e));
        self.shared.commit(batch)?;
        let commit = CommitInfo { id: want.commit.clone(), record };
        Ok(Promoted { commit, branch: pushed.branch, old_oid: pushed.old })
    }

    /// The tree that a name stands for: `base`, `live` (or empty), a checkpoint or commit id, or another session's id.
    pub fn tree_named(
        &self,
        session: &SessionId,
        field: &'static str,
        name: &str,
    ) -> Result<(VersionId, Tree)> {
        let live = |id: &SessionId| {
            let s = self.session(id)?;
            Ok::<_, Error>((s.family().version.clone(), s.tree()))
        };
        match name {
            "" | "live" => live(session),
            "base" => {
                let s = self.session(session)?;
                Ok((s.family().version.clone(), Tree::new(s.family().base.clone())))
            }
            id if id.starts_with(CheckpointId::PREFIX) => {
                let id = CheckpointId::parse(id)?;
                let rec: Option<CheckpointRec> =
                    self.shared.read(Space::Checkpoint, id.as_str().as_bytes())?;
                let rec = rec.ok_or_else(|| id.not_found())?;
                Ok((rec.version.clone(), self.instant(&rec.version, rec.layer)?.tree))
            }
            id if id.starts_with(CommitId::PREFIX) => {
                let rec = self.get_commit(&CommitId::parse(id)?)?.record;
                Ok((rec.version.clone(), self.instant(&rec.version, rec.layer)?.tree))
            }
            id => live(&SessionId::parse(id).map_err(|_| {
                Error::invalid(field, "`base`, `live`, or the id of a checkpoint, commit or session")
            })?),
        }
    }

    /// Paths that differ between two names of [`Engine::tree_named`], which must stand on the same base; with the two trees. A commit's is the
    /// whole state that was committed, of which its git tree holds the tracked part.
    pub fn diff(
        &self,
        session: &SessionId,
        (base, target): (&str, &str),
        scope: &DiffScope,
    ) -> Result<(Tree, Tree, Vec<PathChange>)> {
        let base = if base.is_empty() { "base" } else { base };
        let (old_version, old) = self.tree_named(session, "base", base)?;
        let (new_version, new) = self.tree_named(session, "target", target)?;
        if old_version != new_version {
            return Err(Error::new(
                Reason::WrongState,
                format!("{base} stands on base {old_version}, {target} on {new_version}"),
            )
            .next("compare sessions of the same base version"));
        }
        let changes = scope.of(&old, &new, diff(&old, &new));
        Ok((old, new, changes))
    }
}

/// What a commit of a session needs to know about where its base comes from.
struct GitBase {
    commit: String,
    mirror: std::path::PathBuf,
}

impl GitBase {
    fn of(engine: &Engine, session: &Session) -> Result<Self> {
        let record: &VersionRec = &session.family().record;
        let Some(commit) = record.upstream.clone() else {
            return Err(Error::new(Reason::NotGit, format!("{} does not come from git", session.id())));
        };
        // Not through the source's record: that may have been deleted, and its sessions go on.
        Ok(Self { commit, mirror: engine.mirror_of_version(&session.family().version, record)? })
    }
}
