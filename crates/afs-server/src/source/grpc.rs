//! SourceService.

use super::wire;
use crate::app::App;
use crate::page;
use crate::reply::{Reply, fail, field, optional, page_size, reply, request_id};
use afs_proto::v1::source_service_server::SourceService;
use afs_proto::v1::{self, Source};
use afs_session::{CreateSource, SourceInfo};
use afs_types::{Error, Result, SourceId, limits};
use pbjson_types::Empty;
use std::sync::Arc;
use std::time::Duration;
use tonic::Request;

/// How often a waiting call looks: no thread is held meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Answers for sources.
pub(crate) struct Sources(pub(crate) Arc<App>);

fn id(text: &str) -> Result<SourceId> {
    field("source_id", SourceId::parse(text))
}

impl Sources {
    async fn engine<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Arc<afs_session::Engine>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let engine = self.0.engine.clone();
        self.0.pool.run(move || call(&engine)).await
    }

    /// A source, after the import `wanted` (none: what was asked for before this call) has ended or the time is over. Others may ask for
    /// more all the time, so then it is as of that end, although the next import may run already.
    async fn wait(&self, id: SourceId, limit: Duration, wanted: Option<u64>) -> Result<SourceInfo> {
        let until = tokio::time::Instant::now() + limit;
        let mut last = None;
        loop {
            let of = id.clone();
            let info = self.engine(move |e| e.get_source(&of)).await?;
            let Some(run) = info.run else { return Ok(info) };
            // A number that has not been given since the server started was given before that, to an import that is no more.
            let first = || wanted.filter(|number| *number <= run.last).unwrap_or(run.last);
            if run.number > *last.get_or_insert_with(first) {
                return Ok(info.ended());
            }
            if tokio::time::Instant::now() >= until {
                return Ok(info);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[tonic::async_trait]
impl SourceService for Sources {
    async fn create_source(&self, r: Request<v1::CreateSourceRequest>) -> Reply<Source> {
        let r = r.into_inner();
        let want = (|| {
            Ok(CreateSource {
                source_id: optional("source_id", &r.source_id, SourceId::parse)?,
                display_name: r.display_name,
                spec: wire::spec(r.spec)?,
                labels: r.labels,
                request_id: request_id(&r.request_id)?,
            })
        })();
        let want = want.map_err(fail)?;
        reply(self.engine(move |e| e.create_source(want)).await, wire::source)
    }

    async fn get_source(&self, r: Request<v1::GetSourceRequest>) -> Reply<Source> {
        let r = r.into_inner();
        let id = id(&r.source_id).map_err(fail)?;
        let limit = Duration::from_secs(r.wait_seconds.into());
        if limit.as_secs() > limits::MAX_WAIT_S {
            return Err(fail(Error::above("wait_seconds", limits::MAX_WAIT_S, "seconds")));
        }
        let wanted = Some(r.import_number).filter(|number| *number > 0);
        reply(self.wait(id, limit, wanted).await, wire::source)
    }

    async fn list_sources(&self, r: Request<v1::ListSourcesRequest>) -> Reply<v1::ListSourcesResponse> {
        let r = r.into_inner();
        let size = page_size(r.page_size).map_err(fail)?;
        let after = page::decode(&["sources"], &r.page_token).map_err(fail)?;
        let page = self.engine(move |e| e.list_sources(size, after.as_deref())).await;
        reply(page, |page| v1::ListSourcesResponse {
            sources: page.items.into_iter().map(wire::source).collect(),
            next_page_token: page::encode(&["sources"], page.next),
        })
    }

    async fn refresh_source(&self, r: Request<v1::RefreshSourceRequest>) -> Reply<Source> {
        let r = r.into_inner();
        let id = id(&r.source_id).map_err(fail)?;
        if r.r#ref.len() > limits::MAX_PATH_BYTES || r.r#ref.contains('\0') {
            return Err(fail(Error::invalid("ref", "a branch, tag or commit")));
        }
        let reference = Some(r.r#ref).filter(|t| !t.is_empty());
        reply(self.engine(move |e| e.refresh_source(&id, reference)).await, wire::source)
    }

    async fn list_source_versions(
        &self,
        r: Request<v1::ListSourceVersionsRequest>,
    ) -> Reply<v1::ListSourceVersionsResponse> {
        let r = r.into_inner();
        let id = id(&r.source_id).map_err(fail)?;
        let size = page_size(r.page_size).map_err(fail)?;
        let bound = ["versions", r.source_id.as_str()];
        let after = page::decode(&bound, &r.page_token).map_err(fail)?;
        let page = self.engine(move |e| e.list_versions(&id, size, after.as_deref())).await;
        reply(page, |page| v1::ListSourceVersionsResponse {
            versions: page.items.into_iter().map(wire::version).collect(),
            next_page_token: page::encode(&bound, page.next),
        })
    }

    async fn delete_source(&self, r: Request<v1::DeleteSourceRequest>) -> Reply<Empty> {
        let r = r.into_inner();
        let id = id(&r.source_id).map_err(fail)?;
        reply(self.engine(move |e| e.delete_source(&id, r.force)).await, |()| Empty {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_one_import_is_not_held_by_those_that_others_ask_for() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { data_dir: Some(dir.path().join("data")), ..Settings::default() };
        let sources = Sources(App::open(&settings.resolve().unwrap()).unwrap());
        // Every import hangs here, until its connection is dropped and it fails.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asked =
            async || tokio::time::timeout(PATIENCE, listener.accept()).await.expect("no import").unwrap();
        let url = format!("git://{}/x.git", listener.local_addr().unwrap());
        let spec = v1::source_spec::Spec::Git(v1::GitSpec { url, ..Default::default() });
        let make = v1::CreateSourceRequest {
            source_id: "src_x".into(),
            spec: Some(v1::SourceSpec { spec: Some(spec) }),
            ..Default::default()
        };
        let refresh = async || {
            let refresh = v1::RefreshSourceRequest { source_id: "src_x".into(), ..Default::default() };
            sources.refresh_source(Request::new(refresh)).await.unwrap().into_inner()
        };
        let look = async |import_number, wait_seconds| {
            let get = v1::GetSourceRequest { source_id: "src_x".into(), wait_seconds, import_number };
            sources.get_source(Request::new(get)).await.unwrap().into_inner()
        };
        let first = sources.create_source(Request::new(make)).await.unwrap().into_inner();
        assert_eq!(first.state(), v1::ResourceState::Running);
        let connection = asked().await;
        let second = refresh().await;
        assert!(
            second.import_number > first.import_number && first.import_number > 0,
            "{first:?} {second:?}"
        );
        drop(connection);
        let connection = asked().await;
        let third = refresh().await;
        assert!(third.import_number > second.import_number, "{third:?}");
        // The first one has ended, although the second runs and the third is asked for: also for who looks only now and then.
        let seen = look(first.import_number, 0).await;
        assert_eq!((seen.state(), seen.import_number), (v1::ResourceState::Failed, 0), "{seen:?}");
        assert!(seen.failure.is_some(), "{seen:?}");
        assert_eq!(look(second.import_number, 0).await.state(), v1::ResourceState::Running);
        assert_eq!(look(0, 0).await.state(), v1::ResourceState::Running);
        // From before a restart, perhaps: that is no reason to wait for longer than for what there is.
        assert_eq!(look(u64::MAX, 0).await.import_number, third.import_number);
        drop(connection);
        let connection = asked().await;
        assert_eq!(look(second.import_number, 0).await.state(), v1::ResourceState::Failed);
        drop(connection);
        assert_eq!(look(third.import_number, 60).await.state(), v1::ResourceState::Failed);
    }
}
