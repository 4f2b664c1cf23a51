//! `afs-server repair`: what can be done for a data directory whose server refuses to start.
//!
//! Guarantees: works on a stopped server's directory only (it takes the server's lock); every blob that is whole on disk is in the index
//! afterwards, and what is not is told with file and offset. Nothing is deleted and no session is touched.
//! Deliberately absent: repair of the journal (it is restored from a backup, together with its mark) and of damaged bytes.

use crate::data_dir::DataDir;
use crate::wiring;
use afs_store::{Rebuilt, rebuild_index};
use afs_types::{Result, SystemRng};
use std::path::Path;

/// Builds the index of blobs anew from packs and raw files.
///
/// # Errors
/// `IN_USE` while a server runs on the directory; those of the journal.
pub fn repair(data: &Path) -> Result<Rebuilt> {
    let data = DataDir::open(data, &SystemRng)?;
    let journal = wiring::journal(&data)?;
    let rebuilt = rebuild_index(&data.blobs(), data.tenant_key(), &*journal)?;
    journal.close()?;
    Ok(rebuilt)
}
