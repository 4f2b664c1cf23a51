//! The mark file: the newest head, outside of RocksDB. Two slots, written in turn, each in a sector of its own and with its own checksum: a
//! torn write spoils the older one's successor and never both.
//!
//! ```text
//! slot at 0 and at 4096: magic "AFSMARK\x01" | turn u64 | epoch u32 | zero u32 | idx u64 | hash [32] | BLAKE3 of the 64 bytes before [32]
//! ```
//! Guarantees: `write` costs one `pwrite` into allocated space; what it wrote is seen after the death of the process, and after a power cut once `sync` returned.
//! The mark never says more than is durable in RocksDB: it is written after each commit.

use crate::errors::corrupt;
use afs_types::{Error, Result};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"AFSMARK\x01";
const SLOT: u64 = 4096;
const BODY: usize = 64;
const LEN: usize = BODY + 32;

/// Where the journal stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Head {
    pub(crate) epoch: u32,
    pub(crate) idx: u64,
    /// Chained over all groups.
    pub(crate) hash: [u8; 32],
}

impl Head {
    /// The value of `head` in `Space::Meta`: epoch u32, idx u64, little endian, hash.
    pub(crate) fn encode(&self) -> [u8; 44] {
        let mut out = [0; 44];
        out[..4].copy_from_slice(&self.epoch.to_le_bytes());
        out[4..12].copy_from_slice(&self.idx.to_le_bytes());
        out[12..].copy_from_slice(&self.hash);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk::<4>()?;
        let (idx, rest) = rest.split_first_chunk::<8>()?;
        let hash = rest.try_into().ok()?;
        Some(Self { epoch: u32::from_le_bytes(*epoch), idx: u64::from_le_bytes(*idx), hash })
    }

    /// The head after a group.
    pub(crate) fn next(&self, epoch: u32, idx: u64, group: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.encode()).update(&epoch.to_le_bytes()).update(&idx.to_le_bytes()).update(group);
        Self { epoch, idx, hash: *hasher.finalize().as_bytes() }
    }

    pub(crate) fn place(&self) -> (u32, u64) {
        (self.epoch, self.idx)
    }
}

/// The open mark file.
pub(crate) struct MarkFile {
    file: File,
    path: PathBuf,
    turn: u64,
}

impl MarkFile {
    /// Opens the file and reads the newest mark; none if there is no file. `Corrupt` if no slot can be read.
    pub(crate) fn open(dir: &Path) -> Result<Option<(Self, Head)>> {
        let path = dir.join("MARK");
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(format_args!("open {}", path.display()), e)),
        };
        let newest =
            [0, SLOT].into_iter().filter_map(|at| read_slot(&file, at)).max_by_key(|(turn, _)| *turn);
        let (turn, head) = newest.ok_or_else(|| corrupt(dir, "no slot of MARK can be read"))?;
        Ok(Some((Self { file, path, turn }, head)))
    }

    /// Makes the file, durably, saying that nothing has happened yet.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        let path = dir.join("MARK");
        let temp = dir.join("MARK.new");
        let made = (|| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temp)?;
            // Allocated and written once, so that no later write changes the file's metadata.
            file.write_all_at(&[0; 2 * SLOT as usize], 0)?;
            file.write_all_at(&slot(0, &Head::default()), 0)?;
            file.sync_all()?;
            std::fs::rename(&temp, &path)?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        })();
        let file = made.map_err(|e| Error::io(format_args!("create {}", path.display()), e))?;
        Ok(Self { file, path, turn: 0 })
    }

    /// Notes a head that is durable in RocksDB.
    pub(crate) fn write(&mut self, head: &Head) -> Result<()> {
        self.turn += 1;
        let written = self.file.write_all_at(&slot(self.turn, head), (self.turn % 2) * SLOT);
        written.map_err(|e| Error::io(format_args!("write {}", self.path.display()), e))
    }

    /// Another handle to sync, so that nobody has to wait who writes meanwhile.
    pub(crate) fn handle(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| Error::io(format_args!("open {}", self.path.display()), e))
    }
}

fn slot(turn: u64, head: &Head) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[..8].copy_from_slice(MAGIC);
    out[8..16].copy_from_slice(&turn.to_le_bytes());
    out[16..20].copy_from_slice(&head.epoch.to_le_bytes());
    out[24..32].copy_from_slice(&head.idx.to_le_bytes());
    out[32..BODY].copy_from_slice(&head.hash);
    let check = blake3::hash(&out[..BODY]);
    out[BODY..].copy_from_slice(check.as_bytes());
    out
}

fn read_slot(file: &File, at: u64) -> Option<(u64, Head)> {
    let mut bytes = [0; LEN];
    file.read_exact_at(&mut bytes, at).ok()?;
    let right = bytes[..8] == *MAGIC && bytes[BODY..] == *blake3::hash(&bytes[..BODY]).as_bytes();
    if !right {
        return None;
    }
    let turn = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
    let epoch = u32::from_le_bytes(bytes[16..20].try_into().ok()?);
    let idx = u64::from_le_bytes(bytes[24..32].try_into().ok()?);
    Some((turn, Head { epoch, idx, hash: bytes[32..BODY].try_into().ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use afs_types::Reason;

    fn head(idx: u64) -> Head {
        Head { epoch: 3, idx, hash: [idx as u8; 32] }
    }

    #[test]
    fn the_newest_mark_is_read_and_a_torn_one_falls_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(MarkFile::open(dir.path()).unwrap().is_none());
        let mut mark = MarkFile::create(dir.path()).unwrap();
        assert_eq!(MarkFile::open(dir.path()).unwrap().unwrap().1, Head::default());
        for idx in 1..10 {
            mark.write(&head(idx)).unwrap();
            let (again, found) = MarkFile::open(dir.path()).unwrap().unwrap();
            assert_eq!(found, head(idx));
            mark = again;
        }
        // Any damage to the newest slot leaves the one before.
        let newest = (mark.turn % 2) * SLOT;
        for at in 0..LEN as u64 {
            let mut byte = [0];
            mark.file.read_exact_at(&mut byte, newest + at).unwrap();
            mark.file.write_all_at(&[byte[0] ^ 1], newest + at).unwrap();
            assert_eq!(MarkFile::open(dir.path()).unwrap().unwrap().1, head(8));
            mark.file.write_all_at(&byte, newest + at).unwrap();
        }
        mark.file.write_all_at(&[0; LEN], 0).unwrap();
        mark.file.write_all_at(&[0; LEN], SLOT).unwrap();
        assert_eq!(MarkFile::open(dir.path()).map(drop).unwrap_err().reason, Reason::Corrupt);
    }

    #[test]
    fn heads_survive_and_chain() {
        let a = Head::default().next(1, 5, b"group");
        assert_eq!(Head::decode(&a.encode()), Some(a));
        assert_eq!(Head::decode(&a.encode()[1..]), None);
        for other in [
            Head::default().next(1, 5, b"groups"),
            Head::default().next(1, 6, b"group"),
            a.next(1, 5, b"group"),
        ] {
            assert_ne!(a.hash, other.hash);
        }
    }
}
