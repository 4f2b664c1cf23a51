//! What a change by path must know that is not in the tree: targets of links, texts to edit.
//!
//! Under a session's lock nothing is read from disk: a fact that is not there yet is noted as missing, the transaction
//! is given up, the change runs once on a copy without lock, where it reads what it needs, and is tried again. Facts are
//! kept by the identity of the content they came from (blobs and places in the data log never change), so one that is
//! there is right whatever happened in between. Contents are in memory one at a time, in room that is waited for before they are read
//! and that holds all that is made of them, and are not kept; but for what a dry run would have stored. However many contents there are,
//! all waiting for room ends at one moment.

use super::resolve::Links;
use crate::content::read_content;
use crate::memory::{Memory, Room, Until, Waits};
use crate::shared::Shared;
use afs_core::extent::Content;
use afs_core::tree::Tree;
use afs_store::BlobStore;
use afs_types::{BlobId, Error, Ino, Reason, Result, limits};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// Facts gathered so far.
pub(super) struct Facts<'a> {
    blobs: &'a BlobStore,
    memory: &'a Memory,
    /// When its waiting for room ends.
    until: Until,
    /// Whether disk may be read now.
    may_read: bool,
    /// Whether new content is stored.
    keep: bool,
    /// Whether new content that is not stored is kept here, for later steps of the same dry run.
    is_read_again: bool,
    missing: bool,
    targets: HashMap<BlobId, Arc<[u8]>>,
    /// One for each key: an older content does not come back.
    rewrites: HashMap<usize, Known>,
    scratch: HashMap<BlobId, Bytes>,
    scratch_bytes: usize,
    scratch_room: Room<'a>,
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
    pub(super) fn free(shared: &'a Shared) -> Self {
        Self {
            blobs: &shared.ports.blobs,
            memory: &shared.memory,
            until: shared.memory.until(),
            may_read: true,
            keep: true,
            is_read_again: true,
            missing: false,
            targets: HashMap::new(),
            rewrites: HashMap::new(),
            scratch: HashMap::new(),
            scratch_bytes: 0,
            scratch_room: shared.memory.kept(),
        }
    }

    /// Facts of a change that will not be made: nothing new is stored.
    pub(super) fn dry(shared: &'a Shared) -> Self {
        Self { keep: false, ..Self::free(shared) }
    }

    /// The same for a dry run of one step, after which nobody reads what it made.
    pub(super) fn dry_once(shared: &'a Shared) -> Self {
        Self { is_read_again: false, ..Self::dry(shared) }
    }

    /// The same for a call that waited for room before.
    pub(super) fn until(self, until: Until) -> Self {
        Self { until, ..self }
    }

    pub(super) fn allow_reading(&mut self, yes: bool) {
        self.may_read = yes;
    }

    /// Whether something was missing since the last call.
    pub(super) fn take_missing(&mut self) -> bool {
        std::mem::take(&mut self.missing)
    }

    /// Stores new content.
    fn store(&mut self, bytes: Bytes) -> Result<Content> {
        if bytes.is_empty() {
            return Ok(Content::Empty);
        }
        let len = bytes.len() as u64;
        if self.keep {
            return Ok(Content::Blob(self.blobs.put(&bytes)?, len));
        }
        if !self.is_read_again {
            return Ok(Content::Blob(self.blobs.hash(&bytes), len));
        }
        self.scratch_bytes += bytes.len();
        if self.scratch_bytes > limits::MAX_DRY_RUN_BYTES {
            let message = format!("a dry run writes at most {} bytes", limits::MAX_DRY_RUN_BYTES);
            return Err(Error::new(Reason::MessageTooLarge, message)
                .with("limit", limits::MAX_DRY_RUN_BYTES.to_string())
                .next("try fewer changes at once, or make them in a fork"));
        }
        self.scratch_room.grow(bytes.len())?;
        let id = self.blobs.hash(&bytes);
        self.scratch.insert(id, bytes);
        Ok(Content::Blob(id, len))
    }

    /// The rewrite `key` of a content: made once by `make` from its bytes, then known. `need` is the memory that this takes, the bytes
    /// included; `make` can ask for more.
    pub(super) fn rewrite(
        &mut self,
        key: usize,
        (from, size): (&Content, u64),
        need: usize,
        make: impl FnOnce(&[u8], &mut Room<'_>) -> Result<(Bytes, Note)>,
    ) -> Result<Arc<Rewrite>> {
        if let Some(known) = self.rewrites.get(&key).filter(|k| k.size == size && same(&k.from, from)) {
            return Ok(known.rewrite.clone());
        }
        self.need()?;
        check_size(size)?;
        let mut room = self.memory.take(need, Waits::OnCallThread, self.until)?;
        let old = self.bytes(from, size)?;
        let (new, note) = make(&old, &mut room)?;
        drop(old);
        let size_after = new.len() as u64;
        let rewrite = Arc::new(Rewrite { content: self.store(new)?, size: size_after, note });
        self.rewrites.insert(key, Known { from: from.clone(), size, rewrite: rewrite.clone() });
        Ok(rewrite)
    }

    fn bytes(&self, content: &Content, size: u64) -> Result<Bytes> {
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

fn check_size(size: u64) -> Result<()> {
    let most = limits::MAX_TEXT_FILE_BYTES;
    if size <= most {
        return Ok(());
    }
    let message = format!("the file has {size} bytes, text operations take {most}");
    Err(Error::new(Reason::FileTooLarge, message).with("limit", most.to_string()))
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
