//! RocksDB's errors as ours: what happened, to which directory, and the way out.

use afs_types::{Error, Reason};
use rocksdb::ErrorKind;
use std::path::Path;

/// The error for a failed `action` ("open") on the database in `dir`.
pub(crate) fn rocks(action: &str, dir: &Path, error: rocksdb::Error) -> Error {
    let text = error.to_string();
    let reason = match error.kind() {
        // Reported in words only.
        _ if text.contains("No space left on device") || text.contains("Disk quota exceeded") => {
            Reason::NoSpace
        }
        _ if text.contains("lock") && text.contains("LOCK") => Reason::InUse,
        ErrorKind::Corruption => Reason::Corrupt,
        _ => Reason::Io,
    };
    let shown = dir.display().to_string();
    let message = format!("{action} the journal in {shown}: {text}");
    let result = Error::new(reason, message).with("dir", shown.clone()).caused_by(error);
    match reason {
        Reason::Corrupt => result.next(restore(dir)),
        Reason::NoSpace => {
            result.next(format!("free disk space on the file system of {shown}, then start again"))
        }
        Reason::InUse => result.next("stop the other server first, or use another directory"),
        _ => result,
    }
}

/// The journal is not what was acknowledged.
pub(crate) fn corrupt(dir: &Path, what: impl std::fmt::Display) -> Error {
    let shown = dir.display().to_string();
    Error::new(Reason::Corrupt, format!("the journal in {shown} is damaged: {what}"))
        .with("dir", shown)
        .next(restore(dir))
}

fn restore(dir: &Path) -> String {
    format!(
        "nothing was changed or rolled back; restore {} (`rocks` and `MARK` together) from a backup",
        dir.display()
    )
}
