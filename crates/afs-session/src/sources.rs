//! Sources and their versions: where bases come from.
//!
//! Guarantees: an import runs in the background and shows its progress; a version exists whole (table on disk, blobs in
//! the store, record in the journal) or not at all; a killed import shows as failed and a refresh goes on where blobs and mirror already
//! are; the same source and commit give the same version at once. Versions never change. The name of a spec leads to one source with
//! exactly this spec, or nowhere: whoever follows it checks, and a name goes only with the source that it leads to. A source that is deleted
//! without force has no sessions then, and none is made on it any more. Whoever has an id again has nothing of who had it before: see
//! [`owns`].
//! Deliberately absent: how imports run ([`crate::imports`]).

use crate::engine::Engine;
use crate::imports::{Import, ImportProgress};
use crate::lifecycle::{Page, Room, check_labels, check_text, page_size};
use crate::records::{CommitRec, Labels, SessionRec, SourceRec, Stored, VersionRec};
use crate::requests::Begin;
use afs_base::ImportSpec;
use afs_store::{Batch, Space};
use afs_types::{CommitId, Error, Reason, RequestId, Result, SessionId, SourceId, VersionId};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

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
    /// How far the import is that runs.
    pub progress: Option<ImportProgress>,
    /// The import that runs.
    pub run: Option<ImportRun>,
}

/// Which import of a source runs. Numbers grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportRun {
    /// Its number.
    pub number: u64,
    /// The number of the one with whose end all is done that was asked for so far: its own, or that of the next.
    pub last: u64,
}

impl SourceInfo {
    fn new(id: SourceId, record: SourceRec, running: Option<&Arc<Import>>) -> Self {
        let progress = running.map(|import| import.progress());
        let run = running.map(|import| ImportRun { number: import.number(), last: import.last() });
        let info = Self { id, record, state: SourceState::Running, progress, run };
        if info.run.is_some() { info } else { info.ended() }
    }

    /// The same as of the end of the newest import that has ended, whatever runs now.
    pub fn ended(self) -> Self {
        let state = if self.record.head.is_some() { SourceState::Ready } else { SourceState::Failed };
        Self { state, progress: None, run: None, ..self }
    }
}

impl Engine {
    /// Makes a source and starts its import. An equal spec without an id gives the source there is, refreshed.
    pub fn create_source(self: &Arc<Self>, want: CreateSource) -> Result<SourceInfo> {
        check_text("display_name", &want.display_name)?;
        check_labels(&want.labels)?;
        if let ImportSpec::Git { url, reference } = &want.spec {
            afs_base::check_address("spec.git.url", url)?;
            reference.iter().try_for_each(|reference| check_reference("spec.git.ref", reference))?;
        }
        let print = format!("{want:?}");
        let attempt = match self.begin("CreateSource", want.request_id.as_ref(), &[print.as_bytes()])? {
            Begin::Done(ids) => return self.get_source(&SourceId::parse(&ids[0])?),
            Begin::Go(attempt) => attempt,
        };
        let mut new = self.new_source_record(&want);
        let key = spec_key(&new);
        let _turn = self.source_turns.lock();
        let mut batch = Batch::new();
        let (id, record) = match (self.source_named(&key)?, want.source_id) {
            (Some((id, known)), None) => (id, renamed(known, new)),
            (named, wanted) => {
                let id = wanted.unwrap_or_else(|| SourceId::from_ulid(self.shared.next_ulid()));
                if self.shared.read::<SourceRec>(Space::Source, id.as_str().as_bytes())?.is_some() {
                    return Err(Error::new(Reason::AlreadyExists, format!("{id} exists already"))
                        .with("id", id.as_str())
                        .next("choose another id, or leave it out; to import it again: refresh the source"));
                }
                if named.is_none() {
                    batch.put(Space::Name, key, id.as_str());
                }
                self.follow_gone(&id, &mut new)?;
                (id, new)
            }
        };
        batch.append(put_source(&id, &record));
        if let Some(attempt) = &attempt {
            attempt.remember(&[id.to_string()], &mut batch);
        }
        self.shared.commit(batch)?;
        self.start_import(&id, &record)?;
        self.get_source(&id)
    }

