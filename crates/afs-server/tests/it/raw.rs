//! Raw bytes over HTTP.

use crate::client::{Answer, Client};
use crate::harness::{Server, empty_session};
use serde_json::Value;

async fn setup() -> (Server, Client, String) {
    let server = Server::start().await;
    let [_, http] = server.both().await;
    let id = empty_session(&http).await;
    (server, http, format!("/v1/sessions/{id}/files"))
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers[name].to_str().unwrap()
}

fn reason(answer: &Answer) -> String {
    assert_eq!(header(answer, "content-type"), "application/problem+json");
    serde_json::from_slice::<Value>(&answer.body).unwrap()["reason"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_in_and_out() {
    let (_server, http, files) = setup().await;
    let put = http.send("PUT", &format!("{files}/deep/dir/a.bin?mode=755"), &[], "0123456789").await;
    assert_eq!(put.status, 200, "{:?}", put.body);
    let answer: Value = serde_json::from_slice(&put.body).unwrap();
    assert_eq!(answer["entry"]["mode"].as_u64().unwrap() & 0o7777, 0o755);
    let get = http.send("GET", &format!("{files}/deep/dir/a.bin"), &[], "").await;
    assert_eq!((get.status, &get.body[..]), (200, &b"0123456789"[..]));
    assert_eq!(header(&get, "etag"), header(&put, "etag"));
    assert_eq!(header(&get, "content-type"), "application/octet-stream");
    assert_eq!(header(&get, "x-content-type-options"), "nosniff");
    let head = http.send("HEAD", &format!("{files}/deep/dir/a.bin"), &[], "").await;
    assert_eq!((head.status, head.body.len(), header(&head, "content-length")), (200, 0, "10"));
    let gone = http.send("DELETE", &format!("{files}/deep/dir/a.bin"), &[], "").await;
    assert_eq!(gone.status, 200);
    let missing = http.send("GET", &format!("{files}/deep/dir/a.bin"), &[], "").await;
    assert_eq!((missing.status, reason(&missing).as_str()), (404, "NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges() {
    let (_server, http, files) = setup().await;
    let uri = format!("{files}/r");
    http.send("PUT", &uri, &[], "0123456789").await;
    let part = http.send("GET", &uri, &[("range", "bytes=2-4")], "").await;
    assert_eq!(
        (part.status, &part.body[..], header(&part, "content-range")),
        (206, &b"234"[..], "bytes 2-4/10")
    );
    let tail = http.send("GET", &uri, &[("range", "bytes=-3")], "").await;
    assert_eq!((&tail.body[..], header(&tail, "content-range")), (&b"789"[..], "bytes 7-9/10"));
    let beyond = http.send("GET", &uri, &[("range", "bytes=10-")], "").await;
    assert_eq!((beyond.status, header(&beyond, "content-range")), (416, "bytes */10"));
    assert_eq!(reason(&beyond), "OUT_OF_RANGE");
    let stale = http.send("GET", &uri, &[("range", "bytes=0-0"), ("if-range", "\"b3-0\"")], "").await;
    assert_eq!((stale.status, stale.body.len()), (200, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions() {
    let (_server, http, files) = setup().await;
    let uri = format!("{files}/c");
    let absent = [("if-none-match", "*")];
    assert_eq!(http.send("PUT", &uri, &absent, "1").await.status, 200);
    let taken = http.send("PUT", &uri, &absent, "2").await;
    assert_eq!((taken.status, reason(&taken).as_str()), (412, "ETAG_MISMATCH"));
    let etag = header(&http.send("GET", &uri, &[], "").await, "etag").to_owned();
    assert_eq!(http.send("GET", &uri, &[("if-none-match", &etag)], "").await.status, 304);
    assert_eq!(http.send("GET", &uri, &[("if-match", "\"x\"")], "").await.status, 412);
    assert_eq!(http.send("PUT", &uri, &[("if-match", "\"x\"")], "3").await.status, 412);
    assert_eq!(http.send("PUT", &uri, &[("if-match", &etag)], "3").await.status, 200);
    assert_eq!(http.send("DELETE", &uri, &[("if-match", &etag)], "").await.status, 412);
    assert_eq!(&http.send("GET", &uri, &[], "").await.body[..], b"3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_put_has_one_effect() {
    let (_server, http, files) = setup().await;
    let uri = format!("{files}/k");
    let key = [("idempotency-key", "put-1")];
    let first = http.send("PUT", &uri, &key, "a").await;
    http.send("PUT", &uri, &[], "b").await;
    let again = http.send("PUT", &uri, &key, "a").await;
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(&http.send("GET", &uri, &[], "").await.body[..], b"b");
    assert_eq!(reason(&http.send("PUT", &uri, &key, "c").await), "REQUEST_ID_REUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_by_name() {
    let (_server, http, files) = setup().await;
    http.send("PUT", &format!("{files}/f"), &[], "x").await;
    for (verb, uri, headers, field) in [
        ("GET", format!("{files}/a/../f"), vec![], "path"),
        ("GET", format!("{files}/a%00"), vec![], "path"),
        ("GET", format!("{files}/{}", "a".repeat(300)), vec![], "path"),
        ("GET", format!("{files}/f?colour=red"), vec![], "colour"),
        ("PUT", format!("{files}/f?mode=rwx"), vec![], "mode"),
        ("PUT", format!("{files}/f?durability=eternal"), vec![], "durability"),
        ("PUT", format!("{files}/f"), vec![("if-none-match", "\"x\"")], "if-none-match"),
        ("PUT", format!("{files}/f"), vec![("content-range", "bytes 0-0/1")], "content-range"),
        ("PUT", format!("{files}/f"), vec![("idempotency-key", "a b")], "idempotency-key"),
        ("GET", "/v1/sessions/NOPE/files/f".to_owned(), vec![], "session_id"),
        ("DELETE", "/v1/sessions/sess_%F0/files/f".to_owned(), vec![], "session_id"),
    ] {
        let answer = http.send(verb, &uri, &headers, "x").await;
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (answer.status, problem["metadata"]["field"].as_str()),
            (400, Some(field)),
            "{verb} {uri}: {problem}"
        );
    }
    let dir = http.send("GET", &format!("{files}/"), &[], "").await;
    assert!((400..500).contains(&dir.status));
    let post = http.send("POST", &format!("{files}/f"), &[], "x").await;
    assert_eq!(post.status, 405);
}
