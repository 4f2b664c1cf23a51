//! Sealing: bytes of files go from the data log into blobs (DESIGN 2.5).
//!
//! Guarantees: no reader can tell the difference: the same bytes, the same holes, the same attributes and revision. A stretch without
//! holes becomes one blob when it is small or mostly new, so that equal files are stored once; in a large file only what is new is
//! sealed, so that a small write into a large file never copies the file. Blobs are in the store before any record names them.
//! Deliberately absent: removing segments of the data log (`segments`).

use crate::content::{ContentReader, read_content};
use crate::session::Sealed;
use afs_core::delta::Delta;
use afs_core::extent::{Content, Piece, Run, Source};
use afs_store::BlobStore;
use afs_types::{Result, limits};
use std::sync::Arc;

/// Seals every content of a delta. Returns what was sealed and how many bytes that took; `stop` is asked before each file. What
/// cannot be sealed stays as it is: the delta is right either way.
pub(crate) fn seal_delta(
    delta: &mut Delta,
    blobs: &Arc<BlobStore>,
    stop: impl Fn() -> bool,
) -> (Vec<Sealed>, u64) {
    let (mut sealed, mut bytes) = (Vec::new(), 0);
    for (ino, inode) in &mut delta.inodes {
        let Some(inode) = inode.as_mut().filter(|i| i.mode != 0 && i.content.is_unsealed()) else { continue };
        if stop() {
            break;
        }
        match seal_content(&inode.content, inode.size, blobs) {
            Ok((content, n)) => {
                inode.content = content.clone();
                sealed.push((*ino, inode.version, content));
                bytes += n;
            }
            Err(error) => tracing::warn!(ino, %error, "seal a file: its bytes stay in the data log"),
        }
    }
    (sealed, bytes)
}

/// The same content with nothing in the data log, and the bytes that were put.
pub(crate) fn seal_content(content: &Content, size: u64, blobs: &Arc<BlobStore>) -> Result<(Content, u64)> {
    let runs = content.runs(size, 0, size);
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    for stretch in runs.chunk_by(|a, b| a.source.is_some() && b.source.is_some()) {
        if stretch[0].source.is_none() {
            continue;
        }
        for part in parts(stretch) {
            let (first, last) = (part[0], part[part.len() - 1]);
            let (start, end) = (first.start, last.start + last.len);
            if !part.iter().any(is_log) {
                pieces.extend(part.iter().filter_map(piece));
                continue;
            }
            let id = put(content, (start, end), blobs)?;
            bytes += end - start;
            if (start, end) == (0, size) {
                return Ok((Content::Blob(id, size), bytes));
            }
            pieces.push((start, Piece { len: end - start, source: Source::Blob(id, 0) }));
        }
    }
    Ok((Content::of_pieces(pieces), bytes))
}

/// How a stretch without holes is cut: as a whole when it is small or at least half of it is new, else runs of new bytes and runs of
/// old ones.
fn parts(stretch: &[Run]) -> Vec<&[Run]> {
    let len: u64 = stretch.iter().map(|r| r.len).sum();
    let new: u64 = stretch.iter().filter(|r| is_log(r)).map(|r| r.len).sum();
    if new > 0 && (len < limits::PACK_BLOB_BYTES || new * 2 >= len) {
        return vec![stretch];
    }
    stretch.chunk_by(|a, b| is_log(a) == is_log(b)).collect()
}

fn is_log(run: &Run) -> bool {
    matches!(run.source, Some(Source::Log(_)))
}

fn piece(run: &Run) -> Option<(u64, Piece)> {
    run.source.map(|source| (run.start, Piece { len: run.len, source }))
}

fn put(content: &Content, (start, end): (u64, u64), blobs: &Arc<BlobStore>) -> Result<afs_types::BlobId> {
    if end - start < limits::PACK_BLOB_BYTES {
        return blobs.put(&read_content(blobs, content, end, start, (end - start) as usize)?);
    }
    let mut reader = ContentReader::of_range(blobs.clone(), content.clone(), start..end);
    let (id, len) = blobs.put_reader(&mut reader)?;
    debug_assert_eq!(len, end - start, "a content reader gives exactly its range");
    Ok(id)
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
