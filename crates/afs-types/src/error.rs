//! One error type for the whole system. A [`Reason`] is precise; a [`Kind`] says what the caller must do.
//!
//! errno, gRPC code and HTTP status follow from the reason by the tables below, each without a wildcard arm.
//! `message` is for the caller; `source` is for the log and never leaves the server.

use std::fmt;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, to which object, and what to do next.
pub struct Error {
    /// Precise cause; stable, upper snake case on the wire.
    pub reason: Reason,
    detail: Option<Box<Detail>>,
}

#[derive(Default)]
struct Detail {
    message: String,
    metadata: Vec<(&'static str, String)>,
    next_step: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What the caller must do; the same seven on every surface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The request can never succeed as it is: change it.
    Invalid,
    /// The object is not there.
    NotFound,
    /// The state of the object forbids it: look at it, then decide.
    Conflict,
    /// Not allowed.
    Denied,
    /// A limit is reached: free something, or raise it.
    Exhausted,
    /// Not now: try again.
    Unavailable,
    /// A fault of ours, or of the disk.
    Internal,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $kind:ident, $errno:literal, $http:literal, $next:literal;)*) => {
        /// Every way an operation can fail.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason { $($(#[$doc])* $name,)* }
        impl Reason {
            /// All reasons, for docs and tests.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];
            /// The wire name, upper snake case.
            pub fn as_str(self) -> &'static str { match self { $(Reason::$name => $text,)* } }
            /// What the caller must do.
            pub fn kind(self) -> Kind { match self { $(Reason::$name => Kind::$kind,)* } }
            /// Linux errno for the mount.
            pub fn errno(self) -> i32 { match self { $(Reason::$name => $errno,)* } }
            /// HTTP status.
            pub fn http_status(self) -> u16 { match self { $(Reason::$name => $http,)* } }
            /// What to do next, unless the error itself says it better.
            pub fn next_step(self) -> &'static str { match self { $(Reason::$name => $next,)* } }
            /// The reason with this wire name.
            pub fn from_wire(text: &str) -> Option<Reason> { match text { $($text => Some(Reason::$name),)* _ => None } }
        }
    };
}

