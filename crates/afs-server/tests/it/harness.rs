//! A real server on a temporary directory, and a small git repository to import.

use crate::client::{Client, Surface};
use afs_server::{Config, Running, Settings, start};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A server and the directory it lives in.
pub(crate) struct Server {
    pub(crate) running: Option<Running>,
    pub(crate) dir: TempDir,
}

pub(crate) fn config(dir: &Path) -> Config {
    let settings = Settings {
        listen: Some("127.0.0.1:0".into()),
        data_dir: Some(dir.join("data")),
        blocking_threads: Some(8),
        ..Settings::default()
    };
    settings.resolve().unwrap()
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let running = start(config(dir.path())).await.unwrap();
        Self { running: Some(running), dir }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.running().addresses()[0])
    }

    /// A client of each surface.
    pub(crate) async fn both(&self) -> [Client; 2] {
        [
            Client::connect(Surface::Grpc, self.endpoint()).await,
            Client::connect(Surface::Http, self.endpoint()).await,
        ]
    }

    pub(crate) async fn stop(&mut self) {
        self.running.take().unwrap().stop().await.unwrap();
    }

    /// Stops, and starts again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.running = Some(start(config(self.dir.path())).await.unwrap());
    }

    /// A repository with a few files, one commit on `main`.
    pub(crate) fn repository(&self) -> PathBuf {
        let repo = self.dir.path().join("repo");
        if repo.exists() {
            return repo;
        }
        std::fs::create_dir_all(repo.join("src")).unwrap();
        std::fs::write(repo.join("README.md"), "# Hello\n\nworld\n").unwrap();
        std::fs::write(repo.join("src/main.rs"), "fn main() {\n    println!(\"hi\");\n}\n").unwrap();
        std::fs::write(repo.join("run.sh"), "#!/bin/sh\necho hi\n").unwrap();
        std::os::unix::fs::symlink("README.md", repo.join("link")).unwrap();
        git(&repo, &["init", "-q", "-b", "main"]);
        git(&repo, &["add", "-A"]);
        git(&repo, &["update-index", "--chmod=+x", "run.sh"]);
        git(&repo, &["commit", "-q", "-m", "first"]);
        repo
    }
}

pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=T", "-c", "user.email=t@example.invalid"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An empty session.
pub(crate) async fn empty_session(client: &Client) -> String {
    let session = client.ok("Session.CreateSession", json!({})).await;
    session["session_id"].as_str().unwrap().to_owned()
}

/// A session on the repository.
pub(crate) async fn git_session(client: &Client, repo: &Path) -> Value {
    let source = client.ok("Source.CreateSource", json!({"spec": {"git": {"url": repo}}})).await;
    let id = source["source_id"].clone();
    let ready = client.ok("Source.GetSource", json!({"source_id": id, "wait_seconds": 60})).await;
    assert_eq!(ready["state"], "RESOURCE_STATE_READY", "{ready}");
    client.ok("Session.CreateSession", json!({"source_id": id})).await
}
