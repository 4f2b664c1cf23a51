//! How contents are cut into blobs.
use super::*;
use afs_core::extent::LogRef;
use afs_store::{BlobOptions, SimJournal};
use std::cell::Cell;

const KIB: u64 = 1 << 10;

struct Bed {
    blobs: Arc<BlobStore>,
    next: Cell<u8>,
    /// Goes after the store, whose last group is written when it is dropped.
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = BlobOptions { reserve_bytes: 0, ..BlobOptions::new(1 << 20) };
        let blobs =
            BlobStore::open_with(dir.path(), [1; 32], options, SimJournal::manual().unwrap()).unwrap();
        Self { _dir: dir, blobs, next: Cell::new(0) }
    }
    /// So many new bytes in the data log.
    fn log(&self, len: u64) -> Source {
        self.next.set(self.next.get() + 1);
        let at = self.blobs.append(&vec![self.next.get(); len as usize]).unwrap();
        Source::Log(LogRef { segment: at.segment, offset: at.offset })
    }
    /// Seals, checks that the bytes and holes are the same, and returns (start, length, is a blob's start) of the new runs and
    /// what was put.
    fn seal(&self, content: &Content, size: u64) -> (Vec<(u64, u64, bool)>, u64) {
        let (sealed, put) = seal_content(content, size, &self.blobs).unwrap();
        let all = |c: &Content| read_content(&self.blobs, c, size, 0, size as usize).unwrap();
        assert_eq!(all(content), all(&sealed));
        let holes = |c: &Content| {
            let runs = c.runs(size, 0, size);
            runs.iter().filter(|r| r.source.is_none()).map(|r| (r.start, r.len)).collect::<Vec<_>>()
        };
        assert_eq!(holes(content), holes(&sealed));
        assert_eq!(content.allocated(size), sealed.allocated(size));
        assert!(!sealed.is_unsealed());
        let runs = sealed.runs(size, 0, size);
        let blob_start = |r: &Run| matches!(r.source, Some(Source::Blob(_, 0)));
        let shape = runs.iter().filter(|r| r.source.is_some()).map(|r| (r.start, r.len, blob_start(r)));
        (shape.collect(), put)
    }
    fn written(&self, pieces: &[(u64, u64)]) -> (Content, u64) {
        let (mut content, mut size) = (Content::Empty, 0);
        for (offset, len) in pieces {
            content.write(size, *offset, *len, self.log(*len));
            size = size.max(offset + len);
        }
        (content, size)
    }
}

#[test]
fn a_small_file_becomes_one_blob_whatever_its_pieces() {
    let bed = Bed::new();
    let (content, size) = bed.written(&[(0, 3), (10, 5), (3, 7), (1, 2)]);
    assert_eq!(bed.seal(&content, size), (vec![(0, 15, true)], 15));
    assert!(seal_content(&content, size, &bed.blobs).unwrap().0.whole_blob(15).is_some());
}

#[test]
fn holes_stay_holes() {
    let bed = Bed::new();
    let (content, size) = bed.written(&[(100, 50), (300 * KIB, 400 * KIB), (200, 1)]);
    let want = vec![(100, 50, true), (200, 1, true), (300 * KIB, 400 * KIB, true)];
    assert_eq!(bed.seal(&content, size + 77), (want, 51 + 400 * KIB));
    assert_eq!(bed.seal(&Content::Empty, 0), (vec![], 0));
}

#[test]
fn a_large_file_that_is_mostly_new_becomes_one_blob_and_else_only_the_new_part() {
    let bed = Bed::new();
    let (content, size) = bed.written(&[(0, 600 * KIB), (600 * KIB, 424 * KIB)]);
    let (mut old, put) = seal_content(&content, size, &bed.blobs).unwrap();
    assert_eq!((old.whole_blob(size).is_some(), put), (true, size));
    old.write(size, 500 * KIB, 4 * KIB, bed.log(4 * KIB));
    old.write(size, 504 * KIB, KIB, bed.log(KIB));
    let want = vec![(0, 500 * KIB, true), (500 * KIB, 5 * KIB, true), (505 * KIB, 519 * KIB, false)];
    assert_eq!(bed.seal(&old, size), (want, 5 * KIB));
    old.write(size, 0, 512 * KIB, bed.log(512 * KIB));
    assert_eq!(bed.seal(&old, size), (vec![(0, size, true)], size));
}

/// Bytes that were cut off are not sealed with the rest.
#[test]
fn a_cut_file_is_sealed_as_it_is() {
    let bed = Bed::new();
    let (mut content, _) = bed.written(&[(0, 300 * KIB)]);
    content.truncate(1000);
    assert_eq!(bed.seal(&content, 1000), (vec![(0, 1000, true)], 1000));
    let (mut content, size) = bed.written(&[(0, 300 * KIB)]);
    (content, _) = seal_content(&content, size, &bed.blobs).unwrap();
    content.truncate(290 * KIB);
    content.write(290 * KIB, 290 * KIB, 1, bed.log(1));
    let want = vec![(0, 290 * KIB, true), (290 * KIB, 1, true)];
    assert_eq!(bed.seal(&content, 290 * KIB + 1), (want, 1));
}
