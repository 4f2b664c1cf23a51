//! The mounts, on the corpus: `git status`, and a walk that looks at every file, beside the disk and the kernel's own overlay.
//!
//! Each round makes a fresh fork (of which the kernel knows nothing) and runs the same program in it twice, then on the disk and in a
//! fresh overlay, so that all meet the same machine. Bytes of files that git reads in the fork are counted by inode.

use super::node::run as program;
use crate::Context;
use crate::report::Bar;
use crate::rounds::Rounds;
use afs_fuse::{MountOptions, Mounted, mount};
use afs_server::{AllSessions, Running, Settings};
use afs_session::{CreateSession, CreateSource, Fork, ImportSpec};
use afs_types::{SessionId, SystemClock};
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
const IMPORT: Duration = Duration::from_secs(600);
/// Files that git reads because of what they say, in any work tree.
const FOR_GIT: [&str; 2] = [".gitignore", ".gitattributes"];

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let corpus = std::fs::canonicalize(context.corpus()?)?;
    let bed = Bed::new(context.dir(), &corpus)?;
    let mut times = Times::default();
    for round in 0..=ROUNDS {
        let one = bed.round(&bed.fork()?)?;
        if round > 0 {
            times.0.push(one);
        }
    }
    times.show(context);
    remote(context, &bed)?;
    bed.end()
}

/// One server, its sessions mounted, the corpus on the disk.
struct Bed {
    runtime: tokio::runtime::Runtime,
    running: Running,
    mounted: Mounted,
    origin: SessionId,
    dir: PathBuf,
    native: PathBuf,
}

/// Seconds, and counts.
#[derive(Default)]
struct Round {
    status: [f64; 2],
    walk: [f64; 2],
    native_status: f64,
    native_walk: f64,
    overlay_status: f64,
    overlay_walk: f64,
    requests: f64,
    files_read: f64,
}

impl Bed {
    fn new(scratch: &Path, corpus: &Path) -> Result<Self> {
        let native = scratch.join("native");
        let (from, to) = (text(corpus)?, text(&native)?);
        program("git", &["clone", "--quiet", "--local", from, to], scratch)?;
        // An index as old as the files makes git read them; a second later it is written anew.
        program("sleep", &["1.1"], scratch)?;
        git_status(&native)?;
        let runtime = tokio::runtime::Runtime::new()?;
        let settings = Settings {
            listen: Some("127.0.0.1:0".into()),
            data_dir: Some(scratch.join("data")),
            ..Settings::default()
        };
        let running = runtime.block_on(afs_server::start(settings.resolve()?))?;
        let engine = &running.app().engine;
        let url = from.to_owned();
        let want = CreateSource {
            source_id: None,
            display_name: String::new(),
            spec: ImportSpec::Git { url, reference: None },
            labels: Default::default(),
            request_id: None,
        };
        let source = engine.wait_source(&engine.create_source(want)?.id, IMPORT)?.id;
        let origin = engine.create_session(CreateSession { source: Some(source), ..Default::default() })?.id;
        let dir = scratch.join("sessions");
        std::fs::create_dir(&dir)?;
        let (clock, who) = (Arc::new(SystemClock), Arc::new(AtomicU64::new(1 << 40)));
        let all = AllSessions::new(engine.clone(), running.app().data_dir().to_owned(), clock, who);
        let options = MountOptions { record_reads: true, name: "aether:bench".into(), ..Default::default() };
        let mounted = mount(Arc::new(all), &dir, &options)?;
        Ok(Self { runtime, running, mounted, origin, dir, native })
    }

    fn fork(&self) -> Result<SessionId> {
        let forked = self.running.app().engine.fork(&Fork::of(self.origin.clone()))?;
        Ok(forked.first().context("a fork")?.id.clone())
    }

    fn round(&self, fork: &SessionId) -> Result<Round> {
        let dir = self.dir.join(fork.as_str());
        let mut round = Round::default();
        self.mounted.inodes_read();
        let before = self.mounted.counters();
        round.status[0] = git_status(&dir)?;
        let c = self.mounted.counters().since(&before);
        let requests =
            [c.lookups, c.getattrs, c.readlinks, c.opens, c.reads, c.releases, c.opendirs, c.readdirs];
        round.requests = requests.into_iter().sum::<u64>() as f64;
        round.files_read = self.contents_read(fork)? as f64;
        round.status[1] = git_status(&dir)?;
        round.native_status = git_status(&self.native)?;
        let other = self.dir.join(self.fork()?.as_str());
        round.walk = [walk(&other)?, walk(&other)?];
        round.native_walk = walk(&self.native)?;
        let overlay = Overlay::over(&self.native)?;
        round.overlay_status = git_status(&overlay.dir)?;
        drop(overlay);
        let overlay = Overlay::over(&self.native)?;
        round.overlay_walk = walk(&overlay.dir)?;
        Ok(round)
    }

    /// Files of the work tree that were read, other than those that tell git how.
    fn contents_read(&self, fork: &SessionId) -> Result<usize> {
        let tree = self.running.app().engine.session(fork)?.tree();
        let paths = self.mounted.inodes_read().into_iter().filter_map(|ino| tree.path_of(ino & 0xffff_ffff));
        let is_content = |path: &String| {
            let name = path.rsplit('/').next().unwrap_or_default();
            !path.starts_with("/.git/") && !FOR_GIT.contains(&name)
        };
        Ok(paths.map(|path| path.to_text()).filter(is_content).count())
    }

    fn end(self) -> Result<()> {
        self.mounted.unmount()?;
        Ok(self.runtime.block_on(self.running.stop())?)
    }
}

