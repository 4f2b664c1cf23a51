//! `aether status`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::cli::Ended;
use crate::context::Context;
use crate::failure::exit_code;
use crate::mount::{Live, Record, ask, records};
use crate::output::{painted_fields, shown, table};
use afs_client::api;
use afs_fuse::{Health, MountEntry};
use afs_types::{Error, Reason, Result};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Show the server and the mounts of this machine
#[derive(Args)]
pub(crate) struct Status {}

struct Mounted {
    dir: PathBuf,
    name: String,
    /// The process whose mount of all sessions it is, if it is one.
    server: Option<u32>,
    health: &'static str,
    record: Option<Record>,
    live: Option<Live>,
}

/// The longest wait for the server: whoever asks how things are wants to know it now, above all when they are bad.
const PATIENCE: Duration = Duration::from_secs(3);

impl Status {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Ended> {
        let server = async {
            let client = cx.client_within(cx.timeout.min(PATIENCE))?;
            client.get_server_info(api::GetServerInfoRequest {}).await
        };
        // All at once: each takes two seconds when it does not answer.
        let (server, mounts) = tokio::join!(server, mounts());
        let mounts = mounts?;
        let as_json = json!({
            "endpoint": cx.config.endpoint.value,
            "server": server.as_ref().ok(),
            "error": server.as_ref().err().map(afs_client::Problem::from),
            "mounts": mounts.iter().map(to_json).collect::<Vec<_>>(),
        });
        cx.out.result(&as_json, |style| {
            let state = match &server {
                Ok(info) => style.green(&shown(&format!("{} (API {})", info.version, info.api_version))),
                Err(error) => style.red(&shown(error.message())),
            };
            let endpoint = shown(&cx.config.endpoint.value);
            let head = painted_fields(style, [("endpoint", endpoint), ("server", state)]);
            if mounts.is_empty() { head + "no mounts\n" } else { format!("{head}\n{}", listing(&mounts)) }
        });
        match server {
            Ok(_) => Ok(()),
            Err(error) => Err(Ended::Reported(exit_code(error.reason))),
        }
    }
}

async fn mounts() -> Result<Vec<Mounted>> {
    let mut known = records().unwrap_or_default();
    let mut tasks = Vec::new();
    for mount in afs_fuse::mounts()? {
        let record = known.iter().position(|r| r.dir == mount.dir).map(|i| known.swap_remove(i));
        tasks.push(tokio::task::spawn_blocking(move || look(mount, record)));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.map_err(|e| Error::new(Reason::Internal, format!("look at a mount: {e}")))?);
    }
    Ok(all)
}

/// How a mount is. The process that serves it is asked, if it is one of ours, and not the mount itself: with the server gone, that would hold the
/// question, and this program with it, for as long as the mount has patience.
fn look(mount: MountEntry, record: Option<Record>) -> Mounted {
    let server = mount.server();
    let MountEntry { dir, name, .. } = mount;
    let live = record.as_ref().and_then(ask);
    let health = match (&record, &live) {
        (Some(_), Some(live)) if live.connected => "ok",
        (Some(_), Some(_)) => "disconnected",
        (Some(_), None) => "no answer",
        (None, _) => match afs_fuse::health(&dir) {
            Health::Dead => "dead",
            Health::Unresponsive => "no answer",
            Health::Alive => "ok",
        },
    };
    Mounted { dir, name, server, health, record, live }
}

fn to_json(m: &Mounted) -> serde_json::Value {
    json!({ "dir": m.dir, "name": m.name, "state": m.health, "process": m.record, "live": m.live })
}

fn listing(mounts: &[Mounted]) -> String {
    let rows = mounts.iter().map(|m| {
        let count = |name: &str| m.live.as_ref().and_then(|l| l.counters.get(name)).copied().unwrap_or(0);
        let pid =
            m.record.as_ref().map(|r| r.pid).or(m.server).map(|pid| pid.to_string()).unwrap_or_default();
        let revision = m.live.as_ref().map(|l| l.revision.to_string()).unwrap_or_default();
        let trouble = match (&m.live, &m.record) {
            (Some(live), _) if live.down_seconds > 0 => {
                format!("no server for {} s: {}", live.down_seconds, live.trouble)
            }
            (Some(live), _) => live.trouble.clone(),
            (None, Some(record)) => format!("process {} does not answer", record.pid),
            (None, None) => String::new(),
        };
        [
            m.dir.display().to_string(),
            match m.server {
                Some(_) => "all, of a server".to_owned(),
                None => m.name.trim_start_matches("aether:").to_owned(),
            },
            m.health.to_owned(),
            pid,
            revision,
            format!("{}/{}", count("reads"), crate::text::bytes(count("read_bytes"))),
            format!("{}/{}", count("writes"), crate::text::bytes(count("write_bytes"))),
            trouble,
        ]
    });
    table(["MOUNT", "SESSION", "STATE", "PROCESS", "REVISION", "READS", "WRITES", ""], rows)
}
