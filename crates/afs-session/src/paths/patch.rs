//! Patches: unified diffs, git's diffs, and the `*** Begin Patch` format; all or nothing.
//!
//! Missing directories of new and moved files are made; directories that become empty stay. A symbolic link is patched as git does
//! it, as a text that is its target. Conflicts name the file, the hunk and the line.

mod envelope;
mod git_form;
mod hunks;
mod text_lines;
mod unified;

use super::copy::{CopyFrom, copy};
use super::entry::etag;
use super::error::{at, prefixed};
use super::facts::{Facts, Note};
use super::resolve::{Links, Place};
use super::work::{Task, Work};
use super::write::replace;
use super::{By, Files};
use crate::memory::Room;
use crate::requests::Begin;
use crate::session::Stamp;
use afs_core::diff::ChangeKind;
use afs_core::extent::Content;
use afs_core::op::AttrSet;
use afs_core::tree::plan::RenameMode;
use afs_core::tree::{Attr, S_IFLNK, S_IFREG};
use afs_types::{Error, Ino, Name, Reason, Result, SessionPath, limits};
use bytes::Bytes;
use envelope::Chunk;
pub use git_form::{HunkCounts, differing_lines, patch_name, write_hunks};
use hunks::{Counts, Hunk, Sign};

/// How a patch is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PatchFormat {
    /// Recognised by its first line.
    #[default]
    Any,
    /// A unified diff, plain or git's.
    Unified,
    /// `*** Begin Patch`.
    Envelope,
}

/// A request to apply a patch.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// The patch.
    pub text: Vec<u8>,
    /// How it is written.
    pub format: PatchFormat,
    /// Leading components to drop from paths of unified diffs; none: `a/` and `b/` are dropped when they are there.
    pub strip: Option<u32>,
    /// Only if the session is still at this revision.
    pub if_revision: Option<u64>,
    /// Answer as if, change nothing.
    pub dry_run: bool,
}

/// What a patch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patched {
    /// In the order of the patch.
    pub files: Vec<PatchedFile>,
    /// The session's revision that holds the change.
    pub revision: u64,
    /// To wait for.
    pub stamp: Stamp,
}

/// What a patch did to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchedFile {
    /// Its path after; before, when deleted.
    pub path: SessionPath,
    /// How it changed. A copy is an addition.
    pub kind: ChangeKind,
    /// Its etag before; none if an earlier part of the patch changed it.
    pub old_etag: Option<String>,
    /// Its etag after; none in a dry run.
    pub new_etag: Option<String>,
    /// Lines that came.
    pub lines_added: u64,
    /// Lines that went.
    pub lines_removed: u64,
}

/// A patch of one file, from either format.
#[derive(Debug, PartialEq, Eq)]
struct FilePatch {
    path: SessionPath,
    /// The file's other name in a plain diff, if the two differ.
    or_path: Option<SessionPath>,
    action: Action,
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Create { content: Vec<u8>, kind: Kind },
    Delete { text: Text },
    Update { text: Text, kind: Option<Kind>, moved: Option<Moved> },
}

/// What git knows of a file's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File { executable: bool },
    Symlink,
}

#[derive(Debug, PartialEq, Eq)]
enum Moved {
    Renamed(SessionPath),
    Copied(SessionPath),
}

#[derive(Debug, PartialEq, Eq)]
enum Text {
    Hunks(Vec<Hunk>),
    Chunks(Vec<Chunk>),
}

impl Text {
    fn is_empty(&self) -> bool {
        match self {
            Self::Hunks(hunks) => hunks.is_empty(),
            Self::Chunks(chunks) => chunks.is_empty(),
        }
    }

