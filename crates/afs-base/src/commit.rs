//! A session's changes become a git commit.
//!
//! Guarantees: the tree is the one that `git write-tree` would make of the base commit's index with the edits applied;
//! unchanged subtrees are reused by id; no empty directory is left; the commit is on disk when the call returns.
//! Deliberately absent: what changed (the engine's diff says that), references, and pushing ([`crate::push`]).

use crate::NoProgress;
use crate::child::{Call, Git};
use crate::hostile::check_commit_name;
use crate::mirror::{commits_repository, object_dirs};
use crate::object::{Entry, Mode, Oid, encode_tree, hex, join, name_order, parse_hex, parse_tree};
use crate::pack_writer::PackWriter;
use crate::packs::{self, Kind, Packs, Reader};
use crate::temp::Lock;
use afs_types::{Error, Name, Reason, Result, limits};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// One change to the base commit's tree.
pub struct TreeEdit {
    /// Components, none empty.
    pub path: Vec<Vec<u8>>,
    /// What is there now; none if nothing is: a file, or a whole directory, is removed. Edits below a removed
    /// path, in any order, put things back.
    pub change: Option<EditEntry>,
}

/// What a path holds.
pub enum EditEntry {
    /// A regular file.
    File {
        /// Whether it has an executable bit.
        executable: bool,
        /// Its bytes.
        content: EditContent,
    },
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    /// A submodule's commit.
    Gitlink(Oid),
}

/// A file's bytes.
pub enum EditContent {
    /// A stream of exactly `len` bytes.
    Stream {
        /// Bytes in the stream.
        len: u64,
        /// The bytes.
        reader: Box<dyn Read + Send>,
    },
    /// A blob that the mirror already holds, e.g. of a moved file or one that only changed its mode.
    Known(Oid),
}

/// Who committed what, when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitMeta {
    /// Subject and body.
    pub message: String,
    /// Name; `<`, `>` and control characters are left out.
    pub author_name: String,
    /// Address; the same.
    pub author_email: String,
    /// Nanoseconds since 1970; git keeps the seconds.
    pub time_ns: i64,
}

/// A commit that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitWritten {
    /// Commit id, hexadecimal.
    pub oid: String,
    /// Tree id, hexadecimal.
    pub tree_oid: String,
    /// Files, links and submodules that differ from the first parent (the base commit if there is none): 0 means that nothing changed.
    pub files_changed: u64,
}

/// What is known of a path: edits of the path itself and of what lies below it.
#[derive(Default)]
struct Plan {
    own: Option<Option<(Mode, Oid)>>,
    below: BTreeMap<Vec<u8>, Plan>,
}

/// Each commit makes a pack; more than these are put together.
const MAX_PACKS: usize = 40;

/// Writes a commit whose tree is that of `base_commit` with `edits` applied.
///
/// `INVALID_NAME` for a path that git refuses, `INVALID_ARGUMENT` for edits that contradict each other or ids that
/// the mirror does not hold.
pub fn write_commit(
    mirror: &Path,
    base_commit: &str,
    parents: &[String],
    edits: impl Iterator<Item = Result<TreeEdit>>,
    meta: CommitMeta,
) -> Result<CommitWritten> {
    let commits = commits_repository(mirror)?;
    let packs = Packs::open(&object_dirs(mirror))?;
    let mut reader = packs.reader();
    let base = reader.commit(&known_commit(&packs, "base_commit", base_commit)?)?;
    let parents: Vec<Oid> =
        parents.iter().map(|p| known_commit(&packs, "parents", p)).collect::<Result<_>>()?;
    let stands_on: Vec<Oid> =
        parents.iter().map(|parent| reader.commit(parent).map(|c| c.tree)).collect::<Result<_>>()?;
    let pack = PackWriter::new(&commits.join("objects/pack"))?;
    let mut writer = Writer { packs: &packs, reader, pack, changed: 0 };
    let plan = writer.plan(edits)?;
    let tree = match writer.tree(Some(base.tree), &plan, &mut Vec::new())? {
        Some(tree) => tree,
        None => writer.object(Kind::Tree, b"")?,
    };
    let oid = writer.object(Kind::Commit, &encode_commit(&tree, &parents, &meta)?)?;
    let Writer { pack, changed, .. } = writer;
    pack.finish()?;
    let files_changed = match stands_on.first() {
        Some(before) if *before != base.tree => changes_between(mirror, *before, tree)?,
        _ => changed,
    };
    consolidate(mirror, &commits)?;
    Ok(CommitWritten { oid: hex(&oid), tree_oid: hex(&tree), files_changed })
}

