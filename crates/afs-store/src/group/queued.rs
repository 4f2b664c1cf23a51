//! Batches that wait to be committed, copied one behind the other into a few large buffers.
//!
//! Guarantees: order is kept; a small batch that is queued is copied (some hundred bytes), so that it costs no allocation that another thread
//! frees, and its own buffer is at once there for the next one on its thread; a large one is taken as it is. Buffers are used again.
//! Memory: what is queued, at most one more buffer for each large batch, and [`SPARE_RUNS`] buffers between bursts.
//!
//! Deliberately absent: locks, and the bound of the queue (`group`).

use crate::batch::{Batch, Change, Changes};

/// Batches in order.
#[derive(Default)]
pub(super) struct Batches {
    runs: Vec<Run>,
    len: usize,
}

/// Several batches, one behind the other.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    /// Where each batch ends.
    ends: Vec<usize>,
}

/// Bytes of the buffers into which batches are copied.
const RUN_BYTES: usize = 256 << 10;
/// A batch of so many bytes is not copied, its own buffer is taken.
const TAKEN_WHOLE_BYTES: usize = 64 << 10;
/// Buffers that are kept for the next batches.
const SPARE_RUNS: usize = 8;
/// Room for ends that is kept with each.
const SPARE_ENDS: usize = 16 << 10;

/// Buffers to be used again.
#[derive(Default)]
pub(super) struct SpareRuns(Vec<Run>);

impl Batches {
    /// Adds a batch behind the others.
    pub(super) fn push(&mut self, batch: Batch, spare: &mut SpareRuns) {
        self.len += 1;
        let bytes = batch.into_bytes();
        if bytes.len() >= TAKEN_WHOLE_BYTES {
            let ends = vec![bytes.len()];
            self.runs.push(Run { bytes, ends });
            return;
        }
        let has_room = |run: &Run| run.bytes.capacity() - run.bytes.len() >= bytes.len();
        if !self.runs.last().is_some_and(has_room) {
            self.runs.push(spare.take());
        }
        if let Some(run) = self.runs.last_mut() {
            run.bytes.extend_from_slice(&bytes);
            run.ends.push(run.bytes.len());
        }
    }
    /// How many batches.
    pub(super) fn len(&self) -> usize {
        self.len
    }
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Keeps the first `most`.
    pub(super) fn truncate(&mut self, most: usize) {
        let mut left = most;
        for run in &mut self.runs {
            run.ends.truncate(left);
            run.bytes.truncate(run.ends.last().copied().unwrap_or(0));
            left -= run.ends.len();
        }
        self.len = self.len.min(most);
    }
    /// All changes, in order.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.runs.iter().flat_map(|run| Changes::of(&run.bytes))
    }
}

impl SpareRuns {
    fn take(&mut self) -> Run {
        self.0.pop().unwrap_or_else(|| Run { bytes: Vec::with_capacity(RUN_BYTES), ends: Vec::new() })
    }
    /// Takes buffers back from batches that are committed. Returns the others, to be freed where nobody waits for it.
    #[must_use]
    pub(super) fn put(&mut self, mut batches: Batches) -> Batches {
        let runs = &mut batches.runs;
        while self.0.len() < SPARE_RUNS
            && let Some(at) = runs.iter().position(|run| run.bytes.capacity() == RUN_BYTES)
        {
            let mut run = runs.swap_remove(at);
            run.bytes.clear();
            run.ends.clear();
            // A crowd of empty batches takes no bytes, but ends.
            run.ends.shrink_to(SPARE_ENDS);
            self.0.push(run);
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Space;

    #[test]
    fn queued_batches_keep_their_order_and_bounds() {
        let mut spare = SpareRuns::default();
        for keep in [0, 1, 2, 3, 500, 4_999, 5_000, 9_000] {
            let (mut queued, mut want) = (Batches::default(), Vec::new());
            for n in 0..5_000u32 {
                // Small ones, some that are taken whole, and empty ones.
                let value = vec![n as u8; if n % 100 == 1 { 70_000 } else { n as usize % 300 }];
                let mut batch = Batch::new();
                if n % 7 != 0 {
                    batch.put(Space::Record, n.to_be_bytes(), &value);
                    want.extend((n < keep).then_some((n.to_be_bytes(), value)));
                }
                queued.push(batch, &mut spare);
            }
            assert_eq!(queued.len(), 5_000);
            queued.truncate(keep as usize);
            assert_eq!(queued.len(), 5_000.min(keep as usize));
            let changes = queued.changes().map(|change| match change {
                Change::Put { space: Space::Record, key, value } => (key.try_into().unwrap(), value.to_vec()),
                other => panic!("{other:?}"),
            });
            assert!(changes.eq(want), "{keep}");
            drop(spare.put(queued));
            assert!(spare.0.len() <= SPARE_RUNS && spare.0.iter().all(|run| run.bytes.is_empty()));
        }
        assert!(!spare.0.is_empty(), "buffers are used again");
    }
}
