//! A family: all sessions over one base. It shares the mapped base table and the supply of new inode numbers.
//!
//! Guarantees: no two sessions of a family ever get the same new inode number, also after a crash (the high-water mark
//! is submitted to the journal before a number of its chunk can be in a record), and none is above `limits::MAX_INO`.

use crate::records::VersionRec;
use crate::shared::{Shared, mark, read_u64};
use afs_core::base::BaseTable;
use afs_types::{Error, Ino, Reason, Result, VersionId, limits};
use parking_lot::Mutex;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Numbers per journal mark.
const CHUNK: u64 = 1 << 16;

/// One base in RAM.
pub struct Family {
    /// Its id.
    pub version: VersionId,
    /// Its record.
    pub record: VersionRec,
    /// Its table.
    pub base: Arc<BaseTable>,
    supply: Mutex<Range<Ino>>,
}

impl Family {
    pub(crate) fn open(shared: &Shared, version: VersionId, record: VersionRec) -> Result<Arc<Self>> {
        let path = shared.config.bases().join(&record.digest);
        let base = Arc::new(
            BaseTable::open(map_file(&path)?).map_err(|e| e.with("file", path.display().to_string()))?,
        );
        let next = read_u64(&*shared.ports.journal, &mark_name(&version))?.unwrap_or(base.max_ino() + 1);
        Ok(Arc::new(Self { version, record, base, supply: Mutex::new(next..next) }))
    }

    /// At least one fresh number; `want` is how many would be useful.
    pub(crate) fn lease(&self, shared: &Shared, want: u64) -> Result<Range<Ino>> {
        let mut supply = self.supply.lock();
        if supply.is_empty() {
            let end = (supply.end + CHUNK).min(limits::MAX_INO + 1);
            if end <= supply.end {
                return Err(Error::new(
                    Reason::NoInodes,
                    format!("all {} inode numbers of base {} are used", limits::MAX_INO, self.version),
                ));
            }
            shared.submit(mark(&mark_name(&self.version), end))?;
            supply.end = end;
        }
        let end = (supply.start + want.max(1)).min(supply.end);
        let block = supply.start..end;
        supply.start = end;
        Ok(block)
    }
}

fn mark_name(version: &VersionId) -> Vec<u8> {
    [b"ino/", version.as_str().as_bytes()].concat()
}

#[allow(unsafe_code, reason = "memory-mapping is unsafe in every crate that offers it")]
fn map_file(path: &Path) -> Result<bytes::Bytes> {
    let file = File::open(path).map_err(|e| {
        Error::new(Reason::Corrupt, format!("base table {} cannot be opened: {e}", path.display()))
            .next("import the source again, or restore the data directory from a backup")
    })?;
    // SAFETY: base tables are written once under a temporary name, made read-only, renamed, and never changed or truncated
    // afterwards; the data directory belongs to this process (the journal's lock), so the bytes under the map do not change.
    let map = unsafe { memmap2::Mmap::map(&file) };
    let map = map.map_err(|e| Error::io(format!("map {}", path.display()), e))?;
    Ok(bytes::Bytes::from_owner(map))
}
