//! The system under test: the engine on a real journal and blob store, small enough for a disk of a few hundred megabytes.

use afs_journal::{JournalOptions, RocksJournal};
use afs_session::{CreateSession, CreateSource, Engine, EngineConfig, ImportSpec, Ports, SourceState};
use afs_store::{BlobOptions, BlobStore, Journal};
use afs_types::{Error, Reason, Result, SessionId, SourceId, SystemClock, SystemRng, UlidGen};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const IMPORT: Duration = Duration::from_secs(60);

/// What a negative control switches off.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    /// Sync the journal's groups.
    pub sync: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { sync: true }
    }
}

/// An open engine.
pub struct Node {
    /// Sessions.
    pub engine: Arc<Engine>,
    /// Bytes.
    pub blobs: Arc<BlobStore>,
    journal: Arc<RocksJournal>,
    mirrors: PathBuf,
}

impl Node {
    /// Opens or makes one in `dir`. Memtables and files are tiny, so that a short run goes through flushes and new files.
    ///
    /// # Errors
    /// What the journal, the store or the engine refuse.
    pub fn open(dir: &Path, options: NodeOptions) -> Result<Self> {
        let journal = JournalOptions {
            sync: options.sync,
            cache_bytes: 4 << 20,
            write_buffer_bytes: 256 << 10,
            wal_bytes: 1 << 20,
            reserve_bytes: 0,
            ballast_bytes: 0,
            ..JournalOptions::default()
        };
        let journal = RocksJournal::open(&dir.join("journal"), journal)?;
        let port: Arc<dyn Journal> = journal.clone();
        let limits = BlobOptions {
            cache_bytes: 4 << 20,
            pack_bytes: 256 << 10,
            log_bytes: 256 << 10,
            reserve_bytes: 0,
        };
        let blobs = BlobStore::open_with(&dir.join("blobs"), [3; 32], limits, Arc::clone(&port))?;
        let clock = Arc::new(SystemClock);
        let ids = Arc::new(UlidGen::new(&SystemRng, 1));
        let ports = Ports { journal: port, blobs: Arc::clone(&blobs), clock, rng: Arc::new(SystemRng), ids };
        let engine = Engine::open(EngineConfig::new(dir.join("engine")), ports)?;
        Ok(Self { engine, blobs, journal, mirrors: dir.join("engine/mirrors") })
    }

    /// Imports a directory and waits for it.
    ///
    /// # Errors
    /// When the import fails.
    pub fn import(&self, dir: &Path) -> Result<SourceId> {
        self.import_spec(ImportSpec::Local { path: dir.to_owned() })
    }

    /// Imports a git repository and waits for it.
    ///
    /// # Errors
    /// When the import fails.
    pub fn import_git(&self, repository: &Path) -> Result<SourceId> {
        self.import_spec(ImportSpec::Git { url: repository.display().to_string(), reference: None })
    }

    fn import_spec(&self, spec: ImportSpec) -> Result<SourceId> {
        let want = CreateSource {
            source_id: None,
            display_name: String::new(),
            spec,
            labels: Default::default(),
            request_id: None,
        };
        let source = self.engine.create_source(want)?;
        let source = self.engine.wait_source(&source.id, IMPORT)?;
        if source.state != SourceState::Ready {
            return Err(Error::new(Reason::Internal, format!("the import ended as {:?}", source.state)));
        }
        Ok(source.id)
    }

    /// A session on a source.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn session(&self, source: &SourceId) -> Result<SessionId> {
        let want = CreateSession { source: Some(source.clone()), ..CreateSession::default() };
        Ok(self.engine.create_session(want)?.id)
    }

    /// What git itself finds missing or damaged of commits and everything that they reach, in any of the server's repositories.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub fn missing_git_objects(&self, oids: &[&str]) -> Result<Vec<String>> {
        if oids.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |e| Error::io("look for git repositories", e);
        let mut said = vec![format!("no repository below {} has {oids:?}", self.mirrors.display())];
        for mirror in std::fs::read_dir(&self.mirrors).map_err(failed)? {
            // Commits that sessions make are kept beside what came from the source, in a repository that stands on it.
            let mirror = mirror.map_err(failed)?.path().join("aether");
            if !mirror.is_dir() {
                continue; // a lock, or settings
            }
            let mut git = Command::new("git");
            git.arg("--git-dir").arg(&mirror).args(["rev-list", "--objects", "--quiet"]).args(oids);
            let output = git.output().map_err(|e| Error::io("start git", e))?;
            if output.status.success() {
                return Ok(Vec::new());
            }
            said.push(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(said)
    }

    /// Stops everything.
    ///
    /// # Errors
    /// Those of the last sync.
    pub fn close(self) -> Result<()> {
        let Self { engine, blobs, journal, .. } = self;
        drop((engine, blobs));
        journal.close()
    }
}
