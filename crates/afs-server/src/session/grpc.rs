//! SessionService.
//!
//! Guarantees: the mount of all sessions is told of every session that is made, archived, resumed or deleted, also when the caller has
//! left meanwhile: the work goes on to its end then, and it is the work that tells.

use super::{rules, wire};
use crate::app::App;
use crate::page;
use crate::pool::durable;
use crate::reply::{Reply, fail, field, optional, reply, request_id};
use afs_proto::v1::session_service_server::SessionService;
use afs_proto::v1::{self, Session};
use afs_session::{CreateSession, Engine, Fork, SessionInfo};
use afs_types::{CheckpointId, CommitId, Error, Reason, Result, SessionId, SourceId, VersionId, limits};
use pbjson_types::Empty;
use std::sync::Arc;
use tokio::runtime::Handle;
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
    /// Runs what makes or ends sessions, and tells the mount of those that `told` picks.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Engine>) -> Result<T> + Send + 'static,
        told: impl FnOnce(&Result<T>) -> Vec<SessionId> + Send + 'static,
    ) -> Result<T> {
        let (engine, all) = (self.0.engine.clone(), self.0.all.clone());
        let work = move || {
            let done = work(&engine);
            all.sessions_changed(&told(&done));
            done
        };
        self.0.pool.run(work).await
    }

    /// The same for what is done to one session, which may have come off in part when it fails.
    async fn change_one<T: Send + 'static>(
        &self,
        id: SessionId,
        work: impl FnOnce(&Engine, &SessionId) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let of = id.clone();
        self.change(move |engine| work(engine, &of), move |_| vec![id]).await
    }

    /// Forks. The common case does its work in RAM at once and waits for the journal without holding a thread.
    async fn fork(&self, want: Fork) -> Result<Vec<SessionInfo>> {
        let App { engine, pool, .. } = &*self.0;
        let in_ram = want.request_id.is_none()
            && want.checkpoint.is_none()
            && want.commit.is_none()
            && want.count <= 1000
            && engine.resident(&want.session).is_some();
        if !in_ram {
            let ids = |made: &Result<Vec<SessionInfo>>| made.iter().flatten().map(|s| s.id.clone()).collect();
            return self.change(move |engine| engine.fork(&want), ids).await;
        }
        let (engine, journal, all) = (engine.clone(), self.0.journal.clone(), self.0.all.clone());
        let (forked, told) = pool
            .run(move || {
                let forked = engine.fork_start(&want)?;
                let (at, ids) =
                    (forked.at, forked.sessions.iter().map(|s| s.id().clone()).collect::<Vec<_>>());
                // A task of its own, which does not end with the call. Not told before: a list of sessions is read from the journal.
                let told = Handle::current().spawn(async move {
                    let outcome = durable(&*journal, at).await;
                    all.sessions_changed(&ids);
                    outcome
                });
                Ok((forked, told))
            })
            .await?;
        told.await.map_err(|e| Error::new(Reason::Internal, format!("a fork ended early: {e}")))??;
        forked.sessions.iter().map(|s| self.0.engine.get_session(s.id())).collect()
    }
}

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn create_session(&self, r: Request<v1::CreateSessionRequest>) -> Reply<Session> {
        let want = create(r.into_inner()).map_err(fail)?;
        let wanted = want.session_id.clone();
        // One that was made and then could not be waited for is there, too.
        let told = move |made: &Result<SessionInfo>| match made {
            Ok(info) => vec![info.id.clone()],
            Err(_) => wanted.into_iter().collect(),
        };
        reply(self.change(move |engine| engine.create_session(want), told).await, wire::session)
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
        Ok(Response::new(v1::ForkSessionResponse {
            sessions: forks.into_iter().map(wire::session).collect(),
        }))
    }

    async fn archive_session(&self, r: Request<v1::ArchiveSessionRequest>) -> Reply<Session> {
        let r = r.into_inner();
        let id = id(&r.session_id).map_err(fail)?;
        reply(self.change_one(id, |engine, id| engine.archive_session(id)).await, wire::session)
    }

    async fn resume_session(&self, r: Request<v1::ResumeSessionRequest>) -> Reply<Session> {
        let r = r.into_inner();
        let id = id(&r.session_id).map_err(fail)?;
        reply(self.change_one(id, |engine, id| engine.resume_session(id)).await, wire::session)
    }

    async fn delete_session(&self, r: Request<v1::DeleteSessionRequest>) -> Reply<Empty> {
        let r = r.into_inner();
        let id = id(&r.session_id).map_err(fail)?;
        let etag = rules::etag(&r.etag).map_err(fail)?;
        let delete = move |engine: &Engine, id: &SessionId| engine.delete_session(id, r.force, etag);
        reply(self.change_one(id, delete).await, |()| Empty {})
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use afs_fuse::{Invalidation, Vfs as _};
    use afs_types::{NameRef, ROOT_INO};
    use futures::FutureExt as _;
    use parking_lot::Mutex;
    use std::future::Future;
    use std::time::{Duration, Instant};

    struct Bed {
        sessions: Sessions,
        told: Arc<Mutex<Vec<Invalidation>>>,
        _dir: tempfile::TempDir,
    }

    impl Bed {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let settings = Settings { data_dir: Some(dir.path().join("data")), ..Settings::default() };
            let app = App::open(&settings.resolve().unwrap()).unwrap();
            let told = Arc::new(Mutex::new(Vec::new()));
            let sink = told.clone();
            // As the kernel's mount does; the sink stays when the guard goes.
            drop(
                app.all
                    .watch(afs_fuse::InvalidationSink::new(move |change| sink.lock().push(change), |_| true)),
            );
            Self { sessions: Sessions(app), told, _dir: dir }
        }

        /// Whether the kernel finds the name.
        fn finds(&self, id: &str) -> bool {
            self.sessions.0.all.lookup(ROOT_INO, NameRef::new(id.as_bytes()).unwrap()).is_ok()
        }

        /// Starts a call, drops it before it is answered, and waits until the mount hears that the name leads elsewhere.
        async fn cancelled<T>(&self, id: &str, call: impl Future<Output = T>) {
            self.told.lock().clear();
            let mut call = Box::pin(call);
            assert!((&mut call).now_or_never().is_none(), "it was answered at once");
            drop(call);
            let want = Invalidation::Entry { parent: ROOT_INO, name: id.as_bytes().into() };
            let until = Instant::now() + Duration::from_secs(20);
            while !self.told.lock().contains(&want) {
                assert!(Instant::now() < until, "nobody has told the kernel of {id}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_mount_is_told_also_when_the_caller_has_left() {
        let bed = Bed::new();
        let sessions = &bed.sessions;
        assert!(!bed.finds("sess_a"), "the kernel may keep that from here on");
        let make = v1::CreateSessionRequest { session_id: "sess_a".into(), ..Default::default() };
        bed.cancelled("sess_a", sessions.create_session(Request::new(make))).await;
        assert!(bed.finds("sess_a"));
        // In RAM, and as a whole in one call of the engine.
        for (new, request_id) in [("sess_b", ""), ("sess_c", "r")] {
            assert!(!bed.finds(new));
            let fork = v1::ForkSessionRequest {
                session_id: "sess_a".into(),
                new_session_ids: vec![new.into()],
                request_id: request_id.into(),
                ..Default::default()
            };
            bed.cancelled(new, sessions.fork_session(Request::new(fork))).await;
            assert!(bed.finds(new));
        }
        let archive = v1::ArchiveSessionRequest { session_id: "sess_a".into() };
        bed.cancelled("sess_a", sessions.archive_session(Request::new(archive))).await;
        assert!(!bed.finds("sess_a"));
        let resume = v1::ResumeSessionRequest { session_id: "sess_a".into() };
        bed.cancelled("sess_a", sessions.resume_session(Request::new(resume))).await;
        assert!(bed.finds("sess_a"));
        let delete = v1::DeleteSessionRequest { session_id: "sess_a".into(), ..Default::default() };
        bed.cancelled("sess_a", sessions.delete_session(Request::new(delete))).await;
        assert!(!bed.finds("sess_a"));
    }
}