reasons! {
    /// A field has a value that can never be right.
    InvalidArgument = "INVALID_ARGUMENT", Invalid, 22, 400, "correct the field and send the request again";
    /// Not a well-formed id.
    InvalidId = "INVALID_ID", Invalid, 22, 400, "use an id as the server returned it, e.g. from `aether session list`";
    /// Not a file name or path component.
    InvalidName = "INVALID_NAME", Invalid, 22, 400, "use a name without '/' and NUL that is not '.' or '..'";
    /// A name is longer than 255 bytes.
    NameTooLong = "NAME_TOO_LONG", Invalid, 36, 400, "use a name of at most 255 bytes";
    /// A path is longer than 4096 bytes or deeper than 1024.
    PathTooLong = "PATH_TOO_LONG", Invalid, 36, 400, "use a path of at most 4096 bytes";
    /// A page token that this server did not make, or for another query.
    InvalidPageToken = "INVALID_PAGE_TOKEN", Invalid, 22, 400, "start the list again without page_token";
    /// A range that the object does not have.
    OutOfRange = "OUT_OF_RANGE", Invalid, 22, 416, "ask for a range inside the object";
    /// A file would be larger than the limit.
    FileTooLarge = "FILE_TOO_LARGE", Invalid, 27, 400, "keep files below 16 TiB; text operations below 64 MiB";
    /// A message or body is larger than the limit.
    MessageTooLarge = "MESSAGE_TOO_LARGE", Invalid, 7, 413, "split the request, or stream raw bytes";
    /// The digest sent does not fit the bytes sent.
    DigestMismatch = "DIGEST_MISMATCH", Invalid, 22, 400, "send the file again";
    /// A tree from outside holds a name, cycle or type that is never imported.
    HostileTree = "HOSTILE_TREE", Invalid, 22, 400, "remove or rename the path in the source, then import again";
    /// A patch does not parse.
    InvalidPatch = "INVALID_PATCH", Invalid, 22, 400, "send a unified diff or the '*** Begin Patch' format";
    /// No such session.
    SessionNotFound = "SESSION_NOT_FOUND", NotFound, 2, 404, "list sessions with `aether session list`";
    /// No such source.
    SourceNotFound = "SOURCE_NOT_FOUND", NotFound, 2, 404, "list sources with `aether source list`";
    /// No such version of a source.
    VersionNotFound = "VERSION_NOT_FOUND", NotFound, 2, 404, "list versions with `aether source versions`";
    /// No such checkpoint.
    CheckpointNotFound = "CHECKPOINT_NOT_FOUND", NotFound, 2, 404, "list checkpoints with `aether checkpoint list`";
    /// No such commit.
    CommitNotFound = "COMMIT_NOT_FOUND", NotFound, 2, 404, "list commits with `aether commit list`";
    /// No such mount.
    MountNotFound = "MOUNT_NOT_FOUND", NotFound, 2, 404, "attach again";
    /// No such file or directory.
    NotFound = "NOT_FOUND", NotFound, 2, 404, "check the path with `aether fs ls`";
    /// The inode is gone (deleted, or from before a crash).
    Stale = "STALE", NotFound, 116, 404, "look the path up again";
    /// No such extended attribute.
    NoAttribute = "NO_ATTRIBUTE", NotFound, 61, 404, "list the attributes first";
    /// `lseek` finds no data, or starts beyond the end.
    NoData = "NO_DATA", NotFound, 6, 404, "seek inside the file";
    /// A component that must be a directory is not.
    NotADirectory = "NOT_A_DIRECTORY", Conflict, 20, 409, "check the type of each path component";
    /// A directory where a file is needed.
    IsADirectory = "IS_A_DIRECTORY", Conflict, 21, 409, "name a file, or use a recursive operation";
    /// A directory that must be empty is not.
    NotEmpty = "NOT_EMPTY", Conflict, 39, 409, "remove its entries first, or remove recursively";
    /// The name is taken.
    AlreadyExists = "ALREADY_EXISTS", Conflict, 17, 409, "choose another name, or allow overwriting";
    /// Not a symbolic link, or not a file that has this operation.
    WrongType = "WRONG_TYPE", Conflict, 22, 409, "check the type of the path";
    /// A directory cannot move into itself.
    MoveIntoSelf = "MOVE_INTO_SELF", Conflict, 22, 409, "choose a destination outside of the source";
    /// Too many symbolic links on the way.
    TooManySymlinks = "TOO_MANY_SYMLINKS", Conflict, 40, 409, "break the loop of symbolic links";
    /// Too many hard links.
    TooManyLinks = "TOO_MANY_LINKS", Exhausted, 31, 409, "copy the file instead of linking it";
    /// The two paths are in different sessions.
    CrossSession = "CROSS_SESSION", Invalid, 18, 400, "copy between sessions instead of moving";
    /// A precondition on an etag does not hold.
    EtagMismatch = "ETAG_MISMATCH", Conflict, 11, 412, "read the current state and decide again";
    /// A precondition on a revision does not hold.
    RevisionMismatch = "REVISION_MISMATCH", Conflict, 11, 412, "read the current state and decide again";
    /// The text to replace is not in the file.
    EditNotFound = "EDIT_NOT_FOUND", Conflict, 22, 409, "read the file and copy the text exactly";
    /// The text to replace is there more than once.
    EditNotUnique = "EDIT_NOT_UNIQUE", Conflict, 22, 409, "add surrounding lines, or set replace_all";
    /// A patch does not fit the files.
    PatchConflict = "PATCH_CONFLICT", Conflict, 22, 409, "read the current files and make the patch again";
    /// A file is not text.
    NotText = "NOT_TEXT", Conflict, 22, 409, "read it as bytes";
    /// The same request id came with another request.
    RequestIdReused = "REQUEST_ID_REUSED", Conflict, 22, 409, "use a new request_id for a new request";
    /// The session is archived.
    SessionArchived = "SESSION_ARCHIVED", Conflict, 30, 409, "resume it with `aether session resume`";
    /// The session or source is not in a state for this.
    WrongState = "WRONG_STATE", Conflict, 16, 409, "wait until it is ready";
    /// Still used by something.
    InUse = "IN_USE", Conflict, 16, 409, "end what uses it first, or force";
    /// The branch at the source has moved on.
    PromoteConflict = "PROMOTE_CONFLICT", Conflict, 11, 409, "promote to another branch and merge it there; to replace what the branch has, name that commit (if_branch_oid)";
    /// The source is not one that this works on.
    NotGit = "NOT_GIT", Conflict, 95, 409, "make the session from a git source";
    /// Nothing changed, so there is nothing to commit.
    NothingToCommit = "NOTHING_TO_COMMIT", Conflict, 22, 409, "change a file first, or allow an empty commit";
    /// Not allowed.
    PermissionDenied = "PERMISSION_DENIED", Denied, 13, 403, "ask the owner for access";
    /// A rule forbids it whoever asks.
    NotPermitted = "NOT_PERMITTED", Denied, 1, 403, "this is never allowed here";
    /// Mounted or opened read-only.
    ReadOnly = "READ_ONLY", Denied, 30, 403, "mount or open it for writing";
    /// A quota or limit is reached.
    QuotaExceeded = "QUOTA_EXCEEDED", Exhausted, 122, 507, "delete something, or raise the limit";
    /// The disk is full.
    NoSpace = "NO_SPACE", Exhausted, 28, 507, "free disk space on the server";
    /// No inode numbers are left in this family of sessions.
    NoInodes = "NO_INODES", Exhausted, 28, 507, "start from a fresh import of the source";
    /// A queue is full.
    QueueFull = "QUEUE_FULL", Exhausted, 11, 429, "slow down and try again";
    /// The server cannot be reached, or shuts down.
    Unavailable = "UNAVAILABLE", Unavailable, 5, 503, "try again shortly";
    /// It took too long; the outcome is unknown.
    TimedOut = "TIMED_OUT", Unavailable, 110, 504, "try again with the same request_id";
    /// The source (git remote) cannot be reached or refuses.
    SourceUnavailable = "SOURCE_UNAVAILABLE", Unavailable, 5, 502, "check the address and the credentials";
    /// This server does not do that.
    Unsupported = "UNSUPPORTED", Invalid, 95, 501, "see `aether --help` for what this version does";
    /// Bytes on disk are not what was written.
    Corrupt = "CORRUPT", Internal, 5, 500, "run `aether doctor`; restore from a backup if it says so";
    /// The disk reported an error.
    Io = "IO", Internal, 5, 500, "see the server's log";
    /// A defect.
    Internal = "INTERNAL", Internal, 5, 500, "report it with the server's log";
}

