//! Starting again: a million records that nobody folded. Once in this process, and once as a user meets it: the real server, until it is
//! ready and until the first byte of a file of that session.

use super::node::{FILE, KEY, Node, run as run_program};
use crate::Context;
use crate::report::Bar;
use afs_session::ImportSpec;
use afs_types::{ROOT_INO, SessionId, limits};
use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

const RECORDS: u64 = 1_000_000;
const FILES: usize = 1_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    // As if nothing was ever folded: each record is read and applied again.
    let replayed = measure(context.dir(), "replayed", u64::MAX)?;
    context.figure("writes acknowledged from RAM, then one fsync", replayed.written, "1/s", Bar::None, 1);
    let name = "open and load a session of 1,000,000 records";
    context.figure(name, replayed.recovered, "s", Bar::AtMost(3.0), 1);
    real_server(context, &replayed.copy, &replayed.id)?;
    let folded = measure(context.dir(), "folded", limits::MAX_LAYER_RECORDS)?;
    context.figure("the same writes, folded in the background as usual", folded.written, "1/s", Bar::None, 1);
    context.figure("open and load that session", folded.recovered, "s", Bar::AtMost(3.0), 1);
    Ok(())
}

struct Measured {
    /// A second.
    written: f64,
    /// Seconds to open and load.
    recovered: f64,
    /// The directory as it was before that.
    copy: PathBuf,
    id: SessionId,
}

/// With new layers after `layer_records`.
fn measure(dir: &Path, name: &str, layer_records: u64) -> Result<Measured> {
    let home = dir.join(name);
    let open = || Node::open_with(&home, |config| config.layer_records = layer_records);
    let node = open()?;
    let source = node.import(ImportSpec::Empty)?;
    let (id, session) = node.session(&source)?;
    let mut files = Vec::new();
    for number in 0..FILES {
        files.push(session.create(ROOT_INO, format!("file-{number}").as_bytes(), FILE, 0, 0)?.0.ino);
    }
    let started = Instant::now();
    for number in 0..RECORDS {
        session.write(files[number as usize % FILES], number % 64 * 8, &number.to_le_bytes(), 0, 0)?;
    }
    session.fsync()?;
    let written = RECORDS as f64 / started.elapsed().as_secs_f64();
    let revision = session.stamp().seq;
    drop(session);
    node.close()?;
    // Opening writes down what the log had, so each start gets a directory of its own.
    let copy = dir.join(format!("{name}-copy"));
    let copied = copy.to_str().context("a path that is text")?;
    run_program("cp", &["-a", name, copied], dir)?;
    let started = Instant::now();
    let node = open()?;
    let session = node.engine.session(&id)?;
    let recovered = started.elapsed().as_secs_f64();
    let now = session.stamp().seq;
    ensure!(now == revision, "revision {now} after the restart, {revision} before");
    drop(session);
    node.close()?;
    Ok(Measured { written, recovered, copy, id })
}

/// The same directory under the real server. It was closed as a kill would leave it: nothing but the journal's log has the records.
fn real_server(context: &mut Context, data: &Path, session: &SessionId) -> Result<()> {
    std::fs::write(data.join("tenant.key"), KEY)?;
    std::fs::write(data.join("FORMAT"), r#"{"format": 1, "min_reader": 1, "created_by": "afs-bench"}"#)?;
    let started = Instant::now();
    let (_server, mut said) = Server::start(data)?;
    let endpoint = loop {
        let mut line = String::new();
        ensure!(said.read_line(&mut line)? > 0, "the server ended before it was ready");
        if let Some(endpoint) = line.strip_prefix("endpoint:") {
            break endpoint.trim().split(' ').next().unwrap_or_default().to_owned();
        }
    };
    let ready = started.elapsed().as_secs_f64();
    let address = endpoint.strip_prefix("http://").context("an address")?;
    let mut stream = TcpStream::connect(address)?;
    let target = format!("/v1/sessions/{session}/files/file-0");
    write!(stream, "GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let read = started.elapsed().as_secs_f64();
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    context.figure("start of the server until it is ready", ready, "s", Bar::AtMost(3.0), 1);
    context.figure("and until a file of that session is read", read, "s", Bar::AtMost(3.0), 1);
    Ok(())
}

/// Ends with the bench.
struct Server(Child);

impl Server {
    fn start(data: &Path) -> Result<(Self, BufReader<ChildStdout>)> {
        let program = std::env::current_exe()?.with_file_name("afs-server");
        ensure!(program.exists(), "{} is not built: run `make build`", program.display());
        let mut command = Command::new(program);
        command.arg("dev").arg("--data").arg(data).args(["--listen", "127.0.0.1:0", "--log-level", "warn"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take().context("the server has no stdout")?;
        Ok((Self(child), BufReader::new(said)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
