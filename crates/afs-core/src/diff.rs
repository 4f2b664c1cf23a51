//! What changed between two instants over the same base, as paths.
//!
//! Costs the changes, not the trees, when the two share history (shared nodes are pruned). A moved inode is one `Renamed`,
//! also for a directory with a million entries; an added or removed directory lists everything below it. Directories are
//! reported only when added, removed, renamed or changed in mode or owner. Times alone are no change.

use crate::tree::{Attr, FIRST_COOKIE, Slot, Tree};
use afs_types::{Ino, Name, ROOT_INO, SessionPath};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How a path changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Not there before.
    Added,
    /// Not there any more.
    Deleted,
    /// Other bytes (or another symbolic link target, or another type).
    Modified,
    /// Same bytes, other permissions or owner.
    Mode,
    /// The same inode under another path; `modified` when its bytes changed too.
    Renamed {
        /// Path before.
        from: SessionPath,
        /// Bytes changed too.
        modified: bool,
    },
}

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// Path after; before, when deleted.
    pub path: SessionPath,
    /// How.
    pub kind: ChangeKind,
    /// Attributes before.
    pub old: Option<Attr>,
    /// Attributes after.
    pub new: Option<Attr>,
}

/// All changes from `old` to `new`, by path. Both must be over the same base.
pub fn diff(old: &Tree, new: &Tree) -> Vec<PathChange> {
    let mut finder = Finder { old, new, changes: BTreeMap::new(), gone: Names::new(), come: Names::new() };
    finder.names();
    finder.renames();
    finder.contents();
    finder.changes.into_values().collect()
}

type Names = BTreeMap<Ino, BTreeSet<SessionPath>>;

struct Finder<'a> {
    old: &'a Tree,
    new: &'a Tree,
    changes: BTreeMap<SessionPath, PathChange>,
    /// Names that stopped, and began, to name an inode.
    gone: Names,
    come: Names,
}

impl Finder<'_> {
    /// Collects the changed names.
    fn names(&mut self) {
        let (old, new) = (self.old, self.new);
        let mut paths = Paths::default();
        for ((dir, _), a, b) in old.dentries().diff(new.dentries()) {
            let names: BTreeSet<&[u8]> = slot_names(a).chain(slot_names(b)).collect();
            for name in names {
                let (was, is) = (live_lookup(old, *dir, name), live_lookup(new, *dir, name));
                if was == is {
                    continue;
                }
                let Ok(name) = Name::new(name) else { continue };
                if let (Some(ino), Some(path)) = (was, paths.of(old, false, *dir)) {
                    self.gone.entry(ino).or_default().insert(path.join(name.clone()));
                }
                if let (Some(ino), Some(path)) = (is, paths.of(new, true, *dir)) {
                    self.come.entry(ino).or_default().insert(path.join(name));
                }
            }
        }
        expand(&mut self.gone, old, new);
        expand(&mut self.come, new, old);
    }

    /// Pairs names that went with names that came for the same inode; the rest is added or deleted.
    fn renames(&mut self) {
        let (gone, mut come) = (std::mem::take(&mut self.gone), std::mem::take(&mut self.come));
        for (ino, mut from) in gone {
            let mut to = come.remove(&ino).unwrap_or_default();
            while let Some((a, b)) = from.first().cloned().zip(to.first().cloned()) {
                from.remove(&a);
                to.remove(&b);
                self.renamed(ino, a, b);
            }
            from.into_iter().for_each(|p| self.one(ino, p, false));
            to.into_iter().for_each(|p| self.one(ino, p, true));
        }
        for (ino, paths) in come {
            paths.into_iter().for_each(|p| self.one(ino, p, true));
        }
    }

    fn renamed(&mut self, ino: Ino, from: SessionPath, path: SessionPath) {
        let (old, new) = (self.old.attr(ino), self.new.attr(ino));
        let modified = matches!((&old, &new), (Some(a), Some(b)) if a.version != b.version && !b.is_dir());
        self.put(PathChange { path, kind: ChangeKind::Renamed { from, modified }, old, new });
    }

    fn one(&mut self, ino: Ino, path: SessionPath, added: bool) {
        let (kind, old, new) = if added {
            (ChangeKind::Added, None, self.new.attr(ino))
        } else {
            (ChangeKind::Deleted, self.old.attr(ino), None)
        };
        self.put(PathChange { path, kind, old, new });
    }

    /// Inodes that kept their names and changed inside.
    fn contents(&mut self) {
        let (old, new) = (self.old, self.new);
        let mut paths = Paths::default();
        for (ino, _, _) in old.inodes().diff(new.inodes()) {
            let (Some(a), Some(b)) = (old.attr(*ino), new.attr(*ino)) else { continue };
            if b.nlink == 0 {
                continue;
            }
            let kind = if a.version != b.version && !b.is_dir() {
                ChangeKind::Modified
            } else if (a.mode, a.uid, a.gid) != (b.mode, b.uid, b.gid) {
                ChangeKind::Mode
            } else {
                continue;
            };
            for path in paths.all_of(new, *ino, &b) {
                if !self.changes.contains_key(&path) {
                    self.put(PathChange { path, kind: kind.clone(), old: Some(a), new: Some(b) });
                }
            }
        }
    }

    fn put(&mut self, change: PathChange) {
        // A name that was deleted and is there again as another inode is one modified path.
        let merged = match self.changes.remove(&change.path) {
            Some(before) => {
                let (old, new) = (before.old.or(change.old), before.new.or(change.new));
                let kind = match (&before.kind, &change.kind) {
                    (ChangeKind::Renamed { .. }, _) => before.kind,
                    (_, ChangeKind::Renamed { .. }) => change.kind,
                    _ => ChangeKind::Modified,
                };
                PathChange { path: change.path, kind, old, new }
            }
            None => change,
        };
        self.changes.insert(merged.path.clone(), merged);
    }
}

