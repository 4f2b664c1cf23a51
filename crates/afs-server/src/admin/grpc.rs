//! AdminService.

use super::checks;
use crate::app::App;
use crate::data_dir::FORMAT;
use crate::reply::{Reply, reply};
use afs_proto::v1::admin_service_server::AdminService;
use afs_proto::{timestamp, v1};
use afs_types::limits;
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
            limits: limits(),
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
        ("mounts_attached", app.bridge.len() as u64),
        ("pack_bytes", store.pack_bytes),
        ("raw_bytes", store.raw_bytes),
        ("log_bytes", store.log_bytes),
        ("blobs", store.blobs),
    ];
    counts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn limits() -> BTreeMap<String, u64> {
    let all = [
        ("name_bytes", limits::MAX_NAME_BYTES as u64),
        ("path_bytes", limits::MAX_PATH_BYTES as u64),
        ("path_depth", limits::MAX_PATH_DEPTH as u64),
        ("symlink_bytes", limits::MAX_SYMLINK_BYTES as u64),
        ("file_bytes", limits::MAX_FILE_BYTES),
        ("hard_links", limits::MAX_LINKS.into()),
        ("xattr_value_bytes", limits::MAX_XATTR_VALUE_BYTES as u64),
        ("id_bytes", limits::MAX_ID_BYTES as u64),
        ("request_id_bytes", limits::MAX_REQUEST_ID_BYTES as u64),
        ("labels", limits::MAX_LABELS as u64),
        ("label_bytes", limits::MAX_LABEL_BYTES as u64),
        ("text_bytes", limits::MAX_MESSAGE_BYTES as u64),
        ("forks_per_call", limits::MAX_FORKS.into()),
        ("changes_per_call", limits::MAX_CHANGES as u64),
        ("page_size", limits::MAX_PAGE as u64),
        ("symlinks_followed", limits::MAX_SYMLINKS as u64),
        ("xattr_name_bytes", limits::MAX_XATTR_NAME_BYTES as u64),
        ("xattrs_bytes", limits::MAX_XATTRS_BYTES as u64),
        ("message_elements", limits::MAX_MESSAGE_ELEMENTS as u64),
        ("message_time_ms", limits::MAX_MESSAGE_TIME_MS),
        ("intake_bytes", limits::MAX_INTAKE_BYTES as u64),
        ("page_bytes", limits::MAX_PAGE_BYTES as u64),
        ("write_piece_bytes", limits::MAX_WRITE_PIECE_BYTES as u64),
        ("stream_ahead_bytes", limits::MAX_STREAM_AHEAD_BYTES as u64),
        ("reader_pause_ms", limits::MAX_READER_PAUSE_MS),
        ("diff_bytes", limits::MAX_DIFF_BYTES as u64),
        ("message_bytes", limits::MAX_MESSAGE_SIZE_BYTES as u64),
        ("io_bytes", limits::MAX_IO_BYTES as u64),
        ("text_file_bytes", limits::MAX_TEXT_FILE_BYTES),
        ("patch_bytes", limits::MAX_PATCH_BYTES as u64),
        ("base_entries", limits::MAX_BASE_ENTRIES),
        ("grep_matches", limits::MAX_GREP_MATCHES as u64),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
