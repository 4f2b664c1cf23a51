//! A directory of this machine becomes a base.
//!
//! Guarantees: nothing outside of the directory is read, however its names are swapped during the walk: every name is
//! opened from its directory's descriptor, and symbolic links are never followed; what cannot be read is an error that
//! names it; open descriptors are bounded. A file that changes while it is read is read again, a few times.
//! Deliberately absent: extended attributes, and ignoring anything: a `.git` in it is imported as the files it is.

use crate::child::cancelled;
use crate::local_read::{Found, Reading, read_dir};
use crate::sink::Target;
use crate::url::path_bytes;
use crate::{ImportDirs, Imported, Progress};
use afs_core::base::{BaseBuilder, NewEntry, NodeHandle, NodeKind};
use afs_store::BlobStore;
use afs_types::{Error, Name, Reason, Result, limits};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// A directory that waits to be read.
pub(crate) struct Task {
    /// Number of the directory; the root is 0.
    pub(crate) dir: u32,
    /// Path from the root.
    pub(crate) path: Arc<Steps>,
    /// The parent's descriptor, unless too many are open; then the path is walked from the root.
    pub(crate) parent: Option<Arc<OwnedFd>>,
}

/// A path as a chain, so that siblings share it.
pub(crate) struct Steps {
    pub(crate) up: Option<Arc<Steps>>,
    pub(crate) name: Box<[u8]>,
    pub(crate) depth: usize,
}

/// The state that the threads of a walk share.
pub(crate) struct Walk<'a> {
    root: OwnedFd,
    root_path: &'a Path,
    queue: Mutex<Queue>,
    changed: Condvar,
    pub(crate) dirs: AtomicU64,
    pub(crate) files: AtomicU64,
    /// Read so far, those of the files under way too.
    bytes: AtomicU64,
    /// Inodes with several names that some thread has read or is reading.
    claimed: Mutex<HashSet<(u64, u64)>>,
    /// Our own directories: importing them would never end.
    own: Vec<(u64, u64)>,
    pub(crate) progress: &'a dyn Progress,
}

#[derive(Default)]
struct Queue {
    /// The newest first, so that few descriptors wait.
    tasks: Vec<Task>,
    working: usize,
    stop: bool,
}

/// How many bytes make a word of progress: a tenth of a second or less.
const TELL_BYTES: u64 = 8 << 20;

/// Directories that wait with their parent's descriptor open.
const MAX_WAITING_OPEN: usize = 200;

/// Imports the directory at `path`.
pub(crate) fn import(
    path: &Path,
    dirs: &ImportDirs,
    blobs: &Arc<BlobStore>,
    mut builder: BaseBuilder,
    progress: &dyn Progress,
) -> Result<Imported> {
    let shown = || Name::lossy(path_bytes(path));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| match e {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
            Error::new(Reason::SourceUnavailable, format!("{}: {e}", shown()))
                .next("name a directory that exists on the server")
        }
        e => unreadable(path_bytes(path), e),
    })?;
    let own = [&dirs.mirrors, &dirs.temp].into_iter().filter_map(|d| std::fs::metadata(d).ok());
    let attributes = rustix::fs::fstat(&root).map_err(|e| unreadable(path_bytes(path), e))?;
    let walk = Walk {
        root,
        root_path: path,
        queue: Mutex::default(),
        changed: Condvar::new(),
        dirs: AtomicU64::new(1),
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        claimed: Mutex::default(),
        own: own.map(|m| (m.dev(), m.ino())).collect(),
        progress,
    };
    let target = Target::new(blobs);
    walk.tell();
    let found = walk.run(&target)?;
    progress.update("writing the table", 0, None);
    builder.root(Found::of(b"", &attributes).entry(NodeKind::Dir));
    assemble(&mut builder, found)?;
    crate::finish(builder, target.stored_bytes())
}

/// The error for what cannot be opened or read.
pub(crate) fn unreadable(path: &[u8], e: rustix::io::Errno) -> Error {
    let shown = Name::lossy(path);
    let reason = match e {
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => Reason::PermissionDenied,
        _ => Reason::Io,
    };
    Error::new(reason, format!("read {shown}: {e}"))
        .with("path", shown)
        .next("make it readable for the server, or move it out of the directory, and import again")
}

/// Puts what the threads found into the builder, directory by directory from the root.
fn assemble(builder: &mut BaseBuilder, mut found: Vec<(u32, Vec<Found>)>) -> Result<()> {
    found.sort_unstable_by_key(|(dir, _)| *dir);
    // Whichever thread met a name first read the content; whichever name comes first here becomes the inode.
    let mut contents: HashMap<(u64, u64), (u64, Option<afs_types::BlobId>)> = HashMap::new();
    for file in found.iter().flat_map(|(_, files)| files) {
        if let (Some(key), Some(blob)) = (file.link, file.content) {
            contents.insert(key, (file.size, blob));
        }
    }
    let mut dirs: HashMap<u32, NodeHandle> = HashMap::from([(0, BaseBuilder::ROOT)]);
    let mut inodes: HashMap<(u64, u64), NodeHandle> = HashMap::new();
    for (dir, files) in found {
        // A directory's number is given by its parent's reader, so it is larger.
        let parent = dirs.get(&dir).copied().ok_or_else(|| Error::bare(Reason::Internal))?;
        for mut file in files {
            if let Some(inode) = file.link.and_then(|key| inodes.get(&key)) {
                builder.add(parent, &file.name, NewEntry::hard_link(*inode))?;
                continue;
            }
            if let Some((size, blob)) = file.link.and_then(|key| contents.get(&key)) {
                (file.size, file.content) = (*size, Some(*blob));
            }
            let kind = file.kind();
            let handle = builder.add(parent, &file.name, file.entry(kind))?;
            if let Some(key) = file.link {
                inodes.insert(key, handle);
            }
            if let Some(sub) = file.dir {
                dirs.insert(sub, handle);
            }
        }
    }
    Ok(())
}

