//! Mounting and unmounting. An unmount always ends, and so does the process that asked for it: a clean try, then a
//! bounded wait for users to leave, then the connection is aborted.

use crate::counters::{Counters, Counting};
use crate::device::{self, Watchdog};
use crate::dispatch::{Adapter, ReadLog};
use crate::errors;
use crate::git_place::Places;
use crate::known::Known;
use crate::malloc;
use crate::mount_table::{self, Detach, Health};
use crate::notifier::{Notifier, Queue};
use crate::vfs::{InvalidationSink, Vfs, WatchGuard};
use afs_types::{Error, Ino, Reason, Result};
use fuser::{Config, Session, SessionACL};
use parking_lot::{Condvar, Mutex};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long users of a busy mount have to leave before it is taken from them.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
/// How often a busy mount is tried again.
const BUSY_RETRY: Duration = Duration::from_millis(50);
/// How long the kernel may take to end a connection.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// A reader that waits for a network serves nobody else meanwhile.
const REMOTE_THREADS: usize = 16;
const MAX_LOCAL_THREADS: usize = 8;

/// How to mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountOptions {
    /// Shown as the source of the mount, e.g. `aether:sess_x`.
    pub name: String,
    /// No changes through this mount.
    pub read_only: bool,
    /// Let other users in, as far as permission bits go. Default: only for root. Others need `user_allow_other` in `/etc/fuse.conf`.
    pub allow_other: bool,
    /// A helper process removes the mount when this process dies. Without it a dead mount answers `ENOTCONN` until swept.
    pub auto_unmount: bool,
    /// Honour set-user-id bits (root only).
    pub suid: bool,
    /// Honour device nodes (root only).
    pub dev: bool,
    /// Refuse to run programs from the mount.
    pub no_exec: bool,
    /// Threads that serve the kernel; 0 = 2 to 8 by cores, 16 for a remote file system.
    pub threads: usize,
    /// Remember which inodes content was read from ([`Mounted::inodes_read`]): for tests and benches, it grows without bound.
    pub record_reads: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            name: "aether".into(),
            read_only: false,
            allow_other: rustix::process::geteuid().is_root(),
            auto_unmount: false,
            suid: false,
            dev: false,
            no_exec: false,
            threads: 0,
            record_reads: false,
        }
    }
}

/// Mounts `vfs` at the directory `dir` and serves it from threads of this process until it is unmounted. When this
/// returns, the mount works. A mount at `dir` whose process is gone is removed first; a live one of ours is an error.
pub fn mount(vfs: Arc<dyn Vfs>, dir: &Path, options: &MountOptions) -> Result<Mounted> {
    malloc::keep_large_buffers_mapped();
    let dir = prepare(dir)?;
    let device = device::mount(&dir, options)?;
    // From here on a failure must take the mount away again: closing the last descriptor leaves a dead one.
    let mounted = serve(vfs, dir.clone(), device, options);
    if mounted.is_err()
        && let Err(error) = mount_table::detach(&dir, Detach::Lazy)
    {
        tracing::warn!(?error, "a mount that could not be served stays behind, dead");
    }
    mounted
}

fn prepare(dir: &Path) -> Result<PathBuf> {
    let dir = mount_table::resolve(dir)?;
    mount_table::sweep(&dir)?;
    if let Some(existing) = mount_table::mount_at(&dir)? {
        let (reason, state) = match mount_table::health(&dir) {
            Health::Alive => (Reason::AlreadyExists, "already is a mount"),
            Health::Dead | Health::Unresponsive => (Reason::InUse, "is a mount that does not answer"),
        };
        return Err(Error::new(reason, format!("{} {state} ({})", dir.display(), existing.name)).next(
            "choose another directory, or unmount this one with `aether unmount` (--force if it hangs)",
        ));
    }
    let meta = fs::metadata(&dir).map_err(|e| errors::system(format!("look at {}", dir.display()), e))?;
    match meta.is_dir() {
        true => Ok(dir),
        false => Err(Error::new(Reason::NotADirectory, format!("{} is not a directory", dir.display()))),
    }
}

