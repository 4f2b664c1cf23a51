//! Files by path: every operation once, over both surfaces.

use crate::client::Client;
use crate::harness::{Server, empty_session};
use serde_json::{Value, json};

/// A session with a few files.
async fn tree(client: &Client) -> String {
    let id = empty_session(client).await;
    for (path, content) in
        [("/a.txt", "one\ntwo\nthree\n"), ("/dir/b.rs", "fn b() {}\n"), ("/dir/sub/c.rs", "fn c() {}\n")]
    {
        client.write(&id, path, content.as_bytes()).await.unwrap();
    }
    id
}

fn with(id: &str, mut fields: Value) -> Value {
    fields["session_id"] = json!(id);
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_tell_what_they_are() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = tree(&client).await;
        let link = json!({"path": "/l", "target": "a.txt"});
        let made = client.ok("FileSystem.CreateSymlink", with(&id, link)).await;
        assert_eq!(
            (&made["entry"]["type"], &made["entry"]["symlink_target"]),
            (&json!("ENTRY_TYPE_SYMLINK"), &json!("a.txt"))
        );
        let entry = client.ok("FileSystem.Stat", with(&id, json!({"path": "/a.txt"}))).await;
        assert_eq!(
            (&entry["size"], &entry["layer"], &entry["link_count"]),
            (&json!("14"), &json!("LAYER_OVERLAY"), &json!(1))
        );
        assert_eq!(
            client.read(&id, "/l").await.unwrap(),
            b"one\ntwo\nthree\n",
            "links are followed inside the session"
        );
        let hard = json!({"source": "/a.txt", "path": "/h"});
        assert_eq!(client.ok("FileSystem.CreateHardLink", with(&id, hard)).await["entry"]["link_count"], 2);
        let other = client.ok("FileSystem.Stat", with(&id, json!({"path": "/h"}))).await;
        assert_eq!(other["inode"], entry["inode"]);

        let listed = client.ok("FileSystem.ListDirectory", with(&id, json!({"path": "/", "depth": 2}))).await;
        let paths: Vec<_> =
            listed["entries"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/a.txt", "/dir", "/dir/b.rs", "/dir/sub", "/h", "/l"]);
        let manifest =
            client.all("FileSystem.GetManifest", with(&id, json!({"path_prefix": "/dir"}))).await.unwrap();
        let paths: Vec<_> = manifest.iter().map(|e| e["path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/dir/b.rs", "/dir/sub", "/dir/sub/c.rs"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_text_survive() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = empty_session(&client).await;
        let written = json!({"changes": [{"write": {"path": "/caf%E9 100%25", "content": "eA=="}}]});
        let done = client.ok("FileSystem.SubmitChanges", with(&id, written)).await;
        assert_eq!(done["entries"][0]["path"], "/caf%E9 100%25");
        let listed = client.ok("FileSystem.ListDirectory", with(&id, json!({}))).await;
        assert_eq!(listed["entries"][0]["path"], "/caf%E9 100%25");
        client.ok("FileSystem.Stat", with(&id, json!({"path": "/caf%E9 100%25"}))).await;
        let raw = client.send("GET", &format!("/v1/sessions/{id}/files/caf%E9%20100%25"), &[], "").await;
        assert_eq!((raw.status, &raw.body[..]), (200, &b"x"[..]), "in a URL, percent-encoding is of bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_read_and_edited() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = tree(&client).await;
        let lines = client
            .ok("FileSystem.ReadLines", with(&id, json!({"path": "/a.txt", "start_line": "2", "limit": "1"})))
            .await;
        assert_eq!(
            (&lines["content"], &lines["total_lines"], &lines["truncated"]),
            (&json!("two\n"), &json!("3"), &json!(true))
        );

        let edits = json!([{"old_text": "two", "new_text": "2"}]);
        let dry = client
            .ok("FileSystem.EditFile", with(&id, json!({"path": "/a.txt", "edits": edits, "dry_run": true})))
            .await;
        assert!(dry["diff"].as_str().unwrap().contains("-two\n+2\n"), "{dry}");
        let edited =
            client.ok("FileSystem.EditFile", with(&id, json!({"path": "/a.txt", "edits": edits}))).await;
        assert_eq!(edited["replacements"], 1);
        let again =
            client.refused("FileSystem.EditFile", with(&id, json!({"path": "/a.txt", "edits": edits}))).await;
        assert_eq!(again.reason, "EDIT_NOT_FOUND");
        let many = json!({"path": "/a.txt", "edits": [{"old_text": "e", "new_text": "E"}]});
        assert_eq!(client.refused("FileSystem.EditFile", with(&id, many)).await.reason, "EDIT_NOT_UNIQUE");

        let patch = "--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n one\n-2\n+zwei\n three\n";
        let patched = client.ok("FileSystem.ApplyPatch", with(&id, json!({"patch": patch}))).await;
        assert_eq!(
            (&patched["changes"][0]["path"], &patched["changes"][0]["kind"]),
            (&json!("/a.txt"), &json!("CHANGE_KIND_MODIFIED"))
        );
        assert_eq!(client.read(&id, "/a.txt").await.unwrap(), b"one\nzwei\nthree\n");
        assert_eq!(
            client.refused("FileSystem.ApplyPatch", with(&id, json!({"patch": patch}))).await.reason,
            "PATCH_CONFLICT"
        );
        assert_eq!(
            client.refused("FileSystem.ApplyPatch", with(&id, json!({"patch": "what?"}))).await.reason,
            "INVALID_PATCH"
        );
        let envelope = "*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch\n";
        client.ok("FileSystem.ApplyPatch", with(&id, json!({"patch": envelope}))).await;
        assert_eq!(client.read(&id, "/new.txt").await.unwrap(), b"hello\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_set_is_all_or_nothing() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = tree(&client).await;
        let before = client.ok("Session.GetSession", json!({"session_id": id})).await["revision"].clone();
        let bad = json!({"changes": [
            {"write": {"path": "/n", "content": "bg=="}},
            {"remove": {"path": "/dir"}},
        ]});
        let problem = client.refused("FileSystem.SubmitChanges", with(&id, bad)).await;
        assert_eq!(problem.reason, "NOT_EMPTY", "{problem:?}");
        assert_eq!(
            client.refused("FileSystem.Stat", with(&id, json!({"path": "/n"}))).await.reason,
            "NOT_FOUND"
        );
        let good = json!({"if_revision": before, "changes": [
            {"write": {"path": "/n", "content": "bg==", "mode": 0o600}},
            {"move": {"source": "/dir/b.rs", "destination": "/b.rs"}},
            {"remove": {"path": "/dir", "recursive": true}},
            {"mkdir": {"path": "/x/y", "parents": true}},
            {"symlink": {"path": "/x/l", "target": "../n"}},
            {"chmod": {"path": "/b.rs", "mode": 0o755}},
            {"copy": {"source": "/a.txt", "destination": "/x/a"}},
            {"edit": {"path": "/x/a", "edits": [{"old_text": "one", "new_text": "1"}]}},
        ]});
        let done = client.ok("FileSystem.SubmitChanges", with(&id, good.clone())).await;
        let modes: Vec<_> = done["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["mode"].as_u64().unwrap() & 0o7777)
            .collect();
        assert_eq!(
            (modes[0], modes[1], modes[2], modes[5]),
            (0o600, 0o755, 0, 0o755),
            "as they are after the whole set"
        );
        assert_eq!(client.read(&id, "/x/a").await.unwrap(), b"1\ntwo\nthree\n");
        assert_eq!(
            client.refused("FileSystem.SubmitChanges", with(&id, good)).await.reason,
            "REVISION_MISMATCH"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_a_list_is_named_by_its_place_on_both_surfaces() {
    let server = Server::start().await;
    let [grpc, http] = server.both().await;
    let id = tree(&grpc).await;
    let (good, mkdir) = (json!({"old_text": "one", "new_text": "1"}), json!({"mkdir": {"path": "/n"}}));
    let edits = |second: Value| json!({"path": "/a.txt", "edits": [good, second]});
    let changes = |second: Value| json!({"changes": [mkdir, second]});
    let patch = "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-one\n+1\n\
        --- a/dir/b.rs\n+++ b/dir/b.rs\n@@ -1 +1 @@\n-x\n+y\n";
    let states = ["SESSION_STATE_ACTIVE", "SESSION_STATE_UNSPECIFIED"];
    for (method, body, reason, fact) in [
        (
            "FileSystem.EditFile",
            edits(json!({"old_text": "gone", "new_text": "x"})),
            "EDIT_NOT_FOUND",
            ("field", "edits[1].old_text"),
        ),
        (
            "FileSystem.EditFile",
            edits(json!({"old_text": "", "new_text": "x"})),
            "INVALID_ARGUMENT",
            ("field", "edits[1].old_text"),
        ),
        (
            "FileSystem.EditFile",
            edits(json!({"old_text": "x", "new_text": "x"})),
            "INVALID_ARGUMENT",
            ("field", "edits[1].new_text"),
        ),
        (
            "FileSystem.SubmitChanges",
            changes(json!({"symlink": {"path": "/l", "target": ""}})),
            "INVALID_ARGUMENT",
            ("field", "changes[1].symlink.target"),
        ),
        (
            "FileSystem.SubmitChanges",
            changes(json!({"edit": {"path": "/a.txt", "edits": [{"old_text": "gone", "new_text": "x"}]}})),
            "EDIT_NOT_FOUND",
            ("field", "changes[1].edit.edits[0].old_text"),
        ),
        (
            "FileSystem.SubmitChanges",
            changes(json!({"write": {"path": ""}})),
            "INVALID_ARGUMENT",
            ("field", "changes[1].write.path"),
        ),
        (
            "FileSystem.SubmitChanges",
            changes(json!({"remove": {"path": "/dir"}})),
            "NOT_EMPTY",
            ("field", "changes[1].remove"),
        ),
        ("FileSystem.ApplyPatch", json!({"patch": patch}), "PATCH_CONFLICT", ("file", "2")),
        ("FileSystem.ApplyPatch", json!({"patch": patch}), "PATCH_CONFLICT", ("hunk", "1")),
        (
            "FileSystem.ApplyPatch",
            json!({"patch": patch.replace("dir/b.rs", "../b.rs")}),
            "INVALID_PATCH",
            ("file", "2"),
        ),
        (
            "Session.ForkSession",
            json!({"new_session_ids": ["sess_two", "sess_two"]}),
            "ALREADY_EXISTS",
            ("field", "new_session_ids[1]"),
        ),
        ("Session.ListSessions", json!({"states": states}), "INVALID_ARGUMENT", ("field", "states[1]")),
    ] {
        let body = if method == "Session.ListSessions" { body } else { with(&id, body) };
        let told = grpc.refused(method, body.clone()).await;
        assert_eq!((told.reason.as_str(), told.metadata[fact.0].as_str()), (reason, fact.1), "{told:?}");
        if fact.0 == "field" {
            // What is wrong inside of a change is told behind the path that it is about.
            let last = fact.1.split_once(".edit.").map_or(fact.1, |(_, last)| last);
            assert!(told.detail.contains(last), "{told:?}");
        }
        let same = http.refused(method, body).await;
        assert_eq!((&same.detail, &same.metadata, same.status), (&told.detail, &told.metadata, told.status));
    }
    assert_eq!(http.read(&id, "/a.txt").await.unwrap(), b"one\ntwo\nthree\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_move_copy_and_go() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = tree(&client).await;
        client.ok("FileSystem.MovePath", with(&id, json!({"source": "/dir", "destination": "/moved"}))).await;
        assert_eq!(client.read(&id, "/moved/sub/c.rs").await.unwrap(), b"fn c() {}\n");
        let taken = json!({"source": "/a.txt", "destination": "/moved/b.rs"});
        assert_eq!(client.refused("FileSystem.MovePath", with(&id, taken)).await.reason, "ALREADY_EXISTS");
        let into = json!({"source": "/moved", "destination": "/moved/sub/x"});
        assert_eq!(client.refused("FileSystem.MovePath", with(&id, into)).await.reason, "MOVE_INTO_SELF");

        let other = empty_session(&client).await;
        let copy =
            json!({"source_session_id": id, "source": "/moved", "destination": "/copy", "recursive": true});
        client.ok("FileSystem.CopyPath", with(&other, copy)).await;
        assert_eq!(client.read(&other, "/copy/b.rs").await.unwrap(), b"fn b() {}\n");

        let set = json!({"path": "/a.txt", "mode": 0o640, "size": "3", "modify_time": "2020-01-02T03:04:05.5Z", "set_xattrs": {"user.k": "dg=="}});
        let entry = client.ok("FileSystem.SetAttributes", with(&id, set)).await["entry"].clone();
        assert_eq!((entry["mode"].as_u64().unwrap() & 0o7777, &entry["size"]), (0o640, &json!("3")));
        assert!(entry["modify_time"].as_str().unwrap().starts_with("2020-01-02T03:04:05.5"), "{entry}");

        assert_eq!(
            client.refused("FileSystem.RemovePath", with(&id, json!({"path": "/moved"}))).await.reason,
            "NOT_EMPTY"
        );
        let etag = json!({"path": "/a.txt", "precondition": {"if_etag": "b3-0"}});
        assert_eq!(client.refused("FileSystem.RemovePath", with(&id, etag)).await.reason, "ETAG_MISMATCH");
        let removed =
            client.ok("FileSystem.RemovePath", with(&id, json!({"path": "/moved", "recursive": true}))).await;
        assert_eq!(removed["entry"], Value::Null);
        assert_eq!(removed["durability"], "DURABILITY_LOCAL");
        client
            .ok(
                "FileSystem.CreateDirectory",
                with(&id, json!({"path": "/p/q", "parents": true, "mode": 0o700})),
            )
            .await;
        assert_eq!(
            client.refused("FileSystem.CreateDirectory", with(&id, json!({"path": "/p/q"}))).await.reason,
            "ALREADY_EXISTS"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_find() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = tree(&client).await;
        let mut token = json!("");
        let mut found = Vec::new();
        loop {
            let query = with(&id, json!({"pattern": "**/*.rs", "page_size": 1, "page_token": token}));
            let page = client.ok("FileSystem.Glob", query).await;
            found.extend(
                page["entries"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap().to_owned()),
            );
            token = page["next_page_token"].clone();
            if token == "" {
                break;
            }
        }
        assert_eq!(found, ["/dir/b.rs", "/dir/sub/c.rs"]);

        let query = json!({"pattern": "fn [bc]", "globs": ["*.rs"], "path": "/dir"});
        let matches = client.all("FileSystem.Grep", with(&id, query)).await.unwrap();
        assert_eq!(matches.len(), 2);
        assert_eq!(
            (&matches[0]["path"], &matches[0]["line"], &matches[0]["spans"][0]["end"]),
            (&json!("/dir/b.rs"), &json!("1"), &json!(4))
        );
        let problem = client.all("FileSystem.Grep", with(&id, json!({"pattern": "("}))).await.unwrap_err();
        assert_eq!((problem.status, problem.violations[0].field.as_str()), (400, "pattern"), "{problem:?}");

        let many = client
            .ok("FileSystem.BatchReadFiles", with(&id, json!({"paths": ["/a.txt", "/none", "/dir"]})))
            .await;
        assert_eq!(many["files"][0]["content"], "b25lCnR3bwp0aHJlZQo=");
        assert_eq!(many["files"][1]["failure"]["reason"], "NOT_FOUND");
        assert_eq!(many["files"][2]["failure"]["reason"], "IS_A_DIRECTORY");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_surface_sees_the_other_at_once() {
    let server = Server::start().await;
    let [grpc, http] = server.both().await;
    let id = empty_session(&grpc).await;
    for n in 0..20 {
        let (writer, reader) = if n % 2 == 0 { (&grpc, &http) } else { (&http, &grpc) };
        let content = format!("{n}").repeat(1000);
        writer.write(&id, "/f", content.as_bytes()).await.unwrap();
        assert_eq!(reader.read(&id, "/f").await.unwrap(), content.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_stream() {
    let server = Server::start().await;
    let content: Vec<u8> = (0..5_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    for client in server.both().await {
        let id = empty_session(&client).await;
        client.write(&id, "/large", &content).await.unwrap();
        assert!(client.read(&id, "/large").await.unwrap() == content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_where_they_are_told() {
    let server = Server::start().await;
    let [client, _] = server.both().await;
    let id = empty_session(&client).await;
    let header = |extra: Value| {
        let mut header = json!({"session_id": id, "path": "/f"});
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        header
    };
    client.write_with(header(json!({"mode": 0o600})), b"hello").await.unwrap();
    client.write_with(header(json!({"append": true})), b" world").await.unwrap();
    client.write_with(header(json!({"offset": "0"})), b"J").await.unwrap();
    assert_eq!(client.read(&id, "/f").await.unwrap(), b"Jello world");
    let absent = client.write_with(header(json!({"precondition": {"if_absent": true}})), b"x").await;
    assert_eq!(absent.unwrap_err().reason, "ETAG_MISMATCH");
    let both = client.write_with(header(json!({"append": true, "offset": "1"})), b"x").await.unwrap_err();
    assert_eq!(both.violations[0].field, "append");
    let digest = client.write_with(header(json!({"digest": "00".repeat(32)})), b"x").await.unwrap_err();
    assert_eq!(digest.reason, "DIGEST_MISMATCH");
    let digest = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    client.write_with(header(json!({"digest": digest})), b"").await.unwrap();
    assert_eq!(client.read(&id, "/f").await.unwrap(), b"");
}

/// A generator of odd requests found these: what was forgotten or wrong was taken for something else, or another field was blamed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_or_wrong_is_named_and_changes_nothing() {
    let mut server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let id = tree(&client).await;
        let root = client.ok("FileSystem.Stat", with(&id, json!({"path": "/"}))).await;
        for (method, body, field) in [
            ("FileSystem.SetAttributes", json!({"mode": 0o700}), "path"),
            ("FileSystem.SubmitChanges", json!({"changes": [{"chmod": {}}]}), "changes[0].chmod.path"),
            ("FileSystem.CreateDirectory", json!({}), "path"),
            ("FileSystem.MovePath", json!({"source": "/a.txt"}), "destination"),
            ("FileSystem.Stat", json!({"path": "/a.txt", "checkpoint_id": "x"}), "checkpoint_id"),
        ] {
            let problem = client.refused(method, with(&id, body)).await;
            assert_eq!(
                (&problem.reason[..], problem.metadata.get("field").map(String::as_str)),
                ("INVALID_ARGUMENT", Some(field)),
                "{method}: {problem:?}"
            );
        }
        assert_eq!(client.ok("FileSystem.Stat", with(&id, json!({"path": "/"}))).await, root);
        // A reference that git would not take does not replace one that is right.
        let source =
            client.ok("Source.CreateSource", json!({"spec": {"git": {"url": repo, "ref": "main"}}})).await;
        let source = json!({"source_id": source["source_id"], "wait_seconds": 60});
        for bad in ["a..b", "-x", "*", "a b"] {
            let refresh = json!({"source_id": source["source_id"], "ref": bad});
            let problem = client.refused("Source.RefreshSource", refresh).await;
            assert_eq!(problem.metadata.get("field").map(String::as_str), Some("ref"), "{problem:?}");
            let create = json!({"spec": {"git": {"url": repo, "ref": bad}}});
            let problem = client.refused("Source.CreateSource", create).await;
            assert_eq!(
                problem.metadata.get("field").map(String::as_str),
                Some("spec.git.ref"),
                "{problem:?}"
            );
        }
        // Nor does an address that is none leave a source that could never be imported.
        for bad in ["a\u{1}b", "ext::sh -c id", "ftp://h/x", "--upload-pack=x", "https://u:p w@h/x"] {
            let create = json!({"source_id": "src_bad", "spec": {"git": {"url": bad}}});
            let problem = client.refused("Source.CreateSource", create).await;
            assert_eq!(
                (problem.status, problem.metadata.get("field").map(String::as_str)),
                (400, Some("spec.git.url")),
                "{bad:?}: {problem:?}"
            );
            let none = client.refused("Source.GetSource", json!({"source_id": "src_bad"})).await;
            assert_eq!(none.reason, "SOURCE_NOT_FOUND", "{bad:?}");
        }
        client.ok("Source.RefreshSource", json!({"source_id": source["source_id"]})).await;
        let ready = client.ok("Source.GetSource", source).await;
        assert_eq!(
            (&ready["state"], &ready["spec"]["git"]["ref"]),
            (&json!("RESOURCE_STATE_READY"), &json!("main")),
            "{ready}"
        );
    }
    server.stop().await;
}
