//! Repositories inside of a session, submodules among them: which commit is checked out in one.
//!
//! Guarantees: what git finds in a work tree, from the session's tree alone: a `.git` directory, or a file that names one by a relative path that stays in
//! the session; its `HEAD`; a loose or a packed reference. Everything that is read has a bound, no symbolic link is followed, no program runs.
//! Whatever is odd is no repository: one that names its directory absolutely, as `git worktree` does, one with references in another
//! form (reftable), with names of objects other than SHA-1, or without a commit. Deliberately absent: whether the commit exists; git does not ask either.

use crate::content::read_content;
use afs_base::{Oid, parse_hex};
use afs_core::tree::Tree;
use afs_store::BlobStore;
use afs_types::{Error, Ino, Name, Reason, Result, SessionPath, limits};
use bytes::Bytes;
use std::collections::HashMap;

/// Largest file with one reference, or with the path of a repository: as many bytes as a path, and a few words.
const MAX_POINTER_BYTES: usize = limits::MAX_PATH_BYTES + 64;
/// Largest file of packed references.
const MAX_PACKED_REFS_BYTES: usize = 16 << 20;
/// References that name references, one after the other: as many as git follows.
const MAX_SYMBOLIC: usize = 5;

/// What is checked out in the repositories of one tree. Each is looked at once, however many directories name it, and all together read no more than
/// [`limits::MAX_PACKED_REFS_BYTES`] of packed references.
#[derive(Default)]
pub(super) struct Heads {
    known: HashMap<Ino, Option<Oid>>,
    packed_bytes: u64,
}

impl Heads {
    /// The commit that is checked out in the repository whose work tree is the directory at `path`; none if that is no repository, or has none.
    pub(super) fn of(&mut self, tree: &Tree, blobs: &BlobStore, path: &SessionPath) -> Result<Option<Oid>> {
        let repository = Repository { tree, blobs };
        let Some(dir) = repository.git_dir(path)? else { return Ok(None) };
        if let Some(head) = self.known.get(&dir) {
            return Ok(*head);
        }
        let packed = tree.lookup(dir, b"packed-refs").and_then(|ino| tree.attr(ino));
        self.packed_bytes = self.packed_bytes.saturating_add(packed.map_or(0, |attr| attr.size));
        if self.packed_bytes > limits::MAX_PACKED_REFS_BYTES {
            return Err(too_many_refs(path));
        }
        let head = repository.resolve(dir, b"HEAD")?;
        self.known.insert(dir, head);
        Ok(head)
    }
}

fn too_many_refs(path: &SessionPath) -> Error {
    let most = limits::MAX_PACKED_REFS_BYTES;
    let message =
        format!("{path}: with this repository, packed references in the session have more than {most} bytes");
    Error::new(Reason::FileTooLarge, message)
        .with("path", path.to_text())
        .with("limit", most.to_string())
        .next("remove repositories inside of the session that are not to be submodules")
}

struct Repository<'a> {
    tree: &'a Tree,
    blobs: &'a BlobStore,
}

impl Repository<'_> {
    fn git_dir(&self, path: &SessionPath) -> Result<Option<Ino>> {
        let Some(ino) = self.tree.walk(path).and_then(|dir| self.tree.lookup(dir, b".git")) else {
            return Ok(None);
        };
        let dir = match self.is_dir(ino) {
            true => Some(ino),
            false => self.named_by(ino, path)?,
        };
        let has = |dir: Ino, name: &[u8]| self.tree.lookup(dir, name).is_some_and(|ino| self.is_dir(ino));
        Ok(dir.filter(|dir| {
            // With `commondir` it is one of several work trees, and its references are elsewhere.
            self.is_dir(*dir)
                && has(*dir, b"objects")
                && has(*dir, b"refs")
                && self.tree.lookup(*dir, b"commondir").is_none()
        }))
    }

    fn is_dir(&self, ino: Ino) -> bool {
        self.tree.attr(ino).is_some_and(|attr| attr.is_dir())
    }

    /// What a file `.git` in the directory at `path` leads to.
    fn named_by(&self, file: Ino, path: &SessionPath) -> Result<Option<Ino>> {
        let Some(bytes) = self.read(file, MAX_POINTER_BYTES)? else { return Ok(None) };
        let target = bytes.strip_prefix(b"gitdir: ").map(|rest| {
            let end = rest.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1);
            &rest[..end]
        });
        let Some(target) = target.filter(|target| !target.is_empty() && !target.starts_with(b"/")) else {
            return Ok(None);
        };
        let mut names = path.names().to_vec();
        for part in target.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." if names.pop().is_some() => {}
                part => match Name::new(part) {
                    Ok(name) if names.len() < limits::MAX_PATH_DEPTH => names.push(name),
                    // Also `..` at the root of the session.
                    _ => return Ok(None),
                },
            }
        }
        Ok(self.tree.walk(&SessionPath::from(names)))
    }

    fn resolve(&self, dir: Ino, name: &[u8]) -> Result<Option<Oid>> {
        let mut name = name.to_vec();
        for _ in 0..=MAX_SYMBOLIC {
            let parts = name.split(|b| *b == b'/');
            let ino = parts.into_iter().try_fold(dir, |at, part| self.tree.lookup(at, part));
            let text = ino.map(|ino| self.read(ino, MAX_POINTER_BYTES)).transpose()?.flatten();
            let Some(text) = text else { return self.packed(dir, &name) };
            let text = text.trim_ascii_end();
            let Some(next) = text.strip_prefix(b"ref:") else { return Ok(parse_hex(text)) };
            let next = next.trim_ascii_start();
            let is_safe =
                next.starts_with(b"refs/") && next.split(|b| *b == b'/').all(|p| Name::new(p).is_ok());
            if !is_safe {
                return Ok(None);
            }
            name = next.to_vec();
        }
        Ok(None)
    }

    fn packed(&self, dir: Ino, name: &[u8]) -> Result<Option<Oid>> {
        let Some(file) = self.tree.lookup(dir, b"packed-refs") else { return Ok(None) };
        let Some(text) = self.read(file, MAX_PACKED_REFS_BYTES)? else { return Ok(None) };
        let found = text.split(|b| *b == b'\n').find_map(|line| {
            let (oid, rest) = line.split_at_checked(40)?;
            (rest.strip_prefix(b" ")? == name).then(|| parse_hex(oid)).flatten()
        });
        Ok(found)
    }

    /// The bytes of a regular file of at most so many.
    fn read(&self, ino: Ino, most: usize) -> Result<Option<Bytes>> {
        let Some(attr) = self.tree.attr(ino).filter(|attr| attr.is_file()) else { return Ok(None) };
        let len = usize::try_from(attr.size).ok().filter(|len| *len <= most);
        let content = len.and_then(|len| Some((len, self.tree.content(ino)?)));
        content.map(|(len, (content, size))| read_content(self.blobs, &content, size, 0, len)).transpose()
    }
}
