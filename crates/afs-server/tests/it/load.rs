//! Hostile load: what it costs the server in memory, and that others are served meanwhile and afterwards.
//!
//! The server is a process of its own, so that its memory is not the test's. `AFS_LOAD_MIB` (default 24) is the size of each of 64
//! uploads, `AFS_LOAD_IDLE` (default 1,500) the number of idle connections: `AFS_LOAD_MIB=1024 AFS_LOAD_IDLE=10000` is the long run, which
//! needs as many GiB of disk as there are uploads, and descriptors.

use crate::client::{Client, Surface};
use crate::fuzz::call;
use crate::harness::{Server, config, empty_session};
use afs_proto::v1;
use afs_proto::v1::file_system_service_client::FileSystemServiceClient as Files;
use afs_server::{Config, start};
use afs_types::limits;
use futures::{StreamExt as _, future};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CLIENTS: usize = 64;
/// Connections that do not read the one answer they asked for.
const UNREAD: usize = 500;
const ANSWER_MIB: usize = 7;
/// More than the server may grow by, whatever comes: what all limits together allow, and what the allocator keeps.
const MOST_GROWTH_MIB: u64 = 1_900;

/// A server as a process.
struct Process {
    child: Child,
    endpoint: String,
    /// Kept open: a server whose output nobody takes is another test.
    _out: BufReader<ChildStdout>,
    _dir: tempfile::TempDir,
}

