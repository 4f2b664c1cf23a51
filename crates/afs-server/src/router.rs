//! All surfaces behind one router: gRPC services, REST routes over the same services, raw bytes, and the operators' routes.

use crate::admin::{Admin, run_checks};
use crate::app::App;
use crate::bridge::Bridge;
use crate::file_system::FileSystem;
use crate::guard::local_only;
use crate::intake::{Intake, account, is_grpc};
use crate::persistence::Persistence;
use crate::session::Sessions;
use crate::source::Sources;
use crate::{raw, reply};
use afs_proto::rest::{self, problem_response, problem_with_status};
use afs_proto::v1::admin_service_server::AdminServiceServer;
use afs_proto::v1::bridge_service_server::BridgeServiceServer;
use afs_proto::v1::file_system_service_server::FileSystemServiceServer;
use afs_proto::v1::persistence_service_server::PersistenceServiceServer;
use afs_proto::v1::session_service_server::SessionServiceServer;
use afs_proto::v1::source_service_server::SourceServiceServer;
use afs_types::{Error, Reason, Result, limits};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use std::sync::Arc;
use tonic::service::Routes;

/// Room for the frame around the largest content.
const MAX_GRPC_BYTES: usize = limits::MAX_MESSAGE_SIZE_BYTES + (64 << 10);

/// The whole server as one router.
pub(crate) async fn router(app: Arc<App>) -> Result<Router> {
    let (sessions, sources) = (Arc::new(Sessions(app.clone())), Arc::new(Sources(app.clone())));
    let (files, persistence) = (Arc::new(FileSystem(app.clone())), Arc::new(Persistence(app.clone())));
    let (admin, bridge) = (Arc::new(Admin(app.clone())), Arc::new(Bridge(app.clone())));

    macro_rules! limited {
        ($server:ident, $service:expr) => {
            $server::from_arc($service.clone())
                .max_decoding_message_size(MAX_GRPC_BYTES)
                .max_encoding_message_size(MAX_GRPC_BYTES)
        };
    }
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<SessionServiceServer<Sessions>>().await;
    reporter.set_serving::<SourceServiceServer<Sources>>().await;
    reporter.set_serving::<FileSystemServiceServer<FileSystem>>().await;
    reporter.set_serving::<PersistenceServiceServer<Persistence>>().await;
    reporter.set_serving::<BridgeServiceServer<Bridge>>().await;
    reporter.set_serving::<AdminServiceServer<Admin>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(afs_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken =
        |e: tonic_reflection::server::Error| Error::new(Reason::Internal, format!("reflection: {e}"));

    let grpc = Routes::new(health)
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?)
        .add_service(limited!(SessionServiceServer, sessions))
        .add_service(limited!(SourceServiceServer, sources))
        .add_service(limited!(FileSystemServiceServer, files))
        .add_service(limited!(PersistenceServiceServer, persistence))
        .add_service(limited!(BridgeServiceServer, bridge))
        .add_service(limited!(AdminServiceServer, admin));

    let router = grpc
        .into_axum_router()
        .merge(rest::session_service_routes(sessions))
        .merge(rest::source_service_routes(sources))
        .merge(rest::file_system_service_routes(files))
        .merge(rest::persistence_service_routes(persistence))
        .merge(rest::admin_service_routes(admin))
        .merge(raw::routes(app.clone()))
        .merge(operators(app));
    Ok(router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::new(Intake::default()), account))
        .layer(from_fn(local_only))
        .layer(map_response(plain_sniffing)))
}

fn operators(app: Arc<App>) -> Router {
    let version = json!({"version": env!("CARGO_PKG_VERSION"), "api_version": "aether.v1"});
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/version", get(|| async { Json(version) }))
        .route(
            "/openapi.json",
            get(|| async { ([(header::CONTENT_TYPE, "application/json")], afs_proto::openapi_json()) }),
        )
        .with_state(app)
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let of = app.clone();
    let checks = match app.pool.run_unasked(move || Ok(run_checks(&of))).await {
        Ok(checks) => checks,
        Err(error) => return problem_response(&error, Some("/readyz")),
    };
    let all_well = checks.iter().all(|c| c.status != "failed");
    let list: Vec<_> = checks
        .iter()
        .map(|c| {
            json!({"name": c.name, "status": c.status, "message": c.message,
                "next_step": c.next_step, "latency_ms": c.latency_ms})
        })
        .collect();
    let status = if all_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"checks": list}))).into_response()
}

async fn unknown(request: Request) -> Response {
    if is_grpc(&request) {
        let method = request.uri().path().to_owned();
        let error = Error::new(Reason::Unsupported, format!("{method} is not a method of this server"));
        return reply::fail(error).into_http();
    }
    let error =
        Error::new(Reason::NotFound, format!("{} is not a route of this server", request.uri().path()))
            .next("see /openapi.json for the routes");
    problem_response(&error, Some(request.uri().path()))
}

async fn wrong_method(request: Request) -> Response {
    let error = Error::new(
        Reason::InvalidArgument,
        format!("{} {} is not a route of this server", request.method(), request.uri().path()),
    )
    .with("field", "method")
    .next("see /openapi.json for the methods of this path");
    problem_with_status(&error, StatusCode::METHOD_NOT_ALLOWED.as_u16(), Some(request.uri().path()))
}

/// No browser may take an answer for something else than it says.
async fn plain_sniffing(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
