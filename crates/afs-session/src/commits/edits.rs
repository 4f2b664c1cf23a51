//! What a commit has that its base has not, as edits of the base's tree.
//!
//! The edits are of the base, what is tracked is what the commit before tracks (the base, if there is none): a file of the base that an earlier commit
//! of the session no longer has is as new as any other when it is there again, and stays out when a rule ignores it.
//!
//! What git has staged or taken out in the session's own index since then counts before that ([`super::staged`]). A directory with a repository of its own
//! is a submodule, of which the tree has the commit that is checked out, if it was one before or nothing below it is tracked ([`super::nested`]).
//!
//! A file that is what it was at the commit before keeps the object that this one has for it, and a file of the base that nobody touched the base's:
//! as with git, whose index knows that they are unchanged, attributes that say something else by now do not matter to them. What else is to be
//! written is converted as the attributes say.
//!
//! Guarantees: those of the parent module about what is tracked and how it is converted. Contents are read when the edit that has them is
//! asked for, one after the other. Deliberately absent: writing git objects (`afs_base` does).

use super::convert::{Source, convert, has_crlf};
use super::nested::Heads;
use super::staged::Staged;
use crate::attributes::{Attributes, Conversion, LineEnds};
use crate::content::read_content;
use crate::ignores::Ignores;
use afs_base::{EditContent, EditEntry, Oid, Tracked, TreeEdit};
use afs_core::base::NodeKind;
use afs_core::diff::{ChangeKind, PathChange, diff, is_same};
use afs_core::extent::Content;
use afs_core::tree::{FIRST_COOKIE, Tree};
use afs_store::BlobStore;
use afs_types::{Error, Ino, Name, ROOT_INO, Reason, Result, SessionPath, limits};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The commit before.
pub(super) struct Before {
    /// What it tracks.
    pub(super) tracked: Tracked,
    /// The session as it was; none if that stood on another base.
    pub(super) tree: Option<Tree>,
}

/// The edits that turn the tree of `base_commit`, which is `base`, into the session's tracked content.
pub(super) fn tree_edits(
    (base_commit, base): (&str, &Tree),
    new: &Tree,
    blobs: &Arc<BlobStore>,
    before: Option<Before>,
    stop: &Arc<AtomicBool>,
) -> Result<impl Iterator<Item = Result<TreeEdit>>> {
    let (ignores, attributes) = (Ignores::new(new, blobs), Attributes::new(new, blobs)?);
    let befores: Vec<&Tree> = before.iter().filter_map(|before| before.tree.as_ref()).chain([base]).collect();
    let staged = Staged::between(&befores, new, blobs, stop)?;
    let (out, bytes, links, heads) = (BTreeMap::new(), 0, HashMap::new(), Heads::default());
    let mut edits =
        Edits { base, new, blobs, before, staged, links, heads, ignores, attributes, out, bytes, stop };
    let changes = diff(base, new);
    let links = edits.find_links(&changes)?;
    // Removals first, so that what is put at the same path has the last word.
    for change in &changes {
        edits.removal(change);
    }
    for change in &changes {
        edits.check_stop()?;
        edits.addition(change)?;
    }
    edits.put_links(links)?;
    edits.came_back(base_commit)?;
    edits.put_taken()?;
    let Edits { out, before, .. } = edits;
    Ok(out.into_iter().map(move |(path, put)| {
        let tracked = before.as_ref().map(|before| &before.tracked);
        let change = put.map(|put| put.entry(&path, tracked)).transpose()?;
        Ok(TreeEdit { path: parts(&path), change })
    }))
}

/// What is put at a path.
enum Put {
    Entry(EditEntry),
    /// A file whose bytes are converted when it is its turn.
    File(Box<Pending>),
}

struct Pending {
    executable: bool,
    source: Source,
    how: Conversion,
    /// The blob that it is if the conversion leaves it as it is.
    known: Option<Oid>,
    /// What git tracks at the path.
    there: There,
}

