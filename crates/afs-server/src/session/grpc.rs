//! SessionService.

use super::{rules, wire};
use crate::app::App;
use crate::page;
use crate::pool::durable;
use crate::reply::{Reply, fail, field, optional, reply, request_id};
use afs_proto::v1::session_service_server::SessionService;
use afs_proto::v1::{self, Session};
use afs_session::{CreateSession, Fork, SessionInfo};
use afs_types::{CheckpointId, CommitId, Error, Reason, Result, SessionId, SourceId, VersionId, limits};
use pbjson_types::Empty;
use std::sync::Arc;
use tonic::{Request, Response};

/// Answers for sessions.
pub(crate) struct Sessions(pub(crate) Arc<App>);

fn id(text: &str) -> Result<SessionId> {
    field("session_id", SessionId::parse(text))
}

fn create(r: v1::CreateSessionRequest) -> Result<CreateSession> {
    Ok(CreateSession {
        session_id: optional("session_id", &r.session_id, SessionId::parse)?,
        source: optional("source_id", &r.source_id, SourceId::parse)?,
        version: optional("source_version_id", &r.source_version_id, VersionId::parse)?,
        display_name: r.display_name,
        labels: r.labels,
        ttl_ns: rules::ttl(r.ttl.as_ref())?,
        request_id: request_id(&r.request_id)?,
    })
}

fn fork(r: v1::ForkSessionRequest) -> Result<Fork> {
    let new_ids: Vec<SessionId> = r
        .new_session_ids
        .iter()
        .enumerate()
        .map(|(i, text)| field(&format!("new_session_ids[{i}]"), SessionId::parse(text)))
        .collect::<Result<_>>()?;
    let count = if r.count == 0 { new_ids.len().max(1) as u32 } else { r.count };
    if count > limits::MAX_FORKS {
        return Err(Error::above("count", limits::MAX_FORKS, "forks in one call"));
    }
    if new_ids.len() > count as usize {
        return Err(Error::above("new_session_ids", count, "ids, as many as `count`"));
    }
    Ok(Fork {
        session: id(&r.session_id)?,
        checkpoint: optional("checkpoint_id", &r.checkpoint_id, CheckpointId::parse)?,
        commit: optional("commit_id", &r.commit_id, CommitId::parse)?,
        count,
        new_ids,
        labels: r.labels,
        ttl_ns: rules::ttl(r.ttl.as_ref())?,
        request_id: request_id(&r.request_id)?,
    })
}

