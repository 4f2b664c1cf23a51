//! A commit becomes a base: trees level by level and the packs' files beside, then the names of blobs in the order of the packs, then `.git`.
//!
//! Guarantees: no checkout, no filter, no attribute, no submodule: entries hold exactly the bytes of the commit's
//! blobs. A blob is not read: its content in the store is its place in a pack, which is stored for the sessions' own git anyway (see
//! [`afs_store::GitObject`]); only targets of links, which are checked, and the few that the store cannot read by itself are, and have to be what git calls them. What an earlier base of the same
//! source has keeps its name. Memory is bounded by the entries of the tree and of that base, one object per thread and the kept delta bases.
//!
//! Deliberately absent: a check of each blob against its name. Git makes it for what it fetches. Of a repository on this machine the checksums of whole packs and
//! indexes are checked when they are copied (see [`crate::clone_local`]), which finds accidents, and each blob when it is first read, which finds the rest.

use crate::child::{Call, Git, cancelled};
use crate::git_dir::{self, GitDir};
use crate::hostile::hostile;
use crate::mirror::{Mirror, Source};
use crate::object::{Commit, Mode, Oid, finish_sha1, hash_file, hex, join, parse_tree, sha1};
use crate::packs::{self, Kind, Object, Packs, Place, Reader};
use crate::refs::{Head, Refs};
use crate::sink::{Sink, Target};
use crate::temp::Scratch;
use crate::{GitBase, ImportDirs, Imported, Owner, Progress, clone_local};
use afs_core::base::{BaseBuilder, BaseTable, NewEntry, NodeHandle, NodeKind};
use afs_store::{BlobStore, GitObject};
use afs_types::{BlobId, Error, Reason, Result, Rng, limits};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What an import of a commit needs from its caller.
pub(crate) struct Job<'a> {
    pub(crate) blobs: &'a Arc<BlobStore>,
    pub(crate) rng: &'a dyn Rng,
    pub(crate) now_ns: i64,
    pub(crate) owner: Owner,
    /// An earlier base of the same source.
    pub(crate) known: Option<&'a BaseTable>,
    pub(crate) progress: &'a dyn Progress,
}

/// One entry of the commit's tree, in breadth-first order.
pub(crate) struct Node {
    /// Index of the directory, or [`ROOT`].
    pub(crate) parent: u32,
    pub(crate) name: Box<[u8]>,
    pub(crate) mode: Mode,
    pub(crate) oid: Oid,
    /// Index of the first entry of a directory, and their number. Entries are in git's order.
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// The commit's tree, flat.
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    /// Entries of the root, which come first.
    pub(crate) root: u32,
    pub(crate) root_oid: Oid,
}

/// Parent of the root's entries.
pub(crate) const ROOT: u32 = u32::MAX;

/// Most objects that a thread takes at once: neighbours in a pack are made from one another.
const CHUNK: usize = 128;
/// Fewest. Towards the end the chunks become smaller, so that no thread is left alone with many large objects.
const LAST_CHUNK: usize = 4;
/// A tree that is this much larger than the distinct trees that make it is a bomb.
const MAX_EXPANSION: u64 = 256;
/// Below this number of entries nothing is called a bomb.
const MIN_BOMB: u64 = 1 << 20;

