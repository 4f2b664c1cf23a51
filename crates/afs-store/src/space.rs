//! Stops writers before the disk is full: what recovers a store (a WAL, a flush) needs space, too.
//!
//! Guarantees: `admit` costs one atomic operation as long as there is plenty; below the reserve every writer gets `NO_SPACE`, at once, and
//! is admitted again, by itself, as soon as space is there.
//!
//! Deliberately absent: quotas of tenants and sessions.

use afs_types::{Error, Reason, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

/// Watches the free space of one file system.
pub struct DiskReserve {
    dir: PathBuf,
    reserve_bytes: u64,
    /// How much may be written before looking again.
    budget: AtomicI64,
}

impl DiskReserve {
    /// Watches the file system of `dir`, keeping `reserve_bytes` free, but never more than a sixteenth of it.
    pub fn new(dir: &Path, reserve_bytes: u64) -> Self {
        Self { dir: dir.to_path_buf(), reserve_bytes, budget: AtomicI64::new(0) }
    }

    /// Admits `bytes` more, or says `NO_SPACE`.
    pub fn admit(&self, bytes: u64) -> Result<()> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.budget.fetch_sub(bytes, Ordering::Relaxed) >= bytes {
            return Ok(());
        }
        self.look(bytes)
    }

    fn look(&self, bytes: i64) -> Result<()> {
        let stat =
            rustix::fs::statvfs(&self.dir).map_err(|e| Error::io("look for free disk space", e.into()))?;
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let reserve = self.reserve_bytes.min(total / 16);
        let left = i64::try_from(free.saturating_sub(reserve)).unwrap_or(i64::MAX);
        if left < bytes {
            self.budget.store(0, Ordering::Relaxed);
            return Err(Error::new(
                Reason::NoSpace,
                format!("{} has {free} bytes free and keeps {reserve} in reserve", self.dir.display()),
            )
            .with("free_bytes", free.to_string())
            .with("limit", reserve.to_string()));
        }
        // Half of what is left, so that several writers that look at once do not spend it twice; 1 MiB at most, so that
        // what others write to the same disk is seen (looking costs a microsecond).
        self.budget.store(((left - bytes) / 2).min(1 << 20), Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plenty_is_admitted_and_too_much_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DiskReserve::new(dir.path(), 1 << 20);
        for _ in 0..1000 {
            disk.admit(1000).unwrap();
        }
        let error = disk.admit(1 << 60).unwrap_err();
        assert_eq!(error.reason, Reason::NoSpace);
        disk.admit(1).unwrap();
    }
}
