//! Imports that run: each in a thread of its own, at most one for a source at a time.
//!
//! Guarantees: an import belongs to one incarnation of its source and to what that source referred to when it began. Once the source has
//! gone (also if another one has its id by then) or refers to something else, the import is stopped, and whatever it finds, be it a version
//! or a failure, is dropped. A refresh that comes while an import runs is done after it, since that one may have looked at the source
//! before; one more import does for however many came, so there is no queue. What a source that is gone imported is never taken for what the
//! next one of its id has imported; it stays, for sessions stand on it. A killed import shows as failed, and so does one that panics:
//! what is imported is hostile, and neither its source nor its place among those that run may be lost by it.
//! Deliberately absent: what an import reads and stores (`afs-base`).

use crate::engine::Engine;
use crate::family::open_base;
use crate::records::{ImportFailure, SourceRec, Stored, VersionRec};
use crate::sources::{owns, put_source, spec_of};
use afs_base::{ImportDirs, ImportSpec, Imported, Owner, Progress};
use afs_core::base::BaseTable;
use afs_store::{Batch, Space};
use afs_types::{Error, Reason, Result, SourceId, VersionId, limits};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One import of a source.
pub(crate) struct Import {
    spec: ImportSpec,
    /// Grows from import to import, whichever source they are of.
    number: u64,
    progress: Mutex<ImportProgress>,
    /// Nobody wants it any more. Set in the turn of source records, like [`Import::next`], and so never while its end is recorded.
    is_dropped: AtomicBool,
    /// Number of the import that was asked for meanwhile.
    next: Mutex<Option<u64>>,
    ended: Mutex<bool>,
    end: Condvar,
}

impl Import {
    fn new(number: u64, spec: ImportSpec) -> Arc<Self> {
        Arc::new(Self {
            spec,
            number,
            progress: Mutex::default(),
            is_dropped: AtomicBool::new(false),
            next: Mutex::default(),
            ended: Mutex::default(),
            end: Condvar::new(),
        })
    }

    fn drop_it(&self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }
    fn is_dropped(&self) -> bool {
        self.is_dropped.load(Ordering::Relaxed)
    }
    fn tell_end(&self) {
        *self.ended.lock() = true;
        self.end.notify_all();
    }
    /// The import with whose end all is done that was asked for so far.
    pub(crate) fn last(&self) -> u64 {
        self.next.lock().unwrap_or(self.number)
    }
    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
    /// How far it is.
    pub(crate) fn progress(&self) -> ImportProgress {
        self.progress.lock().clone()
    }

    fn tell(&self, phase: &str, done: u64, total: Option<u64>, unit: &'static str) {
        let mut shown = self.progress.lock();
        if shown.phase != phase {
            phase.clone_into(&mut shown.phase);
        }
        (shown.done, shown.total, shown.unit) = (done, total, unit);
    }
}

/// How far an import is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportProgress {
    /// What it does, for people.
    pub phase: String,
    /// Steps done.
    pub done: u64,
    /// Steps in all, when known.
    pub total: Option<u64>,
    /// What the steps are: `bytes`, or empty for what the phase says.
    pub unit: &'static str,
}

impl Progress for Import {
    fn update(&self, phase: &str, done: u64, total: Option<u64>) {
        self.tell(phase, done, total, "");
    }
    fn bytes(&self, phase: &str, done: u64) {
        self.tell(phase, done, None, "bytes");
    }
    fn cancelled(&self) -> bool {
        self.is_dropped()
    }
}

/// All that run.
#[derive(Default)]
pub(crate) struct Imports {
    /// What is imported for each source. Not here: what was dropped with its source and is about to end.
    pub(crate) current: HashMap<SourceId, Arc<Import>>,
    /// Also those that are about to end.
    threads: usize,
    last_number: u64,
}

