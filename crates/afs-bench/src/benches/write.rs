//! Writing a little into a large file of a base, and what a typical edit of an agent costs on disk.

use super::node::{FILE, Node, disk_bytes, run as program, walk};
use crate::Context;
use crate::report::Bar;
use crate::rounds::Rounds;
use afs_session::{ImportSpec, RenameMode, Session};
use afs_types::ROOT_INO;
use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::Write;
use std::path::Path;

const GIB: u64 = 1 << 30;
const ROUNDS: usize = 1_000;
const BLOCK: usize = 4096;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    small_write(context)?;
    typical_edit(context)
}

/// Bytes that neither compress nor repeat.
fn noise(path: &Path, bytes: u64) -> Result<()> {
    let mut file = File::create(path)?;
    let mut word = bytes | 1;
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..bytes.div_ceil(block.len() as u64) {
        for piece in block.chunks_exact_mut(8) {
            // xorshift: quick, and random enough for a compressor.
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            piece.copy_from_slice(&word.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}

fn small_write(context: &mut Context) -> Result<()> {
    let from = context.dir().join("large");
    std::fs::create_dir(&from)?;
    noise(&from.join("large.bin"), GIB)?;
    let home = context.dir().join("node");
    let node = Node::open(&home)?;
    let source = node.import(ImportSpec::Local { path: from.clone() })?;
    std::fs::remove_dir_all(&from)?;
    let (_, session) = node.session(&source)?;
    let ino = walk(&session, "large.bin")?;
    let block = [9u8; BLOCK];
    let mut failure = None;
    let offset = |number: usize| number as u64 * 7_919 % (GIB / BLOCK as u64) * BLOCK as u64;
    node.engine.sync()?;
    let before = disk_bytes(&home)?;
    let times = Rounds::of(ROUNDS, |number| {
        failure = failure.take().or(session.write(ino, offset(number), &block, 0, 0).err());
    });
    if let Some(error) = failure {
        return Err(error.into());
    }
    node.engine.sync()?;
    let grown = disk_bytes(&home)?.saturating_sub(before);
    let writes = ROUNDS + ROUNDS / 10;
    let read = session.read(ino, offset(5), BLOCK)?;
    ensure!(read[..] == block, "what was written is not what is read");
    context.figure(
        "4 KiB into a 1 GiB base file, without sync, p50",
        times.p50() / 1e6,
        "ms",
        Bar::AtMost(1.0),
        ROUNDS,
    );
    context.figure(
        "4 KiB into a 1 GiB base file, without sync, p99",
        times.p99() / 1e6,
        "ms",
        Bar::None,
        ROUNDS,
    );
    let kib = grown as f64 / writes as f64 / 1024.0;
    context.figure("disk that one such write takes", kib, "KiB", Bar::AtMost(16.0), ROUNDS);
    drop(session);
    node.close()?;
    std::fs::remove_dir_all(&home)?;
    Ok(())
}

/// 20 files edited, 5 added, 2 deleted, a file of 50 MB appended to, a directory of 1,000 files renamed.
fn typical_edit(context: &mut Context) -> Result<()> {
    let corpus = std::fs::canonicalize(context.corpus()?)?;
    let base = context.dir().join("base");
    let (from, to) = (corpus.to_str().context("text")?.to_owned(), base.to_str().context("text")?.to_owned());
    program("git", &["clone", "--quiet", "--local", &from, &to], context.dir())?;
    std::fs::remove_dir_all(base.join(".git"))?;
    noise(&base.join("log.bin"), 50_000_000)?;
    std::fs::create_dir(base.join("thousand"))?;
    for number in 0..1_000 {
        std::fs::write(base.join(format!("thousand/file-{number}")), format!("file {number}\n"))?;
    }
    let size = disk_bytes(&base)?;
    let home = context.dir().join("node");
    let node = Node::open(&home)?;
    let source = node.import(ImportSpec::Local { path: base })?;
    let (_, session) = node.session(&source)?;
    node.engine.sync()?;
    let before = disk_bytes(&home)?;
    edit(&session)?;
    session.fsync()?;
    let grown = disk_bytes(&home)?.saturating_sub(before);
    context.figure("disk of a typical edit", grown as f64 / 1e3, "KB", Bar::None, 1);
    context.figure("the same, of the base", grown as f64 / size as f64 * 100.0, "%", Bar::AtMost(1.0), 1);
    drop(session);
    node.close()
}

fn edit(session: &Session) -> Result<()> {
    let dir = walk(session, "apps/web/node_modules/date-fns")?;
    let mut names = Vec::new();
    session.readdir(dir, 0, &mut |entry| {
        if entry.attr.is_file() {
            names.push((entry.name.to_vec(), entry.attr.ino));
        }
        names.len() < 22
    })?;
    ensure!(names.len() == 22, "the corpus has too few files in date-fns: {}", names.len());
    for (_, ino) in &names[..20] {
        session.write(*ino, 10, b"// a line that an agent has written here\n", 0, 0)?;
    }
    for (name, _) in &names[20..] {
        session.unlink(dir, name, 0, 0)?;
    }
    for number in 0..5 {
        let (attr, _) = session.create(dir, format!("added-{number}.ts").as_bytes(), FILE, 0, 0)?;
        session.write(attr.ino, 0, &[b'x'; 2_000], 0, 0)?;
    }
    let log = walk(session, "log.bin")?;
    session.append(log, &[b'y'; 100_000], 0, 0)?;
    session.rename((ROOT_INO, b"thousand"), (ROOT_INO, b"renamed"), RenameMode::Replace, 0, 0)?;
    Ok(())
}
