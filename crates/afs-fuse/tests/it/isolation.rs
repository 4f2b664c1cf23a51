//! A mount namespace per test thread (as root): tests that sweep, list or copy mounts neither see nor disturb those of
//! other tests, of a server on this machine, or of its user. What is mounted inside ends with the thread at the latest.
#![allow(unsafe_code)]

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::cell::Cell;

thread_local! { static IS_ISOLATED: Cell<bool> = const { Cell::new(false) }; }

/// Call it before the first mount. Without root, mounts are shared with the rest of the machine.
pub(crate) fn isolate() {
    if !rustix::process::geteuid().is_root() || IS_ISOLATED.replace(true) {
        return;
    }
    // SAFETY: only FILES is dangerous (descriptors of other threads); a mount namespace of its own changes for this
    // thread, and those that it starts, nothing but which mounts it sees.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
    for mount in afs_fuse::mounts().unwrap() {
        // Only our copy of it goes.
        unmount(&mount.dir, UnmountFlags::DETACH).unwrap();
    }
}
