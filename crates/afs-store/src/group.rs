//! Group commit over any store that can write one group atomically and durably. Shared by every [`Journal`].
//!
//! Guarantees: batches are numbered and committed in order of submission; one group is written at a time; before it, every
//! flusher runs; a waiter wakes only for its own group. Memory: queued plus committing changes stay below the bound; buffers, of which large
//! batches bring their own, may be twice as large as what is in them; three megabytes of them are kept for the next batches.
//!
//! Who commits was chosen by measurement. A waiter that finds nobody committing commits on its own thread (leader): one fdatasync and
//! no wake-up. While a group is being written, others queue; the committer's thread takes them all in the next group and stays
//! hot as long as waiters come. Batches nobody waits for are committed by that thread within the lag bound.
//! With more than `gather_above` waiters it gathers for a moment, until as many have come as last time, so that a crowd shares one fdatasync.
//!
//! Deliberately absent: retries. A failed flush or commit leaves the disk in an unknown state (a later fsync may lie), so
//! the journal stops and calls `on_fatal`, which aborts the process unless a test replaced it.

mod committer;
mod queued;

use crate::journal::{Batch, Change, Flusher, Journal, Position, Space, Visit};
use afs_types::{Error, Reason, Result, limits};
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use queued::{Batches, SpareRuns};

/// What a [`GroupStore`] has to write: atomically, durably, in this order.
pub struct Group<'a> {
    /// Position of the last batch in the group.
    pub last: Position,
    /// Changes of the flushers; they come first.
    flushed: &'a Batch,
    /// The batches, in order.
    batches: &'a Batches,
}

impl<'a> Group<'a> {
    /// All changes, in order.
    pub fn changes(&self) -> impl Iterator<Item = Change<'a>> + use<'a> {
        self.flushed.changes().chain(self.batches.changes())
    }
}

/// What lies below group commit.
pub trait GroupStore: Send + Sync + 'static {
    /// Writes a group. When it returns, the group is on disk and visible. Called by one thread at a time.
    fn commit(&self, group: &Group<'_>) -> Result<()>;
    /// See [`Journal::get`].
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// See [`Journal::scan`].
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()>;
    /// See [`Journal::last_key`].
    fn last_key(&self, space: Space, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Whether a batch of so many bytes that frees no space is admitted. Cheap: called by each submit.
    fn admit(&self, _bytes: u64) -> Result<()> {
        Ok(())
    }
    /// Lazy work, called by the committer's thread about every half lag while there is traffic, and once afterwards.
    fn idle(&self) -> Result<()> {
        Ok(())
    }
    /// Called once, after the last commit.
    fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// Called once when the journal cannot go on.
pub type OnFatal = Arc<dyn Fn(&Error) + Send + Sync>;

/// How groups are made.
#[derive(Clone)]
pub struct GroupOptions {
    /// Most bytes queued or being committed before submitters wait.
    pub queue_bytes: usize,
    /// How long a submitter waits for room.
    pub submit_timeout: Duration,
    /// Longest time a batch nobody waits for stays queued.
    pub lag: Duration,
    /// With more waiters than this in the last group, the next one is gathered.
    pub gather_above: usize,
    /// How long to gather at most.
    pub gather: Duration,
    /// A waiter may commit on its own thread.
    pub leader: bool,
    /// There is a committer's thread. Without it (simulations) groups are committed by those who wait, sync or tick.
    pub thread: bool,
    /// Called when a group cannot be written.
    pub on_fatal: OnFatal,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            queue_bytes: limits::MAX_JOURNAL_QUEUE_BYTES,
            submit_timeout: Duration::from_secs(10),
            lag: Duration::from_millis(limits::MAX_JOURNAL_LAG_MS),
            gather_above: 16,
            gather: Duration::from_micros(200),
            leader: true,
            thread: true,
            on_fatal: Arc::new(|error| {
                tracing::error!(
                    ?error,
                    "the journal cannot go on: aborting, recovery happens at the next start"
                );
                // Also where nobody listens to the log: an abort without a word cannot be explained.
                eprintln!("the journal cannot go on, aborting: {error:?}");
                std::process::abort();
            }),
        }
    }
}