/// A directory that lives in `here` only brings everything below it: the base's entries in it have no slots of their own.
fn expand(names: &mut Names, here: &Tree, there: &Tree) {
    let tops = names.iter().flat_map(|(ino, paths)| paths.iter().map(|p| (*ino, p.clone())));
    let mut todo: Vec<(Ino, SessionPath)> = tops.collect();
    while let Some((ino, path)) = todo.pop() {
        if !is_live_dir(here, ino) || is_live_dir(there, ino) {
            continue;
        }
        here.readdir(ino, FIRST_COOKIE, &mut |item| {
            if let Ok(name) = Name::new(item.name) {
                let at = path.join(name);
                if names.entry(item.ino).or_default().insert(at.clone()) {
                    todo.push((item.ino, at));
                }
            }
            true
        });
    }
}

fn is_live_dir(tree: &Tree, ino: Ino) -> bool {
    tree.attr(ino).is_some_and(|a| a.is_dir() && a.nlink > 0)
}

pub(crate) fn live_lookup(tree: &Tree, dir: Ino, name: &[u8]) -> Option<Ino> {
    is_live_dir(tree, dir).then(|| tree.lookup(dir, name)).flatten()
}

pub(crate) fn slot_names(slot: Option<&Slot>) -> impl Iterator<Item = &[u8]> {
    slot.into_iter().flat_map(Slot::chain).map(|s| &*s.name)
}

/// Paths of directories, remembered.
#[derive(Default)]
pub(crate) struct Paths {
    known: HashMap<(bool, Ino), Option<SessionPath>>,
    names: HashMap<Ino, HashMap<Ino, Vec<u8>>>,
}

impl Paths {
    pub(crate) fn of(&mut self, tree: &Tree, is_new: bool, dir: Ino) -> Option<SessionPath> {
        self.known.entry((is_new, dir)).or_insert_with(|| live_path(tree, dir)).clone()
    }

    /// Every path of an inode in `tree`.
    pub(crate) fn all_of(&mut self, tree: &Tree, ino: Ino, attr: &Attr) -> Vec<SessionPath> {
        if ino == ROOT_INO {
            return vec![SessionPath::root()];
        }
        if !attr.is_dir() && attr.nlink > 1 {
            return all_names(tree, ino);
        }
        let Some(dir) = tree.parent_of(ino) else { return Vec::new() };
        let name = match tree.base().entry(ino) {
            Some(e) if e.parent == dir && tree.lookup(dir, e.name) == Some(ino) => Some(e.name.to_vec()),
            _ => {
                let names = self.names.entry(dir).or_insert_with(|| {
                    let slots = tree.dentries().range((dir, 0)..=(dir, u64::MAX));
                    slots.flat_map(|(_, s)| s.chain()).map(|s| (s.ino, s.name.to_vec())).collect()
                });
                names.get(&ino).cloned()
            }
        };
        let path =
            name.and_then(|n| Name::new(&n).ok()).and_then(|n| Some(self.of(tree, true, dir)?.join(n)));
        path.or_else(|| tree.path_of(ino)).into_iter().collect()
    }
}

fn live_path(tree: &Tree, dir: Ino) -> Option<SessionPath> {
    tree.attr(dir).filter(|a| a.nlink > 0).and_then(|_| tree.path_of(dir))
}

/// Every path of a file with several names: a walk of the whole tree, which only hard links cost.
fn all_names(tree: &Tree, ino: Ino) -> Vec<SessionPath> {
    let (mut found, mut todo) = (Vec::new(), vec![(ROOT_INO, SessionPath::root())]);
    while let Some((dir, path)) = todo.pop() {
        tree.readdir(dir, FIRST_COOKIE, &mut |item| {
            let is_dir = tree.attr(item.ino).is_some_and(|a| a.is_dir());
            if (item.ino == ino || is_dir)
                && let Ok(name) = Name::new(item.name)
            {
                let at = path.join(name);
                if item.ino == ino { found.push(at) } else { todo.push((item.ino, at)) }
            }
            true
        });
    }
    found
}
