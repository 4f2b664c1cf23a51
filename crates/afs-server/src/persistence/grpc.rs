//! PersistenceService.

use super::diff::{self, Style};
use super::wire;
use crate::app::App;
use crate::page;
use crate::pool::Weigh;
use crate::queues;
use crate::reply::{Reply, fail, field, optional, page_size, path, reply, request_id, revision};
use afs_proto::v1;
use afs_proto::v1::persistence_service_server::PersistenceService;
use afs_session::{CommitRequest, DiffScope, Engine, PromoteRequest, without_password};
use afs_types::{CheckpointId, CommitId, Error, Result, SessionId, limits};
use futures::{Stream, StreamExt as _};
use pbjson_types::Empty;
use std::pin::Pin;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Answers for what lasts.
pub(crate) struct Persistence(pub(crate) Arc<App>);

fn session_id(text: &str) -> Result<SessionId> {
    field("session_id", SessionId::parse(text))
}

fn checkpoint_id(text: &str) -> Result<CheckpointId> {
    field("checkpoint_id", CheckpointId::parse(text))
}

fn commit_id(text: &str) -> Result<CommitId> {
    field("commit_id", CommitId::parse(text))
}

fn commit_request(r: v1::CreateCommitRequest) -> Result<CommitRequest> {
    let target = r.target.map(|v1::create_commit_request::Target::Git(git)| git).unwrap_or_default();
    Ok(CommitRequest {
        session: session_id(&r.session_id)?,
        message: r.message,
        author_name: target.author_name,
        author_email: target.author_email,
        if_revision: revision(r.if_revision),
        allow_empty: r.allow_empty,
        request_id: request_id(&r.request_id)?,
    })
}

fn promote_request(r: v1::PromoteRequest, engine: &Engine) -> Result<PromoteRequest> {
    let commit = commit_id(&r.commit_id)?;
    if r.if_branch_absent && !r.if_branch_oid.is_empty() {
        return Err(Error::invalid("if_branch_absent", "either if_branch_oid or if_branch_absent, not both"));
    }
    let branch = match r.branch.is_empty() {
        false => r.branch,
        true => format!("aether/{}", engine.get_commit(&commit)?.record.session),
    };
    let expect = match r.if_branch_absent {
        true => Some(String::new()),
        false => Some(r.if_branch_oid).filter(|oid| !oid.is_empty()),
    };
    Ok(PromoteRequest { commit, branch, expect })
}

impl Weigh for v1::FileChange {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.path.len() + self.old_path.len() + self.patch.len()
    }
}

struct Diff {
    session: SessionId,
    base: String,
    target: String,
    scope: DiffScope,
    style: Style,
}

impl Diff {
    fn of(r: &v1::DiffRequest) -> Result<Self> {
        if r.context_lines > limits::MAX_DIFF_CONTEXT {
            return Err(Error::above("context_lines", limits::MAX_DIFF_CONTEXT, "lines"));
        }
        let paths = r.paths.iter().enumerate().map(|(i, text)| path(&format!("paths[{i}]"), text));
        let paths = paths.collect::<Result<_>>()?;
        let context = if r.context_lines == 0 { 3 } else { r.context_lines as usize };
        Ok(Self {
            session: session_id(&r.session_id)?,
            base: r.base.clone(),
            target: r.target.clone(),
            scope: DiffScope { paths, include_git_dir: r.include_git_dir },
            style: Style { name_only: r.name_only, context },
        })
    }

