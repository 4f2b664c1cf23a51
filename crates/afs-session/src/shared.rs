//! What every part of the engine uses: ports, configuration, counters, and the few ways to read and write records.

use crate::background::Background;
use crate::memory::Memory;
use crate::overlays::Overlays;
use crate::records::Stored;
use crate::session::FoldJob;
use crate::trees::Trees;
use afs_store::{Batch, BlobStore, Journal, Position, Space};
use afs_types::{Clock, IdGen, LayerId, Result, Rng, limits};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Settings of the engine. Plain data; every one has a bound.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where base tables, git mirrors and temporary files live. The journal and blob store have places of their own.
    pub dir: PathBuf,
    /// Most sessions kept in RAM; idle ones beyond it are evicted, oldest first.
    pub resident_sessions: usize,
    /// A session without handles and watchers leaves RAM after being idle for this long.
    pub idle_after: Duration,
    /// A session that has not changed for this long is folded into a delta, its bytes in the data log sealed into blobs.
    pub seal_after: Duration,
    /// Bytes a second that sealing reads, so that it does not take the disk from those who work.
    pub seal_bytes_per_s: u64,
    /// Records in an open layer beyond which a new one is begun and the old one folded: what loading a session costs at most.
    pub layer_records: u64,
    /// Bytes of a delta beyond which no lower one is merged into it.
    pub merged_delta_bytes: usize,
    /// Most inodes and names that one call changes.
    pub max_operations: usize,
    /// Most calls that wait for memory for contents of files, of each kind: each holds one of the caller's threads.
    pub memory_waiters: usize,
    /// Bytes of RAM that the overlay of one session may take.
    pub overlay_bytes: u64,
    /// The same for all sessions together; idle ones leave RAM from three quarters of it on.
    pub all_overlays_bytes: u64,
}

impl EngineConfig {
    /// Defaults for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            resident_sessions: 1_000_000,
            idle_after: Duration::from_secs(600),
            seal_after: Duration::from_secs(60),
            seal_bytes_per_s: 128 << 20,
            merged_delta_bytes: limits::MAX_MERGED_DELTA_BYTES,
            max_operations: limits::MAX_OPERATIONS,
            memory_waiters: 16,
            overlay_bytes: limits::MAX_OVERLAY_BYTES,
            all_overlays_bytes: 4 * limits::MAX_OVERLAY_BYTES,
            layer_records: limits::MAX_LAYER_RECORDS,
        }
    }
    pub(crate) fn bases(&self) -> PathBuf {
        self.dir.join("bases")
    }
    pub(crate) fn mirrors(&self) -> PathBuf {
        self.dir.join("mirrors")
    }
    pub(crate) fn temp(&self) -> PathBuf {
        self.dir.join("temp")
    }
}

/// The ports the engine runs on; all injected.
pub struct Ports {
    /// Ordered, atomic, durable batches.
    pub journal: Arc<dyn Journal>,
    /// Bytes.
    pub blobs: Arc<BlobStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub rng: Arc<dyn Rng>,
    /// Ids.
    pub ids: Arc<dyn IdGen>,
}

/// Ports, configuration and counters.
pub(crate) struct Shared {
    pub(crate) ports: Ports,
    pub(crate) config: EngineConfig,
    /// This start of the server; in every record.
    pub(crate) epoch: u32,
    /// When it began, nanoseconds.
    pub(crate) started_ns: i64,
    layers: Mutex<Lease>,
    pub(crate) trees: Trees,
    pub(crate) background: Background,
    /// For contents of files.
    pub(crate) memory: Memory,
    /// For what sessions changed.
    pub(crate) overlays: Arc<Overlays>,
    /// Nobody waits any more for calls that take long.
    pub(crate) stop: Arc<AtomicBool>,
}

/// Numbers handed out one by one, whose high-water mark is in the journal before a record can use them.
struct Lease {
    next: u64,
    end: u64,
}

const LAYER_CHUNK: u64 = 4096;
const LAYER_MARK: &[u8] = b"next_layer";

impl Shared {
    pub(crate) fn open(config: EngineConfig, ports: Ports) -> Result<Arc<Self>> {
        for dir in [config.bases(), config.mirrors(), config.temp()] {
            make_dir(&dir)?;
        }
        let next = read_u64(&*ports.journal, LAYER_MARK)?.unwrap_or(1);
        let epoch = ports.journal.durable().epoch;
        let layers = Mutex::new(Lease { next, end: next });
        let (background, memory) = (Background::default(), Memory::new(config.memory_waiters));
        let overlays = Overlays::new(config.all_overlays_bytes);
        let (trees, stop) = (Trees::default(), Arc::default());
        let started_ns = ports.clock.now_ns();
        Ok(Arc::new(Self {
            ports,
            config,
            epoch,
            started_ns,
            layers,
            trees,
            background,
            memory,
            overlays,
            stop,
        }))
    }

    /// Hands a closed layer, if there is one, to the folding thread; when that is behind, the layer simply stays as records.
    pub(crate) fn queue_fold(&self, job: Option<Box<FoldJob>>) {
        if let Some(job) = job {
            self.trees.insert(job.cut.clone());
            self.queue_uncounted(job);
        }
    }

    /// The same for a layer whose tree is not kept.
    pub(crate) fn queue_uncounted(&self, job: Box<FoldJob>) {
        if !self.background.push(job) {
            tracing::debug!("the folding queue is full: a layer stays as records");
        }
    }

    /// A layer id that was never used.
    pub(crate) fn new_layer(&self) -> Result<LayerId> {
        let mut lease = self.layers.lock();
        if lease.next == lease.end {
            // Submitted under the lock: whoever uses a number of this chunk submits after the mark.
            let end = lease.end + LAYER_CHUNK;
            self.submit(mark(LAYER_MARK, end))?;
            lease.end = end;
        }
        let id = LayerId(lease.next);
        lease.next += 1;
        Ok(id)
    }

    pub(crate) fn now_ns(&self) -> i64 {
        self.ports.clock.now_ns()
    }
    /// For an id. Whoever knows the time asks the port.
    pub(crate) fn next_ulid(&self) -> u128 {
        self.ports.ids.next_ulid(self.now_ns())
    }
    pub(crate) fn submit(&self, batch: Batch) -> Result<Position> {
        self.ports.journal.submit(batch)
    }
    pub(crate) fn wait(&self, at: Position) -> Result<()> {
        self.ports.journal.wait(at)
    }
    /// Submits and waits.
    pub(crate) fn commit(&self, batch: Batch) -> Result<()> {
        let at = self.submit(batch)?;
        self.wait(at)
    }
    pub(crate) fn read<T: Stored>(&self, space: Space, key: &[u8]) -> Result<Option<T>> {
        self.ports.journal.get(space, key)?.map(|v| T::decode(&v)).transpose()
    }
}

/// A number kept under a name in the journal's meta space.
pub(crate) fn read_u64(journal: &dyn Journal, name: &[u8]) -> Result<Option<u64>> {
    let Some(value) = journal.get(Space::Meta, name)? else { return Ok(None) };
    let d = afs_core::codec::Dec::new(&value, "counter");
    let bytes = value.as_slice().try_into().map_err(|_| d.corrupt("it does not have 8 bytes"))?;
    Ok(Some(u64::from_le_bytes(bytes)))
}

/// The batch that keeps a number under a name.
pub(crate) fn mark(name: &[u8], value: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Space::Meta, name, value.to_le_bytes());
    batch
}

pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)
        .map_err(|e| afs_types::Error::io(format!("create directory {}", dir.display()), e))
}