impl Job<'_> {
    pub(crate) fn run(
        &self,
        url: &str,
        reference: Option<&str>,
        dirs: &ImportDirs,
        builder: BaseBuilder,
    ) -> Result<Imported> {
        let source = Source::new(url, dirs, self.progress)?;
        self.run_at(&source, reference, builder).map_err(|error| source.explain(error))
    }

    fn run_at(&self, source: &Source<'_>, reference: Option<&str>, builder: BaseBuilder) -> Result<Imported> {
        let (mirror, head) = source.prepare(reference, self.rng)?;
        let scratch = Scratch::new(&source.dirs.temp, self.rng)?;
        let packs = Packs::open(&[mirror.now().join("objects")])?;
        let target = Target::new(self.blobs);
        let commit = packs.reader().commit(&head.oid)?;
        let refs = Refs::of_repository(&source.git, mirror.now(), self.progress)?;
        let import = Import {
            job: self,
            git: &source.git,
            mirror: &mirror,
            packs: &packs,
            scratch: &scratch,
            target: &target,
        };
        let pack_files = git_dir::pack_files(mirror.now())?;
        let (tree, pack_contents) = std::thread::scope(|scope| {
            let stored = scope.spawn(|| import.store_files(&pack_files));
            let tree = self.read_tree(&packs, commit.tree);
            (tree, stored.join().unwrap_or_else(|_| Err(Error::bare(Reason::Internal))))
        });
        let (tree, pack_contents) = (tree?, pack_contents?);
        let pack_blobs = packs.paths().map(|path| {
            let at = pack_files.iter().position(|file| file == path)?;
            pack_contents[at].0
        });
        let contents = import.store_blobs(&tree, pack_blobs.collect())?;
        let git_dir = GitDir {
            url: source.remote.shown(),
            head: &head,
            refs: &refs,
            mirror: mirror.now(),
            packs: pack_files
                .iter()
                .zip(pack_contents)
                .map(|(path, content)| (path.as_path(), content))
                .collect(),
            owner: self.owner,
            seconds: self.seconds(&commit),
        };
        let (table, totals) = crate::with_totals(self.build(builder, &tree, &contents, &git_dir, &target)?)?;
        let Head { oid, branch } = head;
        Ok(Imported {
            table,
            totals,
            upstream: Some(hex(&oid)),
            git: Some(GitBase {
                head_oid: hex(&oid),
                head_ref: branch,
                tree_oid: hex(&commit.tree),
                mirror: mirror.settle(self.progress)?,
            }),
            stored_bytes: target.stored_bytes(),
        })
    }

    /// The time shown for all entries: the commit's, but never 0, never so late that git's index, which is a second
    /// younger, would lie in the future, and never more than an index can hold.
    fn seconds(&self, commit: &Commit) -> i64 {
        let now = (self.now_ns / 1_000_000_000).clamp(3, i64::from(i32::MAX));
        commit.time.clamp(1, now - 2)
    }

    /// All trees of a commit, level by level, two threads per level.
    fn read_tree(&self, packs: &Packs, root_oid: Oid) -> Result<Tree> {
        let mut tree = Tree { nodes: Vec::new(), root: 0, root_oid };
        let mut level = vec![(ROOT, root_oid)];
        let mut distinct: HashMap<Oid, u64> = HashMap::new();
        let mut depth = 0;
        while !level.is_empty() {
            depth += 1;
            if depth > limits::MAX_PATH_DEPTH {
                let path = tree.path_of(level[0].0);
                return Err(hostile(&path, "more than 1024 directories deep"));
            }
            let parsed = self.read_level(packs, &tree, &level)?;
            let mut next = Vec::new();
            for ((dir, oid), entries) in level.iter().zip(parsed) {
                let first = tree.nodes.len() as u32;
                distinct.insert(*oid, entries.len() as u64);
                match tree.nodes.get_mut(*dir as usize) {
                    Some(node) => (node.first, node.count) = (first, entries.len() as u32),
                    None => tree.root = entries.len() as u32,
                }
                for (mode, name, oid) in entries {
                    if mode.is_tree() {
                        next.push((tree.nodes.len() as u32, oid));
                    }
                    tree.nodes.push(Node { parent: *dir, name, mode, oid, first: 0, count: 0 });
                }
            }
            check_bomb(&tree, &next, distinct.values().sum())?;
            self.progress.update("reading trees", tree.nodes.len() as u64, None);
            level = next;
        }
        Ok(tree)
    }

    fn read_level(&self, packs: &Packs, tree: &Tree, level: &[(u32, Oid)]) -> Result<Vec<Parsed>> {
        let read = |reader: &mut Reader<'_>, (dir, oid): &(u32, Oid)| -> Result<Parsed> {
            let bytes = reader.expect(oid, Kind::Tree)?;
            let entries = parse_tree(bytes, &|| tree.path_of(*dir))?;
            Ok(entries.into_iter().map(|e| (e.mode, e.name.into(), e.oid)).collect())
        };
        let work = Work::new(level.len(), self.progress);
        work.run("", || Ok(packs.reader()), |reader, i| read(reader, &level[i]), |_| Ok(()))
    }

    fn build(
        &self,
        mut builder: BaseBuilder,
        tree: &Tree,
        contents: &Contents,
        git_dir: &GitDir<'_>,
        target: &Target<'_>,
    ) -> Result<Vec<u8>> {
        self.progress.update("writing the table", 0, None);
        let mtime_ns = git_dir.seconds * 1_000_000_000;
        let new = |kind, mode, oid| NewEntry {
            uid: self.owner.uid,
            gid: self.owner.gid,
            mtime_ns,
            git_oid: Some(oid),
            ..NewEntry::new(kind, mode)
        };
        builder.root(new(NodeKind::Dir, 0o755, tree.root_oid));
        let mut handles: Vec<NodeHandle> = Vec::with_capacity(tree.nodes.len());
        for node in &tree.nodes {
            let (kind, mode) = match node.mode {
                Mode::Tree => (NodeKind::Dir, 0o755),
                Mode::File => (NodeKind::File, 0o644),
                Mode::Executable => (NodeKind::File, 0o755),
                Mode::Symlink => (NodeKind::Symlink, 0o777),
                Mode::Gitlink => (NodeKind::Gitlink, 0o755),
            };
            let mut entry = new(kind, mode, node.oid);
            if let Some((blob, size)) = contents.get(&node.oid).filter(|_| node.mode.is_blob()) {
                (entry.blob, entry.size) = (*blob, *size);
            }
            let parent = handles.get(node.parent as usize).copied().unwrap_or(BaseBuilder::ROOT);
            handles.push(builder.add(parent, &node.name, entry)?);
        }
        let mut sink = target.sink()?;
        git_dir.add(&mut builder, tree, &handles, contents, &mut sink)?;
        sink.finish()?;
        Ok(builder.finish())
    }
}

