//! Routes made from the annotations, over a small service of its own.

use crate::fake::Fake;
use afs_proto::rest::{ROUTES, persistence_service_routes};
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt as _;

async fn send(request: Request<Body>) -> Response<Body> {
    persistence_service_routes(Arc::new(Fake)).oneshot(request).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn call(verb: &str, uri: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let response = send(Request::builder().method(verb).uri(uri).body(body.into()).unwrap()).await;
    let status = response.status();
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    assert_eq!(kind, if status.is_success() { "application/json" } else { "application/problem+json" });
    (status, serde_json::from_str(&text(response).await).unwrap())
}

const CHECKPOINTS: &str = "/v1/sessions/sess_a/checkpoints";

#[tokio::test]
async fn path_body_and_headers_become_one_request() {
    let (status, answer) = call("POST", CHECKPOINTS, r#"{"name": "one", "requestId": "r"}"#).await;
    assert_eq!(status, 200);
    assert_eq!(answer["session_id"], "sess_a");
    assert_eq!((&answer["name"], &answer["message"]), (&json!("one"), &json!("r")));
    assert_eq!(answer["revision"], u64::MAX.to_string(), "64-bit integers are strings");
    assert_eq!(answer["create_time"], "1970-01-01T00:00:01.500+00:00");
    assert_eq!(answer["automatic"], false, "defaults are written");

    let request = Request::post(CHECKPOINTS).header("idempotency-key", "k1").body(Body::empty()).unwrap();
    let answer: Value = serde_json::from_str(&text(send(request).await).await).unwrap();
    assert_eq!(answer["message"], "k1");
}

#[tokio::test]
async fn the_path_must_agree_with_the_body() {
    assert_eq!(call("POST", CHECKPOINTS, r#"{"session_id": "sess_a"}"#).await.0, 200);
    assert_eq!(call("POST", CHECKPOINTS, r#"{"session_id": null}"#).await.0, 200);
    // Also a default that was written down is a word.
    for other in ["sess_b", ""] {
        let body = format!("{{\"session_id\": \"{other}\"}}");
        let (status, problem) = call("POST", CHECKPOINTS, body).await;
        assert_eq!(
            (status.as_u16(), &problem["metadata"]["field"]),
            (400, &json!("session_id")),
            "{other:?}"
        );
        let (status, problem) = call("GET", &format!("{CHECKPOINTS}?session_id={other}"), "").await;
        assert_eq!(
            (status.as_u16(), &problem["metadata"]["field"]),
            (400, &json!("session_id")),
            "{other:?}"
        );
    }
}

#[tokio::test]
async fn query_parameters_are_typed() {
    let (_, answer) = call("GET", &format!("{CHECKPOINTS}?page_size=7&includeAutomatic=true"), "").await;
    assert_eq!(answer["next_page_token"], "sess_a 7 true");
    for bad in
        ["page_size=x", "page_size=1&page_size=2", "nope=1", "include_automatic=maybe", "page_token=%ff"]
    {
        let (status, problem) = call("GET", &format!("{CHECKPOINTS}?{bad}"), "").await;
        assert_eq!(status, 400, "{bad}");
        assert_eq!(problem["reason"], "INVALID_ARGUMENT");
        assert!(bad.starts_with(problem["metadata"]["field"].as_str().unwrap()), "{bad}: {problem}");
    }
    let (status, problem) = call("POST", &format!("{CHECKPOINTS}?name=x"), "{}").await;
    assert_eq!((status.as_u16(), &problem["violations"][0]["field"]), (400, &json!("name")));
}

#[tokio::test]
async fn bodies_that_are_not_the_message_are_refused_by_name() {
    for (body, field) in [
        ("[1]", "body"),
        ("{", "body"),
        ("\"x\"", "body"),
        (r#"{"nam": "x"}"#, "nam"),
        (r#"{"name": 1}"#, "name"),
        (r#"{"name": "\ud800"}"#, "body"),
    ] {
        let (status, problem) = call("POST", CHECKPOINTS, body).await;
        assert_eq!((status.as_u16(), problem["metadata"]["field"].as_str()), (400, Some(field)), "{body}");
        assert!(!problem["next_steps"][0].as_str().unwrap().is_empty());
    }
    let deep = "{\"name\":".repeat(100_000);
    assert_eq!(call("POST", CHECKPOINTS, deep).await.0, 400);
    let (status, problem) = call("POST", CHECKPOINTS, vec![b' '; 17 << 20]).await;
    assert_eq!((status.as_u16(), problem["reason"].as_str()), (413, Some("MESSAGE_TOO_LARGE")));
    let request = Request::post(CHECKPOINTS).header("content-type", "text/plain").body("{}".into()).unwrap();
    assert_eq!(send(request).await.status(), 400);
}

#[tokio::test]
async fn errors_are_problems_with_the_status_of_their_reason() {
    let (status, problem) = call("GET", "/v1/sessions/sess_a/checkpoints/ckpt_x", "").await;
    assert_eq!(status, 404);
    assert_eq!(problem["reason"], "CHECKPOINT_NOT_FOUND");
    assert_eq!(problem["code"], "NOT_FOUND");
    assert_eq!(problem["metadata"]["id"], "ckpt_x");
    assert_eq!(problem["instance"], "/v1/sessions/sess_a/checkpoints/ckpt_x");
    assert_eq!(call("POST", "/v1/sessions/sess_a/restore", "").await.0, 412);
    let (_, problem) = call("POST", "/v1/sessions/A%20b/checkpoints", "").await;
    assert_eq!(problem["reason"], "INVALID_ID");
    let response = send(Request::get("/v1/commits/cmt_x").body(Body::empty()).unwrap()).await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "1"));
}

#[tokio::test]
async fn oneofs_and_empty_answers_work() {
    let (status, answer) =
        call("POST", "/v1/sessions/sess_a/commits", r#"{"git": {"author_name": "Ann"}}"#).await;
    assert_eq!((status.as_u16(), answer["message"].as_str()), (200, Some("Ann")));
    let (status, answer) = call("DELETE", "/v1/sessions/sess_a/checkpoints/ckpt_x", "").await;
    assert_eq!((status.as_u16(), answer), (200, json!({})));
}

#[tokio::test]
async fn streams_are_events_or_lines() {
    let diff = |query: &str, accept: &str| {
        Request::get(format!("/v1/sessions/sess_a/diff?{query}"))
            .header("accept", accept)
            .body(Body::empty())
            .unwrap()
    };
    let events = text(send(diff("paths=/a&paths=/b", "*/*")).await).await;
    assert_eq!(events.matches("data: {\"path\":").count(), 2);
    assert!(events.ends_with("event: end\ndata: {}\n\n"), "{events}");

    let lines = text(send(diff("paths=/a&paths=/b", "application/x-ndjson")).await).await;
    let paths: Vec<_> =
        lines.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["path"].clone()).collect();
    assert_eq!(paths, ["/a", "/b"]);

    let cut = text(send(diff("target=cut&paths=/a", "*/*")).await).await;
    assert!(
        cut.contains("event: error\ndata: {\"type\"")
            && !cut.contains("event: end")
            && !cut.contains("/after"),
        "{cut}"
    );
    let cut = text(send(diff("target=cut&paths=/a", "application/x-ndjson")).await).await;
    let last: Value = serde_json::from_str(cut.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["reason"], "CHECKPOINT_NOT_FOUND");

    assert_eq!(send(diff("target=none", "*/*")).await.status(), 404, "an error before the first message");
}

#[test]
fn every_route_is_listed_once() {
    let mut seen: Vec<_> = ROUTES.iter().map(|r| (r.verb, r.path)).collect();
    assert!(seen.len() > 40, "{}", seen.len());
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), ROUTES.len());
    assert!(ROUTES.iter().all(|r| r.body == matches!(r.verb, "POST" | "PATCH" | "PUT")));
}
