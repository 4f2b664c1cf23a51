//! Every limit of the system, in one place. Reaching one is a typed error that names it.

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
/// Most bytes of one page of a list; it ends early when it would have more, and goes on with its token.
pub const MAX_PAGE_BYTES: usize = 3 << 20;
/// Most bytes of a stream that are ready before its reader takes them.
pub const MAX_STREAM_AHEAD_BYTES: usize = 4 << 20;
/// How long the reader of a stream may take nothing before it is cut, in milliseconds.
pub const MAX_READER_PAUSE_MS: u64 = 60_000;
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
/// Most imports at once; each has threads and buffers of its own.
pub const MAX_IMPORTS: usize = 32;
/// Most closed layers waiting to be folded; beyond it they stay as records until they are loaded again.
pub const MAX_FOLD_QUEUE: usize = 1_024;
/// Most events waiting for one watcher (mount, sync stream) before it is told to drop its caches.
pub const MAX_WATCH_QUEUE: usize = 8_192;
/// Most entries of one imported base.
pub const MAX_BASE_ENTRIES: u64 = 64 << 20;
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
