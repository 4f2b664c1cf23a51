//! The engine: every session of a server, in RAM or not.
//!
//! Guarantees: an id names at most one [`Session`] object at a time (whoever evicts holds the shard and sees no other
//! holder); a session comes back from the journal exactly as it was; families and closed layers are shared.
//! Deliberately absent: transports, authorisation, and waiting where the caller can decide better (`fork_start`).

use crate::family::Family;
use crate::records::{HeadRec, SessionRec, head_key, session_key};
use crate::session::{Cut, FoldJob, Session};
use crate::shared::{EngineConfig, Ports, Shared};
use crate::sources::Import;
use afs_store::Space;
use afs_types::{Error, LayerId, Reason, Result, SessionId, SourceId, VersionId};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, mpsc};

const SHARDS: usize = 64;
/// Closed layers waiting to be folded; beyond it they stay as records, which is only slower to load.
const FOLD_QUEUE: usize = 1024;
/// Trees of closed layers kept, so that forks of a checkpoint need not load it.
const TREE_CACHE: u64 = 1024;

/// All sessions of one data directory.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    shards: Vec<RwLock<HashMap<SessionId, Arc<Session>>>>,
    loading: Vec<Mutex<()>>,
    hasher: RandomState,
    families: Mutex<HashMap<VersionId, Arc<Family>>>,
    pub(crate) trees: moka::sync::Cache<LayerId, Cut>,
    folder: Folder,
    /// One request id, one effect: retries wait here for the first.
    pub(crate) requests: Vec<Mutex<()>>,
    /// Imports under way.
    pub(crate) imports: Mutex<HashMap<SourceId, Arc<Import>>>,
    /// Session records are read, changed and written by one at a time. Rare: labels, names, archive, commit.
    pub(crate) record_turns: Mutex<()>,
}

impl Engine {
    /// Opens the engine over its ports. Sessions load when they are used.
    pub fn open(config: EngineConfig, ports: Ports) -> Result<Arc<Self>> {
        let shared = Shared::open(config, ports)?;
        let (folds, jobs) = mpsc::sync_channel(FOLD_QUEUE);
        let worker = shared.clone();
        let spawned =
            std::thread::Builder::new().name("afs-fold".into()).spawn(move || fold_all(&worker, &jobs));
        let thread = spawned.map_err(|e| Error::io("start the folding thread", e))?;
        let folder = Folder { jobs: Some(folds), thread: Some(thread) };
        Ok(Arc::new(Self {
            shared,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            loading: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            families: Mutex::default(),
            trees: moka::sync::Cache::new(TREE_CACHE),
            folder,
            requests: (0..SHARDS).map(|_| Mutex::default()).collect(),
            imports: Mutex::default(),
            record_turns: Mutex::default(),
        }))
    }

    /// A session, loaded if it is not in RAM.
    pub fn session(&self, id: &SessionId) -> Result<Arc<Session>> {
        if let Some(session) = self.resident(id) {
            session.touch();
            return Ok(session);
        }
        let shard = self.shard_index(id);
        let _one_loader = self.loading[shard].lock();
        if let Some(session) = self.resident(id) {
            return Ok(session);
        }
        let session = self.load_session(id)?;
        session.touch();
        self.shards[shard].write().insert(id.clone(), session.clone());
        Ok(session)
    }

    /// A session if it is in RAM.
    pub fn resident(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.shards[self.shard_index(id)].read().get(id).cloned()
    }

    /// Sessions in RAM.
    pub fn resident_count(&self) -> usize {
        self.shards.iter().map(|s| s.read().len()).sum()
    }

    fn load_session(&self, id: &SessionId) -> Result<Arc<Session>> {
        let record = self.session_record(id)?;
        if record.archived {
            return Err(Error::new(Reason::SessionArchived, format!("{id} is archived"))
                .next(format!("resume it: aether session resume {id}")));
        }
        let head: HeadRec = self.shared.read(Space::Session, &head_key(id))?.ok_or_else(|| {
            Error::new(Reason::Corrupt, format!("{id} has no head record")).next("run `aether doctor`")
        })?;
        let family = self.family(&record.version)?;
        let loaded = self.shared.load(&family, head.layer)?;
        let cut =
            Cut { layer: head.layer, depth: loaded.depth, seq: loaded.seq.max(head.seq), tree: loaded.tree };
        let owned_from = head.owned.then_some(loaded.below);
        let last = self.shared.ports.journal.durable();
        Ok(Session::new(id.clone(), self.shared.clone(), family, cut, owned_from, last))
    }

    pub(crate) fn session_record(&self, id: &SessionId) -> Result<SessionRec> {
        self.shared.read(Space::Session, &session_key(id))?.ok_or_else(|| id.not_found())
    }

