//! The limits as `GET /v1/server` tells them.
//!
//! Guarantees: all of `afs_types::limits`, each by a name that stays; `cargo xtask tidy` fails when one is missing. A name ends in its unit
//! where that is not a count.

use afs_types::limits;
use std::collections::BTreeMap;

/// In the order of `limits.rs`.
const ALL: &[(&str, u64)] = &[
    ("name_bytes", limits::MAX_NAME_BYTES as u64),
    ("path_bytes", limits::MAX_PATH_BYTES as u64),
    ("path_depth", limits::MAX_PATH_DEPTH as u64),
    ("symlinks_followed", limits::MAX_SYMLINKS as u64),
    ("symlink_bytes", limits::MAX_SYMLINK_BYTES as u64),
    ("file_bytes", limits::MAX_FILE_BYTES),
    ("hard_links", limits::MAX_LINKS as u64),
    ("xattr_name_bytes", limits::MAX_XATTR_NAME_BYTES as u64),
    ("xattr_value_bytes", limits::MAX_XATTR_VALUE_BYTES as u64),
    ("xattrs_bytes", limits::MAX_XATTRS_BYTES as u64),
    ("id_bytes", limits::MAX_ID_BYTES as u64),
    ("request_id_bytes", limits::MAX_REQUEST_ID_BYTES as u64),
    ("request_id_ttl_ns", limits::REQUEST_ID_TTL_NS.unsigned_abs()),
    ("labels", limits::MAX_LABELS as u64),
    ("label_bytes", limits::MAX_LABEL_BYTES as u64),
    ("text_bytes", limits::MAX_MESSAGE_BYTES as u64),
    ("forks_per_call", limits::MAX_FORKS as u64),
    ("changes_per_call", limits::MAX_CHANGES as u64),
    ("default_page_size", limits::DEFAULT_PAGE as u64),
    ("page_size", limits::MAX_PAGE as u64),
    ("message_bytes", limits::MAX_MESSAGE_SIZE_BYTES as u64),
    ("message_elements", limits::MAX_MESSAGE_ELEMENTS as u64),
    ("intake_bytes", limits::MAX_INTAKE_BYTES as u64),
    ("message_time_ms", limits::MAX_MESSAGE_TIME_MS),
    ("answers_of_connection_bytes", limits::MAX_ANSWERS_OF_CONNECTION_BYTES as u64),
    ("answers_bytes", limits::MAX_ANSWERS_BYTES as u64),
    ("page_bytes", limits::MAX_PAGE_BYTES as u64),
    ("stream_ahead_bytes", limits::MAX_STREAM_AHEAD_BYTES as u64),
    ("reader_pause_ms", limits::MAX_READER_PAUSE_MS),
    ("min_transfer_bytes_per_s", limits::MIN_TRANSFER_BYTES_PER_S),
    ("sender_pause_ms", limits::MAX_SENDER_PAUSE_MS),
    ("diff_context", limits::MAX_DIFF_CONTEXT as u64),
    ("diff_file_bytes", limits::MAX_DIFF_FILE_BYTES),
    ("diff_bytes", limits::MAX_DIFF_BYTES as u64),
    ("io_bytes", limits::MAX_IO_BYTES as u64),
    ("write_piece_bytes", limits::MAX_WRITE_PIECE_BYTES as u64),
    ("text_file_bytes", limits::MAX_TEXT_FILE_BYTES),
    ("patch_bytes", limits::MAX_PATCH_BYTES as u64),
    ("patch_lines", limits::MAX_PATCH_LINES as u64),
    ("patched_lines", limits::MAX_PATCHED_LINES as u64),
    ("diff_lines", limits::MAX_DIFF_LINES as u64),
    ("small_texts_bytes", limits::MAX_SMALL_TEXTS_BYTES as u64),
    ("large_texts_bytes", limits::MAX_LARGE_TEXTS_BYTES as u64),
    ("patches_bytes", limits::MAX_PATCHES_BYTES as u64),
    ("kept_texts_bytes", limits::MAX_KEPT_TEXTS_BYTES as u64),
    ("search_rules_bytes", limits::MAX_SEARCH_RULES_BYTES as u64),
    ("memory_wait_ms", limits::MAX_MEMORY_WAIT_MS),
    ("ignore_file_bytes", limits::MAX_IGNORE_FILE_BYTES as u64),
    ("ignore_file_patterns", limits::MAX_IGNORE_FILE_PATTERNS as u64),
    ("ignore_pattern_bytes", limits::MAX_IGNORE_PATTERN_BYTES as u64),
    ("commit_bytes", limits::MAX_COMMIT_BYTES),
    ("ignores_bytes", limits::MAX_IGNORES_BYTES as u64),
    ("ignores_patterns", limits::MAX_IGNORES_PATTERNS as u64),
    ("attributes_file_bytes", limits::MAX_ATTRIBUTES_FILE_BYTES as u64),
    ("attributes_file_lines", limits::MAX_ATTRIBUTES_FILE_LINES as u64),
    ("attributes_bytes", limits::MAX_ATTRIBUTES_BYTES as u64),
    ("attributes_lines", limits::MAX_ATTRIBUTES_LINES as u64),
    ("ident_bytes", limits::MAX_IDENT_BYTES as u64),
    ("pack_blob_bytes", limits::PACK_BLOB_BYTES),
    ("packed_blob_bytes", limits::MAX_PACKED_BLOB_BYTES),
    ("pack_bytes", limits::MAX_PACK_BYTES),
    ("log_segment_bytes", limits::MAX_LOG_SEGMENT_BYTES),
    ("ino", limits::MAX_INO),
    ("journal_queue_bytes", limits::MAX_JOURNAL_QUEUE_BYTES as u64),
    ("journal_value_bytes", limits::MAX_JOURNAL_VALUE_BYTES as u64),
    ("merged_delta_bytes", limits::MAX_MERGED_DELTA_BYTES as u64),
    ("journal_lag_ms", limits::MAX_JOURNAL_LAG_MS),
    ("layer_records", limits::MAX_LAYER_RECORDS),
    ("seq_step_per_start", limits::SEQ_STEP_PER_START),
    ("operations_per_call", limits::MAX_OPERATIONS as u64),
    ("overlay_bytes", limits::MAX_OVERLAY_BYTES),
    ("imports", limits::MAX_IMPORTS as u64),
    ("fold_queue", limits::MAX_FOLD_QUEUE as u64),
    ("mount_lease_ms", limits::MOUNT_LEASE_MS),
    ("reaps", limits::MAX_REAPS as u64),
    ("watch_queue", limits::MAX_WATCH_QUEUE as u64),
    ("watch_bytes", limits::MAX_WATCH_BYTES as u64),
    ("kept_answers_bytes", limits::MAX_KEPT_ANSWERS_BYTES as u64),
    ("base_entries", limits::MAX_BASE_ENTRIES),
    ("grep_pattern_bytes", limits::MAX_GREP_PATTERN_BYTES as u64),
    ("grep_regex_bytes", limits::MAX_GREP_REGEX_BYTES as u64),
    ("grep_cache_bytes", limits::MAX_GREP_CACHE_BYTES as u64),
    ("grep_globs", limits::MAX_GREP_GLOBS as u64),
    ("grep_context", limits::MAX_GREP_CONTEXT as u64),
    ("files_per_batch_read", limits::MAX_READ_BATCH as u64),
    ("dry_run_bytes", limits::MAX_DRY_RUN_BYTES as u64),
    ("wait_s", limits::MAX_WAIT_S),
    ("mounts", limits::MAX_MOUNTS as u64),
    ("mount_ops", limits::MAX_MOUNT_OPS as u64),
    ("kept_answers", limits::MAX_KEPT_ANSWERS as u64),
    ("waiting_calls", limits::MAX_WAITING_CALLS as u64),
    ("waiting_long_calls", limits::MAX_WAITING_LONG_CALLS as u64),
    ("waiting_of_key", limits::MAX_WAITING_OF_KEY as u64),
    ("comparisons", limits::MAX_COMPARISONS as u64),
    ("pushes", limits::MAX_PUSHES as u64),
    ("pushes_of_repository", limits::MAX_PUSHES_OF_REPOSITORY as u64),
    ("push_s", limits::MAX_PUSH_S),
    ("fetch_silence_s", limits::MAX_FETCH_SILENCE_S),
    ("default_connections", limits::DEFAULT_CONNECTIONS as u64),
    ("grep_matches", limits::MAX_GREP_MATCHES as u64),
    ("touched_paths", limits::MAX_TOUCHED_PATHS as u64),
    ("instants", limits::MAX_INSTANTS as u64),
    ("session_instants", limits::MAX_SESSION_INSTANTS as u64),
    ("instant_bytes", limits::MAX_INSTANT_BYTES as u64),
];

/// All limits by name.
pub(super) fn all() -> BTreeMap<String, u64> {
    ALL.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once() {
        assert_eq!(all().len(), ALL.len());
    }
}
