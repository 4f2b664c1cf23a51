//! A family: all sessions over one base. It shares the mapped base table and the supply of new inode numbers.
//!
//! Guarantees: a new inode number is given once in the life of a family, also across crashes, and none is above `limits::MAX_INO`. The
//! high-water mark is durable before a number below it is given: else a crash could take back a file that a mount has open, and its
//! number would lead that mount to the next file made.

use crate::records::VersionRec;
use crate::shared::{Shared, mark, read_u64};
use afs_core::base::BaseTable;
use afs_store::Position;
use afs_types::{Error, Ino, Reason, Result, VersionId, limits};
use parking_lot::Mutex;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    supply: Mutex<Supply>,
    /// There has been a supply: a cheap look before each change.
    is_supplied: AtomicBool,
}

/// New numbers.
struct Supply {
    /// Covered by a mark that is durable.
    ready: Range<Ino>,
    /// The end of those behind them, and where the journal has their mark.
    ordered: Option<(Ino, Position)>,
}

/// The table of a version, mapped.
pub(crate) fn open_base(shared: &Shared, record: &VersionRec) -> Result<BaseTable> {
    let path = shared.config.bases().join(&record.digest);
    BaseTable::open(map_file(&path)?).map_err(|e| e.with("file", path.display().to_string()))
}

impl Family {
    pub(crate) fn open(shared: &Shared, version: VersionId, record: VersionRec) -> Result<Arc<Self>> {
        let base = Arc::new(open_base(shared, &record)?);
        let next = read_u64(&*shared.ports.journal, &mark_name(&version))?.unwrap_or(base.max_ino() + 1);
        let supply = Mutex::new(Supply { ready: next..next, ordered: None });
        Ok(Arc::new(Self { version, record, base, supply, is_supplied: AtomicBool::new(false) }))
    }

    /// Waits for the first mark of this start of the server, so that [`Family::lease`] need not, which is called under a
    /// session's lock. Whoever needs no number must not fail here: a full disk, for one, shows in the lease.
    pub(crate) fn prepare(&self, shared: &Shared) {
        if self.is_supplied.load(Ordering::Relaxed) {
            return;
        }
        let ordered = {
            let mut supply = self.supply.lock();
            self.order(shared, &mut supply).and_then(|()| supply.ordered.ok_or_else(|| self.used_up()))
        };
        match ordered.and_then(|(_, at)| shared.wait(at)) {
            Ok(()) => self.is_supplied.store(true, Ordering::Relaxed),
            Err(error) => tracing::debug!(version = %self.version, ?error, "order inode numbers"),
        }
    }

    /// At least one fresh number; `want` is how many would be useful.
    pub(crate) fn lease(&self, shared: &Shared, want: u64) -> Result<Range<Ino>> {
        let mut supply = self.supply.lock();
        if supply.ready.is_empty() {
            self.order(shared, &mut supply)?;
            let (end, at) = supply.ordered.ok_or_else(|| self.used_up())?;
            // Durable long ago, unless half a chunk was used up within the time of a group.
            shared.wait(at)?;
            (supply.ready.end, supply.ordered) = (end, None);
        }
        let end = (supply.ready.start + want.max(1)).min(supply.ready.end);
        let block = supply.ready.start..end;
        supply.ready.start = end;
        let left = supply.ready.end - end;
        if left < CHUNK / 2
            && let Err(error) = self.order(shared, &mut supply)
        {
            // It is tried again, and then matters, when these are used up.
            tracing::debug!(version = %self.version, ?error, "order inode numbers");
        }
        Ok(block)
    }

    /// Submits the next mark, unless one is under way or there are no more numbers.
    fn order(&self, shared: &Shared, supply: &mut Supply) -> Result<()> {
        let end = (supply.ready.end + CHUNK).min(limits::MAX_INO + 1);
        if supply.ordered.is_none() && end > supply.ready.end {
            let at = shared.submit(mark(&mark_name(&self.version), end))?;
            supply.ordered = Some((end, at));
        }
        Ok(())
    }

    fn used_up(&self) -> Error {
        let message = format!("all {} inode numbers of base {} are used", limits::MAX_INO, self.version);
        Error::new(Reason::NoInodes, message)
    }
}

fn mark_name(version: &VersionId) -> Vec<u8> {
    [b"ino/", version.as_str().as_bytes()].concat()
}

/// The bytes of a base table, mapped: in huge pages where the kernel can, since look-ups jump through all of a table and a table of a million
/// entries has more small pages than the processor remembers.
#[allow(unsafe_code, reason = "memory-mapping is unsafe in every crate that offers it")]
pub fn map_file(path: &Path) -> Result<bytes::Bytes> {
    let file = File::open(path).map_err(|e| {
        Error::new(Reason::Corrupt, format!("base table {} cannot be opened: {e}", path.display()))
            .next("import the source again, or restore the data directory from a backup")
    })?;
    // SAFETY: base tables are written once under a temporary name, made read-only, renamed, and never changed or truncated
    // afterwards; the data directory belongs to this process (the journal's lock), so the bytes under the map do not change.
    let map = unsafe { memmap2::Mmap::map(&file) };
    let map = map.map_err(|e| Error::io(format!("map {}", path.display()), e))?;
    // A wish: without huge pages everything works as well, and slower.
    if let Err(error) = map.advise(memmap2::Advice::HugePage) {
        tracing::debug!(%error, "ask for huge pages");
    }
    Ok(bytes::Bytes::from_owner(map))
}
