//! What a commit's tree holds, asked path by path.
//!
//! Guarantees: each directory is read once, and a directory that is not there answers for all that would lie below it.

use crate::mirror::object_dirs;
use crate::object::{Oid, parse_hex, parse_tree};
use crate::packs::{Kind, Packs};
use afs_types::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Names of a directory, and the trees of those that are directories.
type Dir = HashMap<Vec<u8>, Option<Oid>>;

/// The tree of one commit.
pub struct Tracked {
    packs: Packs,
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
        let mut tracked = Self { packs, dirs: HashMap::new() };
        let dir = tracked.read(&root, b"")?;
        tracked.dirs.insert(Vec::new(), Some(dir));
        Ok(tracked)
    }

    /// Whether a file, link or submodule, or a directory that leads to one, is at this path.
    pub fn holds(&mut self, path: &[&[u8]]) -> Result<bool> {
        let Some((name, above)) = path.split_last() else { return Ok(true) };
        let mut at = Vec::new();
        for part in above {
            let child = match self.dirs.get(&at).and_then(Option::as_ref) {
                Some(dir) => dir.get(*part).copied().flatten(),
                None => return Ok(false),
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
        Ok(self.dirs.get(&at).and_then(Option::as_ref).is_some_and(|dir| dir.contains_key(*name)))
    }

    fn read(&self, oid: &Oid, path: &[u8]) -> Result<Dir> {
        let mut reader = self.packs.reader();
        let bytes = reader.expect(oid, Kind::Tree)?;
        let entries = parse_tree(bytes, &|| path.to_vec())?;
        Ok(entries.iter().map(|e| (e.name.to_vec(), e.mode.is_tree().then_some(e.oid))).collect())
    }
}
