//! How groups are taken, written and announced: leaders, the committer's thread, and those who wait.
//!
//! Locks: `Shared::queue` is held for bookkeeping only, never while a flusher or the store works.

use super::queued::Batches;
use super::{Callback, Group, GroupOptions, GroupStore, Queue, Shared, Taken};
use crate::journal::{Batch, Position};
use afs_types::{Error, Result};
use parking_lot::MutexGuard;
use rustix::thread::futex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl<S> Shared<S> {
    pub(super) fn position(&self, idx: u64) -> Position {
        Position { epoch: self.epoch, idx }
    }
    pub(super) fn check(&self) -> Result<()> {
        match self.failed.get() {
            Some((reason, why)) => Err(Error::new(*reason, format!("the journal stopped: {why}"))),
            None => Ok(()),
        }
    }
    /// The queue, at a moment when nobody commits.
    pub(super) fn quiet(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.queue.lock();
        while (queue.committing || queue.gathering.is_some()) && self.failed.get().is_none() {
            self.quiet.wait(&mut queue);
        }
        queue
    }
    pub(super) fn is_durable(&self, at: Position) -> bool {
        at <= self.position(self.durable.load(Ordering::Acquire))
    }
    /// Sleeps until group `group` is finished.
    pub(super) fn sleep(&self, group: u64) {
        let slot = &self.slots[group as usize & 1];
        slot.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let finished = slot.finished.load(Ordering::SeqCst);
            if finished.wrapping_sub(group as u32) as i32 >= 0 {
                break;
            }
            // Any error (a signal, a changed value) only means: look again.
            let _ = futex::wait(&slot.finished, futex::Flags::PRIVATE, finished, None);
        }
        slot.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
    fn wake(&self, group: u64) {
        let slot = &self.slots[group as usize & 1];
        slot.finished.store(group as u32, Ordering::SeqCst);
        if slot.sleepers.load(Ordering::SeqCst) > 0 {
            let _ = futex::wake(&slot.finished, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }
    /// After a failure: nobody may go on waiting.
    pub(super) fn abandon(&self) {
        let mut queue = self.queue.lock();
        let forming = queue.forming;
        queue.batches = Batches::default();
        queue.bytes = 0;
        // Whoever waited for room goes on, and hears of the failure.
        self.queued.store(0, Ordering::Relaxed);
        let callbacks = std::mem::take(&mut queue.callbacks);
        drop(queue);
        self.wake(forming - 1);
        self.wake(forming);
        self.room.notify_all();
        self.work.notify_all();
        self.quiet.notify_all();
        for (idx, then) in callbacks {
            let durable = self.is_durable(self.position(idx));
            then(if durable { Ok(()) } else { self.check() });
        }
    }
}

impl<S: GroupStore> Shared<S> {
    /// Commits a group on the caller's thread. What came meanwhile is left to the committer's thread, if there is one.
    pub(super) fn lead(&self, taken: Taken) -> Result<()> {
        let result = self.write(taken);
        while !self.options.thread && self.failed.get().is_none() {
            let mut queue = self.queue.lock();
            let ready = self.ready(&mut queue);
            let next = (queue.waiters > 0 && !queue.committing).then(|| queue.take(usize::MAX));
            drop(queue);
            run(ready);
            let Some(taken) = next else { break };
            // Its waiters hear of a failure themselves.
            let _ = self.write(taken);
        }
        result
    }

    /// Commits one group and publishes the outcome. Fatal on failure.
    fn write(&self, taken: Taken) -> Result<()> {
        if let Err(error) = self.commit(&taken) {
            let why = (error.reason, error.message().to_owned());
            (self.options.on_fatal)(&error);
            let _ = self.failed.set(why);
            self.abandon();
            return Err(error);
        }
        self.durable.store(taken.last, Ordering::Release);
        let mut queue = self.queue.lock();
        queue.committing = false;
        queue.bytes = queue.bytes.saturating_sub(taken.bytes);
        self.queued.store(queue.bytes, Ordering::Relaxed);
        let blocked = queue.blocked > 0;
        let more = queue.waiters > 0 || queue.closing || !queue.callbacks.is_empty();
        let surplus = queue.spare.put(taken.batches);
        drop(queue);
        // First the committer's thread, unless it is the caller: the disk should not idle while waiters wake up.
        if more {
            self.work.notify_one();
        }
        if blocked {
            self.room.notify_all();
        }
        self.quiet.notify_all();
        self.wake(taken.group);
        drop(surplus);
        Ok(())
    }

    pub(super) fn commit(&self, taken: &Taken) -> Result<()> {
        let _guard = AbortOnPanic;
        let flushers = Arc::clone(&self.flushers.read());
        let mut flushed = Batch::new();
        for flusher in flushers.iter() {
            flushed.append(flusher.flush()?);
        }
        flushed.check()?;
        let last = self.position(taken.last);
        self.store.commit(&Group { last, flushed: &flushed, batches: &taken.batches })?;
        for flusher in flushers.iter() {
            flusher.committed();
        }
        Ok(())
    }

    /// Takes the callbacks whose batches are durable.
    fn ready(&self, queue: &mut Queue) -> Vec<(u64, Callback)> {
        if queue.callbacks.is_empty() {
            return Vec::new();
        }
        let durable = self.durable.load(Ordering::Acquire);
        queue.callbacks.extract_if(.., |(idx, _)| *idx <= durable).collect()
    }

    /// The committer's thread.
    pub(super) fn run(&self) {
        // Every waiter of the whole server waits for this thread; without the privilege it runs like the others.
        let _ = rustix::process::nice(-10);
        let tick = (self.options.lag / 2).max(Duration::from_millis(1));
        let mut quiet_ticks = 0u32;
        let mut idled = Instant::now();
        let mut queue = self.queue.lock();
        while self.failed.get().is_none() {
            let ready = self.ready(&mut queue);
            if !ready.is_empty() {
                MutexGuard::unlocked(&mut queue, || run(ready));
                continue;
            }
            if queue.closing && !queue.committing && queue.batches.is_empty() {
                return;
            }
            if !queue.committing && queue.is_due(&self.options) {
                let taken = queue.take(usize::MAX);
                let crowd = taken.waiters;
                quiet_ticks = 0;
                if MutexGuard::unlocked(&mut queue, || self.write(taken)).is_err() {
                    return;
                }
                if idled.elapsed() >= self.options.lag {
                    MutexGuard::unlocked(&mut queue, || self.idle());
                    idled = Instant::now();
                }
                self.gather(&mut queue, crowd);
                continue;
            }
            if quiet_ticks < 20 || queue.committing || !queue.batches.is_empty() {
                if self.work.wait_for(&mut queue, tick).timed_out() {
                    quiet_ticks = if queue.batches.is_empty() { quiet_ticks + 1 } else { 0 };
                    MutexGuard::unlocked(&mut queue, || self.idle());
                    idled = Instant::now();
                }
            } else {
                queue.parked = true;
                self.work.wait(&mut queue);
                queue.parked = false;
                quiet_ticks = 0;
            }
        }
    }

    fn idle(&self) {
        if let Err(error) = self.store.idle() {
            let why = (error.reason, error.message().to_owned());
            (self.options.on_fatal)(&error);
            let _ = self.failed.set(why);
            self.abandon();
        }
    }

    /// Waits a moment for the crowd of the last group to come back, so that it shares one fdatasync again. Nobody leads meanwhile.
    fn gather(&self, queue: &mut MutexGuard<'_, Queue>, crowd: usize) {
        if crowd <= self.options.gather_above || queue.waiters >= crowd || queue.committing {
            return;
        }
        let until = Instant::now() + self.options.gather;
        queue.gathering = Some(crowd);
        while queue.waiters < crowd && !self.work.wait_until(queue, until).timed_out() {}
        queue.gathering = None;
        self.quiet.notify_all();
    }
}

impl Queue {
    /// Takes up to `most` batches as one group.
    pub(super) fn take(&mut self, most: usize) -> Taken {
        let mut batches = std::mem::take(&mut self.batches);
        batches.truncate(most);
        // Nothing else is being committed, so all bytes counted belong to what is taken.
        let bytes = self.bytes;
        self.committing = true;
        self.taken += batches.len() as u64;
        self.oldest = None;
        let group = self.forming;
        self.forming += 1;
        Taken { batches, bytes, last: self.taken, group, waiters: std::mem::take(&mut self.waiters) }
    }
    /// Whether the committer's thread should commit now.
    pub(super) fn is_due(&self, options: &GroupOptions) -> bool {
        let old = || self.oldest.is_some_and(|at| at.elapsed() >= options.lag / 2);
        !self.batches.is_empty()
            && (self.waiters > 0
                || self.blocked > 0
                || self.closing
                || self.bytes >= options.queue_bytes / 4
                || old())
    }
}

/// A flusher or store that panicked left a group half done: nobody knows what is on disk.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn run(ready: Vec<(u64, Callback)>) {
    for (_, then) in ready {
        then(Ok(()));
    }
}
