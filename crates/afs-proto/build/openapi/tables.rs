//! What the server checks of each field beyond its type, field by field. `rules.rs` says how they are found.
//!
//! Guarantees: every bound is one of `afs_types::limits`, so the document cannot fall behind. Lengths are of characters here and of bytes
//! there, so a text that the schema allows can be too long all the same, and never the other way round.
//!
//! Deliberately absent: what depends on state, and what is too much for an expression: globs, names of branches, addresses of
//! repositories, escapes in paths. The comments in proto/ say it in words.

use super::patterns as p;
use super::rules::{Rule, Rules};
use afs_types::{CheckpointId, CommitId, SessionId, SourceId, VersionId, limits};
use serde_json::{Value, json};

/// Nothing.
fn any() -> Rule {
    Rule::default()
}

fn like(one: Value) -> Rule {
    Rule { one, ..any() }
}

fn pattern(pattern: impl Into<String>) -> Rule {
    like(json!({"pattern": pattern.into()}))
}

fn text(least: usize, most: usize) -> Rule {
    let mut one = json!({"maxLength": most});
    if least > 0 {
        one["minLength"] = least.into();
    }
    like(one)
}

fn most(most: u64) -> Rule {
    Rule { most: Some(most), ..any() }
}

fn id(prefix: &str) -> Rule {
    pattern(p::id(prefix, limits::MAX_ID_BYTES))
}

fn id_or_empty(prefix: &str) -> Rule {
    pattern(p::id_or_empty(prefix, limits::MAX_ID_BYTES))
}

/// Bytes that are not UTF-8, and `%`, take three characters.
const ESCAPED: usize = 3;

fn path() -> Rule {
    like(json!({"maxLength": ESCAPED * limits::MAX_PATH_BYTES, "pattern": p::path()}))
}

/// The empty path, which is the root, makes no sense here.
fn path_to_change() -> Rule {
    let mut rule = path().required();
    rule.one["minLength"] = 1.into();
    rule
}

fn labels() -> Rule {
    let key = json!({"minLength": 1, "maxLength": limits::MAX_LABEL_BYTES});
    text(0, limits::MAX_LABEL_BYTES).each(json!({"maxProperties": limits::MAX_LABELS, "propertyNames": key}))
}

fn short() -> Rule {
    text(0, limits::MAX_MESSAGE_BYTES)
}

/// `live`, `base`, or what has a tree.
pub(crate) fn instant() -> Rule {
    let prefixes = [CheckpointId::PREFIX, CommitId::PREFIX, SessionId::PREFIX];
    pattern(p::word_or_id(&["live", "base"], &prefixes, limits::MAX_ID_BYTES))
}

/// Permission bits; 0 is the default.
fn mode() -> Rule {
    most(0o7777)
}

/// Of requests.
pub(crate) fn requests() -> Rules {
    let mut rules = vec![
        // By name.
        ("*.session_id", id(SessionId::PREFIX)),
        ("*.source_id", id(SourceId::PREFIX)),
        ("*.commit_id", id(CommitId::PREFIX)),
        ("*.checkpoint_id", instant()),
        ("*.request_id", like(json!({"maxLength": limits::MAX_REQUEST_ID_BYTES, "pattern": p::GRAPHIC}))),
        ("*.page_size", most(limits::MAX_PAGE as u64)),
        ("*.page_token", pattern(p::TOKEN_OR_EMPTY)),
        ("*.display_name", short()),
        ("*.message", short()),
        ("*.labels", labels()),
        ("*.ttl", pattern(p::some_duration())),
        ("*.if_revision", any()),
        ("*.durability", any()),
        ("*.mode", mode()),
        ("*.path", path_to_change()),
        ("*.source", path_to_change()),
        ("*.destination", path_to_change()),
    ];
    rules.extend(of_sessions());
    rules.extend(of_files());
    Rules::of(rules)
}