enum There {
    Nothing,
    /// These bytes, of the base.
    Bytes(Source),
    /// A blob that an earlier commit wrote.
    Blob(Oid),
}

impl There {
    fn has_crlf(&self, path: &SessionPath, tracked: Option<&Tracked>) -> Result<bool> {
        match (self, tracked) {
            (Self::Bytes(source), _) => source.has_crlf(),
            (Self::Blob(oid), Some(tracked)) => {
                tracked.with_blob(oid, has_crlf)?.ok_or_else(|| too_large_to_compare(path))
            }
            _ => Ok(false),
        }
    }
}

impl Put {
    fn entry(self, path: &SessionPath, tracked: Option<&Tracked>) -> Result<EditEntry> {
        let Pending { executable, source, how, known, there } = match self {
            Self::Entry(entry) => return Ok(entry),
            Self::File(file) => *file,
        };
        let converted = convert(&source, &how, path, &mut || there.has_crlf(path, tracked))?;
        let as_it_is = || known.map_or_else(|| source.stream(), EditContent::Known);
        Ok(EditEntry::File { executable, content: converted.unwrap_or_else(as_it_is) })
    }
}

struct Edits<'a> {
    base: &'a Tree,
    new: &'a Tree,
    blobs: &'a Arc<BlobStore>,
    before: Option<Before>,
    staged: Staged,
    /// Directories with repositories of their own, and what is checked out there.
    links: HashMap<Ino, Oid>,
    heads: Heads,
    ignores: Ignores<'a>,
    attributes: Attributes<'a>,
    /// The last word on each path.
    out: BTreeMap<SessionPath, Option<Put>>,
    /// Of files that are to be written.
    bytes: u64,
    stop: &'a Arc<AtomicBool>,
}

