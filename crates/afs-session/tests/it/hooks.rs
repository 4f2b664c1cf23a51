//! A journal between the engine and the simulated one, at which a test can stop the world: do something at exactly this moment, refuse
//! a batch, hold the folding thread back.

use afs_store::{Batch, Flusher, Journal, Position, SimJournal, Space, Visit};
use afs_types::{Error, Reason, Result};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

type Action = Box<dyn FnOnce() + Send>;

/// When an action runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum At {
    /// Before a batch with a change in this space is queued.
    Submit(Space),
    /// After one was.
    Submitted(Space),
    /// Before a scan of this space.
    Scan(Space),
    /// After one.
    Scanned(Space),
    /// After a key of this space was looked up.
    Got(Space),
}

pub(crate) struct Hooks {
    inner: Arc<SimJournal>,
    once: Mutex<Option<(At, Action)>>,
    refuse: Mutex<Option<Space>>,
    folds_held: Mutex<bool>,
    folds: Condvar,
}

impl Hooks {
    pub(crate) fn around(inner: Arc<SimJournal>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            once: Mutex::default(),
            refuse: Mutex::default(),
            folds_held: Mutex::default(),
            folds: Condvar::new(),
        })
    }

    /// Runs `action` at the next such moment, once. It may call the engine.
    pub(crate) fn once(&self, at: At, action: impl FnOnce() + Send + 'static) {
        *self.once.lock() = Some((at, Box::new(action)));
    }
    /// Whether the action has run.
    pub(crate) fn ran(&self) -> bool {
        self.once.lock().is_none()
    }
    /// The next batch with a change in this space is refused, as by a full disk.
    pub(crate) fn refuse(&self, space: Space) {
        *self.refuse.lock() = Some(space);
    }
    /// Deltas are not queued until [`Hooks::release_folds`].
    pub(crate) fn hold_folds(&self) {
        *self.folds_held.lock() = true;
    }
    pub(crate) fn release_folds(&self) {
        *self.folds_held.lock() = false;
        self.folds.notify_all();
    }

    fn at(&self, now: At) {
        let mut once = self.once.lock();
        let due = once.as_ref().is_some_and(|(at, _)| *at == now);
        let action = if due { once.take() } else { None };
        drop(once);
        if let Some((_, action)) = action {
            action();
        }
    }
}

fn spaces(batch: &Batch) -> Vec<Space> {
    batch.changes().map(|change| change.space()).collect()
}

impl Journal for Hooks {
    fn submit(&self, batch: Batch) -> Result<Position> {
        let spaces = spaces(&batch);
        if spaces.contains(&Space::Delta) {
            let mut held = self.folds_held.lock();
            while *held {
                self.folds.wait(&mut held);
            }
        }
        let refused = self.refuse.lock().take_if(|space| spaces.contains(space));
        if refused.is_some() {
            return Err(Error::new(Reason::NoSpace, "the test's disk is full"));
        }
        Space::ALL.into_iter().filter(|s| spaces.contains(s)).for_each(|s| self.at(At::Submit(s)));
        let at = self.inner.submit(batch)?;
        Space::ALL.into_iter().filter(|s| spaces.contains(s)).for_each(|s| self.at(At::Submitted(s)));
        Ok(at)
    }
    fn wait(&self, at: Position) -> Result<()> {
        self.inner.wait(at)
    }
    fn on_durable(&self, at: Position, then: Box<dyn FnOnce(Result<()>) + Send>) {
        self.inner.on_durable(at, then);
    }
    fn durable(&self) -> Position {
        self.inner.durable()
    }
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = self.inner.get(space, key);
        self.at(At::Got(space));
        value
    }
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        self.at(At::Scan(space));
        self.inner.scan(space, from, to, visit)?;
        self.at(At::Scanned(space));
        Ok(())
    }
    fn last_key(&self, space: Space, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.last_key(space, from, to)
    }
    fn add_flusher(&self, flusher: Arc<dyn Flusher>) {
        self.inner.add_flusher(flusher);
    }
    fn sync(&self) -> Result<Position> {
        self.inner.sync()
    }
    fn close(&self) -> Result<()> {
        self.inner.close()
    }
}
