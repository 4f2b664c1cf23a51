//! Which changes a diff tells.
//!
//! Guarantees: what lies in a `.git` (below, or as, any path component of that name) is left out unless the caller asks for it, as commits leave
//! it out: git writes there whenever somebody looks at a session with it, and `git apply` takes no patch of it. What was moved over that border is
//! told by the path on this side of it, added or deleted, directories with all that is in them. Costs nothing where no change is hidden.
//! Deliberately absent: the rules of `.gitignore`; a diff is of everything else that differs.

use super::edits::is_git;
use afs_core::diff::{ChangeKind, PathChange};
use afs_core::tree::{FIRST_COOKIE, Tree};
use afs_types::{Ino, Name, SessionPath};
use std::collections::{BTreeMap, BTreeSet};

/// What a diff is to be about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffScope {
    /// Only these and what is below them; none: everything. One that leads into a `.git` asks for what is there.
    pub paths: Vec<SessionPath>,
    /// Also what lies in a `.git`.
    pub include_git_dir: bool,
}

impl DiffScope {
    /// Of `changes`, all those from `old` to `new`, the ones in scope, by path.
    pub(super) fn of(&self, old: &Tree, new: &Tree, changes: Vec<PathChange>) -> Vec<PathChange> {
        let is_told = |c: &PathChange| self.shows(&c.path) && from(c).is_none_or(|f| self.shows(f));
        let mut told = match changes.iter().all(is_told) {
            true => changes,
            false => self.shown(old, new, changes),
        };
        told.retain(|change| self.wants(change));
        told
    }

    fn wants(&self, change: &PathChange) -> bool {
        let below = |top: &SessionPath| {
            change.path.starts_with(top) || from(change).is_some_and(|f| f.starts_with(top))
        };
        self.paths.is_empty() || self.paths.iter().any(below)
    }

    /// Whether a path is on this side of the border.
    fn shows(&self, path: &SessionPath) -> bool {
        self.include_git_dir
            || !is_git(path)
            || self.paths.iter().any(|asked| is_git(asked) && path.starts_with(asked))
    }

    /// The changes on this side of the border.
    fn shown(&self, old: &Tree, new: &Tree, changes: Vec<PathChange>) -> Vec<PathChange> {
        let mut told = BTreeMap::new();
        let (mut came, mut went, mut moved) = (Vec::new(), Vec::new(), BTreeSet::new());
        for change in changes {
            let before = from(&change).cloned();
            let starts_here = before.as_ref().is_none_or(|path| self.shows(path));
            match (self.shows(&change.path), starts_here, before) {
                (true, true, before) => {
                    moved.extend(before);
                    told.insert(change.path.clone(), change);
                }
                (true, false, _) => came.push(change.path),
                (false, true, Some(before)) => went.push(before),
                (false, ..) => {}
            }
        }
        for top in went {
            self.each_below(old, top, &mut |path| {
                // Its new path is on this side, and a change of its own.
                if moved.contains(path) {
                    return false;
                }
                tell(old, new, path, &mut told);
                true
            });
        }
        for top in came {
            self.each_below(new, top, &mut |path| {
                tell(old, new, path, &mut told);
                true
            });
        }
        told.into_values().collect()
    }

    /// Visits a path and, as long as the visitor wants it, what is below it, on this side of the border.
    fn each_below(&self, tree: &Tree, top: SessionPath, visit: &mut dyn FnMut(&SessionPath) -> bool) {
        let mut todo: Vec<(Ino, SessionPath)> = tree.walk(&top).map(|ino| (ino, top)).into_iter().collect();
        while let Some((ino, path)) = todo.pop() {
            if !visit(&path) || !tree.attr(ino).is_some_and(|a| a.is_dir()) {
                continue;
            }
            tree.readdir(ino, FIRST_COOKIE, &mut |item| {
                let child = Name::new(item.name).ok().map(|name| path.join(name));
                todo.extend(child.filter(|p| self.shows(p)).map(|p| (item.ino, p)));
                true
            });
        }
    }
}

/// Tells of a path what it was and is, unless what is there now was moved there from this side.
fn tell(old: &Tree, new: &Tree, path: &SessionPath, told: &mut BTreeMap<SessionPath, PathChange>) {
    if told.get(path).is_some_and(|c| from(c).is_some()) {
        return;
    }
    let attr = |tree: &Tree| tree.walk(path).and_then(|ino| tree.attr(ino));
    let (old, new) = (attr(old), attr(new));
    let kind = match (&old, &new) {
        (Some(_), Some(_)) => ChangeKind::Modified,
        (Some(_), None) => ChangeKind::Deleted,
        (None, Some(_)) => ChangeKind::Added,
        (None, None) => return,
    };
    told.insert(path.clone(), PathChange { path: path.clone(), kind, old, new });
}

fn from(change: &PathChange) -> Option<&SessionPath> {
    match &change.kind {
        ChangeKind::Renamed { from, .. } => Some(from),
        _ => None,
    }
}
