//! A server without its surfaces: the engine on a real journal and blob store, in a directory.

use afs_journal::{JournalOptions, RocksJournal};
use afs_session::{
    CreateSession, CreateSource, Engine, EngineConfig, ImportSpec, NewFile, Ports, Session, SourceState,
};
use afs_store::{BlobStore, Journal};
use afs_types::{Ino, ROOT_INO, SessionId, SourceId, SystemClock, SystemRng, UlidGen};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const CACHE_BYTES: u64 = 256 << 20;
const IMPORT: Duration = Duration::from_secs(600);
/// Names blobs.
pub(crate) const KEY: [u8; 32] = [7; 32];
pub(crate) const FILE: NewFile = NewFile { mode: 0o644, uid: 0, gid: 0, rdev: 0 };

pub(crate) struct Node {
    pub(crate) engine: Arc<Engine>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) blobs: Arc<BlobStore>,
}

impl Node {
    /// Opens or makes one.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, |_| {})
    }

    /// Opens or makes one, with other settings than the product's.
    pub(crate) fn open_with(dir: &Path, change: impl FnOnce(&mut EngineConfig)) -> Result<Self> {
        let mut config = EngineConfig::new(dir.join("engine"));
        change(&mut config);
        let journal: Arc<dyn Journal> = RocksJournal::open(&dir.join("journal"), JournalOptions::default())?;
        let blobs = BlobStore::open(&dir.join("blobs"), KEY, CACHE_BYTES, Arc::clone(&journal))?;
        let clock = Arc::new(SystemClock);
        let ids = Arc::new(UlidGen::new(&SystemRng, 1));
        let ports = Ports {
            journal: Arc::clone(&journal),
            blobs: Arc::clone(&blobs),
            clock,
            rng: Arc::new(SystemRng),
            ids,
        };
        let engine = Engine::open(config, ports)?;
        Ok(Self { engine, journal, blobs })
    }

    /// Imports a git repository's HEAD and waits for it.
    pub(crate) fn import_git(&self, repository: &Path) -> Result<SourceId> {
        let url = repository.to_str().context("a path that is text")?.to_owned();
        self.import(ImportSpec::Git { url, reference: None })
    }

    /// Imports and waits.
    pub(crate) fn import(&self, spec: ImportSpec) -> Result<SourceId> {
        let want = CreateSource {
            source_id: None,
            display_name: String::new(),
            spec,
            labels: Default::default(),
            request_id: None,
        };
        let source = self.engine.create_source(want)?;
        let source = self.engine.wait_source(&source.id, IMPORT)?;
        ensure!(
            source.state == SourceState::Ready,
            "the import ended as {:?}: {:?}",
            source.state,
            source.record
        );
        Ok(source.id)
    }

    /// A session on a source.
    pub(crate) fn session(&self, source: &SourceId) -> Result<(SessionId, Arc<Session>)> {
        let want = CreateSession { source: Some(source.clone()), ..CreateSession::default() };
        let id = self.engine.create_session(want)?.id;
        let session = self.engine.session(&id)?;
        Ok((id, session))
    }

    /// Everything on disk, then nothing running.
    pub(crate) fn close(self) -> Result<()> {
        drop(self.engine);
        Ok(self.journal.close()?)
    }
}

/// The inode at a path of names.
pub(crate) fn walk(session: &Session, path: &str) -> Result<Ino> {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.into_iter().try_fold(ROOT_INO, |dir, name| Ok(session.lookup(dir, name.as_bytes())?.ino))
}

/// Runs a program to its end; its output is shown only when it fails.
pub(crate) fn run(program: &str, arguments: &[&str], at: &Path) -> Result<()> {
    let output = Command::new(program).args(arguments).current_dir(at).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Bytes of a directory's files, as allocated on disk.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut pending: Vec<PathBuf> = vec![dir.to_owned()];
    let mut bytes = 0;
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            let meta = entry.metadata()?;
            bytes += meta.blocks() * 512;
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(bytes)
}