    /// Bytes of memory that applying it to a file of `size` bytes takes at most: the old text, where its lines end, and the new one.
    fn need(&self, size: u64) -> usize {
        let new = |sign: &Sign, len: usize| if *sign == Sign::New { len + 4 } else { 0 };
        let comes: usize = match self {
            Self::Hunks(hunks) => hunks.iter().flat_map(|h| &h.lines).map(|(s, l)| new(s, l.len())).sum(),
            Self::Chunks(chunks) => chunks.iter().flat_map(|c| &c.lines).map(|(s, l)| new(s, l.len())).sum(),
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let lines = size.min(limits::MAX_PATCHED_LINES) * size_of::<u32>();
        size.saturating_mul(2).saturating_add(lines + comes)
    }

    fn apply(&self, old: &[u8]) -> Result<(Vec<u8>, Note)> {
        let new = match self {
            Self::Hunks(hunks) => hunks::apply(old, hunks)?,
            Self::Chunks(chunks) => {
                let old = std::str::from_utf8(old).map_err(|_| Error::bare(Reason::NotText))?;
                envelope::apply(old, chunks)?.into_bytes()
            }
        };
        let Counts { added, removed } = match self {
            Self::Hunks(hunks) => Counts::of(hunks.iter().flat_map(|h| h.lines.iter().map(|l| l.0))),
            Self::Chunks(chunks) => Counts::of(chunks.iter().flat_map(|c| c.lines.iter().map(|l| l.0))),
        };
        Ok((new, Note { added, removed, ..Note::default() }))
    }

    /// The content of a file that these hunks create.
    fn created(&self) -> Vec<u8> {
        let Self::Hunks(hunks) = self else { return Vec::new() };
        let new = hunks.iter().flat_map(|h| &h.lines).filter(|(s, _)| *s == Sign::New);
        new.flat_map(|(_, line)| line.iter().copied()).collect()
    }
}

impl Files<'_> {
    /// Applies a patch, to all files or to none.
    pub fn apply_patch(&self, patch: &Patch, by: &By) -> Result<Patched> {
        let shared = self.session.shared();
        let until = shared.memory.until();
        check_strip(patch.strip)?;
        let _room = shared.memory.take_patch(parsed_bytes(&patch.text)?, until)?;
        let files = parse(patch)?;
        let mut step = |work: &mut Work<'_, '_, '_, '_>| {
            check_revision(work.revision(), patch.if_revision)?;
            let all = files.iter().enumerate();
            all.map(|(n, file)| file.run(work, n).map_err(at(&file.path)).map_err(of_file(n)))
                .collect::<Result<Vec<_>>>()
        };
        if patch.dry_run {
            let mut files = self.rehearse(&mut Facts::dry(shared).until(until), &mut step)?;
            files.iter_mut().for_each(|file| file.new_etag = None);
            let stamp = self.session.stamp();
            return Ok(Patched { files, revision: stamp.seq, stamp });
        }
        let print = format!("{:?} {:?} {:?}", patch.format, patch.strip, patch.if_revision);
        let attempt = match self.begin("ApplyPatch", by, &[print.as_bytes(), &patch.text])? {
            Begin::Done(words) => return self.replayed_patch(&words),
            Begin::Go(attempt) => attempt,
        };
        let facts = &mut Facts::free(shared).until(until);
        self.rehearse(facts, &mut step)?;
        let remember = |files: &Vec<PatchedFile>| files.iter().map(PatchedFile::to_word).collect();
        let (files, stamp) = self.transact(&Task { by, attempt }, facts, step, remember)?;
        Ok(Patched { files, revision: stamp.seq, stamp })
    }

    fn replayed_patch(&self, words: &[String]) -> Result<Patched> {
        let stamp = self.replayed_stamp(words)?;
        let files = words[1..].iter().map(|w| PatchedFile::from_word(w)).collect::<Result<_>>()?;
        Ok(Patched { files, revision: stamp.seq, stamp })
    }
}

fn check_strip(strip: Option<u32>) -> Result<()> {
    match strip {
        Some(n) if n > limits::MAX_PATCH_STRIP => {
            Err(Error::above("strip", limits::MAX_PATCH_STRIP, "components"))
        }
        _ => Ok(()),
    }
}

/// Memory that a line of a patch takes when it is read: the line, and its place in lists of its hunk's old and new lines.
const LINE_BYTES: usize = 128;

/// Bytes of memory that reading a patch takes.
fn parsed_bytes(patch: &[u8]) -> Result<usize> {
    let too_large = |what: &str, has: usize, limit: usize| {
        Error::new(Reason::MessageTooLarge, format!("the patch has {has} {what}, the limit is {limit}"))
            .with("field", "patch")
            .with("limit", limit.to_string())
            .next("split the patch")
    };
    if patch.len() > limits::MAX_PATCH_BYTES {
        return Err(too_large("bytes", patch.len(), limits::MAX_PATCH_BYTES));
    }
    let lines = patch.split_inclusive(|b| *b == b'\n').count();
    if lines > limits::MAX_PATCH_LINES {
        return Err(too_large("lines", lines, limits::MAX_PATCH_LINES));
    }
    Ok(patch.len() + lines * LINE_BYTES)
}

