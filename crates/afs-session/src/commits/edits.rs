//! What a commit has that its base has not, as edits of the base's tree.
//!
//! The edits are of the base, what is tracked is what the commit before tracks (the base, if there is none): a file of the base that an earlier commit
//! of the session no longer has is as new as any other when it is there again, and stays out when a rule ignores it.
//!
//! Guarantees: those of the parent module about what is tracked. Deliberately absent: writing git objects (`afs_base` does).

use crate::content::{ContentReader, read_content};
use crate::ignores::Ignores;
use afs_base::{EditContent, EditEntry, Tracked, TreeEdit};
use afs_core::base::NodeKind;
use afs_core::diff::{ChangeKind, PathChange, diff};
use afs_core::tree::{FIRST_COOKIE, Tree};
use afs_store::BlobStore;
use afs_types::{Ino, Name, ROOT_INO, Reason, Result, SessionPath, limits};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The edits that turn the tree of `base_commit`, which is `base`, into the session's tracked content. `tracked` is the commit before.
pub(super) fn tree_edits(
    (base_commit, base): (&str, &Tree),
    new: &Tree,
    blobs: &Arc<BlobStore>,
    tracked: Option<Tracked>,
) -> Result<Vec<Result<TreeEdit>>> {
    let mut edits =
        Edits { base, new, blobs, tracked, ignores: Ignores::new(new, blobs), out: BTreeMap::new() };
    let changes = diff(base, new);
    // Removals first, so that what is put at the same path has the last word.
    for change in &changes {
        edits.removal(change);
    }
    for change in &changes {
        edits.addition(change)?;
    }
    edits.came_back(base_commit)?;
    Ok(edits.out.into_iter().map(|(path, change)| Ok(TreeEdit { path: parts(&path), change })).collect())
}

struct Edits<'a> {
    base: &'a Tree,
    new: &'a Tree,
    blobs: &'a Arc<BlobStore>,
    /// The commit before.
    tracked: Option<Tracked>,
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
        if change.kind == ChangeKind::Deleted || is_git(&change.path) || self.is_in_submodule(&change.path) {
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
                        let child = Name::new(item.name).ok().filter(|n| n.as_bytes() != GIT);
                        todo.extend(child.map(|n| (item.ino, path.join(n))));
                        true
                    });
                }
                continue;
            }
            if !self.is_tracked(&path)? && self.ignores.is_ignored(&path, is_gitlink)? {
                // The base's entry, if there is one, does not stay for it.
                if self.base.walk(&path).is_some() {
                    self.out.entry(path).or_insert(None);
                }
                continue;
            }
            if let Some(entry) = self.entry(ino)? {
                self.out.insert(path, Some(entry));
            }
        }
        Ok(())
    }

    /// What git tracks stays tracked when a rule to ignore it comes later.
    fn is_tracked(&mut self, path: &SessionPath) -> Result<bool> {
        if let Some(tracked) = &mut self.tracked {
            let names: Vec<&[u8]> = path.names().iter().map(Name::as_bytes).collect();
            return tracked.holds(&names);
        }
        let Some(ino) = self.base.walk(path) else { return Ok(false) };
        Ok(self.gitlink(ino).is_some() || self.base.attr(ino).is_some_and(|a| !a.is_dir()))
    }

    /// What the base has, the commit before has not, and is there again just as it was in the base: no change since the base tells of it, and its
    /// entry stays only if no rule ignores it.
    fn came_back(&mut self, base_commit: &str) -> Result<()> {
        let Some(tracked) = &self.tracked else { return Ok(()) };
        let mut back = Vec::new();
        tracked.each_missing(base_commit, &mut |names| {
            let names: Result<Vec<Name>> = names.iter().map(|n| Name::new(n)).collect();
            let path = names.ok().map(SessionPath::from);
            let path = path.filter(|p| !self.out.contains_key(p));
            back.extend(path.and_then(|path| Some((self.new.walk(&path)?, path))));
        })?;
        for (ino, path) in back {
            if self.ignores.is_ignored(&path, self.gitlink(ino).is_some())? {
                self.out.insert(path, None);
            }
        }
        Ok(())
    }

    /// What is checked out in a submodule belongs to its own repository.
    fn is_in_submodule(&self, path: &SessionPath) -> bool {
        let (mut at, names) = (ROOT_INO, path.names());
        names[..names.len().saturating_sub(1)].iter().any(|name| {
            at = self.new.lookup(at, name.as_bytes()).unwrap_or(0);
            self.gitlink(at).is_some()
        })
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

const GIT: &[u8] = b".git";

/// A repository's own files, also of one that lies in the session: git has no way to keep them.
fn is_git(path: &SessionPath) -> bool {
    path.names().iter().any(|n| n.as_bytes() == GIT)
}

fn parts(path: &SessionPath) -> Vec<Vec<u8>> {
    path.names().iter().map(|n| n.as_bytes().to_vec()).collect()
}
