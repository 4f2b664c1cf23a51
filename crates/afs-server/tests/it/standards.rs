//! What tools of others expect: health, reflection, OpenAPI, plain HTTP manners; and what a browser may not do.

use crate::client::Client;
use crate::harness::{Server, empty_session};
use afs_proto::rest::ROUTES;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

async fn http() -> (Server, Client) {
    let server = Server::start().await;
    let [_, http] = server.both().await;
    (server, http)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_reports_its_health() {
    let server = Server::start().await;
    let [grpc, _] = server.both().await;
    let mut health = HealthClient::new(grpc.channel.clone());
    for service in ["", "aether.v1.SessionService", "aether.v1.BridgeService", "aether.v1.FileSystemService"]
    {
        let request = HealthCheckRequest { service: service.into() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services_in_both_versions() {
    let server = Server::start().await;
    let [grpc, _] = server.both().await;
    macro_rules! services {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let message = MessageRequest::ListServices(String::new());
            let request = tonic_reflection::pb::$version::ServerReflectionRequest {
                message_request: Some(message),
                ..Default::default()
            };
            let requests = tokio_stream::once(request);
            let mut client = ServerReflectionClient::new(grpc.channel.clone());
            let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
            match answers.message().await.unwrap().unwrap().message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    list.service.into_iter().map(|s| s.name).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            }
        }};
    }
    for list in [services!(v1), services!(v1alpha)] {
        for name in ["Admin", "Bridge", "FileSystem", "Persistence", "Session", "Source"] {
            assert!(list.contains(&format!("aether.v1.{name}Service")), "{list:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_routes_answer() {
    let (_server, http) = http().await;
    assert_eq!(&http.send("GET", "/healthz", &[], "").await.body[..], b"ok\n");
    let ready: Value = serde_json::from_slice(&http.send("GET", "/readyz", &[], "").await.body).unwrap();
    let checks: Vec<_> =
        ready["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(checks, ["journal", "store", "engine", "bridge"]);
    let version: Value = serde_json::from_slice(&http.send("GET", "/version", &[], "").await.body).unwrap();
    assert_eq!(version["api_version"], "aether.v1");
    let openapi = http.send("GET", "/openapi.json", &[], "").await;
    assert_eq!(openapi.body, afs_proto::openapi_json());
    let info = http.ok("Admin.GetServerInfo", json!({})).await;
    assert!(
        info["limits"]["name_bytes"] == "255" && info["counters"]["sessions_resident"].is_string(),
        "{info}"
    );
    for name in
        ["operations_per_call", "imports", "ino", "mounts", "waiting_calls", "grep_globs", "dry_run_bytes"]
    {
        assert!(info["limits"][name].is_string(), "{name}: {info}");
    }
    let checks = http.ok("Admin.CheckReadiness", json!({})).await;
    assert!(checks["checks"].as_array().unwrap().iter().all(|c| c["status"] == "ok"), "{checks}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_described_path_is_served() {
    let (_server, http) = http().await;
    let document: Value = serde_json::from_str(afs_proto::openapi_json()).unwrap();
    let mut count = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let uri = path.replace("{path}", "f").replace(['{', '}'], "");
        for verb in item.as_object().unwrap().keys().filter(|k| *k != "parameters") {
            let answer = http.send(&verb.to_uppercase(), &uri, &[], "").await;
            assert!(![404, 405].contains(&answer.status), "{verb} {uri}: {:?}", answer.body);
            count += 1;
        }
    }
    assert_eq!(count, ROUTES.len() + 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_route_is_a_problem() {
    let (_server, http) = http().await;
    for (verb, uri, status) in [
        ("GET", "/", 404),
        ("GET", "/v1/nope", 404),
        ("PUT", "/v1/sessions", 405),
        ("PATCH", "/healthz", 405),
    ] {
        let answer = http.send(verb, uri, &[], "").await;
        assert_eq!(
            (answer.status, answer.headers["content-type"].to_str().unwrap()),
            (status, "application/problem+json"),
            "{verb} {uri}"
        );
    }
    let grpc = [("content-type", "application/grpc")];
    let answer = http.send("POST", "/aether.v1.SessionService/Explode", &grpc, "").await;
    assert_eq!(answer.headers["grpc-status"], "12");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_web_page_may_call() {
    let (_server, http) = http().await;
    let cross = http.send("POST", "/v1/sessions", &[("origin", "http://evil.example")], "{}").await;
    assert_eq!(cross.status, 403);
    let rebound = http.send("GET", "/v1/sessions", &[("host", "evil.example")], "").await;
    assert_eq!(rebound.status, 403);
    let form = [("content-type", "text/plain")];
    assert_eq!(http.send("POST", "/v1/sessions", &form, "{}").await.status, 400);
    assert_eq!(http.ok("Session.ListSessions", json!({})).await["sessions"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_messages_have_limits() {
    let (server, http) = http().await;
    let id = empty_session(&http).await;
    let mut raw = TcpStream::connect(server.running().addresses()[0]).await.unwrap();
    let endless = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-long: {}", "x".repeat(100_000));
    // The server may hang up before it has read all of it.
    let _ = raw.write_all(endless.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    let body = format!("{{\"path\": \"/f\", \"edits\": [{{\"old_text\": \"{}\"}}]}}", "y".repeat(17 << 20));
    let head = format!(
        "POST /v1/sessions/{id}/edit HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut raw = TcpStream::connect(server.running().addresses()[0]).await.unwrap();
    // The server may hang up before it has read all of it.
    let _ = raw.write_all((head + &body).as_bytes()).await;
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
}