impl Edits<'_> {
    fn removal(&mut self, change: &PathChange) {
        let gone = match &change.kind {
            ChangeKind::Deleted => &change.path,
            ChangeKind::Renamed { from, .. } => from,
            // A path can change its type: what was there goes.
            ChangeKind::Modified => &change.path,
            ChangeKind::Added | ChangeKind::Mode => return,
        };
        if !is_git(gone) {
            self.out.insert(gone.clone(), None);
        }
    }

    /// A server that stops does not wait for the planning of a large commit.
    fn check_stop(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::new(Reason::Unavailable, "the server stops")),
            false => Ok(()),
        }
    }

    fn addition(&mut self, change: &PathChange) -> Result<()> {
        if change.kind == ChangeKind::Deleted || is_git(&change.path) || self.is_in_submodule(&change.path)? {
            return Ok(());
        }
        let Some(ino) = self.new.walk(&change.path) else { return Ok(()) };
        let whole = matches!(change.kind, ChangeKind::Renamed { .. });
        let mut todo = vec![(ino, change.path.clone())];
        while let Some((ino, path)) = todo.pop() {
            let Some(attr) = self.new.attr(ino) else { continue };
            let is_gitlink = self.gitlink(ino, &path)?.is_some();
            if attr.is_dir() && !is_gitlink {
                // Children of an added directory are changes of their own; those of a moved one are not.
                if whole {
                    self.new.readdir(ino, FIRST_COOKIE, &mut |item| {
                        let child = Name::new(item.name).ok().filter(|n| n.as_bytes() != GIT);
                        todo.extend(child.map(|n| (item.ino, path.join(n))));
                        true
                    });
                }
                continue;
            }
            self.put_unless_ignored(ino, path)?;
        }
        Ok(())
    }

    fn put_unless_ignored(&mut self, ino: Ino, path: SessionPath) -> Result<()> {
        if self.is_left_out(ino, &path)? {
            // The base's entry, if there is one, does not stay for it.
            if self.base.walk(&path).is_some() {
                self.out.entry(path).or_insert(None);
            }
        } else if let Some(entry) = self.entry(ino, &path)? {
            self.out.insert(path, Some(entry));
        }
        Ok(())
    }

    /// Whether git would pass over what is not tracked: ignored, or the directory of a submodule in which nothing is checked out.
    fn is_left_out(&mut self, ino: Ino, path: &SessionPath) -> Result<bool> {
        if self.is_tracked(path)? {
            return Ok(false);
        }
        let is_link = self.gitlink(ino, path)?.is_some();
        Ok((is_link && !self.links.contains_key(&ino)) || self.ignores.is_ignored(path, is_link)?)
    }

    /// Notes the repositories in the tree, and tells where they are. No base has one, so each is among the changes from it, and what is checked out in it is asked of it
    /// each time.
    fn find_links(&mut self, changes: &[PathChange]) -> Result<Vec<(SessionPath, Ino)>> {
        let mut found = Vec::new();
        let changes = changes.iter().filter(|change| change.kind != ChangeKind::Deleted);
        let dirs = changes.filter_map(|change| match change.path.split_last() {
            Some((above, name)) if name.as_bytes() == GIT && !above.is_empty() => {
                Some(SessionPath::from(above.to_vec()))
            }
            _ => change.new.as_ref().filter(|attr| attr.is_dir()).map(|_| change.path.clone()),
        });
        let staged: Vec<SessionPath> = self.staged.links().cloned().collect();
        for path in dirs.chain(staged).filter(|path| !is_git(path)) {
            self.check_stop()?;
            let ino = self.new.walk(&path).filter(|ino| !self.links.contains_key(ino));
            let is_dir = |ino: &Ino| self.new.attr(*ino).is_some_and(|attr| attr.is_dir());
            let Some(ino) = ino.filter(is_dir) else { continue };
            let was = self.link_before(&path)?;
            if was.is_none() && self.has_tracked_below(&path)? {
                continue;
            }
            // A submodule that is not checked out, or not as we can tell, is what it was.
            if let Some(oid) = self.heads.of(self.new, self.blobs, &path)?.or(was) {
                self.links.insert(ino, oid);
                found.push((path, ino));
            }
        }
        Ok(found)
    }

    fn put_links(&mut self, links: Vec<(SessionPath, Ino)>) -> Result<()> {
        for (path, ino) in links {
            if !self.is_in_submodule(&path)? {
                self.put_unless_ignored(ino, path)?;
            }
        }
        Ok(())
    }

    /// The submodule that is tracked at a path.
    fn link_before(&mut self, path: &SessionPath) -> Result<Option<Oid>> {
        if self.staged.says(path).is_some_and(|says| !says || self.staged.link(path).is_some()) {
            return Ok(self.staged.link(path));
        }
        if let Some(before) = &mut self.before {
            return before.tracked.gitlink_at(&names(path));
        }
        let entry = self.base.walk(path).and_then(|ino| self.base.base().entry(ino));
        Ok(entry.filter(|entry| entry.kind == NodeKind::Gitlink).and_then(|entry| entry.git_oid))
    }

    /// Whether git goes into a directory, whatever else is in it, for what it tracks there.
    fn has_tracked_below(&mut self, path: &SessionPath) -> Result<bool> {
        if let Some(before) = &mut self.before {
            return before.tracked.holds_below(&names(path));
        }
        let dir = self.base.walk(path).filter(|ino| self.base.attr(*ino).is_some_and(|attr| attr.is_dir()));
        Ok(dir.is_some_and(|dir| !self.base.is_empty_dir(dir)))
    }

    /// What git took out of its index is as any file that it does not know, also if it did not change.
    fn put_taken(&mut self) -> Result<()> {
        let taken: Vec<SessionPath> = self.staged.taken().cloned().collect();
        for path in taken {
            let ino = self.new.walk(&path).filter(|_| !is_git(&path) && !self.out.contains_key(&path));
            let Some(ino) = ino else { continue };
            if self.is_in_submodule(&path)? {
                continue;
            }
            if self.is_bare_dir(ino, &path)? || self.is_left_out(ino, &path)? {
                self.out.insert(path, None);
            }
        }
        Ok(())
    }

    /// A submodule that is none any more: its entry goes, and what is below it are files like any other.
    fn is_bare_dir(&mut self, ino: Ino, path: &SessionPath) -> Result<bool> {
        let is_dir = self.new.attr(ino).is_some_and(|attr| attr.is_dir());
        Ok(is_dir && self.gitlink(ino, path)?.is_none())
    }

    /// What git tracks stays tracked when a rule to ignore it comes later.
    fn is_tracked(&mut self, path: &SessionPath) -> Result<bool> {
        if let Some(says) = self.staged.says(path) {
            return Ok(says);
        }
        if let Some(before) = &mut self.before {
            return before.tracked.holds(&names(path));
        }
        let Some(ino) = self.base.walk(path) else { return Ok(false) };
        Ok(self.gitlink(ino, path)?.is_some() || self.base.attr(ino).is_some_and(|a| !a.is_dir()))
    }

    /// What the base has, the commit before has not, or otherwise, and is there again just as it was in the base: no change since the base tells of
    /// it, and it is as new, or changed, as any other file.
    fn came_back(&mut self, base_commit: &str) -> Result<()> {
        let Some(before) = &self.before else { return Ok(()) };
        let mut back = Vec::new();
        before.tracked.each_other(base_commit, &mut |names| {
            let names: Result<Vec<Name>> = names.iter().map(|n| Name::new(n)).collect();
            let path = names.ok().map(SessionPath::from);
            let path = path.filter(|p| !self.out.contains_key(p));
            back.extend(path.and_then(|path| Some((self.new.walk(&path)?, path))));
        })?;
        for (ino, path) in back {
            if self.is_in_submodule(&path)? {
                continue;
            }
            // A submodule that is not checked out any more is what it was last.
            let link = self.gitlink(ino, &path)?.and(self.link_before(&path)?);
            if let Some(oid) = link {
                self.out.insert(path, Some(Put::Entry(EditEntry::Gitlink(oid))));
            } else if self.is_bare_dir(ino, &path)? || self.is_left_out(ino, &path)? {
                self.out.insert(path, None);
            } else if let Some(put) = self.entry(ino, &path)? {
                self.out.insert(path, Some(put));
            }
        }
        Ok(())
    }

    /// What is checked out in a submodule belongs to its own repository.
    fn is_in_submodule(&mut self, path: &SessionPath) -> Result<bool> {
        let (mut at, names) = (ROOT_INO, path.names());
        for (n, name) in names[..names.len().saturating_sub(1)].iter().enumerate() {
            at = self.new.lookup(at, name.as_bytes()).unwrap_or(0);
            if self.may_be_link(at) && self.gitlink(at, &SessionPath::from(names[..=n].to_vec()))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Most directories are not: whose path is not asked for.
    fn may_be_link(&self, ino: Ino) -> bool {
        let of_base = || self.new.base().entry(ino).is_some_and(|entry| entry.kind == NodeKind::Gitlink);
        self.links.contains_key(&ino) || of_base()
    }

    /// The commit that is checked out in a submodule. One of the base that the commit before has no more is a directory like any other.
    fn gitlink(&mut self, ino: Ino, path: &SessionPath) -> Result<Option<Oid>> {
        if let Some(oid) = self.links.get(&ino) {
            return Ok(Some(*oid));
        }
        if !self.may_be_link(ino) || self.link_before(path)?.is_none() {
            return Ok(None);
        }
        Ok(self.new.base().entry(ino).and_then(|entry| entry.git_oid))
    }

    /// What git keeps of an inode: files, links and submodules; nothing of fifos and devices.
    fn entry(&mut self, ino: Ino, path: &SessionPath) -> Result<Option<Put>> {
        if let Some(oid) = self.gitlink(ino, path)? {
            return Ok(Some(Put::Entry(EditEntry::Gitlink(oid))));
        }
        let attr = self.new.attr(ino).ok_or(Reason::Stale)?;
        let (content, size) = self.new.content(ino).ok_or(Reason::Stale)?;
        if attr.is_symlink() {
            let target = read_content(self.blobs, &content, size, 0, limits::MAX_SYMLINK_BYTES)?;
            return Ok(Some(Put::Entry(EditEntry::Symlink(target.to_vec()))));
        }
        if !attr.is_file() {
            return Ok(None);
        }
        let executable = attr.mode & 0o100 != 0;
        let file = |content| Ok(Some(Put::Entry(EditEntry::File { executable, content })));
        if let Some(oid) = self.unchanged(ino, path)? {
            return file(EditContent::Known(oid));
        }
        let how = self.attributes.of(path)?;
        let known = (attr.version == 0).then(|| self.new.base().entry(ino).and_then(|e| e.git_oid)).flatten();
        if let Some(oid) = known.filter(|_| how.is_none()) {
            return file(EditContent::Known(oid));
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > limits::MAX_COMMIT_BYTES {
            return Err(too_large(path));
        }
        let source = self.source(content, size);
        if how.is_none() {
            return file(source.stream());
        }
        let there = if how.line_ends == LineEnds::Auto { self.there(path)? } else { There::Nothing };
        Ok(Some(Put::File(Box::new(Pending { executable, source, how, known, there }))))
    }

    /// What the commit before has for a file that is as it was then.
    fn unchanged(&mut self, ino: Ino, path: &SessionPath) -> Result<Option<Oid>> {
        let Some(Before { tracked, tree: Some(then) }) = &mut self.before else { return Ok(None) };
        if then.walk(path) != Some(ino) || !is_same(then, self.new, ino) {
            return Ok(None);
        }
        tracked.blob_at(&names(path))
    }

    /// What git tracks at a path.
    fn there(&mut self, path: &SessionPath) -> Result<There> {
        let base = self.base.walk(path);
        let of_base = base.and_then(|ino| self.new.base().entry(ino)).and_then(|entry| entry.git_oid);
        if let Some(before) = &mut self.before {
            match before.tracked.blob_at(&names(path))? {
                None => return Ok(There::Nothing),
                Some(oid) if Some(oid) != of_base => return Ok(There::Blob(oid)),
                Some(_) => {}
            }
        }
        let Some(ino) = base.filter(|ino| self.base.attr(*ino).is_some_and(|a| a.is_file())) else {
            return Ok(There::Nothing);
        };
        let (content, size) = self.base.content(ino).ok_or(Reason::Stale)?;
        Ok(There::Bytes(self.source(content, size)))
    }

    fn source(&self, content: Content, size: u64) -> Source {
        Source { blobs: self.blobs.clone(), content, size, stop: self.stop.clone() }
    }
}

fn too_large(path: &SessionPath) -> Error {
    let limit = limits::MAX_COMMIT_BYTES;
    let message = format!("{path}: with it, the files to commit have more than {limit} bytes");
    Error::new(Reason::FileTooLarge, message)
        .with("path", path.to_text())
        .with("limit", limit.to_string())
        .next("leave it out with a `.gitignore`, or make it smaller")
}

fn too_large_to_compare(path: &SessionPath) -> Error {
    let limit = limits::MAX_TEXT_FILE_BYTES;
    let message = format!(
        "{path}: with `text=auto`, its ends of lines depend on those of what is tracked, which has more than {limit} bytes"
    );
    Error::new(Reason::FileTooLarge, message)
        .with("path", path.to_text())
        .with("limit", limit.to_string())
        .next("set `text` or `-text` for it in .gitattributes")
}

const GIT: &[u8] = b".git";

/// A repository's own files, also of one that lies in the session: git has no way to keep them.
pub(super) fn is_git(path: &SessionPath) -> bool {
    path.names().iter().any(|n| n.as_bytes() == GIT)
}

fn names(path: &SessionPath) -> Vec<&[u8]> {
    path.names().iter().map(Name::as_bytes).collect()
}

fn parts(path: &SessionPath) -> Vec<Vec<u8>> {
    path.names().iter().map(|n| n.as_bytes().to_vec()).collect()
}