fn of_sessions() -> Vec<(&'static str, Rule)> {
    let forks = limits::MAX_FORKS as usize;
    vec![
        ("CreateSourceRequest.source_id", id_or_empty(SourceId::PREFIX)),
        ("CreateSourceRequest.spec", any().required()),
        (
            "GitSpec.url",
            like(json!({"minLength": 1, "maxLength": limits::MAX_PATH_BYTES, "pattern": p::GIT_URL}))
                .required(),
        ),
        ("GitSpec.ref", like(json!({"maxLength": limits::MAX_PATH_BYTES, "pattern": p::NO_NUL}))),
        (
            "LocalSpec.path",
            like(json!({"maxLength": limits::MAX_PATH_BYTES, "pattern": "^/[^\\x00]*$"})).required(),
        ),
        ("GetSourceRequest.wait_seconds", most(limits::MAX_WAIT_S)),
        ("GetSourceRequest.import_number", any()),
        (
            "RefreshSourceRequest.ref",
            like(json!({"maxLength": limits::MAX_PATH_BYTES, "pattern": p::NO_NUL})),
        ),
        ("CreateSessionRequest.session_id", id_or_empty(SessionId::PREFIX)),
        ("CreateSessionRequest.source_id", id_or_empty(SourceId::PREFIX)),
        ("CreateSessionRequest.source_version_id", id_or_empty(VersionId::PREFIX)),
        ("ListSessionsRequest.filter", pattern("^( *label\\.[^=]+=.*)?$")),
        ("ListSessionsRequest.states", Rule { is_named: true, ..any() }),
        ("ListSessionsRequest.source_id", id_or_empty(SourceId::PREFIX)),
        ("ListSessionsRequest.parent_session_id", id_or_empty(SessionId::PREFIX)),
        ("UpdateSessionRequest.session", any()),
        (
            "UpdateSessionRequest.update_mask",
            pattern(p::mask(&["display_name", "labels", "expire_time"])).required(),
        ),
        // What cannot be changed is not looked at: an answer may come back as a whole.
        ("Session.session_id", id_or_empty(SessionId::PREFIX)),
        ("Session.display_name", short()),
        ("Session.labels", labels()),
        ("Session.*", any()),
        ("SessionUsage.*", any()),
        ("ForkSessionRequest.checkpoint_id", id_or_empty(CheckpointId::PREFIX)),
        ("ForkSessionRequest.commit_id", id_or_empty(CommitId::PREFIX)),
        ("ForkSessionRequest.count", most(limits::MAX_FORKS.into())),
        (
            "ForkSessionRequest.new_session_ids",
            id(SessionId::PREFIX).each(json!({"maxItems": forks, "uniqueItems": true})),
        ),
        ("DeleteSessionRequest.etag", any()),
        ("WaitDurableRequest.revision", any()),
        ("CreateCheckpointRequest.name", short()),
        ("GetCheckpointRequest.checkpoint_id", id(CheckpointId::PREFIX)),
        ("DeleteCheckpointRequest.checkpoint_id", id(CheckpointId::PREFIX)),
        ("RestoreCheckpointRequest.checkpoint_id", id(CheckpointId::PREFIX).required()),
        ("DiffRequest.base", instant()),
        ("DiffRequest.target", instant()),
        ("DiffRequest.paths", path()),
        ("DiffRequest.context_lines", most(limits::MAX_DIFF_CONTEXT.into())),
        ("GitTarget.*", any()),
        (
            "CreateCommitRequest.message",
            like(json!({"maxLength": limits::MAX_MESSAGE_BYTES, "pattern": p::SAYS_SOMETHING})).required(),
        ),
        ("ListCommitsRequest.session_id", id_or_empty(SessionId::PREFIX)),
        ("PromoteRequest.branch", any()),
        ("PromoteRequest.if_branch_oid", pattern(p::OID_OR_EMPTY)),
    ]
}

