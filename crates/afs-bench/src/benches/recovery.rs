//! Starting again: a million records that nobody folded.

use super::node::{FILE, Node};
use crate::Context;
use crate::report::Bar;
use afs_session::ImportSpec;
use afs_types::{ROOT_INO, limits};
use anyhow::{Result, ensure};
use std::path::Path;
use std::time::Instant;

const RECORDS: u64 = 1_000_000;
const FILES: usize = 1_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    // As if nothing was ever folded: each record is read and applied again.
    let (written, replayed) = measure(&context.dir().join("replayed"), u64::MAX)?;
    context.figure("writes acknowledged from RAM, then one fsync", written, "1/s", Bar::None, 1);
    context.figure("open and load a session of 1,000,000 records", replayed, "s", Bar::AtMost(3.0), 1);
    let (written, loaded) = measure(&context.dir().join("folded"), limits::MAX_LAYER_RECORDS)?;
    context.figure("the same writes, folded in the background as usual", written, "1/s", Bar::None, 1);
    context.figure("open and load that session", loaded, "s", Bar::AtMost(3.0), 1);
    Ok(())
}

/// Writes a second, and seconds to open and load; with new layers after `layer_records`.
fn measure(home: &Path, layer_records: u64) -> Result<(f64, f64)> {
    let open = || Node::open_with(home, |config| config.layer_records = layer_records);
    let node = open()?;
    let source = node.import(ImportSpec::Empty)?;
    let (id, session) = node.session(&source)?;
    let mut files = Vec::new();
    for number in 0..FILES {
        files.push(session.create(ROOT_INO, format!("file-{number}").as_bytes(), FILE, 0, 0)?.0.ino);
    }
    let started = Instant::now();
    for number in 0..RECORDS {
        session.write(files[number as usize % FILES], number % 64 * 8, &number.to_le_bytes(), 0, 0)?;
    }
    session.fsync()?;
    let written = RECORDS as f64 / started.elapsed().as_secs_f64();
    let revision = session.stamp().seq;
    drop(session);
    node.close()?;
    let started = Instant::now();
    let node = open()?;
    let session = node.engine.session(&id)?;
    let recovered = started.elapsed().as_secs_f64();
    let now = session.stamp().seq;
    ensure!(now == revision, "revision {now} after the restart, {revision} before");
    drop(session);
    node.close()?;
    Ok((written, recovered))
}
