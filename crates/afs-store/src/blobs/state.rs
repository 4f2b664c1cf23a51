//! What the journal knows of the store as a whole: its key, its next file number, whether its index is complete.

use super::flush::NEXT;
use crate::journal::{Batch, Journal, Space};
use afs_types::{Error, Reason, Result};
use std::path::{Path, PathBuf};

/// Key of the check that the tenant key is the one the store was made with, in `Space::Meta`.
pub(super) const KEY_CHECK: &[u8] = b"blobs.key";
/// Key that is there while an index is being rebuilt, in `Space::Meta`.
pub(super) const REBUILDING: &[u8] = b"blobs.rebuilding";

pub(super) fn make_dir(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::create_dir_all(&path).map_err(|e| Error::io(format_args!("create {}", path.display()), e))?;
    Ok(path)
}

/// A decoded value of `Space::Meta`; damage is never a default.
pub(super) fn meta<T>(
    journal: &dyn Journal,
    key: &[u8],
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>> {
    let Some(value) = journal.get(Space::Meta, key)? else { return Ok(None) };
    let damaged = || {
        let key = String::from_utf8_lossy(key);
        Error::new(Reason::Corrupt, format!("the journal's value of {key} is damaged"))
            .next("stop the server and rebuild the index of blobs: afs-server repair --data DIR")
    };
    decode(&value).map(Some).ok_or_else(damaged)
}

/// The next file number the journal knows of.
pub(super) fn recorded_next(journal: &dyn Journal) -> Result<u32> {
    let decode = |value: &[u8]| value.try_into().ok().map(u32::from_le_bytes);
    Ok(meta(journal, NEXT, decode)?.unwrap_or(1))
}

pub(super) fn key_check(key: &[u8; 32]) -> Vec<u8> {
    blake3::keyed_hash(key, b"aetherfs blob store key check").as_bytes()[..16].to_vec()
}

/// Refuses a store of another key, and one whose index is incomplete. Notes the key in a new store.
pub(super) fn check_state(dir: &Path, key: &[u8; 32], journal: &dyn Journal) -> Result<()> {
    if journal.get(Space::Meta, REBUILDING)?.is_some() {
        return Err(Error::new(
            Reason::Corrupt,
            format!("rebuilding the index of blobs in {} was interrupted", dir.display()),
        )
        .next("rebuild it again: afs-server repair --data DIR"));
    }
    match journal.get(Space::Meta, KEY_CHECK)? {
        Some(check) if check == key_check(key) => Ok(()),
        Some(_) => Err(Error::new(
            Reason::Corrupt,
            format!("{} was made with another tenant key: no blob would be found", dir.display()),
        )
        .next("start with the tenant key this directory was made with; restore the key file from a backup")),
        None => {
            let mut batch = Batch::new();
            batch.put(Space::Meta, KEY_CHECK, key_check(key));
            journal.submit(batch).map(drop)
        }
    }
}