const _: () =
    assert!(limits::MAX_PATCH_BYTES + limits::MAX_PATCH_LINES * LINE_BYTES <= limits::MAX_PATCHES_BYTES);

fn parse(patch: &Patch) -> Result<Vec<FilePatch>> {
    let text = std::str::from_utf8(&patch.text);
    let is_envelope = match patch.format {
        PatchFormat::Any => text.is_ok_and(envelope::is_envelope),
        format => format == PatchFormat::Envelope,
    };
    let files = if is_envelope {
        envelope::parse(text.map_err(|_| malformed("the patch is not UTF-8"))?)?
    } else {
        unified::parse(&patch.text, patch.strip)?
    };
    if files.len() > limits::MAX_CHANGES {
        return Err(Error::above("patch", limits::MAX_CHANGES, "files"));
    }
    Ok(files)
}

/// A path in a patch.
fn patch_path(bytes: &[u8]) -> Result<SessionPath> {
    let path = SessionPath::parse(bytes).map_err(|e| malformed(e.message()))?;
    if path.is_root() {
        return Err(malformed("a path of the patch is empty"));
    }
    Ok(path)
}

/// A patch that can never be right.
fn malformed(what: impl Into<String>) -> Error {
    Error::new(Reason::InvalidPatch, what).with("field", "patch")
}

/// Says which file of the patch an error is about, from 1 as people count: several may have the same path.
fn of_file(n: usize) -> impl Fn(Error) -> Error {
    move |error| error.with("file", (n + 1).to_string())
}

/// `REVISION_MISMATCH` unless the session is where the caller believes it is.
pub(super) fn check_revision(now: u64, want: Option<u64>) -> Result<()> {
    match want {
        Some(want) if want != now => {
            Err(Error::new(Reason::RevisionMismatch, format!("the session is at revision {now}, not {want}"))
                .with("revision", now.to_string()))
        }
        _ => Ok(()),
    }
}

fn conflict(what: impl Into<String>) -> Error {
    Error::new(Reason::PatchConflict, what)
}

impl FilePatch {
    fn run(&self, work: &mut Work<'_, '_, '_, '_>, key: usize) -> Result<PatchedFile> {
        match &self.action {
            Action::Create { content, kind } => self.create(work, key, content, *kind),
            Action::Delete { text } => self.delete(work, key, text),
            Action::Update { text, kind, moved } => self.update(work, key, text, *kind, moved.as_ref()),
        }
    }

    fn create(
        &self,
        work: &mut Work<'_, '_, '_, '_>,
        key: usize,
        bytes: &[u8],
        kind: Kind,
    ) -> Result<PatchedFile> {
        let (dir, name) = free(work, &self.path)?;
        let ino = match kind {
            Kind::Symlink => work.create(dir, &name, S_IFLNK | 0o777, Some(bytes))?,
            Kind::File { executable } => {
                let mode = S_IFREG | if executable { 0o755 } else { 0o644 };
                let ino = work.create(dir, &name, mode, None)?;
                // Stored outside of the lock, like every content that a patch makes.
                let make = |_: &[u8], _: &mut Room<'_>| Ok((Bytes::copy_from_slice(bytes), Note::default()));
                let made = work.facts.rewrite(key, (&Content::Empty, 0), bytes.len(), make)?;
                if made.size > 0 {
                    replace(work, ino, &made.content, made.size)?;
                }
                ino
            }
        };
        let lines = bytes.split_inclusive(|b| *b == b'\n').count() as u64;
        Ok(PatchedFile {
            path: self.path.clone(),
            kind: ChangeKind::Added,
            old_etag: None,
            new_etag: etag_now(work, ino),
            lines_added: lines,
            lines_removed: 0,
        })
    }

