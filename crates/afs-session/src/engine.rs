//! The engine: every session of a server, in RAM or not.
//!
//! Guarantees: an id names at most one [`Session`] object that takes calls (it is registered before the batch that makes it, loaded,
//! evicted, archived and deleted by one at a time, and refused once it is archived or deleted); a session comes back from the journal exactly
//! as it was; families and closed layers are shared; id and time of creation together name one session, also when the id is used again.
//! Deliberately absent: transports, authorisation, and waiting where the caller can decide better (`fork_start`).

use crate::background::Worker;
use crate::expiry::Overdue;
use crate::family::Family;
use crate::imports::Imports;
use crate::instants::Instants;
use crate::leftovers;
use crate::overlays::Share;
use crate::records::{HeadRec, SessionRec, StartRec, Stored, head_key, session_key, start_key, starts_end};
use crate::registry::Registry;
use crate::segments;
use crate::session::{Cut, FoldJob, Session, archived};
use crate::shared::{EngineConfig, Ports, Shared};
use afs_core::tree::Tree;
use afs_store::Space;
use afs_types::{Error, LayerId, Reason, RequestId, Result, SessionId, SourceId, VersionId};
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

const SHARDS: usize = 64;
/// Locks by hash of an id, so that unrelated sessions rarely wait for each other.
const STRIPES: usize = 1024;

type Stripes = Vec<Mutex<()>>;

/// All sessions of one data directory.
pub struct Engine {
    // First, so that it ends first: nothing works in the background while the rest goes.
    _worker: Worker,
    pub(crate) shared: Arc<Shared>,
    registry: Registry,
    /// Whoever loads, evicts, archives or deletes a session holds its stripe.
    moving: Stripes,
    hasher: RandomState,
    families: Mutex<HashMap<VersionId, Arc<Family>>>,
    /// One request id, one effect: retries wait here for the first.
    pub(crate) requests: Stripes,
    /// The same for commits and restores, which may take minutes: a short call must not wait for one whose id happens to hash alike.
    pub(crate) long_requests: Stripes,
    /// The same for changes of texts, which may wait for memory while they hold theirs.
    pub(crate) text_requests: Stripes,
    /// Imports under way.
    pub(crate) imports: Mutex<Imports>,
    /// A session's record is read, changed and written by one at a time. Rare: labels, names, archive, commit. Taken before `moving`.
    record_turns: Stripes,
    /// Commits of one session come one after the other, each on top of the one before.
    commit_turns: Stripes,
    /// Source records are looked up, changed and written by one at a time. Rare: made, refreshed, imported. Taken before `imports`.
    pub(crate) source_turns: Mutex<()>,
    /// Held, with others, from before the source of a new session is looked at until the session is queued; alone by who deletes a source.
    /// By hash of its id; taken before `source_turns`. Forks do not take it.
    source_uses: Vec<RwLock<()>>,
    /// Ids that callers chose, from before they are looked for until they are in the journal or given up.
    pub(crate) wanted: Mutex<HashSet<SessionId>>,
    /// Nanoseconds; no session with an end has one before. Not known at the start.
    pub(crate) next_expiry: AtomicI64,
    /// Sessions whose time was over when they were last looked at, and that somebody used.
    pub(crate) overdue: Mutex<Overdue>,
    /// When the youngest of the sessions that were deleted in this start was made, nanoseconds.
    youngest_gone: AtomicI64,
    /// Instants that somebody may ask about.
    pub(crate) instants: Instants,
    /// Who makes room for overlays. Before `moving`.
    pub(crate) room_turn: Mutex<()>,
    /// Who loads something of which nobody knows what it takes, where room is short. Before `moving`.
    pub(crate) load_turn: Mutex<()>,
}

