//! Start, stop, and what must not start.

use crate::harness::{Server, config, empty_session, git_session};
use afs_server::{Settings, start};
use afs_types::Reason;
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_data_or_port_is_refused() {
    let server = Server::start().await;
    let error = start(config(server.dir.path())).await.err().unwrap();
    assert_eq!(error.reason, Reason::InUse, "{error:?}");
    let listen = server.running().addresses()[0].to_string();
    let elsewhere = server.dir.path().join("other");
    let settings =
        Settings { listen: Some(listen), data_dir: Some(elsewhere.clone()), ..Settings::default() };
    let error = start(settings.resolve().unwrap()).await.err().unwrap();
    assert_eq!(error.reason, Reason::InUse, "{error:?}");
    assert!(!elsewhere.exists(), "nothing is touched before the port is ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_finds_every_blob_and_leaves_a_running_server_alone() {
    let mut server = Server::start().await;
    let repo = server.repository();
    let [client, _] = server.both().await;
    let id = git_session(&client, &repo).await["session_id"].clone();
    let paths = client.ok("FileSystem.ListDirectory", json!({"session_id": id, "path": "/"})).await;
    let data = server.dir.path().join("data");
    assert_eq!(afs_server::repair(&data).err().unwrap().reason, Reason::InUse);
    drop(client);
    server.stop().await;
    let rebuilt = afs_server::repair(&data).unwrap();
    assert!(rebuilt.blobs > 0 && rebuilt.damaged.is_empty(), "{rebuilt:?}");
    server.running = Some(start(config(server.dir.path())).await.unwrap());
    let [client, _] = server.both().await;
    let again = client.ok("FileSystem.ListDirectory", json!({"session_id": id, "path": "/"})).await;
    assert_eq!(paths, again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_requests_and_is_quick() {
    let mut server = Server::start().await;
    let clients = server.both().await;
    let id = empty_session(&clients[0]).await;
    let writes: Vec<_> = (0..50)
        .map(|n| {
            let (client, id) = (clients[n % 2].clone(), id.clone());
            tokio::spawn(async move { client.write(&id, &format!("/f{n}"), &[b'x'; 10_000]).await })
        })
        .collect();
    clients[0].ok("Session.WaitDurable", serde_json::json!({"session_id": id})).await;
    let begin = Instant::now();
    server.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
    let mut acknowledged = Vec::new();
    for (n, write) in writes.into_iter().enumerate() {
        // A request that came after the stop may find nobody; what was acknowledged must be there.
        if let Ok(Ok(_)) = write.await {
            acknowledged.push(n);
        }
    }
    drop(clients);
    let mut again =
        Server { running: Some(start(config(server.dir.path())).await.unwrap()), dir: server.dir };
    let [client, _] = again.both().await;
    for n in acknowledged {
        assert_eq!(client.read(&id, &format!("/f{n}")).await.unwrap(), [b'x'; 10_000]);
    }
    again.stop().await;
}

/// A refresh is done after the import that runs, so there may be no moment at all without one.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_import_does_not_wait_for_what_others_ask_for_later() {
    let mut server = Server::start().await;
    let repo = server.repository();
    let [client, other] = server.both().await;
    let made = client.ok("Source.CreateSource", json!({"spec": {"git": {"url": repo}}})).await;
    let refresh = json!({"source_id": made["source_id"]});
    let theirs = refresh.clone();
    let others: tokio::task::JoinHandle<()> = tokio::spawn(async move {
        loop {
            other.ok("Source.RefreshSource", theirs.clone()).await;
        }
    });
    let wait = json!({"source_id": made["source_id"], "wait_seconds": 60});
    for _ in 0..3 {
        let begin = Instant::now();
        client.ok("Source.RefreshSource", refresh.clone()).await;
        let ready = client.ok("Source.GetSource", wait.clone()).await;
        assert_eq!(ready["state"], "RESOURCE_STATE_READY", "{ready}");
        assert!(begin.elapsed() < Duration::from_secs(45), "{:?}", begin.elapsed());
    }
    others.abort();
    assert!(others.await.unwrap_err().is_cancelled());
    client.ok("Source.GetSource", wait).await;
    drop(client);
    server.stop().await;
}
