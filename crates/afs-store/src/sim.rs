//! [`SimJournal`]: a journal in memory, for model tests and simulations.
//!
//! Guarantees: the same contract as the real one, plus [`SimJournal::crash`], which keeps or drops a prefix of what was never waited for,
//! by seed. With [`SimJournal::manual`] it has no thread and no clock: groups are committed only by
//! those who wait, sync or [`SimJournal::tick`], so that the same calls give the same states.
//!
//! Deliberately absent: real durability, damage of committed data (the real journal detects that, and its own tests show it).

use crate::contract::Subject;
use crate::group::{Group, GroupCommit, GroupOptions, GroupStore};
use crate::journal::{Batch, Change, Flusher, Journal, Position, Space, Visit};
use afs_types::{Error, Result};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type Map = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// A journal in memory.
pub struct SimJournal {
    commit: GroupCommit<MemStore>,
    options: GroupOptions,
}

struct MemStore {
    map: Arc<RwLock<Map>>,
    fail: AtomicBool,
}

impl GroupStore for MemStore {
    fn commit(&self, group: &Group<'_>) -> Result<()> {
        if self.fail.load(Ordering::Relaxed) {
            return Err(Error::io("sync the journal", std::io::Error::other("injected")));
        }
        let mut map = self.map.write();
        for change in group.changes() {
            apply(&mut map, &change);
        }
        Ok(())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.map.read().get(&(space as u8, key.to_vec())).cloned())
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        // Copied first: the visitor may call the journal again.
        let found: Vec<_> = {
            let map = self.map.read();
            range(&map, space, from, to).map(|(k, v)| (k.1.clone(), v.clone())).collect()
        };
        for (key, value) in found {
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last_key(&self, space: Space, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(range(&self.map.read(), space, from, Some(to)).next_back().map(|(key, _)| key.1.clone()))
    }
}

fn range<'a>(
    map: &'a Map,
    space: Space,
    from: &[u8],
    to: Option<&[u8]>,
) -> impl DoubleEndedIterator<Item = (&'a (u8, Vec<u8>), &'a Vec<u8>)> + use<'a> {
    let low = (space as u8, from.to_vec());
    let high = match to {
        Some(to) => (space as u8, to.to_vec()),
        None => (space as u8 + 1, Vec::new()),
    };
    // An inverted range is empty; BTreeMap would panic.
    let high = high.max(low.clone());
    map.range((Bound::Included(low), Bound::Excluded(high)))
}

fn apply(map: &mut Map, change: &Change<'_>) {
    match change {
        Change::Put { space, key, value } => {
            map.insert((*space as u8, key.to_vec()), value.to_vec());
        }
        Change::Delete { space, key } => {
            map.remove(&(*space as u8, key.to_vec()));
        }
        Change::DeleteRange { space, from, to } => {
            let gone: Vec<_> = range(map, *space, from, Some(to)).map(|(k, _)| k.clone()).collect();
            for key in gone {
                map.remove(&key);
            }
        }
    }
}

impl SimJournal {
    /// An empty journal with a committer's thread, like the real one.
    pub fn new() -> Result<Arc<Self>> {
        Self::with(GroupOptions::default())
    }

    /// An empty journal without thread and clock.
    pub fn manual() -> Result<Arc<Self>> {
        Self::with(GroupOptions { thread: false, ..GroupOptions::default() })
    }

    /// An empty journal with options.
    pub fn with(options: GroupOptions) -> Result<Arc<Self>> {
        Self::start(Arc::default(), Position { epoch: 1, idx: 0 }, options)
    }

    fn start(map: Arc<RwLock<Map>>, last: Position, options: GroupOptions) -> Result<Arc<Self>> {
        let store = MemStore { map, fail: AtomicBool::new(false) };
        Ok(Arc::new(Self { commit: GroupCommit::start(store, last, options.clone())?, options }))
    }

    /// Dies as by a power cut and comes back: everything waited for is kept; of the rest, a prefix chosen by `seed` is kept. The
    /// old handle fails from now on.
    pub fn crash(&self, seed: u64) -> Result<Arc<Self>> {
        self.commit.halt(|queued| (mix(seed) % (queued as u64 + 1)) as usize)?;
        self.reopen_with(self.options.clone())
    }

    /// Opens the same content again, as a new process would. The old one must be closed or dead.
    pub fn reopen(&self) -> Result<Arc<Self>> {
        self.reopen_with(self.options.clone())
    }

    fn reopen_with(&self, options: GroupOptions) -> Result<Arc<Self>> {
        let durable = self.commit.durable();
        // A copy: whatever still holds the dead handle cannot reach the living one.
        let map = Arc::new(RwLock::new(self.commit.store().map.read().clone()));
        Self::start(map, Position { epoch: durable.epoch + 1, idx: durable.idx }, options)
    }

    /// Commits what is queued now: the passing of time, for a journal without thread.
    pub fn tick(&self) -> Result<()> {
        self.commit.tick()
    }

    /// Every commit from now on fails, as a broken disk would.
    pub fn break_disk(&self) {
        self.commit.store().fail.store(true, Ordering::Relaxed);
    }
}

/// A well-mixed number from a seed (splitmix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Journal for SimJournal {
    fn submit(&self, batch: Batch) -> Result<Position> {
        self.commit.submit(batch)
    }
    fn wait_for_room(&self) -> Result<()> {
        self.commit.wait_for_room()
    }
    fn wait(&self, at: Position) -> Result<()> {
        self.commit.wait(at)
    }
    fn on_durable(&self, at: Position, then: Box<dyn FnOnce(Result<()>) + Send>) {
        self.commit.on_durable(at, then);
    }
    fn durable(&self) -> Position {
        self.commit.durable()
    }
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.commit.get(space, key)
    }
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        self.commit.scan(space, from, to, visit)
    }
    fn last_key(&self, space: Space, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>> {
        self.commit.last_key(space, from, to)
    }
    fn add_flusher(&self, flusher: Arc<dyn Flusher>) {
        self.commit.add_flusher(flusher);
    }
    fn sync(&self) -> Result<Position> {
        self.commit.sync()
    }
    fn close(&self) -> Result<()> {
        self.commit.close()
    }
}

/// For the contract suite.
#[derive(Default)]
pub struct SimSubject {
    running: Mutex<Option<Arc<SimJournal>>>,
}

impl Subject for SimSubject {
    fn open(&self, options: GroupOptions) -> Result<Arc<dyn Journal>> {
        let mut running = self.running.lock();
        let journal = match running.as_ref() {
            Some(old) => old.reopen_with(options)?,
            None => SimJournal::with(options)?,
        };
        *running = Some(Arc::clone(&journal));
        Ok(journal)
    }

    fn crash(&self, seed: u64, options: GroupOptions) -> Result<Arc<dyn Journal>> {
        let mut running = self.running.lock();
        let old = running.take().ok_or_else(|| Error::invalid("journal", "one that is open"))?;
        old.commit.halt(|queued| (mix(seed) % (queued as u64 + 1)) as usize)?;
        let journal = old.reopen_with(options)?;
        *running = Some(Arc::clone(&journal));
        Ok(journal)
    }
}
