//! The data directory: one server at a time, one format, one key.
//!
//! Guarantees: a second server on the same directory is refused; a newer format is refused with the version needed;
//! the tenant key is on disk before a blob is named by it; and nobody but the server's user reads anything here: what sessions hold, and the
//! passwords in sources' addresses, which the journal has as they were given. A data directory that an earlier version made readable for
//! others is closed to them, which takes nothing from the server. Any other directory with something in it, which might be everybody's, is
//! left as it is and refused.

use afs_types::{Error, Reason, Result, Rng};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
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
        make(path).map_err(|e| Error::io(format!("create data directory {}", path.display()), e))?;
        let path = path.canonicalize().map_err(|e| Error::io(format!("resolve {}", path.display()), e))?;
        keep_private(&path)?;
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

/// Makes the directory for this user only, and those above it, which are not ours, as usual.
fn make(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What others may do with the directory is taken from them, or it is refused.
fn keep_private(dir: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("look at {}", dir.display()), e);
    let mode = fs::metadata(dir).map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let refused = |why: String| {
        Error::new(Reason::PermissionDenied, format!("{} has mode {mode:o}: {why}", dir.display()))
            .with("field", "data_dir")
            .next(format!(
                "run `chmod 700 {}` if only the server uses it, or name another directory",
                dir.display()
            ))
    };
    // A file of that name alone says nothing: what it holds does. One that is damaged, or of a newer version, is ours to complain of
    // but nobody's to change.
    let is_ours = read_format(dir)?.is_some() || fs::read_dir(dir).map_err(failed)?.next().is_none();
    if !is_ours {
        return Err(refused(
            "others can read it, and there is something in it that the server has not made".into(),
        ));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode & !0o077))
        .map_err(|e| refused(format!("others can read it, and that cannot be changed: {e}")))?;
    tracing::warn!(dir = %dir.display(), "others could read the data directory: closed to them");
    Ok(())
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

fn damaged(format: &Path, why: &str) -> Error {
    Error::new(Reason::Corrupt, format!("{}: {why}", format.display()))
        .next("restore the data directory from a backup, or name another one if this is none of a server's")
}

/// The directory's format, if it has one that this program reads. Changes nothing.
fn read_format(dir: &Path) -> Result<Option<FormatFile>> {
    let path = dir.join("FORMAT");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("read {}", path.display()), e)),
    };
    let found: FormatFile = serde_json::from_slice(&bytes).map_err(|e| damaged(&path, &e.to_string()))?;
    if found.min_reader > FORMAT {
        return Err(Error::new(
            Reason::Unsupported,
            format!("{} has format {}, this program reads up to {FORMAT}", dir.display(), found.format),
        )
        .next(format!("use the version that made it ({}) or a newer one", found.created_by)));
    }
    Ok(Some(found))
}

fn format(dir: &Path) -> Result<()> {
    if read_format(dir)?.is_some() {
        return Ok(());
    }
    let path = dir.join("FORMAT");
    if dir.join("journal").exists() {
        return Err(damaged(&path, "it is missing, but there is data"));
    }
    let created_by = concat!("afs-server ", env!("CARGO_PKG_VERSION")).to_owned();
    let new = FormatFile { format: FORMAT, min_reader: FORMAT, created_by };
    let text = serde_json::to_vec(&new).map_err(|e| Error::new(Reason::Internal, e.to_string()))?;
    write_durably(&path, &text, 0o644)
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

    fn mode(dir: &Path) -> u32 {
        fs::metadata(dir).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(dir: &Path, mode: u32) {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_data_directory_is_its_owner_s_alone() {
        let above = tempfile::tempdir().unwrap();
        let (dir, parent) = (above.path().join("a/b/data"), above.path().join("a/b"));
        drop(DataDir::open(&dir, &SystemRng).unwrap());
        fs::create_dir(above.path().join("usual")).unwrap();
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(
            mode(&parent),
            mode(&above.path().join("usual")),
            "only the directory itself is the server's"
        );
        // As an earlier version left it, and one that was made for the server.
        set_mode(&dir, 0o2755);
        drop(DataDir::open(&dir, &SystemRng).unwrap());
        assert_eq!(mode(&dir), 0o2700, "closed, and nothing else changed");
        let empty = above.path().join("empty");
        fs::create_dir(&empty).unwrap();
        set_mode(&empty, 0o750);
        drop(DataDir::open(&empty, &SystemRng).unwrap());
        assert_eq!(mode(&empty), 0o700);
        // Somebody's directory, named by mistake.
        let shared = above.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("theirs"), "").unwrap();
        set_mode(&shared, 0o1777);
        let error = DataDir::open(&shared, &SystemRng).err().unwrap();
        assert_eq!(error.reason, Reason::PermissionDenied);
        assert!(error.next_step().contains("chmod 700"), "{error:?}");
        assert_eq!(
            (mode(&shared), fs::read_dir(&shared).unwrap().count()),
            (0o1777, 1),
            "nothing was touched"
        );
    }

    #[test]
    fn a_directory_with_somebody_s_file_of_that_name_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let newer = r#"{"format": 9, "min_reader": 9, "created_by": "afs-server 9"}"#;
        let theirs =
            [("their format\n", Reason::Corrupt), ("", Reason::Corrupt), (newer, Reason::Unsupported)];
        for (text, reason) in theirs {
            fs::write(dir.path().join("FORMAT"), text).unwrap();
            set_mode(dir.path(), 0o1777);
            assert_eq!(
                DataDir::open(dir.path(), &SystemRng).err().map(|e| e.reason),
                Some(reason),
                "{text:?}"
            );
            assert_eq!(
                (mode(dir.path()), fs::read_dir(dir.path()).unwrap().count()),
                (0o1777, 1),
                "nothing was touched: {text:?}"
            );
        }
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
