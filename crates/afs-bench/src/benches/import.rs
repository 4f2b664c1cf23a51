//! Importing the corpus, beside what people do without us.
//!
//! Each round runs `cp -a`, `git clone --local` and imports from the repository and from the plain directory, in turn, so that they meet the same
//! machine. `cp` and `git` do not wait for the disk, so what is compared with them does not either; what waiting adds is a figure of its own, and so is the
//! whole of what a user waits for: the engine's import, which ends when everything is durable.

use super::node::{Node, run as program};
use crate::Context;
use crate::report::Bar;
use crate::rounds::Rounds;
use afs_base::{ImportDirs, NoProgress};
use afs_journal::{JournalOptions, RocksJournal};
use afs_session::ImportSpec;
use afs_store::{BlobStore, Journal};
use afs_types::SystemRng;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: usize = 3;
/// Of a hundred files of the second base, as many differ from the first.
const CHANGED_OF_100: usize = 5;
const NOW_NS: i64 = 1_800_000_000_000_000_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let corpus = std::fs::canonicalize(context.corpus()?)?;
    let plain = context.dir().join("plain");
    copy_tree(&corpus, &plain)?;
    let (files, plain_bytes) = count(&plain)?;
    let mut times = Times::default();
    // The first round warms the page cache and is not counted.
    for round in 0..=ROUNDS {
        let one = measure(context.dir(), round, &corpus, &plain)?;
        if round > 0 {
            times.add(one);
        }
    }
    let [copy, clone, git, git_sync, local, local_sync, durable, again] = times.medians();
    let mut seconds = |name: &str, value: f64| context.figure(name, value, "s", Bar::None, ROUNDS);
    seconds("cp -a", copy);
    seconds("git clone --local", clone);
    seconds("import of the git repository", git);
    seconds("  waiting for the disk after it", git_sync);
    seconds("import of the plain directory", local);
    seconds("  waiting for the disk after it", local_sync);
    seconds("import of the git repository, until durable", durable);
    context.figure("the same commit again", again, "s", Bar::AtMost(0.1), ROUNDS);
    context.figure("cp -a over import", copy / git, "x", Bar::AtLeast(3.0), ROUNDS);
    context.figure("cp -a over import of the plain directory", copy / local, "x", Bar::AtLeast(3.0), ROUNDS);
    context.figure("git clone --local over import", clone / git, "x", Bar::AtLeast(6.0), ROUNDS);
    context.figure("git clone --local over import until durable", clone / durable, "x", Bar::None, ROUNDS);
    context.figure("import of the git repository", files / git, "files/s", Bar::AtLeast(40_000.0), ROUNDS);
    context.figure("import of the plain directory", files / local, "files/s", Bar::AtLeast(40_000.0), ROUNDS);
    second_base(context, &corpus, plain_bytes)
}

const TIMES: usize = 8;

#[derive(Default)]
struct Times([Vec<f64>; TIMES]);

impl Times {
    fn add(&mut self, seconds: [f64; TIMES]) {
        self.0.iter_mut().zip(seconds).for_each(|(times, time)| times.push(time));
    }
    fn medians(self) -> [f64; TIMES] {
        self.0.map(|times| Rounds::new(times).p50())
    }
}

fn timed<T>(run: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let started = Instant::now();
    let result = run()?;
    Ok((started.elapsed().as_secs_f64(), result))
}

fn measure(dir: &Path, round: usize, corpus: &Path, plain: &Path) -> Result<[f64; TIMES]> {
    // Copies are kept until the end: for some seconds after 60,000 files were removed, ext4 looks for inodes that have not just been in use, and
    // makes new files ten times slower. That would be to our advantage.
    let (copied, cloned) = (dir.join(format!("copied{round}")), dir.join(format!("cloned{round}")));
    settle(dir)?;
    let (copy, ()) = timed(|| program("cp", &["-a", text(plain)?, text(&copied)?], dir))?;
    settle(dir)?;
    let (clone, ()) =
        timed(|| program("git", &["clone", "--quiet", "--local", text(corpus)?, text(&cloned)?], dir))?;
    let url = text(corpus)?.to_owned();
    let [git, git_sync] = import(dir, &ImportSpec::Git { url, reference: None })?;
    let [local, local_sync] = import(dir, &ImportSpec::Local { path: plain.to_owned() })?;
    let home = dir.join("node");
    let node = Node::open(&home)?;
    settle(dir)?;
    let (durable, _) = timed(|| node.import_git(corpus))?;
    let (again, _) = timed(|| node.import_git(corpus))?;
    node.close()?;
    std::fs::remove_dir_all(&home)?;
    Ok([copy, clone, git, git_sync, local, local_sync, durable, again])
}