/// A [`Journal`] made of group commit over a store.
pub struct GroupCommit<S: GroupStore> {
    shared: Arc<Shared<S>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared<S> {
    store: S,
    options: GroupOptions,
    epoch: u32,
    queue: Mutex<Queue>,
    /// Submitters wait here for room.
    room: Condvar,
    /// The committer's thread waits here for work.
    work: Condvar,
    /// Those who need that nobody commits (close, crash) wait here.
    quiet: Condvar,
    durable: AtomicU64,
    /// Bytes queued and being committed, written under the queue's lock: a look at them before each change must not take it.
    queued: AtomicUsize,
    /// Newest finished group of each parity. Two are enough: when group g+2 is forming, g is finished.
    slots: [Slot; 2],
    flushers: RwLock<Arc<[Arc<dyn Flusher>]>>,
    failed: OnceLock<(Reason, String)>,
}

#[derive(Default)]
struct Slot {
    finished: AtomicU32,
    sleepers: AtomicU32,
}

type Callback = Box<dyn FnOnce(Result<()>) + Send>;

struct Queue {
    batches: Batches,
    /// Buffers of groups that are committed.
    spare: SpareRuns,
    /// Queued and committing.
    bytes: usize,
    oldest: Option<Instant>,
    /// Number of the next batch.
    next: u64,
    /// Last batch that left the queue.
    taken: u64,
    /// Number of the group that queued batches will belong to.
    forming: u64,
    /// Waiters and callbacks of the forming group.
    waiters: usize,
    /// The committer's thread gathers until there are so many waiters.
    gathering: Option<usize>,
    committing: bool,
    /// The committer's thread sleeps without a timeout.
    parked: bool,
    blocked: usize,
    closing: bool,
    callbacks: Vec<(u64, Callback)>,
}

struct Taken {
    batches: Batches,
    bytes: usize,
    last: u64,
    group: u64,
    waiters: usize,
}

impl<S: GroupStore> GroupCommit<S> {
    /// Starts committing to `store`; `last` is the newest position it holds.
    pub fn start(store: S, last: Position, options: GroupOptions) -> Result<Self> {
        let queue = Queue {
            batches: Batches::default(),
            spare: SpareRuns::default(),
            bytes: 0,
            oldest: None,
            next: last.idx + 1,
            taken: last.idx,
            forming: 1,
            waiters: 0,
            gathering: None,
            committing: false,
            parked: false,
            blocked: 0,
            closing: false,
            callbacks: Vec::new(),
        };
        let shared = Arc::new(Shared {
            store,
            epoch: last.epoch,
            queue: Mutex::new(queue),
            room: Condvar::new(),
            work: Condvar::new(),
            quiet: Condvar::new(),
            durable: AtomicU64::new(last.idx),
            queued: AtomicUsize::new(0),
            slots: Default::default(),
            flushers: RwLock::new(Arc::from([])),
            failed: OnceLock::new(),
            options,
        });
        let thread = shared.options.thread.then(|| spawn(&shared)).transpose()?;
        Ok(Self { shared, thread: Mutex::new(thread) })
    }

    /// The store below.
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// Commits what is queued now, on this thread. What a simulation without a committer's thread calls for time passing.
    pub fn tick(&self) -> Result<()> {
        let mut queue = self.shared.quiet();
        self.shared.check()?;
        if queue.batches.is_empty() {
            return Ok(());
        }
        let taken = queue.take(usize::MAX);
        drop(queue);
        self.shared.lead(taken)
    }

    /// Dies: `keep` says how many of the queued batches still reach the disk (they are atomic, and a prefix). Every later call fails.
    pub fn halt(&self, keep: impl FnOnce(usize) -> usize) -> Result<()> {
        let mut queue = self.shared.quiet();
        self.shared.check()?;
        let keep = keep(queue.batches.len());
        let taken = queue.take(keep);
        queue.committing = true; // For ever: nothing is committed after a death.
        drop(queue);
        let result = if taken.batches.is_empty() { Ok(()) } else { self.shared.commit(&taken) };
        let _ = self.shared.failed.set((Reason::Unavailable, "the journal was killed".into()));
        self.shared.abandon();
        result
    }
}

impl<S: GroupStore> Journal for GroupCommit<S> {
    fn submit(&self, batch: Batch) -> Result<Position> {
        let shared = &self.shared;
        batch.check()?;
        let bytes = batch.bytes();
        if !batch.frees_space {
            shared.store.admit(bytes as u64)?;
        }
        let mut guard = shared.queue.lock();
        // A batch larger than the whole bound goes alone.
        let full = |q: &Queue| q.bytes > 0 && q.bytes + bytes > shared.options.queue_bytes;
        if full(&guard) {
            self.make_room(&mut guard, &full)?;
        }
        shared.check()?;
        let queue = &mut *guard;
        if queue.closing {
            return Err(closed());
        }
        queue.bytes += bytes;
        shared.queued.store(queue.bytes, Ordering::Relaxed);
        queue.batches.push(batch, &mut queue.spare);
        let idx = queue.next;
        queue.next += 1;
        if queue.oldest.is_none() {
            queue.oldest = Some(Instant::now());
        }
        if queue.parked || queue.bytes >= shared.options.queue_bytes / 4 && !queue.committing {
            shared.work.notify_one();
        }
        Ok(shared.position(idx))
    }

    fn wait_for_room(&self) -> Result<()> {
        let most = self.shared.options.queue_bytes / 2;
        if self.shared.queued.load(Ordering::Relaxed) <= most {
            return Ok(());
        }
        let mut queue = self.shared.queue.lock();
        let full = |q: &Queue| q.bytes > most;
        if full(&queue) { self.make_room(&mut queue, &full) } else { Ok(()) }
    }

