//! Real repositories, made by the git program in temporary directories, and a real blob store.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use afs_base::{ImportDirs, ImportSpec, Imported, NoProgress};
use afs_core::base::{BaseEntry, BaseTable, NodeKind};
use afs_store::{BlobStore, Journal, SimJournal};
use afs_types::{Error, ROOT_INO, Reason, Result, SystemRng};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

/// A time later than any commit of these tests, in ns.
pub(crate) const NOW_NS: i64 = 1_800_000_000 * 1_000_000_000;
/// The time of commits of these tests, in s.
pub(crate) const COMMIT_TIME: i64 = 1_700_000_000;

pub(crate) struct World {
    pub(crate) blobs: Arc<BlobStore>,
    journal: Arc<SimJournal>,
    pub(crate) dirs: ImportDirs,
    /// Dropped last: a store whose directory is gone stops the process, as it should.
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = SimJournal::new().unwrap();
        let blobs = BlobStore::open(&dir.path().join("blobs"), [7; 32], 16 << 20, journal.clone()).unwrap();
        let dirs =
            ImportDirs { mirrors: dir.path().join("data/mirrors"), temp: dir.path().join("data/temp") };
        fs::create_dir_all(&dirs.mirrors).unwrap();
        Self { dir, blobs, dirs, journal }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn import(&self, spec: &ImportSpec) -> Result<Imported> {
        let imported = afs_base::import(spec, &self.dirs, &self.blobs, &SystemRng, NOW_NS, &NoProgress)?;
        // As the engine does before it tells anybody: until then large blobs count as new.
        self.journal.sync()?;
        Ok(imported)
    }

    pub(crate) fn import_git(&self, repo: &Repo, reference: Option<&str>) -> Result<Imported> {
        self.import(&repo.spec(reference))
    }

    pub(crate) fn import_local(&self, path: &Path) -> Result<Imported> {
        self.import(&ImportSpec::Local { path: path.to_owned() })
    }

    pub(crate) fn content(&self, entry: &BaseEntry<'_>) -> Vec<u8> {
        match &entry.blob {
            Some(id) => self.blobs.read(id, 0, entry.size as usize).unwrap().to_vec(),
            None => {
                assert_eq!(entry.size, 0);
                Vec::new()
            }
        }
    }

    /// Writes a table out as real files, with the recorded modes and times.
    pub(crate) fn check_out(&self, table: &BaseTable, to: &Path) {
        fs::create_dir_all(to).unwrap();
        self.check_out_dir(table, ROOT_INO, to);
    }

    fn check_out_dir(&self, table: &BaseTable, dir: u64, to: &Path) {
        for entry in table.children(dir) {
            let path = to.join(OsStr::from_bytes(entry.name));
            match entry.kind {
                NodeKind::Dir => {
                    fs::create_dir(&path).unwrap();
                    self.check_out_dir(table, entry.ino, &path);
                }
                NodeKind::Gitlink => fs::create_dir(&path).unwrap(),
                NodeKind::File => {
                    fs::write(&path, self.content(&entry)).unwrap();
                    fs::set_permissions(&path, PermissionsExt::from_mode(entry.mode & 0o7777)).unwrap();
                    set_mtime(&path, entry.mtime_ns);
                }
                NodeKind::Symlink => {
                    symlink(OsStr::from_bytes(&self.content(&entry)), &path).unwrap();
                    set_mtime(&path, entry.mtime_ns);
                }
                kind => panic!("{kind:?}"),
            }
        }
    }
}

pub(crate) fn set_mtime(path: &Path, mtime_ns: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: mtime_ns.div_euclid(1_000_000_000),
        tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
    };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(crate) fn table_of(imported: &Imported) -> BaseTable {
    let table = BaseTable::open(Bytes::from(imported.table.clone())).unwrap();
    assert_eq!(table.totals(), imported.totals);
    table
}

/// Every path of a table, `.git` left out.
pub(crate) fn paths(table: &BaseTable) -> BTreeMap<Vec<u8>, BaseEntry<'_>> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![(ROOT_INO, Vec::new())];
    while let Some((dir, path)) = dirs.pop() {
        for entry in table.children(dir) {
            if dir == ROOT_INO && entry.name == b".git" {
                continue;
            }
            let path = [&path[..], b"/", entry.name].concat();
            if entry.kind == NodeKind::Dir {
                dirs.push((entry.ino, path.clone()));
            }
            all.insert(path, entry);
        }
    }
    all
}

pub(crate) fn find<'a>(table: &'a BaseTable, path: &str) -> Option<BaseEntry<'a>> {
    let mut ino = ROOT_INO;
    for name in path.split('/') {
        ino = table.lookup(ino, name.as_bytes())?;
    }
    table.entry(ino)
}

pub(crate) fn hostile(result: Result<Imported>, path: &str) -> Error {
    let error = result.expect_err("imported");
    assert_eq!(error.reason, Reason::HostileTree, "{error:?}");
    assert!(error.message().contains(path), "{error:?} does not name {path:?}");
    error
}

