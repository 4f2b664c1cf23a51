//! What a client says is taken or refused, never left out: conditions, bodies, names that come twice, lists that are too long.

use crate::client::{Client, Surface};
use crate::harness::{Server, empty_session};
use afs_proto::v1;
use afs_types::limits;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn setup() -> (Server, Client, String) {
    let server = Server::start().await;
    let [_, http] = server.both().await;
    let id = empty_session(&http).await;
    http.write(&id, "/f", b"one two\n").await.unwrap();
    (server, http, id)
}

async fn refused(
    http: &Client,
    verb: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String, String) {
    let answer = http.send(verb, uri, headers, body.to_owned()).await;
    let problem: Value =
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{verb} {uri}: {:?}", answer.body));
    assert_eq!(problem["status"], answer.status, "the body says what the status line says");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (answer.status, text(&problem["reason"]), text(&problem["metadata"]["field"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_on_every_method_that_has_them_and_are_refused_elsewhere() {
    let (_server, http, id) = setup().await;
    let edit = format!("/v1/sessions/{id}/edit");
    let body = r#"{"path": "/f", "edits": [{"old_text": "one", "new_text": "1"}]}"#;
    let stale = refused(&http, "POST", &edit, &[("if-match", "\"b3-0\"")], body).await;
    assert_eq!((stale.0, stale.1.as_str()), (412, "ETAG_MISMATCH"));
    let absent = refused(&http, "POST", &edit, &[("if-none-match", "*")], body).await;
    assert_eq!((absent.0, absent.1.as_str()), (412, "ETAG_MISMATCH"));
    assert_eq!(http.read(&id, "/f").await.unwrap(), b"one two\n");
    let etag = http.ok("FileSystem.Stat", json!({"session_id": id, "path": "/f"})).await["etag"].clone();
    let list = format!("\"x\", \"{}\"", etag.as_str().unwrap());
    assert_eq!(http.send("POST", &edit, &[("if-match", &list)], body.to_owned()).await.status, 200);

    let session = format!("/v1/sessions/{id}");
    let patch = r#"{"session": {"display_name": "x"}, "update_mask": "display_name"}"#;
    let stale = refused(&http, "PATCH", &session, &[("if-match", "\"999\"")], patch).await;
    assert_eq!((stale.0, stale.1.as_str()), (412, "REVISION_MISMATCH"));
    assert_eq!(http.ok("Session.GetSession", json!({"session_id": id})).await["display_name"], "");
    let stale = refused(&http, "DELETE", &session, &[("if-match", "\"999\"")], "").await;
    assert_eq!((stale.0, stale.1.as_str()), (412, "REVISION_MISMATCH"));

    for (verb, uri, header) in [
        ("POST", format!("/v1/sessions/{id}/checkpoints"), "if-match"),
        ("POST", format!("/v1/sessions/{id}/archive"), "if-match"),
        ("POST", "/v1/sessions".into(), "if-none-match"),
        ("GET", session.clone(), "if-match"),
        ("PUT", format!("/v1/sessions/{id}/files/f"), "if-unmodified-since"),
        ("GET", format!("/v1/sessions/{id}/files/f"), "if-unmodified-since"),
        ("DELETE", format!("/v1/sessions/{id}/files/f"), "if-none-match"),
    ] {
        let answer = refused(&http, verb, &uri, &[(header, "\"1\"")], "").await;
        assert_eq!((answer.0, answer.2.as_str()), (400, header), "{verb} {uri}");
    }
    let weak =
        refused(&http, "PUT", &format!("/v1/sessions/{id}/files/f"), &[("if-match", "W/\"a\"")], "x").await;
    assert_eq!((weak.0, weak.2.as_str()), (412, "if-match"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_out_silently() {
    let (_server, http, id) = setup().await;
    let file = format!("/v1/sessions/{id}/files/f");
    for (verb, uri, headers, body, field) in [
        (
            "POST",
            "/v1/sessions".to_owned(),
            vec![],
            r#"{"display_name": "a", "display_name": "b"}"#,
            "display_name",
        ),
        ("POST", "/v1/sessions".into(), vec![], r#"{"labels": {"a": "1", "a": "2"}}"#, "labels.a"),
        (
            "POST",
            "/v1/sessions".into(),
            vec![],
            r#"{"display_name": "a", "displayName": "b"}"#,
            "display_name",
        ),
        ("POST", "/v1/sessions".into(), vec![("content-encoding", "gzip")], "{}", "content-encoding"),
        (
            "POST",
            "/v1/sessions".into(),
            vec![("idempotency-key", "a")],
            r#"{"request_id": "b"}"#,
            "idempotency-key",
        ),
        ("DELETE", format!("/v1/sessions/{id}"), vec![], r#"{"force": true}"#, "body"),
        ("GET", "/v1/sessions".into(), vec![], r#"{"page_size": 1}"#, "body"),
        ("DELETE", file.clone(), vec![], "x", "body"),
        ("GET", format!("{file}?checkpoint_id=base&checkpoint_id=live"), vec![], "", "checkpoint_id"),
        ("PUT", format!("{file}?mode=644&mode=755"), vec![], "x", "mode"),
        ("PUT", file.clone(), vec![("content-encoding", "gzip")], "x", "content-encoding"),
    ] {
        let answer = refused(&http, verb, &uri, &headers, body).await;
        assert_eq!((answer.0, answer.2.as_str()), (400, field), "{verb} {uri} {body}");
    }
    assert_eq!(http.read(&id, "/f").await.unwrap(), b"one two\n");
    let wrong = http.send("PUT", "/v1/sessions", &[], "").await;
    assert_eq!((wrong.status, wrong.headers["allow"].to_str().unwrap().contains("POST")), (405, true));
    assert_eq!(serde_json::from_slice::<Value>(&wrong.body).unwrap()["status"], 405);
    let many = format!("{{\"changes\": [{}{{}}]}}", "{},".repeat(limits::MAX_MESSAGE_ELEMENTS));
    let answer = refused(&http, "POST", &format!("/v1/sessions/{id}/changes"), &[], &many).await;
    assert_eq!((answer.0, answer.1.as_str()), (413, "MESSAGE_TOO_LARGE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truth_value_in_a_query_is_true_or_false() {
    let (server, http, id) = setup().await;
    let used = crate::harness::git_session(&http, &server.repository()).await;
    let source = used["source_id"].as_str().unwrap();
    let (source, session) = (format!("/v1/sources/{source}"), format!("/v1/sessions/{id}"));
    // Most of all, nothing is deleted that `true` alone would delete.
    for (verb, uri, field) in [
        ("DELETE", source.clone(), "force"),
        ("DELETE", session.clone(), "force"),
        ("GET", format!("{session}/diff"), "name_only"),
        ("GET", format!("{session}/checkpoints"), "include_automatic"),
    ] {
        for odd in ["", "1", "0", "yes", "TRUE"] {
            let answer = refused(&http, verb, &format!("{uri}?{field}={odd}"), &[], "").await;
            assert_eq!((answer.0, answer.2.as_str()), (400, field), "{verb} {uri} {odd:?}");
        }
        let bare = refused(&http, verb, &format!("{uri}?{field}"), &[], "").await;
        assert_eq!((bare.0, bare.2.as_str()), (400, field), "{verb} {uri}");
    }
    for uri in [&source, &session] {
        assert_eq!(http.send("GET", uri, &[], "").await.status, 200, "{uri}");
    }
    let kept = refused(&http, "DELETE", &format!("{source}?force=false"), &[], "").await;
    assert_eq!(kept.1, "IN_USE");
    assert_eq!(http.send("DELETE", &format!("{source}?force=true"), &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_mean_what_their_rfcs_say() {
    let (_server, http, id) = setup().await;
    let file = format!("/v1/sessions/{id}/files/f");
    let etag = http.ok("FileSystem.Stat", json!({"session_id": id, "path": "/f"})).await["etag"].clone();
    let etag = etag.as_str().unwrap();
    let (comma, weak) = (format!("\"x,{etag}\""), format!("\"x,y\",, W/\"{etag}\""));
    let status = async |verb: &str, uri: &str, header: (&str, &str), body: &str| {
        http.send(verb, uri, &[header], body.to_owned()).await.status
    };
    for (header, want) in [
        (("if-none-match", "*"), 304),
        (("if-none-match", &weak[..]), 304),
        (("if-none-match", "\"*\""), 200),
        (("if-none-match", &comma), 200),
        (("if-none-match", ""), 200),
        (("if-match", "*"), 200),
        (("if-match", "\"*\""), 412),
        (("if-match", &comma), 412),
        (("if-match", &weak), 412),
        (("if-match", ""), 412),
    ] {
        assert_eq!(status("GET", &file, header, "").await, want, "{header:?}");
    }
    let edit = format!("/v1/sessions/{id}/edit");
    let body = r#"{"path": "/f", "edits": [{"old_text": "one", "new_text": "1"}]}"#;
    for wrong in ["\"*\"", &comma, &weak, "", "\"\""] {
        assert_eq!(status("PUT", &file, ("if-match", wrong), "x").await, 412, "{wrong}");
        assert_eq!(status("DELETE", &file, ("if-match", wrong), "").await, 412, "{wrong}");
        let told = refused(&http, "POST", &edit, &[("if-match", wrong)], body).await;
        assert_eq!((told.0, told.1.as_str()), (412, "ETAG_MISMATCH"), "{wrong}");
    }
    assert_eq!(status("PUT", &file, ("if-none-match", "\"*\""), "x").await, 400, "no list on a change");
    assert_eq!(status("PUT", &file, ("idempotency-key", ""), "x").await, 400);
    assert_eq!(status("POST", &edit, ("idempotency-key", ""), body).await, 400);
    assert_eq!(http.read(&id, "/f").await.unwrap(), b"one two\n");
    assert_eq!(status("PUT", &file, ("if-none-match", ""), "one two\n").await, 200);
    assert_eq!(status("PUT", &file, ("content-encoding", "Identity"), "one two\n").await, 200);

    let source = http.ok("Source.CreateSource", json!({"spec": {"empty": {}}})).await;
    let source = format!("/v1/sources/{}", source["source_id"].as_str().unwrap());
    for wait in ["wait=100", "wait=99999999999999999999", "Wait=1", "wait=soon", "respond-async; wait=-1"] {
        assert_eq!(status("GET", &source, ("prefer", wait), "").await, 200, "{wait}");
    }
    let beyond = refused(&http, "GET", &format!("{source}?wait_seconds=100"), &[], "").await;
    assert_eq!(
        (beyond.0, beyond.2.as_str()),
        (400, "wait_seconds"),
        "what the request itself says is no wish"
    );

    let manifest = format!("/v1/sessions/{id}/manifest");
    for (accept, want) in [
        ("Application/X-NDJSON", "application/x-ndjson"),
        ("application/x-ndjson;q=0", "text/event-stream"),
        ("application/x-ndjson;q=0.2, text/event-stream;q=0.1", "application/x-ndjson"),
        ("application/x-ndjson;q=0.1, text/event-stream;q=0.2", "text/event-stream"),
        ("*/*", "text/event-stream"),
    ] {
        let answer = http.send("GET", &manifest, &[("accept", accept)], "").await;
        let kind = answer.headers["content-type"].to_str().unwrap();
        assert_eq!((answer.status, kind), (200, want), "{accept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_taken_exactly_or_refused() {
    let (_server, http, id) = setup().await;
    let uri = format!("/v1/sessions/{id}/setattr");
    for (mode, want) in [("493.0", 0o755), ("\"4.2e2\"", 0o644), ("448", 0o700), ("-0", 0)] {
        let body = format!("{{\"path\": \"/f\", \"mode\": {mode}}}");
        let answer = http.send("POST", &uri, &[], body).await;
        let done: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(done["entry"]["mode"].as_u64().map(|m| m & 0o7777), Some(want), "{mode}: {done}");
    }
    for wrong in
        ["493.5", "1.00000000000000000001", "\"+0\"", "\"007\"", "\" 1\"", "\"\"", "4294967296", "1e-400"]
    {
        let body = format!("{{\"path\": \"/f\", \"mode\": {wrong}}}");
        let told = refused(&http, "POST", &uri, &[], &body).await;
        assert_eq!((told.0, told.2.as_str()), (400, "mode"), "{wrong}");
    }
    // More than a binary fraction holds: the refusal says which number arrived.
    for size in ["9007199254740993", "9007199254740993.0", "9.007199254740993e15", "\"9007199254740993\""] {
        let body = format!("{{\"path\": \"/f\", \"size\": {size}}}");
        let answer = http.send("POST", &uri, &[], body).await;
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["reason"], "FILE_TOO_LARGE", "{size}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(" 9007199254740993 bytes"), "{size}: {problem}");
    }
    let both = r#"{"changes": [{"mkdir": {"path": "/a"}, "chmod": {"path": "/f", "mode": 0}}]}"#;
    let answer = http.send("POST", &format!("/v1/sessions/{id}/changes"), &[], both).await;
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (answer.status, &problem["metadata"]["field"]),
        (400, &json!("changes[0].mkdir")),
        "{problem}"
    );
    assert!(problem["detail"].as_str().unwrap().contains("only one of write, edit, remove"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_of_any_bytes_are_the_same_file_on_every_surface() {
    let server = Server::start().await;
    let [grpc, http] = server.both().await;
    let id = empty_session(&grpc).await;
    // The name is the bytes 25 ff 2f? no: `%`, 0xff. As text `%25%FF`, in a URL every `%` once more.
    let put = http.send("PUT", &format!("/v1/sessions/{id}/files/d%2F%25%FF"), &[], "x").await;
    assert_eq!(put.status, 200, "an encoded slash parts names like any other: {:?}", put.body);
    for client in [&grpc, &http] {
        let entry = client.ok("FileSystem.Stat", json!({"session_id": id, "path": "/d/%25%FF"})).await;
        assert_eq!((&entry["size"], &entry["path"]), (&json!("1"), &json!("/d/%25%FF")));
        let up = json!({"session_id": id, "path": "/d/../d/%25%FF"});
        let problem = client.refused("FileSystem.Stat", up).await;
        assert_eq!((problem.reason.as_str(), problem.violations[0].field.as_str()), ("INVALID_NAME", "path"));
    }
    for up in ["%2e%2e/f", "d/%2E%2E/f", "d/..%2ff"] {
        let answer = refused(&http, "GET", &format!("/v1/sessions/{id}/files/{up}"), &[], "").await;
        assert_eq!((answer.0, answer.2.as_str()), (400, "path"), "{up}");
    }
    // gRPC has text only where a path is: other bytes are no message, and the field is named.
    let target = json!({"session_id": id, "path": "/l", "target": "100%25/%FF"});
    grpc.ok("FileSystem.CreateSymlink", target).await;
    let link = http.ok("FileSystem.Stat", json!({"session_id": id, "path": "/l"})).await;
    assert_eq!((&link["symlink_target"], &link["size"]), (&json!("100%25/%FF"), &json!("6")));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_lie_about_their_length_change_nothing() {
    let (server, http, id) = setup().await;
    let address = server.running().addresses()[0];
    let request = |headers: &str, body: &str| {
        format!("PUT /v1/sessions/{id}/files/f HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{body}")
    };
    for (headers, body) in [
        ("content-length: 100\r\n", "short"),
        ("transfer-encoding: chunked\r\n", "5\r\nshort\r\n"),
        ("transfer-encoding: chunked\r\n", "5\r\nshort\r\nzz\r\n"),
        ("content-length: 5\r\ncontent-length: 6\r\n", "short!"),
        ("content-length: -1\r\n", "short"),
    ] {
        let mut raw = TcpStream::connect(address).await.unwrap();
        raw.write_all(request(headers, body).as_bytes()).await.unwrap();
        raw.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), raw.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{headers}: {answer}");
        assert_eq!(http.read(&id, "/f").await.unwrap(), b"one two\n", "{headers}");
    }
    // A chunked body that ends is as good as any.
    let mut raw = TcpStream::connect(address).await.unwrap();
    let good = request("transfer-encoding: chunked\r\nconnection: close\r\n", "3\r\nabc\r\n0\r\n\r\n");
    raw.write_all(good.as_bytes()).await.unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(http.read(&id, "/f").await.unwrap(), b"abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_end_before_an_answer_is_too_large() {
    let server = Server::start().await;
    let labels: Value = (0..limits::MAX_LABELS)
        .map(|n| (format!("{n:0250}"), json!("v".repeat(256))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for client in server.both().await {
        let name = format!("{:?}", client.surface);
        let parent = client.ok("Session.CreateSession", json!({"labels": labels})).await;
        let parent = parent["session_id"].as_str().unwrap();
        let forks = json!({"session_id": parent, "count": 200, "labels": labels});
        let made = match client.surface {
            // The client of these tests takes 4 MiB, as most do.
            Surface::Grpc => {
                for _ in 0..2 {
                    client
                        .ok(
                            "Session.ForkSession",
                            json!({"session_id": parent, "count": 100, "labels": labels}),
                        )
                        .await;
                }
                200
            }
            Surface::Http => {
                client.ok("Session.ForkSession", forks).await["sessions"].as_array().unwrap().len()
            }
        };
        assert_eq!(made, 200);
        let (mut seen, mut token, mut pages) = (0, json!(""), 0);
        loop {
            let query = json!({"page_size": 1000, "parent_session_id": parent, "page_token": token});
            let page = client.ok("Session.ListSessions", query).await;
            assert!(page.to_string().len() < 4 << 20, "{}", page.to_string().len());
            seen += page["sessions"].as_array().unwrap().len();
            pages += 1;
            token = page["next_page_token"].clone();
            if token == "" {
                break;
            }
        }
        assert!(seen == 200 && pages > 1, "{name}: {seen} sessions on {pages} pages");
        let too_many = json!({"session_id": parent, "count": 10_000, "labels": labels});
        let problem = client.refused("Session.ForkSession", too_many).await;
        assert_eq!(
            (problem.reason.as_str(), problem.violations[0].field.as_str()),
            ("INVALID_ARGUMENT", "labels")
        );
        assert!(problem.metadata.contains_key("limit"), "{problem:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_when_its_time_is_over() {
    let mut server = Server::start().await;
    let mut ids = Vec::new();
    for client in server.both().await {
        let made = client.ok("Session.CreateSession", json!({"ttl": "1s"})).await;
        assert!(made["expire_time"].is_string(), "{made}");
        ids.push(made["session_id"].clone());
        let kept = client.ok("Session.CreateSession", json!({"ttl": "3600s"})).await["session_id"].clone();
        let past = json!({"session_id": kept, "session": {"expire_time": "2001-01-01T00:00:00Z"}, "update_mask": "expire_time"});
        let problem = client.refused("Session.UpdateSession", past).await;
        assert_eq!(problem.violations[0].field, "session.expire_time");
        for (method, request) in [
            ("Session.CreateSession", json!({"ttl": "0s"})),
            ("Session.ForkSession", json!({"session_id": kept, "ttl": "0s"})),
        ] {
            let problem = client.refused(method, request).await;
            assert_eq!((problem.status, problem.violations[0].field.as_str()), (400, "ttl"), "{method}");
            assert_eq!(problem.metadata["limit"], "0s", "{method}: {problem:?}");
        }
    }
    // What was due while nobody ran goes too.
    server.restart().await;
    for (client, id) in server.both().await.iter().zip(ids) {
        let mut tries = 0;
        let problem = loop {
            match client.call("Session.GetSession", json!({"session_id": id})).await {
                Err(problem) => break problem,
                Ok(_) => assert!(tries < 200, "{id} is still there"),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(problem.reason, "SESSION_NOT_FOUND");
    }
    let [client, _] = server.both().await;
    let left = client.ok("Session.ListSessions", json!({})).await;
    assert_eq!(left["sessions"].as_array().unwrap().len(), 2, "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_there_takes_a_new_name_and_one_answer_per_request() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let spec = json!({"git": {"url": repo}});
        let first = client.ok("Source.CreateSource", json!({"spec": spec})).await;
        let body = json!({"spec": spec, "display_name": "named", "labels": {"k": "v"}, "request_id": format!("s-{:?}", client.surface)});
        for _ in 0..2 {
            let again = client.ok("Source.CreateSource", body.clone()).await;
            assert_eq!(
                (&again["source_id"], &again["display_name"], &again["labels"]),
                (&first["source_id"], &json!("named"), &json!({"k": "v"}))
            );
        }
        let other = json!({"spec": {"empty": {}}, "request_id": body["request_id"]});
        assert_eq!(client.refused("Source.CreateSource", other).await.reason, "REQUEST_ID_REUSED");
        let ready = json!({"source_id": first["source_id"], "wait_seconds": 30});
        assert!(
            client.ok("Source.GetSource", ready).await["head_version_id"]
                .as_str()
                .unwrap()
                .starts_with("ver_")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_another_request_is_refused_everywhere() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = empty_session(&client).await;
        client.write(&id, "/f", b"one\n").await.unwrap();
        let point =
            client.ok("Persistence.CreateCheckpoint", json!({"session_id": id})).await["checkpoint_id"]
                .clone();
        let key = format!("r-{:?}", client.surface);
        for (method, first, second) in [
            ("FileSystem.CreateDirectory", json!({"path": "/d"}), json!({"path": "/d", "mode": 448})),
            (
                "FileSystem.EditFile",
                json!({"path": "/f", "edits": [{"old_text": "one", "new_text": "two"}]}),
                json!({"path": "/f", "edits": [{"old_text": "one", "new_text": "2"}]}),
            ),
            (
                "FileSystem.CreateSymlink",
                json!({"path": "/l", "target": "f"}),
                json!({"path": "/l", "target": "g"}),
            ),
            (
                "FileSystem.CreateHardLink",
                json!({"path": "/h", "source": "/f"}),
                json!({"path": "/i", "source": "/f"}),
            ),
            (
                "FileSystem.CopyPath",
                json!({"source": "/f", "destination": "/c"}),
                json!({"source": "/f", "destination": "/c", "overwrite": true}),
            ),
            (
                "FileSystem.MovePath",
                json!({"source": "/c", "destination": "/m"}),
                json!({"source": "/c", "destination": "/n"}),
            ),
            (
                "FileSystem.SetAttributes",
                json!({"path": "/f", "mode": 384}),
                json!({"path": "/f", "mode": 256}),
            ),
            (
                "FileSystem.SubmitChanges",
                json!({"changes": [{"mkdir": {"path": "/e"}}]}),
                json!({"changes": [{"mkdir": {"path": "/e"}}], "if_revision": "1"}),
            ),
            (
                "FileSystem.ApplyPatch",
                json!({"patch": "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-two\n+three\n"}),
                json!({"patch": "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-three\n+four\n"}),
            ),
            ("FileSystem.RemovePath", json!({"path": "/m"}), json!({"path": "/d"})),
            ("Persistence.CreateCheckpoint", json!({"name": "a"}), json!({"name": "b"})),
            (
                "Persistence.RestoreCheckpoint",
                json!({"checkpoint_id": point}),
                json!({"checkpoint_id": point, "if_revision": "1"}),
            ),
        ] {
            let with = |mut body: Value| {
                body["session_id"] = json!(id);
                body["request_id"] = json!(format!("{key}-{method}"));
                body
            };
            let done = client.ok(method, with(first.clone())).await;
            let again = client.ok(method, with(first)).await;
            assert_eq!(again["revision"], done["revision"], "{method}: one effect");
            let problem = client.refused(method, with(second)).await;
            assert_eq!(
                (problem.reason.as_str(), problem.status),
                ("REQUEST_ID_REUSED", 409),
                "{method}: {problem:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_refusals_have_details_wherever_they_arise() {
    let server = Server::start().await;
    let [grpc, _] = server.both().await;
    let id = empty_session(&grpc).await;
    let mut files = v1::file_system_service_client::FileSystemServiceClient::new(grpc.channel.clone());
    let large = v1::EditFileRequest {
        session_id: id.clone(),
        path: "/f".into(),
        edits: vec![v1::Replacement { old_text: "y".repeat(17 << 20), ..Default::default() }],
        ..Default::default()
    };
    let error = afs_proto::from_status(&files.edit_file(large).await.unwrap_err());
    assert_eq!(error.reason.as_str(), "MESSAGE_TOO_LARGE", "{error:?}");
    let fact = |name: &str| error.metadata().iter().find(|(k, _)| *k == name).map(|(_, v)| v.clone());
    assert!(
        fact("limit").is_some_and(|l| l.parse::<usize>().is_ok_and(|l| l >= limits::MAX_MESSAGE_SIZE_BYTES)),
        "{error:?}"
    );
    assert_eq!(fact("field").as_deref(), Some("message"));

    let header = v1::WriteFileHeader { session_id: id.clone(), path: "/f".into(), ..Default::default() };
    let part = |part| v1::WriteFileRequest { part: Some(part) };
    let piece = vec![b'x'; limits::MAX_WRITE_PIECE_BYTES + 1];
    let parts = [
        part(v1::write_file_request::Part::Header(header)),
        part(v1::write_file_request::Part::Data(piece.into())),
    ];
    let error = afs_proto::from_status(&files.write_file(futures::stream::iter(parts)).await.unwrap_err());
    assert!(error.reason.as_str() == "MESSAGE_TOO_LARGE" && error.message().contains("data: "), "{error:?}");
    assert_eq!(grpc.read(&id, "/f").await.unwrap_err().reason, "NOT_FOUND");
}

/// With another's etag in the answer, who retries would overwrite what that other wrote in good faith.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_told_what_its_first_attempt_did_whatever_others_did_since() {
    let server = Server::start().await;
    for client in server.both().await {
        for (method, body) in [
            ("FileSystem.EditFile", json!({"path": "/f", "edits": [{"old_text": "one", "new_text": "two"}]})),
            ("FileSystem.CreateDirectory", json!({"path": "/new"})),
            ("FileSystem.CreateSymlink", json!({"path": "/new", "target": "f\u{e4}"})),
            ("FileSystem.CreateHardLink", json!({"path": "/new", "source": "/f"})),
            ("FileSystem.CopyPath", json!({"source": "/f", "destination": "/new"})),
            ("FileSystem.MovePath", json!({"source": "/f", "destination": "/new"})),
            ("FileSystem.SetAttributes", json!({"path": "/f", "mode": 384})),
            ("FileSystem.RemovePath", json!({"path": "/f"})),
            ("FileSystem.ApplyPatch", json!({"patch": "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-one\n+two\n"})),
            (
                "FileSystem.SubmitChanges",
                json!({"changes": [
                    {"mkdir": {"path": "/d"}},
                    {"symlink": {"path": "/d/l", "target": "x"}},
                    {"edit": {"path": "/f", "edits": [{"old_text": "one", "new_text": "two"}]}},
                    {"mkdir": {"path": "/gone/below", "parents": true}},
                    {"remove": {"path": "/gone", "recursive": true}},
                    {"symlink": {"path": "/gone", "target": "f"}},
                ]}),
            ),
        ] {
            let id = empty_session(&client).await;
            client.write(&id, "/f", b"one\n").await.unwrap();
            let mut body = body;
            body["session_id"] = json!(id);
            body["request_id"] = json!(format!("{:?}-{method}", client.surface));
            let done = client.ok(method, body.clone()).await;
            // Somebody else, before the retry.
            client.write(&id, "/f", b"another's\n").await.unwrap();
            for path in ["/new", "/d"] {
                let remove = json!({"session_id": id, "path": path, "recursive": true});
                let _ = client.call("FileSystem.RemovePath", remove).await;
            }
            assert_eq!(client.ok(method, body.clone()).await, done, "{method}");
        }
        let id = empty_session(&client).await;
        let write = |bytes: &'static [u8]| {
            let (client, id) = (&client, &id);
            async move {
                let key = format!("{:?}-write", client.surface);
                if client.surface == Surface::Grpc {
                    let header = json!({"session_id": id, "path": "/f", "request_id": key});
                    return client.write_with(header, bytes).await.unwrap();
                }
                let uri = format!("/v1/sessions/{id}/files/f");
                let answer = client.send("PUT", &uri, &[("idempotency-key", &key)], bytes.to_vec()).await;
                assert_eq!(answer.status, 200);
                serde_json::from_slice(&answer.body).unwrap()
            }
        };
        let done: Value = write(b"mine").await;
        client.write(&id, "/f", b"another's").await.unwrap();
        assert_eq!(write(b"mine").await, done);
        assert_eq!(client.read(&id, "/f").await.unwrap(), b"another's");
    }
}
