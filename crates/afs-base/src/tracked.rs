//! What a commit's tree holds, asked path by path.
//!
//! Guarantees: each directory that a path is asked of is read once, and one that is not there answers for all that would lie below it.
//! Comparing with another commit reads only the directories that differ.

use crate::mirror::object_dirs;
use crate::object::{Mode, Oid, hex, parse_hex, parse_tree};
use crate::packs::{Kind, Object, Packs};
use afs_types::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// What a directory has at each name.
type Dir = HashMap<Vec<u8>, (Mode, Oid)>;

/// The tree of one commit.
pub struct Tracked {
    packs: Packs,
    root: Oid,
    /// By path; none: no such directory.
    dirs: HashMap<Vec<u8>, Option<Dir>>,
}

impl Tracked {
    /// The tree with this id, hexadecimal, of a mirror or its commits.
    pub fn open(mirror: &Path, tree: &str) -> Result<Self> {
        let packs = Packs::open(&object_dirs(mirror))?;
        let root = parse_hex(tree.as_bytes()).filter(|oid| packs.find(oid).is_some());
        let root = root.ok_or_else(|| {
            Error::invalid("tree", "the id of a tree that the mirror holds").with("oid", tree)
        })?;
        let mut tracked = Self { packs, root, dirs: HashMap::new() };
        let dir = tracked.read(&root, b"")?;
        tracked.dirs.insert(Vec::new(), Some(dir));
        Ok(tracked)
    }

    /// Whether a file, link or submodule is at this path. What git tracks is files: a directory is not tracked itself.
    pub fn holds(&mut self, path: &[&[u8]]) -> Result<bool> {
        Ok(self.leaf(path)?.is_some())
    }

    /// The blob of the file or link at this path.
    pub fn blob_at(&mut self, path: &[&[u8]]) -> Result<Option<Oid>> {
        Ok(self.leaf(path)?.filter(|(mode, _)| mode.is_blob()).map(|(_, oid)| oid))
    }

    /// The commit of the submodule at this path.
    pub fn gitlink_at(&mut self, path: &[&[u8]]) -> Result<Option<Oid>> {
        Ok(self.leaf(path)?.filter(|(mode, _)| *mode == Mode::Gitlink).map(|(_, oid)| oid))
    }

    /// Whether something lies below this path: git has no empty directories.
    pub fn holds_below(&mut self, path: &[&[u8]]) -> Result<bool> {
        Ok(self.at(path)?.is_some_and(|(mode, _)| mode.is_tree()))
    }

    /// What somebody sees in a blob; none if it is larger than 64 MiB.
    pub fn with_blob<T>(&self, oid: &Oid, see: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        let place = self.packs.find(oid).ok_or_else(|| {
            Error::invalid("blob", "the id of a blob that the mirror holds").with("oid", hex(oid))
        })?;
        Ok(match self.packs.reader().read_at(oid, place)? {
            Object::Whole { bytes, .. } => Some(see(bytes)),
            Object::TooLarge => None,
        })
    }

    fn leaf(&mut self, path: &[&[u8]]) -> Result<Option<(Mode, Oid)>> {
        Ok(self.at(path)?.filter(|(mode, _)| !mode.is_tree()))
    }

    /// What is at this path.
    fn at(&mut self, path: &[&[u8]]) -> Result<Option<(Mode, Oid)>> {
        let Some((name, above)) = path.split_last() else { return Ok(None) };
        let mut at = Vec::new();
        for part in above {
            let child = match self.dirs.get(&at).and_then(Option::as_ref) {
                Some(dir) => tree_in(dir, part),
                None => return Ok(None),
            };
            if !at.is_empty() {
                at.push(b'/');
            }
            at.extend_from_slice(part);
            if !self.dirs.contains_key(&at) {
                let dir = child.map(|oid| self.read(&oid, &at)).transpose()?;
                self.dirs.insert(at.clone(), dir);
            }
        }
        Ok(self.dirs.get(&at).and_then(Option::as_ref).and_then(|dir| dir.get(*name)).copied())
    }

    /// Visits every file, link and submodule of another commit's tree that is not the same at the same path in this one.
    pub fn each_other(&self, commit: &str, visit: &mut dyn FnMut(&[Vec<u8>])) -> Result<()> {
        let oid = parse_hex(commit.as_bytes()).filter(|oid| self.packs.find(oid).is_some());
        let oid = oid.ok_or_else(|| {
            Error::invalid("commit", "the id of a commit that the mirror holds").with("oid", commit)
        })?;
        let theirs = self.packs.reader().commit(&oid)?.tree;
        let mut todo = vec![(Vec::new(), theirs, Some(self.root))];
        while let Some((mut path, theirs, ours)) = todo.pop() {
            if Some(theirs) == ours {
                continue;
            }
            let shown = path.join(&b'/');
            let ours = ours.map_or(Ok(Dir::new()), |oid| self.read(&oid, &shown))?;
            for (name, (mode, oid)) in self.read(&theirs, &shown)? {
                match mode {
                    Mode::Tree => {
                        let same = tree_in(&ours, &name);
                        todo.push(([path.as_slice(), &[name]].concat(), oid, same));
                    }
                    _ if ours.get(&name) == Some(&(mode, oid)) => {}
                    _ => {
                        path.push(name);
                        visit(&path);
                        path.pop();
                    }
                }
            }
        }
        Ok(())
    }

    fn read(&self, oid: &Oid, path: &[u8]) -> Result<Dir> {
        let mut reader = self.packs.reader();
        let bytes = reader.expect(oid, Kind::Tree)?;
        let entries = parse_tree(bytes, &|| path.to_vec())?;
        Ok(entries.iter().map(|e| (e.name.to_vec(), (e.mode, e.oid))).collect())
    }
}

fn tree_in(dir: &Dir, name: &[u8]) -> Option<Oid> {
    dir.get(name).filter(|(mode, _)| mode.is_tree()).map(|(_, oid)| *oid)
}