    fn delete(&self, work: &mut Work<'_, '_, '_, '_>, key: usize, text: &Text) -> Result<PatchedFile> {
        let (attr, dir, name) = self.find(work)?;
        let old_etag = etag_before(work, &attr);
        let mut removed = 0;
        if !text.is_empty() {
            let after = new_text(work, key, &attr, text)?;
            if after.size() > 0 {
                return Err(conflict("the file has more in it than the patch removes"));
            }
            removed = after.note().removed;
        }
        work.remove_name(dir, &name)?;
        Ok(PatchedFile {
            path: self.path.clone(),
            kind: ChangeKind::Deleted,
            old_etag,
            new_etag: None,
            lines_added: 0,
            lines_removed: removed,
        })
    }

    fn update(
        &self,
        work: &mut Work<'_, '_, '_, '_>,
        key: usize,
        text: &Text,
        kind: Option<Kind>,
        moved: Option<&Moved>,
    ) -> Result<PatchedFile> {
        let (mut attr, mut dir, mut name) = self.find(work)?;
        let old_etag = etag_before(work, &attr);
        let (path, mut change) = match moved {
            None => (&self.path, ChangeKind::Mode),
            Some(to) => {
                (attr, dir, name) = self.relocate(work, attr, (dir, name), to)?;
                match to {
                    Moved::Renamed(to) => {
                        (to, ChangeKind::Renamed { from: self.path.clone(), modified: !text.is_empty() })
                    }
                    Moved::Copied(to) => (to, ChangeKind::Added),
                }
            }
        };
        let mut note = Note::default();
        if !text.is_empty() {
            let new = new_text(work, key, &attr, text)?;
            attr.ino = new.put(work, &attr, dir, &name)?;
            note = new.note();
            if change == ChangeKind::Mode {
                change = ChangeKind::Modified;
            }
        }
        if let Some(Kind::File { executable }) = kind {
            set_executable(work, attr.ino, executable)?;
        }
        let old_etag = old_etag.filter(|_| change != ChangeKind::Added);
        let new_etag = etag_now(work, attr.ino);
        let Note { added: lines_added, removed: lines_removed, .. } = note;
        Ok(PatchedFile { path: path.clone(), kind: change, old_etag, new_etag, lines_added, lines_removed })
    }

    /// The file to patch.
    fn find(&self, work: &mut Work<'_, '_, '_, '_>) -> Result<(Attr, Ino, Name)> {
        for path in [Some(&self.path), self.or_path.as_ref()].into_iter().flatten() {
            let Place::There { attr, named: Some((dir, name)) } = work.walk(path, false)? else { continue };
            if attr.is_dir() {
                return Err(conflict("it is a directory"));
            }
            return Ok((attr, dir, name));
        }
        Err(conflict("the file to patch does not exist"))
    }

    fn relocate(
        &self,
        work: &mut Work<'_, '_, '_, '_>,
        attr: Attr,
        (dir, name): (Ino, Name),
        to: &Moved,
    ) -> Result<(Attr, Ino, Name)> {
        match to {
            Moved::Renamed(path) => {
                let (new_dir, new_name) = free(work, path)?;
                work.run(|c| {
                    let open = |i| c.is_open(i);
                    let mode = RenameMode::NoReplace;
                    c.tree.plan_rename(dir, name.as_ref(), new_dir, new_name.as_ref(), mode, open, c.now_ns)
                })?;
                Ok((attr, new_dir, new_name))
            }
            Moved::Copied(path) => {
                free(work, path)?;
                let from =
                    CopyFrom { session: None, path: self.path.clone(), recursive: false, overwrite: false };
                copy(work, None, &from, path)?;
                work.find_named(path)
            }
        }
    }
}

/// The directory and name of a file that must not exist yet.
fn free(work: &mut Work<'_, '_, '_, '_>, path: &SessionPath) -> Result<(Ino, Name)> {
    work.free_name(path, true).map_err(|e| match e.reason {
        Reason::AlreadyExists => at(path)(conflict("the patch makes this file, but it exists already")),
        _ => at(path)(e),
    })
}

/// What a text becomes.
enum NewText {
    File(std::sync::Arc<super::facts::Rewrite>),
    Target(Vec<u8>, Note),
}