impl Sessions {
    /// Forks. The common case does its work in RAM at once and waits for the journal without holding a thread.
    async fn fork(&self, want: Fork) -> Result<Vec<SessionInfo>> {
        let App { engine, journal, pool, .. } = &*self.0;
        let in_ram = want.request_id.is_none()
            && want.checkpoint.is_none()
            && want.commit.is_none()
            && want.count <= 1000
            && engine.resident(&want.session).is_some();
        if !in_ram {
            let engine = engine.clone();
            return pool.run(move || engine.fork(&want)).await;
        }
        let forked = pool
            .run({
                let engine = engine.clone();
                move || engine.fork_start(&want)
            })
            .await?;
        durable(&**journal, forked.at).await?;
        forked.sessions.iter().map(|s| engine.get_session(s.id())).collect()
    }
}

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn create_session(&self, r: Request<v1::CreateSessionRequest>) -> Reply<Session> {
        let want = create(r.into_inner()).map_err(fail)?;
        let engine = self.0.engine.clone();
        let made = self.0.pool.run(move || engine.create_session(want)).await;
        made.iter().for_each(|info| self.0.sessions_changed(std::slice::from_ref(&info.id)));
        reply(made, wire::session)
    }

    async fn get_session(&self, r: Request<v1::GetSessionRequest>) -> Reply<Session> {
        let id = id(&r.into_inner().session_id).map_err(fail)?;
        let engine = self.0.engine.clone();
        reply(self.0.pool.run(move || engine.get_session(&id)).await, wire::session)
    }

    async fn list_sessions(&self, r: Request<v1::ListSessionsRequest>) -> Reply<v1::ListSessionsResponse> {
        let r = r.into_inner();
        let mut query = rules::list(&r).map_err(fail)?;
        let states = format!("{:?}", query.archived);
        let bound = ["sessions", r.filter.as_str(), &r.source_id, &r.parent_session_id, &states];
        query.after = page::decode(&bound, &r.page_token).map_err(fail)?;
        let engine = self.0.engine.clone();
        let page = self.0.pool.run(move || engine.list_sessions(&query)).await;
        reply(page, |page| v1::ListSessionsResponse {
            sessions: page.items.into_iter().map(wire::session).collect(),
            next_page_token: page::encode(&bound, page.next),
        })
    }

    async fn update_session(&self, r: Request<v1::UpdateSessionRequest>) -> Reply<Session> {
        let r = r.into_inner();
        let id = id(&r.session_id).map_err(fail)?;
        let change = rules::update(r, self.0.clock.now_ns()).map_err(fail)?;
        let engine = self.0.engine.clone();
        reply(self.0.pool.run(move || engine.update_session(&id, change)).await, wire::session)
    }

    async fn fork_session(&self, r: Request<v1::ForkSessionRequest>) -> Reply<v1::ForkSessionResponse> {
        let want = fork(r.into_inner()).map_err(fail)?;
        let forks = self.fork(want).await.map_err(fail)?;
        let ids: Vec<SessionId> = forks.iter().map(|info| info.id.clone()).collect();
        self.0.sessions_changed(&ids);
        Ok(Response::new(v1::ForkSessionResponse {
            sessions: forks.into_iter().map(wire::session).collect(),
        }))
    }

    async fn archive_session(&self, r: Request<v1::ArchiveSessionRequest>) -> Reply<Session> {
        let r = r.into_inner();
        let id = id(&r.session_id).map_err(fail)?;
        self.0.let_go(&id);
        let (engine, of) = (self.0.engine.clone(), id.clone());
        let archived = self.0.pool.run(move || engine.archive_session(&of)).await;
        self.0.sessions_changed(&[id]);
        reply(archived, wire::session)
    }

    async fn resume_session(&self, r: Request<v1::ResumeSessionRequest>) -> Reply<Session> {
        let r = r.into_inner();
        let id = id(&r.session_id).map_err(fail)?;
        let (engine, of) = (self.0.engine.clone(), id.clone());
        let resumed = self.0.pool.run(move || engine.resume_session(&of)).await;
        self.0.sessions_changed(&[id]);
        reply(resumed, wire::session)
    }

    async fn delete_session(&self, r: Request<v1::DeleteSessionRequest>) -> Reply<Empty> {
        let r = r.into_inner();
        let id = id(&r.session_id).map_err(fail)?;
        let etag = rules::etag(&r.etag).map_err(fail)?;
        self.0.let_go(&id);
        let (engine, of) = (self.0.engine.clone(), id.clone());
        let deleted = self.0.pool.run(move || engine.delete_session(&of, r.force, etag)).await;
        self.0.sessions_changed(&[id]);
        reply(deleted, |()| Empty {})
    }

    async fn wait_durable(&self, r: Request<v1::WaitDurableRequest>) -> Reply<v1::WaitDurableResponse> {
        let r = r.into_inner();
        let id = id(&r.session_id).map_err(fail)?;
        let engine = self.0.engine.clone();
        let known = move || {
            let session = engine.session(&id)?;
            Ok((session.stamp(), engine.has_lost(&session, 0, r.revision)?))
        };
        let (stamp, is_lost) = self.0.pool.run(known).await.map_err(fail)?;
        if is_lost {
            return Err(fail(
                Error::new(
                    Reason::RevisionMismatch,
                    format!(
                        "revision: {} was lost in a crash, or never was; the session is at {}",
                        r.revision, stamp.seq
                    ),
                )
                .with("field", "revision")
                .with("revision", stamp.seq.to_string()),
            ));
        }
        durable(&*self.0.journal, stamp.at).await.map_err(fail)?;
        let durability = v1::Durability::Local.into();
        Ok(Response::new(v1::WaitDurableResponse { revision: stamp.seq, durability }))
    }
}
