//! Starting again: a million records that nobody folded.

use super::node::{FILE, Node};
use crate::Context;
use crate::report::Bar;
use afs_session::ImportSpec;
use afs_types::ROOT_INO;
use anyhow::{Result, ensure};
use std::time::Instant;

const RECORDS: u64 = 1_000_000;
const FILES: usize = 1_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let home = context.dir().join("node");
    let node = Node::open(&home)?;
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
    let written = started.elapsed().as_secs_f64();
    let revision = session.stamp().seq;
    drop(session);
    node.close()?;
    let started = Instant::now();
    let node = Node::open(&home)?;
    let session = node.engine.session(&id)?;
    let recovered = started.elapsed().as_secs_f64();
    ensure!(
        session.stamp().seq == revision,
        "revision {} after the restart, {revision} before",
        session.stamp().seq
    );
    context.figure(
        "writes acknowledged from RAM, then one fsync",
        RECORDS as f64 / written,
        "1/s",
        Bar::None,
        1,
    );
    context.figure("open and load a session of 1,000,000 records", recovered, "s", Bar::AtMost(3.0), 1);
    drop(session);
    node.close()
}
