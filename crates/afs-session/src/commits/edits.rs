//! What a commit has that its base has not, as edits of the base's tree.
//!
//! The edits are of the base, what is tracked is what the commit before tracks (the base, if there is none): a file of the base that an earlier commit
//! of the session no longer has is as new as any other when it is there again, and stays out when a rule ignores it.
//!
//! A file that is what it was at the commit before keeps the object that this one has for it, and a file of the base that nobody touched the base's:
//! as with git, whose index knows that they are unchanged, attributes that say something else by now do not matter to them. What else is to be
//! written is converted as the attributes say.
//!
//! Guarantees: those of the parent module about what is tracked and how it is converted. Contents are read when the edit that has them is
//! asked for, one after the other. Deliberately absent: writing git objects (`afs_base` does).

use super::convert::{Source, convert, has_crlf};
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
use std::collections::BTreeMap;
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
    let (out, bytes) = (BTreeMap::new(), 0);
    let mut edits = Edits { base, new, blobs, before, ignores, attributes, out, bytes, stop };
    let changes = diff(base, new);
    // Removals first, so that what is put at the same path has the last word.
    for change in &changes {
        edits.removal(change);
    }
    for change in &changes {
        edits.check_stop()?;
        edits.addition(change)?;
    }
    edits.came_back(base_commit)?;
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
        if change.kind == ChangeKind::Deleted || is_git(&change.path) || self.is_in_submodule(&change.path) {
            return Ok(());
        }
        let Some(ino) = self.new.walk(&change.path) else { return Ok(()) };
        let whole = matches!(change.kind, ChangeKind::Renamed { .. });
        let mut todo = vec![(ino, change.path.clone())];
        while let Some((ino, path)) = todo.pop() {
            let Some(attr) = self.new.attr(ino) else { continue };
            let is_gitlink = self.gitlink(ino).is_some();
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
            if !self.is_tracked(&path)? && self.ignores.is_ignored(&path, is_gitlink)? {
                // The base's entry, if there is one, does not stay for it.
                if self.base.walk(&path).is_some() {
                    self.out.entry(path).or_insert(None);
                }
                continue;
            }
            if let Some(entry) = self.entry(ino, &path)? {
                self.out.insert(path, Some(entry));
            }
        }
        Ok(())
    }

    /// What git tracks stays tracked when a rule to ignore it comes later.
    fn is_tracked(&mut self, path: &SessionPath) -> Result<bool> {
        if let Some(before) = &mut self.before {
            return before.tracked.holds(&names(path));
        }
        let Some(ino) = self.base.walk(path) else { return Ok(false) };
        Ok(self.gitlink(ino).is_some() || self.base.attr(ino).is_some_and(|a| !a.is_dir()))
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
            if !self.is_tracked(&path)? && self.ignores.is_ignored(&path, self.gitlink(ino).is_some())? {
                self.out.insert(path, None);
            } else if let Some(put) = self.entry(ino, &path)? {
                self.out.insert(path, Some(put));
            }
        }
        Ok(())
    }

    /// What is checked out in a submodule belongs to its own repository.
    fn is_in_submodule(&self, path: &SessionPath) -> bool {
        let (mut at, names) = (ROOT_INO, path.names());
        names[..names.len().saturating_sub(1)].iter().any(|name| {
            at = self.new.lookup(at, name.as_bytes()).unwrap_or(0);
            self.gitlink(at).is_some()
        })
    }

    fn gitlink(&self, ino: Ino) -> Option<[u8; 20]> {
        let entry = self.new.base().entry(ino)?;
        (entry.kind == NodeKind::Gitlink).then_some(entry.git_oid).flatten()
    }

    /// What git keeps of an inode: files, links and submodules; nothing of fifos and devices.
    fn entry(&mut self, ino: Ino, path: &SessionPath) -> Result<Option<Put>> {
        if let Some(oid) = self.gitlink(ino) {
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
