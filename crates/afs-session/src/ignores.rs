//! `.gitignore` rules of a session, read from its own tree.
//!
//! Guarantees: the rules of git for files that it does not track: the deepest `.gitignore` with a matching line decides, `!` takes back,
//! a file below an ignored directory is ignored, `.git/info/exclude` comes last. Files are read once per [`Ignores`], or once more after
//! [`Ignores::forget`]. A tree from outside is hostile: one file, one line of it, and all files that are read, have bounds on their bytes
//! and patterns; beyond them nothing is decided, as other rules than the file's would commit what it keeps out. The error names the file
//! and the limit.
//! Deliberately absent: the user's global excludes, which a server does not have, and whether a path is tracked.

pub(crate) mod rules;

use crate::content::read_content;
use crate::memory::{Memory, Room};
use afs_core::tree::Tree;
use afs_store::BlobStore;
use afs_types::{Ino, Name, ROOT_INO, Result, SessionPath, limits};
use rules::{Rules, Subject, too_many};
use std::collections::{HashMap, HashSet};

/// Directories without rules that are remembered; when there are more, they are looked at again.
const MAX_KNOWN: usize = 65_536;

/// The rules of one tree, read as needed.
pub struct Ignores<'a> {
    tree: &'a Tree,
    blobs: &'a BlobStore,
    by_dir: HashMap<Ino, Option<Rules>>,
    /// `.git/info/exclude`: not looked at yet, none, or its rules.
    exclude: Option<Option<Rules>>,
    /// Directories (or that one file) whose rules are counted already. Not files: one with many names is there many times.
    counted: HashSet<Ino>,
    /// Bytes and patterns of them.
    bytes: usize,
    patterns: usize,
    /// Where the memory comes from, if it is shared with others.
    room: Option<Room<'a>>,
}

impl<'a> Ignores<'a> {
    /// The rules of `tree`.
    pub fn new(tree: &'a Tree, blobs: &'a BlobStore) -> Self {
        Self::open(tree, blobs, None)
    }

    /// The same for a search, of which many run at once: their rules share memory.
    pub(crate) fn of_search(tree: &'a Tree, blobs: &'a BlobStore, memory: &'a Memory) -> Self {
        Self::open(tree, blobs, Some(memory.rules()))
    }

    fn open(tree: &'a Tree, blobs: &'a BlobStore, room: Option<Room<'a>>) -> Self {
        let (by_dir, counted) = (HashMap::new(), HashSet::new());
        Self { tree, blobs, by_dir, exclude: None, counted, bytes: 0, patterns: 0, room }
    }

    /// Gives the memory of all rules back, because somebody else's pace decides when they are needed again: they are read again then.
    pub(crate) fn forget(&mut self) {
        (self.by_dir, self.exclude) = (HashMap::new(), None);
        if let Some(room) = &mut self.room {
            room.clear();
        }
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
        let full = names.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/');
        // Each directory above it, how many names that is, and where what is below begins in the path.
        let (mut dirs, mut at, mut below) = (vec![(ROOT_INO, 0, 0)], ROOT_INO, 0);
        for (depth, name) in names[..names.len() - 1].iter().enumerate() {
            let Some(next) = self.tree.lookup(at, name.as_bytes()) else { break };
            at = next;
            below += name.as_bytes().len() + 1;
            dirs.push((at, depth + 1, below));
        }
        for (dir, depth, below) in dirs.into_iter().rev() {
            let subject = Subject { path: &full[below..], is_dir };
            if let Some(verdict) = self.rules(dir, &names[..depth])?.and_then(|rules| rules.verdict(&subject))
            {
                return Ok(verdict);
            }
        }
        let subject = Subject { path: &full, is_dir };
        Ok(self.exclude()?.and_then(|rules| rules.verdict(&subject)).unwrap_or(false))
    }

    fn exclude(&mut self) -> Result<Option<&Rules>> {
        if self.exclude.is_none() {
            let path = SessionPath::parse(EXCLUDE)?;
            self.exclude = Some(match self.tree.walk(&path) {
                Some(ino) => self.read(ino, ino, || path)?,
                None => None,
            });
        }
        Ok(self.exclude.as_ref().and_then(Option::as_ref))
    }

    fn rules(&mut self, dir: Ino, names: &[Name]) -> Result<Option<&Rules>> {
        if !self.by_dir.contains_key(&dir) {
            let rules = match self.tree.lookup(dir, FILE) {
                Some(ino) => self.read(dir, ino, || path_of(names))?,
                None => None,
            };
            if self.by_dir.len() >= MAX_KNOWN {
                self.by_dir.retain(|_, rules| rules.is_some());
            }
            self.by_dir.insert(dir, rules);
        }
        Ok(self.by_dir.get(&dir).and_then(Option::as_ref))
    }

    /// Reads a file of rules that is counted as `of`; none if it has none.
    fn read(&mut self, of: Ino, ino: Ino, path: impl FnOnce() -> SessionPath) -> Result<Option<Rules>> {
        self.try_read(of, ino).map_err(|error| {
            let path = path().to_text();
            error.prefixed(&path).with("path", path)
        })
    }

    fn try_read(&mut self, of: Ino, ino: Ino) -> Result<Option<Rules>> {
        let Some(attr) = self.tree.attr(ino).filter(|a| a.is_file()) else { return Ok(None) };
        let Some((content, size)) = self.tree.content(ino) else { return Ok(None) };
        let most = limits::MAX_IGNORE_FILE_BYTES;
        let len = usize::try_from(attr.size).ok().filter(|len| *len <= most);
        let len = len.ok_or_else(|| too_many("bytes", most))?;
        let is_counted = self.counted.contains(&of);
        if !is_counted && self.bytes + len > limits::MAX_IGNORES_BYTES {
            return Err(too_many("bytes in all", limits::MAX_IGNORES_BYTES));
        }
        // While it is parsed, its text may be there twice, and every line of it may be a pattern.
        let at_most = 2 * len + rules::memory_of(len);
        if let Some(room) = &mut self.room {
            room.grow(at_most)?;
        }
        let rules = Rules::parse(read_content(self.blobs, &content, size, 0, len)?.to_vec())?;
        let rules = (rules.len() > 0).then_some(rules);
        if let Some(room) = &mut self.room {
            room.shrink(at_most - rules.as_ref().map_or(0, Rules::memory).min(at_most));
        }
        if let Some(rules) = rules.as_ref().filter(|_| !is_counted) {
            self.counted.insert(of);
            self.bytes += len;
            self.patterns += rules.len();
            if self.patterns > limits::MAX_IGNORES_PATTERNS {
                return Err(too_many("patterns in all", limits::MAX_IGNORES_PATTERNS));
            }
        }
        Ok(rules)
    }
}

const EXCLUDE: &[u8] = b"/.git/info/exclude";
const FILE: &[u8] = b".gitignore";

fn path_of(dir: &[Name]) -> SessionPath {
    let file = Name::new(FILE).ok();
    SessionPath::from(dir.iter().cloned().chain(file).collect::<Vec<_>>())
}
