//! Sources and their versions: where bases come from.
//!
//! Guarantees: an import runs in the background and shows its progress; a version exists whole (table on disk, blobs in
//! the store, record in the journal) or not at all; a killed import shows as failed and a refresh goes on where blobs and mirror already
//! are; the same source and commit give the same version at once. Versions never change.

use crate::engine::Engine;
use crate::family::open_base;
use crate::lifecycle::{Page, Room, check_labels, check_text, page_size};
use crate::records::{Labels, SourceRec, Stored, VersionRec};
use crate::requests::{Attempt, Begin};
use afs_base::{ImportDirs, ImportSpec, Imported, Owner, Progress};
use afs_core::base::BaseTable;
use afs_store::{Batch, Space};
use afs_types::{Error, Reason, RequestId, Result, SourceId, VersionId, limits};
use parking_lot::{Condvar, Mutex};
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A request for a source.
#[derive(Clone, Debug)]
pub struct CreateSource {
    /// The id wanted; none: the source with the same spec, or a new one.
    pub source_id: Option<SourceId>,
    /// For people.
    pub display_name: String,
    /// What to import.
    pub spec: ImportSpec,
    /// For filters.
    pub labels: Labels,
    /// Makes retries safe.
    pub request_id: Option<RequestId>,
}

/// How far a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// It has a version.
    Ready,
    /// An import runs.
    Running,
    /// The last import failed and there is no version.
    Failed,
}

/// A source as callers see it.
#[derive(Clone, Debug)]
pub struct SourceInfo {
    /// Its id.
    pub id: SourceId,
    /// Its record.
    pub record: SourceRec,
    /// How far it is.
    pub state: SourceState,
    /// Phase, steps done, steps in all when known.
    pub progress: Option<(String, u64, Option<u64>)>,
}

/// One running import.
#[derive(Default)]
pub(crate) struct Import {
    phase: Mutex<String>,
    done: AtomicU64,
    /// 0: not known.
    total: AtomicU64,
    cancelled: AtomicBool,
    ended: Mutex<bool>,
    end: Condvar,
}