fn of_files() -> Vec<(&'static str, Rule)> {
    let base64 = |bytes: usize| text(0, bytes.div_ceil(3) * 4);
    let xattr = json!({"minLength": 1, "maxLength": limits::MAX_XATTR_NAME_BYTES, "pattern": p::NO_NUL});
    let mut target = text(1, ESCAPED * limits::MAX_SYMLINK_BYTES).required();
    target.one["pattern"] = p::NO_NUL.into();
    vec![
        ("Precondition.*", any()),
        ("StatRequest.path", path()),
        ("ListDirectoryRequest.path", path()),
        ("ListDirectoryRequest.depth", any()),
        ("GetManifestRequest.path_prefix", path()),
        ("ReadLinesRequest.start_line", any()),
        ("ReadLinesRequest.limit", any()),
        ("ReadLinesRequest.max_bytes", most(limits::MAX_MESSAGE_SIZE_BYTES as u64 / 2)),
        ("BatchReadFilesRequest.paths", path().each(json!({"maxItems": limits::MAX_READ_BATCH}))),
        ("BatchReadFilesRequest.max_bytes_per_file", any()),
        ("EditFileRequest.edits", any().each(json!({"minItems": 1})).required()),
        ("EditFileRequest.precondition", any()),
        ("Replacement.old_text", like(json!({"minLength": 1})).required()),
        ("Replacement.new_text", any()),
        ("ApplyPatchRequest.patch", text(1, limits::MAX_PATCH_BYTES).required()),
        ("ApplyPatchRequest.format", any()),
        ("ApplyPatchRequest.strip", most(limits::MAX_PATCH_STRIP.into())),
        ("SubmitChangesRequest.changes", any().each(json!({"maxItems": limits::MAX_CHANGES}))),
        ("Change.*", any()),
        ("WriteOp.content", any()),
        ("EditOp.edits", any().each(json!({"minItems": 1})).required()),
        ("SymlinkOp.target", target.clone()),
        ("CreateSymlinkRequest.target", target),
        ("MovePathRequest.precondition", any()),
        // Of another session the root, too, can be copied.
        ("CopyPathRequest.source", path()),
        ("CopyPathRequest.source_session_id", id_or_empty(SessionId::PREFIX)),
        ("RemovePathRequest.precondition", any()),
        ("SetAttributesRequest.uid", any()),
        ("SetAttributesRequest.gid", any()),
        ("SetAttributesRequest.size", most(limits::MAX_FILE_BYTES)),
        ("SetAttributesRequest.modify_time", any()),
        (
            "SetAttributesRequest.set_xattrs",
            base64(limits::MAX_XATTR_VALUE_BYTES).each(json!({"propertyNames": xattr})),
        ),
        ("SetAttributesRequest.remove_xattrs", like(xattr)),
        ("SetAttributesRequest.precondition", any()),
        (
            "GlobRequest.pattern",
            like(json!({"maxLength": limits::MAX_PATH_BYTES, "pattern": p::GLOB})).required(),
        ),
        ("GlobRequest.path", path()),
        ("GrepRequest.pattern", text(1, limits::MAX_GREP_PATTERN_BYTES).required()),
        ("GrepRequest.path", path()),
        ("GrepRequest.globs", any().each(json!({"maxItems": limits::MAX_GREP_GLOBS}))),
        ("GrepRequest.before", most(limits::MAX_GREP_CONTEXT.into())),
        ("GrepRequest.after", most(limits::MAX_GREP_CONTEXT.into())),
        ("GrepRequest.max_count", any()),
    ]
}

/// Of answers.
pub(crate) fn answers() -> Rules {
    let there = || any().required();
    let absolute = || pattern("^/");
    Rules::of(vec![
        ("*.session_id", id(SessionId::PREFIX)),
        ("*.source_id", id_or_empty(SourceId::PREFIX)),
        ("*.version_id", id(VersionId::PREFIX)),
        ("*.source_version_id", id_or_empty(VersionId::PREFIX)),
        ("*.checkpoint_id", id(CheckpointId::PREFIX)),
        ("*.commit_id", id(CommitId::PREFIX)),
        ("*.next_page_token", pattern(p::TOKEN_OR_EMPTY)),
        ("*.git_oid", pattern(p::OID_OR_EMPTY)),
        ("*.create_time", there()),
        ("*.update_time", there()),
        ("Source.source_id", id(SourceId::PREFIX)),
        ("Source.head_version_id", id_or_empty(VersionId::PREFIX)),
        ("Source.spec", there()),
        ("Session.parent_session_id", id_or_empty(SessionId::PREFIX)),
        ("Session.parent_checkpoint_id", id_or_empty(CheckpointId::PREFIX)),
        ("Session.usage", there()),
        ("RestoreCheckpointResponse.safety_checkpoint_id", id(CheckpointId::PREFIX)),
        ("Commit.git_tree_oid", pattern(p::OID_OR_EMPTY)),
        ("Commit.parent_commit_ids", id(CommitId::PREFIX)),
        ("PromoteResponse.previous_git_oid", pattern(p::OID_OR_EMPTY)),
        ("Entry.path", absolute()),
        ("FileChange.path", absolute()),
        ("GrepMatch.path", absolute()),
        ("GrepMatch.context_before", any().each(json!({"maxItems": limits::MAX_GREP_CONTEXT}))),
        ("GrepMatch.context_after", any().each(json!({"maxItems": limits::MAX_GREP_CONTEXT}))),
        ("ReadLinesResponse.encoding", like(json!({"enum": ["us-ascii", "utf-8"]}))),
        ("ServerInfo.start_time", there()),
        ("Check.status", like(json!({"enum": ["ok", "warning", "failed"]}))),
    ])
}
