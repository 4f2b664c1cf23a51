//! Trees to measure on: a base of any size, mapped as the server maps it, a session's tree over it, edits as sessions make them.

use afs_core::base::{BaseBuilder, BaseTable, NewEntry, NodeHandle, NodeKind};
use afs_core::extent::{LogRef, Source};
use afs_core::op::Op;
use afs_core::tree::plan::{NewNode, RenameMode};
use afs_core::tree::{S_IFREG, Tree};
use afs_types::{BlobId, Ino, NameRef};
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::Arc;

/// Files of one directory; 1,000,000 entries are then three levels deep, like a monorepo.
const FILES_PER_DIR: usize = 20;
const DIRS_PER_DIR: usize = 50;
const TIME_NS: i64 = 1_700_000_000_000_000_000;

/// A base and where its files are.
pub(crate) struct World {
    pub(crate) base: Arc<BaseTable>,
    /// The directories that hold files; every one of them has the same names in it.
    dirs: Vec<Ino>,
    names: Vec<Vec<u8>>,
}

impl World {
    /// A base of about `entries` entries: directories of files, in directories.
    pub(crate) fn of(dir: &Path, entries: usize) -> Result<Self> {
        let names: Vec<Vec<u8>> =
            (0..FILES_PER_DIR).map(|n| format!("source-file-{n}.rs").into_bytes()).collect();
        let mut builder = BaseBuilder::new(0x5eed);
        let mut dirs: Vec<NodeHandle> = Vec::new();
        let mut upper = BaseBuilder::ROOT;
        while builder.len() < entries {
            if dirs.len().is_multiple_of(DIRS_PER_DIR) {
                let name = format!("package-{}", dirs.len() / DIRS_PER_DIR);
                upper =
                    builder.add(BaseBuilder::ROOT, name.as_bytes(), NewEntry::new(NodeKind::Dir, 0o755))?;
            }
            let name = format!("module-{}", dirs.len() % DIRS_PER_DIR);
            let dir = builder.add(upper, name.as_bytes(), NewEntry::new(NodeKind::Dir, 0o755))?;
            for name in &names {
                let number = builder.len() as u64;
                let entry = NewEntry {
                    size: 1000 + number % 9000,
                    mtime_ns: TIME_NS,
                    blob: Some(blob(number)),
                    ..NewEntry::new(NodeKind::File, 0o644)
                };
                builder.add(dir, name, entry)?;
            }
            dirs.push(dir);
        }
        let dirs = dirs.into_iter().map(|dir| builder.ino_of(dir)).collect();
        let file = dir.join(format!("base-{entries}"));
        std::fs::write(&file, builder.finish())?;
        Ok(Self { base: Arc::new(BaseTable::open(afs_session::map_file(&file)?)?), dirs, names })
    }

    /// Directory and name of the `number`th file in an order that jumps through the whole tree. Made of two small arrays, so that
    /// finding out what to look up costs nothing beside the lookup.
    pub(crate) fn scattered(&self, number: usize) -> (Ino, &[u8]) {
        // A prime step visits every file before any twice, unless the count is its multiple.
        let file = number.wrapping_mul(7_368_787) % (self.dirs.len() * FILES_PER_DIR);
        (self.dirs[file / FILES_PER_DIR], &self.names[file % FILES_PER_DIR])
    }

    /// Directory and name of the `number`th file when tools walk: the files of a directory one after another, directories in an order that jumps.
    pub(crate) fn dir_by_dir(&self, number: usize) -> (Ino, &[u8]) {
        let dir = (number / FILES_PER_DIR).wrapping_mul(7_368_787) % self.dirs.len();
        (self.dirs[dir], &self.names[number % FILES_PER_DIR])
    }

    /// A fresh session's tree.
    pub(crate) fn tree(&self) -> Tree {
        Tree::new(Arc::clone(&self.base))
    }

    /// Edits scattered files as agents do. Of ten edits five write in place, two replace a file by a temporary one, two
    /// make a file, one deletes one.
    pub(crate) fn edit(&self, tree: &mut Tree, count: usize) -> Result<()> {
        let mut session = Session { tree, seq: 0, next_ino: self.base.max_ino() + 1 };
        for number in 0..count {
            let (dir, name) = self.scattered(number);
            match number % 10 {
                0..=4 => {
                    let ino = session.tree.lookup(dir, name).context("a file of the base is gone")?;
                    session.write(ino)?;
                }
                5 | 6 => {
                    session.create(dir, b".source-file.rs.tmp")?;
                    let (from, to) = (NameRef::new(b".source-file.rs.tmp")?, NameRef::new(name)?);
                    let plan = session.tree.plan_rename(
                        dir,
                        from,
                        dir,
                        to,
                        RenameMode::Replace,
                        |_| false,
                        TIME_NS,
                    )?;
                    if let Some(op) = plan {
                        session.apply(&op);
                    }
                }
                7 | 8 => session.create(dir, format!("new-file-{number}.rs").as_bytes())?,
                _ => {
                    let op = session.tree.plan_unlink(dir, NameRef::new(name)?, |_| false, TIME_NS)?;
                    session.apply(&op);
                }
            }
        }
        Ok(())
    }
}

/// What the engine does, without a journal.
struct Session<'a> {
    tree: &'a mut Tree,
    seq: u64,
    next_ino: Ino,
}

impl Session<'_> {
    fn apply(&mut self, op: &Op) {
        self.seq += 1;
        self.tree.apply(op, self.seq);
    }
    fn write(&mut self, ino: Ino) -> Result<()> {
        let source = Source::Log(LogRef { segment: 0, offset: self.seq * 4096 });
        let op = self.tree.plan_write(ino, 0, 100, source, TIME_NS)?;
        self.apply(&op);
        Ok(())
    }
    fn create(&mut self, dir: Ino, name: &[u8]) -> Result<()> {
        let new = NewNode { mode: S_IFREG | 0o644, uid: 0, gid: 0, rdev: 0, target: None };
        let ino = self.next_ino;
        self.next_ino += 1;
        let op = self.tree.plan_create(dir, NameRef::new(name)?, ino, &new, TIME_NS)?;
        self.apply(&op);
        self.write(ino)
    }
}

fn blob(number: u64) -> BlobId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    // The id of zeros stands for "no blob".
    id[8..16].copy_from_slice(&(number + 1).to_le_bytes());
    BlobId(id)
}
