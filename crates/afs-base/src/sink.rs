//! Blobs on their way into the store, from one thread of an import.

use afs_store::{BlobStore, PackWriter};
use afs_types::{BlobId, Result, limits};
use std::fs::File;

/// Puts blobs; one per thread.
pub(crate) struct Sink<'a> {
    store: &'a BlobStore,
    writer: PackWriter<'a>,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(store: &'a BlobStore) -> Self {
        Self { store, writer: store.pack_writer() }
    }

    /// Stores bytes; none for no bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<Option<BlobId>> {
        match bytes.len() as u64 {
            0 => Ok(None),
            1..limits::PACK_BLOB_BYTES => self.writer.put(bytes).map(Some),
            _ => self.store.put(bytes).map(Some),
        }
    }

    /// Stores a file of `len` bytes from where it stands.
    pub(crate) fn put_file(&mut self, file: &File, len: u64) -> Result<Option<BlobId>> {
        if len == 0 { Ok(None) } else { self.store.put_file(file, len).map(Some) }
    }

    /// Hands over what is buffered. Blobs are named safely only after it.
    pub(crate) fn finish(self) -> Result<()> {
        self.writer.finish().map(drop)
    }
}
