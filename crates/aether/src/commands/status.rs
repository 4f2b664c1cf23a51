//! `aether status`: arguments in, calls to the server, answers out. It decides nothing that the server does not.

use crate::cli::Ended;
use crate::context::Context;
use crate::failure::exit_code;
use crate::mount::{Live, Record, ask, records};
use crate::output::{painted_fields, shown, table};
use afs_client::api;
use afs_fuse::Health;
use afs_types::Result;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Show the server and the mounts of this machine
#[derive(Args)]
pub(crate) struct Status {}

struct Mounted {
    dir: PathBuf,
    name: String,
    health: &'static str,
    record: Option<Record>,
    live: Option<Live>,
}

impl Status {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Ended> {
        let server = match cx.client() {
            Ok(client) => client.get_server_info(api::GetServerInfoRequest {}).await,
            Err(error) => Err(error),
        };
        // A mount that does not answer takes two seconds to be recognised.
        let mounts = tokio::task::spawn_blocking(mounts).await.unwrap_or_else(|_| Ok(Vec::new()))?;
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

fn mounts() -> Result<Vec<Mounted>> {
    let mut known = records().unwrap_or_default();
    let mounts = afs_fuse::mounts()?.into_iter().map(|mount| {
        let record = known.iter().position(|r| r.dir == mount.dir).map(|i| known.swap_remove(i));
        let live = record.as_ref().and_then(ask);
        let health = match afs_fuse::health(&mount.dir) {
            Health::Dead => "dead",
            Health::Unresponsive => "no answer",
            Health::Alive if live.as_ref().is_some_and(|l| !l.connected) => "disconnected",
            Health::Alive => "ok",
        };
        Mounted { dir: mount.dir, name: mount.name, health, record, live }
    });
    Ok(mounts.collect())
}

fn to_json(m: &Mounted) -> serde_json::Value {
    json!({ "dir": m.dir, "name": m.name, "state": m.health, "process": m.record, "live": m.live })
}

fn listing(mounts: &[Mounted]) -> String {
    let rows = mounts.iter().map(|m| {
        let count = |name: &str| m.live.as_ref().and_then(|l| l.counters.get(name)).copied().unwrap_or(0);
        let pid = m.record.as_ref().map(|r| r.pid.to_string()).unwrap_or_default();
        let revision = m.live.as_ref().map(|l| l.revision.to_string()).unwrap_or_default();
        let trouble = m.live.as_ref().map(|l| l.trouble.clone()).unwrap_or_default();
        [
            m.dir.display().to_string(),
            m.name.trim_start_matches("aether:").to_owned(),
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
