//! The engine's one background thread: folds closed layers into deltas and seals their bytes (`layers`, `seal`).
//!
//! Guarantees: the queue is bounded, one layer is worked on at a time, sealing is paced, and dropping the engine ends the thread before
//! anything else goes: what is still queued stays as records, which is only slower to load. Work is queued by whoever closes a layer;
//! the thread has no clock and no timer of its own.

use crate::session::FoldJob;
use crate::shared::Shared;
use afs_store::Position;
use afs_types::{Error, LayerId, Result, limits};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What waits, and how far the thread is.
#[derive(Default)]
pub(crate) struct Background {
    queue: Mutex<Queue>,
    /// There is work, or the end.
    wake: Condvar,
    /// There is no work any more.
    settled: Condvar,
    stop: AtomicBool,
    /// Layers that were folded in groups that may not be committed yet: the journal does not show them as folded. Whoever folds
    /// holds this, so that no layer is folded twice.
    pub(crate) folded: Mutex<VecDeque<(Position, LayerId)>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Box<FoldJob>>,
    busy: bool,
}

impl Background {
    /// False when there is no room.
    pub(crate) fn push(&self, job: Box<FoldJob>) -> bool {
        let mut queue = self.queue.lock();
        if queue.jobs.len() >= limits::MAX_FOLD_QUEUE || self.stopping() {
            return false;
        }
        queue.jobs.push_back(job);
        self.wake.notify_one();
        true
    }
    pub(crate) fn has_room(&self) -> bool {
        self.queue.lock().jobs.len() < limits::MAX_FOLD_QUEUE
    }
    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    /// Returns when everything queued so far is done.
    pub(crate) fn settle(&self) {
        let mut queue = self.queue.lock();
        while (queue.busy || !queue.jobs.is_empty()) && !self.stopping() {
            self.settled.wait(&mut queue);
        }
    }

    fn next(&self) -> Option<Box<FoldJob>> {
        let mut queue = self.queue.lock();
        queue.busy = false;
        loop {
            if self.stopping() {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                queue.busy = true;
                return Some(job);
            }
            self.settled.notify_all();
            self.wake.wait(&mut queue);
        }
    }

    /// Leaves the disk to others after `bytes` were sealed, unless the engine stops.
    fn rest(&self, bytes: u64, per_second: u64) {
        let pause = Duration::from_secs_f64(bytes as f64 / per_second.max(1) as f64).min(LONGEST_REST);
        let mut queue = self.queue.lock();
        let until = std::time::Instant::now() + pause;
        while !self.stopping() && !self.wake.wait_until(&mut queue, until).timed_out() {}
    }

    fn end(&self) {
        let mut queue = self.queue.lock();
        self.stop.store(true, Ordering::Relaxed);
        queue.jobs.clear();
        self.wake.notify_all();
        self.settled.notify_all();
    }
}

/// A clock that jumps or a huge file must not put the thread to sleep for good.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// The thread. Dropping it waits for its end, so that nothing holds the journal after the engine is gone.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self> {
        let work = shared.clone();
        let spawned = std::thread::Builder::new().name("afs-fold".into()).spawn(move || run(&work));
        let thread = spawned.map_err(|e| Error::io("start the folding thread", e))?;
        Ok(Self { shared: shared.clone(), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.background.end();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the folding thread panicked");
        }
    }
}

fn run(shared: &Shared) {
    while let Some(job) = shared.background.next() {
        match shared.fold(&job) {
            Ok(sealed_bytes) if sealed_bytes > 0 => {
                // The trees of the job are not kept for the time of a rest.
                drop(job);
                shared.background.rest(sealed_bytes, shared.config.seal_bytes_per_s);
            }
            Ok(_) => {}
            // The layer keeps its records, so nothing is lost; loading it is slower, and folds it then.
            Err(error) => tracing::warn!(layer = job.cut.layer.0, %error, "fold a layer"),
        }
    }
}
