//! One method per call of the contract that is not about a mount or a stream of bytes.

use crate::client::{Client, Items};
use crate::retry::{Backoff, Retry, request_id};
use afs_proto::v1 as api;
use afs_types::{Error, Reason, Result};
use api::admin_service_client::AdminServiceClient;
use api::file_system_service_client::FileSystemServiceClient;
use api::persistence_service_client::PersistenceServiceClient;
use api::session_service_client::SessionServiceClient;
use api::source_service_client::SourceServiceClient;
use std::future::Future;
use tonic::{Response, Status};

impl Client {
    /// Sends until an answer comes that another attempt would not change, or the time is over.
    pub(crate) async fn send<T, F>(
        &self,
        operation: &'static str,
        retry: Retry,
        mut call: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut last: Option<Error> = None;
        let attempts = async {
            let mut backoff = Backoff::new();
            loop {
                let error = match call().await {
                    Ok(response) => return Ok(response.into_inner()),
                    Err(status) => self.error(&status),
                };
                // Nobody there at all: a person who typed the command wants to know now.
                let refused = error.message().contains("refused") || error.message().contains("dns error");
                if refused || !retry.allows(error.reason) {
                    return Err(error);
                }
                tracing::debug!(operation, ?error, "trying again");
                last = Some(error);
                backoff.pause().await;
            }
        };
        match tokio::time::timeout(self.timeout(), attempts).await {
            Ok(answer) => answer,
            Err(_) => Err(last.unwrap_or_else(|| self.timed_out(operation))),
        }
    }
}

