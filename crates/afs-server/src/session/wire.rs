//! Records of sessions as messages.

use afs_proto::{timestamp, v1};
use afs_session::SessionInfo;

/// A session as callers see it.
pub(crate) fn session(info: SessionInfo) -> v1::Session {
    use v1::SessionState::{Active, Archived};
    let record = info.record;
    v1::Session {
        session_id: info.id.to_string(),
        display_name: record.display_name,
        state: if record.archived { Archived } else { Active }.into(),
        source_id: record.source.to_string(),
        source_version_id: record.version.to_string(),
        parent_session_id: record.parent.map(|p| p.to_string()).unwrap_or_default(),
        parent_checkpoint_id: record.parent_checkpoint.map(|p| p.to_string()).unwrap_or_default(),
        revision: info.revision,
        usage: Some(v1::SessionUsage { mounts: info.watchers as u32, resident: info.resident }),
        labels: record.labels,
        etag: record.generation.to_string(),
        create_time: Some(timestamp(record.created_ns)),
        update_time: Some(timestamp(record.updated_ns)),
        expire_time: record.expires_ns.map(timestamp),
    }
}
