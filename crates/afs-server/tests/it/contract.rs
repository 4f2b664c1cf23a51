//! The OpenAPI document says what this server takes and answers. Answers of every scenario over HTTP are held against it by the client of
//! these tests; here are those that no scenario has, and requests.

use crate::client::{Client, method_of, request_of, route_of};
use crate::harness::{Server, empty_session, git_session};
use crate::schema::{check_answer, document, faults, of_text, resolve};
use afs_proto::rest::ROUTES;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const FILES: &str = "/v1/sessions/{session_id}/files/{path}";

struct Bed {
    server: Server,
    http: Client,
    source: Value,
    /// Of git, with a commit and a checkpoint.
    session: Value,
    commit: Value,
    checkpoint: Value,
    /// Without a source.
    plain: String,
}

async fn setup() -> Bed {
    let server = Server::start().await;
    let [_, http] = server.both().await;
    let session = git_session(&http, &server.repository()).await;
    let (source, session) = (session["source_id"].clone(), session["session_id"].clone());
    http.write(session.as_str().unwrap(), "/new", b"one\ntwo\n").await.unwrap();
    let commit = http.ok("Persistence.CreateCommit", json!({"session_id": session, "message": "m"})).await;
    let checkpoint = http.ok("Persistence.CreateCheckpoint", json!({"session_id": session})).await;
    let plain = empty_session(&http).await;
    http.write(&plain, "/f", b"one\ntwo\n").await.unwrap();
    let (commit, checkpoint) = (commit["commit_id"].clone(), checkpoint["checkpoint_id"].clone());
    Bed { server, http, source, session, commit, checkpoint, plain }
}

impl Bed {
    /// A request for every route that works, some of them once only.
    fn samples(&self) -> Vec<(&'static str, Value)> {
        let Self { source, session, commit, checkpoint, plain, .. } = self;
        let edit = json!([{"old_text": "one", "new_text": "1"}]);
        let patch = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n 1\n-two\n+2\n";
        let changes = json!([{"write": {"path": "/w", "content": "YWI="}}, {"chmod": {"path": "/w", "mode": 384}, "edit": null}]);
        vec![
            ("Admin.GetServerInfo", json!({})),
            ("Admin.CheckReadiness", json!({})),
            ("Source.CreateSource", json!({"spec": {"empty": {}}, "display_name": "none"})),
            ("Source.GetSource", json!({"source_id": source, "wait_seconds": 60, "import_number": "0"})),
            ("Source.ListSources", json!({"page_size": 1000, "page_token": ""})),
            ("Source.ListSourceVersions", json!({"source_id": source, "page_size": 1})),
            ("Session.CreateSession", json!({"labels": {"k": "v"}, "ttl": "3600.5s", "request_id": null})),
            ("Session.GetSession", json!({"session_id": session})),
            ("Session.ListSessions", json!({"states": ["SESSION_STATE_ACTIVE"], "filter": "label.k=v"})),
            (
                "Session.UpdateSession",
                json!({"session_id": session, "session": {"labels": {}}, "update_mask": "labels"}),
            ),
            ("Session.ForkSession", json!({"session_id": session, "count": "2", "commit_id": null})),
            ("Session.WaitDurable", json!({"session_id": session, "revision": 0})),
            ("FileSystem.Stat", json!({"session_id": plain, "path": "/f", "checkpoint_id": "live"})),
            ("FileSystem.ListDirectory", json!({"session_id": plain, "path": "", "depth": 2})),
            ("FileSystem.GetManifest", json!({"session_id": plain, "path_prefix": "/"})),
            ("FileSystem.ReadLines", json!({"session_id": plain, "path": "f", "max_bytes": 100})),
            ("FileSystem.BatchReadFiles", json!({"session_id": plain, "paths": ["/f", "/none"]})),
            (
                "FileSystem.EditFile",
                json!({"session_id": plain, "path": "/f", "edits": edit, "durability": 1}),
            ),
            (
                "FileSystem.ApplyPatch",
                json!({"session_id": plain, "patch": patch, "format": "PATCH_FORMAT_UNIFIED"}),
            ),
            ("FileSystem.SubmitChanges", json!({"session_id": plain, "changes": changes})),
            ("FileSystem.CreateDirectory", json!({"session_id": plain, "path": "/d", "mode": 4095})),
            ("FileSystem.CreateSymlink", json!({"session_id": plain, "path": "/l", "target": "f"})),
            ("FileSystem.CreateHardLink", json!({"session_id": plain, "source": "/f", "path": "/g"})),
            ("FileSystem.MovePath", json!({"session_id": plain, "source": "/g", "destination": "/h"})),
            ("FileSystem.CopyPath", json!({"session_id": plain, "source": "/f", "destination": "/c"})),
            (
                "FileSystem.RemovePath",
                json!({"session_id": plain, "path": "/c", "precondition": {"if_etag": "*"}}),
            ),
            (
                "FileSystem.SetAttributes",
                json!({"session_id": plain, "path": "/f", "modify_time": "2020-02-29T00:00:00Z", "set_xattrs": {"user.a": "YQ=="}}),
            ),
            ("FileSystem.Glob", json!({"session_id": plain, "pattern": "**", "page_size": 2})),
            ("FileSystem.Grep", json!({"session_id": plain, "pattern": "2", "before": 1, "globs": ["*"]})),
            ("Persistence.CreateCheckpoint", json!({"session_id": session, "name": "n"})),
            ("Persistence.GetCheckpoint", json!({"session_id": session, "checkpoint_id": checkpoint})),
            ("Persistence.ListCheckpoints", json!({"session_id": session, "include_automatic": true})),
            ("Persistence.RestoreCheckpoint", json!({"session_id": session, "checkpoint_id": checkpoint})),
            (
                "Persistence.Diff",
                json!({"session_id": session, "base": "base", "target": "live", "paths": ["/"]}),
            ),
            (
                "Persistence.CreateCommit",
                json!({"session_id": session, "message": "m", "git": {}, "allow_empty": true}),
            ),
            ("Persistence.GetCommit", json!({"commit_id": commit})),
            ("Persistence.ListCommits", json!({"session_id": session})),
            ("Persistence.Promote", json!({"commit_id": commit, "branch": "b", "if_branch_absent": true})),
            ("Session.ArchiveSession", json!({"session_id": session})),
            ("Session.ResumeSession", json!({"session_id": session})),
            ("Source.RefreshSource", json!({"source_id": source, "ref": ""})),
            ("Persistence.DeleteCheckpoint", json!({"session_id": session, "checkpoint_id": checkpoint})),
            ("Session.DeleteSession", json!({"session_id": session, "force": true})),
            ("Source.DeleteSource", json!({"source_id": source, "force": true})),
        ]
    }
}