impl Process {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_afs-server"))
            .args(["dev", "--listen", "127.0.0.1:0", "--log-level", "error", "--data"])
            .arg(dir.path().join("data"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let endpoint = out.by_ref().lines().map_while(Result::ok).find_map(|line| {
            line.strip_prefix("endpoint:").map(|rest| rest.split_whitespace().next().unwrap().to_owned())
        });
        Self { child, endpoint: endpoint.unwrap(), _out: out, _dir: dir }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.trim_start_matches("http://").parse().unwrap()
    }

    /// Resident memory now, and at its highest since the last call.
    fn memory_mib(&self) -> (u64, u64) {
        let proc = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
        };
        // 5: forget the peak.
        std::fs::write(format!("{proc}/clear_refs"), "5").unwrap();
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_bounded_under_hostile_load() {
    let server = Process::start();
    let client = Client::connect(Surface::Grpc, server.endpoint.clone()).await;
    let id = empty_session(&client).await;
    client.write(&id, "/kept", b"kept").await.unwrap();
    big_tree(&client, &id).await;
    let (before, _) = server.memory_mib();
    let mut peaks = Vec::new();
    macro_rules! load {
        ($name:literal, $load:expr) => {{
            let load = $load;
            tokio::pin!(load);
            // Others are served meanwhile.
            let mut held = None;
            loop {
                tokio::select! {
                    done = &mut load => { held = Some(done); }
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
                let seen = tokio::time::timeout(Duration::from_secs(20), client.read(&id, "/kept")).await;
                match seen.unwrap_or_else(|_| panic!("{}: nobody else is served", $name)) {
                    Ok(bytes) => assert_eq!(bytes, b"kept"),
                    Err(problem) => assert_eq!(problem.reason, "QUEUE_FULL", "{}: {problem:?}", $name),
                }
                if held.is_some() {
                    break;
                }
            }
            let (_, peak) = server.memory_mib();
            peaks.push(($name, peak.saturating_sub(before)));
        }};
    }
    load!("uploads that break off", broken_uploads(server.address(), &id));
    load!("messages of empty elements", bombs(&client));
    load!("JSON of empty elements", json_bombs(server.address(), &id));
    load!("unfinished messages", unfinished(server.address()));
    load!("readers that sleep", sleeping_readers(&server.endpoint, &id));
    load!("pages and searches", pages(&server.endpoint, &id));
    load!("edits of a large file", texts(&server.endpoint, &id, "FileSystem.EditFile"));
    load!("patches of a large file", texts(&server.endpoint, &id, "FileSystem.ApplyPatch"));
    load!("lines of a large file", texts(&server.endpoint, &id, "FileSystem.ReadLines"));
    load!("idle connections", idle(server.address()));
    // The last: what the allocator keeps of it would count for the one behind it.
    load!("answers that nobody reads", unread_answers(server.address(), &id));
    let (after, _) = server.memory_mib();
    println!("before {before} MiB, after {after} MiB, highest growth under each load in MiB: {peaks:?}");
    for (name, growth) in &peaks {
        assert!(*growth < MOST_GROWTH_MIB, "{name}: {growth} MiB more");
    }
    let fresh = Client::connect(Surface::Http, server.endpoint.clone()).await;
    assert_eq!(fresh.read(&id, "/kept").await.unwrap(), b"kept");
    let broken = fresh.ok("FileSystem.ListDirectory", json!({"session_id": id, "path": "/up"})).await;
    assert_eq!(broken["entries"], json!([]), "an upload that breaks off leaves nothing");
}

/// Long names in one directory, and a file to read from.
async fn big_tree(client: &Client, id: &str) {
    for part in 0..20 {
        let paths = (0..1_000).map(|n| format!("/many/{part:02}{n:03}{}", "x".repeat(240)));
        let changes: Vec<Value> =
            paths.map(|path| json!({"write": {"path": path, "create_parents": true}})).collect();
        client.ok("FileSystem.SubmitChanges", json!({"session_id": id, "changes": changes})).await;
    }
    client.ok("FileSystem.CreateDirectory", json!({"session_id": id, "path": "/up"})).await;
    let line = "a line that a search finds, again and again and again\n";
    let large = line.repeat((48 << 20) / line.len()) + "the last line\n";
    client.write(id, "/large", large.as_bytes()).await.unwrap();
    client.write(id, "/answer", &large.as_bytes()[..ANSWER_MIB << 20]).await.unwrap();
}

/// 64 uploads at once, each cut before its end.
async fn broken_uploads(address: SocketAddr, id: &str) {
    let size = number("AFS_LOAD_MIB", 24) << 20;
    let uploads = (0..CLIENTS).map(|n| async move {
        let mut raw = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "PUT /v1/sessions/{id}/files/up/{n} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            size + 1
        );
        raw.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![n as u8; 1 << 20];
        for _ in 0..size >> 20 {
            if raw.write_all(&piece).await.is_err() {
                return; // refused: the queue of uploads is full
            }
        }
    });
    future::join_all(uploads).await;
}

/// Two bytes on the wire that would be hundreds in memory.
async fn bombs(client: &Client) {
    let changes = [0x12, 0].repeat(7 << 20);
    let frame = [&[0][..], &(changes.len() as u32).to_be_bytes(), &changes].concat();
    let path = "/aether.v1.FileSystemService/SubmitChanges";
    let refused = future::join_all((0..CLIENTS).map(|_| call(&client.channel, path, frame.clone()))).await;
    for status in refused {
        let error = afs_proto::from_status(&status.unwrap());
        assert!(["MESSAGE_TOO_LARGE", "QUEUE_FULL"].contains(&error.reason.as_str()), "{error:?}");
    }
}

async fn post(address: SocketAddr, path: &str, body: &[u8], cut: usize) -> (TcpStream, Vec<u8>) {
    let mut raw = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    let sent = raw.write_all(&body[..body.len() - cut]).await;
    let mut answer = Vec::new();
    if cut == 0 || sent.is_err() {
        let _ = raw.read_to_end(&mut answer).await; // it may hang up after its answer
    }
    (raw, answer)
}

async fn json_bombs(address: SocketAddr, id: &str) {
    let body = format!("{{\"changes\": [{}{{}}]}}", "{},".repeat(5 << 20));
    let path = format!("/v1/sessions/{id}/changes");
    let answers = future::join_all((0..CLIENTS).map(|_| post(address, &path, body.as_bytes(), 0))).await;
    for (_, answer) in answers {
        let text = String::from_utf8_lossy(&answer);
        let refused = ["HTTP/1.1 413", "HTTP/1.1 429"].iter().any(|status| text.starts_with(status));
        assert!(refused || answer.is_empty(), "{}", text.chars().take(300).collect::<String>());
    }
}

/// Bodies that lack their last byte: held as long as they may take, but not without bound.
async fn unfinished(address: SocketAddr) -> Vec<(TcpStream, Vec<u8>)> {
    let body = vec![b' '; limits::MAX_MESSAGE_SIZE_BYTES - 1];
    future::join_all((0..CLIENTS).map(|_| post(address, "/v1/sessions", &body, 1))).await
}

/// Streams that nobody reads.
async fn sleeping_readers(endpoint: &str, id: &str) -> Vec<tonic::Streaming<v1::ReadFileResponse>> {
    let mut streams = Vec::new();
    for _ in 0..8 {
        let channel =
            tonic::transport::Channel::from_shared(endpoint.to_owned()).unwrap().connect().await.unwrap();
        for _ in 0..CLIENTS / 8 {
            let request = v1::ReadFileRequest {
                session_id: id.to_owned(),
                path: "/large".into(),
                ..Default::default()
            };
            let mut files = Files::new(channel.clone());
            let call = tokio::time::timeout(Duration::from_millis(500), files.read_file(request));
            if let Ok(Ok(stream)) = call.await {
                streams.push(stream.into_inner());
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    streams
}

/// Answers of one message, as large as they can be, on connections that ask and do not read: together several times what the server may grow by. All
/// are asked before one has been answered, so that those that wait for their turn find no room when it comes.
async fn unread_answers(address: SocketAddr, id: &str) -> Vec<TcpStream> {
    let body = json!({"paths": ["/answer"], "max_bytes_per_file": (8 << 20).to_string()}).to_string();
    let head = format!(
        "POST /v1/sessions/{id}/batch-read HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut asked = Vec::new();
    for _ in 0..UNREAD {
        let mut raw = TcpStream::connect(address).await.unwrap();
        raw.write_all((head.clone() + &body).as_bytes()).await.unwrap();
        asked.push(raw);
    }
    let mut refused = 0;
    for raw in &asked {
        let mut first = [0; 12];
        let count =
            tokio::time::timeout(Duration::from_secs(30), raw.peek(&mut first)).await.unwrap().unwrap();
        match &first[..count] {
            b"HTTP/1.1 200" => {}
            b"HTTP/1.1 429" => refused += 1,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }
    assert!(refused > 0, "the server holds {} MiB for who does not read them", UNREAD * ANSWER_MIB);
    asked
}

/// The largest pages, and searches that match everything.
async fn pages(endpoint: &str, id: &str) {
    let work = (0..CLIENTS).map(|n| async move {
        let client = Client::connect(Surface::Grpc, endpoint.to_owned()).await;
        let page = json!({"session_id": id, "path": "/many", "page_size": 1000});
        for _ in 0..4 {
            assert_eq!(
                client.ok("FileSystem.ListDirectory", page.clone()).await["entries"]
                    .as_array()
                    .unwrap()
                    .len(),
                1000
            );
        }
        if n % 8 == 0 {
            let query = v1::GrepRequest {
                session_id: id.to_owned(),
                pattern: "again".into(),
                before: 100,
                after: 100,
                max_count: 20_000,
                ..Default::default()
            };
            let mut found = Files::new(client.channel.clone()).grep(query).await.unwrap().into_inner();
            while let Some(item) = found.next().await {
                item.unwrap();
            }
        }
    });
    future::join_all(work).await;
}

/// Small requests that have the server hold a large file, all at once. Some are answered, the others are told that there is no memory now.
async fn texts(endpoint: &str, id: &str, method: &str) {
    // Once in the file, so that it is searched to its end.
    let (old, new) = ("the last line", "another line");
    let body = match method {
        "FileSystem.EditFile" => json!({
            "session_id": id,
            "path": "/large",
            "edits": [{"old_text": old, "new_text": new}],
            "dry_run": true
        }),
        "FileSystem.ApplyPatch" => json!({
            "session_id": id,
            "patch": format!("*** Begin Patch\n*** Update File: large\n@@\n-{old}\n+{new}\n*** End Patch\n"),
            "dry_run": true
        }),
        _ => json!({"session_id": id, "path": "/large", "start_line": "100000", "limit": "10"}),
    };
    let calls = (0..CLIENTS).map(|_| {
        let body = body.clone();
        async move {
            let client = Client::connect(Surface::Grpc, endpoint.to_owned()).await;
            match client.call(method, body).await {
                Ok(_) => true,
                Err(problem) => {
                    assert_eq!(problem.reason, "QUEUE_FULL", "{method}: {problem:?}");
                    assert!(!problem.metadata["limit"].is_empty(), "{problem:?}");
                    false
                }
            }
        }
    });
    let served = future::join_all(calls).await.into_iter().filter(|is_served| *is_served).count();
    assert!(served > 0, "{method}: nobody is served");
}

async fn idle(address: SocketAddr) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..number("AFS_LOAD_IDLE", 1_500) {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_cut_and_too_many_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let few = Config { max_connections: 4, ..config(dir.path()) };
    let mut server = Server { running: Some(start(few).await.unwrap()), dir };
    let address = server.running().addresses()[0];
    let mut silent = Vec::new();
    for said in ["", "P", "PRI * HTTP/2.0\r\n", "GET /healthz HTTP/1.1\r\nhost:"] {
        let mut raw = TcpStream::connect(address).await.unwrap();
        raw.write_all(said.as_bytes()).await.unwrap();
        silent.push(raw);
    }
    let ask = async || {
        let mut raw = TcpStream::connect(address).await.unwrap();
        raw.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        raw.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    let told = ask().await;
    let (head, body) = told.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1"), "{head}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&problem["reason"], &problem["metadata"]["limit"]), (&json!("QUEUE_FULL"), &json!("4")));
    for raw in &mut silent {
        let mut rest = Vec::new();
        let cut = tokio::time::timeout(Duration::from_secs(20), raw.read_to_end(&mut rest)).await;
        assert!(cut.is_ok(), "a connection that says nothing keeps its place");
    }
    let served = ask().await;
    assert!(served.starts_with("HTTP/1.1 200"), "{served}");
    server.stop().await;
}
