//! `aether unmount`: takes mounts away and says what their ends said. It decides nothing that the server does not.
//!
//! Guarantees: success means that the process behind each mount has said that everything written is on the server's disk. Whatever
//! else becomes of it is a failure with a reason: lost changes, a server that is gone, a process that was killed or never told us.

use crate::cli::Ended;
use crate::context::Context;
use crate::failure::{describe, error_of, exit_code};
use crate::mount::{End, Record, end_of, record_at, records, wait_gone};
use afs_types::{Error, Reason, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The process behind a mount makes everything durable before it ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// Unmount; everything written is on the server's disk when this succeeds
///
/// Fails when a mount is gone and the last changes are not known to be on the server's disk, or a crash of the server took some back.
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
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Ended> {
        let dirs = match self.all {
            // Not those of a server, or of somebody else, even if we were allowed to.
            true => records()?.into_iter().map(|record| record.dir).collect(),
            false => self.dirs,
        };
        let (mut gone, mut first_code) = (Vec::new(), None);
        for dir in dirs {
            let ended = match take_away(&dir, self.force).await {
                Ok(served) => {
                    gone.push(dir.clone());
                    end(served).await
                }
                Err(error) => Err(error),
            };
            // With several, one that fails must not keep the others, and each failure is told.
            if let Err(error) = ended {
                let error = error.with("dir", dir.display().to_string());
                cx.out.complain(&describe(&error, cx.out.json, &cx.out.talk_style));
                first_code.get_or_insert(exit_code(error.reason));
            }
        }
        cx.out.result(&serde_json::json!({ "unmounted": gone }), |_| String::new());
        first_code.map_or(Ok(()), |code| Err(Ended::Reported(code)))
    }
}

/// Unmounts; returns who served it, as far as is known.
async fn take_away(dir: &Path, force: bool) -> Result<Option<Record>> {
    let place = afs_fuse::resolve(dir)?;
    let served = record_at(&place)?;
    let task = tokio::task::spawn_blocking(move || afs_fuse::unmount_path(&place, force));
    match task.await.map_err(|e| Error::new(Reason::Internal, format!("unmount: {e}")))? {
        // Another unmount, or a signal, was first: its process is ending.
        Err(e) if e.reason == Reason::MountNotFound && served.as_ref().is_some_and(Record::is_alive) => {
            Ok(served)
        }
        unmounted => unmounted.map(|()| served),
    }
}

/// Waits for the process behind a mount, and returns what it says of what was written.
async fn end(served: Option<Record>) -> Result<()> {
    let Some(record) = served else {
        return Err(not_known(
            Reason::Unavailable,
            "no `aether mount` of this user served it, so nobody can be asked",
        ));
    };
    if !wait_gone(&record, PATIENCE).await {
        return Err(not_known(
            Reason::TimedOut,
            &format!("process {} still talks to the server", record.pid),
        ));
    }
    match end_of(&record) {
        Some(End { problem: None }) => {
            record.remove();
            Ok(())
        }
        Some(End { problem: Some(problem) }) => Err(error_of(problem)),
        None if record.read_only => Ok(()),
        None => Err(not_known(
            Reason::Unavailable,
            &format!("process {} ended without a word: it was killed", record.pid),
        )),
    }
}

fn not_known(reason: Reason, why: &str) -> Error {
    Error::new(
        reason,
        format!("unmounted, but what was written last is not known to be on the server's disk: {why}"),
    )
    .next("see the mount's log and whether the server runs (`aether status`), then look at the files")
}
