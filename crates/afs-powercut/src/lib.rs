//! Power cuts, simulated: what a disk may hold after the plug was pulled.
//!
//! Killing a process proves nothing about `fsync`, because the kernel still writes what the process had handed over. So this crate puts a disk
//! of its own under an ext4: a file served through FUSE logs every write, every flush and every mark, in order; a loop device turns it into a
//! block device. A **cut** is a position in that log. What was flushed before it is on the disk for certain; of the writes after the last flush a
//! disk may have kept none, the first few, any subset, or torn pieces of 512 bytes, and each of these is a **state** that a test can mount.
//!
//! ```text
//! let cut = PowerCut::start(dir, 256)?;
//! // ... run the system under test below cut.mount_path(); after each operation acknowledged as durable: cut.mark(number)
//! let recording = cut.finish()?;
//! for state in recording.states(seed, 100)? {
//!     let mounted = state?.mount()?;          // ext4 replays its own journal here, as after a real cut
//!     // ... open the system below mounted.path(): every operation up to mounted.marked() must be there
//! }
//! ```
//!
//! Guarantees: the same log and seed give the same states; nothing stays behind, neither mounts nor loop devices nor images, also after a
//! panic, and what a killed process left is swept by the next start. [`Recording::states_of_a_lying_disk`] is the negative control: a disk that
//! ignores flushes, on which every honest suite must fail.
//! Deliberately absent: faults of the disk itself (errors, rot). Needs root, for loop devices and mounts, and says so.

mod disk;
mod mounts;
mod states;
#[cfg(test)]
mod tests;

pub use states::{Fate, Mounted, Recording, State, States};

use disk::{Disk, Log};
use mounts::Scratch;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A running recording: an ext4 on a disk that logs.
pub struct PowerCut {
    log: Arc<Mutex<Log>>,
    /// Unmounts and removes everything when dropped; before `log`'s other owner, the FUSE session inside it, is gone.
    scratch: Scratch,
    armed_at: usize,
    end: Option<usize>,
}

impl PowerCut {
    /// Makes an empty ext4 of `size_mb` MiB (at least 16) on a logging disk, all of it below `dir`, and mounts it.
    ///
    /// # Errors
    /// `PermissionDenied` when not root; otherwise what `mkfs.ext4`, FUSE or `mount` said.
    pub fn start(dir: &Path, size_mb: u64) -> io::Result<Self> {
        mounts::require_root()?;
        mounts::sweep()?;
        let mut scratch = Scratch::create(dir)?;
        let base = scratch.path("base.img");
        mounts::make_ext4(&base, size_mb)?;
        states::copy_sparse(&base, &scratch.path("live.img"))?;
        let log = Arc::new(Mutex::new(Log::create(&scratch.path("writes.log"))?));
        let disk = Disk::open(&scratch.path("live.img"), Arc::clone(&log))?;
        scratch.serve(disk)?;
        scratch.mount_disk()?;
        // Mounting writes to the disk; a cut before the test began would say nothing.
        mounts::sync_file_system(&scratch.path("fs"))?;
        let armed_at = log.lock().len();
        Ok(Self { log, scratch, armed_at, end: None })
    }

    /// Where the system under test lives.
    pub fn mount_path(&self) -> &Path {
        self.scratch.mounted()
    }

    /// Notes that operation `number` has been acknowledged as durable. Numbers need not grow; states report all of them.
    pub fn mark(&self, number: u64) {
        self.log.lock().mark(number);
    }

    /// Cuts fall before this moment: what follows, such as a clean shutdown of the system under test, is no part of the recording.
    pub fn no_cuts_after_this(&mut self) {
        self.end.get_or_insert(self.log.lock().len());
    }

    /// Ends the recording. What the file system writes while it is unmounted is no part of it.
    ///
    /// # Errors
    /// When the file system is still in use, or cannot be unmounted.
    pub fn finish(mut self) -> io::Result<Recording> {
        self.no_cuts_after_this();
        let end = self.end.unwrap_or(self.armed_at);
        self.scratch.stop()?;
        let log = Arc::clone(&self.log);
        Ok(Recording::new(log, self.scratch, self.armed_at, end))
    }
}
