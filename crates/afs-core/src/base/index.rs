//! A set of row numbers, found by hash. The rows live elsewhere, so that each costs some 16 B here.

use afs_types::limits;

/// Open addressing over 32-bit words: 0 = free, else bits of the hash and, below them, row + 1.
///
/// Small words keep the table in the processor's caches for trees of a million entries: a miss there costs
/// more than everything else that happens when an entry is added.
pub(super) struct Index {
    words: Vec<u32>,
    /// (hash, row) by insertion: to fill a larger table without a look at the rows.
    rows: Vec<(u32, u32)>,
}

const ROW: u32 = (1 << 27) - 1;
const _: () = assert!(limits::MAX_BASE_ENTRIES < ROW as u64);

impl Index {
    pub(super) fn new() -> Self {
        Self { words: vec![0; 16], rows: Vec::new() }
    }

    /// The row that `same` accepts; else `new` is put in and None returned.
    pub(super) fn find_or_insert(&mut self, hash: u64, new: u32, same: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = (hash >> 32) as u32;
        let mut at = self.home(hash);
        while self.words[at] != 0 {
            let word = self.words[at];
            if word & !ROW == hash & !ROW && same((word & ROW) - 1) {
                return Some((word & ROW) - 1);
            }
            at = (at + 1) & (self.words.len() - 1);
        }
        self.words[at] = hash & !ROW | (new + 1);
        self.rows.push((hash, new));
        if self.rows.len() * 3 > self.words.len() * 2 {
            self.grow();
        }
        None
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.words.len() - 1)
    }

    fn grow(&mut self) {
        self.words = vec![0; self.words.len() * 2];
        for (hash, row) in &self.rows {
            let mut at = self.home(*hash);
            while self.words[at] != 0 {
                at = (at + 1) & (self.words.len() - 1);
            }
            self.words[at] = hash & !ROW | (row + 1);
        }
    }
}
