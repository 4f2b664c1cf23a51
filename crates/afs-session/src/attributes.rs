//! What `.gitattributes` say about the files of a session, as far as git converts with it what it adds.
//!
//! Guarantees: what git finds when it adds a file: `.git/info/attributes` of the session counts most, then the deepest directory, in a
//! file the last line, in a line the last word; macros stand at the root, in `info`, or are git's own (`binary`). Nothing of the server's
//! user counts: no global attributes, no `core.autocrlf`, no `core.eol`. Files are read from the session's tree, each once; a directory is
//! asked for its file once, so that a tree without attributes costs that. A tree from outside is hostile: one file, and all that are
//! read, have bounds on their bytes and lines; beyond them nothing is decided, and the error names the file and the limit.
//! Deliberately absent: attributes that convert nothing (`diff`, `merge`, `export-ignore`), and `filter`, as no program is ever run.

mod lines;

use crate::content::read_content;
use afs_core::tree::Tree;
use afs_store::BlobStore;
use afs_types::{Ino, Name, ROOT_INO, Result, SessionPath, limits};
use lines::{Found, Lines, State, too_many};
use std::collections::{HashMap, HashSet};

/// Directories without attributes that are remembered; when there are more, they are looked at again.
const MAX_KNOWN: usize = 65_536;

const FILE: &[u8] = b".gitattributes";
const INFO: &[u8] = b"/.git/info/attributes";
const BUILT_IN: &[u8] = b"[attr]binary -diff -merge -text";
const WANTED: [&[u8]; 5] = [b"text", b"crlf", b"eol", b"ident", b"working-tree-encoding"];

/// Whether `\r\n` becomes `\n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnds {
    /// Left alone.
    Keep,
    /// Always.
    Text,
    /// If the file looks like text, and what is tracked of it has none.
    Auto,
}

/// What is done to a file's bytes before git keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conversion {
    /// Ends of lines.
    pub(crate) line_ends: LineEnds,
    /// Whether `$Id: ...$` becomes `$Id$`.
    pub(crate) ident: bool,
    /// The encoding that the file has here; in git it is UTF-8.
    pub(crate) encoding: Option<Vec<u8>>,
}

impl Conversion {
    /// Whether it does nothing.
    pub(crate) fn is_none(&self) -> bool {
        self.line_ends == LineEnds::Keep && !self.ident && self.encoding.is_none()
    }

    fn of(found: &Found<'_>) -> Self {
        let encoding = match found.state(b"working-tree-encoding") {
            State::Unspecified | State::Unset => None,
            // Git refuses it; so does whoever looks this name up.
            State::Set => Some(&b"true"[..]),
            State::Value(name) => Some(name).filter(|name| !name.is_empty() && !is_utf8(name)),
        };
        Self {
            line_ends: line_ends(found),
            ident: found.state(b"ident") == State::Set,
            encoding: encoding.map(<[u8]>::to_vec),
        }
    }
}

fn is_utf8(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"utf-8") || name.eq_ignore_ascii_case(b"utf8")
}

fn line_ends(found: &Found<'_>) -> LineEnds {
    let of = |name: &[u8]| match found.state(name) {
        State::Set | State::Value(b"input") => Some(LineEnds::Text),
        State::Unset => Some(LineEnds::Keep),
        State::Value(b"auto") => Some(LineEnds::Auto),
        State::Unspecified | State::Value(_) => None,
    };
    // `crlf` is the old name of `text`; an `eol` makes text of what nothing else is said about.
    let has_eol = matches!(found.state(b"eol"), State::Value(b"lf" | b"crlf"));
    let otherwise = if has_eol { LineEnds::Text } else { LineEnds::Keep };
    of(b"text").or_else(|| of(b"crlf")).unwrap_or(otherwise)
}

/// Directories down a path: inode, how many names that is, and where what is below begins in the path.
type Dirs = Vec<(Ino, usize, usize)>;

/// The attributes of one tree, read as needed.
pub(crate) struct Attributes<'a> {
    tree: &'a Tree,
    blobs: &'a BlobStore,
    built_in: Lines,
    /// `.git/info/attributes`: not looked at yet, none, or its lines.
    info: Option<Option<Lines>>,
    by_dir: HashMap<Ino, Option<Lines>>,
    /// The directory that was asked of last, and those down to it.
    last: Option<(Vec<Name>, Dirs)>,
    /// Directories (or that one file) whose lines are counted already.
    counted: HashSet<Ino>,
    /// Bytes and lines of them.
    bytes: usize,
    lines: usize,
}

impl<'a> Attributes<'a> {
    /// The attributes of `tree`.
    pub(crate) fn new(tree: &'a Tree, blobs: &'a BlobStore) -> Result<Self> {
        let (by_dir, counted) = (HashMap::new(), HashSet::new());
        let built_in = Lines::parse(BUILT_IN, true)?;
        Ok(Self { tree, blobs, built_in, info: None, by_dir, last: None, counted, bytes: 0, lines: 0 })
    }

