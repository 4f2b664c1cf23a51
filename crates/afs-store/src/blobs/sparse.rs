//! Where the bytes of a large file are anything but zeros: blocks of zeros are not written, and stay holes that take no disk.
//!
//! Guarantees: the runs cover every byte that is not zero, in order, and no block that is all zeros. Deliberately absent: finding the holes of a source without
//! reading it; hashing reads every byte anyway.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// What file systems of today allocate at once, in bytes.
const BLOCK: u64 = 4096;
static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// Ranges of `bytes`, which begin at `offset` of a file, that have to be written; neighbours are one range.
pub(super) fn runs(bytes: &[u8], offset: u64) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut run: Option<Range<usize>> = None;
        while at < bytes.len() {
            let left = BLOCK - (offset + at as u64) % BLOCK;
            let end = bytes.len().min(at + left as usize);
            let is_zero = bytes[at..end] == ZEROS[..end - at];
            let block = at..end;
            at = end;
            match (&mut run, is_zero) {
                (None, true) => {}
                (None, false) => run = Some(block),
                (Some(run), false) => run.end = block.end,
                (Some(_), true) => break,
            }
        }
        run
    })
}

/// Writes `bytes` at `offset` of a file that has nothing but zeros there yet. What ends it with zeros does not make it longer.
pub(super) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    runs(bytes, offset).try_for_each(|run| file.write_all_at(&bytes[run.clone()], offset + run.start as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(bytes: &[u8], offset: u64) -> Vec<Range<usize>> {
        runs(bytes, offset).collect()
    }

    #[test]
    fn blocks_of_zeros_are_left_out_and_nothing_else_is() {
        let mut bytes = vec![0; 5 * 4096];
        assert_eq!(listed(&bytes, 0), []);
        bytes[4096] = 1;
        bytes[2 * 4096] = 1;
        bytes[5 * 4096 - 1] = 1;
        assert_eq!(listed(&bytes, 0), [4096..3 * 4096, 4 * 4096..5 * 4096]);
        // Blocks are those of the file.
        assert_eq!(listed(&bytes, 4000), [96..8_288, 16_480..20_480]);
        assert_eq!(listed(&[1, 0], 4095), vec![Range { start: 0, end: 1 }]);
        assert_eq!(listed(&[], 7), []);
    }

    #[test]
    fn whatever_the_pieces_the_file_is_the_same() {
        let mut seed = 7_u64;
        let mut next = move |most: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % most as u64) as usize
        };
        for _ in 0..50 {
            let mut bytes = vec![0; 1 + next(100_000)];
            for _ in 0..next(6) {
                let (from, len) = (next(bytes.len()), next(9_000));
                let end = bytes.len().min(from + len);
                bytes[from..end].fill(3);
            }
            let file = tempfile::tempfile().unwrap();
            let mut at = 0;
            while at < bytes.len() {
                let end = bytes.len().min(at + 1 + next(20_000));
                write(&file, &bytes[at..end], at as u64).unwrap();
                at = end;
            }
            file.set_len(bytes.len() as u64).unwrap();
            let mut back = vec![9; bytes.len()];
            file.read_exact_at(&mut back, 0).unwrap();
            assert!(back == bytes);
        }
    }
}
