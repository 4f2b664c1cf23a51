//! Start, stop, and what must not start.

use crate::harness::{Server, config, empty_session, git_session};
use afs_server::{Config, Settings, start};
use afs_types::Reason;
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

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

/// A server that had answered before it knew whether it could mount was still there for whom it had answered, and kept the data directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_mount_answers_nobody_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let good = Config { listen: vec![free], ..config(dir.path()) };
    let mut came_in_time = 0;
    for round in 0..5 {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let hurried = tokio::spawn(async move {
            let mut stream = loop {
                match TcpStream::connect(free).await {
                    Ok(stream) => break stream,
                    Err(_) if until.load(Ordering::SeqCst) => return None,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            let mut answer = Vec::new();
            let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            // The connection is kept until the server ends it.
            let _ = asked.and(stream.read_to_end(&mut answer).await.map(drop));
            Some(answer)
        });
        let config = Config { mount_dir: Some(file.join("mount")), ..good.clone() };
        let error = start(config).await.err().unwrap();
        is_over.store(true, Ordering::SeqCst);
        assert!(error.message().contains("create "), "round {round}: {error:?}");
        let answer = tokio::time::timeout(Duration::from_secs(20), hurried).await;
        if let Some(answer) = answer.expect("its connection is ended").unwrap() {
            assert!(answer.is_empty(), "round {round}: {}", String::from_utf8_lossy(&answer));
            came_in_time += 1;
        }
        start(good.clone()).await.unwrap().stop().await.unwrap();
    }
    assert!(came_in_time > 0, "nobody asked while it started");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_a_file_has_no_colours() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_afs-server"))
        .args(["dev", "--listen", "127.0.0.1:0", "--log-level", "info", "--data"])
        .arg(dir.path().join("data"))
        .env_remove("NO_COLOR")
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("is ready"), "{line}");
    let stopped = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
    assert!(stopped.success() && child.wait().unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("finishing requests") && !log.contains('\u{1b}'), "{log:?}");
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
