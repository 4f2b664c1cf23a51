//! Readiness: every part is used once, and each answer is timed.

use crate::app::App;
use crate::disk::space;
use afs_types::{Error, Result};
use std::sync::Arc;
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

/// Runs all checks; blocks.
pub(crate) fn run(app: &Arc<App>) -> Vec<Check> {
    vec![
        check("journal", || {
            app.journal.sync()?;
            let at = app.journal.durable();
            Ok(format!("everything up to batch {} of start {} is on disk", at.idx, at.epoch))
        }),
        check("store", || {
            let disk = space(app.data_dir())?;
            if disk.free_bytes < LOW_DISK_BYTES {
                return Ok(format!("!only {} MiB are free", disk.free_bytes >> 20));
            }
            Ok(format!("{} MiB are free", disk.free_bytes >> 20))
        }),
        check("engine", || {
            app.engine.list_sessions(&afs_session::ListSessions { page_size: 1, ..Default::default() })?;
            Ok(format!("{} sessions are in RAM", app.engine.resident_count()))
        }),
        check("bridge", || Ok(format!("{} mounts are attached", app.bridge.len()))),
    ]
}

/// A message that starts with `!` is a warning.
fn check(name: &'static str, work: impl FnOnce() -> Result<String>) -> Check {
    let start = Instant::now();
    let outcome = work();
    let latency_ms = start.elapsed().as_secs_f64() * 1000.0;
    let found =
        |status, message: String, next_step: String| Check { name, status, message, next_step, latency_ms };
    match outcome {
        Ok(message) => match message.strip_prefix('!') {
            Some(warning) => found("warning", warning.into(), "free disk space on the server".into()),
            None => found("ok", message, String::new()),
        },
        Err(error) => failed(&found, &error),
    }
}

fn failed(found: &dyn Fn(&'static str, String, String) -> Check, error: &Error) -> Check {
    tracing::error!(?error, "a readiness check failed");
    found("failed", error.message().to_owned(), error.next_step().to_owned())
}
