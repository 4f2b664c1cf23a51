//! From the outside into a base, and back: git repositories and directories become base tables and blobs, and a
//! session's changes become git commits at the source.
//!
//! Guarantees: a table is complete or there is none; what a hostile tree holds is refused, naming the path; nothing
//! outside of the given directories is written; an import that was killed leaves nothing that the next one trips
//! over; credentials in a URL reach the `git` program and nobody else.
//! Deliberately absent: sessions and records (`afs-session` journals what an import returns), S3 and archives, and
//! running git inside a session's tree.

mod child;
mod clone_local;
mod commit;
mod git_cache;
mod git_dir;
mod git_import;
mod git_index;
mod hostile;
mod index_reader;
mod local;
mod local_read;
mod mirror;
mod object;
mod pack_writer;
mod packs;
mod push;
mod refs;
mod sink;
mod temp;
mod tracked;
mod url;

pub use afs_core::base::Totals;
pub use commit::{CommitMeta, CommitWritten, EditContent, EditEntry, TreeEdit, write_commit};
pub use index_reader::{IndexFault, IndexReader};
pub use mirror::is_reference;
pub use object::{Oid, parse_hex};
pub use push::{Pushed, push};
pub use tracked::Tracked;
pub use url::{check_address, without_password};

use afs_core::base::{BaseBuilder, BaseTable, NewEntry, NodeKind};
use afs_store::BlobStore;
use afs_types::{Result, Rng};
use std::path::PathBuf;
use std::sync::Arc;

/// Where a base comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImportSpec {
    /// A git repository.
    Git {
        /// A path on this machine, `host:path`, or an https, http, ssh, git or file URL.
        url: String,
        /// A branch, a tag, `HEAD`, a full reference or a commit; `HEAD` if none.
        reference: Option<String>,
    },
    /// A directory on this machine, copied as it is now.
    Local {
        /// The directory.
        path: PathBuf,
    },
    /// A root directory with nothing in it.
    Empty,
}

/// Where imports keep their own files. Both must be on one file system.
#[derive(Clone, Debug)]
pub struct ImportDirs {
    /// Mirrors of git sources, kept between imports.
    pub mirrors: PathBuf,
    /// Work in progress.
    pub temp: PathBuf,
}

/// What an import made.
#[derive(Debug)]
pub struct Imported {
    /// The base table's bytes. Its blobs are in the store and durable with the next journal group.
    pub table: Vec<u8>,
    /// What the table holds.
    pub totals: Totals,
    /// Commit id, hexadecimal, if it came from git.
    pub upstream: Option<String>,
    /// More about it, if it came from git.
    pub git: Option<GitBase>,
    /// Bytes that the blob store grew by.
    pub stored_bytes: u64,
}

/// The git side of a base.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GitBase {
    /// Commit id, hexadecimal.
    pub head_oid: String,
    /// Branch name without `refs/heads/`; none if a tag or a commit was named.
    pub head_ref: Option<String>,
    /// Tree id, hexadecimal.
    pub tree_oid: String,
    /// The mirror, for [`write_commit`] and [`push`].
    pub mirror: PathBuf,
}

impl GitBase {
    /// What [`resolve`] would have said of exactly this base. It can be another than it said before the import, when the source moved between.
    pub fn identity(&self) -> String {
        let key = self.mirror.file_stem().map_or_else(Default::default, |k| k.to_string_lossy());
        identity(&self.head_oid, self.head_ref.as_deref(), &key)
    }
}

/// Who wants to know how far it is, and may stop it.
pub trait Progress: Sync {
    /// `done` of `total` steps of a phase. Called often, from several threads: must be cheap.
    fn update(&self, phase: &str, done: u64, total: Option<u64>);
    /// The same where the steps are bytes, and nobody knows how many there will be.
    fn bytes(&self, phase: &str, done: u64) {
        self.update(phase, done, None);
    }
    /// True to stop at the next occasion.
    fn cancelled(&self) -> bool;
}

/// For callers that do not watch.
pub struct NoProgress;

