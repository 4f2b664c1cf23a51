//! Places for work in progress, and locks that a dead process cannot keep.
//!
//! Guarantees: a [`Scratch`] directory is removed when it is dropped, and by the next import if its process died;
//! one that a live process uses is never touched. A [`Lock`] is the kernel's (`flock`), so `kill -9` frees it.

use crate::Progress;
use crate::child::cancelled;
use afs_types::{Error, Result, Rng};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A private directory below `dirs.temp`.
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

const PREFIX: &str = "import-";

impl Scratch {
    /// Makes a directory, after removing those that dead processes left.
    pub(crate) fn new(temp: &Path, rng: &dyn Rng) -> Result<Self> {
        let step = |e| Error::io(format_args!("prepare {}", temp.display()), e);
        std::fs::create_dir_all(temp).map_err(step)?;
        // Between mkdir and flock a new directory looks dead: nobody cleans while this is held.
        let gate = open_lock(&temp.join("lock"))?;
        flock(&gate, FlockOperation::LockExclusive).map_err(|e| step(e.into()))?;
        clean(temp).map_err(step)?;
        let mut random = [0; 12];
        rng.fill(&mut random);
        let path = temp.join(random.iter().fold(PREFIX.to_owned(), |text, b| format!("{text}{b:02x}")));
        std::fs::create_dir(&path).map_err(step)?;
        let lock = open_lock(&path.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| step(e.into()))?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If it fails, the next import does it.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn clean(temp: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(temp)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let dead = match File::open(entry.path().join("lock")) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            Err(_) => true,
        };
        if dead {
            // A git child that outlived its process may still write there: then the next import does it.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn open_lock(path: &Path) -> Result<File> {
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
    open.map_err(|e| Error::io(format_args!("open {}", path.display()), e))
}

/// A lock among processes and threads, for as long as the value lives.
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Waits for the lock; gives up when the caller cancels.
    pub(crate) fn take(path: &Path, shared: bool, progress: &dyn Progress) -> Result<Self> {
        let lock = Self { file: open_lock(path)? };
        lock.change(shared, progress)?;
        Ok(lock)
    }

    /// Takes the lock alone if nobody has it.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>> {
        let lock = Self { file: open_lock(path)? };
        match flock(&lock.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(Error::io(format_args!("lock {}", path.display()), e.into())),
        }
    }

    /// Turns it shared or exclusive. Not atomic: someone else may hold it in between.
    pub(crate) fn change(&self, shared: bool, progress: &dyn Progress) -> Result<()> {
        let how = match shared {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            match flock(&self.file, how) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("lock the mirror", e.into())),
            }
            if progress.cancelled() {
                return Err(cancelled());
            }
            progress.update("waiting for another import of the same source", 0, None);
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let sync = File::open(path).and_then(|dir| dir.sync_all());
    sync.map_err(|e| Error::io(format_args!("sync {}", path.display()), e))
}

/// Makes a directory and everything below it durable.
pub(crate) fn sync_tree(dir: &Path) -> Result<()> {
    let failed = |e| Error::io(format_args!("sync {}", dir.display()), e);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path()).and_then(|file| file.sync_all()).map_err(failed)?;
        }
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use afs_types::SystemRng;

    #[test]
    fn only_the_dead_are_cleaned() {
        let dir = tempfile::tempdir().unwrap();
        let live = Scratch::new(dir.path(), &SystemRng).unwrap();
        let dead = dir.path().join("import-dead");
        std::fs::create_dir_all(dead.join("sub")).unwrap();
        std::fs::write(dead.join("lock"), "").unwrap();
        let other = Scratch::new(dir.path(), &SystemRng).unwrap();
        assert!(live.path().exists() && other.path().exists() && !dead.exists());
        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }
}
