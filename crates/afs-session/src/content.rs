//! Bytes of files: reading through extents, and putting bytes where an operation can name them.
//!
//! Guarantees: reads assemble blobs, data log and holes as the extent map says and never touch a lock of the session;
//! bytes are in the store before the operation that names them is planned. One blob or log run is returned without a copy where the store allows.

use crate::session::Session;
use afs_core::extent::{Content, LogRef, Run, Source};
use afs_core::tree::Tree;
use afs_store::BlobStore;
use afs_types::{Error, Ino, Reason, Result, limits};
use bytes::{Bytes, BytesMut};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

impl Session {
    /// Up to `len` bytes of a regular file at `offset`; fewer at its end.
    pub fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Bytes> {
        let (content, size) = self.with_tree(|t| {
            regular(t, ino)?;
            t.content(ino).ok_or_else(|| Error::from(Reason::Stale))
        })??;
        read_content(&self.shared().ports.blobs, &content, size, offset, len)
    }
}

/// Refuses what has no bytes to read.
pub(crate) fn regular(tree: &Tree, ino: Ino) -> Result<()> {
    let attr = tree.attr(ino).ok_or(Reason::Stale)?;
    match (attr.is_dir(), attr.is_file()) {
        (true, _) => Err(Reason::IsADirectory.into()),
        (_, true) => Ok(()),
        _ => Err(Reason::WrongType.into()),
    }
}

/// Up to `len` bytes of a content of `size` bytes.
pub fn read_content(
    blobs: &BlobStore,
    content: &Content,
    size: u64,
    offset: u64,
    len: usize,
) -> Result<Bytes> {
    if let Content::Inline(bytes) = content {
        let from = (offset as usize).min(bytes.len());
        return Ok(Bytes::copy_from_slice(&bytes[from..bytes.len().min(from + len)]));
    }
    let end = offset.saturating_add(len as u64).min(size);
    let whole = usize::try_from(end.saturating_sub(offset)).map_err(|_| Reason::FileTooLarge)?;
    if whole <= limits::MAX_IO_BYTES
        && let [run] = content.runs(size, offset, whole as u64).as_slice()
    {
        return read_run(blobs, run);
    }
    let mut out = BytesMut::with_capacity(whole);
    // In pieces, so that neither a long run nor a plan of many short ones is in memory beside the bytes.
    while out.len() < whole {
        let piece = (whole - out.len()).min(limits::MAX_IO_BYTES);
        let filled = out.len() + piece;
        for run in content.runs(size, offset + out.len() as u64, piece as u64) {
            out.extend_from_slice(&read_run(blobs, &run)?);
        }
        if out.len() != filled {
            return Err(Error::new(Reason::Corrupt, "the stored bytes of a file end before the file does"));
        }
    }
    Ok(out.freeze())
}

fn read_run(blobs: &BlobStore, run: &Run) -> Result<Bytes> {
    match run.source {
        None => Ok(Bytes::from(vec![0; run.len as usize])),
        Some(Source::Blob(id, offset)) => blobs.read(&id, offset, run.len as usize),
        Some(Source::Log(at)) => {
            let mut out = vec![0; run.len as usize];
            blobs.read_log(afs_store::LogRef { segment: at.segment, offset: at.offset }, &mut out)?;
            Ok(out.into())
        }
    }
}

/// Puts bytes of a write into the data log, in pieces no larger than a request of the mount.
pub(crate) fn append(blobs: &BlobStore, bytes: &[u8]) -> Result<Source> {
    debug_assert!(bytes.len() <= limits::MAX_IO_BYTES, "callers split writes");
    let at = blobs.append(bytes)?;
    Ok(Source::Log(LogRef { segment: at.segment, offset: at.offset }))
}

/// A content, or a range of it, as a stream of exactly its size.
pub(crate) struct ContentReader {
    blobs: Arc<BlobStore>,
    content: Content,
    range: Range<u64>,
}

impl ContentReader {
    pub(crate) fn new(blobs: Arc<BlobStore>, content: Content, size: u64) -> Self {
        Self::of_range(blobs, content, 0..size)
    }
    pub(crate) fn of_range(blobs: Arc<BlobStore>, content: Content, range: Range<u64>) -> Self {
        Self { blobs, content, range }
    }
}

impl Read for ContentReader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let want = out.len().min(limits::MAX_IO_BYTES);
        let Range { start, end } = self.range;
        let bytes =
            read_content(&self.blobs, &self.content, end, start, want).map_err(std::io::Error::other)?;
        out[..bytes.len()].copy_from_slice(&bytes);
        self.range.start += bytes.len() as u64;
        Ok(bytes.len())
    }
}
