//! A service with two answers and known failures.

use afs_proto::v1::persistence_service_server::PersistenceService;
use afs_proto::v1::*;
use afs_proto::{timestamp, to_status};
use afs_types::{Error, Reason, SessionId};
use futures::stream;
use std::pin::Pin;
use tonic::{Request, Response, Status};

#[derive(Default)]
pub(crate) struct Fake;

type Answer<T> = Result<Response<T>, Status>;
type Changes = Pin<Box<dyn futures::Stream<Item = Result<FileChange, Status>> + Send>>;

fn missing() -> Status {
    to_status(&Error::new(Reason::CheckpointNotFound, "ckpt_x does not exist").with("id", "ckpt_x"))
}

#[tonic::async_trait]
impl PersistenceService for Fake {
    type DiffStream = Changes;

    /// Echoes the request, so that tests see what arrived.
    async fn create_checkpoint(&self, r: Request<CreateCheckpointRequest>) -> Answer<Checkpoint> {
        let r = r.into_inner();
        SessionId::parse(&r.session_id).map_err(|e| to_status(&e))?;
        let checkpoint = Checkpoint {
            session_id: r.session_id,
            name: r.name,
            message: r.request_id,
            revision: u64::MAX,
            create_time: Some(timestamp(1_500_000_000)),
            ..Checkpoint::default()
        };
        Ok(Response::new(checkpoint))
    }
    async fn get_checkpoint(&self, _: Request<GetCheckpointRequest>) -> Answer<Checkpoint> {
        Err(missing())
    }
    async fn list_checkpoints(&self, r: Request<ListCheckpointsRequest>) -> Answer<ListCheckpointsResponse> {
        let r = r.into_inner();
        let text = format!("{} {} {}", r.session_id, r.page_size, r.include_automatic);
        Ok(Response::new(ListCheckpointsResponse { checkpoints: vec![], next_page_token: text }))
    }
    async fn delete_checkpoint(&self, _: Request<DeleteCheckpointRequest>) -> Answer<pbjson_types::Empty> {
        Ok(Response::new(pbjson_types::Empty {}))
    }
    async fn restore_checkpoint(
        &self,
        _: Request<RestoreCheckpointRequest>,
    ) -> Answer<RestoreCheckpointResponse> {
        Err(to_status(&Error::new(Reason::RevisionMismatch, "the session is at 7, not at 5")))
    }
    /// Two messages; then, when the target is `cut`, an error.
    async fn diff(&self, r: Request<DiffRequest>) -> Answer<Changes> {
        let r = r.into_inner();
        let change = |path: &str| Ok(FileChange { path: path.into(), ..FileChange::default() });
        let mut changes = match r.target.as_str() {
            "none" => vec![Err(missing())],
            _ => r.paths.iter().map(|p| change(p)).collect(),
        };
        if r.target == "cut" {
            changes.push(Err(missing()));
            changes.push(change("/after"));
        }
        Ok(Response::new(Box::pin(stream::iter(changes))))
    }
    async fn create_commit(&self, r: Request<CreateCommitRequest>) -> Answer<Commit> {
        let r = r.into_inner();
        let create_commit_request::Target::Git(git) =
            r.target.ok_or_else(|| Status::invalid_argument("target"))?;
        Ok(Response::new(Commit { message: git.author_name, ..Commit::default() }))
    }
    async fn get_commit(&self, _: Request<GetCommitRequest>) -> Answer<Commit> {
        Err(Status::unavailable("gone fishing"))
    }
    async fn list_commits(&self, _: Request<ListCommitsRequest>) -> Answer<ListCommitsResponse> {
        Ok(Response::new(ListCommitsResponse::default()))
    }
    async fn promote(&self, _: Request<PromoteRequest>) -> Answer<PromoteResponse> {
        Ok(Response::new(PromoteResponse::default()))
    }
}
