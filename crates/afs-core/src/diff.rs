//! What changed between two instants over the same base, as paths.
//!
//! Costs the changes, not the trees, when the two share history (shared nodes are pruned). A moved inode is one `Renamed`,
//! also for a directory with a million entries; an added or removed directory lists everything below it. Directories are
//! reported only when added, removed, renamed or changed in mode or owner. Times alone are no change. All changed files that have
//! (or had) several names are found together, in one walk of the tree, however many they are; only hard links cost that.

use crate::tree::{Attr, FIRST_COOKIE, Slot, Tree};
use afs_types::{Ino, Name, ROOT_INO, SessionPath};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

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
        let modified = matches!((&old, &new), (Some(a), Some(b)) if self.is_modified(ino, a, b));
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

    fn is_modified(&self, ino: Ino, a: &Attr, b: &Attr) -> bool {
        is_modified((self.old, a), (self.new, b), ino)
    }

    /// Inodes that kept their names and changed inside.
    fn contents(&mut self) {
        let (old, new) = (self.old, self.new);
        let mut paths = Paths::default();
        let mut several: HashMap<Ino, (ChangeKind, Attr, Attr)> = HashMap::new();
        for (ino, _, _) in old.inodes().diff(new.inodes()) {
            let (Some(a), Some(b)) = (old.attr(*ino), new.attr(*ino)) else { continue };
            if b.nlink == 0 {
                continue;
            }
            let kind = if self.is_modified(*ino, &a, &b) {
                ChangeKind::Modified
            } else if (a.mode, a.uid, a.gid) != (b.mode, b.uid, b.gid) {
                ChangeKind::Mode
            } else {
                continue;
            };
            match paths.only_of(new, *ino, &b) {
                Some(path) => self.kept(path, kind, a, b),
                None => _ = several.insert(*ino, (kind, a, b)),
            }
        }
        if several.is_empty() {
            return;
        }
        // Goes to the end: the visitor never says that it has seen enough.
        let _ = each_name(new, |ino| several.contains_key(&ino), &mut |ino, path| {
            if let Some((kind, a, b)) = several.get(&ino) {
                self.kept(path, kind.clone(), *a, *b);
            }
            ControlFlow::Continue(())
        });
    }

    /// A path that names the same inode as before, unless its name is told as changed already.
    fn kept(&mut self, path: SessionPath, kind: ChangeKind, old: Attr, new: Attr) {
        if !self.changes.contains_key(&path) {
            self.put(PathChange { path, kind, old: Some(old), new: Some(new) });
        }
    }

    fn put(&mut self, change: PathChange) {
        // A name that was deleted and is there again as another inode is one modified path.
        let merged = match self.changes.remove(&change.path) {
            Some(before) => match (&before.kind, &change.kind) {
                // What was moved here is what there was before, not what it replaced.
                (ChangeKind::Renamed { .. }, _) => before,
                (_, ChangeKind::Renamed { .. }) => change,
                _ => PathChange {
                    path: change.path,
                    kind: ChangeKind::Modified,
                    old: before.old.or(change.old),
                    new: before.new.or(change.new),
                },
            },
            None => change,
        };
        self.changes.insert(merged.path.clone(), merged);
    }
}

/// Whether an inode has other bytes. Two forks number their changes from the same revision on, so that equal versions are the same change
/// only if the rest agrees. Sealing makes another form of the same bytes, and changes nothing else: it is no change.
fn is_modified((old, a): (&Tree, &Attr), (new, b): (&Tree, &Attr), ino: Ino) -> bool {
    if a.version != b.version || b.is_dir() {
        return !b.is_dir();
    }
    let (Some((was, _)), Some((is, _))) = (old.content(ino), new.content(ino)) else {
        return false;
    };
    // Not the mtime alone, which users set; sealing leaves both.
    let same_change = (a.size, a.mtime_ns, a.ctime_ns) == (b.size, b.mtime_ns, b.ctime_ns);
    was != is && !(same_change && was.is_unsealed() != is.is_unsealed())
}

/// Whether an inode is in both trees with the same bytes and the same mode. Both must be over the same base.
pub fn is_same(old: &Tree, new: &Tree, ino: Ino) -> bool {
    let (Some(a), Some(b)) = (old.attr(ino), new.attr(ino)) else { return false };
    a.mode == b.mode && !is_modified((old, &a), (new, &b), ino)
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

    /// The path of an inode in `tree`. None if it has several, or its only one is not where its other names were: [`each_name`] finds
    /// those, for all inodes at once.
    pub(crate) fn only_of(&mut self, tree: &Tree, ino: Ino, attr: &Attr) -> Option<SessionPath> {
        if ino == ROOT_INO {
            return Some(SessionPath::root());
        }
        if !attr.is_dir() && attr.nlink > 1 {
            return None;
        }
        let dir = tree.parent_of(ino)?;
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
        let name = Name::new(&name?).ok()?;
        Some(self.of(tree, true, dir)?.join(name))
    }
}

fn live_path(tree: &Tree, dir: Ino) -> Option<SessionPath> {
    tree.attr(dir).filter(|a| a.nlink > 0).and_then(|_| tree.path_of(dir))
}

/// Visits every name of every wanted inode, in one walk of the whole tree, until the visitor has seen enough.
pub(crate) fn each_name(
    tree: &Tree,
    is_wanted: impl Fn(Ino) -> bool,
    visit: &mut dyn FnMut(Ino, SessionPath) -> ControlFlow<()>,
) -> ControlFlow<()> {
    #[cfg(test)]
    tests::WALKS.with(|walks| walks.set(walks.get() + 1));
    let mut todo = vec![(ROOT_INO, SessionPath::root())];
    while let Some((dir, path)) = todo.pop() {
        let mut flow = ControlFlow::Continue(());
        tree.readdir(dir, FIRST_COOKIE, &mut |item| {
            let Ok(name) = Name::new(item.name) else { return true };
            let is_dir = tree.attr(item.ino).is_some_and(|a| a.is_dir());
            if is_dir {
                todo.push((item.ino, path.join(name.clone())));
            }
            if is_wanted(item.ino) {
                flow = visit(item.ino, path.join(name));
            }
            flow.is_continue()
        });
        flow?;
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
#[path = "diff/tests.rs"]
mod tests;
