//! The programs that the demo runs: the server and the client.
//!
//! Guarantees: dropping this ends the mount and the server, also after an error. What the server says on the side goes to a log whose end is
//! shown when it fails.

use crate::out::note;
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
/// What the server says on stderr, below the demo's directory.
const LOG: &str = "server.log";

pub(crate) struct Programs {
    aether: PathBuf,
    address: String,
    home: PathBuf,
    server: Option<Child>,
    mount: Option<PathBuf>,
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

    /// The client program.
    pub(crate) fn aether_path(&self) -> &Path {
        &self.aether
    }

    fn start_server(&mut self, program: &Path) -> Result<()> {
        let mut command = Command::new(program);
        command.arg("dev").arg("--data").arg(self.home.join("data")).args(["--listen", &self.address]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(self.home.join(LOG))?);
        if self.is_detached {
            // Out of this terminal's foreground group: a later Ctrl-C is not meant for it.
            command.process_group(0);
        }
        let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
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
        bail!("afs-server did not say that it listens on {}\n{}", self.address, self.log())
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.home.join(LOG)).unwrap_or_default();
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
        if output.stdout.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("aether {} --json printed no JSON", arguments.join(" ")))
    }

    /// Mounts a session. A process of its own serves it from then on.
    pub(crate) fn mount(&mut self, session: &str) -> Result<PathBuf> {
        let at = self.home.join("workdir");
        self.aether(&["mount", "--session", session, at.to_str().context("a path that is text")?])?;
        self.mount = Some(at.clone());
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
        if let Some(at) = self.mount.take() {
            let at = at.to_string_lossy();
            if let Err(error) = self.aether(&["unmount", &at]) {
                note!("demo: {error:#}");
                self.aether(&["unmount", "--force", &at])?;
            }
        }
        if let Some(server) = self.server.take() {
            Command::new("kill").args(["-TERM", &server.id().to_string()]).status().context("start kill")?;
            ensure!(ended_well(server)?, "afs-server did not end well\n{}", self.log());
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

/// Whether the server ended with success; killed when it does not end in time.
fn ended_well(mut server: Child) -> Result<bool> {
    let deadline = Instant::now() + STOP;
    loop {
        if let Some(status) = server.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            server.kill()?;
            server.wait()?;
            bail!("afs-server did not end within {} s and was killed", STOP.as_secs());
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "std has no wait with a deadline for a child process")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
