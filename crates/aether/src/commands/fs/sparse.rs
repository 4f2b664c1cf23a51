//! A local file that gets holes where its content is zero.
//!
//! Guarantees: what is read from it is what was written; a block of zeros takes no place on the disk, so that a file that is sparse in a session is
//! sparse here. What is no regular file (a device) gets every byte. Writes block the thread: one file at a time is copied, and the
//! connection it comes from has a thread of its own.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// What file systems allocate at once, mostly.
const BLOCK: usize = 4096;

/// A file that was just made or emptied, written from its beginning.
pub(super) struct Sparse {
    file: File,
    is_regular: bool,
    /// How much was written, holes and all.
    at: u64,
    /// So many bytes at the end are zero, and not in the file yet.
    hole: u64,
}

impl Sparse {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let is_regular = file.metadata()?.is_file();
        Ok(Self { file, is_regular, at: 0, hole: 0 })
    }

    /// A hole at the end is there once the file has its length.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if self.hole > 0 { self.file.set_len(self.at) } else { Ok(()) }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.is_regular {
            return self.data(bytes);
        }
        // The first run ends with the block it begins in. Of a block that comes in several pieces, those that are zero can be left out too:
        // what nobody has written reads as zeros.
        let (first, whole) = bytes.split_at(self.to_block_end().min(bytes.len()));
        let (mut from, mut to, mut is_hole) = (0, first.len(), is_zero(first));
        for block in whole.chunks(BLOCK) {
            if is_zero(block) != is_hole {
                self.run(&bytes[from..to], is_hole)?;
                (from, is_hole) = (to, !is_hole);
            }
            to += block.len();
        }
        self.run(&bytes[from..to], is_hole)
    }

    fn to_block_end(&self) -> usize {
        const IN_BLOCK: u64 = BLOCK as u64 - 1;
        BLOCK - usize::try_from(self.at & IN_BLOCK).unwrap_or_default()
    }

    fn run(&mut self, bytes: &[u8], is_hole: bool) -> io::Result<()> {
        if !is_hole {
            return self.data(bytes);
        }
        self.hole += bytes.len() as u64;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.hole > 0 {
            self.file.seek(SeekFrom::Start(self.at))?;
            self.hole = 0;
        }
        self.file.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

impl AsyncWrite for Sparse {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.put(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Writes pieces, and returns what the file then has, and how many bytes it takes on the disk.
    fn written(pieces: &[&[u8]]) -> (Vec<u8>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut sparse = Sparse::new(File::create(&path).unwrap()).unwrap();
        pieces.iter().for_each(|piece| sparse.put(piece).unwrap());
        sparse.finish().unwrap();
        let taken = std::fs::metadata(&path).unwrap().blocks() * 512;
        (std::fs::read(&path).unwrap(), taken)
    }

    #[test]
    fn whatever_the_pieces_the_content_is_exact() {
        let mut content = vec![0u8; 10 * BLOCK + 17];
        for at in [0, 1, BLOCK - 1, 3 * BLOCK, 3 * BLOCK + 1, 7 * BLOCK - 1, 9 * BLOCK + 5] {
            content[at] = 7;
        }
        let zeros_before = [&[0; 2 * BLOCK][..], &content].concat();
        for content in [content, zeros_before, vec![0; 5 * BLOCK + 1], vec![0; 3], vec![1; 9000], Vec::new()]
        {
            for size in [1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3, 1 << 20] {
                let pieces: Vec<&[u8]> = content.chunks(size).collect();
                assert!(written(&pieces).0 == content, "{} bytes in pieces of {size}", content.len());
            }
        }
    }

    #[test]
    fn zeros_are_holes_in_the_middle_and_at_the_end() {
        let zeros = vec![0u8; 8 << 20];
        for pieces in [&[&b"a"[..], &zeros, b"b", &zeros][..], &[&zeros]] {
            let (content, taken) = written(pieces);
            assert!(content == pieces.concat() && taken < 1 << 20, "{taken}");
        }
    }

    #[test]
    fn a_device_gets_every_byte() {
        let mut sparse = Sparse::new(File::options().write(true).open("/dev/null").unwrap()).unwrap();
        sparse.put(&[0; 3 * BLOCK]).unwrap();
        sparse.finish().unwrap();
        assert_eq!((sparse.at, sparse.hole), (3 * BLOCK as u64, 0));
    }
}
