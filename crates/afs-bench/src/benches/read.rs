//! Reading every file of the corpus, directory by directory, for the first time after the server started: from a base of the git repository, whose contents are
//! objects of its packs, from a base of the plain directory, whose contents are stored, and from the plain directory itself; then again, from memory.
//!
//! In process, without a mount: what is measured is what the store does for each file. The page cache has everything, as after an import.

use super::node::Node;
use crate::Context;
use crate::report::Bar;
use crate::rounds::Rounds;
use afs_session::{ImportSpec, Session};
use afs_types::{Ino, ROOT_INO, SourceId, limits};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::time::Instant;

const ROUNDS: usize = 5;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let corpus = std::fs::canonicalize(context.corpus()?)?;
    let plain = context.dir().join("plain");
    super::import::copy_tree(&corpus, &plain)?;
    let home = context.dir().join("read");
    let node = Node::open(&home)?;
    let git = node.import_git(&corpus)?;
    let stored = node.import(ImportSpec::Local { path: plain.clone() })?;
    node.close()?;
    let mut times = [const { Vec::new() }; TIMES];
    // The first round warms the page cache, and makes raw files of large objects; it is not counted.
    for round in 0..=ROUNDS {
        let one = measure(&home, [&git, &stored], &plain)?;
        if round > 0 {
            times.iter_mut().zip(one).for_each(|(times, time)| times.push(time));
        }
    }
    let [git, stored, disk, again] = times.map(|times| Rounds::new(times).p50());
    let mut seconds = |name: &str, value: f64| context.figure(name, value, "s", Bar::None, ROUNDS);
    seconds("the plain directory, from the page cache", disk);
    seconds("a base of the directory", stored);
    seconds("a base of the repository", git);
    seconds("the same again", again);
    context.figure("the repository's over the directory's", git / stored, "x", Bar::AtMost(1.5), ROUNDS);
    Ok(())
}

const TIMES: usize = 4;

/// Seconds: from the repository's base, the directory's base, the disk, and the repository's base again.
fn measure(home: &Path, bases: [&SourceId; 2], plain: &Path) -> Result<[f64; TIMES]> {
    let mut seconds = [0.0; TIMES];
    let mut all = [0; TIMES];
    for (at, base) in bases.into_iter().enumerate() {
        // What the store keeps in memory is gone with the process that a user restarts.
        let node = Node::open(home)?;
        let (_, session) = node.session(base)?;
        let started = Instant::now();
        all[at] = read_session(&session, ROOT_INO)?;
        seconds[at] = started.elapsed().as_secs_f64();
        if at == 0 {
            let started = Instant::now();
            all[3] = read_session(&session, ROOT_INO)?;
            seconds[3] = started.elapsed().as_secs_f64();
        }
        drop(session);
        node.close()?;
    }
    let started = Instant::now();
    all[2] = read_disk(plain)?;
    seconds[2] = started.elapsed().as_secs_f64();
    ensure!(all.iter().all(|bytes| *bytes == all[0]), "they do not have the same bytes: {all:?}");
    Ok(seconds)
}

/// Bytes of all files below, but for the repository's own.
fn read_session(session: &Session, dir: Ino) -> Result<u64> {
    let mut below = Vec::new();
    session.readdir(dir, 0, &mut |entry| {
        if entry.name != b".git" {
            below.push(entry.attr);
        }
        true
    })?;
    let mut bytes = 0;
    for attr in below {
        if attr.is_dir() {
            bytes += read_session(session, attr.ino)?;
        } else if attr.is_file() {
            let mut offset = 0;
            while offset < attr.size {
                let piece = session.read(attr.ino, offset, limits::MAX_IO_BYTES)?;
                ensure!(!piece.is_empty(), "a file ends before its size says");
                offset += piece.len() as u64;
            }
            bytes += offset;
        }
    }
    Ok(bytes)
}

fn read_disk(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            bytes += read_disk(&entry.path())?;
        } else if kind.is_file() {
            bytes += std::fs::read(entry.path())?.len() as u64;
        }
    }
    Ok(bytes)
}
