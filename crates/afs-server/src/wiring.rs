//! The one place that names the real engine of the journal.

use crate::data_dir::DataDir;
use afs_journal::{JournalOptions, RocksJournal};
use afs_store::Journal;
use afs_types::Result;
use std::sync::Arc;

/// The journal of a data directory.
pub(crate) fn journal(data: &DataDir) -> Result<Arc<dyn Journal>> {
    Ok(RocksJournal::open(&data.journal(), JournalOptions::default())?)
}
