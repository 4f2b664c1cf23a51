//! `aether unmount`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::context::Context;
use crate::mount::{records, wait_gone};
use afs_types::{Error, Reason, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The process behind a mount makes everything durable before it ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// Unmount; everything written is on the server's disk when this returns
#[derive(Args)]
pub(crate) struct Unmount {
    /// Where it is mounted
    #[arg(required_unless_present = "all")]
    dirs: Vec<PathBuf>,
    /// Every mount that this user made with `aether mount`
    #[arg(long, conflicts_with = "dirs")]
    all: bool,
    /// Also when it is in use, or does not answer: those who use it get errors
    #[arg(long)]
    force: bool,
}

impl Unmount {
    pub(crate) async fn run(self, cx: &Context) -> Result<()> {
        let dirs = match self.all {
            // Not those of a server, or of somebody else, even if we were allowed to.
            true => records()?.into_iter().map(|record| record.dir).collect(),
            false => self.dirs,
        };
        let mut done = Vec::new();
        let mut first_error = None;
        for dir in dirs {
            match one(&dir, self.force).await {
                Ok(()) => done.push(dir),
                // With several, one that is busy must not keep the others.
                Err(error) if first_error.is_none() => first_error = Some(error),
                Err(error) => cx.out.complain(&format!("{}: {error}", dir.display())),
            }
        }
        cx.out.result(&serde_json::json!({ "unmounted": done }), |_| String::new());
        first_error.map_or(Ok(()), Err)
    }
}

async fn one(dir: &Path, force: bool) -> Result<()> {
    let place = afs_fuse::resolve(dir)?;
    let known = records()?.into_iter().find(|record| record.dir == place);
    let task = tokio::task::spawn_blocking(move || afs_fuse::unmount_path(&place, force));
    task.await.map_err(|e| Error::new(Reason::Internal, format!("unmount: {e}")))??;
    match known {
        Some(record) if !wait_gone(&record, PATIENCE).await => Err(Error::new(
            Reason::TimedOut,
            format!("{} is unmounted, but process {} still talks to the server", dir.display(), record.pid),
        )
        .next("see its log; what was written may not be on the server's disk yet")),
        _ => Ok(()),
    }
}