    /// The source that the name of a spec leads to. A name that leads nowhere, or to a source that refers to something else by now, is none.
    fn source_named(&self, key: &[u8]) -> Result<Option<(SourceId, SourceRec)>> {
        let Some(id) = self.named_id(key)? else { return Ok(None) };
        let record: Option<SourceRec> = self.shared.read(Space::Source, id.as_str().as_bytes())?;
        Ok(record.filter(|record| spec_key(record) == key).map(|record| (id, record)))
    }

    fn named_id(&self, key: &[u8]) -> Result<Option<SourceId>> {
        let id = self.shared.ports.journal.get(Space::Name, key)?;
        id.map(|id| SourceId::parse(&String::from_utf8_lossy(&id))).transpose()
    }

    /// Takes the name of a spec away if it leads to this source.
    fn drop_name(&self, id: &SourceId, key: Vec<u8>, batch: &mut Batch) -> Result<()> {
        if self.named_id(&key)?.is_some_and(|named| named == *id) {
            batch.delete(Space::Name, key);
        }
        Ok(())
    }

    /// Makes a new source younger than every version that was made under its id, whatever the clock did. The caller holds the turn of source
    /// records: no import of a source that is gone adds a version from here on.
    fn follow_gone(&self, id: &SourceId, new: &mut SourceRec) -> Result<()> {
        self.shared.ports.journal.scan(Space::Version, &[], None, &mut |_, value| {
            let version = VersionRec::decode(value)?;
            if version.source == *id {
                new.created_ns = new.created_ns.max(version.created_ns.saturating_add(1));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        new.updated_ns = new.updated_ns.max(new.created_ns);
        Ok(())
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

    /// Imports a source again when it has changed: now, or after the import that runs, which may have looked before the change. Sessions keep
    /// the version they have.
    pub fn refresh_source(self: &Arc<Self>, id: &SourceId, reference: Option<String>) -> Result<SourceInfo> {
        if let Some(reference) = &reference {
            // Before it takes the place of one that may be right.
            check_reference("ref", reference)?;
        }
        let _turn = self.source_turns.lock();
        let mut record = self.source_record(id)?;
        if reference.is_some() && record.kind != "git" {
            return Err(Error::invalid("ref", "none: only what comes from git has references"));
        }
        if let Some(reference) = reference
            && record.reference.as_ref() != Some(&reference)
        {
            let old = spec_key(&record);
            record.reference = Some(reference);
            record.updated_ns = self.shared.now_ns();
            let (new, mut batch) = (spec_key(&record), put_source(id, &record));
            if new != old {
                self.drop_name(id, old, &mut batch)?;
                if self.source_named(&new)?.is_none() {
                    batch.put(Space::Name, new, id.as_str());
                }
            }
            self.shared.commit(batch)?;
        }
        self.start_import(id, &record)?;
        self.get_source(id)
    }

    /// A source, its state and its progress.
    pub fn get_source(&self, id: &SourceId) -> Result<SourceInfo> {
        // Before the record: an import that ends in between is in it.
        let running = self.imports.lock().current.get(id).cloned();
        Ok(SourceInfo::new(id.clone(), self.source_record(id)?, running.as_ref()))
    }

    /// Waits until everything is imported that was asked for so far, `limit` at most. The answer says what runs then.
    pub fn wait_source(&self, id: &SourceId, limit: Duration) -> Result<SourceInfo> {
        self.wait_import(id, limit);
        self.get_source(id)
    }

    /// Sources in order of id.
    pub fn list_sources(&self, size: usize, after: Option<&str>) -> Result<Page<SourceInfo>> {
        let size = page_size(size)?;
        let from = after.map_or(Vec::new(), |a| [a.as_bytes(), b"\0"].concat());
        let (mut items, mut more, mut room) = (Vec::new(), false, Room::default());
        let running = self.imports.lock().current.clone();
        self.shared.ports.journal.scan(Space::Source, &from, None, &mut |key, value| {
            if items.len() == size || !room.takes(value.len() + 300) {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            let id = SourceId::parse(&String::from_utf8_lossy(key))?;
            let running = running.get(&id);
            items.push(SourceInfo::new(id, SourceRec::decode(value)?, running));
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
        let owner = self.source_record(source)?;
        let size = page_size(size)?;
        let (mut items, mut more) = (Vec::new(), false);
        self.scan_versions(source, &owner, after, &mut |id, record| {
            if items.len() == size {
                more = true;
                return ControlFlow::Break(());
            }
            items.push((id, record));
            ControlFlow::Continue(())
        })?;
        let next = if more { items.last().map(|(id, _)| id.to_string()) } else { None };
        Ok(Page { items, next })
    }

    /// The versions of a source, oldest first, and not those of another one that had its id before.
    fn scan_versions(
        &self,
        source: &SourceId,
        owner: &SourceRec,
        after: Option<&str>,
        visit: &mut dyn FnMut(VersionId, VersionRec) -> ControlFlow<()>,
    ) -> Result<()> {
        let from = after.map_or(Vec::new(), |a| [a.as_bytes(), b"\0"].concat());
        self.shared.ports.journal.scan(Space::Version, &from, None, &mut |key, value| {
            let record = VersionRec::decode(value)?;
            if record.source != *source {
                return Ok(ControlFlow::Continue(()));
            }
            let id = VersionId::parse(&String::from_utf8_lossy(key))?;
            Ok(if owns(owner, &id, &record) { visit(id, record) } else { ControlFlow::Continue(()) })
        })
    }

    /// Forgets a source. Refused while sessions stand on it, unless `force`: then they live on, and so do their commits, without refresh or
    /// promote.
    pub fn delete_source(&self, id: &SourceId, force: bool) -> Result<()> {
        // Nobody makes a session on it meanwhile. Forks go on: they stand on a source that another session stands on, so that the scan finds
        // one of them, and those of a commit whose session is gone are like those of a source that was deleted with force.
        let _unused = self.source_use(id).write();
        let record = self.source_record(id)?;
        if !force {
            // Sessions that were queued before are seen then.
            self.shared.ports.journal.sync()?;
            if let Some(user) = self.user_of(id, &record)? {
                return Err(Error::new(Reason::InUse, format!("{user} stands on {id}"))
                    .next("delete its sessions first, or delete with force"));
            }
        }
        let _turn = self.source_turns.lock();
        let record = self.source_record(id)?;
        let mut batch = Batch::new();
        batch.delete(Space::Source, id.as_str());
        self.drop_name(id, spec_key(&record), &mut batch)?;
        self.shared.commit(batch.freeing())?;
        self.drop_import(id);
        Ok(())
    }

    /// Some session that stands on a source. Those of another one that had its id before do not: that one was deleted with force.
    fn user_of(&self, id: &SourceId, owner: &SourceRec) -> Result<Option<SessionId>> {
        let mut versions = HashSet::new();
        self.scan_versions(id, owner, None, &mut |version, _| {
            versions.insert(version);
            ControlFlow::Continue(())
        })?;
        let mut user = None;
        self.shared.ports.journal.scan(Space::Session, b"s", Some(b"t"), &mut |key, value| {
            if !versions.contains(&SessionRec::decode(value)?.version) {
                return Ok(ControlFlow::Continue(()));
            }
            user = Some(SessionId::parse(&String::from_utf8_lossy(&key[1..]))?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(user)
    }

    pub(crate) fn source_record(&self, id: &SourceId) -> Result<SourceRec> {
        self.shared.read(Space::Source, id.as_str().as_bytes())?.ok_or_else(|| id.not_found())
    }

    /// The source that a commit came from, which may have gone, and another one may have its id.
    pub(crate) fn source_of_commit(&self, id: &CommitId, commit: &CommitRec) -> Result<SourceRec> {
        let source = self.source_record(&commit.source)?;
        if owns(&source, &commit.version, &self.version_record(&commit.version)?) {
            return Ok(source);
        }
        let gone = &commit.source;
        Err(Error::new(
            Reason::SourceNotFound,
            format!("the source of {id} was deleted; {gone} is another one"),
        )
        .with("id", gone.as_str())
        .next("commit in a session of a source that is there, and promote that commit"))
    }

    pub(crate) fn version_record(&self, id: &VersionId) -> Result<VersionRec> {
        self.shared.read(Space::Version, id.as_str().as_bytes())?.ok_or_else(|| id.not_found())
    }

    /// The source of a new session: the one named, that of the version named, or the empty one.
    pub(crate) fn base_source(
        self: &Arc<Self>,
        source: Option<&SourceId>,
        version: Option<&VersionId>,
    ) -> Result<SourceId> {
        let of_version = version.map(|v| self.version_record(v)).transpose()?.map(|record| record.source);
        match (source, of_version) {
            (Some(source), Some(other)) if *source != other => Err(Error::new(
                Reason::VersionNotFound,
                format!("{} is not of that source", version.map_or("", VersionId::as_str)),
            )),
            (Some(source), _) => Ok(source.clone()),
            (None, Some(source)) => Ok(source),
            (None, None) => self.empty_source(),
        }
    }

    /// The base of a new session on a source, which must be there.
    pub(crate) fn pick_version(&self, id: &SourceId, version: Option<VersionId>) -> Result<VersionId> {
        let info = self.get_source(id)?;
        if let Some(version) = version {
            // It is of this id, but perhaps of another source that had it before.
            return if owns(&info.record, &version, &self.version_record(&version)?) {
                Ok(version)
            } else {
                Err(Error::new(
                    Reason::VersionNotFound,
                    format!("{version} is not of {id}, which was made after it"),
                )
                .with("id", version.as_str())
                .next(format!("take one of its own: aether source show {id}")))
            };
        }
        info.record.head.clone().ok_or_else(|| match info.state {
            SourceState::Running => Error::new(Reason::WrongState, format!("{id} is being imported"))
                .next(format!("wait for it: aether source show {id}")),
            _ => Error::new(
                Reason::WrongState,
                format!(
                    "{id} has no version: {}",
                    info.record.failure.as_ref().map_or(INTERRUPTED, |failure| &failure.message)
                ),
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
}

const INTERRUPTED: &str = "the import was interrupted";

/// Whether a version of a source's id is of this source, and not of one that had the id before and was deleted.
///
/// A version is not older than its source ([`Engine::import_time`]), and a source is younger than all versions that were made under its id
/// before ([`Engine::follow_gone`]). Both are kept by comparing with what is on disk, so no clock that was set back can mix them up. The
/// newest version is the source's own in any case: earlier servers did not keep the first rule.
pub(crate) fn owns(source: &SourceRec, id: &VersionId, version: &VersionRec) -> bool {
    version.created_ns >= source.created_ns || source.head.as_ref() == Some(id)
}

/// What a request says about a source that is there already: a name and labels that are given replace those it has.
fn renamed(mut known: SourceRec, asked: SourceRec) -> SourceRec {
    if !asked.display_name.is_empty() {
        known.display_name = asked.display_name;
    }
    if !asked.labels.is_empty() {
        known.labels = asked.labels;
    }
    known
}

pub(crate) fn put_source(id: &SourceId, record: &SourceRec) -> Batch {
    let mut batch = Batch::new();
    batch.put_with(Space::Source, id.as_str(), |e| record.encode_to(e));
    batch
}

pub(crate) fn spec_of(record: &SourceRec) -> ImportSpec {
    match record.kind.as_str() {
        "git" => ImportSpec::Git { url: record.location.clone(), reference: record.reference.clone() },
        "local" => ImportSpec::Local { path: record.location.clone().into() },
        _ => ImportSpec::Empty,
    }
}

/// Key of a spec's name. Only git has references.
fn spec_key(record: &SourceRec) -> Vec<u8> {
    let reference = record.reference.as_deref().filter(|_| record.kind == "git").unwrap_or("");
    format!("spec\0{}\0{}\0{reference}", record.kind, record.location).into_bytes()
}

/// Refuses what git would not take for a reference.
fn check_reference(field: &'static str, reference: &str) -> Result<()> {
    if afs_base::is_reference(reference) {
        return Ok(());
    }
    Err(Error::invalid(field, "a branch, a tag, HEAD or a commit id"))
}