impl Imports {
    fn new_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl Engine {
    /// Waits until what was asked for so far is imported, `limit` at most.
    pub(crate) fn wait_import(&self, id: &SourceId, limit: Duration) {
        let until = Instant::now() + limit;
        let mut last = None;
        loop {
            let Some(import) = self.imports.lock().current.get(id).cloned() else { return };
            if import.number > *last.get_or_insert_with(|| import.last()) {
                return;
            }
            let mut ended = import.ended.lock();
            while !*ended {
                if import.end.wait_until(&mut ended, until).timed_out() {
                    return;
                }
            }
        }
    }

    /// Starts an import of what the record says, or has it done after the one that runs. The caller holds the turn of source records, in
    /// which it wrote or read this record.
    pub(crate) fn start_import(self: &Arc<Self>, id: &SourceId, record: &SourceRec) -> Result<()> {
        let spec = spec_of(record);
        let import = {
            let mut imports = self.imports.lock();
            if let Some(running) = imports.current.get(id).cloned() {
                let mut next = running.next.lock();
                next.get_or_insert_with(|| imports.new_number());
                if running.spec != spec {
                    running.drop_it();
                }
                return Ok(());
            }
            if imports.threads >= limits::MAX_IMPORTS {
                let most = limits::MAX_IMPORTS;
                return Err(Error::new(Reason::QueueFull, format!("{most} imports run already"))
                    .with("limit", most.to_string())
                    .next(format!("when one has ended: aether source refresh {id}")));
            }
            let import = Import::new(imports.new_number(), spec);
            imports.current.insert(id.clone(), import.clone());
            imports.threads += 1;
            import
        };
        let (engine, source) = (self.clone(), id.clone());
        let spawned = std::thread::Builder::new()
            .name("afs-import".into())
            .spawn(move || engine.run_imports(&source, import));
        if let Err(e) = spawned {
            let mut imports = self.imports.lock();
            imports.current.remove(id);
            imports.threads -= 1;
            return Err(Error::io("start an import thread", e));
        }
        Ok(())
    }

    /// The source has gone. The caller holds the turn of source records, in which it wrote that.
    pub(crate) fn drop_import(&self, id: &SourceId) {
        let gone = self.imports.lock().current.remove(id);
        if let Some(import) = gone {
            import.drop_it();
            import.tell_end();
        }
    }

    /// The work of an import thread: one import, and those that are asked for meanwhile.
    fn run_imports(&self, source: &SourceId, mut import: Arc<Import>) {
        loop {
            // Nothing half done is seen afterwards: an import writes files of other names first, then one batch; what it shares with others
            // is behind locks that are given back on the way up.
            let work = AssertUnwindSafe(|| self.import(source, &import));
            let failed = catch_unwind(work).unwrap_or_else(|_| Err(panicked(source))).err();
            if let Some(error) = &failed {
                tracing::warn!(%source, ?error, is_dropped = import.is_dropped(), "import");
            }
            if let Err(error) = self.note_failure(source, &import, failed.as_ref().map(ImportFailure::from)) {
                tracing::error!(%source, ?error, "record the end of an import");
            }
            let next = self.next_import(source, &import);
            import.tell_end();
            match next {
                Some(next) => import = next,
                None => return,
            }
        }
    }

    /// The import after this one, if one was asked for; else the source has none from here on.
    fn next_import(&self, id: &SourceId, import: &Arc<Import>) -> Option<Arc<Import>> {
        let _turn = self.source_turns.lock();
        let number = *import.next.lock();
        let next = number.and_then(|number| match self.source_record(id) {
            Ok(record) => Some(Import::new(number, spec_of(&record))),
            Err(error) => {
                // Also when it was deleted, which is no news.
                tracing::debug!(source = %id, ?error, "import once more");
                None
            }
        });
        let mut imports = self.imports.lock();
        let is_current = imports.current.get(id).is_some_and(|current| Arc::ptr_eq(current, import));
        match next.filter(|_| is_current) {
            Some(next) => {
                imports.current.insert(id.clone(), next.clone());
                Some(next)
            }
            None => {
                if is_current {
                    imports.current.remove(id);
                }
                imports.threads -= 1;
                None
            }
        }
    }

    fn note_failure(&self, id: &SourceId, import: &Import, failure: Option<ImportFailure>) -> Result<()> {
        let _turn = self.source_turns.lock();
        if import.is_dropped() {
            return Ok(());
        }
        let mut record = self.source_record(id)?;
        if record.failure == failure {
            return Ok(());
        }
        record.failure = failure;
        record.updated_ns = self.shared.now_ns();
        self.shared.commit(put_source(id, &record))
    }

    /// Imports, unless the same commit was imported before.
    fn import(&self, id: &SourceId, import: &Import) -> Result<()> {
        let dirs = self.import_dirs();
        let identity = afs_base::resolve(&import.spec, &dirs)?;
        if !identity.is_empty()
            && let Some(version) = self.version_named(id, &identity)?
        {
            return self.set_head(id, import, version, Batch::new());
        }
        let now = self.import_time(id)?;
        let ports = &self.shared.ports;
        let known = self.newest_base(id)?;
        let work = afs_base::Import {
            dirs: &dirs,
            blobs: &ports.blobs,
            rng: &*ports.rng,
            now_ns: now,
            owner: Owner::default(),
            known: known.as_ref(),
            progress: import,
        };
        let imported = work.run(&import.spec)?;
        // The source may have moved since it was asked: what counts is what was imported.
        let identity = imported.git.as_ref().map(afs_base::GitBase::identity);
        if let Some(identity) = &identity
            && let Some(version) = self.version_named(id, identity)?
        {
            return self.set_head(id, import, version, Batch::new());
        }
        let version = VersionId::from_ulid(self.shared.next_ulid());
        let record = self.keep_base(id, &imported, now)?;
        let mut batch = Batch::new();
        batch.put_with(Space::Version, version.as_str(), |e| record.encode_to(e));
        if let Some(identity) = identity {
            // Of a source that had this id before: it still has to say through which mirror it was imported.
            if let Some(before) = self.any_version_named(id, &identity)? {
                batch.put(Space::Name, old_version_key(id, &before, &identity), before.as_str());
            }
            batch.put(Space::Name, version_key(id, &identity), version.as_str());
        }
        self.set_head(id, import, version, batch)
    }

    /// Now, and not before the source was made, whatever the clock did since: see [`owns`].
    fn import_time(&self, id: &SourceId) -> Result<i64> {
        Ok(self.shared.now_ns().max(self.source_record(id)?.created_ns))
    }

    /// The version of a source, and of no other that had its id before, with this name.
    fn version_named(&self, id: &SourceId, identity: &str) -> Result<Option<VersionId>> {
        let Some(version) = self.any_version_named(id, identity)? else { return Ok(None) };
        let is_own = owns(&self.source_record(id)?, &version, &self.version_record(&version)?);
        Ok(Some(version).filter(|_| is_own))
    }

    fn any_version_named(&self, id: &SourceId, identity: &str) -> Result<Option<VersionId>> {
        let found = self.shared.ports.journal.get(Space::Name, &version_key(id, identity))?;
        found.map(|version| VersionId::parse(&String::from_utf8_lossy(&version))).transpose()
    }

    /// The mirror that a version from git was imported through. The version's name tells it, which stays when the source goes, refers to
    /// something else, or is another one of the same id.
    pub(crate) fn mirror_of_version(&self, version: &VersionId, record: &VersionRec) -> Result<PathBuf> {
        let from = version_key(&record.source, "");
        let to = [&from[..from.len() - 1], b"\x01"].concat();
        let (dirs, mut mirror) = (self.import_dirs(), None);
        self.shared.ports.journal.scan(Space::Name, &from, Some(&to), &mut |key, value| {
            if value != version.as_str().as_bytes() {
                return Ok(ControlFlow::Continue(()));
            }
            let identity = String::from_utf8_lossy(&key[from.len()..]);
            mirror = afs_base::mirror_of_identity(&identity, &dirs);
            Ok(ControlFlow::Break(()))
        })?;
        mirror.ok_or_else(|| {
            Error::new(Reason::Corrupt, format!("no record says through which mirror {version} was imported"))
                .next("restore the data directory from a backup")
        })
    }

    /// The table of a source's newest version: what it names need not be stored again.
    fn newest_base(&self, id: &SourceId) -> Result<Option<BaseTable>> {
        let Some(head) = self.source_record(id)?.head else { return Ok(None) };
        let record: Option<VersionRec> = self.shared.read(Space::Version, head.as_str().as_bytes())?;
        let Some(record) = record else { return Ok(None) };
        match open_base(&self.shared, &record) {
            Ok(base) => Ok(Some(base)),
            Err(error) => {
                // Its sessions hear of it when they open it; a new version can be made without it, only slower.
                tracing::warn!(source = %id, version = %head, ?error, "import without the version before");
                Ok(None)
            }
        }
    }

    /// Makes a version the source's newest, unless the import was dropped.
    fn set_head(&self, id: &SourceId, import: &Import, version: VersionId, mut batch: Batch) -> Result<()> {
        let _turn = self.source_turns.lock();
        if import.is_dropped() {
            return Ok(());
        }
        let mut record = self.source_record(id)?;
        record.head = Some(version);
        record.updated_ns = self.shared.now_ns();
        batch.append(put_source(id, &record));
        self.shared.commit(batch)
    }

    /// Writes the table under its digest; durable before the record that names it.
    fn keep_base(&self, id: &SourceId, imported: &Imported, now: i64) -> Result<VersionRec> {
        let digest = blake3::hash(&imported.table).to_hex().to_string();
        let bases = self.shared.config.bases();
        write_once(&bases, &digest, &imported.table)?;
        let totals = &imported.totals;
        Ok(VersionRec {
            source: id.clone(),
            digest,
            upstream: imported.upstream.clone(),
            branch: imported.git.as_ref().and_then(|g| g.head_ref.clone()),
            entries: totals.entries,
            files: totals.files,
            bytes: totals.bytes,
            stored_bytes: imported.stored_bytes,
            created_ns: now,
        })
    }

    pub(crate) fn import_dirs(&self) -> ImportDirs {
        ImportDirs { mirrors: self.shared.config.mirrors(), temp: self.shared.config.temp() }
    }
}

/// What it panicked with is in the log, and no caller's business.
fn panicked(source: &SourceId) -> Error {
    Error::new(Reason::Internal, format!("the import of {source} panicked"))
        .with("source_id", source.as_str())
        .next("see the server's log, and report what it says")
}

/// Key of a version's name: what `afs_base::resolve` says of it.
fn version_key(source: &SourceId, identity: &str) -> Vec<u8> {
    format!("version\0{source}\0{identity}").into_bytes()
}

/// Key of the name of a version whose source has gone, once the next source of its id has imported the same: what is found by the name
/// of a version is never this one, and the identity still ends it.
fn old_version_key(source: &SourceId, version: &VersionId, identity: &str) -> Vec<u8> {
    version_key(source, &format!("{version} {identity}"))
}

/// Writes a file whose name says its content: temporary name, fsync, rename, fsync of the directory.
fn write_once(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = dir.join(name);
    if path.exists() {
        return Ok(());
    }
    let temp = dir.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = fs::File::create(&temp)?;
        file.write_all(bytes)?;
        let mut mode = file.metadata()?.permissions();
        mode.set_readonly(true);
        file.set_permissions(mode)?;
        file.sync_all()?;
        fs::rename(&temp, &path)?;
        fs::File::open(dir)?.sync_all()
    })();
    written.map_err(|e| Error::io(format!("write base table {}", path.display()), e))
}
