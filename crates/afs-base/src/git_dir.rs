//! The `.git` directory of a base that came from git: ordinary entries, so that a session's `git` works at once and
//! shares history with every other session of the base.
//!
//! Guarantees: packs are the mirror's files as blobs, stored once; HEAD, branch and index are small files that a
//! session replaces in its own overlay; nothing in `config` names the server's user, and the one command in it, `core.fsmonitor`,
//! reads a file of the mount (`sh` and `cat`, nothing from the tree); no credentials.
//! Deliberately absent: `hooks`, reflogs, and the commits that other sessions made.

use crate::Owner;
use crate::git_import::{Content, Contents, Tree};
use crate::git_index;
use crate::object::hex;
use crate::packs;
use crate::refs::{Head, Refs};
use crate::sink::Sink;
use afs_core::base::{BaseBuilder, NewEntry, NodeHandle, NodeKind};
use afs_types::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Run by git through `sh`, in the work tree, with 2 and an instant as arguments. Standard output is the answer.
const MONITOR: &str = r#"cat ".aether-since-$2" 2>/dev/null || printf 'unknown\0/\0' #"#;

/// What goes into `.git`.
pub(crate) struct GitDir<'a> {
    /// Of the source, without credentials.
    pub(crate) url: String,
    pub(crate) head: &'a Head,
    pub(crate) refs: &'a Refs,
    pub(crate) mirror: &'a Path,
    /// The mirror's pack files, stored.
    pub(crate) packs: Vec<(&'a Path, Content)>,
    pub(crate) owner: Owner,
    /// Modification time of every entry; the index is a second younger, so that git trusts what it says.
    pub(crate) seconds: i64,
}

/// The files that make up a mirror's packs; an index comes after its pack.
pub(crate) fn pack_files(mirror: &Path) -> Result<Vec<PathBuf>> {
    let packs = packs::list(&mirror.join("objects"))?;
    let with_index = |pack: &PathBuf| ["pack", "rev", "idx"].map(|e| pack.with_extension(e));
    Ok(packs.iter().flat_map(with_index).filter(|f| f.exists()).collect())
}

/// Makes directories and files below `.git`.
struct Maker<'b, 's, 'a> {
    builder: &'b mut BaseBuilder,
    sink: &'b mut Sink<'s>,
    dirs: HashMap<Vec<u8>, NodeHandle>,
    git: &'b GitDir<'a>,
}