#[derive(Default)]
struct Times(Vec<Round>);

impl Times {
    fn of(&self, value: impl Fn(&Round) -> f64) -> f64 {
        Rounds::new(self.0.iter().map(value).collect()).p50()
    }

    fn show(&self, context: &mut Context) {
        let mut row = |name: &str, value: f64, unit, bar| context.figure(name, value, unit, bar, ROUNDS);
        let native = self.of(|r| r.native_status);
        let overlay = self.of(|r| r.overlay_status);
        let [first, second] = [0, 1].map(|i| self.of(|r| r.status[i]));
        row("git status on the disk", native * 1e3, "ms", Bar::None);
        row("git status in a fresh overlay", overlay * 1e3, "ms", Bar::None);
        row("git status in a fresh fork", first * 1e3, "ms", Bar::None);
        row("git status in a fresh fork over the disk's", first / native, "x", Bar::AtMost(1.5));
        row("git status, second, over the disk's", second / native, "x", Bar::AtMost(1.5));
        row(
            "git status in a fresh fork: files whose content is read",
            self.of(|r| r.files_read),
            "files",
            Bar::AtMost(0.0),
        );
        row(
            "git status in a fresh fork: requests to the mount",
            self.of(|r| r.requests),
            "requests",
            Bar::None,
        );
        let native = self.of(|r| r.native_walk);
        let overlay = self.of(|r| r.overlay_walk);
        let [cold, warm] = [0, 1].map(|i| self.of(|r| r.walk[i]));
        row("walk and stat on the disk", native * 1e3, "ms", Bar::None);
        row("walk and stat in a fresh overlay", overlay * 1e3, "ms", Bar::None);
        row("walk and stat in a fresh fork", cold * 1e3, "ms", Bar::None);
        row("walk and stat in a fresh fork over an overlay's", cold / overlay, "x", Bar::None);
        row("walk and stat again over the disk's", warm / native, "x", Bar::None);
    }
}

/// The program's mount over the wire.
fn remote(context: &mut Context, bed: &Bed) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--release", "--package", "aether"]);
    ensure!(build.status().context("start cargo build")?.success(), "cargo build --package aether failed");
    let aether = std::env::current_exe()?.with_file_name("aether");
    let address = bed.running.addresses().first().context("an address")?;
    let endpoint = format!("http://{address}");
    let run = |arguments: &[&str]| -> Result<()> {
        let all = [&["--endpoint", &endpoint, "--quiet"], arguments].concat();
        program(text(&aether)?, &all, &bed.native)
    };
    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..3 {
        let dir = bed.dir.with_file_name(format!("remote-{round}"));
        run(&["mount", "--session", bed.fork()?.as_str(), text(&dir)?])?;
        let took =
            git_status(&dir).and_then(|first| Ok([first, git_status(&dir)?, walk(&dir)?, walk(&dir)?]));
        run(&["unmount", text(&dir)?])?;
        times.iter_mut().zip(took?).for_each(|(times, time)| times.push(time));
    }
    let names = ["git status, first", "git status, second", "walk and stat, first", "walk and stat, second"];
    for (name, times) in names.into_iter().zip(times) {
        let (rounds, p50) = (times.len(), Rounds::new(times).p50());
        context.figure(&format!("over the wire, a fresh fork: {name}"), p50 * 1e3, "ms", Bar::None, rounds);
    }
    Ok(())
}

/// The kernel's overlay over a directory, seen for the first time.
struct Overlay {
    dir: PathBuf,
    room: tempfile::TempDir,
}

impl Overlay {
    fn over(lower: &Path) -> Result<Self> {
        let room = tempfile::tempdir_in(lower.parent().context("a parent")?)?;
        let at = |name: &str| -> Result<PathBuf> {
            let dir = room.path().join(name);
            std::fs::create_dir(&dir)?;
            Ok(dir)
        };
        let (upper, work, dir) = (at("upper")?, at("work")?, at("merged")?);
        let options =
            format!("lowerdir={},upperdir={},workdir={}", text(lower)?, text(&upper)?, text(&work)?);
        program("mount", &["-t", "overlay", "overlay", "-o", &options, text(&dir)?], room.path())?;
        Ok(Self { dir, room })
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Err(error) = text(&self.dir).and_then(|dir| program("umount", &[dir], self.room.path())) {
            crate::report::note(format_args!("an overlay stays mounted: {error:#}"));
        }
    }
}

/// Seconds. It must find nothing, and say nothing.
fn git_status(dir: &Path) -> Result<f64> {
    let mut git = Command::new("git");
    git.args(["status", "--porcelain"]).current_dir(dir).stdin(Stdio::null());
    git.env("HOME", "/nonexistent").env("GIT_CONFIG_NOSYSTEM", "1");
    let begin = Instant::now();
    let output = git.output().context("start git")?;
    let took = begin.elapsed().as_secs_f64();
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success() && said.is_empty(), "git status: {}", String::from_utf8_lossy(&said));
    Ok(took)
}

/// Seconds to list every directory and look at every entry.
fn walk(dir: &Path) -> Result<f64> {
    let begin = Instant::now();
    let (mut todo, mut seen) = (vec![dir.to_owned()], 0);
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            let meta = std::fs::symlink_metadata(&path)?;
            seen += 1;
            if meta.is_dir() && path.file_name().is_none_or(|name| name != ".git") {
                todo.push(path);
            }
        }
    }
    ensure!(seen > 0, "nothing in {}", dir.display());
    Ok(begin.elapsed().as_secs_f64())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}
