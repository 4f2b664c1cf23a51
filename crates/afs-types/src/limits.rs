//! Every limit that a caller can meet, in one place. Reaching one is a typed error that names it.
//!
//! `GET /v1/server` tells all of them by name (`afs-server/src/admin/limits.rs`); `cargo xtask tidy` fails when one is missing there, or when a refusal
//! names a constant that is not from here. Deliberately absent: sizes of buffers and batches that nobody outside of a module meets.

/// Longest file name, in bytes (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;
/// Longest path accepted by an API, in bytes (`PATH_MAX`).
pub const MAX_PATH_BYTES: usize = 4096;
/// Most components of one path.
pub const MAX_PATH_DEPTH: usize = 1024;
/// Most symbolic links followed while resolving one path (Linux uses the same bound).
pub const MAX_SYMLINKS: usize = 40;
/// Longest symbolic link target, in bytes.
pub const MAX_SYMLINK_BYTES: usize = 4095;
/// Largest file, in bytes (8 EiB - 1 would overflow signed offsets; 16 TiB is ext4's bound).
pub const MAX_FILE_BYTES: u64 = 16 << 40;
/// Most hard links of one inode.
pub const MAX_LINKS: u32 = 65_000;
/// Longest extended attribute name, in bytes.
pub const MAX_XATTR_NAME_BYTES: usize = 255;
/// Largest extended attribute value, in bytes (`XATTR_SIZE_MAX`).
pub const MAX_XATTR_VALUE_BYTES: usize = 65_536;
/// Largest sum of extended attributes of one inode, in bytes.
pub const MAX_XATTRS_BYTES: usize = 262_144;
/// Longest id, in bytes, prefix included.
pub const MAX_ID_BYTES: usize = 64;
/// Longest `request_id`, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;
/// How long an answer is kept for a repeated `request_id`, in nanoseconds (24 h).
pub const REQUEST_ID_TTL_NS: i64 = 24 * 3600 * 1_000_000_000;
/// Most labels of one session.
pub const MAX_LABELS: usize = 64;
/// Longest label key or value, in bytes.
pub const MAX_LABEL_BYTES: usize = 256;
/// Longest display name or message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 16_384;
/// Most forks made by one call.
pub const MAX_FORKS: u32 = 10_000;
/// Most operations in one atomic change set.
pub const MAX_CHANGES: usize = 10_000;
/// Default and largest page of a list.
pub const DEFAULT_PAGE: usize = 100;
/// Largest page of a list.
pub const MAX_PAGE: usize = 1_000;
/// Largest gRPC message or JSON body, in bytes. Raw file bytes are streamed and not bound by it.
pub const MAX_MESSAGE_SIZE_BYTES: usize = 16 << 20;
/// Most elements (items of lists and maps, nested messages; in JSON every value) of one request: two bytes on the wire can
/// stand for hundreds in RAM.
pub const MAX_MESSAGE_ELEMENTS: usize = 200_000;
/// Most bytes of requests that have not arrived whole, or are being answered, over all connections. Streamed file bytes count only until
/// they are taken.
pub const MAX_INTAKE_BYTES: usize = 256 << 20;
/// Longest time from the first to the last byte of one message or JSON body, in milliseconds.
pub const MAX_MESSAGE_TIME_MS: u64 = 120_000;
/// Most bytes of answers that one connection has not read: beyond it, it is refused calls.
pub const MAX_ANSWERS_OF_CONNECTION_BYTES: usize = 64 << 20;
/// The same of all connections together.
pub const MAX_ANSWERS_BYTES: usize = 512 << 20;
/// Most bytes of one page of a list; it ends early when it would have more, and goes on with its token.
pub const MAX_PAGE_BYTES: usize = 3 << 20;
/// Most bytes of a stream that are ready before its reader takes them.
pub const MAX_STREAM_AHEAD_BYTES: usize = 4 << 20;
/// How long the reader of a stream, or of answers, may take nothing before it is cut, in milliseconds.
pub const MAX_READER_PAUSE_MS: u64 = 60_000;
/// Least bytes a second of an upload's sender and of a stream's reader, over any time longer than `MAX_READER_PAUSE_MS` or
/// `MAX_SENDER_PAUSE_MS`: who is slower loses its turn to others.
pub const MIN_TRANSFER_BYTES_PER_S: u64 = 8 << 10;
/// How long the sender of an upload may send nothing before it is cut, in milliseconds; also how far it may lag behind the least rate.
pub const MAX_SENDER_PAUSE_MS: u64 = 60_000;
/// Most lines around a change in a diff.
pub const MAX_DIFF_CONTEXT: u32 = 10_000;
/// Largest file whose lines are compared in a diff, in bytes; larger ones are told as binary.
pub const MAX_DIFF_FILE_BYTES: u64 = 4 << 20;
/// Largest diff or patch that an answer holds, in bytes; larger ones are left out and said to be.
pub const MAX_DIFF_BYTES: usize = 4 << 20;
/// Largest single read or write of the mount and the Bridge, in bytes.
pub const MAX_IO_BYTES: usize = 1 << 20;
/// Largest piece of a WriteFile stream, in bytes: a few of each upload are in memory.
pub const MAX_WRITE_PIECE_BYTES: usize = 4 << 20;
/// Largest file that `edit`, `patch` and `lines` load into memory, in bytes.
pub const MAX_TEXT_FILE_BYTES: u64 = 64 << 20;
/// Largest patch, in bytes.
pub const MAX_PATCH_BYTES: usize = 8 << 20;
/// Most lines of a patch: each takes memory beside its bytes.
pub const MAX_PATCH_LINES: usize = 400_000;
/// How long a change of the API waits for the caches of mounts to hear of it, in milliseconds. One that takes longer is not waited for again until it has caught up.
pub const MAX_TELL_MS: u64 = 100;
/// Bytes of packed references that one commit reads in all, to find what is checked out in the repositories of a session.
pub const MAX_PACKED_REFS_BYTES: u64 = 256 << 20;
/// Bytes of an answer that is kept for retries: the entries of a set of changes.
pub const MAX_KEPT_ENTRIES_BYTES: usize = 8 << 20;
/// Most leading components of paths that a patch is read without.
pub const MAX_PATCH_STRIP: u32 = 1_024;
/// Most lines of a file that a patch changes.
pub const MAX_PATCHED_LINES: usize = 8 << 20;
/// Most lines, of both texts and between the first and last that differ, that are compared to show a diff.
pub const MAX_DIFF_LINES: usize = 200_000;
/// Most bytes that all calls hold together which have contents of files in memory and need at most 16 MiB each.
pub const MAX_SMALL_TEXTS_BYTES: usize = 64 << 20;
/// The same for those that need more.
pub const MAX_LARGE_TEXTS_BYTES: usize = 256 << 20;
/// Most bytes that all patches under way take besides their text, together.
pub const MAX_PATCHES_BYTES: usize = 64 << 20;
/// Most bytes that all dry runs of edits, patches and change sets together keep: what they would have written.
pub const MAX_KEPT_TEXTS_BYTES: usize = 72 << 20;
/// Most bytes that rules to ignore files take in all searches together; those who hand out matches hold none.
pub const MAX_SEARCH_RULES_BYTES: usize = 64 << 20;
/// How long a call waits for such memory, in milliseconds: all its waits together.
pub const MAX_MEMORY_WAIT_MS: u64 = 10_000;
/// Largest `.gitignore`, in bytes. Beyond it, nothing that asks for its rules goes on.
pub const MAX_IGNORE_FILE_BYTES: usize = 1 << 20;
/// Most patterns of one `.gitignore`.
pub const MAX_IGNORE_FILE_PATTERNS: usize = 10_000;
/// Longest pattern of a `.gitignore`, in bytes: a few times what the longest path takes.
pub const MAX_IGNORE_PATTERN_BYTES: usize = 4 * MAX_PATH_BYTES;
/// Most bytes of files that one commit writes, holes included: each is read, hashed and compressed while the call waits.
pub const MAX_COMMIT_BYTES: u64 = 64 << 30;
/// Most bytes of all `.gitignore`s with patterns that one commit or search reads.
pub const MAX_IGNORES_BYTES: usize = 2 << 20;
/// Most patterns of all of them.
pub const MAX_IGNORES_PATTERNS: usize = 40_000;
/// Largest `.gitattributes`, in bytes. Beyond it, no commit that asks for its lines is made.
pub const MAX_ATTRIBUTES_FILE_BYTES: usize = 1 << 20;
/// Most lines with a pattern or a macro of one `.gitattributes`.
pub const MAX_ATTRIBUTES_FILE_LINES: usize = 10_000;
/// Most bytes of all `.gitattributes` with such lines that one commit reads.
pub const MAX_ATTRIBUTES_BYTES: usize = 2 << 20;
/// Most such lines of all of them.
pub const MAX_ATTRIBUTES_LINES: usize = 40_000;
/// Longest text from `$Id:` to the dollar sign or the end of the line, in bytes, of a file that a commit converts with `ident`.
pub const MAX_IDENT_BYTES: usize = 1 << 20;
/// Largest `.git/index` of a session that a commit reads, in bytes. Beyond it, a commit goes by the rules alone, and the server's log says so.
pub const MAX_GIT_INDEX_BYTES: u64 = 256 << 20;
/// Blobs below this size live compressed in packs, others as one raw file each, in bytes (DESIGN 2.6).
pub const PACK_BLOB_BYTES: u64 = 256 << 10;
/// Largest blob that a pack may hold, in bytes: one of `PACK_BLOB_BYTES` or more that came compressed stays so until it is first read.
pub const MAX_PACKED_BLOB_BYTES: u64 = 64 << 20;
/// A pack is closed when it reaches this size, in bytes.
pub const MAX_PACK_BYTES: u64 = 256 << 20;
/// A data-log segment is closed when it reaches this size, in bytes.
pub const MAX_LOG_SEGMENT_BYTES: u64 = 256 << 20;
/// Highest inode number: a mount of all sessions puts the session in the high 32 bits.
pub const MAX_INO: u64 = u32::MAX as u64;
/// Most records waiting for the journal before writers are made to wait.
pub const MAX_JOURNAL_QUEUE_BYTES: usize = 64 << 20;
/// Most bytes of one value in the journal.
pub const MAX_JOURNAL_VALUE_BYTES: usize = 256 << 20;
/// Longest delta that folding makes by merging deltas of lower layers into it.
pub const MAX_MERGED_DELTA_BYTES: usize = 32 << 20;
/// Longest lag of the journal behind acknowledged-but-not-durable operations, in milliseconds.
pub const MAX_JOURNAL_LAG_MS: u64 = 100;
/// Most records of a session's open layer before a new one is begun; bounds what loading it costs.
pub const MAX_LAYER_RECORDS: u64 = 65_536;
/// How far a session's sequence numbers go on in each start of the server: more than a crash can have taken back, which is what the journal's
/// queue holds.
pub const SEQ_STEP_PER_START: u64 = 1 << 24;
/// Most inodes and names that one call changes: its operations are one batch, in memory and in the journal.
pub const MAX_OPERATIONS: usize = 200_000;
// Each record takes more than 16 bytes of the queue.
const _: () = assert!(((MAX_JOURNAL_QUEUE_BYTES / 16 + MAX_OPERATIONS) as u64) < SEQ_STEP_PER_START);
/// Most bytes of RAM for what one session changed: inodes, names, extents, extended attributes; some ten million files. Deletions of
/// files of the base may take half as much again.
pub const MAX_OVERLAY_BYTES: u64 = 2 << 30;
/// Most imports at once; each has threads and buffers of its own.
pub const MAX_IMPORTS: usize = 32;
/// Most closed layers waiting to be folded; beyond it they stay as records until they are loaded again.
pub const MAX_FOLD_QUEUE: usize = 1_024;
/// How long a mount that says nothing is kept by the server, and what it has open with it; so long, too, a mount from before a restart
/// has to come back for files that it has open and that have no name. In milliseconds.
pub const MOUNT_LEASE_MS: u64 = 60_000;
/// Most inodes without a name that are reaped together with one change; the rest goes with the next.
pub const MAX_REAPS: usize = 1_024;
/// Most events waiting for one watcher (mount, sync stream) before it is told to drop its caches.
pub const MAX_WATCH_QUEUE: usize = 8_192;
/// Most bytes of events that wait for all remote mounts together, beside a few of each; the mount whose event finds no room is told to
/// drop its caches.
pub const MAX_WATCH_BYTES: usize = 32 << 20;
/// Most bytes of answers that are kept for all remote mounts together until they are acknowledged, beside a few of each.
pub const MAX_KEPT_ANSWERS_BYTES: usize = 32 << 20;
/// Most entries of one imported base.
pub const MAX_BASE_ENTRIES: u64 = 64 << 20;
/// Longest pattern of one grep call, in bytes.
pub const MAX_GREP_PATTERN_BYTES: usize = 64 << 10;
/// Memory of a compiled expression of grep, in bytes.
pub const MAX_GREP_REGEX_BYTES: usize = 4 << 20;
/// Memory that matching with it may cache in each thread, in bytes; with less it is slower.
pub const MAX_GREP_CACHE_BYTES: usize = 1 << 20;
/// Most globs of one grep call.
pub const MAX_GREP_GLOBS: usize = 1_000;
/// Most lines before and after each match of grep.
pub const MAX_GREP_CONTEXT: u32 = 100;
/// Most files of one batch of reads.
pub const MAX_READ_BATCH: usize = 1_000;
/// Most bytes that a dry run of an edit, a patch or a change set may make.
pub const MAX_DRY_RUN_BYTES: usize = 64 << 20;
/// Longest time that one call waits for an import, in seconds.
pub const MAX_WAIT_S: u64 = 60;
/// Most mounts that are attached at once.
pub const MAX_MOUNTS: usize = 2_048;
/// Most operations of a mount in one call.
pub const MAX_MOUNT_OPS: usize = 1_024;
/// Most answers kept for one mount until it acknowledges them.
pub const MAX_KEPT_ANSWERS: usize = 4_096;
/// Most short calls that wait for their turn.
pub const MAX_WAITING_CALLS: usize = 8_192;
/// Most calls of one long kind (streams, uploads, pushes, comparisons) that wait for their turn.
pub const MAX_WAITING_LONG_CALLS: usize = 256;
/// Most calls that wait for one session or one `request_id`, those that run included.
pub const MAX_WAITING_OF_KEY: usize = 64;
/// Most comparisons of whole trees at once.
pub const MAX_COMPARISONS: usize = 4;
/// Most pushes to sources at once: each waits for another machine.
pub const MAX_PUSHES: usize = 8;
/// Most of them to one repository, so that one that hangs leaves turns to others.
pub const MAX_PUSHES_OF_REPOSITORY: usize = 2;
/// Longest name of a branch that a commit is pushed to, in bytes.
pub const MAX_BRANCH_BYTES: usize = 1024;
/// Longest part of such a name between slashes, in bytes: git keeps a branch as a file of that name, and locks it with another that has `.lock` behind it.
pub const MAX_BRANCH_PART_BYTES: usize = MAX_NAME_BYTES - ".lock".len();
/// Longest time of one push, in seconds.
pub const MAX_PUSH_S: u64 = 3_600;
/// How long `git` may say nothing while it fetches an import, in seconds.
pub const MAX_FETCH_SILENCE_S: u64 = 900;
/// Most connections at once, unless the server's settings say otherwise.
pub const DEFAULT_CONNECTIONS: usize = 4_096;
/// Most matches of one grep call unless the caller asks for fewer.
pub const MAX_GREP_MATCHES: usize = 100_000;
/// Most paths named as changed since an instant; more is answered as "everything".
pub const MAX_TOUCHED_PATHS: usize = 16_384;
/// Instants remembered for that question, over all sessions and for one; the one asked for least recently goes first. Each
/// keeps what was changed after it in RAM.
pub const MAX_INSTANTS: usize = 2_048;
/// Instants remembered for one session.
pub const MAX_SESSION_INSTANTS: usize = 4;
/// Longest name of an instant, in bytes.
pub const MAX_INSTANT_BYTES: usize = 96;
