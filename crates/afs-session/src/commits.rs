//! From a session back to git: commit, promote, and what changed.
//!
//! Guarantees: a commit is of one instant, its tree is exactly the session's tracked content (every path of the base commit that is still
//! there, and new ones that no `.gitignore` leaves out; never `.git`); its record and the git objects are on disk before the
//! call returns. Promote never loses somebody else's commit: it moves a branch forward, or replaces exactly the commit the caller names.
//! Deliberately absent: merging (a later service), signing, and running git inside a session's tree.

use crate::content::{ContentReader, read_content};
use crate::engine::Engine;
use crate::ignores::Ignores;
use crate::lifecycle::{Page, check_text, page_size};
use crate::records::{CheckpointRec, CommitRec, Stored, VersionRec, session_key};
use crate::requests::Begin;
use crate::session::{Cut, Session};
use crate::sources::page_of;
use afs_base::{CommitMeta, EditContent, EditEntry, NoProgress, TreeEdit};
use afs_core::base::NodeKind;
use afs_core::diff::{ChangeKind, PathChange, diff};
use afs_core::tree::{FIRST_COOKIE, Tree};
use afs_store::{Batch, BlobStore, Space};
use afs_types::{
    CheckpointId, CommitId, Error, Ino, Name, Reason, RequestId, Result, SessionId, SessionPath, VersionId,
    limits,
};
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Which branch.
    pub branch: String,
    /// None: fast-forward only, or a new branch. A commit id: replace exactly that one. Empty: the branch must not exist.
    pub expect: Option<String>,
}

/// What a promote did.
#[derive(Clone, Debug)]
pub struct Promoted {
    /// The commit.
    pub commit: CommitInfo,
    /// The branch.
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
        let (cut, at, job) = live.cut(|cut, _| match want.if_revision {
            Some(r) if r != cut.seq => Err(Error::new(
                Reason::RevisionMismatch,
                format!("{} is at revision {}, not {r}", want.session, cut.seq),
            )),
            _ => Ok(()),
        })?;
        self.shared.queue_fold(job);
        self.shared.wait(at)?;
        let id = CommitId::from_ulid(self.shared.ports.ids.next_ulid());
        let record = self.write_commit(&live, &git, &cut, want)?;
        let mut batch = Batch::new();
        batch.put(Space::Commit, id.as_str(), record.encode());
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
        let previous = self.session_record(live.id())?.last_commit;
        let parent_commit = previous.as_ref().map(|id| self.get_commit(id)).transpose()?;
        let parent_oid = parent_commit.as_ref().map_or(git.commit.clone(), |c| c.record.oid.clone());
        let base = Tree::new(live.family().base.clone());
        let blobs = self.shared.ports.blobs.clone();
        let edits = tree_edits(&base, &cut.tree, &blobs)?;
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
        let written = afs_base::write_commit(&git.mirror, &git.commit, &parents, edits.into_iter(), meta)?;
        let parent_tree = parent_commit.as_ref().map(|c| c.record.tree_oid.as_str());
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
            parent: previous,
            pushed: None,
            created_ns: now,
        })
    }

    /// Writes the commit's record and makes it the session's newest, in one batch.
    fn note_commit(&self, session: &SessionId, id: &CommitId, mut batch: Batch) -> Result<()> {
        let _turn = self.record_turn(session);
        let mut record = self.session_record(session)?;
        record.last_commit = Some(id.clone());
        record.updated_ns = self.shared.now_ns();
        record.generation += 1;
        batch.put(Space::Session, session_key(session), record.encode());
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
        let ids = self.ids_after(Space::Commit, "", after, usize::MAX)?;
        let mut found = Vec::new();
        for id in ids {
            let info = self.get_commit(&CommitId::parse(&id)?)?;
            if session.is_none_or(|s| *s == info.record.session) {
                found.push(info);
                if found.len() > size {
                    break;
                }
            }
        }
        let (_, next) = page_of(found.iter().map(|c| c.id.to_string()).collect(), size);
        found.truncate(size);
        Ok(Page { items: found, next })
    }

    /// Puts a commit on a branch of the source. See [`PromoteRequest::expect`] for what is refused.
    pub fn promote(&self, want: &PromoteRequest) -> Result<Promoted> {
        let info = self.get_commit(&want.commit)?;
        let source = self.source_record(&info.record.source)?;
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
        record.pushed = Some(want.branch.clone());
        let mut batch = Batch::new();
        batch.put(Space::Commit, want.commit.as_str(), record.encode());
        self.shared.commit(batch)?;
        let commit = CommitInfo { id: want.commit.clone(), record };
        Ok(Promoted { commit, branch: want.branch.clone(), old_oid: pushed.old })
    }

    /// The tree that a name stands for: `base`, `live` (or empty), a checkpoint or commit id, or another session's id.
    pub fn tree_named(&self, session: &SessionId, name: &str) -> Result<(VersionId, Tree)> {
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
                Error::invalid("base", "`base`, `live`, or the id of a checkpoint, commit or session")
            })?),
        }
    }

    /// Paths that differ between two names of [`Engine::tree_named`], which must stand on the same base; with the two trees.
    pub fn diff(
        &self,
        session: &SessionId,
        base: &str,
        target: &str,
    ) -> Result<(Tree, Tree, Vec<PathChange>)> {
        let base = if base.is_empty() { "base" } else { base };
        let (old_version, old) = self.tree_named(session, base)?;
        let (new_version, new) = self.tree_named(session, target)?;
        if old_version != new_version {
            return Err(Error::new(
                Reason::WrongState,
                format!("{base} stands on base {old_version}, {target} on {new_version}"),
            )
            .next("compare sessions of the same base version"));
        }
        let changes = diff(&old, &new);
        Ok((old, new, changes))
    }
}

