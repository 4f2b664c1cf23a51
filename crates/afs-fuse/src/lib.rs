//! A kernel mount of anything that implements the small trait [`Vfs`].
//!
//! Guarantees:
//! - the kernel may trust what it was told for as long as [`Caps`] says, because every change by others is
//!   taken back explicitly by a dedicated thread that holds no lock ([`Invalidation`]);
//! - a panic or an error in a file system is an errno for one request, never a mount that hangs;
//! - a killed process leaves at worst a mount that answers `ENOTCONN`, which the next [`mount`] at that place,
//!   or [`sweep`], removes;
//! - unmounting ends within a bounded time, busy or not.
//!
//! A file system that knows its changes answers git's fsmonitor question through files that nobody sees ([`CHANGES_PREFIX`]).
//!
//! Permissions are checked by the kernel (`default_permissions`), from the attributes the file system gives.
//!
//! Deliberately absent: rules of any kind (they are behind the trait), write-back in the kernel (it breaks
//! changes by others: 6 of 22 bytes seen in a test), locks across mounts (`flock` and `fcntl` are this kernel's own), fd passthrough
//! and io_uring (later, behind the same trait).

mod adapter;
mod counters;
mod device;
mod dispatch;
mod errors;
mod git_place;
mod holders;
mod known;
mod malloc;
mod mount;
mod mount_table;
mod notifier;
mod pack;
mod questions;
mod vfs;

pub use counters::Counters;
pub use mount::{MountOptions, Mounted, mount};
pub use mount_table::{Health, MountEntry, health, mounts, resolve, server_name, sweep, unmount_path};
pub use questions::CHANGES_PREFIX;
pub use vfs::{
    Allocate, AllocateAction, Attr, Caller, Caps, Changes, CopyRange, DirEntry, DirSink, Invalidation,
    InvalidationSink, OpenMode, Opened, RenameMode, Seek, SetAttr, SetTime, StatFs, Vfs, WatchGuard,
    WriteMode, Written, XattrMode,
};