    /// What git does to the file at `path` when it adds it.
    pub(crate) fn of(&mut self, path: &SessionPath) -> Result<Conversion> {
        self.load_info()?;
        let dirs = self.load_dirs(path)?;
        let dirs: Vec<(&Lines, usize)> = dirs
            .into_iter()
            .rev()
            .filter_map(|(dir, below)| Some((self.by_dir.get(&dir)?.as_ref()?, below)))
            .collect();
        let info = self.info.as_ref().and_then(Option::as_ref);
        if dirs.is_empty() && info.is_none() {
            return Ok(Conversion { line_ends: LineEnds::Keep, ident: false, encoding: None });
        }
        let full = path.names().iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/');
        let macros: Vec<&Lines> =
            info.into_iter().chain(dirs.iter().map(|(lines, _)| *lines)).chain([&self.built_in]).collect();
        let mut found = Found::new(&WANTED, &macros);
        if let Some(info) = info {
            found.take(info, &full);
        }
        for (lines, below) in dirs {
            found.take(lines, &full[below..]);
        }
        Ok(Conversion::of(&found))
    }

    fn load_info(&mut self) -> Result<()> {
        if self.info.is_none() {
            let path = SessionPath::parse(INFO)?;
            self.info = Some(match self.tree.walk(&path) {
                Some(ino) => self.read(ino, ino, true, || path)?,
                None => None,
            });
        }
        Ok(())
    }

    /// Reads the files of all directories down to a path: the directories, and where what is below each begins in the path.
    fn load_dirs(&mut self, path: &SessionPath) -> Result<Vec<(Ino, usize)>> {
        let names = path.names();
        let above = &names[..names.len().saturating_sub(1)];
        let dirs = match self.last.take() {
            Some((last, dirs)) if last == above => dirs,
            _ => self.dirs(above),
        };
        if self.by_dir.len() >= MAX_KNOWN {
            self.by_dir.retain(|_, lines| lines.is_some());
        }
        for (dir, depth, _) in &dirs {
            if self.by_dir.contains_key(dir) {
                continue;
            }
            let lines = match self.tree.lookup(*dir, FILE) {
                Some(ino) => self.read(*dir, ino, *depth == 0, || path_of(&above[..*depth]))?,
                None => None,
            };
            self.by_dir.insert(*dir, lines);
        }
        let found = dirs.iter().map(|(dir, _, below)| (*dir, *below)).collect();
        self.last = Some((above.to_vec(), dirs));
        Ok(found)
    }

    fn dirs(&self, names: &[Name]) -> Dirs {
        let (mut dirs, mut at, mut below) = (vec![(ROOT_INO, 0, 0)], ROOT_INO, 0);
        for (depth, name) in names.iter().enumerate() {
            let Some(next) = self.tree.lookup(at, name.as_bytes()) else { break };
            at = next;
            below += name.as_bytes().len() + 1;
            dirs.push((at, depth + 1, below));
        }
        dirs
    }

    /// Reads a file that is counted as `of`; none if no line of it says something. Git follows no link to one.
    fn read(
        &mut self,
        of: Ino,
        ino: Ino,
        with_macros: bool,
        path: impl FnOnce() -> SessionPath,
    ) -> Result<Option<Lines>> {
        self.try_read(of, ino, with_macros).map_err(|error| {
            let path = path().to_text();
            error.prefixed(&path).with("path", path)
        })
    }

    fn try_read(&mut self, of: Ino, ino: Ino, with_macros: bool) -> Result<Option<Lines>> {
        let Some(attr) = self.tree.attr(ino).filter(|a| a.is_file()) else { return Ok(None) };
        let Some((content, size)) = self.tree.content(ino) else { return Ok(None) };
        let most = limits::MAX_ATTRIBUTES_FILE_BYTES;
        let len = usize::try_from(attr.size).ok().filter(|len| *len <= most);
        let len = len.ok_or_else(|| too_many("bytes", most))?;
        let is_counted = self.counted.contains(&of);
        if !is_counted && self.bytes + len > limits::MAX_ATTRIBUTES_BYTES {
            return Err(too_many("bytes in all", limits::MAX_ATTRIBUTES_BYTES));
        }
        let lines = Lines::parse(&read_content(self.blobs, &content, size, 0, len)?, with_macros)?;
        // Also of a file that says nothing: it was read.
        if !is_counted {
            self.counted.insert(of);
            self.bytes += len;
            self.lines += lines.len();
            if self.lines > limits::MAX_ATTRIBUTES_LINES {
                return Err(too_many("lines in all", limits::MAX_ATTRIBUTES_LINES));
            }
        }
        Ok((lines.len() > 0).then_some(lines))
    }
}

fn path_of(dir: &[Name]) -> SessionPath {
    let file = Name::new(FILE).ok();
    SessionPath::from(dir.iter().cloned().chain(file).collect::<Vec<_>>())
}
