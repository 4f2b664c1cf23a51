//! [`afs_types::Error`] to errno, and the log entry for those that are our fault.

use afs_types::{Error, Kind, Reason};
use fuser::Errno;
use std::io;

/// The errno for the process; faults of ours are logged here, once, because a process sees only `EIO`.
pub(crate) fn errno(operation: &'static str, error: &Error) -> Errno {
    match error.reason.kind() {
        Kind::Internal => tracing::error!(operation, error = ?error, "a mount request failed"),
        Kind::Unavailable => tracing::warn!(operation, error = ?error, "a mount request could not be served"),
        Kind::Invalid | Kind::NotFound | Kind::Conflict | Kind::Denied | Kind::Exhausted => {
            tracing::debug!(operation, error = ?error, "a mount request was refused");
        }
    }
    Errno::from_i32(error.errno())
}

/// An error of the operating system while mounting or unmounting.
pub(crate) fn system(action: impl std::fmt::Display, source: io::Error) -> Error {
    let reason = match source.raw_os_error() {
        Some(libc::ENOENT) => Reason::NotFound,
        Some(libc::ENOTDIR) => Reason::NotADirectory,
        Some(libc::EACCES) => Reason::PermissionDenied,
        Some(libc::EPERM) => Reason::NotPermitted,
        Some(libc::EBUSY) => Reason::InUse,
        Some(libc::ENODEV) => Reason::Unsupported,
        _ => return Error::io(action, source),
    };
    Error::new(reason, format!("{action}: {source}")).caused_by(source)
}