impl Walk<'_> {
    fn run(&self, target: &Target<'_>) -> Result<Vec<(u32, Vec<Found>)>> {
        let root = Arc::new(Steps { up: None, name: Box::default(), depth: 0 });
        self.queue().tasks.push(Task { dir: 0, path: root, parent: None });
        let worker = || {
            let done = self.work(target);
            if done.is_err() {
                self.queue().stop = true;
                self.changed.notify_all();
            }
            done
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..crate::threads()).map(|_| scope.spawn(worker)).collect();
            let mut found = worker();
            for thread in others {
                let more = thread.join().unwrap_or_else(|_| Err(Error::bare(Reason::Internal)));
                found = found.and_then(|mut all| {
                    all.extend(more?);
                    Ok(all)
                });
            }
            found
        })
    }

    fn work(&self, target: &Target<'_>) -> Result<Vec<(u32, Vec<Found>)>> {
        let mut found = Vec::new();
        let mut sink = target.sink()?;
        let mut reading = Reading::new(self);
        while let Some(task) = self.take() {
            let read = match self.progress.cancelled() {
                true => Err(cancelled()),
                false => read_dir(self, &task, &mut reading, &mut sink),
            };
            let (files, more) = match read {
                Ok(read) => read,
                Err(e) => {
                    self.put(Vec::new());
                    return Err(e);
                }
            };
            found.push((task.dir, files));
            self.put(more);
        }
        sink.finish()?;
        Ok(found)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The next directory; none when all are read or a thread failed.
    fn take(&self) -> Option<Task> {
        let mut queue = self.queue();
        loop {
            if queue.stop || (queue.tasks.is_empty() && queue.working == 0) {
                return None;
            }
            if let Some(task) = queue.tasks.pop() {
                queue.working += 1;
                return Some(task);
            }
            queue = self.changed.wait(queue).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// A directory is done and these are in it.
    fn put(&self, more: Vec<Task>) {
        let mut queue = self.queue();
        queue.working -= 1;
        for mut task in more {
            if queue.tasks.len() >= MAX_WAITING_OPEN {
                task.parent = None;
            }
            queue.tasks.push(task);
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Bytes were read. An error if nobody wants the rest.
    pub(crate) fn stored(&self, bytes: u64) -> Result<()> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before / TELL_BYTES == (before + bytes) / TELL_BYTES {
            return Ok(());
        }
        self.tell();
        if self.progress.cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Says how far it is. Bytes, since files may be of any size.
    pub(crate) fn tell(&self) {
        let files = self.files.load(Ordering::Relaxed);
        self.progress.bytes(&format!("storing files ({files} so far)"), self.bytes.load(Ordering::Relaxed));
    }

    /// True for the first name of an inode: its finder reads the content.
    pub(crate) fn claim(&self, inode: (u64, u64)) -> bool {
        self.claimed.lock().unwrap_or_else(|e| e.into_inner()).insert(inode)
    }

    /// Refuses the server's own directories.
    pub(crate) fn check_dir(&self, task: &Task, inode: (u64, u64)) -> Result<()> {
        if task.path.depth > limits::MAX_PATH_DEPTH {
            return Err(crate::hostile::hostile(
                &self.path_of(&task.path),
                "more than 1024 directories deep",
            ));
        }
        if self.dirs.load(Ordering::Relaxed) + self.files.load(Ordering::Relaxed) > limits::MAX_BASE_ENTRIES {
            let text = format!("the directory has more than {} entries", limits::MAX_BASE_ENTRIES);
            return Err(Error::new(Reason::QuotaExceeded, text).with("limit", "MAX_BASE_ENTRIES"));
        }
        if self.own.contains(&inode) {
            let shown = Name::lossy(&self.path_of(&task.path));
            return Err(Error::invalid(
                "path",
                format_args!("a directory that does not hold {shown}, the server's own"),
            )
            .with("path", shown));
        }
        Ok(())
    }

    /// Opens a directory without following a symbolic link anywhere below the root.
    pub(crate) fn open(&self, task: &Task) -> rustix::io::Result<OwnedFd> {
        let open = |at: &OwnedFd, name: &[u8]| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(at, name, flags, Mode::empty())
        };
        match &task.parent {
            Some(parent) => open(parent, &task.path.name),
            None => {
                let mut names = Vec::new();
                let mut at = &task.path;
                while let Some(up) = &at.up {
                    names.push(&at.name);
                    at = up;
                }
                let start = open(&self.root, b".")?;
                names.iter().rev().try_fold(start, |dir, name| open(&dir, name))
            }
        }
    }

    /// The full path, for errors.
    pub(crate) fn path_of(&self, steps: &Steps) -> Vec<u8> {
        let mut names = vec![];
        let mut at = Some(steps);
        while let Some(step) = at.filter(|s| s.up.is_some()) {
            names.push(&step.name);
            at = step.up.as_deref();
        }
        let root = path_bytes(self.root_path).to_vec();
        names.iter().rev().fold(root, |path, name| crate::object::join(&path, name))
    }
}
