//! A test bed: a mounted [`MemFs`], shell commands with a deadline, and a watchdog, since what
//! hangs in a mount can otherwise hang the whole test run.

use crate::mem_fs::MemFs;
use afs_fuse::{Caps, Counters, MountOptions, Mounted, mount};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) struct Bed {
    pub(crate) fs: Arc<MemFs>,
    mounted: Option<Mounted>,
    dir: tempfile::TempDir,
    _alive: Watchdog,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(Caps::default(), MountOptions::default())
    }

    pub(crate) fn with(caps: Caps, options: MountOptions) -> Self {
        need_fuse();
        let alive = Watchdog::start();
        let fs = MemFs::new(caps);
        let dir = tempfile::tempdir().unwrap();
        let mounted = mount(fs.clone(), dir.path(), &options).expect("mount");
        Self { fs, mounted: Some(mounted), dir, _alive: alive }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().unwrap()
    }

    pub(crate) fn take(&mut self) -> Mounted {
        self.mounted.take().unwrap()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.mounted().counters()
    }

    /// Everything reported so far has reached the kernel.
    pub(crate) fn settle(&self) {
        assert!(self.mounted().settle(Duration::from_secs(10)), "invalidations are stuck");
    }

    /// Runs a script in the mount and returns what it printed; panics if it fails.
    pub(crate) fn sh(&self, script: &str) -> String {
        sh_in(self.dir.path(), script)
    }
}

pub(crate) fn sh_in(dir: &Path, script: &str) -> String {
    let output = try_sh(dir, script);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{script}\n{:?}\nstdout: {text}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

pub(crate) fn try_sh(dir: &Path, script: &str) -> Output {
    Command::new("timeout")
        .args(["-k", "5", "60", "sh", "-euc", script])
        .current_dir(dir)
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_COUNT", "3")
        .envs([("GIT_CONFIG_KEY_0", "user.name"), ("GIT_CONFIG_VALUE_0", "T")])
        .envs([("GIT_CONFIG_KEY_1", "user.email"), ("GIT_CONFIG_VALUE_1", "t@example.com")])
        .envs([("GIT_CONFIG_KEY_2", "init.defaultBranch"), ("GIT_CONFIG_VALUE_2", "main")])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Fails, and says how to mend it, where these tests cannot run: they are never skipped.
pub(crate) fn need_fuse() {
    crate::isolation::isolate();
    assert!(
        Path::new("/dev/fuse").exists(),
        "/dev/fuse is missing: load the kernel module (modprobe fuse) or give the container the device"
    );
    let root = rustix::process::geteuid().is_root();
    let helper = Command::new("fusermount3").arg("--version").output().is_ok();
    assert!(root || helper, "mounting needs root or fusermount3: install the package fuse3");
}

/// Waits without `thread::sleep`, which the workspace forbids for good reason outside of tests that play a slow network.
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

struct Watchdog(#[expect(dead_code, reason = "held for its drop")] Sender<()>);

impl Watchdog {
    fn start() -> Self {
        let (sender, alive) = mpsc::channel();
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        std::thread::spawn(move || {
            if alive.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
                eprintln!(
                    "{test}: hangs for {DEADLINE:?}; ending the process so that the kernel ends the mount"
                );
                std::process::abort();
            }
        });
        Self(sender)
    }
}