impl Engine {
    /// Opens the engine over its ports. Sessions load when they are used.
    pub fn open(config: EngineConfig, ports: Ports) -> Result<Arc<Self>> {
        let shared = Shared::open(config, ports)?;
        match segments::sweep(&shared) {
            Ok(0) => {}
            Ok(bytes) => {
                tracing::info!(bytes, "removed segments of the data log that nothing names any more")
            }
            // Nothing depends on it: the disk is fuller than it could be.
            Err(error) => tracing::error!(%error, "look for segments of the data log that nothing names"),
        }
        match leftovers::remove(&shared) {
            Ok((0, 0)) => {}
            Ok((bases, requests)) => {
                tracing::info!(
                    bases,
                    requests,
                    "removed base tables of imports that never ended, and old requests"
                )
            }
            Err(error) => tracing::error!(%error, "look for what a crash left behind"),
        }
        let instants = Instants::new(&*shared.ports.rng);
        let stripes = || (0..STRIPES).map(|_| Mutex::default()).collect();
        Ok(Arc::new(Self {
            _worker: Worker::start(&shared)?,
            shared,
            registry: Registry::new(),
            moving: stripes(),
            hasher: RandomState::new(),
            families: Mutex::default(),
            requests: stripes(),
            long_requests: stripes(),
            text_requests: stripes(),
            imports: Mutex::default(),
            record_turns: stripes(),
            commit_turns: stripes(),
            source_turns: Mutex::default(),
            source_uses: (0..SHARDS).map(|_| RwLock::default()).collect(),
            wanted: Mutex::default(),
            next_expiry: AtomicI64::new(i64::MIN),
            overdue: Mutex::default(),
            youngest_gone: AtomicI64::new(i64::MIN),
            instants,
            room_turn: Mutex::default(),
            load_turn: Mutex::default(),
        }))
    }

    /// A session, loaded if it is not in RAM.
    pub fn session(&self, id: &SessionId) -> Result<Arc<Session>> {
        if let Some(session) = self.resident(id) {
            session.touch_at(self.shared.now_ns());
            return Ok(session);
        }
        let _turn = self.turn_to_load(|| self.live_record(id).map(drop))?;
        let _alone = self.moving(id);
        let session = self.settled_session(id)?;
        session.touch_at(self.shared.now_ns());
        Ok(session)
    }

    /// The same at a time that the caller has looked up.
    pub(crate) fn session_at(&self, id: &SessionId, now_ns: i64) -> Result<Arc<Session>> {
        match self.resident(id) {
            Some(session) => {
                session.touch_at(now_ns);
                Ok(session)
            }
            None => self.session(id),
        }
    }

    /// A session, loaded if it is not in RAM. The caller holds its stripe of `moving`.
    pub(crate) fn settled_session(&self, id: &SessionId) -> Result<Arc<Session>> {
        if let Some(session) = self.resident(id) {
            return Ok(session);
        }
        let session = self.load_session(id)?;
        // Whoever made it meanwhile has the one that counts.
        Ok(self.registry.get_or_insert(session))
    }