type Parsed = Vec<(Mode, Box<[u8]>, Oid)>;

fn check_bomb(tree: &Tree, next: &[(u32, Oid)], distinct: u64) -> Result<()> {
    let entries = tree.nodes.len() as u64;
    if entries > limits::MAX_BASE_ENTRIES {
        let text = format!("the tree has more than {} entries", limits::MAX_BASE_ENTRIES);
        return Err(Error::new(Reason::QuotaExceeded, text).with("limit", "MAX_BASE_ENTRIES"));
    }
    if entries > MIN_BOMB && entries > distinct.saturating_mul(MAX_EXPANSION) {
        let path = next.first().map_or(Vec::new(), |(dir, _)| tree.path_of(*dir));
        return Err(hostile(&path, "few trees repeated so often that they expand without end"));
    }
    Ok(())
}

impl Tree {
    /// The path of a node, without a leading slash.
    pub(crate) fn path_of(&self, node: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = node;
        while let Some(n) = self.nodes.get(at as usize) {
            names.push(&*n.name);
            at = n.parent;
        }
        names.iter().rev().fold(Vec::new(), |path, name| join(&path, name))
    }
}

/// What a file became: its blob (none for an empty one) and its size.
pub(crate) type Content = (Option<BlobId>, u64);

/// Contents by git's name of the blob.
pub(crate) type Contents = HashMap<Oid, Content>;

/// What storing blobs needs.
struct Import<'a> {
    job: &'a Job<'a>,
    git: &'a Git,
    mirror: &'a Mirror,
    packs: &'a Packs,
    scratch: &'a Scratch,
    target: &'a Target<'a>,
}

