//! `.gitignore` rules of a session, read from its own tree.
//!
//! Guarantees: the rules of git for files that it does not track: the deepest `.gitignore` with a matching line decides, `!` takes back,
//! a file below an ignored directory is ignored, `.git/info/exclude` comes last. Files are read once per [`Ignores`].
//! Deliberately absent: the user's global excludes, which a server does not have, and whether a path is tracked.

use crate::content::read_content;
use afs_core::tree::Tree;
use afs_store::BlobStore;
use afs_types::{Ino, Name, ROOT_INO, Result, SessionPath, limits};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The rules of one tree, read as needed.
pub struct Ignores<'a> {
    tree: &'a Tree,
    blobs: &'a BlobStore,
    by_dir: HashMap<Ino, Option<Gitignore>>,
    exclude: Option<Gitignore>,
}

impl<'a> Ignores<'a> {
    /// The rules of `tree`.
    pub fn new(tree: &'a Tree, blobs: &'a BlobStore) -> Result<Self> {
        let mut ignores = Self { tree, blobs, by_dir: HashMap::new(), exclude: None };
        let exclude = SessionPath::parse(b"/.git/info/exclude")?;
        if let Some(ino) = tree.walk(&exclude) {
            ignores.exclude = ignores.read(ino, Path::new("/"))?;
        }
        Ok(ignores)
    }

    /// Whether git would leave an untracked path out.
    pub fn is_ignored(&mut self, path: &SessionPath, is_dir: bool) -> Result<bool> {
        for depth in 1..=path.names().len() {
            let part = &path.names()[..depth];
            if self.decide(part, is_dir || depth < path.names().len())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The decision for one path whose parents are not ignored.
    pub(crate) fn decide(&mut self, names: &[Name], is_dir: bool) -> Result<bool> {
        let full = host_path(names);
        let (mut dirs, mut at) = (vec![(ROOT_INO, 0)], ROOT_INO);
        for (depth, name) in names[..names.len() - 1].iter().enumerate() {
            let Some(next) = self.tree.lookup(at, name.as_bytes()) else { break };
            at = next;
            dirs.push((at, depth + 1));
        }
        for (dir, depth) in dirs.into_iter().rev() {
            let verdict = self.rules(dir, &names[..depth])?.map(|rules| rules.matched(&full, is_dir));
            match verdict {
                Some(m) if m.is_ignore() => return Ok(true),
                Some(m) if m.is_whitelist() => return Ok(false),
                _ => {}
            }
        }
        Ok(self.exclude.as_ref().is_some_and(|rules| rules.matched(&full, is_dir).is_ignore()))
    }

    fn rules(&mut self, dir: Ino, names: &[Name]) -> Result<Option<&Gitignore>> {
        if !self.by_dir.contains_key(&dir) {
            let rules = match self.tree.lookup(dir, b".gitignore") {
                Some(ino) => self.read(ino, &host_path(names))?,
                None => None,
            };
            self.by_dir.insert(dir, rules);
        }
        Ok(self.by_dir.get(&dir).and_then(Option::as_ref))
    }

    fn read(&self, ino: Ino, root: &Path) -> Result<Option<Gitignore>> {
        let Some(attr) = self.tree.attr(ino).filter(|a| a.is_file()) else { return Ok(None) };
        let Some((content, size)) = self.tree.content(ino) else { return Ok(None) };
        let len = attr.size.min(limits::MAX_TEXT_FILE_BYTES) as usize;
        let text = read_content(self.blobs, &content, size, 0, len)?;
        let mut builder = GitignoreBuilder::new(root);
        for line in String::from_utf8_lossy(&text).lines() {
            // A line that does not parse matches nothing, as in git.
            let _ = builder.add_line(None, line);
        }
        Ok(builder.build().ok())
    }
}

fn host_path(names: &[Name]) -> PathBuf {
    let mut path = PathBuf::from("/");
    names.iter().for_each(|n| path.push(OsStr::from_bytes(n.as_bytes())));
    path
}
