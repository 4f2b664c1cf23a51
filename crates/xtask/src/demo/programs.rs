//! The programs that the demo runs: the server, the client, ordinary tools.
//!
//! Guarantees: dropping this ends the mount and the server, also after an error. What the programs say on the side goes to `server.log`
//! and `mount.log`, and its end is shown when they fail.

use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, stderr};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A cold start on a busy machine takes seconds; more is a fault.
const START: Duration = Duration::from_secs(60);
/// A clean shutdown syncs and closes; more is a fault.
const STOP: Duration = Duration::from_secs(30);

pub(crate) struct Programs {
    aether: PathBuf,
    address: String,
    home: PathBuf,
    server: Option<Child>,
    mount: Option<(Child, PathBuf)>,
    is_detached: bool,
}

impl Programs {
    /// Starts a server with an empty data directory below `home`, on a free port.
    pub(crate) fn start(home: &Path, is_detached: bool) -> Result<Self> {
        let release = workspace::target_dir()?.join("release");
        let (server, aether) = (release.join("afs-server"), release.join("aether"));
        for program in [&server, &aether] {
            ensure!(program.exists(), "{} is not built: run `make build`", program.display());
        }
        // Free now; another program could take it before the server does, which then says so.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut programs =
            Self { aether, address, home: home.to_owned(), server: None, mount: None, is_detached };
        programs.start_server(&server)?;
        Ok(programs)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn start_server(&mut self, program: &Path) -> Result<()> {
        let mut command = Command::new(program);
        command.arg("dev").arg("--data").arg(self.home.join("data")).args(["--listen", &self.address]);
        let mut child = self.spawn(&mut command, "server.log")?;
        let output = child.stdout.take().context("the server has no stdout")?;
        self.server = Some(child);
        let (said, lines) = mpsc::channel();
        // Reads on for as long as the server lives, so that it never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let deadline = Instant::now() + START;
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(&self.address) {
                return Ok(());
            }
        }
        bail!("afs-server did not say that it listens on {}\n{}", self.address, self.log("server.log"))
    }

    fn spawn(&self, command: &mut Command, log: &str) -> Result<Child> {
        let log = File::create(self.home.join(log))?;
        command.env("AFS_AETHER_SERVER_ENDPOINT", self.endpoint());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        if self.is_detached {
            // Out of this terminal's foreground group: Ctrl-C later is not meant for it.
            command.process_group(0);
        }
        command.spawn().with_context(|| format!("start {command:?}"))
    }

    fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.home.join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Runs `aether ARGUMENTS --json` and returns what it prints; its progress goes to the terminal.
    pub(crate) fn aether(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.aether);
        command.args(arguments).arg("--json").env("AFS_AETHER_SERVER_ENDPOINT", self.endpoint());
        command.stdin(Stdio::null());
        if stderr().is_terminal() {
            command.stderr(Stdio::inherit());
        }
        let output = command.output().context("start aether")?;
        ensure!(
            output.status.success(),
            "aether {}: {}\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("aether {} --json printed no JSON", arguments.join(" ")))
    }

    /// Mounts a session and waits until it is there.
    pub(crate) fn mount(&mut self, session: &str) -> Result<PathBuf> {
        let at = self.home.join("workdir");
        std::fs::create_dir_all(&at)?;
        let mut command = Command::new(&self.aether);
        command.args(["mount", "--session", session]).arg(&at);
        let child = self.spawn(&mut command, "mount.log")?;
        self.mount = Some((child, at.clone()));
        let deadline = Instant::now() + START;
        while !is_mounted(&at)? {
            let ended = match &mut self.mount {
                Some((child, _)) => child.try_wait()?.is_some_and(|status| !status.success()),
                None => true,
            };
            ensure!(!ended && Instant::now() < deadline, "aether mount failed\n{}", self.log("mount.log"));
            pause();
        }
        Ok(at)
    }

    /// Lets everything run on; returns the server's process id.
    pub(crate) fn keep(mut self) -> u32 {
        self.mount = None;
        self.server.take().map_or(0, |server| server.id())
    }

    /// Unmounts, then ends the server as a user would, and expects both to end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if let Some((child, at)) = self.mount.take() {
            let unmounted = Command::new("umount").arg(&at).status().is_ok_and(|status| status.success())
                || Command::new("fusermount3")
                    .arg("-u")
                    .arg(&at)
                    .status()
                    .is_ok_and(|status| status.success());
            if !unmounted {
                terminate(&child)?;
            }
            wait(child, "aether mount")?;
        }
        if let Some(server) = self.server.take() {
            terminate(&server)?;
            let status = wait(server, "afs-server")?;
            ensure!(status, "afs-server did not end well\n{}", self.log("server.log"));
        }
        Ok(())
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // An error is on its way already, or there is nothing left to end.
        let _ = self.end();
    }
}

fn terminate(child: &Child) -> Result<()> {
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().context("start kill")?;
    Ok(())
}

/// Whether it ended with success; killed when it does not end in time.
fn wait(mut child: Child, name: &str) -> Result<bool> {
    let deadline = Instant::now() + STOP;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{name} did not end within {} s and was killed", STOP.as_secs());
        }
        pause();
    }
}

fn is_mounted(at: &Path) -> Result<bool> {
    let at = std::fs::canonicalize(at)?;
    let table = std::fs::read_to_string("/proc/self/mounts")?;
    Ok(table.lines().any(|line| line.split(' ').nth(1).is_some_and(|found| Path::new(found) == at)))
}

#[expect(
    clippy::disallowed_methods,
    reason = "other processes' states are polled; nothing of ours could wake us"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
