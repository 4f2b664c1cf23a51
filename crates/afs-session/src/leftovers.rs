//! What a crash or time left behind, removed while the engine opens: then nothing in RAM names any of it.
//!
//! Guarantees: a base table goes only when no version's record names it, and a remembered request only when its time is over. A failure
//! removes nothing more and is told; nothing depends on the removal.
//! Deliberately absent: layers, deltas and blobs that nothing reaches; that needs the counts of a garbage collector.

use crate::records::{RequestRec, Stored, VersionRec};
use crate::shared::Shared;
use afs_store::{Batch, Space};
use afs_types::{Error, Result, limits};
use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;

/// Requests forgotten in one batch.
const BATCH: usize = 4_096;

/// Removes both kinds. Returns how many base tables and requests went.
pub(crate) fn remove(shared: &Shared) -> Result<(usize, usize)> {
    Ok((unnamed_bases(shared)?, old_requests(shared)?))
}

fn unnamed_bases(shared: &Shared) -> Result<usize> {
    let mut named = HashSet::new();
    shared.ports.journal.scan(Space::Version, &[], None, &mut |_, value| {
        named.insert(VersionRec::decode(value)?.digest);
        Ok(ControlFlow::Continue(()))
    })?;
    let dir = shared.config.bases();
    let failed = |e| Error::io(format!("clean {}", dir.display()), e);
    let mut removed = 0;
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Half-written ones have names that start with a dot, so no record names them either.
        if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            fs::remove_file(entry.path()).map_err(failed)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn old_requests(shared: &Shared) -> Result<usize> {
    let now_ns = shared.now_ns();
    let mut old = Vec::new();
    shared.ports.journal.scan(Space::Request, &[], None, &mut |key, value| {
        if now_ns - RequestRec::decode(value)?.created_ns >= limits::REQUEST_ID_TTL_NS {
            old.push(key.to_vec());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for keys in old.chunks(BATCH) {
        let mut batch = Batch::new();
        for key in keys {
            batch.delete(Space::Request, key);
        }
        shared.submit(batch.freeing())?;
    }
    Ok(old.len())
}