fn serve(vfs: Arc<dyn Vfs>, dir: PathBuf, device: device::Device, options: &MountOptions) -> Result<Mounted> {
    let connection = mount_table::mount_at(&dir)?.map(|m| m.connection);
    let connection =
        connection.ok_or_else(|| Error::new(Reason::Internal, "the new mount is not in the table"))?;
    let own = device.fd.try_clone().map_err(|e| errors::system("duplicate the device", e))?;
    let counting = Arc::new(Counting::default());
    let known = Arc::new(Known::new());
    let queue = Arc::new(Queue::new());
    let notifier = Notifier::new(queue.clone(), known.clone(), counting.clone(), File::from(own));
    let caps = vfs.caps();
    let reads = options.record_reads.then(Arc::<ReadLog>::default);
    // Before the first request: what the kernel learns later is then always taken back.
    let (reports, arrivals) = (queue.clone(), queue.clone());
    let sink = InvalidationSink::new(move |c| reports.push(c), move |patience| arrivals.told(patience));
    let watch = vfs.watch(sink);

    let adapter = Adapter {
        vfs,
        caps,
        counting: counting.clone(),
        known,
        queue: queue.clone(),
        notifier: notifier.clone(),
        questions: Arc::default(),
        places: Places::new(&dir),
        reads: reads.clone(),
    };
    let mut config = Config::default();
    config.n_threads = Some(threads(options.threads, caps.remote));
    config.clone_fd = device::can_clone();
    // The kernel decides who may enter; fuser's own check would refuse a close by a process that changed its user.
    let session = Session::from_fd(adapter, device.fd, SessionACL::All, config)
        .map_err(|e| errors::system("shake hands with the kernel", e))?;
    let place = Arc::new(Place { dir, connection, notifier, switch: abort_switch(connection) });
    let end = Arc::new(End::default());
    if let Err(error) = run(session, place.clone(), end.clone()) {
        place.notifier.close(); // its copy of the device would keep the connection alive
        return Err(error);
    }
    let (watch, watchdog) = (Some(watch), device.watchdog);
    Ok(Mounted { place, end, queue, counting, reads, watch, watchdog, is_closed: false })
}

/// Without the switch everything works but ending a connection whose mount was copied elsewhere.
fn abort_switch(connection: u32) -> Option<File> {
    let switch = mount_table::abort_switch(connection);
    switch.inspect_err(|error| tracing::debug!(?error, "this connection cannot be aborted")).ok()
}

fn threads(asked: usize, remote: bool) -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    match asked {
        0 if remote => REMOTE_THREADS,
        0 => cores.clamp(2, MAX_LOCAL_THREADS),
        n => n,
    }
}

fn run(session: Session<Adapter>, place: Arc<Place>, end: Arc<End>) -> Result<()> {
    let failed = |e| errors::system("start a thread", e);
    place.notifier.start().map_err(failed)?;
    let serve = move || {
        let outcome = session.run().map_err(|e| errors::system("serve the mount", e));
        // Still mounted: the threads ended by a fault. A mount that nobody serves must not stay.
        if let Err(error) = place.detach(Detach::Abort) {
            tracing::error!(?error, dir = %place.dir.display(), "a mount that nobody serves stays behind");
        }
        place.notifier.close();
        end.reach(outcome);
    };
    std::thread::Builder::new().name("afs-mount".into()).spawn(serve).map_err(failed).map(drop)
}

/// The moment when the last request has been served.
#[derive(Default)]
struct End {
    state: Mutex<EndState>,
    reached: Condvar,
}

#[derive(Default)]
struct EndState {
    is_reached: bool,
    error: Option<Error>,
}

impl End {
    fn reach(&self, outcome: Result<()>) {
        *self.state.lock() = EndState { is_reached: true, error: outcome.err() };
        self.reached.notify_all();
    }
    fn is_reached(&self) -> bool {
        self.state.lock().is_reached
    }
    fn wait(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        while !state.is_reached && !self.reached.wait_until(&mut state, until).timed_out() {}
        state.is_reached
    }
    fn join(&self) -> Result<()> {
        let mut state = self.state.lock();
        while !state.is_reached {
            self.reached.wait(&mut state);
        }
        state.error.take().map_or(Ok(()), Err)
    }
}

/// Where the mount is, and how to take it away.
struct Place {
    dir: PathBuf,
    connection: u32,
    notifier: Arc<Notifier>,
    switch: Option<File>,
}

impl Place {
    fn detach(&self, how: Detach) -> Result<()> {
        // Somebody may have unmounted it, and even mounted something of ours there again, under the same number.
        if !self.notifier.is_connected() {
            return Ok(());
        }
        let mounts = mount_table::mounts()?;
        match mounts.iter().rfind(|m| m.dir == self.dir) {
            Some(top) if top.connection == self.connection => mount_table::detach(&self.dir, how),
            Some(_) if mounts.iter().any(|m| m.connection == self.connection) => {
                Err(Error::new(Reason::InUse, format!("another mount covers {}", self.dir.display()))
                    .next("unmount that one first"))
            }
            _ => Ok(()),
        }
    }

