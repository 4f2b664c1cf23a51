//! What a change by path must know that is not in the tree: targets of links, texts to edit.
//!
//! Under a session's lock nothing is read from disk: a fact that is not there yet is noted as missing, the transaction
//! is given up, the change runs once on a copy without lock, where it reads what it needs, and is tried again. Facts are
//! kept by the identity of the content they came from (blobs and places in the data log never change), so one that is
//! there is right whatever happened in between.

use super::resolve::Links;
use crate::content::read_content;
use afs_core::extent::Content;
use afs_core::tree::Tree;
use afs_store::BlobStore;
use afs_types::{BlobId, Error, Ino, Reason, Result, limits};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes that a dry run may keep instead of storing them.
const MAX_SCRATCH_BYTES: usize = 256 << 20;

/// Facts gathered so far.
pub(super) struct Facts<'a> {
    blobs: &'a BlobStore,
    /// Whether disk may be read now.
    may_read: bool,
    /// Whether new content is stored, or only kept here (a dry run).
    keep: bool,
    missing: bool,
    targets: HashMap<BlobId, Arc<[u8]>>,
    /// One for each key: an older content does not come back.
    rewrites: HashMap<usize, Known>,
    scratch: HashMap<BlobId, Bytes>,
    scratch_bytes: usize,
}

/// The new content of a file, made from its old one.
#[derive(Clone, Debug)]
pub(super) struct Rewrite {
    pub(super) content: Content,
    pub(super) size: u64,
    pub(super) note: Note,
}

/// What else is to be told about a rewrite.
#[derive(Clone, Debug, Default)]
pub(super) struct Note {
    pub(super) replacements: u32,
    pub(super) added: u64,
    pub(super) removed: u64,
    pub(super) diff: String,
}

struct Known {
    from: Content,
    size: u64,
    rewrite: Arc<Rewrite>,
}

impl<'a> Facts<'a> {
    /// Facts that are read when they are asked for.
    pub(super) fn free(blobs: &'a BlobStore) -> Self {
        Self {
            blobs,
            may_read: true,
            keep: true,
            missing: false,
            targets: HashMap::new(),
            rewrites: HashMap::new(),
            scratch: HashMap::new(),
            scratch_bytes: 0,
        }
    }

    /// Facts of a change that will not be made: nothing new is stored.
    pub(super) fn dry(blobs: &'a BlobStore) -> Self {
        Self { keep: false, ..Self::free(blobs) }
    }

    pub(super) fn allow_reading(&mut self, yes: bool) {
        self.may_read = yes;
    }

    /// Whether something was missing since the last call.
    pub(super) fn take_missing(&mut self) -> bool {
        std::mem::take(&mut self.missing)
    }

    /// Stores new content.
    pub(super) fn store(&mut self, bytes: &[u8]) -> Result<Content> {
        if bytes.is_empty() {
            return Ok(Content::Empty);
        }
        let len = bytes.len() as u64;
        if self.keep {
            return Ok(Content::Blob(self.blobs.put(bytes)?, len));
        }
        self.scratch_bytes += bytes.len();
        if self.scratch_bytes > MAX_SCRATCH_BYTES {
            return Err(Error::new(
                Reason::MessageTooLarge,
                format!("a dry run writes at most {MAX_SCRATCH_BYTES} bytes"),
            ));
        }
        let id = self.blobs.hash(bytes);
        self.scratch.insert(id, Bytes::copy_from_slice(bytes));
        Ok(Content::Blob(id, len))
    }

    /// The rewrite `key` of a content: made once by `make` from its bytes, then known.
    pub(super) fn rewrite(
        &mut self,
        key: usize,
        from: &Content,
        size: u64,
        make: impl FnOnce(&[u8]) -> Result<(Vec<u8>, Note)>,
    ) -> Result<Arc<Rewrite>> {
        if let Some(known) = self.rewrites.get(&key).filter(|k| k.size == size && same(&k.from, from)) {
            return Ok(known.rewrite.clone());
        }
        self.need()?;
        let old = self.bytes(from, size)?;
        let (new, note) = make(&old)?;
        let rewrite = Arc::new(Rewrite { content: self.store(&new)?, size: new.len() as u64, note });
        self.rewrites.insert(key, Known { from: from.clone(), size, rewrite: rewrite.clone() });
        Ok(rewrite)
    }

    fn bytes(&self, content: &Content, size: u64) -> Result<Bytes> {
        if size > limits::MAX_TEXT_FILE_BYTES {
            return Err(Error::new(
                Reason::FileTooLarge,
                format!("the file has {size} bytes, text operations take {}", limits::MAX_TEXT_FILE_BYTES),
            ));
        }
        if let Some(bytes) = content.whole_blob(size).and_then(|id| self.scratch.get(&id)) {
            return Ok(bytes.clone());
        }
        read_content(self.blobs, content, size, 0, size as usize)
    }

    /// Disk is about to be read.
    fn need(&mut self) -> Result<()> {
        if self.may_read {
            return Ok(());
        }
        self.missing = true;
        Err(Reason::Internal.into())
    }
}

impl Links for Facts<'_> {
    fn target(&mut self, tree: &Tree, ino: Ino) -> Result<Arc<[u8]>> {
        let (content, size) = tree.content(ino).ok_or(Reason::Stale)?;
        let id = match &content {
            Content::Inline(target) => return Ok(target.clone()),
            Content::Blob(id, _) => *id,
            _ => return Err(Error::new(Reason::Corrupt, format!("symbolic link {ino} has no target"))),
        };
        if let Some(target) = self.targets.get(&id) {
            return Ok(target.clone());
        }
        self.need()?;
        let target: Arc<[u8]> =
            read_content(self.blobs, &content, size, 0, limits::MAX_SYMLINK_BYTES)?[..].into();
        self.targets.insert(id, target.clone());
        Ok(target)
    }
}

/// Whether two contents are the same bytes because they come from the same places.
fn same(a: &Content, b: &Content) -> bool {
    match (a, b) {
        (Content::Empty, Content::Empty) => true,
        (Content::Blob(a, n), Content::Blob(b, m)) => a == b && n == m,
        (Content::Log(a, n), Content::Log(b, m)) => a == b && n == m,
        (Content::Map(a), Content::Map(b)) => a.ptr_eq(b) || a.iter().eq(b.iter()),
        (Content::Inline(a), Content::Inline(b)) => a == b,
        _ => false,
    }
}