    fn run(&self, engine: &Engine, sink: &mut dyn FnMut(v1::FileChange) -> bool) -> Result<()> {
        let (old, new, changes) = engine.diff(&self.session, (&self.base, &self.target), &self.scope)?;
        let session = engine.session(&self.session)?;
        let (old, new) = (session.view_of(old, 0), session.view_of(new, 0));
        for change in &changes {
            if !sink(diff::change(&old, &new, change, self.style)?) {
                break;
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl PersistenceService for Persistence {
    type DiffStream = Pin<Box<dyn Stream<Item = Result<v1::FileChange, Status>> + Send>>;

    async fn create_checkpoint(&self, r: Request<v1::CreateCheckpointRequest>) -> Reply<v1::Checkpoint> {
        let r = r.into_inner();
        let id = session_id(&r.session_id).map_err(fail)?;
        let key = request_id(&r.request_id).map_err(fail)?;
        let engine = self.0.engine.clone();
        let made = self.0.pool.run(move || engine.checkpoint(&id, &r.name, &r.message, key.as_ref())).await;
        reply(made, wire::checkpoint)
    }

    async fn get_checkpoint(&self, r: Request<v1::GetCheckpointRequest>) -> Reply<v1::Checkpoint> {
        let r = r.into_inner();
        let session = session_id(&r.session_id).map_err(fail)?;
        let id = checkpoint_id(&r.checkpoint_id).map_err(fail)?;
        let engine = self.0.engine.clone();
        reply(self.0.pool.run(move || engine.get_checkpoint(&session, &id)).await, wire::checkpoint)
    }

    async fn list_checkpoints(
        &self,
        r: Request<v1::ListCheckpointsRequest>,
    ) -> Reply<v1::ListCheckpointsResponse> {
        let r = r.into_inner();
        let session = session_id(&r.session_id).map_err(fail)?;
        let size = page_size(r.page_size).map_err(fail)?;
        let all = r.include_automatic;
        let bound = ["checkpoints", session.as_str(), if all { "all" } else { "" }];
        let after = page::decode(&bound, &r.page_token).map_err(fail)?;
        let (engine, of) = (self.0.engine.clone(), session.clone());
        let listed = self.0.pool.run(move || engine.list_checkpoints(&of, size, after.as_deref(), all)).await;
        reply(listed, |page| v1::ListCheckpointsResponse {
            checkpoints: page.items.into_iter().map(wire::checkpoint).collect(),
            next_page_token: page::encode(&bound, page.next),
        })
    }

    async fn delete_checkpoint(&self, r: Request<v1::DeleteCheckpointRequest>) -> Reply<Empty> {
        let r = r.into_inner();
        let session = session_id(&r.session_id).map_err(fail)?;
        let id = checkpoint_id(&r.checkpoint_id).map_err(fail)?;
        let engine = self.0.engine.clone();
        reply(self.0.pool.run(move || engine.delete_checkpoint(&session, &id)).await, |()| Empty {})
    }

    async fn restore_checkpoint(
        &self,
        r: Request<v1::RestoreCheckpointRequest>,
    ) -> Reply<v1::RestoreCheckpointResponse> {
        let r = r.into_inner();
        let session = session_id(&r.session_id).map_err(fail)?;
        let id = checkpoint_id(&r.checkpoint_id).map_err(fail)?;
        let key = request_id(&r.request_id).map_err(fail)?;
        let engine = self.0.engine.clone();
        let at = revision(r.if_revision);
        let queues = queues::of_restore(&engine, key.as_ref(), &session);
        let restore = move || engine.restore(&session, &id, at, key.as_ref());
        reply(self.0.pool.run_comparison_of(queues, restore).await, |restored| {
            v1::RestoreCheckpointResponse {
                revision: restored.revision,
                safety_checkpoint_id: restored.safety_checkpoint.to_string(),
                files_changed: restored.files_changed,
            }
        })
    }

    async fn diff(&self, r: Request<v1::DiffRequest>) -> Reply<Self::DiffStream> {
        let diff = Diff::of(&r.into_inner()).map_err(fail)?;
        let engine = self.0.engine.clone();
        let queue = queues::of_told(&diff.session);
        let changes = self.0.pool.stream_comparison(queue, move |sink| diff.run(&engine, sink)).await;
        let changes = changes.map_err(fail)?;
        Ok(Response::new(Box::pin(changes.map(|change| change.map_err(fail)))))
    }

    async fn create_commit(&self, r: Request<v1::CreateCommitRequest>) -> Reply<v1::Commit> {
        let want = commit_request(r.into_inner()).map_err(fail)?;
        let engine = self.0.engine.clone();
        let queues = queues::of_commit(&engine, want.request_id.as_ref(), &want.session);
        let made = self.0.pool.run_comparison_of(queues, move || engine.commit(&want)).await;
        reply(made, wire::commit)
    }

    async fn get_commit(&self, r: Request<v1::GetCommitRequest>) -> Reply<v1::Commit> {
        let id = commit_id(&r.into_inner().commit_id).map_err(fail)?;
        let engine = self.0.engine.clone();
        reply(self.0.pool.run(move || engine.get_commit(&id)).await, wire::commit)
    }

    async fn list_commits(&self, r: Request<v1::ListCommitsRequest>) -> Reply<v1::ListCommitsResponse> {
        let r = r.into_inner();
        let session = optional("session_id", &r.session_id, SessionId::parse).map_err(fail)?;
        let size = page_size(r.page_size).map_err(fail)?;
        let bound = ["commits", r.session_id.as_str()];
        let after = page::decode(&bound, &r.page_token).map_err(fail)?;
        let engine = self.0.engine.clone();
        let listed =
            self.0.pool.run(move || engine.list_commits(session.as_ref(), size, after.as_deref())).await;
        reply(listed, |page| v1::ListCommitsResponse {
            commits: page.items.into_iter().map(wire::commit).collect(),
            next_page_token: page::encode(&bound, page.next),
        })
    }

    async fn promote(&self, r: Request<v1::PromoteRequest>) -> Reply<v1::PromoteResponse> {
        let r = r.into_inner();
        let engine = self.0.engine.clone();
        let looked = self.0.pool.run(move || {
            let want = promote_request(r, &engine)?;
            let source = engine.get_commit(&want.commit)?.record.source;
            let queue = queues::of_push(&engine.get_source(&source)?.record.location);
            Ok((want, queue))
        });
        let (want, queue) = looked.await.map_err(fail)?;
        let engine = self.0.engine.clone();
        let promoted = self.0.pool.run_push(queue, move || {
            let done = engine.promote(&want)?;
            let remote = engine.get_source(&done.commit.record.source)?.record.location;
            Ok(v1::PromoteResponse {
                remote_url: without_password(&remote),
                branch: done.branch,
                git_oid: done.commit.record.oid,
                previous_git_oid: done.old_oid.unwrap_or_default(),
            })
        });
        promoted.await.map(Response::new).map_err(fail)
    }
}
