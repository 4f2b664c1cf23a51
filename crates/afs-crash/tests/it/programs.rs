//! The real programs: `afs-server dev` on one data directory and one port, started as often as it takes, and `aether mount`.
//!
//! Dropping ends what runs; mounts are in a namespace of the test and end with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A start on a busy machine, recovery included; more is a fault.
const START: Duration = Duration::from_secs(30);
/// A clean stop, with all connections drained.
const STOP: Duration = Duration::from_secs(40);

/// Where a server lives, whether it runs or not.
pub(crate) struct Server {
    home: PathBuf,
    pub(crate) port: u16,
    with_mount: bool,
    child: Option<Child>,
    pub(crate) starts: u32,
    /// The longest start until the server said that it is ready.
    pub(crate) slowest_start: Duration,
}

impl Server {
    pub(crate) fn new(home: &Path, with_mount: bool) -> Self {
        let slowest_start = Duration::ZERO;
        Self { home: home.to_owned(), port: free_port(), with_mount, child: None, starts: 0, slowest_start }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Where it shows all sessions.
    pub(crate) fn mount_dir(&self) -> PathBuf {
        self.home.join("sessions")
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn log_file(&self) -> PathBuf {
        self.home.join("server.log")
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&mut self) -> mpsc::Receiver<String> {
        assert!(self.child.is_none(), "it runs already");
        let mut command = Command::new(program("afs-server"));
        command.arg("dev").arg("--data").arg(self.data_dir());
        command.args(["--listen", &format!("127.0.0.1:{}", self.port), "--log-level", "warn"]);
        if self.with_mount {
            command.arg("--mount").arg(self.mount_dir());
        }
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        self.child = Some(child);
        self.starts += 1;
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = said.send(line); // nobody listens once it is ready
            }
        });
        lines
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) fn start(&mut self) {
        let began = Instant::now();
        let lines = self.spawn();
        loop {
            match lines.recv_timeout(START.saturating_sub(began.elapsed())) {
                Ok(line) if line.contains("is ready") => break,
                Ok(_) => {}
                Err(_) => panic!("the server does not start:\n{}", self.log()),
            }
        }
        self.slowest_start = self.slowest_start.max(began.elapsed());
    }

    /// Starts it, and it must refuse: returns its exit code and what it says.
    pub(crate) fn refuses_to_start(&mut self) -> (Option<i32>, String) {
        drop(fs::remove_file(self.log_file())); // there may be none
        let lines = self.spawn();
        let mut child = self.child.take().unwrap();
        if let Some(line) = lines.recv_timeout(START).ok().filter(|line| line.contains("is ready")) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it must not start, and says: {line}");
        }
        (child.wait().unwrap().code(), self.log())
    }

    /// `kill -9`; returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; returns how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), "-TERM");
        let until = Instant::now() + STOP;
        loop {
            match child.try_wait().unwrap() {
                Some(status) => return status,
                None if Instant::now() > until => {
                    child.kill().unwrap();
                    panic!("SIGTERM has not ended the server within {STOP:?}:\n{}", self.log());
                }
                None => pause(Duration::from_millis(5)),
            }
        }
    }

    /// The end of what it said on stderr.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `aether mount`, served by a process of its own that outlives the server.
pub(crate) struct RemoteMount {
    child: Child,
    pub(crate) dir: PathBuf,
    log: PathBuf,
}

impl RemoteMount {
    pub(crate) fn start(home: &Path, endpoint: &str, session: &str) -> Self {
        let dir = home.join(format!("remote-{session}"));
        fs::create_dir_all(&dir).unwrap();
        let log_file = home.join(format!("remote-{session}.log"));
        let log = File::create(&log_file).unwrap();
        let mut command = Command::new(program("aether"));
        command.args(["mount", "--foreground", "--patience", "60s", "--session", session]).arg(&dir);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home);
        command.env("XDG_RUNTIME_DIR", home).env("AFS_AETHER_SERVER_ENDPOINT", endpoint);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        let mount = Self { child, dir, log: log_file };
        eventually("the remote mount is there", || {
            afs_fuse::mounts().unwrap().iter().any(|at| at.dir == mount.dir)
        });
        mount
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Unmounts as a user would; everything written is durable then, if it ends with success. Returns what it said, too.
    pub(crate) fn stop(mut self) -> (ExitStatus, String) {
        signal(self.child.id(), "-TERM");
        let status = self.child.wait().unwrap();
        (status, fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for RemoteMount {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = afs_fuse::unmount_path(&self.dir, true);
    }
}

pub(crate) fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// A program of the workspace, as it was built with this test (`scripts/tests.sh` builds it).
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let found = test.ancestors().nth(2).unwrap().join(name);
    assert!(found.exists(), "{} is not built: run `cargo build --release --bins` first", found.display());
    found
}

/// A port that stays free while the server is down: the kernel gives none below its range to outgoing connections.
fn free_port() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let start = 10_000 + (std::process::id() % 10_000) as u16;
    let mut ports = (start..first).chain(5_000..start);
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

/// Waits without `thread::sleep`, which the workspace forbids for good reason outside of tests that play a slow network.
pub(crate) fn pause(time: Duration) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

/// Polls for something that must come true.
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if is_true() {
            return;
        }
        pause(Duration::from_millis(20));
    }
    panic!("still not: {what}");
}
