//! The tree that a history starts from, as data: to be built as a base table, or as real files to import.

use crate::dice::Dice;
use afs_core::base::{BaseBuilder, MODE_FIFO, NewEntry, NodeHandle, NodeKind};
use afs_types::{BlobId, Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A tree. Node 0 is the root; a node comes behind its parent and behind what it links to.
#[derive(Clone, Debug)]
pub struct BaseSpec {
    /// Key of the table's hash.
    pub seed: u64,
    /// The nodes.
    pub nodes: Vec<BaseNode>,
}

/// A name in the tree and what it is.
#[derive(Clone, Debug)]
pub struct BaseNode {
    /// Index of its directory.
    pub parent: usize,
    /// Its name.
    pub name: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: BaseKind,
}

/// What a node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BaseKind {
    /// A directory.
    Dir,
    /// A file with its content.
    File(Vec<u8>),
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// One more name of the file with this index.
    HardLink(usize),
    /// A submodule: shows as an empty directory.
    Gitlink,
    /// A named pipe.
    Fifo,
}

/// Names that are taken often, so that operations collide.
pub const NAMES: [&[u8]; 10] =
    [b"a", b"b", b"c", b"dir", b"file.txt", b"link", b"\xff\xfe", b"x y", b"src", b".hidden"];

impl BaseSpec {
    /// A random tree. With `gitlinks` it can only be built as a table.
    pub fn random(seed: u64, gitlinks: bool) -> Self {
        let dice = &mut Dice::new(seed ^ 0xba5e);
        let root = BaseNode { parent: 0, name: Vec::new(), mode: 0o755, kind: BaseKind::Dir };
        let mut nodes = vec![root];
        let mut taken = BTreeSet::new();
        for _ in 0..dice.below(45) {
            let dirs: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].kind == BaseKind::Dir).collect();
            let files: Vec<usize> =
                (0..nodes.len()).filter(|at| matches!(nodes[*at].kind, BaseKind::File(_))).collect();
            let parent = dice.pick(&dirs).copied().unwrap_or(0);
            let name = dice.pick(&NAMES).map_or_else(Vec::new, |n| n.to_vec());
            if !taken.insert((parent, name.clone())) {
                continue;
            }
            let kind = match dice.below(20) {
                0..6 => BaseKind::Dir,
                6 | 7 => BaseKind::Symlink(random_target(dice)),
                8 if gitlinks => BaseKind::Gitlink,
                9 => BaseKind::Fifo,
                10 | 11 => match dice.pick(&files) {
                    Some(file) => BaseKind::HardLink(*file),
                    None => BaseKind::File(Vec::new()),
                },
                12 => BaseKind::File(dice.bytes(300_000)),
                13 => BaseKind::File(Vec::new()),
                _ => {
                    let len = dice.below(20_000) as usize;
                    BaseKind::File(dice.bytes(len))
                }
            };
            let mode =
                if kind == BaseKind::Dir { 0o755 } else { [0o644, 0o755, 0o600][dice.below(3) as usize] };
            nodes.push(BaseNode { parent, name, mode, kind });
        }
        Self { seed, nodes }
    }

    /// The tree as a base table. `put` stores a blob.
    pub fn table(&self, put: &mut dyn FnMut(&[u8]) -> Result<BlobId>) -> Result<Vec<u8>> {
        let mut builder = BaseBuilder::new(self.seed);
        let mut handles: Vec<NodeHandle> =
            vec![builder.root(NewEntry::new(NodeKind::Dir, self.nodes[0].mode))];
        for (at, node) in self.nodes.iter().enumerate().skip(1) {
            let mut entry = NewEntry::new(NodeKind::File, node.mode);
            entry.mtime_ns = at as i64 * 1_000_000_007;
            match &node.kind {
                BaseKind::Dir => entry.kind = NodeKind::Dir,
                BaseKind::File(bytes) if bytes.is_empty() => {}
                BaseKind::File(bytes) => (entry.size, entry.blob) = (bytes.len() as u64, Some(put(bytes)?)),
                BaseKind::Symlink(target) => {
                    (entry.kind, entry.mode) = (NodeKind::Symlink, 0o777);
                    (entry.size, entry.blob) = (target.len() as u64, Some(put(target)?));
                }
                BaseKind::HardLink(file) => entry = NewEntry::hard_link(handles[*file]),
                BaseKind::Gitlink => {
                    (entry.kind, entry.mode) = (NodeKind::Gitlink, 0o755);
                    entry.git_oid = Some([7; 20]);
                }
                BaseKind::Fifo => (entry.kind, entry.mode) = (NodeKind::Special, MODE_FIFO | node.mode),
            }
            let handle = builder.add(handles[node.parent], &node.name, entry)?;
            handles.push(handle);
        }
        Ok(builder.finish())
    }

    /// The tree as real files below an empty directory, to be imported. Pipes and submodules become empty directories:
    /// the tree that is left is returned.
    pub fn write_to(&self, dir: &Path) -> Result<Self> {
        let failed = |e| Error::io("write a tree to import", e);
        let mut left = self.clone();
        let mut paths = BTreeMap::from([(0, dir.to_path_buf())]);
        for (at, node) in left.nodes.iter_mut().enumerate().skip(1) {
            let path = paths[&node.parent].join(std::ffi::OsStr::from_bytes(&node.name));
            match &node.kind {
                BaseKind::File(bytes) => fs::write(&path, bytes).map_err(failed)?,
                BaseKind::Symlink(target) => {
                    let target = std::ffi::OsStr::from_bytes(target);
                    std::os::unix::fs::symlink(target, &path).map_err(failed)?;
                }
                BaseKind::HardLink(file) => fs::hard_link(&paths[file], &path).map_err(failed)?,
                BaseKind::Dir | BaseKind::Gitlink | BaseKind::Fifo => {
                    (node.kind, node.mode) = (BaseKind::Dir, 0o755);
                    fs::create_dir(&path).map_err(failed)?;
                }
            }
            if matches!(node.kind, BaseKind::Dir | BaseKind::File(_)) {
                fs::set_permissions(&path, fs::Permissions::from_mode(node.mode)).map_err(failed)?;
            }
            paths.insert(at, path);
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(left.nodes[0].mode)).map_err(failed)?;
        Ok(left)
    }
}

/// The target of a symbolic link: often to what is there, sometimes up, around, or nowhere.
pub fn random_target(dice: &mut Dice) -> Vec<u8> {
    let mut target = Vec::new();
    if dice.one_in(4) {
        target.push(b'/');
    }
    for step in 0..1 + dice.below(3) {
        if step > 0 {
            target.push(b'/');
        }
        match dice.below(8) {
            0 => target.extend_from_slice(b".."),
            _ => target.extend_from_slice(dice.pick(&NAMES).copied().unwrap_or(b"a")),
        }
    }
    target
}
