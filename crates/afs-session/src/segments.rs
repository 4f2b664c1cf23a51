//! Which layers name which segments of the data log, so that segments nobody names any more can be removed.
//!
//! Guarantees: a layer's first record, or its delta, that names a segment is in one batch with a note of that; folding a layer replaces its
//! notes by those of what could not be sealed, in the batch of the delta. So the notes are never fewer than the names. Segments
//! are removed when the engine opens: then nothing in RAM names any, and what the journal holds is all there is. If anything about the notes
//! is not as it should be, nothing is removed; segments that are older than the notes are never removed.
//! Deliberately absent: removing while the engine runs. Trees, snapshots and transactions in RAM name segments without being counted.
//!
//! Key of a note, in the space of names: `log NUL, layer u64 BE, segment u32 BE`; no value.

use crate::shared::{Shared, mark, read_u64};
use afs_core::delta::Delta;
use afs_store::{Batch, Space};
use afs_types::{Error, LayerId, Reason, Result};
use std::collections::HashSet;
use std::ops::ControlFlow;

/// No segment.
pub(crate) const NONE: u32 = u32::MAX;
const PREFIX: &[u8] = b"log\0";
const BEHIND: &[u8] = b"log\x01";
/// The first segment whose names are noted.
const SINCE: &[u8] = b"log_notes_since";

/// Notes that a layer names a segment.
pub(crate) fn note(layer: LayerId, segment: u32, batch: &mut Batch) {
    batch.put(Space::Name, key(layer, segment), b"");
}

fn key(layer: LayerId, segment: u32) -> Vec<u8> {
    [PREFIX, &layer.0.to_be_bytes(), &segment.to_be_bytes()].concat()
}

/// Replaces a layer's notes by those of its delta. All its records are committed.
pub(crate) fn renote(shared: &Shared, layer: LayerId, delta: &Delta, batch: &mut Batch) -> Result<()> {
    let (from, to) = (key(layer, 0), key(LayerId(layer.0 + 1), 0));
    shared.ports.journal.scan(Space::Name, &from, Some(&to), &mut |key, _| {
        batch.delete(Space::Name, key);
        Ok(ControlFlow::Continue(()))
    })?;
    let mut noted = NONE;
    for inode in delta.inodes.values().flatten() {
        inode.content.for_segments(&mut |segment| {
            if segment != noted {
                note(layer, segment, batch);
                noted = segment;
            }
        });
    }
    Ok(())
}

/// Removes segments that nothing names. Called while the engine opens, before anything is loaded. Returns bytes.
pub(crate) fn sweep(shared: &Shared) -> Result<u64> {
    let journal = &*shared.ports.journal;
    let first = shared.ports.blobs.first_segment();
    let Some(since) = read_u64(journal, SINCE)? else {
        shared.submit(mark(SINCE, first.into()))?;
        return Ok(0);
    };
    let since = u32::try_from(since).map_err(|_| damaged())?;
    let mut named = HashSet::new();
    journal.scan(Space::Name, PREFIX, Some(BEHIND), &mut |key, _| {
        let segment = key.strip_prefix(PREFIX).and_then(|rest| <&[u8; 12]>::try_from(rest).ok());
        let [.., a, b, c, d] = segment.ok_or_else(damaged)?;
        named.insert(u32::from_be_bytes([*a, *b, *c, *d]));
        Ok(ControlFlow::Continue(()))
    })?;
    shared.ports.blobs.remove_log_segments(since..first, &named)
}

fn damaged() -> Error {
    Error::new(Reason::Corrupt, "the notes of who names the data log are damaged: no segment is removed")
        .next("nothing is removed; the disk is fuller than it could be")
}
