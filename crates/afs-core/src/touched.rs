//! Which paths of a tree may look different to somebody who saw an earlier instant of it: the question of git's fsmonitor
//! protocol, answered without a walk.
//!
//! Guarantees: a path whose `stat` or content differs between the two instants is among the answers, also when it is the directory
//! above it that came, went or moved (git before 2.37 does not look below a directory that is named). More may be named than changed; access times alone, and what is under the root's `.git`, never are. Costs the
//! changes when the two share history.
//!
//! Deliberately absent: how a path changed (`diff`), and any memory of earlier instants (the engine's).

use crate::diff::{Paths, each_name, live_lookup, slot_names};
use crate::tree::{Attr, FIRST_COOKIE, Tree};
use afs_types::{Ino, Name, ROOT_INO, SessionPath};
use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

/// Git's own directory: nobody asks git's questions about it.
const GIT_DIR: &[u8] = b".git";

/// The paths, or none when there are more than `most` of them, or the root itself changed. Both trees must be over the
/// same base.
pub fn touched(old: &Tree, new: &Tree, most: usize) -> Option<BTreeSet<SessionPath>> {
    let mut finder = Finder { old, new, most, found: BTreeSet::new(), several: HashSet::new() };
    finder.names()?;
    finder.inodes()?;
    finder.several_names()?;
    Some(finder.found)
}

struct Finder<'a> {
    old: &'a Tree,
    new: &'a Tree,
    most: usize,
    found: BTreeSet<SessionPath>,
    /// Changed inodes that have, or had, several names: found together, in one walk.
    several: HashSet<Ino>,
}

impl Finder<'_> {
    fn add(&mut self, path: SessionPath) -> Option<()> {
        if is_asked_for(&path) {
            self.found.insert(path);
        }
        (self.found.len() <= self.most).then_some(())
    }

    /// Names that came, went, or name another inode.
    fn names(&mut self) -> Option<()> {
        let (old, new) = (self.old, self.new);
        let mut paths = Paths::default();
        for ((dir, _), a, b) in old.dentries().diff(new.dentries()) {
            let names: BTreeSet<&[u8]> = slot_names(a).chain(slot_names(b)).collect();
            for name in names {
                let (was, is) = (live_lookup(old, *dir, name), live_lookup(new, *dir, name));
                let Ok(name) = Name::new(name) else { continue };
                if was == is {
                    continue;
                }
                for (tree, is_new, ino) in [(old, false, was), (new, true, is)] {
                    let path = paths.of(tree, is_new, *dir).map(|p| p.join(name.clone()));
                    let Some(path) = path.filter(is_asked_for) else { continue };
                    if let Some(ino) = ino {
                        self.below(tree, ino, &path)?;
                    }
                    self.add(path)?;
                }
            }
        }
        Some(())
    }

    /// Everything below a directory.
    fn below(&mut self, tree: &Tree, ino: Ino, path: &SessionPath) -> Option<()> {
        let mut todo = vec![(ino, path.clone())];
        while let Some((dir, path)) = todo.pop() {
            if !tree.attr(dir).is_some_and(|a| a.is_dir()) {
                continue;
            }
            let mut is_within = true;
            tree.readdir(dir, FIRST_COOKIE, &mut |item| {
                if let Ok(name) = Name::new(item.name) {
                    let at = path.join(name);
                    todo.push((item.ino, at.clone()));
                    is_within = self.add(at).is_some();
                }
                is_within
            });
            is_within.then_some(())?;
        }
        Some(())
    }

    /// Inodes that changed under a name that stayed.
    fn inodes(&mut self) -> Option<()> {
        let (old, new) = (self.old, self.new);
        let mut paths = Paths::default();
        for (ino, _, _) in old.inodes().diff(new.inodes()) {
            let (Some(a), Some(b)) = (old.attr(*ino), new.attr(*ino)) else { continue };
            if b.nlink == 0 || !looks_different(&a, &b) {
                continue;
            }
            if *ino == ROOT_INO {
                return None;
            }
            match paths.only_of(new, *ino, &b) {
                Some(path) => self.add(path)?,
                None => _ = self.several.insert(*ino),
            }
        }
        Some(())
    }

    fn several_names(&mut self) -> Option<()> {
        if self.several.is_empty() {
            return Some(());
        }
        let (new, several) = (self.new, std::mem::take(&mut self.several));
        let walked = each_name(new, |ino| several.contains(&ino), &mut |_, path| match self.add(path) {
            Some(()) => ControlFlow::Continue(()),
            None => ControlFlow::Break(()),
        });
        walked.is_continue().then_some(())
    }
}

fn is_asked_for(path: &SessionPath) -> bool {
    path.names().first().is_some_and(|name| name.as_bytes() != GIT_DIR)
}

/// A directory's times and links follow from its entries, which are named themselves.
fn looks_different(a: &Attr, b: &Attr) -> bool {
    if a.is_dir() && b.is_dir() {
        return (a.mode, a.uid, a.gid) != (b.mode, b.uid, b.gid);
    }
    Attr { atime_ns: b.atime_ns, ..*a } != *b
}

#[cfg(test)]
#[path = "touched/tests.rs"]
mod tests;