/// `name(Request) -> Answer = policy`: `read` changes nothing, `keyed` carries a `request_id`, `once` is sent once,
/// `stream` answers one by one.
macro_rules! calls {
    ($service:ident { $($(#[$doc:meta])* $name:ident($request:ident) -> $answer:ty = $policy:ident;)* }) => {
        impl Client { $( calls!(@one $service $(#[$doc])* $name $request $answer, $policy); )* }
    };
    (@one $service:ident $(#[$doc:meta])* $name:ident $request:ident $answer:ty, read) => {
        $(#[$doc])*
        pub async fn $name(&self, request: api::$request) -> Result<$answer> {
            let call = || { let (mut c, r) = (self.stub($service::new), request.clone()); async move { c.$name(r).await } };
            self.send(stringify!($name), Retry::Safe, call).await
        }
    };
    (@one $service:ident $(#[$doc:meta])* $name:ident $request:ident $answer:ty, keyed) => {
        $(#[$doc])*
        /// Without a `request_id` it gets one, so that a retry has no second effect.
        pub async fn $name(&self, mut request: api::$request) -> Result<$answer> {
            if request.request_id.is_empty() {
                request.request_id = request_id();
            }
            let call = || { let (mut c, r) = (self.stub($service::new), request.clone()); async move { c.$name(r).await } };
            self.send(stringify!($name), Retry::Safe, call).await
        }
    };
    (@one $service:ident $(#[$doc:meta])* $name:ident $request:ident $answer:ty, once) => {
        $(#[$doc])*
        pub async fn $name(&self, request: api::$request) -> Result<$answer> {
            let call = || { let (mut c, r) = (self.stub($service::new), request.clone()); async move { c.$name(r).await } };
            self.send(stringify!($name), Retry::Never, call).await
        }
    };
    (@one $service:ident $(#[$doc:meta])* $name:ident $request:ident $answer:ty, stream) => {
        $(#[$doc])*
        pub async fn $name(&self, request: api::$request) -> Result<Items<$answer>> {
            let call = || { let (mut c, r) = (self.stub($service::new), request.clone()); async move { c.$name(r).await } };
            let stream = self.send(stringify!($name), Retry::Safe, call).await?;
            Ok(Items::new(stream, self.clone(), stringify!($name)))
        }
    };
}

/// Raises tonic's 4 MiB bound on answers to ours.
pub(crate) trait Stub {
    fn with_limits(self) -> Self;
}

macro_rules! stubs {
    ($($client:ident),*) => { $(impl Stub for $client<tonic::transport::Channel> {
        fn with_limits(self) -> Self {
            self.max_decoding_message_size(crate::client::MAX_MESSAGE_BYTES)
        }
    })* };
}
use api::bridge_service_client::BridgeServiceClient;
stubs!(
    SourceServiceClient,
    SessionServiceClient,
    FileSystemServiceClient,
    PersistenceServiceClient,
    AdminServiceClient,
    BridgeServiceClient
);

impl Client {
    pub(crate) fn stub<C: Stub>(&self, new: impl FnOnce(tonic::transport::Channel) -> C) -> C {
        new(self.channel()).with_limits()
    }
}

calls!(SourceServiceClient {
    /// Starts an import; [`Client::get_source`] with `wait_seconds` waits for its end.
    create_source(CreateSourceRequest) -> api::Source = keyed;
    /// A source with the state of its newest import.
    get_source(GetSourceRequest) -> api::Source = read;
    /// One page of sources.
    list_sources(ListSourcesRequest) -> api::ListSourcesResponse = read;
    /// Imports again. Sent once: a second one could import twice.
    refresh_source(RefreshSourceRequest) -> api::Source = once;
    /// One page of the versions of a source.
    list_source_versions(ListSourceVersionsRequest) -> api::ListSourceVersionsResponse = read;
    /// Deletes a source.
    delete_source(DeleteSourceRequest) -> pbjson_types::Empty = once;
});

calls!(SessionServiceClient {
    /// A new session.
    create_session(CreateSessionRequest) -> api::Session = keyed;
    /// One session.
    get_session(GetSessionRequest) -> api::Session = read;
    /// One page of sessions.
    list_sessions(ListSessionsRequest) -> api::ListSessionsResponse = read;
    /// Changes the fields named in the mask.
    update_session(UpdateSessionRequest) -> api::Session = once;
    /// Copies of one instant.
    fork_session(ForkSessionRequest) -> api::ForkSessionResponse = keyed;
    /// Out of memory, read-only, id stays valid.
    archive_session(ArchiveSessionRequest) -> api::Session = once;
    /// Back to work.
    resume_session(ResumeSessionRequest) -> api::Session = once;
    /// Forgets a session.
    delete_session(DeleteSessionRequest) -> pbjson_types::Empty = once;
    /// Returns when a revision is on the server's disk.
    wait_durable(WaitDurableRequest) -> api::WaitDurableResponse = read;
});

calls!(FileSystemServiceClient {
    /// One entry.
    stat(StatRequest) -> api::Entry = read;
    /// One page of a directory.
    list_directory(ListDirectoryRequest) -> api::ListDirectoryResponse = read;
    /// Every entry below a path.
    get_manifest(GetManifestRequest) -> api::Entry = stream;
    /// The entry, then its bytes.
    read_file(ReadFileRequest) -> api::ReadFileResponse = stream;
    /// A window of lines.
    read_lines(ReadLinesRequest) -> api::ReadLinesResponse = read;
    /// Several small files.
    batch_read_files(BatchReadFilesRequest) -> api::BatchReadFilesResponse = read;
    /// Exact string replacement.
    edit_file(EditFileRequest) -> api::EditFileResponse = keyed;
    /// A patch, all or nothing.
    apply_patch(ApplyPatchRequest) -> api::ApplyPatchResponse = keyed;
    /// Many operations, all or nothing.
    submit_changes(SubmitChangesRequest) -> api::SubmitChangesResponse = keyed;
    /// A directory.
    create_directory(CreateDirectoryRequest) -> api::MutationResponse = keyed;
    /// A symbolic link.
    create_symlink(CreateSymlinkRequest) -> api::MutationResponse = keyed;
    /// One more name for a file.
    create_hard_link(CreateHardLinkRequest) -> api::MutationResponse = keyed;
    /// Renames.
    move_path(MovePathRequest) -> api::MutationResponse = keyed;
    /// Copies without copying bytes.
    copy_path(CopyPathRequest) -> api::MutationResponse = keyed;
    /// Removes.
    remove_path(RemovePathRequest) -> api::MutationResponse = keyed;
    /// Changes attributes.
    set_attributes(SetAttributesRequest) -> api::MutationResponse = keyed;
    /// One page of the entries whose path fits a pattern.
    glob(GlobRequest) -> api::GlobResponse = read;
    /// Matching lines.
    grep(GrepRequest) -> api::GrepMatch = stream;
});

calls!(PersistenceServiceClient {
    /// Names an instant.
    create_checkpoint(CreateCheckpointRequest) -> api::Checkpoint = keyed;
    /// One checkpoint.
    get_checkpoint(GetCheckpointRequest) -> api::Checkpoint = read;
    /// One page of checkpoints.
    list_checkpoints(ListCheckpointsRequest) -> api::ListCheckpointsResponse = read;
    /// Forgets a checkpoint.
    delete_checkpoint(DeleteCheckpointRequest) -> pbjson_types::Empty = once;
    /// Takes a session back.
    restore_checkpoint(RestoreCheckpointRequest) -> api::RestoreCheckpointResponse = keyed;
    /// What differs between two states.
    diff(DiffRequest) -> api::FileChange = stream;
    /// A git commit of a session's content.
    create_commit(CreateCommitRequest) -> api::Commit = keyed;
    /// One commit.
    get_commit(GetCommitRequest) -> api::Commit = read;
    /// One page of commits.
    list_commits(ListCommitsRequest) -> api::ListCommitsResponse = read;
    /// Pushes a commit. Sent once; doing it again by hand is harmless (the branch is then already there).
    promote(PromoteRequest) -> api::PromoteResponse = once;
});

calls!(AdminServiceClient {
    /// Version, limits, counters.
    get_server_info(GetServerInfoRequest) -> api::ServerInfo = read;
    /// Runs the server's own checks.
    check_readiness(CheckReadinessRequest) -> api::CheckReadinessResponse = read;
});

/// Reports that nothing came where one message must.
pub(crate) fn empty_answer(operation: &str) -> Error {
    Error::new(Reason::Internal, format!("{operation}: the server ended the stream without an answer"))
}