impl Import<'_> {
    /// Stores the files of the packs: for the sessions' `.git`, and for what the base's files consist of.
    fn store_files(&self, files: &[PathBuf]) -> Result<Vec<Content>> {
        let work = Work::new(files.len(), self.job.progress);
        let store = |sink: &mut Sink<'_>, i: usize| {
            if self.mirror.is_fresh() {
                clone_local::check(&files[i])?;
            }
            store_file(&files[i], sink)
        };
        work.run("", || self.target.sink(), store, Sink::finish)
    }

    /// Names every distinct blob once, in the order of the packs, whose ids are given in order of their numbers.
    fn store_blobs(&self, tree: &Tree, pack_blobs: Vec<Option<BlobId>>) -> Result<Contents> {
        let mut first: HashMap<Oid, u32> = HashMap::with_capacity(tree.nodes.len());
        for (i, node) in tree.nodes.iter().enumerate().filter(|(_, n)| n.mode.is_blob()) {
            first.entry(node.oid).or_insert(i as u32);
        }
        let mut wanted = Vec::with_capacity(first.len());
        for (oid, node) in first {
            let place = self.packs.find(&oid).ok_or_else(|| packs::missing(&oid))?;
            wanted.push((place, oid, node));
        }
        wanted.sort_unstable();
        let links: HashSet<Oid> =
            tree.nodes.iter().filter(|n| n.mode == Mode::Symlink).map(|n| n.oid).collect();
        let known = self.job.known.map(contents_of).unwrap_or_default();
        let store = Storing { import: self, tree, links, known, pack_blobs };
        let work = Work::new(wanted.len(), self.job.progress);
        let stored = work.run(
            "storing files",
            || Ok((self.packs.reader(), self.target.sink()?)),
            |(reader, sink), i| store.blob(&wanted[i], reader, sink),
            |(_, sink)| sink.finish(),
        )?;
        Ok(wanted.iter().map(|w| w.1).zip(stored).collect())
    }

    /// A blob that does not fit into memory: git streams it into a file.
    fn store_large(&self, oid: &Oid, path: &[u8], sink: &mut Sink<'_>) -> Result<Content> {
        let file = self.scratch.path().join(hex(oid));
        let step = |e| Error::io(format_args!("write {}", file.display()), e);
        let output = File::create(&file).map_err(step)?;
        let call = Call { git_dir: Some(self.mirror.now()), output: Some(output), ..Call::default() };
        self.git.must(call, ["cat-file", "blob", &hex(oid)], self.job.progress)?;
        if sha1_of_blob(&file).map_err(step)? != *oid {
            return Err(packs::misnamed(oid));
        }
        let content = store_file(&file, sink)?;
        std::fs::remove_file(&file).map_err(step)?;
        if content.1 > limits::MAX_FILE_BYTES {
            return Err(hostile(path, "a file larger than 16 TiB"));
        }
        Ok(content)
    }
}

/// The files of a base by git's name of their content. Only of the same source: another one's word for what is in a blob is not taken.
fn contents_of(base: &BaseTable) -> Contents {
    let rows = (1..=base.len()).filter_map(|position| base.at(position));
    rows.filter(|entry| entry.kind == NodeKind::File)
        .filter_map(|entry| Some((entry.git_oid?, (entry.blob, entry.size))))
        .collect()
}

/// What the threads that store blobs share.
struct Storing<'a> {
    import: &'a Import<'a>,
    tree: &'a Tree,
    /// Blobs that are targets of symbolic links.
    links: HashSet<Oid>,
    /// What an earlier import stored.
    known: Contents,
    /// The packs as blobs, by number.
    pack_blobs: Vec<Option<BlobId>>,
}

impl Storing<'_> {
    /// Stores one blob; `node` is an entry that has it.
    fn blob(
        &self,
        (place, oid, node): &(Place, Oid, u32),
        reader: &mut Reader<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<Content> {
        // A link's target is read again, to be checked.
        let is_link = self.links.contains(oid);
        if let Some(content) = self.known.get(oid).filter(|_| !is_link)
            && sink.reuse(&content.0)?
        {
            return Ok(*content);
        }
        // What is empty has no blob, and nobody would look at it again.
        if let Some(pack) = self.pack_blobs[place.pack as usize].filter(|_| !is_link)
            && let Some(len) = reader.measure(*place).filter(|len| *len > 0)
        {
            let object = GitObject { pack, oid: *oid, offset: place.offset, len };
            return Ok((sink.put_object(&object)?, u64::from(len)));
        }
        match reader.read_at(oid, *place)? {
            Object::Whole { kind: Kind::Blob, bytes, zlib } => {
                if sha1(&[format!("blob {}\0", bytes.len()).as_bytes(), bytes])? != *oid {
                    return Err(packs::misnamed(oid));
                }
                if is_link {
                    check_link(self.tree, oid, bytes)?;
                }
                let blob = match zlib {
                    Some(zlib) => sink.put_deflated(bytes, zlib)?,
                    None => sink.put(bytes)?,
                };
                Ok((blob, bytes.len() as u64))
            }
            Object::Whole { kind, .. } => Err(packs::wrong_kind(oid, kind, Kind::Blob)),
            Object::TooLarge => self.import.store_large(oid, &self.tree.path_of(*node), sink),
        }
    }
}