/// What the document finds wrong with the fields of a request.
fn faults_of(method: &str, fields: &Value) -> Vec<String> {
    let route = route_of(method);
    let operation = &document()["paths"][route.path][route.verb.to_lowercase()];
    let (mut found, mut in_body) = (Vec::new(), fields.as_object().unwrap().clone());
    for parameter in operation["parameters"].as_array().unwrap() {
        let name = parameter["name"].as_str().unwrap();
        let is_required = parameter["required"] == true;
        match (parameter["in"].as_str().unwrap(), in_body.remove(name)) {
            ("header", value) => in_body.extend(value.map(|value| (name.to_owned(), value))),
            (_, Some(value)) => {
                // Parameters are text.
                let value = match &value {
                    Value::String(text) => of_text(&parameter["schema"], text),
                    Value::Number(n) => of_text(&parameter["schema"], &n.to_string()),
                    other => other.clone(),
                };
                found.extend(faults(&parameter["schema"], &value));
            }
            (_, None) if is_required => found.push(format!("{name} is missing")),
            _ => {}
        }
    }
    if route.body {
        let content = &resolve(&operation["requestBody"])["content"]["application/json"];
        found.extend(faults(&content["schema"], &Value::Object(in_body)));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_takes_what_the_document_allows_and_answers_as_it_says() {
    let bed = setup().await;
    let mut seen = BTreeSet::new();
    for (method, fields) in bed.samples() {
        assert_eq!(faults_of(method, &fields), Vec::<String>::new(), "{method} {fields}");
        let (route, (uri, body)) = (route_of(method), request_of(route_of(method), fields.clone()));
        let answer = bed.http.send(route.verb, &uri, &[("accept", "application/x-ndjson")], body).await;
        assert_eq!(answer.status, 200, "{method} {fields}: {:?}", answer.body);
        check_answer(route.verb, route.path, &answer);
        seen.insert(method.to_owned());
    }
    let all: BTreeSet<String> = ROUTES.iter().map(method_of).collect();
    assert_eq!(seen, all);
    // Events, and errors.
    for (verb, path, uri, status) in [
        ("GET", "/v1/sessions/{session_id}/manifest", format!("/v1/sessions/{}/manifest", bed.plain), 200),
        ("GET", "/v1/sessions/{session_id}", "/v1/sessions/sess_none".to_owned(), 404),
        ("POST", "/v1/sessions", "/v1/sessions?x=1".to_owned(), 400),
        ("GET", "/healthz", "/healthz".to_owned(), 200),
        ("GET", "/readyz", "/readyz".to_owned(), 200),
        ("GET", "/version", "/version".to_owned(), 200),
        ("GET", "/openapi.json", "/openapi.json".to_owned(), 200),
    ] {
        let answer = bed.http.send(verb, &uri, &[], "").await;
        assert_eq!(answer.status, status, "{verb} {uri}: {:?}", answer.body);
        check_answer(verb, path, &answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_have_the_headers_of_the_document() {
    let bed = setup().await;
    let uri = format!("/v1/sessions/{}/files/raw", bed.plain);
    let put = bed.http.send("PUT", &format!("{uri}?mode=0640&durability=accepted"), &[], "0123456789").await;
    check_answer("PUT", FILES, &put);
    let etag = put.headers["etag"].to_str().unwrap().to_owned();
    for (verb, headers, status) in [
        ("GET", vec![], 200),
        ("HEAD", vec![], 200),
        ("GET", vec![("range", "bytes=2-3")], 206),
        ("GET", vec![("range", "bytes=10-")], 416),
        ("GET", vec![("if-none-match", etag.as_str())], 304),
        ("HEAD", vec![("if-none-match", etag.as_str())], 304),
        ("GET", vec![("if-match", "\"other\"")], 412),
        ("HEAD", vec![("if-match", "\"other\"")], 412),
        ("PUT", vec![("if-none-match", "*")], 412),
        ("PUT", vec![], 200),
        ("DELETE", vec![("if-match", "\"other\"")], 412),
        ("DELETE", vec![], 200),
        ("DELETE", vec![], 404),
        ("HEAD", vec![], 404),
    ] {
        let answer = bed.http.send(verb, &uri, &headers, "").await;
        assert_eq!(answer.status, status, "{verb} {headers:?}: {:?}", answer.body);
        check_answer(verb, FILES, &answer);
    }
}

/// Values that most fields do not take.
fn odd_values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(5000),
        json!(20_000),
        json!(u64::from(u32::MAX) + 1),
        json!("-1"),
        json!("007"),
        json!("18446744073709551616"),
        json!(""),
        json!("a\u{0}b"),
        json!("/../x"),
        json!("SESS_A b"),
        json!("2020-13-01T00:00:00Z"),
        json!("a".repeat(20_000)),
        json!([]),
        json!([null]),
        json!([{}]),
        json!(vec!["a"; 1001]),
        json!({}),
        json!({"": ""}),
        json!({"x": null}),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_refuses_is_refused() {
    let bed = setup().await;
    let mut refused = 0;
    for (method, fields) in bed.samples() {
        // The ends of what the others need; they have no fields of their own but `force`.
        if method.contains(".Delete") || method.contains(".Archive") || method.contains(".Resume") {
            continue;
        }
        let route = route_of(method);
        for field in route.shape.fields.iter().filter(|f| !route.path.contains(&format!("{{{}}}", f.name))) {
            for odd in odd_values() {
                // In a query there is only text.
                if !(route.body || odd.is_string() || odd.is_number()) {
                    continue;
                }
                let mut fields = fields.clone();
                fields[field.name] = odd;
                if faults_of(method, &fields).is_empty() {
                    continue;
                }
                let (uri, body) = request_of(route, fields.clone());
                let answer = bed.http.send(route.verb, &uri, &[], body).await;
                let shown: String = fields.to_string().chars().take(300).collect();
                assert!((400..500).contains(&answer.status), "{method} {shown}: {}", answer.status);
                check_answer(route.verb, route.path, &answer);
                refused += 1;
            }
        }
        if route.body {
            let needed = faults_of(method, &without_body(route.path, &fields)).is_empty();
            let (uri, _) = request_of(route, fields.clone());
            let answer = bed.http.send(route.verb, &uri, &[], "").await;
            assert_eq!(answer.status == 200, needed, "{method} without a body: {:?}", answer.body);
            let body = &document()["paths"][route.path][route.verb.to_lowercase()]["requestBody"];
            assert_eq!(body["required"] == false, needed, "{method}");
        }
    }
    assert!(refused > 1000, "only {refused} requests were refused: the odd values are not odd");
    drop(bed.server);
}

/// Only the fields that are in the path.
fn without_body(path: &str, fields: &Value) -> Value {
    let in_path =
        fields.as_object().unwrap().iter().filter(|(name, _)| path.contains(&format!("{{{name}}}")));
    in_path.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_are_where_the_document_has_them() {
    let bed = setup().await;
    let (plain, session, commit) = (&bed.plain, &bed.session, &bed.commit);
    let file = |fields: Value| {
        let mut all = json!({"session_id": plain, "path": "/f", "edits": [{"old_text": "one", "new_text": "1"}], "dry_run": true});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        all
    };
    let label = |key: usize, value: usize| json!({"labels": {"k".repeat(key): "v".repeat(value)}});
    for (method, good, bad) in [
        ("Session.ListSessions", json!({"page_size": 1000}), json!({"page_size": 1001})),
        ("Session.CreateSession", label(256, 256), label(257, 1)),
        ("Session.CreateSession", label(1, 1), label(1, 257)),
        (
            "Session.CreateSession",
            json!({"session_id": format!("sess_{}", "a".repeat(59))}),
            json!({"session_id": format!("sess_{}", "a".repeat(60))}),
        ),
        ("Session.CreateSession", json!({"ttl": "9223372036.7s"}), json!({"ttl": "9223372037s"})),
        ("Session.CreateSession", json!({"ttl": "0.000000001s"}), json!({"ttl": "0s"})),
        (
            "Session.ForkSession",
            json!({"session_id": session, "ttl": "0.000000001s"}),
            json!({"session_id": session, "ttl": "0.0s"}),
        ),
        (
            "Session.CreateSession",
            json!({"display_name": "d".repeat(16_384)}),
            json!({"display_name": "d".repeat(16_385)}),
        ),
        (
            "Session.CreateSession",
            json!({"request_id": "r".repeat(128)}),
            json!({"request_id": "r".repeat(129)}),
        ),
        (
            "Session.ForkSession",
            json!({"session_id": session, "count": 1}),
            json!({"session_id": session, "count": 10_001}),
        ),
        (
            "Session.ForkSession",
            json!({"session_id": session, "checkpoint_id": "", "commit_id": commit}),
            json!({"session_id": session, "checkpoint_id": bed.checkpoint, "commit_id": commit}),
        ),
        (
            "Session.UpdateSession",
            json!({"session_id": session, "session": {"session_id": session}, "update_mask": "displayName,labels"}),
            json!({"session_id": session, "session": {"session_id": session}, "update_mask": "revision"}),
        ),
        (
            "Source.CreateSource",
            json!({"spec": {"empty": {}, "git": null}}),
            json!({"spec": {"empty": {}, "git": {"url": "/x"}}}),
        ),
        (
            "FileSystem.EditFile",
            file(json!({"durability": "DURABILITY_UNSPECIFIED"})),
            file(json!({"durability": 7})),
        ),
        (
            "FileSystem.EditFile",
            file(json!({"precondition": {"if_etag": "*", "if_absent": false}})),
            file(json!({"precondition": {"if_etag": "*", "if_absent": true}})),
        ),
        (
            "FileSystem.Grep",
            json!({"session_id": plain, "pattern": "x", "after": 100}),
            json!({"session_id": plain, "pattern": "x", "after": 101}),
        ),
        (
            "FileSystem.Glob",
            json!({"session_id": plain, "pattern": "./*"}),
            json!({"session_id": plain, "pattern": "./"}),
        ),
        (
            "FileSystem.ReadLines",
            json!({"session_id": plain, "path": "/f", "max_bytes": "8388608"}),
            json!({"session_id": plain, "path": "/f", "max_bytes": "8388609"}),
        ),
        (
            "Persistence.Diff",
            json!({"session_id": session, "context_lines": 10_000}),
            json!({"session_id": session, "context_lines": 10_001}),
        ),
        (
            "Persistence.Promote",
            json!({"commit_id": commit, "branch": "new", "if_branch_oid": ""}),
            json!({"commit_id": commit, "branch": "new", "if_branch_oid": "abc"}),
        ),
    ] {
        let mut statuses = Vec::new();
        for fields in [good, bad] {
            let found = faults_of(method, &fields);
            let route = route_of(method);
            let (uri, body) = request_of(route, fields.clone());
            let answer = bed.http.send(route.verb, &uri, &[], body).await;
            let shown: String = fields.to_string().chars().take(300).collect();
            assert_eq!(
                answer.status == 200,
                found.is_empty(),
                "{method} {shown}: {found:?} {:?}",
                answer.body
            );
            statuses.push(answer.status == 200);
        }
        assert_eq!(statuses, [true, false], "{method}");
    }
}