/// git without anything of this machine's configuration.
pub(crate) fn git_command(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"])
        .args(["-c", "protocol.file.allow=always", "-c", "gc.auto=0", "-c", "core.abbrev=40"])
        .env("GIT_AUTHOR_DATE", format!("{COMMIT_TIME} +0000"))
        .env("GIT_COMMITTER_DATE", format!("{COMMIT_TIME} +0000"))
        .stdin(Stdio::null());
    command
}

pub(crate) fn try_git<S: AsRef<OsStr>>(dir: &Path, args: &[S]) -> Output {
    git_command(dir).args(args).output().unwrap()
}

pub(crate) fn git<S: AsRef<OsStr> + std::fmt::Debug>(dir: &Path, args: &[S]) -> String {
    let output = try_git(dir, args);
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Feeds git's standard input.
pub(crate) fn git_with<S: AsRef<OsStr> + std::fmt::Debug>(dir: &Path, args: &[S], input: &[u8]) -> String {
    let mut command = git_command(dir);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A repository with a work tree.
pub(crate) struct Repo {
    pub(crate) path: PathBuf,
}

impl Repo {
    pub(crate) fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        git(&path, &["init", "-q"]);
        Self { path }
    }

    /// Odd names, executable bits, links, a submodule, nested directories, many small files.
    pub(crate) fn rich(path: PathBuf) -> Self {
        let repo = Self::new(path);
        repo.write("README.md", b"hello\n");
        repo.write("run.sh", b"#!/bin/sh\n");
        repo.executable("run.sh");
        repo.write("empty", b"");
        repo.write("a/b/c/deep.txt", b"deep\n");
        repo.write("a.b", b"sorts between a and a/\n");
        repo.write("a-b", b"so does this\n");
        repo.write("a0", b"and this after\n");
        repo.write(
            "big.bin",
            &(0..300_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect::<Vec<_>>(),
        );
        for name in [
            &b"caf\xc3\xa9"[..],
            b"\xff\xfe not utf-8",
            b"new\nline",
            b" space ",
            b"tab\t",
            b"quote\"'",
            b"-dash",
            b"\\back",
        ] {
            fs::write(repo.path.join(OsStr::from_bytes(name)), name).unwrap();
        }
        symlink("README.md", repo.path.join("link")).unwrap();
        symlink("/nowhere/\u{e9}", repo.path.join("a/dangling")).unwrap();
        for i in 0..300 {
            repo.write(
                &format!("src/m{}/f{i}.txt", i % 7),
                format!("file {i}\n").repeat(i % 40 + 1).as_bytes(),
            );
        }
        git(&repo.path, &["add", "-A"]);
        let oid = "1234567890123456789012345678901234567890";
        git(&repo.path, &["update-index", "--add", "--cacheinfo", &format!("160000,{oid},vendor/sub")]);
        git(&repo.path, &["commit", "-qm", "first"]);
        repo
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn executable(&self, path: &str) {
        fs::set_permissions(self.path.join(path), PermissionsExt::from_mode(0o755)).unwrap();
    }

    pub(crate) fn commit_all(&self, message: &str) -> String {
        git(&self.path, &["add", "-A"]);
        git(&self.path, &["commit", "-qm", message, "--allow-empty"]);
        self.head()
    }

    pub(crate) fn head(&self) -> String {
        self.rev("HEAD")
    }

    pub(crate) fn rev(&self, name: &str) -> String {
        git(&self.path, &["rev-parse", name])
    }

    pub(crate) fn url(&self) -> String {
        self.path.to_str().unwrap().to_owned()
    }

    pub(crate) fn spec(&self, reference: Option<&str>) -> ImportSpec {
        ImportSpec::Git { url: self.url(), reference: reference.map(Into::into) }
    }

    /// Writes any object, valid or not.
    pub(crate) fn object(&self, kind: &str, bytes: &[u8]) -> String {
        git_with(&self.path, &["hash-object", "-t", kind, "-w", "--literally", "--stdin"], bytes)
    }

    /// Commits a tree made of raw entries (mode, name, oid) on branch main.
    pub(crate) fn commit_raw_tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let tree = self.raw_tree(entries);
        let text = format!(
            "tree {tree}\nauthor T <t> {COMMIT_TIME} +0000\ncommitter T <t> {COMMIT_TIME} +0000\n\nraw\n"
        );
        let commit = self.object("commit", text.as_bytes());
        fs::write(self.path.join(".git/refs/heads/main"), format!("{commit}\n")).unwrap();
        commit
    }

    pub(crate) fn raw_tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let unhex = |t: &str| {
            (0..20).map(|i| u8::from_str_radix(&t[2 * i..2 * i + 2], 16).unwrap()).collect::<Vec<_>>()
        };
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|(mode, name, oid)| [mode.as_bytes(), b" ", name, b"\0", &unhex(oid)].concat())
            .collect();
        self.object("tree", &bytes)
    }
}
