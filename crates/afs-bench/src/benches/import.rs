//! Importing the corpus, beside what people do without us.
//!
//! Each round runs `cp -a`, `git clone --local` and two imports, from the repository and from the plain directory, in turn, so that they meet the same machine. None of them waits
//! for the disk, as `cp` and `git` do not; what waiting adds to ours is a figure of its own.

use super::node::{Node, run as program};
use crate::Context;
use crate::report::Bar;
use crate::rounds::Rounds;
use afs_session::ImportSpec;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::time::Instant;

const ROUNDS: usize = 3;
/// Of a hundred files of the second base, as many differ from the first.
const CHANGED_OF_100: usize = 5;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let corpus = std::fs::canonicalize(context.corpus()?)?;
    let plain = context.dir().join("plain");
    std::fs::create_dir(&plain)?;
    copy(&corpus, &plain)?;
    let files = count(&plain)? as f64;
    let mut times = Times::default();
    // The first round warms the page cache and is not counted.
    for round in 0..=ROUNDS {
        let one = measure(context.dir(), &corpus, &plain)?;
        if round > 0 {
            times.add(one);
        }
    }
    let [copy, clone, git, local, sync] = times.medians();
    context.figure("cp -a", copy, "s", Bar::None, ROUNDS);
    context.figure("git clone --local", clone, "s", Bar::None, ROUNDS);
    context.figure("import of the git repository", git, "s", Bar::None, ROUNDS);
    context.figure("import of the plain directory", local, "s", Bar::None, ROUNDS);
    context.figure("waiting for the disk after an import", sync, "s", Bar::None, ROUNDS);
    context.figure("cp -a over import", copy / git, "x", Bar::AtLeast(3.0), ROUNDS);
    context.figure("git clone --local over import", clone / git, "x", Bar::AtLeast(6.0), ROUNDS);
    context.figure("import of the git repository", files / git, "files/s", Bar::AtLeast(40_000.0), ROUNDS);
    context.figure("import of the plain directory", files / local, "files/s", Bar::AtLeast(40_000.0), ROUNDS);
    second_base(context, &corpus)
}

#[derive(Default)]
struct Times([Vec<f64>; 5]);

impl Times {
    fn add(&mut self, seconds: [f64; 5]) {
        self.0.iter_mut().zip(seconds).for_each(|(times, time)| times.push(time));
    }
    fn medians(self) -> [f64; 5] {
        self.0.map(|times| Rounds::new(times).p50())
    }
}

fn timed<T>(run: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let started = Instant::now();
    let result = run()?;
    Ok((started.elapsed().as_secs_f64(), result))
}

fn measure(dir: &Path, corpus: &Path, plain: &Path) -> Result<[f64; 5]> {
    let (copied, cloned) = (dir.join("copied"), dir.join("cloned"));
    let (copy, ()) = timed(|| program("cp", &["-a", text(plain)?, text(&copied)?], dir))?;
    std::fs::remove_dir_all(&copied)?;
    let (clone, ()) =
        timed(|| program("git", &["clone", "--quiet", "--local", text(corpus)?, text(&cloned)?], dir))?;
    std::fs::remove_dir_all(&cloned)?;
    let home = dir.join("node");
    let node = Node::open(&home)?;
    let (git, _) = timed(|| node.import_git(corpus))?;
    let (sync, _) = timed(|| Ok(node.journal.sync()?))?;
    node.close()?;
    std::fs::remove_dir_all(&home)?;
    let node = Node::open(&home)?;
    let (local, _) = timed(|| node.import(ImportSpec::Local { path: plain.to_owned() }))?;
    node.close()?;
    std::fs::remove_dir_all(&home)?;
    Ok([copy, clone, git, local, sync])
}

/// What a base costs that shares 95 of 100 files with one that is there.
fn second_base(context: &mut Context, corpus: &Path) -> Result<()> {
    let second = context.dir().join("second");
    program("git", &["clone", "--quiet", "--local", text(corpus)?, text(&second)?], context.dir())?;
    let names =
        std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(&second).output()?.stdout;
    let names = String::from_utf8_lossy(&names).into_owned();
    for (number, name) in names.split('\0').filter(|name| !name.is_empty()).enumerate() {
        let path = second.join(name);
        if number % 100 < CHANGED_OF_100 && path.is_file() && !path.is_symlink() {
            let mut bytes = std::fs::read(&path)?;
            bytes.extend_from_slice(format!("\nchanged {number}\n").as_bytes());
            std::fs::write(&path, bytes)?;
        }
    }
    let author = ["-c", "user.name=bench", "-c", "user.email=bench@example.com"];
    program(
        "git",
        &[&author[..], &["commit", "--quiet", "--all", "--message=five of a hundred"]].concat(),
        &second,
    )?;
    let home = context.dir().join("two");
    let node = Node::open(&home)?;
    let stored = |node: &Node| {
        let usage = node.blobs.usage();
        usage.pack_bytes + usage.raw_bytes
    };
    node.import_git(corpus)?;
    let first = stored(&node);
    node.import_git(&second)?;
    let grown = stored(&node) - first;
    node.close()?;
    context.figure("stored for the first base", first as f64 / 1e6, "MB", Bar::None, 1);
    context.figure(
        "a second base with 95 % the same files adds",
        grown as f64 / first as f64 * 100.0,
        "%",
        Bar::AtMost(6.0),
        1,
    );
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

/// The working tree without the repository.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != ".git" {
            program("cp", &["-a", text(&entry.path())?, text(to)?], to)?;
        }
    }
    Ok(())
}

fn count(dir: &Path) -> Result<usize> {
    let mut pending: Vec<PathBuf> = vec![dir.to_owned()];
    let mut files = 0;
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else {
                files += 1;
            }
        }
    }
    Ok(files)
}