    /// The turn of a session's commit.
    pub(crate) fn commit_turn(&self, id: &SessionId) -> MutexGuard<'_, ()> {
        self.commit_turns[self.commit_stripe(id)].lock()
    }

    /// Which lock a commit of this session waits for, and holds. Callers that have few threads for commits wait for each other by this
    /// number first.
    pub fn commit_stripe(&self, id: &SessionId) -> usize {
        self.hasher.hash_one(id) as usize % STRIPES
    }

    /// The same of a commit or restore with this request id; that lock is taken first.
    pub fn request_stripe(&self, id: &RequestId) -> usize {
        self.hasher.hash_one(id) as usize % STRIPES
    }

    /// A session if it is in RAM.
    pub fn resident(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.registry.get(id)
    }

    /// Sessions in RAM.
    pub fn resident_count(&self) -> usize {
        self.registry.len()
    }

    fn load_session(&self, id: &SessionId) -> Result<Arc<Session>> {
        let record = self.live_record(id)?;
        let head: HeadRec = self.shared.read(Space::Session, &head_key(id))?.ok_or_else(|| {
            Error::new(Reason::Corrupt, format!("{id} has no head record"))
                .next("restore the data directory from a backup; other sessions are not affected")
        })?;
        let family = self.family(&record.version)?;
        let mut loaded = self.shared.load(&family, head.layer, !head.owned)?;
        let seq = loaded.seq.max(head.seq);
        // It was restored: what was done until then is not in this history.
        if seq > loaded.seq {
            loaded.past.restart(seq);
        }
        let cut = Cut { layer: head.layer, depth: loaded.depth, seq, tree: loaded.tree, share: None };
        let owned_from = head.owned.then_some(loaded.below);
        let last = self.shared.ports.journal.durable();
        let noted: Option<StartRec> = self.shared.read(Space::Session, &start_key(id, self.shared.epoch))?;
        let is_new = record.epoch == self.shared.epoch;
        let start = noted.or_else(|| is_new.then(|| StartRec::of_new(cut.seq)));
        let name = (id.clone(), record.created_ns);
        let session = Session::loaded(name, &self.shared, &family, cut, owned_from, start, last);
        session.remember(loaded.past);
        Ok(session)
    }

    /// The record of a session that is not archived.
    fn live_record(&self, id: &SessionId) -> Result<SessionRec> {
        let record = self.session_record(id)?;
        if record.archived { Err(archived(id)) } else { Ok(record) }
    }

    /// This start of the server.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch
    }

    /// Whether a crash took back the change that somebody saw at `revision` of a session, in start `epoch` of the server or later (0: any).
    pub fn has_lost(&self, session: &Session, epoch: u32, revision: u64) -> Result<bool> {
        // What this start knows may not be in the journal yet.
        let mut is_lost =
            revision > session.stamp().seq || session.start().is_some_and(|s| s.has_lost(revision));
        let (from, to) = (start_key(session.id(), epoch.saturating_add(1)), starts_end(session.id()));
        self.shared.ports.journal.scan(Space::Session, &from, Some(&to), &mut |_, value| {
            is_lost |= StartRec::decode(value)?.has_lost(revision);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(is_lost)
    }

    pub(crate) fn session_record(&self, id: &SessionId) -> Result<SessionRec> {
        self.shared.read(Space::Session, &session_key(id))?.ok_or_else(|| id.not_found())
    }

    /// A time of creation for sessions whose ids have been found free. It is later than that of any session that was deleted in this start,
    /// whatever the clock did: who has an id again is told apart from who had it before.
    pub(crate) fn creation_ns(&self, now_ns: i64) -> i64 {
        now_ns.max(self.youngest_gone.load(Ordering::SeqCst).saturating_add(1))
    }

    /// A session that was made at this time is about to be deleted.
    pub(crate) fn note_gone(&self, created_ns: i64) {
        self.youngest_gone.fetch_max(created_ns, Ordering::SeqCst);
    }

    /// Puts a new session in the registry. False when the id is taken.
    pub(crate) fn register(&self, session: Arc<Session>) -> bool {
        self.registry.insert(session)
    }

    pub(crate) fn unregister(&self, id: &SessionId) {
        // Dropped outside of the lock: a tree can be large.
        drop(self.registry.remove_if(id, |_| true));
    }

    /// Takes a session out of RAM if nobody uses it. True when it is not in RAM afterwards.
    pub fn evict(&self, id: &SessionId) -> Result<bool> {
        // The job is not told when its bytes are sealed: the session is not there any more then.
        self.evict_and(id, |job| {
            self.shared.queue_fold(Some(Box::new(FoldJob { session: Weak::new(), ..*job })));
        })
    }

    /// The same; `fold` gets the layer that the session was writing to.
    pub(crate) fn evict_and(&self, id: &SessionId, fold: impl FnOnce(Box<FoldJob>)) -> Result<bool> {
        // Nobody loads it while its last changes are on their way to disk.
        let _alone = self.moving(id);
        let Some(session) = self.resident(id) else { return Ok(true) };
        // This function and the registry have it, and nobody can count on more than a moment.
        if !session.is_idle() || Arc::strong_count(&session) > 2 {
            return Ok(false);
        }
        if session.unfolded() > 0 {
            let (_, _, job) = session.cut(|_, _| Ok(()))?;
            if let Some(job) = job {
                fold(job);
            }
        }
        let stamp = session.stamp();
        self.shared.wait(stamp.at)?;
        drop(session);
        let unused = |s: &Arc<Session>| Arc::strong_count(s) == 1 && s.stamp() == stamp && s.is_idle();
        Ok(self.registry.remove_if(id, unused).is_some())
    }

    /// Evicts sessions that were idle for long enough, and the least recently used ones beyond the configured number.
    /// Returns how many left RAM. One that cannot leave does not keep the others; the first error is returned in the end.
    pub fn evict_idle(&self) -> Result<usize> {
        let config = &self.shared.config;
        let oldest_kept = self.shared.now_ns() - config.idle_after.as_nanos() as i64;
        self.shared.trees.tidy();
        let all = self.by_use();
        let surplus = all.len().saturating_sub(config.resident_sessions);
        let (mut gone, mut failure) = (0, None);
        for (n, (used, id)) in all.iter().enumerate() {
            if n < surplus || *used < oldest_kept {
                match self.evict(id) {
                    Ok(left) => gone += usize::from(left),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        failure.map_or(Ok(gone), Err)
    }

    /// Sessions in RAM, the least recently used first, with when that was, in nanoseconds.
    pub(crate) fn by_use(&self) -> Vec<(i64, SessionId)> {
        let mut all: Vec<(i64, SessionId)> = Vec::new();
        for sessions in self.registry.shards() {
            all.extend(sessions.iter().map(|s| (s.used_ns(), s.id().clone())));
        }
        all.sort_unstable();
        all
    }

    /// Hands sessions that have not changed for `seal_after` to the background thread, which folds what they wrote into a delta and its
    /// bytes into blobs. Returns how many; the rest is for the next call when the thread's queue is full.
    pub fn seal_idle(&self) -> Result<usize> {
        let latest = self.shared.now_ns() - self.shared.config.seal_after.as_nanos() as i64;
        let mut given = 0;
        // Looked at without the registry's lock: a fork takes that one while it holds a session's.
        for all in self.registry.shards() {
            let idle = |s: &&Arc<Session>| s.unfolded_since().is_some_and(|changed| changed <= latest);
            for session in all.iter().filter(idle) {
                if !self.shared.background.has_room() {
                    return Ok(given);
                }
                match session.cut(|_, _| Ok(())) {
                    Ok((_, _, job)) => self.shared.queue_fold(job),
                    // It went meanwhile.
                    Err(e) if matches!(e.reason, Reason::SessionNotFound | Reason::SessionArchived) => {
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                given += 1;
            }
        }
        Ok(given)
    }

    /// Returns when the background thread has done what was handed to it so far.
    pub fn settle(&self) {
        self.shared.background.settle();
    }

    /// Folds what a session wrote, and seals its bytes into blobs, now. Nothing that a reader sees changes. Returns the bytes that
    /// were read to be sealed.
    pub fn seal(&self, session: &Session) -> Result<u64> {
        let (_, _, job) = session.cut(|_, _| Ok(()))?;
        job.map_or(Ok(0), |job| self.shared.fold(&job))
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
        if layer == LayerId::default() {
            // No layer at all: of every base this is another tree, so it must not go into the cache under this number.
            let base = self.family(version)?.base.clone();
            return Ok(Cut { layer, depth: 0, seq: 0, tree: Tree::new(base), share: None });
        }
        if let Some(cut) = self.shared.trees.get(layer) {
            return Ok(cut);
        }
        let _turn = self.turn_to_load(|| Ok(()))?;
        self.load_instant(version, layer)
    }

    /// The same for who makes room, or goes on with what is in RAM: never refused for want of it.
    pub(crate) fn instant_anyway(&self, version: &VersionId, layer: LayerId) -> Result<Cut> {
        match self.instant(version, layer) {
            Err(error) if error.reason == Reason::QuotaExceeded => {
                let _turn = self.load_turn.lock();
                self.load_instant(version, layer)
            }
            other => other,
        }
    }

    fn load_instant(&self, version: &VersionId, layer: LayerId) -> Result<Cut> {
        let family = self.family(version)?;
        let loaded = self.shared.load(&family, layer, true)?;
        let share = Share::of_new(&loaded.tree, &self.shared.overlays);
        let cut = Cut { layer, depth: loaded.depth, seq: loaded.seq, tree: loaded.tree, share };
        self.shared.trees.insert(cut.clone());
        Ok(cut)
    }

    /// Ends commits that are not done: nobody waits for them, and nothing of them stays.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Everything acknowledged so far is on disk when this returns.
    pub fn sync(&self) -> Result<()> {
        self.shared.ports.journal.sync().map(drop)
    }

    /// What keeps a source while a session is made on it.
    pub(crate) fn source_use(&self, id: &SourceId) -> &RwLock<()> {
        &self.source_uses[self.hasher.hash_one(id) as usize % SHARDS]
    }
    /// The turn of who moves this session in or out of RAM.
    pub(crate) fn moving(&self, id: &SessionId) -> MutexGuard<'_, ()> {
        self.moving[self.registry.hash(id) as usize % STRIPES].lock()
    }
    /// The turn of who changes this session's record.
    pub(crate) fn record_turn(&self, id: &SessionId) -> MutexGuard<'_, ()> {
        self.record_turns[self.registry.hash(id) as usize % STRIPES].lock()
    }
}
