//! An engine on a simulated journal and a real blob store, with clock and ids of its own.

use crate::hooks::Hooks;
use afs_session::{CreateSession, Engine, EngineConfig, Fork, NewFile, Ports, Session, SessionInfo};
use afs_store::{BlobStore, Journal, SimJournal};
use afs_types::{Clock, ROOT_INO, Rng, SessionId, UlidGen};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tempfile::TempDir;

/// Time that moves by one microsecond a look, or stands still when told to.
pub(crate) struct TestClock {
    now_ns: AtomicI64,
    step_ns: AtomicI64,
}

impl TestClock {
    pub(crate) fn stop_at(&self, now_ns: i64) {
        self.now_ns.store(now_ns, Ordering::Relaxed);
        self.step_ns.store(0, Ordering::Relaxed);
    }
    pub(crate) fn stopped(&self) -> i64 {
        self.now_ns.load(Ordering::Relaxed)
    }
}

impl Clock for TestClock {
    fn now_ns(&self) -> i64 {
        self.now_ns.fetch_add(self.step_ns.load(Ordering::Relaxed), Ordering::Relaxed)
    }
}

/// The same bytes in every run.
pub(crate) struct TestRng(AtomicU64);

impl Rng for TestRng {
    fn fill(&self, buffer: &mut [u8]) {
        for b in buffer {
            let n = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            *b = (n >> 56) as u8;
        }
    }
}

/// Small, so that every test of any length begins new layers.
pub(crate) const LAYER_RECORDS: u64 = 32;

/// More than the deltas of most tests, so that they are merged as ever.
pub(crate) const MERGED_DELTA_BYTES: usize = 16 << 10;

/// Small enough to be reached.
pub(crate) const OVERLAY_BYTES: u64 = 16 << 20;

/// The same, by several sessions.
pub(crate) const ALL_OVERLAYS_BYTES: u64 = 40 << 20;

/// Small enough to be reached.
pub(crate) const MAX_OPERATIONS: usize = 5_000;

/// Closes a journal, so that its last group is on disk before the directory goes.
struct Ends(Arc<SimJournal>);

impl Drop for Ends {
    fn drop(&mut self) {
        // Fails after a crash or a stop, when there is nothing to close.
        let _ = self.0.close();
    }
}

pub(crate) struct Rig {
    _ends: Ends,
    pub(crate) dir: Arc<TempDir>,
    pub(crate) journal: Arc<SimJournal>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) blobs: Arc<BlobStore>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) clock: Arc<TestClock>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let dir = Arc::new(TempDir::new().unwrap());
        let start = AtomicI64::new(1_700_000_000_000_000_000);
        let clock = Arc::new(TestClock { now_ns: start, step_ns: AtomicI64::new(1_000) });
        Self::open(dir, SimJournal::new().unwrap(), clock)
    }

    fn open(dir: Arc<TempDir>, journal: Arc<SimJournal>, clock: Arc<TestClock>) -> Self {
        let rng = Arc::new(TestRng(AtomicU64::new(journal.durable().idx + 1)));
        let hooks = Hooks::around(journal.clone());
        let port: Arc<dyn Journal> = hooks.clone();
        let blobs = BlobStore::open(&dir.path().join("store"), [7; 32], 64 << 20, port.clone()).unwrap();
        let ids = Arc::new(UlidGen::new(&*rng, 1));
        let config = EngineConfig {
            layer_records: LAYER_RECORDS,
            merged_delta_bytes: MERGED_DELTA_BYTES,
            max_operations: MAX_OPERATIONS,
            overlay_bytes: OVERLAY_BYTES,
            all_overlays_bytes: ALL_OVERLAYS_BYTES,
            seal_bytes_per_s: u64::MAX,
            ..EngineConfig::new(dir.path().join("engine"))
        };
        let ports = Ports { journal: port, blobs: blobs.clone(), clock: clock.clone(), rng, ids };
        let _ends = Ends(journal.clone());
        Self { _ends, engine: Engine::open(config, ports).unwrap(), dir, journal, hooks, blobs, clock }
    }

    /// The power goes: what was not durable may be lost, as `seed` says; then the same directory is opened again.
    pub(crate) fn crash(self, seed: u64) -> Self {
        let journal = self.journal.crash(seed).unwrap();
        let Self { dir, engine, clock, .. } = self;
        drop(engine);
        Self::open(dir, journal, clock)
    }

    /// Goes on with another journal in the same directory.
    pub(crate) fn with_journal(self, journal: Arc<SimJournal>) -> Self {
        let Self { dir, engine, clock, .. } = self;
        drop(engine);
        Self::open(dir, journal, clock)
    }

    /// A clean stop and start.
    pub(crate) fn restart(self) -> Self {
        self.journal.close().unwrap();
        let journal = self.journal.reopen().unwrap();
        let Self { dir, engine, clock, .. } = self;
        drop(engine);
        Self::open(dir, journal, clock)
    }

    pub(crate) fn id(text: &str) -> SessionId {
        SessionId::parse(text).unwrap()
    }

    pub(crate) fn empty(&self, id: &str) -> Arc<Session> {
        let want =
            CreateSession { session_id: Some(SessionId::parse(id).unwrap()), ..CreateSession::default() };
        let info = self.engine.create_session(want).unwrap();
        self.engine.session(&info.id).unwrap()
    }

    pub(crate) fn get(&self, id: &str) -> Arc<Session> {
        self.engine.session(&SessionId::parse(id).unwrap()).unwrap()
    }

    pub(crate) fn fork(&self, id: &str, new: &str) -> Arc<Session> {
        let new = SessionId::parse(new).unwrap();
        let want = Fork { new_ids: vec![new.clone()], ..Fork::of(SessionId::parse(id).unwrap()) };
        let made: Vec<SessionInfo> = self.engine.fork(&want).unwrap();
        assert_eq!(made[0].id, new);
        self.engine.session(&new).unwrap()
    }
}

pub(crate) const FILE: NewFile = NewFile { mode: 0o100_644, uid: 0, gid: 0, rdev: 0 };

/// Creates or replaces a file in the root.
pub(crate) fn put(s: &Session, name: &str, text: &str) {
    let ino = match s.lookup(ROOT_INO, name.as_bytes()) {
        Ok(attr) => attr.ino,
        Err(_) => s.create(ROOT_INO, name.as_bytes(), FILE, 0, 0).unwrap().0.ino,
    };
    let set = afs_session::AttrSet { size: Some(0), ..Default::default() };
    s.setattr(ino, set, 0, 0).unwrap();
    s.write(ino, 0, text.as_bytes(), 0, 0).unwrap();
}

/// The text of a file in the root; none when it is not there.
pub(crate) fn text(s: &Session, name: &str) -> Option<String> {
    let ino = s.lookup(ROOT_INO, name.as_bytes()).ok()?.ino;
    Some(String::from_utf8_lossy(&s.read(ino, 0, 1 << 20).unwrap()).into_owned())
}

/// Names in the root.
pub(crate) fn names(s: &Session) -> Vec<String> {
    let mut all = Vec::new();
    s.readdir(ROOT_INO, 0, &mut |e| {
        all.push(String::from_utf8_lossy(e.name).into_owned());
        true
    })
    .unwrap();
    all.sort();
    all
}
