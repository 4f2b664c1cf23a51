//! The index of tables of version 1, to read those that are there: builders write [`super::lines`].
//!
//! A slot has the position of a name and a few bits of its hash, so that a lookup goes on from it to the row and from
//! the row to the name: three loads that wait for one another.

use super::format::{LINE_BYTES, U32, ensure};
use super::reader::BaseTable;
use afs_types::{Ino, Result};

/// Slots that are looked at in one go.
const BUCKET: usize = 16;
type Bucket = [U32; BUCKET];
const _: () = assert!(size_of::<Bucket>() == LINE_BYTES);

/// Low bits of a slot that hold the position.
fn position_bits(rows: usize) -> u32 {
    usize::BITS - (rows - 1).leading_zeros()
}

/// Where a hash is looked for, from its upper half, and the bits of its lower half that are kept in a slot, above the
/// position.
fn probe(hash: u64, buckets: usize, position_bits: u32) -> (usize, u32) {
    let bucket = ((hash >> 32) * buckets as u64) >> 32;
    (bucket as usize, (hash as u32).unbounded_shl(position_bits))
}

impl BaseTable {
    #[inline(never)]
    pub(super) fn find_in_slots(&self, parent: Ino, name: &[u8], hash: u64) -> Option<usize> {
        let up = u32::try_from(parent.checked_sub(1)?).ok()?;
        let buckets: &[Bucket] = bytemuck::cast_slice(&self.bytes[self.layout.lines.clone()]);
        let bits = position_bits(self.rows);
        let positions = (1 << bits) - 1;
        let (mut at, tag) = probe(hash, buckets.len(), bits);
        // `open` made sure that there is a free slot.
        loop {
            // Without a branch per slot: a wrongly predicted one would wait for memory.
            let slots = buckets[at].map(U32::get);
            let mut found = slots_that(&slots, |slot| slot & !positions == tag);
            while found != 0 {
                let row = (slots[found.trailing_zeros() as usize] & positions) as usize;
                let raw = self.raw(row);
                // A free slot looks like row 0, the root, which has no name.
                if raw.parent.get() == up && self.name(raw) == name && row > 0 {
                    return Some(row);
                }
                found &= found - 1;
            }
            if slots_that(&slots, |slot| slot == 0) != 0 {
                return None;
            }
            at = if at + 1 == buckets.len() { 0 } else { at + 1 };
        }
    }

    pub(super) fn check_slots(&self) -> Result<()> {
        let slots: &[U32] = bytemuck::cast_slice(&self.bytes[self.layout.lines.clone()]);
        let positions = (1 << position_bits(self.rows)) - 1;
        let mut used = 0;
        for slot in slots.iter().map(|slot| slot.get()).filter(|slot| *slot != 0) {
            used += 1;
            let row = (slot & positions) as usize;
            ensure(row >= 1 && row < self.rows, "an index slot beyond the end", row)?;
        }
        ensure(used == self.rows - 1 && used < slots.len(), "wrong number of index slots", used)
    }
}

/// One bit for each slot that fits. Shaped so that it compiles to a few vector instructions.
#[inline(always)]
fn slots_that(slots: &[u32; BUCKET], fits: impl Fn(u32) -> bool) -> u32 {
    const BITS: [u32; BUCKET] = {
        let mut bits = [0; BUCKET];
        let mut i = 0;
        while i < BUCKET {
            bits[i] = 1 << i;
            i += 1;
        }
        bits
    };
    slots.iter().zip(BITS).fold(0, |all, (slot, bit)| all | if fits(*slot) { bit } else { 0 })
}

/// Writes what builders of version 1 wrote: the buckets for the names of a table.
#[cfg(test)]
pub(super) fn write(table: &BaseTable) -> Vec<u8> {
    let names = table.rows as u64 - 1;
    let mut buckets = vec![[U32::from(0); BUCKET]; (names * 10 / 7 + 1).div_ceil(BUCKET as u64) as usize];
    for row in 1..table.rows {
        let raw = table.raw(row);
        let hash = table.name_hash(u64::from(raw.parent.get()) + 1, table.name(raw));
        let (mut at, tag) = probe(hash, buckets.len(), position_bits(table.rows));
        while buckets[at].iter().all(|slot| slot.get() != 0) {
            at = if at + 1 == buckets.len() { 0 } else { at + 1 };
        }
        let free = buckets[at].iter_mut().find(|slot| slot.get() == 0).unwrap();
        *free = (tag | row as u32).into();
    }
    bytemuck::cast_slice(&buckets).to_vec()
}
