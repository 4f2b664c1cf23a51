//! `aether unmount`: takes mounts away and says what their ends said. It decides nothing that the server does not.
//!
//! Guarantees: success means that the process behind each mount has said that everything written is on the server's disk. Whatever
//! else becomes of it is a failure with a reason: lost changes, a server that is gone, a process that was killed or never told us. The mount in
//! which a server shows all sessions is that server's, and is left to it.

use crate::cli::Ended;
use crate::commands::several::Several;
use crate::context::Context;
use crate::failure::error_of;
use crate::mount::{End, Record, end_of, record_at, records, wait_gone};
use afs_fuse::{Health, MountEntry};
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
        let mut several = Several::new(cx, "dir");
        for dir in dirs {
            let ended = match take_away(&dir, self.force).await {
                Ok(served) => {
                    several.done(dir.display().to_string());
                    end(served).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                several.failed(dir.display().to_string(), error);
            }
        }
        several.end("unmounted")
    }
}

/// Unmounts; returns who served it, as far as is known.
async fn take_away(dir: &Path, force: bool) -> Result<Option<Record>> {
    let place = afs_fuse::resolve(dir)?;
    let served = record_at(&place)?;
    let task = tokio::task::spawn_blocking(move || {
        leave_to_server(&place, force)?;
        afs_fuse::unmount_path(&place, force)
    });
    match task.await.map_err(|e| Error::new(Reason::Internal, format!("unmount: {e}")))? {
        // Another unmount, or a signal, was first: its process is ending.
        Err(e) if e.reason == Reason::MountNotFound && served.as_ref().is_some_and(Record::is_alive) => {
            Ok(served)
        }
        unmounted => unmounted.map(|()| served),
    }
}

/// Refuses the mount of a server that runs: it would go on without it, and mount it no more. One that hangs, or was stopped, holds all who
/// look into its mount, and is taken away by force as others are.
fn leave_to_server(place: &Path, force: bool) -> Result<()> {
    let mounts = afs_fuse::mounts()?;
    let Some(pid) = mounts.iter().rfind(|m| m.dir == place).and_then(MountEntry::server) else {
        return Ok(());
    };
    match afs_fuse::health(place) {
        Health::Dead => Ok(()),
        Health::Unresponsive if force => Ok(()),
        Health::Alive | Health::Unresponsive => Err(Error::new(
            Reason::InUse,
            format!("{} is the mount of all sessions of a server, process {pid}", place.display()),
        )
        .next(format!("stop the server, which takes its mount away: kill {pid}"))),
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