/// What a commit of a session needs to know about its source.
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
        let source = engine.source_record(&record.source)?;
        Ok(Self { commit, mirror: afs_base::mirror_of(&source.location, &engine.import_dirs())? })
    }
}

/// The edits that turn the base commit's tree into the session's tracked content.
fn tree_edits(base: &Tree, new: &Tree, blobs: &Arc<BlobStore>) -> Result<Vec<Result<TreeEdit>>> {
    let mut edits = Edits { base, new, blobs, ignores: Ignores::new(new, blobs)?, out: BTreeMap::new() };
    let changes = diff(base, new);
    // Removals first, so that what is put at the same path has the last word.
    for change in &changes {
        edits.removal(change);
    }
    for change in &changes {
        edits.addition(change)?;
    }
    Ok(edits.out.into_iter().map(|(path, change)| Ok(TreeEdit { path: parts(&path), change })).collect())
}

struct Edits<'a> {
    base: &'a Tree,
    new: &'a Tree,
    blobs: &'a Arc<BlobStore>,
    ignores: Ignores<'a>,
    /// The last word on each path.
    out: BTreeMap<SessionPath, Option<EditEntry>>,
}

impl Edits<'_> {
    fn removal(&mut self, change: &PathChange) {
        let gone = match &change.kind {
            ChangeKind::Deleted => &change.path,
            ChangeKind::Renamed { from, .. } => from,
            // A path can change its type: what was there goes.
            ChangeKind::Modified => &change.path,
            ChangeKind::Added | ChangeKind::Mode => return,
        };
        if !is_git(gone) {
            self.out.insert(gone.clone(), None);
        }
    }

    fn addition(&mut self, change: &PathChange) -> Result<()> {
        if change.kind == ChangeKind::Deleted || is_git(&change.path) {
            return Ok(());
        }
        let Some(ino) = self.new.walk(&change.path) else { return Ok(()) };
        let whole = matches!(change.kind, ChangeKind::Renamed { .. });
        let mut todo = vec![(ino, change.path.clone())];
        while let Some((ino, path)) = todo.pop() {
            let Some(attr) = self.new.attr(ino) else { continue };
            let is_gitlink = self.gitlink(ino).is_some();
            if attr.is_dir() && !is_gitlink {
                // Children of an added directory are changes of their own; those of a moved one are not.
                if whole {
                    self.new.readdir(ino, FIRST_COOKIE, &mut |item| {
                        todo.extend(Name::new(item.name).ok().map(|n| (item.ino, path.join(n))));
                        true
                    });
                }
                continue;
            }
            let tracked = self.base.walk(&path).is_some();
            if !tracked && self.ignores.is_ignored(&path, false)? {
                continue;
            }
            if let Some(entry) = self.entry(ino)? {
                self.out.insert(path, Some(entry));
            }
        }
        Ok(())
    }

    fn gitlink(&self, ino: Ino) -> Option<[u8; 20]> {
        let entry = self.new.base().entry(ino)?;
        (entry.kind == NodeKind::Gitlink).then_some(entry.git_oid).flatten()
    }

    /// What git keeps of an inode: files, links and submodules; nothing of fifos and devices.
    fn entry(&self, ino: Ino) -> Result<Option<EditEntry>> {
        if let Some(oid) = self.gitlink(ino) {
            return Ok(Some(EditEntry::Gitlink(oid)));
        }
        let attr = self.new.attr(ino).ok_or(Reason::Stale)?;
        let (content, size) = self.new.content(ino).ok_or(Reason::Stale)?;
        if attr.is_symlink() {
            let target = read_content(self.blobs, &content, size, 0, limits::MAX_SYMLINK_BYTES)?;
            return Ok(Some(EditEntry::Symlink(target.to_vec())));
        }
        if !attr.is_file() {
            return Ok(None);
        }
        let known = (attr.version == 0).then(|| self.new.base().entry(ino).and_then(|e| e.git_oid)).flatten();
        let content = match known {
            Some(oid) => EditContent::Known(oid),
            None => EditContent::Stream {
                len: size,
                reader: Box::new(ContentReader::new(self.blobs.clone(), content, size)),
            },
        };
        Ok(Some(EditEntry::File { executable: attr.mode & 0o100 != 0, content }))
    }
}

fn is_git(path: &SessionPath) -> bool {
    path.names().first().is_some_and(|n| n.as_bytes() == b".git")
}

fn parts(path: &SessionPath) -> Vec<Vec<u8>> {
    path.names().iter().map(|n| n.as_bytes().to_vec()).collect()
}
