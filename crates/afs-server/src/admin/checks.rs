//! Readiness: every part is used once, and each answer is timed.

use crate::app::App;
use crate::disk::space;
use afs_fuse::Mounted;
use afs_types::{Error, Result};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Below this the disk counts as nearly full.
const LOW_DISK_BYTES: u64 = 256 << 20;

/// The outcome of one check.
pub(crate) struct Check {
    /// What was checked.
    pub(crate) name: &'static str,
    /// `ok`, `warning` or `failed`.
    pub(crate) status: &'static str,
    /// What was found.
    pub(crate) message: String,
    /// What to do about it; empty when ok.
    pub(crate) next_step: String,
    /// How long it took.
    pub(crate) latency_ms: f64,
}

/// What brings back a mount of all sessions that was taken away.
pub(crate) const MOUNT_AGAIN: &str = "restart the server, which mounts when it starts; until then use the API, or `aether mount` for one session";

/// What a check found.
enum Found {
    Good(String),
    /// And what to do about it.
    Doubtful(String, &'static str),
}

/// Runs all checks; blocks.
pub(crate) fn run(app: &Arc<App>) -> Vec<Check> {
    let mut checks = vec![
        check("journal", || {
            app.journal.sync()?;
            let at = app.journal.durable();
            Ok(Found::Good(format!("everything up to batch {} of start {} is on disk", at.idx, at.epoch)))
        }),
        check("store", || {
            let free = space(app.data_dir())?.free_bytes;
            Ok(match free < LOW_DISK_BYTES {
                true => {
                    let message = format!("only {} MiB are free", free >> 20);
                    Found::Doubtful(message, "free disk space on the server")
                }
                false => Found::Good(format!("{} MiB are free", free >> 20)),
            })
        }),
        check("engine", || {
            app.engine.list_sessions(&afs_session::ListSessions { page_size: 1, ..Default::default() })?;
            Ok(Found::Good(format!("{} sessions are in RAM", app.engine.resident_count())))
        }),
        check("bridge", || Ok(Found::Good(format!("{} mounts are attached", app.bridge.len())))),
    ];
    // Only a server that was asked for one has it.
    if let Some(mounted) = app.mounted.get() {
        checks.push(check("mount", || mount(mounted)));
    }
    checks
}

/// Not looked into: that would need a thread of the mount, which may be busy.
fn mount(mounted: &Weak<Mounted>) -> Result<Found> {
    let Some(mounted) = mounted.upgrade() else {
        return Ok(Found::Good("the server is stopping".into()));
    };
    let dir = mounted.dir().display();
    Ok(match mounted.is_in_place()? {
        true => Found::Good(format!("all sessions are at {dir}")),
        false => Found::Doubtful(format!("the mount of all sessions at {dir} was taken away"), MOUNT_AGAIN),
    })
}

fn check(name: &'static str, work: impl FnOnce() -> Result<Found>) -> Check {
    let start = Instant::now();
    let outcome = work();
    let latency_ms = start.elapsed().as_secs_f64() * 1000.0;
    let found =
        |status, message: String, next_step: String| Check { name, status, message, next_step, latency_ms };
    match outcome {
        Ok(Found::Good(message)) => found("ok", message, String::new()),
        Ok(Found::Doubtful(message, next)) => found("warning", message, next.to_owned()),
        Err(error) => failed(&found, &error),
    }
}

fn failed(found: &dyn Fn(&'static str, String, String) -> Check, error: &Error) -> Check {
    tracing::error!(?error, "a readiness check failed");
    found("failed", error.message().to_owned(), error.next_step().to_owned())
}
