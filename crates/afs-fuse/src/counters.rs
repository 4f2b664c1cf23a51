//! How many requests of each kind the kernel has sent, so that a test can show what a tool really does
//! ("`git status` reads no file content") and `aether status` can say where time goes.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Default)]
        pub(crate) struct Counting { $(pub(crate) $name: Count,)* }

        /// Requests since the mount began.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counting {
            pub(crate) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.get(),)* }
            }
        }

        impl Counters {
            /// Every counter with its name, for metrics and status.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
            /// What happened between an earlier snapshot and this one.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(earlier.$name),)* }
            }
        }
    };
}

counters! {
    /// Name look-ups, found or not.
    lookups,
    /// Look-ups that found nothing.
    negative_lookups,
    /// Inodes dropped by the kernel.
    forgets,
    /// Attribute reads.
    getattrs,
    /// Attribute changes.
    setattrs,
    /// Symbolic links read.
    readlinks,
    /// Files, directories, links and device nodes made.
    creates,
    /// Names removed.
    removes,
    /// Renames.
    renames,
    /// Files opened.
    opens,
    /// Opens that kept the kernel's cached pages.
    opens_cached,
    /// Read requests.
    reads,
    /// Bytes answered to read requests.
    read_bytes,
    /// Write requests.
    writes,
    /// Bytes taken from write requests.
    write_bytes,
    /// Closes of a descriptor that reached us.
    flushes,
    /// Closes of the last descriptor.
    releases,
    /// `fsync`, `fdatasync`, of files and directories.
    fsyncs,
    /// Directories opened.
    opendirs,
    /// Directory reads.
    readdirs,
    /// Directory entries answered.
    readdir_entries,
    /// Size and use asked for.
    statfs,
    /// Extended attribute operations.
    xattrs,
    /// `fallocate`.
    fallocates,
    /// `lseek` for data or holes.
    seeks,
    /// Ranges copied inside of the file system.
    copy_ranges,
    /// Questions what has changed.
    questions,
    /// `ioctl`, all refused.
    ioctls,
    /// Requests answered with an error other than "no such name" and "no such attribute".
    errors,
    /// Requests during which the file system panicked.
    panics,
    /// Invalidations of an inode sent to the kernel.
    inode_invalidations,
    /// Invalidations of a name sent to the kernel.
    entry_invalidations,
    /// Invalidations of everything, asked for or because the queue was full.
    full_invalidations,
}

/// One counter.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.add(1);
    }
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
