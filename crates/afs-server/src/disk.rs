//! Space on the disk of the data directory.

use afs_types::{Error, Result};
use std::path::Path;

/// Sizes of a file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) total_bytes: u64,
    /// Free for users who are not root.
    pub(crate) free_bytes: u64,
}

/// Of the file system that holds a directory.
pub(crate) fn space(dir: &Path) -> Result<Space> {
    let found =
        rustix::fs::statvfs(dir).map_err(|e| Error::io(format!("statvfs {}", dir.display()), e.into()))?;
    Ok(Space {
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
    })
}
