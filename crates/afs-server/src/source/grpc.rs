//! SourceService.

use super::wire;
use crate::app::App;
use crate::page;
use crate::reply::{Reply, fail, field, optional, page_size, reply, request_id};
use afs_proto::v1::source_service_server::SourceService;
use afs_proto::v1::{self, Source};
use afs_session::{CreateSource, SourceInfo, SourceState};
use afs_types::{Error, Result, SourceId, limits};
use pbjson_types::Empty;
use std::sync::Arc;
use std::time::Duration;
use tonic::Request;

/// Longest `wait_seconds`.
const MAX_WAIT: Duration = Duration::from_secs(60);
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

    /// A source, after a running import has ended or the time is over.
    async fn wait(&self, id: SourceId, limit: Duration) -> Result<SourceInfo> {
        let until = tokio::time::Instant::now() + limit;
        loop {
            let of = id.clone();
            let info = self.engine(move |e| e.get_source(&of)).await?;
            if info.state != SourceState::Running || tokio::time::Instant::now() >= until {
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
        if limit > MAX_WAIT {
            return Err(fail(Error::above("wait_seconds", MAX_WAIT.as_secs(), "seconds")));
        }
        reply(self.wait(id, limit).await, wire::source)
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
