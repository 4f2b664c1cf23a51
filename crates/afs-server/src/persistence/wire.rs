//! Checkpoints and commits as messages.

use afs_proto::{timestamp, v1};
use afs_session::{CheckpointInfo, CommitInfo};

/// A checkpoint as callers see it.
pub(crate) fn checkpoint(info: CheckpointInfo) -> v1::Checkpoint {
    let record = info.record;
    v1::Checkpoint {
        checkpoint_id: info.id.to_string(),
        session_id: record.session.to_string(),
        name: record.name,
        message: record.message,
        revision: record.seq,
        automatic: record.automatic,
        create_time: Some(timestamp(record.created_ns)),
    }
}

/// A commit as callers see it.
pub(crate) fn commit(info: CommitInfo) -> v1::Commit {
    let record = info.record;
    v1::Commit {
        commit_id: info.id.to_string(),
        session_id: record.session.to_string(),
        message: record.message,
        revision: record.seq,
        git_oid: record.oid,
        pushed_ref: record.pushed.unwrap_or_default(),
        parent_commit_ids: record.parent.iter().map(ToString::to_string).collect(),
        files_changed: record.files_changed,
        create_time: Some(timestamp(record.created_ns)),
        source_id: record.source.to_string(),
        git_tree_oid: record.tree_oid,
        source_version_id: record.version.to_string(),
    }
}