    fn wait(&self, at: Position) -> Result<()> {
        let shared = &self.shared;
        if shared.is_durable(at) {
            return Ok(());
        }
        let mut queue = shared.queue.lock();
        if shared.is_durable(at) {
            return Ok(());
        }
        shared.check()?;
        if at.epoch != shared.epoch || at.idx >= queue.next {
            return Err(Error::invalid(
                "position",
                "a position that submit returned since the journal was opened",
            ));
        }
        let mut group = queue.forming - 1;
        if at.idx > queue.taken {
            group = queue.forming;
            queue.waiters += 1;
            let idle = !queue.committing && queue.gathering.is_none();
            if idle && (shared.options.leader || !shared.options.thread) {
                let taken = queue.take(usize::MAX);
                drop(queue);
                return shared.lead(taken);
            }
            if idle || queue.gathering.is_some_and(|crowd| queue.waiters >= crowd) {
                shared.work.notify_one();
            }
        }
        drop(queue);
        shared.sleep(group);
        if shared.is_durable(at) { Ok(()) } else { shared.check() }
    }

    fn on_durable(&self, at: Position, then: Callback) {
        let shared = &self.shared;
        let mut queue = shared.queue.lock();
        if shared.is_durable(at) {
            drop(queue);
            return then(Ok(()));
        }
        if let Err(error) = shared.check() {
            drop(queue);
            return then(Err(error));
        }
        if at.epoch != shared.epoch || at.idx >= queue.next {
            drop(queue);
            return then(Err(Error::invalid("position", "a position that submit returned")));
        }
        if at.idx > queue.taken {
            queue.waiters += 1;
        }
        queue.callbacks.push((at.idx, then));
        if !queue.committing {
            shared.work.notify_one();
        }
    }

    fn durable(&self) -> Position {
        self.shared.position(self.shared.durable.load(Ordering::Acquire))
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.shared.store.get(space, key)
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        self.shared.store.scan(space, from, to, visit)
    }

    fn last_key(&self, space: Space, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>> {
        self.shared.store.last_key(space, from, to)
    }

    fn add_flusher(&self, flusher: Arc<dyn Flusher>) {
        let mut flushers = self.shared.flushers.write();
        *flushers = flushers.iter().cloned().chain([flusher]).collect();
    }

    fn sync(&self) -> Result<Position> {
        let at = self.submit(Batch::new().freeing())?;
        self.wait(at)?;
        Ok(at)
    }

    fn close(&self) -> Result<()> {
        let shared = &self.shared;
        let mut thread = self.thread.lock();
        let mut queue = shared.queue.lock();
        if std::mem::replace(&mut queue.closing, true) {
            return Ok(());
        }
        shared.work.notify_all();
        shared.room.notify_all();
        drop(queue);
        match thread.take() {
            // The last handle can be dropped by a callback, on the committer's own thread: it cannot wait for itself.
            Some(thread) if thread.thread().id() != std::thread::current().id() => {
                let _ = thread.join();
            }
            Some(_) => return Ok(()),
            None => self.tick()?,
        }
        drop(shared.quiet());
        shared.check()?;
        shared.store.close()
    }
}

impl<S: GroupStore> GroupCommit<S> {
    /// Waits until there is room, or commits itself where nobody else would.
    fn make_room(&self, queue: &mut MutexGuard<'_, Queue>, full: &dyn Fn(&Queue) -> bool) -> Result<()> {
        let shared = &self.shared;
        let until = Instant::now() + shared.options.submit_timeout;
        while full(queue) && shared.failed.get().is_none() && !queue.closing {
            if !shared.options.thread && !queue.committing {
                let taken = queue.take(usize::MAX);
                MutexGuard::unlocked(queue, || shared.lead(taken))?;
                continue;
            }
            queue.blocked += 1;
            shared.work.notify_one();
            let timed_out = shared.room.wait_until(queue, until).timed_out();
            queue.blocked -= 1;
            if timed_out && full(queue) {
                let limit = shared.options.queue_bytes;
                return Err(Error::new(
                    Reason::QueueFull,
                    format!("{} bytes wait for the disk, the limit is {limit}", queue.bytes),
                )
                .with("limit", limit.to_string()));
            }
        }
        Ok(())
    }
}

impl<S: GroupStore> Drop for GroupCommit<S> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::debug!(?error, "closing the journal");
        }
    }
}

fn spawn<S: GroupStore>(shared: &Arc<Shared<S>>) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("afs-commit".into()).spawn(move || shared.run());
    thread.map_err(|e| Error::io("start the committer's thread", e))
}

fn closed() -> Error {
    Error::new(Reason::Unavailable, "the journal is closed: the server shuts down")
}
