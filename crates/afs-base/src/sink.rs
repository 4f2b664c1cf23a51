//! Blobs on their way into the store, from one thread of an import.

use afs_store::{BlobStore, PackWriter};
use afs_types::{BlobId, Result};
use std::fs::File;
use std::sync::Arc;

/// Puts blobs; one per thread. What has no bytes has no blob.
pub(crate) struct Sink {
    writer: PackWriter,
}

impl Sink {
    pub(crate) fn new(store: &Arc<BlobStore>) -> Result<Self> {
        Ok(Self { writer: store.pack_writer()? })
    }

    /// Stores bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<Option<BlobId>> {
        if bytes.is_empty() { Ok(None) } else { self.writer.put(bytes).map(Some) }
    }

    /// Stores the first `len` bytes of a file.
    pub(crate) fn put_file(&mut self, file: &File, len: u64) -> Result<Option<BlobId>> {
        if len == 0 { Ok(None) } else { self.writer.put_file(file, len).map(Some) }
    }

    /// Blobs may be named in a batch only after this.
    pub(crate) fn finish(self) -> Result<()> {
        self.writer.finish()
    }
}