/// Paths of files, links and submodules at which two trees differ, as [`Writer`] counts them for one tree and its edits. Reads only the
/// directories that differ.
fn changes_between(mirror: &Path, before: Oid, after: Oid) -> Result<u64> {
    // Anew: what was just written is in a pack of its own.
    let packs = Packs::open(&object_dirs(mirror))?;
    let mut reader = packs.reader();
    let (mut count, mut todo) = (0, vec![(Some(before), Some(after))]);
    while let Some(dirs) = todo.pop() {
        let mut names: BTreeMap<Vec<u8>, [Option<(Mode, Oid)>; 2]> = BTreeMap::new();
        for (side, dir) in [dirs.0, dirs.1].into_iter().enumerate() {
            let Some(oid) = dir else { continue };
            for entry in parse_tree(reader.expect(&oid, Kind::Tree)?, &Vec::<u8>::new)? {
                names.entry(entry.name.to_vec()).or_default()[side] = Some((entry.mode, entry.oid));
            }
        }
        for [old, new] in names.into_values().filter(|[old, new]| old != new) {
            let leaf = |entry: Option<(Mode, Oid)>| entry.filter(|(mode, _)| !mode.is_tree());
            let dir =
                |entry: Option<(Mode, Oid)>| entry.filter(|(mode, _)| mode.is_tree()).map(|(_, oid)| oid);
            count += u64::from(leaf(old) != leaf(new));
            if dir(old) != dir(new) {
                todo.push((dir(old), dir(new)));
            }
        }
    }
    Ok(count)
}

/// Puts the packs of many commits together, unless somebody does. A failure is not the commit's, which is written.
fn consolidate(mirror: &Path, commits: &Path) -> Result<()> {
    if packs::list(&commits.join("objects"))?.len() <= MAX_PACKS {
        return Ok(());
    }
    if let Some(_alone) = Lock::try_take(&commits.join("consolidate.lock"))? {
        let git = Git::new(mirror.parent().unwrap_or(mirror))?;
        let call = Call { git_dir: Some(commits), ..Call::default() };
        // Whole packs, whether a reference reaches them or not: nothing reaches a commit that is not pushed.
        git.run(call, ["repack", "--geometric=2", "-d", "-l", "-q"], &NoProgress)?;
    }
    Ok(())
}

fn known_commit(packs: &Packs, field: &'static str, text: &str) -> Result<Oid> {
    let oid = parse_hex(text.as_bytes()).filter(|oid| packs.find(oid).is_some());
    oid.ok_or_else(|| Error::invalid(field, "the id of a commit that the mirror holds").with("oid", text))
}

struct Writer<'a> {
    packs: &'a Packs,
    reader: Reader<'a>,
    pack: PackWriter,
    changed: u64,
}

