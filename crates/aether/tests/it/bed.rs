//! Runs the program with an environment of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A home, a working directory, nothing of the machine's.
pub(crate) struct Bed {
    dir: tempfile::TempDir,
    pub(crate) endpoint: String,
}

impl Bed {
    pub(crate) fn new(endpoint: &str) -> Self {
        crate::isolation::isolate();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        Self { dir, endpoint: endpoint.into() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "2", "60", env!("CARGO_BIN_EXE_aether")]).args(args).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.dir.path());
        command.env("XDG_RUNTIME_DIR", self.dir.path()).current_dir(self.dir.path().join("work"));
        if !self.endpoint.is_empty() {
            command.env("AFS_AETHER_SERVER_ENDPOINT", &self.endpoint);
        }
        command.stdin(Stdio::null());
        command
    }

    /// The program itself, to be stopped by its process id; whoever starts it sees that it ends.
    pub(crate) fn bare(&self, args: &[&str]) -> Command {
        let like = self.command(&[]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_aether"));
        command.args(args).env_clear();
        command.envs(like.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.current_dir(like.get_current_dir().unwrap());
        command
    }

    /// Runs it and returns exit code, stdout and stderr.
    pub(crate) fn try_run(&self, args: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (status.code().unwrap_or(-1), text(stdout), text(stderr))
    }

    /// Runs it, and it must succeed.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.try_run(args);
        assert_eq!(code, 0, "aether {args:?}\nstdout: {stdout}\nstderr: {stderr}\n{}", self.logs());
        stdout
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let out = self.run(&[args, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }

    fn logs(&self) -> String {
        let dir = self.dir.path().join(".local/state/aether");
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
        files.map(|f| std::fs::read_to_string(f.path()).unwrap_or_default()).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // Whatever became of the test, no mount of it stays.
        for mount in afs_fuse::mounts().unwrap_or_default() {
            if mount.dir.starts_with(self.dir.path()) {
                let _ = afs_fuse::unmount_path(&mount.dir, true);
            }
        }
    }
}

/// A script in a directory, with a deadline.
pub(crate) fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("timeout")
        .args(["-k", "2", "60", "sh", "-euc", script])
        .current_dir(dir)
        .envs([("GIT_CONFIG_COUNT", "2"), ("GIT_CONFIG_KEY_0", "user.name"), ("GIT_CONFIG_VALUE_0", "T")])
        .envs([("GIT_CONFIG_KEY_1", "user.email"), ("GIT_CONFIG_VALUE_1", "t@example.com")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\nstdout: {text}\nstderr: {said}");
    text
}

pub(crate) fn pause(time: Duration) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

/// Polls for something that must come true.
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_true() {
            return;
        }
        pause(Duration::from_millis(20));
    }
    panic!("still not: {what}");
}