impl Error {
    /// An error without words; the fast path of the mount.
    pub const fn bare(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
    /// An error with a message for the caller: what happened, to which object.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, detail: Some(Box::new(Detail { message: message.into(), ..Detail::default() })) }
    }
    /// `field` has a value that can never be right; `want` says what would be.
    pub fn invalid(field: &'static str, want: impl fmt::Display) -> Self {
        Self::new(Reason::InvalidArgument, format!("{field}: want {want}")).with("field", field)
    }
    /// `field` has more than a limit allows; `what` says of what, e.g. `bytes`.
    pub fn above(field: &'static str, limit: impl fmt::Display, what: &str) -> Self {
        let limit = limit.to_string();
        Self::invalid(field, format!("at most {limit} {what}").trim_end()).with("limit", limit)
    }
    /// An I/O error: full disk and missing files keep their meaning. `action` is in the present tense ("open pack").
    pub fn io(action: impl fmt::Display, source: std::io::Error) -> Self {
        let reason = match source.kind() {
            std::io::ErrorKind::StorageFull => Reason::NoSpace,
            std::io::ErrorKind::QuotaExceeded => Reason::NoSpace,
            _ => Reason::Io,
        };
        Self::new(reason, format!("{action}: {source}")).caused_by(source)
    }
    /// The same error with `prefix: ` in front of its message.
    pub fn prefixed(self, prefix: impl fmt::Display) -> Self {
        let message = format!("{prefix}: {}", self.message());
        self.with_message(message)
    }
    /// The same error with another message.
    pub fn with_message(mut self, message: String) -> Self {
        self.detail_mut().message = message;
        self
    }
    /// Adds a fact that programs can read.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.detail_mut().metadata.push((key, value.into()));
        self
    }
    /// Says what to do next, better than the reason's own words.
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.detail_mut().next_step = Some(step.into());
        self
    }
    /// Keeps the cause for the log.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.detail_mut().source = Some(source.into());
        self
    }
    /// The message for the caller.
    pub fn message(&self) -> &str {
        self.detail.as_ref().map_or(self.reason.as_str(), |d| &d.message)
    }
    /// Facts that programs can read.
    pub fn metadata(&self) -> &[(&'static str, String)] {
        self.detail.as_ref().map_or(&[], |d| &d.metadata)
    }
    /// What to do next.
    pub fn next_step(&self) -> &str {
        let own = self.detail.as_ref().and_then(|d| d.next_step.as_deref());
        own.unwrap_or_else(|| self.reason.next_step())
    }
    /// Linux errno for the mount.
    pub fn errno(&self) -> i32 {
        self.reason.errno()
    }
    fn detail_mut(&mut self) -> &mut Detail {
        let reason = self.reason;
        self.detail
            .get_or_insert_with(|| Box::new(Detail { message: reason.as_str().into(), ..Detail::default() }))
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self::bare(reason)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.message())?;
        match self.detail.as_ref().and_then(|d| d.source.as_ref()) {
            Some(source) => write!(f, " (caused by: {source:?})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.detail.as_ref().and_then(|d| d.source.as_deref()).map(|s| s as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_complete() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_wire(reason.as_str()), Some(*reason));
            assert!(reason.errno() > 0 && (400..600).contains(&reason.http_status()));
            assert!(!reason.next_step().is_empty() && reason.as_str().len() <= 63);
        }
        assert_eq!(size_of::<Error>(), 16);
    }
}
