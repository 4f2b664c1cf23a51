//! Forking through the engine: in RAM with registration, durable, and what an idle fork keeps.

use super::node::{FILE, Node, run as program};
use crate::limits::Limits;
use crate::report::Bar;
use crate::rounds::Rounds;
use crate::{Context, alloc};
use afs_session::{Fork, Session};
use afs_types::{Ino, ROOT_INO, SessionId};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

const IN_PROCESS: usize = 20_000;
const DURABLE: usize = 400;
const IDLE: u32 = 10_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let small = Case::of(context.dir(), "small", 10_000, 1_000)?;
    let small_times = small.in_process()?;
    small.node.close()?;
    let large = Case::of(context.dir(), "large", 1_000_000, 100_000)?;
    let times = large.in_process()?;
    context.figure(
        "in process, overlay 100,000 on base 1,000,000, p50",
        times.p50() / 1e3,
        "us",
        Bar::AtMost(1.0),
        IN_PROCESS,
    );
    context.figure(
        "in process, overlay 100,000 on base 1,000,000, p99",
        times.p99() / 1e3,
        "us",
        Bar::AtMost(10.0),
        IN_PROCESS,
    );
    let ratio = times.p50() / small_times.p50();
    context.figure(
        "in process, large over small (100 times smaller)",
        ratio,
        "x",
        Bar::AtMost(2.0),
        IN_PROCESS,
    );
    durable(context, &large)?;
    idle(context, &large)?;
    large.node.close()
}

/// A session with an overlay on a base.
struct Case {
    node: Node,
    id: SessionId,
}

impl Case {
    fn of(dir: &Path, name: &str, base: usize, overlay: usize) -> Result<Self> {
        let repository = repository_of(&dir.join(format!("{name}.git")), base)?;
        let node = Node::open(&dir.join(name))?;
        let source = node.import_git(&repository)?;
        let (id, session) = node.session(&source)?;
        grow(&session, overlay)?;
        node.engine.sync()?;
        Ok(Self { node, id })
    }

    /// Planned, queued for the journal and registered; the wait for the disk is the caller's.
    fn in_process(&self) -> Result<Rounds> {
        let want = Fork::of(self.id.clone());
        let mut kept = Vec::with_capacity(IN_PROCESS * 2);
        let mut failure = None;
        let times = Rounds::of(IN_PROCESS, |_| match self.node.engine.fork_start(&want) {
            Ok(forked) => kept.push(forked),
            Err(error) => failure = Some(error),
        });
        match failure {
            Some(error) => Err(error.into()),
            None => {
                self.node.journal.sync()?;
                Ok(times)
            }
        }
    }
}

fn durable(context: &mut Context, case: &Case) -> Result<()> {
    let want = Fork::of(case.id.clone());
    let mut failure = None;
    let times = Rounds::of(DURABLE, |_| failure = failure.take().or(case.node.engine.fork(&want).err()));
    if let Some(error) = failure {
        return Err(error.into());
    }
    // The disk's own time again, right after: it drifts.
    context.limits = Limits::measure(context.dir())?;
    let (p50, p99) = (times.p50() / 1e3, times.p99() / 1e3);
    let limits = context.limits;
    context.figure("durable, p50", p50, "us", Bar::None, DURABLE);
    context.figure(
        "durable p50 over the raw fdatasync's",
        p50 / limits.fdatasync_p50_us,
        "x",
        Bar::AtMost(1.5),
        DURABLE,
    );
    context.figure(
        "durable p99 over the raw fdatasync's p50",
        p99 / limits.fdatasync_p50_us,
        "x",
        Bar::AtMost(3.0),
        DURABLE,
    );
    Ok(())
}

fn idle(context: &mut Context, case: &Case) -> Result<()> {
    let want = Fork { count: IDLE, ..Fork::of(case.id.clone()) };
    // The first one lets tables and caches grow to their size.
    drop(case.node.engine.fork(&want)?);
    case.node.journal.sync()?;
    let (forked, bytes) = alloc::bytes_of(|| -> Result<()> {
        drop(case.node.engine.fork(&want)?);
        case.node.journal.sync()?;
        Ok(())
    });
    forked?;
    let bytes = bytes as f64 / f64::from(IDLE);
    context.figure("an idle fork keeps in RAM", bytes, "B", Bar::AtMost(512.0), IDLE as usize);
    Ok(())
}

/// Files made in the session: each is an inode and a name of the overlay.
fn grow(session: &Arc<Session>, entries: usize) -> Result<()> {
    let mut dir: Ino = ROOT_INO;
    for number in 0..entries / 2 {
        if number % 200 == 0 {
            dir = session.mkdir(ROOT_INO, format!("new-{number}").as_bytes(), FILE, 0, 0)?.0.ino;
        }
        session.create(dir, format!("file-{number}").as_bytes(), FILE, 0, 0)?;
    }
    Ok(())
}

/// A repository of as many files, all with the same content: quick to make, and the table has every entry.
fn repository_of(path: &Path, files: usize) -> Result<PathBuf> {
    let parent = path.parent().context("a parent")?;
    program(
        "git",
        &["init", "--quiet", "--bare", "--initial-branch=main", path.to_str().context("text")?],
        parent,
    )?;
    let mut stream = String::from("blob\nmark :1\ndata 6\nhello\n\ncommit refs/heads/main\nmark :2\n");
    stream.push_str("committer Bench <bench@example.com> 1700000000 +0000\ndata 4\nmade\n");
    for number in 0..files {
        let (upper, dir) = (number / 1_000, number / 20);
        // Directories differ in one name: a few trees repeated a thousand times would be refused as a bomb.
        match number % 20 {
            0 => writeln!(stream, "M 100644 :1 package-{upper}/module-{dir}/module-{dir}.rs")?,
            file => writeln!(stream, "M 100644 :1 package-{upper}/module-{dir}/source-file-{file}.rs")?,
        }
    }
    let input = parent.join("stream");
    std::fs::write(&input, stream)?;
    let mut import = Command::new("git");
    import
        .args(["fast-import", "--quiet"])
        .current_dir(path)
        .stdin(std::fs::File::open(&input)?)
        .stdout(Stdio::null());
    let status = import.status().context("start git fast-import")?;
    anyhow::ensure!(status.success(), "git fast-import failed");
    std::fs::remove_file(input)?;
    Ok(path.to_owned())
}
