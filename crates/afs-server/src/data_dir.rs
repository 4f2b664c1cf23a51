//! The data directory: one server at a time, one format, one key.
//!
//! Guarantees: a second server on the same directory is refused; a newer format is refused with the version needed;
//! the tenant key is on disk before a blob is named by it, and readable by its owner only.

use afs_types::{Error, Reason, Result, Rng};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The format this program writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

/// An opened and locked data directory.
pub(crate) struct DataDir {
    path: PathBuf,
    key: [u8; 32],
    /// Held for its lock.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct FormatFile {
    format: u32,
    min_reader: u32,
    created_by: String,
}

impl DataDir {
    /// Makes it if it is not there, locks it, checks its format, reads its key.
    pub(crate) fn open(path: &Path, rng: &dyn Rng) -> Result<Self> {
        fs::create_dir_all(path)
            .map_err(|e| Error::io(format!("create data directory {}", path.display()), e))?;
        let path = path.canonicalize().map_err(|e| Error::io(format!("resolve {}", path.display()), e))?;
        let lock = lock(&path)?;
        format(&path)?;
        let key = key(&path, rng)?;
        Ok(Self { path, key, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    /// Where the journal lives.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }
    /// Where blobs live.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }
    /// Where base tables and git mirrors live.
    pub(crate) fn engine(&self) -> PathBuf {
        self.path.join("engine")
    }
    /// Names blobs.
    pub(crate) fn tenant_key(&self) -> [u8; 32] {
        self.key
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let open = OpenOptions::new().create(true).truncate(false).write(true).read(true).open(&path);
    let mut file = open.map_err(|e| Error::io(format!("open {}", path.display()), e))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder); // only to say who
            return Err(Error::new(
                Reason::InUse,
                format!("{} is used by another server (process {})", dir.display(), holder.trim()),
            )
            .next("stop that server, or choose another data directory"));
        }
        Err(e) => return Err(Error::io(format!("lock {}", path.display()), e.into())),
    }
    let named = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    named.map_err(|e| Error::io(format!("write {}", path.display()), e))?;
    Ok(file)
}

fn format(dir: &Path) -> Result<()> {
    let path = dir.join("FORMAT");
    let damaged = |e: String| {
        Error::new(Reason::Corrupt, format!("{}: {e}", path.display()))
            .next("restore the data directory from a backup")
    };
    match fs::read(&path) {
        Ok(bytes) => {
            let found: FormatFile = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
            if found.min_reader > FORMAT {
                return Err(Error::new(
                    Reason::Unsupported,
                    format!(
                        "{} has format {}, this program reads up to {FORMAT}",
                        dir.display(),
                        found.format
                    ),
                )
                .next(format!("use the version that made it ({}) or a newer one", found.created_by)));
            }
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if dir.join("journal").exists() {
                return Err(damaged("it is missing, but there is data".into()));
            }
            let created_by = concat!("afs-server ", env!("CARGO_PKG_VERSION")).to_owned();
            let new = FormatFile { format: FORMAT, min_reader: FORMAT, created_by };
            let text = serde_json::to_vec(&new).map_err(|e| Error::new(Reason::Internal, e.to_string()))?;
            write_durably(&path, &text, 0o644)
        }
        Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
    }
}

fn key(dir: &Path, rng: &dyn Rng) -> Result<[u8; 32]> {
    let path = dir.join("tenant.key");
    match fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|_| {
            Error::new(Reason::Corrupt, format!("{} does not have 32 bytes", path.display()))
                .next("restore it from a backup: without it no blob can be found")
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !dir.join("blobs").exists() => {
            let mut key = [0; 32];
            rng.fill(&mut key);
            write_durably(&path, &key, 0o600)?;
            Ok(key)
        }
        Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
    }
}

/// Temporary name, fsync, rename, fsync of the directory.
fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temp = path.with_extension("new");
    let written = (|| {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    })();
    written.map_err(|e| Error::io(format!("write {}", path.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use afs_types::SystemRng;

    #[test]
    fn one_server_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), &SystemRng).unwrap();
        let error = DataDir::open(dir.path(), &SystemRng).err().unwrap();
        assert_eq!(error.reason, Reason::InUse);
        assert!(error.message().contains(&std::process::id().to_string()), "{error}");
        let key = first.tenant_key();
        drop(first);
        assert_eq!(DataDir::open(dir.path(), &SystemRng).unwrap().tenant_key(), key);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), &SystemRng).unwrap());
        let newer = r#"{"format": 9, "min_reader": 9, "created_by": "afs-server 9"}"#;
        fs::write(dir.path().join("FORMAT"), newer).unwrap();
        let error = DataDir::open(dir.path(), &SystemRng).err().unwrap();
        assert_eq!(error.reason, Reason::Unsupported);
        assert!(error.next_step().contains("afs-server 9"));
        fs::write(dir.path().join("FORMAT"), "?").unwrap();
        assert_eq!(DataDir::open(dir.path(), &SystemRng).err().unwrap().reason, Reason::Corrupt);
        fs::remove_file(dir.path().join("FORMAT")).unwrap();
        fs::create_dir(dir.path().join("journal")).unwrap();
        assert_eq!(DataDir::open(dir.path(), &SystemRng).err().unwrap().reason, Reason::Corrupt);
    }
}