impl NewText {
    fn size(&self) -> u64 {
        match self {
            Self::File(rewrite) => rewrite.size,
            Self::Target(target, _) => target.len() as u64,
        }
    }
    fn note(&self) -> Note {
        match self {
            Self::File(rewrite) => rewrite.note.clone(),
            Self::Target(_, note) => note.clone(),
        }
    }
    /// Gives it to the file. A symbolic link is a new inode then.
    fn put(&self, work: &mut Work<'_, '_, '_, '_>, attr: &Attr, dir: Ino, name: &Name) -> Result<Ino> {
        match self {
            Self::File(rewrite) => replace(work, attr.ino, &rewrite.content, rewrite.size).map(|()| attr.ino),
            Self::Target(target, _) => {
                work.remove_name(dir, name)?;
                work.create(dir, name, S_IFLNK | 0o777, Some(target))
            }
        }
    }
}

fn new_text(work: &mut Work<'_, '_, '_, '_>, key: usize, attr: &Attr, text: &Text) -> Result<NewText> {
    if attr.is_symlink() {
        let tree = work.tree().clone();
        let target = work.facts.target(&tree, attr.ino)?;
        let (new, note) = text.apply(&target).map_err(|e| prefixed(e, "it is a symbolic link"))?;
        return Ok(NewText::Target(new, note));
    }
    if !attr.is_file() {
        return Err(conflict("it is not a regular file"));
    }
    let (content, size) = work.tree().content(attr.ino).ok_or(Reason::Internal)?;
    let make = |old: &[u8], _: &mut Room<'_>| text.apply(old).map(|(new, note)| (Bytes::from(new), note));
    work.facts.rewrite(key, (&content, size), text.need(size), make).map(NewText::File)
}

/// Adds or takes the right to execute, for those who may read.
fn set_executable(work: &mut Work<'_, '_, '_, '_>, ino: Ino, executable: bool) -> Result<()> {
    let attr = work.tree().attr(ino).ok_or(Reason::Internal)?;
    let mode = if executable { attr.mode | ((attr.mode & 0o444) >> 2) } else { attr.mode & !0o111 };
    if mode == attr.mode {
        return Ok(());
    }
    let set = AttrSet { mode: Some(mode), ..AttrSet::default() };
    work.run(|c| c.tree.plan_setattr(ino, set, c.now_ns).map(Some))
}

/// The etag that a file had before the patch, of one that the patch has not changed so far.
fn etag_before(work: &Work<'_, '_, '_, '_>, attr: &Attr) -> Option<String> {
    (attr.version <= work.revision()).then(|| etag(work.tree(), attr))
}

fn etag_now(work: &Work<'_, '_, '_, '_>, ino: Ino) -> Option<String> {
    let tree = work.tree();
    tree.attr(ino).map(|attr| etag(tree, &attr))
}

impl PatchedFile {
    /// The form in which an answer is remembered.
    fn to_word(&self) -> String {
        let (kind, from) = match &self.kind {
            ChangeKind::Added => ("added", None),
            ChangeKind::Deleted => ("deleted", None),
            ChangeKind::Modified => ("modified", None),
            ChangeKind::Mode => ("mode", None),
            ChangeKind::Renamed { from, modified: false } => ("renamed", Some(from)),
            ChangeKind::Renamed { from, modified: true } => ("renamed+", Some(from)),
        };
        let etag = |etag: &Option<String>| etag.clone().unwrap_or_default();
        [
            kind.to_owned(),
            self.path.to_text(),
            from.map_or_else(String::new, SessionPath::to_text),
            etag(&self.old_etag),
            etag(&self.new_etag),
            self.lines_added.to_string(),
            self.lines_removed.to_string(),
        ]
        .join("\0")
    }

    fn from_word(word: &str) -> Result<Self> {
        let bad = || Error::new(Reason::Corrupt, "a remembered answer of a patch does not parse");
        let parts: Vec<&str> = word.split('\0').collect();
        let [kind, path, from, old, new, added, removed] = parts[..] else { return Err(bad()) };
        let kind = match kind {
            "added" => ChangeKind::Added,
            "deleted" => ChangeKind::Deleted,
            "modified" => ChangeKind::Modified,
            "mode" => ChangeKind::Mode,
            "renamed" | "renamed+" => {
                ChangeKind::Renamed { from: SessionPath::parse_text(from)?, modified: kind == "renamed+" }
            }
            _ => return Err(bad()),
        };
        let etag = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(Self {
            path: SessionPath::parse_text(path)?,
            kind,
            old_etag: etag(old),
            new_etag: etag(new),
            lines_added: added.parse().map_err(|_| bad())?,
            lines_removed: removed.parse().map_err(|_| bad())?,
        })
    }
}