/// Waits until the disk has what was written before, so that nobody is measured with somebody else's bytes.
fn settle(dir: &Path) -> Result<()> {
    program("sync", &["--file-system", text(dir)?], dir)
}

/// An import into a new store, and then what is missing until everything is on disk.
fn import(dir: &Path, spec: &ImportSpec) -> Result<[f64; 2]> {
    let home = dir.join("import");
    let journal = RocksJournal::open(&home.join("journal"), JournalOptions::default())?;
    let blobs = BlobStore::open(&home.join("blobs"), [7; 32], 64 << 20, Arc::clone(&journal) as _)?;
    let dirs = ImportDirs { mirrors: home.join("mirrors"), temp: home.join("temp") };
    let (import, _) = timed(|| Ok(afs_base::import(spec, &dirs, &blobs, &SystemRng, NOW_NS, &NoProgress)?))?;
    let (sync, _) = timed(|| Ok(journal.sync()?))?;
    drop(blobs);
    journal.close()?;
    std::fs::remove_dir_all(&home)?;
    Ok([import, sync])
}

/// What a base costs that shares 95 of 100 files with one that is there: of another source, then of the same. Its bytes are compared with those of its files and with
/// what the first base took, which is less by what packs save.
fn second_base(context: &mut Context, corpus: &Path, plain_bytes: f64) -> Result<()> {
    let second = context.dir().join("second");
    program("git", &["clone", "--quiet", "--local", text(corpus)?, text(&second)?], context.dir())?;
    change(&second, 0)?;
    let home = context.dir().join("two");
    let node = Node::open(&home)?;
    let stored = |node: &Node| -> Result<f64> {
        let usage = node.blobs.usage();
        let (_, tables) = count(&home.join("engine/bases"))?;
        Ok((usage.pack_bytes + usage.raw_bytes) as f64 + tables)
    };
    node.import_git(corpus)?;
    let first = stored(&node)?;
    node.import_git(&second)?;
    let grown = stored(&node)? - first;
    let mut figure = |name: &str, value: f64, unit, bar| context.figure(name, value, unit, bar, 1);
    figure("files of the first base", plain_bytes / 1e6, "MB", Bar::None);
    figure("stored for it, its table included", first / 1e6, "MB", Bar::None);
    figure("stored for a second base with 95 % the same files", grown / 1e6, "MB", Bar::None);
    figure("  of the bytes of its files", grown / plain_bytes * 100.0, "%", Bar::AtMost(6.0));
    figure("  of what the first took", grown / first * 100.0, "%", Bar::AtMost(6.0));
    let mut times = Vec::new();
    for round in 1..=ROUNDS {
        change(&second, round * CHANGED_OF_100)?;
        settle(context.dir())?;
        times.push(timed(|| node.import_git(&second))?.0);
    }
    node.close()?;
    let refresh = Rounds::new(times).p50();
    context.figure("a refresh with 95 % the same files, until durable", refresh, "s", Bar::None, ROUNDS);
    Ok(())
}

/// Commits a change of five files of a hundred, from `offset` on.
fn change(repository: &Path, offset: usize) -> Result<()> {
    let listed =
        std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(repository).output()?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    for (number, name) in names.split('\0').filter(|name| !name.is_empty()).enumerate() {
        let path = repository.join(name);
        let chosen = (offset..offset + CHANGED_OF_100).contains(&(number % 100));
        if chosen && path.is_file() && !path.is_symlink() {
            let mut bytes = std::fs::read(&path)?;
            bytes.extend_from_slice(format!("\nchanged {number}\n").as_bytes());
            std::fs::write(&path, bytes)?;
        }
    }
    let author = ["-c", "user.name=bench", "-c", "user.email=bench@example.com"];
    let commit = ["commit", "--quiet", "--all", "--message=five of a hundred"];
    program("git", &[&author[..], &commit].concat(), repository)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

/// Copies the working tree without the repository to a new directory.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != ".git" {
            program("cp", &["-a", text(&entry.path())?, text(to)?], to)?;
        }
    }
    Ok(())
}

/// Files below a directory, and their bytes.
fn count(dir: &Path) -> Result<(f64, f64)> {
    let mut pending: Vec<PathBuf> = vec![dir.to_owned()];
    let (mut files, mut bytes) = (0, 0);
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else {
                files += 1;
                bytes += entry.metadata()?.len();
            }
        }
    }
    Ok((f64::from(files), bytes as f64))
}
