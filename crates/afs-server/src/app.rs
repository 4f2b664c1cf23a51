//! The running server: its parts, wired, and how it opens and closes.
//!
//! Guarantees: parts open in the order data directory, journal, blobs, engine, and close in reverse; a close leaves
//! everything acknowledged on disk. Deliberately absent: sockets (`listen`) and the command line (`main`).

use crate::bridge::Registry;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::mount::AllSessions;
use crate::outgo::Answers;
use crate::pool::Pool;
use afs_fuse::Mounted;
use afs_session::{Engine, EngineConfig, Ports, Who};
use afs_store::{BlobStore, Journal};
use afs_types::{Clock, IdGen, Result, Rng, SessionId, SystemClock, SystemRng, UlidGen};
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tokio::sync::watch;

/// What tells this start of the server from others.
pub struct Identity {
    /// Changes with every start.
    pub instance_id: String,
    /// When it started, nanoseconds.
    pub started_ns: i64,
}

/// All parts of a server.
pub struct App {
    /// Sessions.
    pub engine: Arc<Engine>,
    /// Durability.
    pub journal: Arc<dyn Journal>,
    /// Bytes.
    pub blobs: Arc<BlobStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn IdGen>,
    /// Where blocking calls run.
    pub(crate) pool: Pool,
    /// What callers have not read yet.
    pub(crate) answers: Arc<Answers>,
    /// This start.
    pub identity: Identity,
    /// Remote mounts.
    pub(crate) bridge: Registry,
    /// The mount of all sessions; it sees them come and go even when it is not mounted.
    pub(crate) all: Arc<AllSessions>,
    /// Where that is mounted, if it was asked for; whoever runs the server holds it.
    pub(crate) mounted: OnceLock<Weak<Mounted>>,
    next_who: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    data: DataDir,
}

impl App {
    /// Opens everything below the data directory.
    pub fn open(config: &Config) -> Result<Arc<Self>> {
        let rng: Arc<dyn Rng> = Arc::new(SystemRng);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let data = DataDir::open(&config.data_dir, &*rng)?;
        let journal: Arc<dyn Journal> = crate::wiring::journal(&data)?;
        let blobs = BlobStore::open(&data.blobs(), data.tenant_key(), config.cache_bytes, journal.clone())?;
        let ids: Arc<dyn IdGen> = Arc::new(UlidGen::new(&*rng, 0));
        let ports = Ports {
            journal: journal.clone(),
            blobs: blobs.clone(),
            clock: clock.clone(),
            rng,
            ids: ids.clone(),
        };
        let settings = EngineConfig {
            resident_sessions: config.resident_sessions,
            idle_after: config.idle_after,
            all_overlays_bytes: config.all_overlays_bytes,
            // So that short calls find a thread.
            memory_waiters: (config.blocking_threads / 4).max(1),
            ..EngineConfig::new(data.engine())
        };
        let engine = Engine::open(settings, ports)?;
        let started_ns = clock.now_ns();
        let identity = Identity { instance_id: format!("{:032x}", ids.next_ulid(started_ns)), started_ns };
        let next_who = Arc::new(AtomicU64::new(1));
        let all = Arc::new(AllSessions::new(
            engine.clone(),
            data.path().to_owned(),
            clock.clone(),
            next_who.clone(),
        ));
        let answers = Arc::<Answers>::default();
        Ok(Arc::new(Self {
            engine,
            journal,
            blobs,
            clock,
            ids,
            pool: Pool::new(config.blocking_threads, answers.clone()),
            answers,
            identity,
            bridge: Registry::default(),
            all,
            mounted: OnceLock::new(),
            next_who,
            stop: watch::channel(false).0,
            data,
        }))
    }

    /// Where everything is kept.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// A name for one more maker of changes.
    pub fn next_who(&self) -> Who {
        self.next_who.fetch_add(1, Ordering::Relaxed)
    }

    /// Sessions were made, archived, resumed or deleted.
    pub fn sessions_changed(&self, ids: &[SessionId]) {
        self.all.sessions_changed(ids);
    }

    /// Tells long-lived streams to end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Resolves when the server stops.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            let _ = stop.wait_for(|stop| *stop).await; // the server is gone: that is a stop too
        }
    }

    /// Work that goes on beside requests, until the server stops.
    pub async fn background(self: Arc<Self>) {
        let evict = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(30)).await;
                let engine = self.engine.clone();
                match self.pool.run_unasked(move || engine.seal_idle()).await {
                    Ok(0) => {}
                    Ok(given) => tracing::debug!(given, "idle sessions are being sealed"),
                    Err(error) => tracing::warn!(?error, "seal idle sessions"),
                }
                let engine = self.engine.clone();
                match self.pool.run_unasked(move || engine.evict_idle()).await {
                    Ok(0) => {}
                    Ok(gone) => tracing::debug!(gone, "idle sessions left RAM"),
                    Err(error) => tracing::warn!(?error, "evict idle sessions"),
                }
            }
        };
        let make_room = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                let engine = self.engine.clone();
                match self.pool.run_unasked(move || engine.make_room()).await {
                    Ok(0) => {}
                    Ok(gone) => {
                        tracing::info!(gone, "sessions left RAM: what they changed took much of it")
                    }
                    Err(error) => tracing::warn!(?error, "evict sessions to have RAM for others"),
                }
            }
        };
        let expire = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                let engine = self.engine.clone();
                match self.pool.run_unasked(move || engine.delete_expired()).await {
                    Ok(gone) if gone.is_empty() => {}
                    Ok(gone) => {
                        tracing::info!(count = gone.len(), "the time of sessions was over");
                        self.sessions_changed(&gone);
                    }
                    Err(error) => tracing::warn!(?error, "delete sessions whose time is over"),
                }
            }
        };
        tokio::select! {
            () = evict => {}
            () = make_room => {}
            () = expire => {}
            () = self.bridge.expire_forever() => {}
            () = self.stopping() => {}
        }
    }

    /// Makes everything durable and closes the journal.
    pub fn close(&self) -> Result<()> {
        self.engine.stop();
        self.engine.sync()?;
        self.journal.close()
    }
}