    /// Puts a new session in the registry. False when the id is taken.
    pub(crate) fn register(&self, session: Arc<Session>) -> bool {
        let mut shard = self.shards[self.shard_index(session.id())].write();
        match shard.entry(session.id().clone()) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(session);
                true
            }
        }
    }

    pub(crate) fn unregister(&self, id: &SessionId) {
        self.shards[self.shard_index(id)].write().remove(id);
    }

    /// Takes a session out of RAM if nobody uses it. True when it is not in RAM afterwards.
    pub fn evict(&self, id: &SessionId) -> Result<bool> {
        let shard = self.shard_index(id);
        // Nobody loads it while its last changes are on their way to disk.
        let _no_loader = self.loading[shard].lock();
        let Some(session) = self.resident(id) else { return Ok(true) };
        if !session.is_idle() {
            return Ok(false);
        }
        if session.unfolded() >= self.shared.config.fold_records {
            let (_, _, job) = session.cut(|_, _| Ok(()))?;
            job.into_iter().for_each(|job| self.queue_fold(job));
        }
        self.shared.wait(session.stamp().at)?;
        let stamp = session.stamp();
        drop(session);
        let mut map = self.shards[shard].write();
        let unused =
            map.get(id).is_some_and(|s| Arc::strong_count(s) == 1 && s.stamp() == stamp && s.is_idle());
        if unused {
            map.remove(id);
        }
        Ok(unused)
    }

    /// Evicts sessions that were idle for long enough, and the least recently used ones beyond the configured number.
    /// Returns how many left RAM.
    pub fn evict_idle(&self) -> Result<usize> {
        let config = &self.shared.config;
        let oldest_kept = self.shared.now_ns() - config.idle_after.as_nanos() as i64;
        let mut all: Vec<(i64, SessionId)> = Vec::new();
        for shard in &self.shards {
            all.extend(shard.read().values().map(|s| (s.used_ns(), s.id().clone())));
        }
        all.sort_unstable();
        let surplus = all.len().saturating_sub(config.resident_sessions);
        let mut gone = 0;
        for (n, (used, id)) in all.iter().enumerate() {
            if n < surplus || *used < oldest_kept {
                gone += usize::from(self.evict(id)?);
            }
        }
        Ok(gone)
    }

    /// The family of a base, opened on first use.
    pub fn family(&self, version: &VersionId) -> Result<Arc<Family>> {
        if let Some(family) = self.families.lock().get(version) {
            return Ok(family.clone());
        }
        let record = self.shared.read(Space::Version, version.as_str().as_bytes())?;
        let record = record.ok_or_else(|| version.not_found())?;
        // Opened under the lock: two families of one base would hand out the same inode numbers.
        let mut families = self.families.lock();
        if let Some(family) = families.get(version) {
            return Ok(family.clone());
        }
        let family = Family::open(&self.shared, version.clone(), record)?;
        families.insert(version.clone(), family.clone());
        Ok(family)
    }

    /// The instant at the end of a closed layer.
    pub(crate) fn instant(&self, version: &VersionId, layer: LayerId) -> Result<Cut> {
        if let Some(cut) = self.trees.get(&layer) {
            return Ok(cut);
        }
        let family = self.family(version)?;
        let loaded = self.shared.load(&family, layer)?;
        let cut = Cut { layer, depth: loaded.depth, seq: loaded.seq, tree: loaded.tree };
        self.trees.insert(layer, cut.clone());
        Ok(cut)
    }

    /// Hands a closed layer to the folding thread; when that is behind, the layer simply stays as records.
    pub(crate) fn queue_fold(&self, job: FoldJob) {
        self.trees.insert(job.cut.layer, job.cut.clone());
        if self.folder.jobs.as_ref().is_none_or(|jobs| jobs.try_send(job).is_err()) {
            tracing::debug!("the folding queue is full: a layer stays as records");
        }
    }

    /// Everything acknowledged so far is on disk when this returns.
    pub fn sync(&self) -> Result<()> {
        self.shared.ports.journal.sync().map(drop)
    }

    fn shard_index(&self, id: &SessionId) -> usize {
        self.hasher.hash_one(id) as usize % SHARDS
    }
}

/// The folding thread. Dropping it waits for the thread, so that nothing holds the journal after the engine is gone.
struct Folder {
    jobs: Option<mpsc::SyncSender<FoldJob>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.jobs = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the folding thread panicked");
        }
    }
}

/// Ends when the engine lets go of its queue.
fn fold_all(shared: &Shared, jobs: &mpsc::Receiver<FoldJob>) {
    while let Ok(job) = jobs.recv() {
        let folded = shared
            .wait(job.after)
            .and_then(|()| shared.fold(job.cut.layer, &job.below, &job.cut.tree, job.cut.seq))
            .and_then(|batch| if batch.is_empty() { Ok(()) } else { shared.submit(batch).map(drop) });
        if let Err(error) = folded {
            // The layer keeps its records, so nothing is lost; loading it is slower.
            tracing::warn!(layer = job.cut.layer.0, %error, "fold a layer");
        }
    }
}