/// Stores a file of ours that nobody writes to any more.
fn store_file(path: &Path, sink: &mut Sink<'_>) -> Result<Content> {
    sink.put_finished(path)
}

/// Git's name of a blob that has the bytes of a file.
fn sha1_of_blob(path: &Path) -> std::io::Result<Oid> {
    let mut file = File::open(path)?;
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
    hash_file(&mut hasher, &mut file, None)?;
    finish_sha1(hasher).map_err(std::io::Error::other)
}

/// A blob that some symbolic link has as its target.
fn check_link(tree: &Tree, oid: &Oid, target: &[u8]) -> Result<()> {
    let why = match target {
        b"" => "a symbolic link without a target",
        t if t.len() > limits::MAX_SYMLINK_BYTES => "a symbolic link with a target of more than 4095 bytes",
        t if t.contains(&0) => "a symbolic link with NUL in its target",
        _ => return Ok(()),
    };
    let link = tree.nodes.iter().position(|n| n.mode == Mode::Symlink && n.oid == *oid);
    Err(hostile(&tree.path_of(link.map_or(ROOT, |i| i as u32)), why))
}

/// Numbered pieces of work, done by a few threads in any order.
struct Work<'a> {
    len: usize,
    next: AtomicUsize,
    stop: AtomicBool,
    progress: &'a dyn Progress,
}

impl<'a> Work<'a> {
    fn new(len: usize, progress: &'a dyn Progress) -> Self {
        Self { len, next: AtomicUsize::new(0), stop: AtomicBool::new(false), progress }
    }

    /// Results by number. `state` is made once per thread and given to `end` after its last piece.
    fn run<S, T: Send>(
        &self,
        phase: &str,
        state: impl Fn() -> Result<S> + Sync,
        each: impl Fn(&mut S, usize) -> Result<T> + Sync,
        end: impl Fn(S) -> Result<()> + Sync,
    ) -> Result<Vec<T>> {
        let done: Mutex<Vec<(usize, Vec<T>)>> = Mutex::new(Vec::new());
        let worker = || -> Result<()> {
            let mut mine = state()?;
            while let Some(range) = self.take() {
                if self.progress.cancelled() {
                    return Err(cancelled());
                }
                if !phase.is_empty() {
                    self.progress.update(phase, range.start as u64, Some(self.len as u64));
                }
                let from = range.start;
                let results: Result<Vec<T>> = range.map(|i| each(&mut mine, i)).collect();
                done.lock().unwrap_or_else(|e| e.into_inner()).push((from, results?));
            }
            end(mine)
        };
        // The first error stops the others.
        let worker = || worker().inspect_err(|_| self.stop.store(true, Ordering::Relaxed));
        let threads = crate::threads().min(self.len.div_ceil(CHUNK)).max(1);
        std::thread::scope(|scope| -> Result<()> {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
            let mine = worker();
            let others = others.into_iter().map(|t| t.join().map_err(|_| Error::bare(Reason::Internal))?);
            std::iter::once(mine).chain(others).collect()
        })?;
        let mut parts = done.into_inner().unwrap_or_else(|e| e.into_inner());
        parts.sort_unstable_by_key(|(from, _)| *from);
        Ok(parts.into_iter().flat_map(|(_, part)| part).collect())
    }

    fn take(&self) -> Option<std::ops::Range<usize>> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let end = |from: usize| {
            let left = self.len.saturating_sub(from);
            from + left.min((left / 64).clamp(LAST_CHUNK, CHUNK))
        };
        let more = |from| (from < self.len).then(|| end(from));
        let from = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(from..end(from))
    }
}