impl Writer<'_> {
    /// Writes an object unless it is there.
    fn object(&mut self, kind: Kind, bytes: &[u8]) -> Result<Oid> {
        let packs = self.packs;
        self.pack.add(kind, bytes, |oid| packs.find(oid).is_some())
    }

    /// Takes all edits in; contents go into the pack as they come.
    fn plan(&mut self, edits: impl Iterator<Item = Result<TreeEdit>>) -> Result<Plan> {
        let mut root = Plan::default();
        for edit in edits {
            let TreeEdit { path, change } = edit?;
            check_path(&path)?;
            let entry = change.map(|entry| self.content(&path, entry)).transpose()?;
            let mut at = &mut root;
            for name in &path {
                at = at.below.entry(name.clone()).or_default();
            }
            if at.own.replace(entry).is_some() {
                return Err(contradiction(&path, "two edits of one path"));
            }
        }
        Ok(root)
    }

    fn content(&mut self, path: &[Vec<u8>], entry: EditEntry) -> Result<(Mode, Oid)> {
        let (executable, content) = match entry {
            EditEntry::Gitlink(oid) => return Ok((Mode::Gitlink, oid)),
            EditEntry::Symlink(target) => {
                if target.is_empty() || target.len() > limits::MAX_SYMLINK_BYTES || target.contains(&0) {
                    return Err(contradiction(path, "a symbolic link with a bad target"));
                }
                return Ok((Mode::Symlink, self.object(Kind::Blob, &target)?));
            }
            EditEntry::File { executable, content } => (executable, content),
        };
        let mode = if executable { Mode::Executable } else { Mode::File };
        let packs = self.packs;
        let oid = match content {
            EditContent::Stream { len, reader } => {
                self.pack.add_stream(Kind::Blob, len, reader, |oid| packs.find(oid).is_some())?
            }
            EditContent::Known(oid) if packs.find(&oid).is_some() => oid,
            EditContent::Known(oid) => {
                return Err(
                    contradiction(path, "a blob that the mirror does not hold").with("oid", hex(&oid))
                );
            }
        };
        Ok((mode, oid))
    }

    /// The new tree of a directory; none if nothing is left in it.
    fn tree(&mut self, old: Option<Oid>, plan: &Plan, path: &mut Vec<Vec<u8>>) -> Result<Option<Oid>> {
        let bytes = match &old {
            Some(oid) => self.reader.expect(oid, Kind::Tree)?.to_vec(),
            None => Vec::new(),
        };
        let before = parse_tree(&bytes, &|| path.join(&b'/'))?;
        let mut after: Vec<Entry<'_>> =
            before.iter().copied().filter(|e| !plan.below.contains_key(e.name)).collect();
        let mut by_name: BTreeMap<&[u8], Entry<'_>> = before.iter().map(|e| (e.name, *e)).collect();
        for (name, edit) in &plan.below {
            path.push(name.clone());
            let entry = self.entry(by_name.remove(name.as_slice()), name, edit, path)?;
            path.pop();
            after.extend(entry);
        }
        after.sort_unstable_by(|a, b| name_order(a.name, a.mode.is_tree(), b.name, b.mode.is_tree()));
        match (after.is_empty(), old) {
            (true, _) => Ok(None),
            (false, Some(old)) if after == before => Ok(Some(old)),
            (false, _) => self.object(Kind::Tree, &encode_tree(after.into_iter())).map(Some),
        }
    }

    fn entry<'n>(
        &mut self,
        old: Option<Entry<'_>>,
        name: &'n [u8],
        plan: &'n Plan,
        path: &mut Vec<Vec<u8>>,
    ) -> Result<Option<Entry<'n>>> {
        let put = |(mode, oid)| Entry { mode, name, oid };
        if let Some(Some(new)) = plan.own {
            if !plan.below.is_empty() && plan.below.values().any(adds) {
                return Err(contradiction(path, "a file that has entries below it"));
            }
            if old.map(|e| (e.mode, e.oid)) != Some(new) {
                self.changed += 1;
                if let Some(old) = old.filter(|e| e.mode.is_tree()) {
                    self.changed += self.leaves(&old.oid, path)?;
                }
            }
            return Ok(Some(put(new)));
        }
        let removed = plan.own.is_some();
        let old_tree = old.filter(|e| e.mode.is_tree()).map(|e| e.oid);
        if removed {
            self.changed += match (old, old_tree) {
                (_, Some(tree)) => self.leaves(&tree, path)?,
                (Some(_), None) => 1,
                (None, None) => 0,
            };
        }
        let start = old_tree.filter(|_| !removed);
        match self.tree(start, plan, path)? {
            Some(oid) => {
                // Entries put below what was a file.
                self.changed += u64::from(!removed && old.is_some() && old_tree.is_none());
                Ok(Some(put((Mode::Tree, oid))))
            }
            // Removals below a file that is not a directory change nothing.
            None if !removed && old_tree.is_none() => Ok(old.map(|e| put((e.mode, e.oid)))),
            None => Ok(None),
        }
    }

    /// Files, links and submodules below a tree.
    fn leaves(&mut self, tree: &Oid, path: &[Vec<u8>]) -> Result<u64> {
        let bytes = self.reader.expect(tree, Kind::Tree)?.to_vec();
        let mut count = 0;
        for entry in parse_tree(&bytes, &|| path.join(&b'/'))? {
            count += if entry.mode.is_tree() { self.leaves(&entry.oid, path)? } else { 1 };
        }
        Ok(count)
    }
}

fn adds(plan: &Plan) -> bool {
    matches!(plan.own, Some(Some(_))) || plan.below.values().any(adds)
}

fn check_path(path: &[Vec<u8>]) -> Result<()> {
    if path.is_empty() || path.len() > limits::MAX_PATH_DEPTH {
        return Err(Error::invalid(
            "edits",
            format_args!("a path of 1 to {} components", limits::MAX_PATH_DEPTH),
        ));
    }
    path.iter().try_for_each(|name| check_commit_name(path, name))
}

fn contradiction(path: &[Vec<u8>], what: &str) -> Error {
    let shown = Name::lossy(&path.iter().fold(Vec::new(), |p, name| join(&p, name)));
    Error::new(Reason::InvalidArgument, format!("{shown}: {what}")).with("path", shown)
}

fn encode_commit(tree: &Oid, parents: &[Oid], meta: &CommitMeta) -> Result<Vec<u8>> {
    let clean = |text: &str, other: &str| {
        let kept: String = text.chars().filter(|c| !c.is_control() && !matches!(c, '<' | '>')).collect();
        let kept = kept.trim_matches(|c: char| {
            c.is_whitespace() || matches!(c, '.' | ',' | ':' | ';' | '"' | '\\' | '\'')
        });
        if kept.is_empty() { other.to_owned() } else { kept.to_owned() }
    };
    if meta.message.contains('\0') {
        return Err(Error::invalid("message", "text without NUL"));
    }
    let who = format!(
        "{} <{}>",
        clean(&meta.author_name, "AetherFS"),
        clean(&meta.author_email, "aetherfs@localhost")
    );
    // Git reads no date before 1970.
    let time = (meta.time_ns / 1_000_000_000).max(0);
    let mut text = format!("tree {}\n", hex(tree));
    parents.iter().for_each(|p| text += &format!("parent {}\n", hex(p)));
    text += &format!("author {who} {time} +0000\ncommitter {who} {time} +0000\n\n{}", meta.message);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text.into_bytes())
}
