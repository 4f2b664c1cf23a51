//! Sources and sessions: create, fork, list, update, archive, resume, delete, retry.

use crate::client::Client;
use crate::harness::{Server, empty_session, git, git_session};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_becomes_sessions() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        assert_eq!(client.read(id, "/README.md").await.unwrap(), b"# Hello\n\nworld\n");
        let versions =
            client.ok("Source.ListSourceVersions", json!({"source_id": session["source_id"]})).await;
        assert_eq!(versions["versions"][0]["version_id"], session["source_version_id"]);
        assert_eq!(versions["versions"][0]["upstream_revision"], git(&repo, &["rev-parse", "HEAD"]));
        let sources = client.ok("Source.ListSources", json!({})).await;
        let listed =
            sources["sources"].as_array().unwrap().iter().any(|s| s["source_id"] == session["source_id"]);
        assert!(listed, "{sources}");
        let problem = client.refused("Source.DeleteSource", json!({"source_id": session["source_id"]})).await;
        assert_eq!(problem.reason, "IN_USE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_cannot_work_says_why() {
    let server = Server::start().await;
    for client in server.both().await {
        let nowhere = server.dir.path().join(format!("nowhere-{:?}", client.surface));
        let source = client.ok("Source.CreateSource", json!({"spec": {"git": {"url": nowhere}}})).await;
        let id = &source["source_id"];
        let failed = client.ok("Source.GetSource", json!({"source_id": id, "wait_seconds": 30})).await;
        assert_eq!(failed["state"], "RESOURCE_STATE_FAILED", "{failed}");
        assert!(!failed["failure"]["message"].as_str().unwrap().is_empty());
        let problem = client.refused("Session.CreateSession", json!({"source_id": id})).await;
        assert_eq!(problem.reason, "WRONG_STATE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_import_keeps_the_reason_that_it_failed_for() {
    let mut server = Server::start().await;
    let hostile = server.dir.path().join("hostile");
    std::fs::create_dir(&hostile).unwrap();
    // Some systems take it for `.git`.
    std::fs::write(hostile.join("git~1"), "x").unwrap();
    git(&hostile, &["init", "-q", "-b", "main"]);
    for work in [&["add", "-A"][..], &["commit", "-q", "-m", "x"]] {
        git(&hostile, &[&["-c", "core.protectNTFS=false"][..], work].concat());
    }
    let nowhere = server.dir.path().join("nowhere");
    // Here the error knows better than its reason what to do next.
    let (whole, partial) = (server.repository(), server.dir.path().join("partial"));
    git(&whole, &["config", "uploadpack.allowFilter", "true"]);
    let from = format!("file://{}", whole.display());
    let clone = ["clone", "-q", "--filter=blob:none", "--no-checkout", &from, partial.to_str().unwrap()];
    git(server.dir.path(), &clone);
    let mut sources = Vec::new();
    let [grpc, _] = server.both().await;
    for (spec, reason) in [
        (json!({"git": {"url": hostile}}), "HOSTILE_TREE"),
        (json!({"git": {"url": nowhere}}), "SOURCE_UNAVAILABLE"),
        (json!({"local": {"path": nowhere}}), "SOURCE_UNAVAILABLE"),
        (json!({"git": {"url": partial}}), "WRONG_STATE"),
    ] {
        let source = grpc.ok("Source.CreateSource", json!({"spec": spec})).await;
        sources.push((source["source_id"].clone(), reason));
    }
    for is_restarted in [false, true] {
        if is_restarted {
            server.restart().await;
        }
        for client in server.both().await {
            for (id, reason) in &sources {
                let wait = json!({"source_id": id, "wait_seconds": 30});
                let failed = client.ok("Source.GetSource", wait).await;
                assert_eq!(failed["state"], "RESOURCE_STATE_FAILED", "{failed}");
                assert_eq!(failed["failure"]["reason"], *reason, "{failed}");
                let message = failed["failure"]["message"].as_str().unwrap();
                assert!(!message.is_empty() && !message.contains(reason), "{failed}");
                let step = failed["failure"]["next_steps"][0].as_str().unwrap();
                assert!(step.contains("refresh the source"), "{failed}");
                assert_eq!(step.contains("git -C"), *reason == "WRONG_STATE", "{failed}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_names_two_sessions_is_refused() {
    let server = Server::start().await;
    for client in server.both().await {
        let (id, other) = (empty_session(&client).await, empty_session(&client).await);
        let named = |session: &str| {
            let session = json!({"session_id": session, "display_name": "x"});
            json!({"session_id": id, "session": session, "update_mask": "display_name"})
        };
        for wrong in [&other[..], "sess_nobody", "x"] {
            let problem = client.refused("Session.UpdateSession", named(wrong)).await;
            assert_eq!(
                (problem.status, problem.violations[0].field.as_str()),
                (400, "session.session_id"),
                "{problem:?}"
            );
        }
        for session in [&id, &other] {
            let untouched = client.ok("Session.GetSession", json!({"session_id": session})).await;
            assert_eq!(untouched["display_name"], "");
        }
        assert_eq!(client.ok("Session.UpdateSession", named(&id)).await["display_name"], "x");
        assert_eq!(client.ok("Session.UpdateSession", named("")).await["session_id"], *id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_share_the_past_and_not_the_future() {
    let server = Server::start().await;
    for client in server.both().await {
        let parent = empty_session(&client).await;
        client.write(&parent, "/a", b"1").await.unwrap();
        let labels = json!({"team": "red"});
        let forked = client
            .ok("Session.ForkSession", json!({"session_id": parent, "count": 3, "labels": labels}))
            .await;
        let forks: Vec<&str> = forked["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["session_id"].as_str().unwrap())
            .collect();
        assert_eq!(forks.len(), 3);
        assert_eq!(forked["sessions"][0]["parent_session_id"], parent);
        client.write(&parent, "/a", b"2").await.unwrap();
        client.write(forks[0], "/a", b"3").await.unwrap();
        for (session, content) in [(&*parent, b"2"), (forks[0], b"3"), (forks[1], b"1"), (forks[2], b"1")] {
            assert_eq!(client.read(session, "/a").await.unwrap(), content);
        }
        let own = format!("sess_own_{:?}", client.surface).to_lowercase();
        let body = json!({"session_id": parent, "new_session_ids": [own]});
        let named = client.ok("Session.ForkSession", body.clone()).await;
        assert_eq!(named["sessions"][0]["session_id"], own);
        assert_eq!(client.refused("Session.ForkSession", body).await.reason, "ALREADY_EXISTS");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_filters_hold() {
    let server = Server::start().await;
    for client in server.both().await {
        let team = format!("{:?}", client.surface);
        for n in 0..5 {
            client.ok("Session.CreateSession", json!({"labels": {"team": team, "n": n.to_string()}})).await;
        }
        let filter = format!("label.team={team}");
        let mut token = json!("");
        let mut seen = Vec::new();
        loop {
            let query = json!({"filter": filter, "page_size": 2, "page_token": token});
            let page = client.ok("Session.ListSessions", query).await;
            seen.extend(page["sessions"].as_array().unwrap().iter().map(|s| s["labels"]["n"].clone()));
            token = page["next_page_token"].clone();
            if token == "" {
                break;
            }
            let other = json!({"page_size": 2, "page_token": token});
            assert_eq!(client.refused("Session.ListSessions", other).await.reason, "INVALID_PAGE_TOKEN");
        }
        assert_eq!(seen, ["0", "1", "2", "3", "4"]);
        let one = json!({"filter": format!("{filter} AND label.n=3")});
        assert_eq!(client.ok("Session.ListSessions", one).await["sessions"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_and_ends() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = empty_session(&client).await;
        client.write(&id, "/a", b"1").await.unwrap();
        let named =
            update(&client, &id, json!({"display_name": "one", "labels": {"k": "v"}}), "display_name,labels")
                .await;
        assert_eq!((&named["display_name"], &named["labels"]["k"]), (&json!("one"), &json!("v")));
        let stale = json!({"session_id": id, "session": {"etag": "1"}, "update_mask": "labels"});
        let problem = client.refused("Session.UpdateSession", stale).await;
        assert_eq!(problem.status, 412, "{problem:?}");

        let archived = client.ok("Session.ArchiveSession", json!({"session_id": id})).await;
        assert_eq!(archived["state"], "SESSION_STATE_ARCHIVED");
        let problem = client.read(&id, "/a").await.unwrap_err();
        assert_eq!(problem.reason, "SESSION_ARCHIVED");
        assert!(problem.next_steps[0].contains("resume"));
        let resumed = client.ok("Session.ResumeSession", json!({"session_id": id})).await;
        assert_eq!(resumed["state"], "SESSION_STATE_ACTIVE");
        assert_eq!(client.read(&id, "/a").await.unwrap(), b"1");

        client.ok("Session.DeleteSession", json!({"session_id": id})).await;
        assert_eq!(
            client.refused("Session.GetSession", json!({"session_id": id})).await.reason,
            "SESSION_NOT_FOUND"
        );
    }
}

async fn update(client: &Client, id: &str, session: Value, mask: &str) -> Value {
    client
        .ok("Session.UpdateSession", json!({"session_id": id, "session": session, "update_mask": mask}))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_has_one_effect_and_the_same_answer() {
    let server = Server::start().await;
    for client in server.both().await {
        let key = format!("retry-{:?}", client.surface);
        let create = json!({"request_id": key, "display_name": "x"});
        let first = client.ok("Session.CreateSession", create.clone()).await;
        assert_eq!(client.ok("Session.CreateSession", create).await["session_id"], first["session_id"]);
        let other = json!({"request_id": key, "display_name": "y"});
        assert_eq!(client.refused("Session.CreateSession", other).await.reason, "REQUEST_ID_REUSED");
        let fork = json!({"session_id": first["session_id"], "count": 2, "request_id": key});
        let forks = client.ok("Session.ForkSession", fork.clone()).await;
        assert_eq!(client.ok("Session.ForkSession", fork).await["sessions"], forks["sessions"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let mut server = Server::start().await;
    let mut ids = Vec::new();
    for client in server.both().await {
        let id = empty_session(&client).await;
        client.write(&id, "/dir/a", b"kept").await.unwrap();
        let written = client
            .ok(
                "FileSystem.CreateDirectory",
                json!({"session_id": id, "path": "/d", "durability": "DURABILITY_ACCEPTED"}),
            )
            .await;
        assert_eq!(written["durability"], "DURABILITY_ACCEPTED");
        let waited = client
            .ok("Session.WaitDurable", json!({"session_id": id, "revision": written["revision"]}))
            .await;
        assert_eq!(
            (&waited["revision"], &waited["durability"]),
            (&written["revision"], &json!("DURABILITY_LOCAL"))
        );
        let fork = client.ok("Session.ForkSession", json!({"session_id": id})).await;
        ids.push((id, fork["sessions"][0]["session_id"].as_str().unwrap().to_owned()));
    }
    server.restart().await;
    for (client, (id, fork)) in server.both().await.into_iter().zip(ids) {
        assert_eq!(client.read(&id, "/dir/a").await.unwrap(), b"kept");
        assert_eq!(client.read(&fork, "/dir/a").await.unwrap(), b"kept");
        client.ok("FileSystem.Stat", json!({"session_id": id, "path": "/d"})).await;
        let beyond = json!({"session_id": id, "revision": "1000000"});
        assert_eq!(client.refused("Session.WaitDurable", beyond).await.reason, "REVISION_MISMATCH");
    }
}
