//! Blobs on their way into the store, and how much the store grew by them.

use afs_store::{BlobStore, GitObject, PackWriter};
use afs_types::{BlobId, Result, limits};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The store as one import sees it.
pub(crate) struct Target<'a> {
    store: &'a Arc<BlobStore>,
    pack_bytes: u64,
    /// Large blobs that were not there before, with their lengths.
    large: Mutex<HashMap<BlobId, u64>>,
}

impl<'a> Target<'a> {
    pub(crate) fn new(store: &'a Arc<BlobStore>) -> Self {
        Self { store, pack_bytes: store.usage().pack_bytes, large: Mutex::default() }
    }

    /// A sink for one thread.
    pub(crate) fn sink(&self) -> Result<Sink<'_>> {
        Ok(Sink { target: self, writer: self.store.pack_writer()? })
    }

    /// By how many bytes the store grew. Other imports at the same time count too: it is for people.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let large: u64 = self.large.lock().unwrap_or_else(|e| e.into_inner()).values().sum();
        self.store.usage().pack_bytes.saturating_sub(self.pack_bytes) + large
    }
}

/// Puts blobs; one per thread. What has no bytes has no blob.
pub(crate) struct Sink<'a> {
    target: &'a Target<'a>,
    writer: PackWriter,
}

impl Sink<'_> {
    /// Stores bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<Option<BlobId>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let id = self.writer.put(bytes)?;
        self.note(id, bytes.len() as u64)
    }

    /// Stores bytes of which most sessions never read any.
    pub(crate) fn put_compressed(&mut self, bytes: &[u8]) -> Result<Option<BlobId>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let id = self.writer.put_compressed(bytes)?;
        self.note(id, bytes.len() as u64)
    }

    /// Stores bytes that came out of a zlib stream.
    pub(crate) fn put_deflated(&mut self, bytes: &[u8], zlib: &[u8]) -> Result<Option<BlobId>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let id = self.writer.put_deflated(bytes, zlib)?;
        self.note(id, bytes.len() as u64)
    }

    /// Names an object of a git pack that the store has, without reading it.
    pub(crate) fn put_object(&mut self, object: &GitObject) -> Result<Option<BlobId>> {
        self.writer.put_object(object).map(Some)
    }

    /// Whether the store has a content of an earlier import; if so, it may be named again.
    pub(crate) fn reuse(&mut self, blob: &Option<BlobId>) -> Result<bool> {
        blob.as_ref().map_or(Ok(true), |id| self.writer.reuse(id))
    }

    /// Stores the first `len` bytes of a file. `watch` is told of each piece of a large one, and may stop it.
    pub(crate) fn put_file(
        &mut self,
        file: &File,
        len: u64,
        watch: &dyn Fn(u64) -> Result<()>,
    ) -> Result<Option<BlobId>> {
        if len == 0 {
            return Ok(None);
        }
        let id = self.writer.put_file_watched(file, len, watch)?;
        self.note(id, len)
    }

    /// Stores a file that nobody writes to any more, without copying it where that is possible; returns its length, too.
    pub(crate) fn put_finished(&mut self, path: &Path) -> Result<(Option<BlobId>, u64)> {
        let (id, len) = self.writer.put_finished(path)?;
        let id = if len == 0 { None } else { self.note(id, len)? };
        Ok((id, len))
    }

    /// A large blob that is not in a pack has a file of its own, which appears when it is durable: without one it is new.
    fn note(&self, id: BlobId, len: u64) -> Result<Option<BlobId>> {
        if len >= limits::PACK_BLOB_BYTES
            && self.target.store.stat(&id)?.is_some_and(|stat| stat.raw)
            && self.target.store.raw_file(&id)?.is_none()
        {
            self.target.large.lock().unwrap_or_else(|e| e.into_inner()).insert(id, len);
        }
        Ok(Some(id))
    }

    /// Blobs may be named in a batch only after this.
    pub(crate) fn finish(self) -> Result<()> {
        self.writer.finish()
    }
}