impl Progress for Import {
    fn update(&self, phase: &str, done: u64, total: Option<u64>) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total.unwrap_or(0), Ordering::Relaxed);
        let mut shown = self.phase.lock();
        if *shown != phase {
            phase.clone_into(&mut shown);
        }
    }
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl Engine {
    /// Makes a source and starts its import. An equal spec without an id gives the source there is, refreshed.
    pub fn create_source(self: &Arc<Self>, want: CreateSource) -> Result<SourceInfo> {
        check_text("display_name", &want.display_name)?;
        check_labels(&want.labels)?;
        let print = format!("{want:?}");
        let attempt = match self.begin("CreateSource", want.request_id.as_ref(), &[print.as_bytes()])? {
            Begin::Done(ids) => return self.get_source(&SourceId::parse(&ids[0])?),
            Begin::Go(attempt) => attempt,
        };
        let record = self.new_source_record(&want);
        let spec_key = spec_key(&record);
        let turn = self.source_turns.lock();
        let known = match &want.source_id {
            None => self.shared.ports.journal.get(Space::Name, &spec_key)?,
            Some(_) => None,
        };
        if let Some(id) = known {
            let id = SourceId::parse(&String::from_utf8_lossy(&id))?;
            drop(turn);
            self.rename_source(&id, &want, attempt.as_ref())?;
            return self.refresh_source(&id, None);
        }
        let id = want.source_id.unwrap_or_else(|| SourceId::from_ulid(self.shared.ports.ids.next_ulid()));
        if self.shared.read::<SourceRec>(Space::Source, id.as_str().as_bytes())?.is_some() {
            return Err(
                Error::new(Reason::AlreadyExists, format!("{id} exists already")).with("id", id.as_str())
            );
        }
        let mut batch = Batch::new();
        batch.put(Space::Source, id.as_str(), record.encode());
        batch.put(Space::Name, spec_key, id.as_str());
        if let Some(attempt) = &attempt {
            attempt.remember(&[id.to_string()], &mut batch);
        }
        self.shared.commit(batch)?;
        drop(turn);
        self.start_import(&id, &record)?;
        self.get_source(&id)
    }

    /// What a request says about a source that is there already: a name and labels that are given replace those it has.
    fn rename_source(&self, id: &SourceId, want: &CreateSource, attempt: Option<&Attempt<'_>>) -> Result<()> {
        let _turn = self.source_turns.lock();
        let mut record = self.source_record(id)?;
        if !want.display_name.is_empty() {
            record.display_name.clone_from(&want.display_name);
        }
        if !want.labels.is_empty() {
            record.labels.clone_from(&want.labels);
        }
        let mut batch = put_source(id, &record);
        if let Some(attempt) = attempt {
            attempt.remember(&[id.to_string()], &mut batch);
        }
        self.shared.commit(batch)
    }

    fn new_source_record(&self, want: &CreateSource) -> SourceRec {
        let now = self.shared.now_ns();
        let (kind, location, reference) = match &want.spec {
            ImportSpec::Git { url, reference } => ("git", url.clone(), reference.clone()),
            ImportSpec::Local { path } => ("local", path.to_string_lossy().into_owned(), None),
            ImportSpec::Empty => ("empty", String::new(), None),
        };
        SourceRec {
            display_name: want.display_name.clone(),
            kind: kind.into(),
            location,
            reference,
            head: None,
            failure: None,
            labels: want.labels.clone(),
            created_ns: now,
            updated_ns: now,
        }
    }

    /// Imports a source again when it has changed. Sessions keep the version they have.
    pub fn refresh_source(self: &Arc<Self>, id: &SourceId, reference: Option<String>) -> Result<SourceInfo> {
        let turn = self.source_turns.lock();
        let mut record = self.source_record(id)?;
        if let Some(reference) = reference {
            record.reference = Some(reference);
            self.shared.commit(put_source(id, &record))?;
        }
        drop(turn);
        self.start_import(id, &record)?;
        self.get_source(id)
    }

    /// A source, its state and its progress.
    pub fn get_source(&self, id: &SourceId) -> Result<SourceInfo> {
        Ok(self.source_info(id, self.source_record(id)?))
    }

    fn source_info(&self, id: &SourceId, record: SourceRec) -> SourceInfo {
        let running = self.imports.lock().get(id).cloned();
        let progress = running.as_ref().map(|i| {
            let total = i.total.load(Ordering::Relaxed);
            (i.phase.lock().clone(), i.done.load(Ordering::Relaxed), (total > 0).then_some(total))
        });
        let state = match (&running, &record.head) {
            (Some(_), _) => SourceState::Running,
            (None, Some(_)) => SourceState::Ready,
            (None, None) => SourceState::Failed,
        };
        SourceInfo { id: id.clone(), record, state, progress }
    }

    /// Waits until no import of the source runs, `limit` at most. The answer says whether it is still running.
    pub fn wait_source(&self, id: &SourceId, limit: Duration) -> Result<SourceInfo> {
        let running = self.imports.lock().get(id).cloned();
        if let Some(import) = running {
            let until = Instant::now() + limit;
            let mut ended = import.ended.lock();
            while !*ended && !import.end.wait_until(&mut ended, until).timed_out() {}
        }
        self.get_source(id)
    }

    /// Sources in order of id.
    pub fn list_sources(&self, size: usize, after: Option<&str>) -> Result<Page<SourceInfo>> {
        let size = page_size(size)?;
        let from = after.map_or(Vec::new(), |a| [a.as_bytes(), b"\0"].concat());
        let (mut items, mut more, mut room) = (Vec::new(), false, Room::default());
        self.shared.ports.journal.scan(Space::Source, &from, None, &mut |key, value| {
            if items.len() == size || !room.takes(value.len() + 300) {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            let id = SourceId::parse(&String::from_utf8_lossy(key))?;
            items.push(self.source_info(&id, SourceRec::decode(value)?));
            Ok(ControlFlow::Continue(()))
        })?;
        let next = if more { items.last().map(|i: &SourceInfo| i.id.to_string()) } else { None };
        Ok(Page { items, next })
    }

    /// Versions of a source, oldest first.
    pub fn list_versions(
        &self,
        source: &SourceId,
        size: usize,
        after: Option<&str>,
    ) -> Result<Page<(VersionId, VersionRec)>> {
        self.source_record(source)?;
        let size = page_size(size)?;
        let (mut items, mut more) = (Vec::new(), false);
        let from = after.map_or(Vec::new(), |a| [a.as_bytes(), b"\0"].concat());
        self.shared.ports.journal.scan(Space::Version, &from, None, &mut |key, value| {
            let record = VersionRec::decode(value)?;
            if record.source == *source {
                if items.len() == size {
                    more = true;
                    return Ok(ControlFlow::Break(()));
                }
                items.push((VersionId::parse(&String::from_utf8_lossy(key))?, record));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let next = if more { items.last().map(|(id, _)| id.to_string()) } else { None };
        Ok(Page { items, next })
    }

    /// Forgets a source. Refused while sessions stand on it, unless `force`: then they live on, without refresh or promote.
    pub fn delete_source(&self, id: &SourceId, force: bool) -> Result<()> {
        let record = self.source_record(id)?;
        let query =
            crate::lifecycle::ListSessions { page_size: 1, source: Some(id.clone()), ..Default::default() };
        if !force && let Some(user) = self.list_sessions(&query)?.items.first() {
            return Err(Error::new(Reason::InUse, format!("{} stands on {id}", user.id))
                .next("delete its sessions first, or delete with force"));
        }
        if let Some(import) = self.imports.lock().get(id) {
            // It ends soon and leaves nothing: its version's record is refused when the source is gone.
            import.cancelled.store(true, Ordering::Relaxed);
        }
        let _turn = self.source_turns.lock();
        let mut batch = Batch::new();
        batch.delete(Space::Source, id.as_str()).delete(Space::Name, spec_key(&record));
        self.shared.commit(batch.freeing())
    }

    pub(crate) fn source_record(&self, id: &SourceId) -> Result<SourceRec> {
        self.shared.read(Space::Source, id.as_str().as_bytes())?.ok_or_else(|| id.not_found())
    }

    /// The base of a new session.
    pub(crate) fn pick_version(
        self: &Arc<Self>,
        source: Option<&SourceId>,
        version: Option<&VersionId>,
    ) -> Result<VersionId> {
        if let Some(version) = version {
            let record: Option<VersionRec> = self.shared.read(Space::Version, version.as_str().as_bytes())?;
            let record = record.ok_or_else(|| version.not_found())?;
            if source.is_some_and(|s| *s != record.source) {
                return Err(Error::new(Reason::VersionNotFound, format!("{version} is not of that source")));
            }
            return Ok(version.clone());
        }
        let id = match source {
            Some(id) => id.clone(),
            None => self.empty_source()?,
        };
        let info = self.get_source(&id)?;
        info.record.head.clone().ok_or_else(|| match info.state {
            SourceState::Running => Error::new(Reason::WrongState, format!("{id} is being imported"))
                .next(format!("wait for it: aether source show {id}")),
            _ => Error::new(
                Reason::WrongState,
                format!("{id} has no version: {}", info.record.failure.as_deref().unwrap_or(INTERRUPTED)),
            )
            .next(format!("import it again: aether source refresh {id}")),
        })
    }

    fn empty_source(self: &Arc<Self>) -> Result<SourceId> {
        let id = SourceId::parse("src_empty")?;
        if self.shared.read::<SourceRec>(Space::Source, id.as_str().as_bytes())?.is_none() {
            let made = self.create_source(CreateSource {
                source_id: Some(id.clone()),
                display_name: "empty".into(),
                spec: ImportSpec::Empty,
                labels: Labels::new(),
                request_id: None,
            });
            match made {
                Err(e) if e.reason != Reason::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        self.wait_source(&id, Duration::from_secs(60))?;
        Ok(id)
    }

    fn start_import(self: &Arc<Self>, id: &SourceId, record: &SourceRec) -> Result<()> {
        let spec = spec_of(record);
        let import = {
            let mut imports = self.imports.lock();
            if imports.contains_key(id) {
                return Ok(());
            }
            if imports.len() >= limits::MAX_IMPORTS {
                let most = limits::MAX_IMPORTS;
                return Err(Error::new(Reason::QueueFull, format!("{most} imports run already"))
                    .with("limit", most.to_string())
                    .next(format!("when one has ended: aether source refresh {id}")));
            }
            let import = Arc::new(Import::default());
            imports.insert(id.clone(), import.clone());
            import
        };
        let (engine, source) = (self.clone(), id.clone());
        let work = move || {
            let failed = engine.import(&source, &spec, &import).err();
            if let Some(error) = &failed {
                tracing::warn!(%source, ?error, "import");
            }
            let told = engine.note_failure(&source, failed.map(|e| e.to_string()));
            if let Err(error) = told {
                tracing::error!(%source, ?error, "record the end of an import");
            }
            engine.imports.lock().remove(&source);
            *import.ended.lock() = true;
            import.end.notify_all();
        };
        let spawned = std::thread::Builder::new().name("afs-import".into()).spawn(work);
        if let Err(e) = spawned {
            self.imports.lock().remove(id);
            return Err(Error::io("start an import thread", e));
        }
        Ok(())
    }

    fn note_failure(&self, id: &SourceId, failure: Option<String>) -> Result<()> {
        let _turn = self.source_turns.lock();
        let Some(mut record) = self.shared.read::<SourceRec>(Space::Source, id.as_str().as_bytes())? else {
            return Ok(());
        };
        if record.failure == failure {
            return Ok(());
        }
        record.failure = failure;
        record.updated_ns = self.shared.now_ns();
        self.shared.commit(put_source(id, &record))
    }

    /// Imports, unless the same commit was imported before.
    fn import(&self, id: &SourceId, spec: &ImportSpec, progress: &Import) -> Result<()> {
        let dirs = self.import_dirs();
        let identity = afs_base::resolve(spec, &dirs)?;
        let identity_key = (!identity.is_empty()).then(|| format!("version\0{id}\0{identity}"));
        if let Some(key) = &identity_key
            && let Some(version) = self.shared.ports.journal.get(Space::Name, key.as_bytes())?
        {
            let version = VersionId::parse(&String::from_utf8_lossy(&version))?;
            return self.set_head(id, version, Batch::new());
        }
        let now = self.shared.now_ns();
        let ports = &self.shared.ports;
        let known = self.newest_base(id)?;
        let import = afs_base::Import {
            dirs: &dirs,
            blobs: &ports.blobs,
            rng: &*ports.rng,
            now_ns: now,
            owner: Owner::default(),
            known: known.as_ref(),
            progress,
        };
        let imported = import.run(spec)?;
        let version = VersionId::from_ulid(ports.ids.next_ulid());
        let record = self.keep_base(id, &imported, now)?;
        let mut batch = Batch::new();
        batch.put(Space::Version, version.as_str(), record.encode());
        if let Some(key) = identity_key {
            batch.put(Space::Name, key, version.as_str());
        }
        self.set_head(id, version, batch)
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

    fn set_head(&self, id: &SourceId, version: VersionId, mut batch: Batch) -> Result<()> {
        let _turn = self.source_turns.lock();
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

const INTERRUPTED: &str = "the import was interrupted";

fn put_source(id: &SourceId, record: &SourceRec) -> Batch {
    let mut batch = Batch::new();
    batch.put(Space::Source, id.as_str(), record.encode());
    batch
}

fn spec_of(record: &SourceRec) -> ImportSpec {
    match record.kind.as_str() {
        "git" => ImportSpec::Git { url: record.location.clone(), reference: record.reference.clone() },
        "local" => ImportSpec::Local { path: record.location.clone().into() },
        _ => ImportSpec::Empty,
    }
}

fn spec_key(record: &SourceRec) -> Vec<u8> {
    let reference = record.reference.as_deref().unwrap_or("");
    format!("spec\0{}\0{}\0{reference}", record.kind, record.location).into_bytes()
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