impl Progress for NoProgress {
    fn update(&self, _: &str, _: u64, _: Option<u64>) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Owner of everything that an import makes from git, which knows none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Imports `spec`. See [`Import::run`]; the owner is 0:0, and nothing is known from before.
pub fn import(
    spec: &ImportSpec,
    dirs: &ImportDirs,
    blobs: &Arc<BlobStore>,
    rng: &dyn Rng,
    now_ns: i64,
    progress: &dyn Progress,
) -> Result<Imported> {
    Import { dirs, blobs, rng, now_ns, owner: Owner::default(), known: None, progress }.run(spec)
}

/// What an import needs beside the source.
pub struct Import<'a> {
    /// Where its own files are.
    pub dirs: &'a ImportDirs,
    /// Where contents go.
    pub blobs: &'a Arc<BlobStore>,
    /// For names of temporary files and the table's seed.
    pub rng: &'a dyn Rng,
    /// The time, in nanoseconds since 1970.
    pub now_ns: i64,
    /// Owner of what comes from git.
    pub owner: Owner,
    /// An earlier base of the same source, whose contents need not be read again as far as git's names of them are the same. Never of another source:
    /// what stands in it is believed.
    pub known: Option<&'a BaseTable>,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

impl Import<'_> {
    /// Imports `spec` into blobs and a table.
    ///
    /// `HOSTILE_TREE` for what is never imported, `SOURCE_UNAVAILABLE` if the source cannot be reached,
    /// `INVALID_ARGUMENT` for a bad URL or an unknown reference, `PERMISSION_DENIED` for an unreadable file,
    /// `UNAVAILABLE` if cancelled.
    pub fn run(&self, spec: &ImportSpec) -> Result<Imported> {
        let Self { dirs, blobs, rng, now_ns, owner, known, progress } = *self;
        let mut seed = [0; 8];
        rng.fill(&mut seed);
        let mut builder = BaseBuilder::new(u64::from_le_bytes(seed));
        match spec {
            ImportSpec::Git { url, reference } => {
                let job = git_import::Job { blobs, rng, now_ns, owner, known, progress };
                job.run(url, reference.as_deref(), dirs, builder)
            }
            ImportSpec::Local { path } => local::import(path, dirs, blobs, builder, progress),
            ImportSpec::Empty => {
                builder.root(NewEntry {
                    uid: owner.uid,
                    gid: owner.gid,
                    mtime_ns: now_ns,
                    ..NewEntry::new(NodeKind::Dir, 0o755)
                });
                finish(builder, 0)
            }
        }
    }
}

/// Threads of one import: one more than processors, because each waits for the disk now and then.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8) + 1
}

/// Writes the table of an import that is not from git.
fn finish(builder: BaseBuilder, stored_bytes: u64) -> Result<Imported> {
    let (table, totals) = with_totals(builder.finish())?;
    Ok(Imported { table, totals, upstream: None, git: None, stored_bytes })
}

/// Opens a table, which checks it once more, for what it holds; and looks up every name in it, which opening does not.
fn with_totals(table: Vec<u8>) -> Result<(Vec<u8>, Totals)> {
    let bytes = bytes::Bytes::from(table);
    let table = BaseTable::open(bytes.clone())?;
    table.verify_index()?;
    let totals = table.totals();
    // So that the bytes are not copied.
    drop(table);
    Ok((bytes.into(), totals))
}

/// What an import of `spec` would give now: equal texts mean the same commit, checked out on the same branch, of
/// the same source. A full commit id is not looked up. The empty text for directories, whose content has no name.
pub fn resolve(spec: &ImportSpec, dirs: &ImportDirs) -> Result<String> {
    let ImportSpec::Git { url, reference } = spec else { return Ok(String::new()) };
    let source = mirror::Source::new(url, dirs, &NoProgress)?;
    let head = source.look(reference.as_deref())?;
    Ok(identity(&object::hex(&head.oid), head.branch.as_deref(), &source.remote.key))
}

fn identity(oid: &str, branch: Option<&str>, mirror: &str) -> String {
    let branch = branch.map_or(String::new(), |b| format!("refs/heads/{b}"));
    format!("{oid} {branch} {mirror}")
}

/// The mirror of the source that an answer of [`resolve`] is about, also when nobody knows its URL any more.
pub fn mirror_of_identity(identity: &str, dirs: &ImportDirs) -> Option<PathBuf> {
    let key = identity.rsplit(' ').next().filter(|k| parse_hex(k.as_bytes()).is_some())?;
    Some(mirror::path_named(dirs, key))
}

/// Where the mirror of a git URL is, for [`write_commit`] and [`push`]. It need not exist yet.
pub fn mirror_of(url: &str, dirs: &ImportDirs) -> Result<PathBuf> {
    Ok(mirror::path_of(dirs, &mirror::Source::new(url, dirs, &NoProgress)?.remote))
}
