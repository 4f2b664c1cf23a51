//! Attributes and errors as messages.

use afs_proto::v1;
use afs_session::Attr;
use afs_types::Error;

/// Attributes of an inode.
pub(crate) fn attributes(attr: &Attr) -> v1::Attributes {
    v1::Attributes {
        inode: attr.ino,
        size: attr.size,
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        mtime_ns: attr.mtime_ns,
        ctime_ns: attr.ctime_ns,
        rdev: attr.rdev.into(),
        atime_ns: attr.atime_ns,
        blocks: attr.blocks,
        version: attr.version,
    }
}

/// An operation that failed.
pub(crate) fn failed(op_id: u64, error: &Error) -> v1::OpResult {
    v1::OpResult {
        op_id,
        errno: error.errno(),
        reason: error.reason.as_str().into(),
        message: error.message().into(),
        ..Default::default()
    }
}
