//! AdminService.

use super::{checks, limits};
use crate::app::App;
use crate::data_dir::FORMAT;
use crate::reply::{Reply, reply};
use afs_proto::v1::admin_service_server::AdminService;
use afs_proto::{timestamp, v1};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Request;

/// Answers about the server itself.
pub(crate) struct Admin(pub(crate) Arc<App>);

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_server_info(&self, _: Request<v1::GetServerInfoRequest>) -> Reply<v1::ServerInfo> {
        let app = self.0.clone();
        let counters = self.0.pool.run(move || Ok(counters(&app))).await;
        reply(counters, |counters| v1::ServerInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            api_version: "aether.v1".into(),
            disk_format: FORMAT.to_string(),
            features: ["git", "local", "empty", "bridge", "commit", "promote"].map(Into::into).into(),
            limits: limits::all(),
            start_time: Some(timestamp(self.0.identity.started_ns)),
            min_client_version: "0.1.0".into(),
            instance_id: self.0.identity.instance_id.clone(),
            counters,
        })
    }

    async fn check_readiness(
        &self,
        _: Request<v1::CheckReadinessRequest>,
    ) -> Reply<v1::CheckReadinessResponse> {
        let app = self.0.clone();
        let checks = self.0.pool.run(move || Ok(checks::run(&app))).await;
        reply(checks, |checks| v1::CheckReadinessResponse {
            checks: checks.into_iter().map(message).collect(),
        })
    }
}

fn message(check: checks::Check) -> v1::Check {
    v1::Check {
        name: check.name.into(),
        status: check.status.into(),
        message: check.message,
        next_step: check.next_step,
        latency_ms: check.latency_ms,
    }
}

fn counters(app: &App) -> BTreeMap<String, u64> {
    let store = app.blobs.usage();
    let counts = [
        ("sessions_resident", app.engine.resident_count() as u64),
        ("overlays_bytes", app.engine.overlay_bytes().0),
        ("overlays_bytes_limit", app.engine.overlay_bytes().1),
        ("mounts_attached", app.bridge.len() as u64),
        ("pack_bytes", store.pack_bytes),
        ("raw_bytes", store.raw_bytes),
        ("log_bytes", store.log_bytes),
        ("blobs", store.blobs),
    ];
    counts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
