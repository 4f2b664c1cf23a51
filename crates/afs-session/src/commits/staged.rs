//! What git did to the session's own index since the commit before: which paths it put there, and which it took out.
//!
//! A commit here does not write the session's index, so what stands in there says little by itself; but what differs from the index as it was at the
//! commit before (of the base, for the first) is what somebody staged or took out with git since, and that counts as it does for `git add -A`:
//! what was staged is tracked though a rule ignores it, also if it is only meant to be added; what was taken out is not tracked.
//!
//! Guarantees: an index that nobody touched costs nothing. Both are read entry by entry, so memory is taken only by paths that
//! differ and are there. An index that cannot be gone by (see `afs_base::IndexReader`) says nothing; the log tells why.
//! Deliberately absent: what is staged of a file, as what is in the tree counts; bits like `skip-worktree`.

use super::convert::Source;
use afs_base::{IndexFault, IndexReader, Oid};
use afs_core::diff::is_same;
use afs_core::tree::Tree;
use afs_store::BlobStore;
use afs_types::{Error, Ino, Reason, Result, SessionPath};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};

const INDEX: &[u8] = b"/.git/index";

/// The paths that are there, and that git staged or took out.
#[derive(Default)]
pub(super) struct Staged {
    /// With the commit if it is a submodule.
    put: BTreeMap<SessionPath, Option<Oid>>,
    taken: BTreeSet<SessionPath>,
}

impl Staged {
    /// What differs from one of `befores`, the first that can be gone by, to `now`; nothing if the index is that of the first.
    pub(super) fn between(
        befores: &[&Tree],
        now: &Tree,
        blobs: &Arc<BlobStore>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let path = SessionPath::parse(INDEX)?;
        let is_index = now.walk(&path);
        let mut fault = None;
        for before in befores {
            let was = before.walk(&path);
            if was == is_index && is_index.is_none_or(|ino| is_same(before, now, ino)) {
                return Ok(Self::default());
            }
            let open = |tree, ino| open(tree, ino, blobs, stop);
            match open(*before, was).and_then(|was| Self::compare(was, open(now, is_index)?, now, stop)) {
                Ok(staged) => return Ok(staged),
                Err(IndexFault::Failed(error)) => return Err(error),
                Err(IndexFault::Unusable(why)) => fault = Some(why),
            }
        }
        if let Some(why) = fault {
            tracing::warn!(why, "a commit does not look at the git index of its session, but at rules alone");
        }
        Ok(Self::default())
    }

    /// Whether git has the last word on a path: true if it was staged, false if it was taken out.
    pub(super) fn says(&self, path: &SessionPath) -> Option<bool> {
        match (self.put.contains_key(path), self.taken.contains(path)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    /// The commit of a submodule that was staged.
    pub(super) fn link(&self, path: &SessionPath) -> Option<Oid> {
        self.put.get(path).copied().flatten()
    }

    /// Submodules that were staged.
    pub(super) fn links(&self) -> impl Iterator<Item = &SessionPath> {
        self.put.iter().filter(|(_, link)| link.is_some()).map(|(path, _)| path)
    }

    /// What was taken out and is there.
    pub(super) fn taken(&self) -> impl Iterator<Item = &SessionPath> {
        self.taken.iter()
    }

    /// Goes through both side by side, which have the same order.
    fn compare(
        was: IndexReader<impl Read>,
        is: IndexReader<impl Read>,
        now: &Tree,
        stop: &AtomicBool,
    ) -> Result<Self, IndexFault> {
        let (mut was, mut is) = (Walk { reader: was, at: None }, Walk { reader: is, at: None });
        was.step()?;
        is.step()?;
        let (mut put, mut taken) = (BTreeMap::new(), BTreeSet::new());
        loop {
            if stop.load(atomic::Ordering::Relaxed) {
                return Err(IndexFault::Failed(Error::new(Reason::Unavailable, "the server stops")));
            }
            let order = match (&was.at, &is.at) {
                (None, None) => return Ok(Self { put, taken }),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((was, ..)), Some((is, ..))) => was.cmp(is),
            };
            match order {
                Ordering::Less => taken.extend(was.path_in(now)),
                Ordering::Greater => put.extend(is.path_in(now).map(|path| (path, is.link()))),
                Ordering::Equal if was.oid() != is.oid() => {
                    put.extend(is.path_in(now).map(|path| (path, is.link())))
                }
                Ordering::Equal => {}
            }
            if order.is_le() {
                was.step()?;
            }
            if order.is_ge() {
                is.step()?;
            }
        }
    }
}

/// An index that is gone through path by path.
struct Walk<R> {
    reader: IndexReader<R>,
    /// Path, object, and whether that is a submodule's commit. Of a path with several stages, the first.
    at: Option<(Vec<u8>, Oid, bool)>,
}

impl<R: Read> Walk<R> {
    fn step(&mut self) -> Result<(), IndexFault> {
        let before = self.at.take();
        while self.reader.advance()? {
            if before.as_ref().is_none_or(|(path, ..)| path != self.reader.path()) {
                let reader = &self.reader;
                self.at = Some((reader.path().to_vec(), *reader.oid(), reader.is_gitlink()));
                return Ok(());
            }
        }
        Ok(())
    }

    fn oid(&self) -> Option<&Oid> {
        self.at.as_ref().map(|(_, oid, _)| oid)
    }

    fn link(&self) -> Option<Oid> {
        self.at.as_ref().filter(|(.., is_gitlink)| *is_gitlink).map(|(_, oid, _)| *oid)
    }

    /// The path if it is in a tree; git may hold names that no session has.
    fn path_in(&self, tree: &Tree) -> Option<SessionPath> {
        let (path, ..) = self.at.as_ref()?;
        SessionPath::parse(path).ok().filter(|path| tree.walk(path).is_some())
    }
}

fn open(
    tree: &Tree,
    ino: Option<Ino>,
    blobs: &Arc<BlobStore>,
    stop: &Arc<AtomicBool>,
) -> Result<IndexReader<impl Read>, IndexFault> {
    let file = ino.filter(|ino| tree.attr(*ino).is_some_and(|attr| attr.is_file()));
    let content = file.and_then(|ino| tree.content(ino));
    let (content, size) = content.ok_or(IndexFault::Unusable("there is no file `.git/index`"))?;
    IndexReader::open(Source { blobs: blobs.clone(), content, size, stop: stop.clone() }.open(), size)
}
