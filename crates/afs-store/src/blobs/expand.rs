//! Large blobs that an import left compressed in a pack: they get their raw files when they are first read.
//!
//! Why: most of an import's bytes are in large files, and most of those are never read. Keeping them as they came writes a quarter of the bytes.
//! Guarantees: what is read has the blob's hash, expanded or not; several readers expand a blob once; a blob that cannot be expanded (the disk is
//! full) stays readable. The index entry of the raw file replaces that of the record in a group like any other: before, the record is used, after it the file.
//! Deliberately absent: giving back the record's bytes in the pack, which is the garbage collector's work.

use super::location::{Location, Packed};
use super::pending::{Claim, Claimed, Pending};
use super::raw::OpenRaw;
use super::{BlobStore, missing, slice};
use crate::journal::{Batch, Space};
use afs_types::{BlobId, Result};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;

/// What a large blob in a pack is read from.
enum Expanded {
    /// Its raw file, and whether that has its name already.
    Raw(Arc<OpenRaw>, bool),
    /// Memory, because there is no file, or not yet.
    Bytes(Bytes),
    /// The raw file of another blob with the same bytes.
    Same(BlobId),
}

impl BlobStore {
    /// Reads from a large blob that the index said is in a pack.
    pub(super) fn read_expanded(&self, id: &BlobId, at: &Packed, offset: u64, len: usize) -> Result<Bytes> {
        match self.expand(id, at)? {
            Expanded::Raw(open, _) => Ok(self.core.raw.read(id, &open, offset, len)?.into()),
            Expanded::Bytes(bytes) => Ok(slice(&bytes, offset, len)),
            Expanded::Same(other) => self.read(&other, offset, len),
        }
    }

    /// The raw file of such a blob, if it has its name already.
    pub(super) fn expanded_path(&self, id: &BlobId, at: &Packed) -> Result<Option<PathBuf>> {
        match self.expand(id, at)? {
            Expanded::Raw(_, named) => Ok(named.then(|| self.core.raw.path(id))),
            Expanded::Same(other) => self.raw_file(&other),
            Expanded::Bytes(_) => Ok(None),
        }
    }

    fn expand(&self, id: &BlobId, at: &Packed) -> Result<Expanded> {
        let claim = match self.core.pending.claim(id) {
            Claimed::Found(Pending::Raw(new)) => {
                return Ok(Expanded::Raw(Arc::clone(&new.open), new.is_published()));
            }
            Claimed::Found(Pending::Same(other, _)) => return Ok(Expanded::Same(other)),
            // It is not in the index yet: whoever told the caller so was ahead of it.
            Claimed::Found(Pending::Shared(_) | Pending::Owned(..)) => {
                return self.read_small(id, at, None).map(Expanded::Bytes);
            }
            Claimed::Mine(claim) => claim,
        };
        // Another reader may have expanded it since the caller looked.
        let value = self.journal.get(Space::Blob, &id.0)?.ok_or_else(|| missing(id))?;
        let location = Location::decode(id, &value)?;
        match location {
            Location::Raw(shape) => return Ok(Expanded::Raw(self.core.raw.opened(id, &shape)?, true)),
            Location::Same(other, _) => return Ok(Expanded::Same(other)),
            Location::Pack(_) => {}
        }
        let plain = self.decode(id, at, None, false)?;
        match self.write_expanded(claim, id, &plain) {
            Ok(expanded) => Ok(expanded),
            Err(error) => {
                // The read itself has not failed.
                tracing::warn!(blob = %id.to_hex(), ?error, "a large blob stays compressed");
                let bytes = Bytes::from(plain);
                self.small.insert(*id, bytes.clone());
                Ok(Expanded::Bytes(bytes))
            }
        }
    }

    fn write_expanded(&self, claim: Claim<'_>, id: &BlobId, plain: &[u8]) -> Result<Expanded> {
        let (hash, shape) = self.core.raw.hash(plain);
        let expanded = if hash == *id {
            self.reserve.admit(plain.len() as u64)?;
            let mut raw = self.core.raw.write_hashed(plain, hash, shape)?;
            raw.was_packed = true;
            let open = Arc::clone(&raw.open);
            self.store_raw(claim, Arc::new(raw))?;
            Expanded::Raw(open, false)
        } else {
            // An object of a git pack, whose name is not the hash of its bytes. Others may have stored the same bytes.
            self.put_large_hashed(plain, hash, shape)?;
            let len = plain.len() as u64;
            self.core.same.lock().push((*id, hash, len));
            self.core.mark_dirty();
            claim.stored(Pending::Same(hash, len));
            Expanded::Same(hash)
        };
        // An empty batch: it makes the journal call the flushers soon.
        self.journal.submit(Batch::new())?;
        Ok(expanded)
    }
}