impl GitDir<'_> {
    /// Adds `.git`, numbers the table, and writes the index, which holds those numbers.
    pub(crate) fn add(
        &self,
        builder: &mut BaseBuilder,
        tree: &Tree,
        handles: &[NodeHandle],
        contents: &Contents,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let instant = format!("base-{}", builder.mark());
        let mut maker = Maker { builder: &mut *builder, sink: &mut *sink, dirs: HashMap::new(), git: self };
        self.add_files(&mut maker)?;
        let index = maker.entry(b"index", NewEntry::new(NodeKind::File, 0o644))?;
        builder.number();
        let stat = git_index::Stat { seconds: self.seconds as u32, uid: self.owner.uid, gid: self.owner.gid };
        let inos: Vec<u32> = handles.iter().map(|h| builder.ino_of(*h) as u32).collect();
        let bytes = git_index::encode(tree, &inos, contents, &stat, &instant)?;
        let blob = sink.put_compressed(&bytes)?;
        builder.set_content(index, bytes.len() as u64, blob, (self.seconds + 1) * 1_000_000_000)
    }

    fn add_files(&self, maker: &mut Maker<'_, '_, '_>) -> Result<()> {
        for dir in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "refs/remotes/origin", "hooks"]
        {
            maker.dir(dir.as_bytes())?;
        }
        let oid = hex(&self.head.oid);
        match &self.head.branch {
            Some(branch) => {
                maker.file(b"HEAD", format!("ref: refs/heads/{branch}\n").as_bytes())?;
                maker.file(format!("refs/heads/{branch}").as_bytes(), format!("{oid}\n").as_bytes())?;
            }
            None => maker.file(b"HEAD", format!("{oid}\n").as_bytes())?,
        }
        if let Some(default) = self.refs.head.as_deref().and_then(|name| name.strip_prefix(b"refs/heads/")) {
            let text = [b"ref: refs/remotes/origin/", default, b"\n"].concat();
            maker.file(b"refs/remotes/origin/HEAD", &text)?;
        }
        maker.file(b"config", self.config().as_bytes())?;
        maker.file(b"packed-refs", &self.packed_refs())?;
        maker.file(b"info/exclude", b"")?;
        let shallow = self.mirror.join("shallow");
        if shallow.exists() {
            let bytes = std::fs::read(&shallow);
            maker.file(
                b"shallow",
                &bytes.map_err(|e| Error::io(format_args!("read {}", shallow.display()), e))?,
            )?;
        }
        for (path, (blob, size)) in &self.packs {
            let name = path.file_name().map_or(&b""[..], |n| n.as_encoded_bytes());
            let entry = NewEntry { size: *size, blob: *blob, ..NewEntry::new(NodeKind::File, 0o444) };
            maker.entry(&[b"objects/pack/", name].concat(), entry)?;
        }
        Ok(())
    }

    /// `fsmonitor`: git asks the mount what changed, by a name that leads to the answer; where there is none, everything did. What it is told of it looks at as
    /// everywhere, inode number and time of change included: all files of a base have one modification time, so that size and that alone would not tell
    /// files that have changed places.
    fn config(&self) -> String {
        let mut text = format!(
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\
             \tuntrackedCache = true\n\tfsmonitorHookVersion = 2\n\
             \tfsmonitor = {}\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n\
             [remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
            quoted(MONITOR),
            quoted(&self.url)
        );
        if let Some(branch) = &self.head.branch {
            let merge = quoted(&format!("refs/heads/{branch}"));
            let inner = quoted(branch);
            text += &format!("[branch {inner}]\n\tremote = origin\n\tmerge = {merge}\n");
        }
        text
    }

    /// The source's branches as `origin/…`, and its tags.
    fn packed_refs(&self) -> Vec<u8> {
        let mut lines: Vec<(Vec<u8>, String)> = Vec::new();
        for (name, target) in &self.refs.all {
            let name = match name.strip_prefix(b"refs/heads/") {
                Some(branch) => [b"refs/remotes/origin/", branch].concat(),
                None if name.starts_with(b"refs/tags/") => name.clone(),
                None => continue,
            };
            let peeled = target.peeled.map_or(String::new(), |p| format!("^{}\n", hex(&p)));
            lines.push((name, format!("{}\t{peeled}", hex(&target.oid))));
        }
        lines.sort();
        let mut out = b"# pack-refs with: peeled fully-peeled sorted \n".to_vec();
        for (name, oids) in lines {
            let (oid, peeled) = oids.split_once('\t').unwrap_or((&oids, ""));
            out.extend_from_slice(oid.as_bytes());
            out.push(b' ');
            out.extend_from_slice(&name);
            out.push(b'\n');
            out.extend_from_slice(peeled.as_bytes());
        }
        out
    }
}

/// A value or subsection name that git's configuration reads back as it was.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Maker<'_, '_, '_> {
    fn dir(&mut self, path: &[u8]) -> Result<NodeHandle> {
        if let Some(handle) = self.dirs.get(path) {
            return Ok(*handle);
        }
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (self.dir(&path[..slash])?, &path[slash + 1..]),
            None if path.is_empty() => (BaseBuilder::ROOT, &b".git"[..]),
            None => (self.dir(b"")?, path),
        };
        let entry = self.attributes(NewEntry::new(NodeKind::Dir, 0o755));
        let handle = self.builder.add(parent, name, entry)?;
        self.dirs.insert(path.to_vec(), handle);
        Ok(handle)
    }

    fn file(&mut self, path: &[u8], bytes: &[u8]) -> Result<()> {
        let blob = self.sink.put(bytes)?;
        let entry = NewEntry { size: bytes.len() as u64, blob, ..NewEntry::new(NodeKind::File, 0o644) };
        self.entry(path, entry).map(drop)
    }

    fn entry(&mut self, path: &[u8], entry: NewEntry) -> Result<NodeHandle> {
        let slash = path.iter().rposition(|b| *b == b'/');
        let parent = self.dir(slash.map_or(b"", |at| &path[..at]))?;
        let entry = self.attributes(entry);
        self.builder.add(parent, &path[slash.map_or(0, |at| at + 1)..], entry)
    }

    fn attributes(&self, entry: NewEntry) -> NewEntry {
        let Owner { uid, gid } = self.git.owner;
        NewEntry { uid, gid, mtime_ns: self.git.seconds * 1_000_000_000, ..entry }
    }
}