    fn abort(&self) -> Result<()> {
        match &self.switch {
            Some(switch) => mount_table::abort(switch),
            None => Ok(()), // the wait that follows times out, and says so
        }
    }
}

/// A mount of this process. Dropping it unmounts, as [`Mounted::unmount`] does.
pub struct Mounted {
    place: Arc<Place>,
    end: Arc<End>,
    queue: Arc<Queue>,
    counting: Arc<Counting>,
    reads: Option<Arc<ReadLog>>,
    watch: Option<WatchGuard>,
    watchdog: Option<Watchdog>,
    is_closed: bool,
}

impl Mounted {
    /// Where.
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// Requests so far.
    pub fn counters(&self) -> Counters {
        self.counting.snapshot()
    }

    /// Inodes that content was read from since this was asked last, in order, if they are recorded.
    pub fn inodes_read(&self) -> Vec<Ino> {
        let read = self.reads.iter().flat_map(|log| std::mem::take(&mut *log.lock()));
        read.collect()
    }

    /// Waits until every change reported so far by the file system has reached the kernel; false if that took longer
    /// than `patience` (a request that holds a lock in the kernel is not answered by the file system).
    pub fn settle(&self, patience: Duration) -> bool {
        self.queue.settle(patience)
    }

    /// Whether the kernel still has a use for this process.
    pub fn is_served(&self) -> bool {
        !self.end.is_reached()
    }

    /// Whether it is still where it was mounted: not once somebody has unmounted it, also lazily while its users go on.
    pub fn is_in_place(&self) -> Result<bool> {
        let is_own =
            |m: &mount_table::MountEntry| m.connection == self.place.connection && m.dir == self.place.dir;
        Ok(self.is_served() && mount_table::mounts()?.iter().any(is_own))
    }

    /// Unmounts if nobody uses the mount; else [`Reason::InUse`] names who does, and the mount goes on.
    pub fn try_unmount(&self) -> Result<()> {
        self.place.detach(Detach::Clean)
    }

    /// Unmounts. Users have a second to leave; then the mount is taken from them, and the error says who they were.
    /// Whatever the result, the mount is gone, unless the error is [`Reason::TimedOut`].
    pub fn unmount(mut self) -> Result<()> {
        self.close()
    }

    /// Waits until somebody unmounts it (`umount`, `aether unmount`).
    pub fn join(mut self) -> Result<()> {
        let outcome = self.end.join();
        self.close().and(outcome)
    }

    /// As [`Mounted::join`], for a mount that several threads hold.
    pub fn wait(&self) -> Result<()> {
        self.end.join()
    }

    /// As [`Mounted::unmount`], for a mount that several threads hold.
    pub fn end(&self) -> Result<()> {
        let busy = self.leave();
        self.finish().and(busy)
    }

    fn close(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.is_closed, true) {
            return Ok(());
        }
        let ended = self.end();
        self.place.notifier.close();
        self.watch = None;
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.end();
        }
        ended
    }

    /// Takes the mount out of the tree, by force if it must.
    fn leave(&self) -> Result<()> {
        let until = Instant::now() + BUSY_PATIENCE;
        loop {
            match self.try_unmount() {
                Err(error) if error.reason == Reason::InUse => {
                    if Instant::now() < until {
                        self.end.wait(BUSY_RETRY);
                        continue;
                    }
                    tracing::warn!(?error, "unmounting by force");
                    return self.place.detach(Detach::Abort).and(Err(error));
                }
                other => return other,
            }
        }
    }

    /// Ends the connection. A process that copied the mount into its own namespace keeps it alive after the unmount
    /// (seen with `unshare -m`), and nobody may have to wait for that process.
    fn finish(&self) -> Result<()> {
        if self.end.wait(END_PATIENCE) {
            return Ok(());
        }
        tracing::warn!(dir = %self.dir().display(), "the mount lives on elsewhere: aborting its connection");
        self.place.abort()?;
        match self.end.wait(END_PATIENCE) {
            true => Ok(()),
            false => Err(Error::new(Reason::TimedOut, format!("{} does not end", self.dir().display()))
                .next(
                    "a request in the file system does not return, or the mount was copied: end this process",
                )),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(?error, dir = %self.dir().display(), "unmounting");
        }
    }
}
