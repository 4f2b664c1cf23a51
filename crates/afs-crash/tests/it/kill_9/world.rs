//! A server, everybody who works on it, and the rounds: load, an end of the server, a start, a check.

use super::chance::Chance;
use super::http::Http;
use super::imports::Imports;
use super::ledger::{Ledger, holes};
use super::life::Life;
use super::observe::{Areas, observe};
use super::surfaces::Surface;
use super::worker::{End, Load, Worker};
use crate::programs::{RemoteMount, Server, pause};
use afs_client::{Client, Options, api};
use afs_types::Error;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Runtime;

/// The session that everybody works in.
pub(super) const SHARED: &str = "sess_kill_shared";
const GIT: &str = "sess_kill_git";
const SURFACES: [&str; 4] = ["grpc", "http", "mount", "remote"];
const PATIENCE: Duration = Duration::from_secs(20);

/// What belongs to a round besides everybody's load.
#[derive(Clone, Copy, Default)]
pub(super) struct Round {
    /// An import runs, too.
    pub(super) has_import: bool,
    /// What was checked in earlier rounds is checked again.
    pub(super) looks_at_all: bool,
}

pub(super) struct World {
    // Fields are dropped in order: mounts before the server, that before the directory.
    remotes: Vec<RemoteMount>,
    pub(super) server: Server,
    pub(super) workers: Vec<Worker>,
    pub(super) life: Life,
    pub(super) imports: Imports,
    pub(super) client: Client,
    pub(super) runtime: Runtime,
    pub(super) chance: Chance,
    pub(super) acknowledged: u64,
    pub(super) home: tempfile::TempDir,
}

fn own(surface: &str) -> String {
    format!("sess_kill_{surface}")
}

impl World {
    /// A server with an empty data directory, sessions, mounts and clients.
    pub(super) fn new(seed: u64) -> Self {
        crate::isolation::isolate();
        assert!(
            Path::new("/dev/fuse").exists(),
            "/dev/fuse is missing: load the kernel module (modprobe fuse)"
        );
        let home = tempfile::tempdir().unwrap();
        let mut server = Server::new(home.path(), true);
        server.start();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let user_agent = "afs-crash".to_owned();
        let options = Options { endpoint: server.endpoint(), timeout: PATIENCE, user_agent };
        let client = runtime.block_on(async { Client::new(&options) }).unwrap();
        runtime.block_on(set_up(&client, home.path())).unwrap();
        let endpoint = server.endpoint();
        let remote = |session: &str| RemoteMount::start(home.path(), &endpoint, session);
        let remotes = vec![remote(&own("remote")), remote(SHARED)];
        let mut chance = Chance::new(seed);
        let mut workers = Vec::new();
        for area in SURFACES {
            for session in [own(area), SHARED.to_owned()] {
                let surface = match area {
                    "grpc" => grpc(&client, &runtime, area, &session),
                    "http" => http(server.port, area, &session),
                    "mount" => Surface::Mount { dir: server.mount_dir().join(&session).join(area) },
                    _ => Surface::Mount { dir: remotes[usize::from(session == SHARED)].dir.join(area) },
                };
                let chance = Chance::new(chance.next());
                let mut worker = Worker::new(area, &session, surface, session == SHARED, chance);
                if let Surface::Mount { dir } = &worker.surface {
                    worker.held_path = Some(dir.join("../held"));
                    worker.survives = area == "remote";
                }
                workers.push(worker);
            }
        }
        let surface = grpc(&client, &runtime, "life", GIT);
        let worker = Worker::new("life", GIT, surface, false, Chance::new(chance.next()));
        let handle = runtime.handle().clone();
        let life = Life::new(worker, client.clone(), handle.clone(), SHARED, Chance::new(chance.next()));
        let imports = Imports::new(home.path(), client.clone(), handle);
        Self { remotes, server, workers, life, imports, client, runtime, chance, acknowledged: 0, home }
    }

    /// To be ended one by one.
    pub(super) fn take_remotes(&mut self) -> Vec<RemoteMount> {
        std::mem::take(&mut self.remotes)
    }

    /// Where commits are pushed to.
    pub(super) fn repository(&self) -> std::path::PathBuf {
        self.home.path().join("repository")
    }

    /// Everybody works until `end` has done its worst to the server; then `again` starts it, and everything is looked at. `end` says in time
    /// when errors begin to mean nothing. Returns what is wrong.
    pub(super) fn round(
        &mut self,
        how: Round,
        end: impl FnOnce(&mut Server, &mut Chance, &Load) -> End,
        again: impl FnOnce(&mut Server, &mut Chance),
    ) -> Vec<String> {
        let load = Load::default();
        let mut ended = End::Alive;
        for worker in &mut self.workers {
            worker
                .prepare()
                .unwrap_or_else(|e| panic!("{}: open a file before the load: {e}", worker.name()));
        }
        std::thread::scope(|scope| {
            for worker in &mut self.workers {
                scope.spawn(|| worker.run(&load));
            }
            scope.spawn(|| self.life.run(&load));
            if how.has_import {
                scope.spawn(|| self.imports.begin());
            }
            ended = end(&mut self.server, &mut self.chance, &load);
            load.stop.store(true, Ordering::SeqCst);
            again(&mut self.server, &mut self.chance);
        });
        self.check(&load, how, ended)
    }

    fn look(&self, session: &str) -> Result<Areas, Error> {
        self.runtime.block_on(observe(&self.client, session, ""))
    }

    /// Looks at everything, in the order in which nothing hides anything: files, promises of mounts, forks, then retries.
    fn check(&mut self, load: &Load, how: Round, end: End) -> Vec<String> {
        let mut findings = std::mem::take(&mut *load.findings.lock());
        findings.extend(self.check_ready());
        if end != End::Killed {
            self.workers.iter_mut().for_each(|worker| worker.ledger.is_durable());
        }
        for worker in self.workers.iter_mut().filter(|worker| worker.session == SHARED) {
            load.cuts.lock().iter().for_each(|began| worker.ledger.is_durable_before(*began));
        }
        let sessions: Vec<String> =
            SURFACES.iter().map(|s| own(s)).chain([SHARED.into(), GIT.into()]).collect();
        let mut seen: BTreeMap<String, Areas> = BTreeMap::new();
        for session in sessions {
            match self.look(&session) {
                Ok(areas) => drop(seen.insert(session, areas)),
                Err(error) => findings.push(format!("{session} cannot be read: {error}")),
            }
        }
        if !findings.is_empty() {
            return findings;
        }
        let (mut fits, mut states) = (Vec::new(), Vec::new());
        for worker in self.workers.iter().chain([&self.life.worker]) {
            match worker.check(&seen[&worker.session]) {
                Ok((fit, area)) => {
                    fits.push((worker, fit));
                    states.push(area);
                }
                Err(wrong) => findings.push(wrong),
            }
        }
        if !findings.is_empty() {
            return findings;
        }
        let shared: Vec<_> = fits.iter().filter(|(worker, _)| worker.session == SHARED).collect();
        let shared: Vec<(&str, &Ledger, _)> =
            shared.iter().map(|(worker, fit)| (worker.area.as_str(), &worker.ledger, *fit)).collect();
        findings.extend(holes(&shared));
        let fits: Vec<_> = fits.into_iter().map(|(_, fit)| fit).collect();
        for (worker, fit) in self.workers.iter_mut().zip(fits) {
            findings.extend(worker.check_honesty(fit, end).err());
        }
        findings.extend(self.life.retry(load));
        let shared: Vec<&Worker> = self.workers.iter().filter(|worker| worker.session == SHARED).collect();
        findings.extend(self.life.check(load, &shared, how.looks_at_all));
        findings.extend(self.check_retries(load, states));
        if how.has_import {
            findings.extend(self.imports.finish().err());
        }
        self.acknowledged += load.acknowledged.load(Ordering::Relaxed);
        findings
    }

    /// What was under way is done again under the same key, and must then be there exactly once.
    fn check_retries(&mut self, load: &Load, states: Vec<super::area::Area>) -> Vec<String> {
        let mut findings = Vec::new();
        let everybody = self.workers.iter_mut().chain([&mut self.life.worker]);
        let mut workers: Vec<(&mut Worker, super::area::Area)> = everybody.zip(states).collect();
        for (worker, state) in &mut workers {
            if worker.is_once_only() {
                worker.surface.forget();
                worker.begin_round_at(std::mem::take(state));
                continue;
            }
            let in_flight = worker.ledger.in_flight().cloned();
            match worker.retry(load) {
                Err(trouble) => findings.push(format!("{}: {in_flight:?} again: {trouble:?}", worker.name())),
                Ok(()) => {
                    let want = match &in_flight {
                        Some(step) => worker.ledger.area().after(step).expect("it was begun, so it succeeds"),
                        None => std::mem::take(state),
                    };
                    worker.begin_round_at(want);
                }
            }
        }
        drop(workers);
        let mut seen: BTreeMap<String, Areas> = BTreeMap::new();
        for worker in self.workers.iter().chain([&self.life.worker]) {
            if !seen.contains_key(&worker.session) {
                match self.look(&worker.session) {
                    Ok(areas) => drop(seen.insert(worker.session.clone(), areas)),
                    Err(error) => findings.push(format!("{}: {error}", worker.session)),
                }
            }
            let found = seen.get(&worker.session).and_then(|areas| areas.get(&worker.area)).cloned();
            let want = worker.ledger.area().shown();
            if found.as_ref() != Some(&want) {
                let differences = found.unwrap_or_default().differences(&want);
                findings.push(format!("{}: after retries it differs:{differences}", worker.name()));
            }
        }
        findings
    }

    /// The server's own checks.
    fn check_ready(&self) -> Vec<String> {
        match self.runtime.block_on(self.client.check_readiness(api::CheckReadinessRequest {})) {
            Ok(answer) => {
                let bad = answer.checks.into_iter().filter(|check| check.status == "failed");
                bad.map(|check| format!("the server is not ready: {check:?}")).collect()
            }
            Err(error) => vec![format!("the server does not say whether it is ready: {error}")],
        }
    }

    /// Everything that can be read, as text.
    pub(super) fn digest(&self) -> String {
        let sessions = SURFACES.iter().map(|s| own(s)).chain([SHARED.to_owned(), GIT.to_owned()]);
        sessions.map(|session| format!("{session}: {:#?}\n", self.look(&session).unwrap())).collect()
    }
}

fn grpc(client: &Client, runtime: &Runtime, area: &str, session: &str) -> Surface {
    let (client, runtime) = (client.clone(), runtime.handle().clone());
    Surface::Grpc { client, runtime, session: session.to_owned(), area: area.to_owned() }
}

fn http(port: u16, area: &str, session: &str) -> Surface {
    let http = Http::new(port);
    Surface::Http { http, session: session.to_owned(), area: area.to_owned(), is_durable: true }
}

/// The sessions and their directories, all durable.
async fn set_up(client: &Client, home: &Path) -> Result<(), Error> {
    for surface in SURFACES {
        make_session(client, &own(surface), "").await?;
        make_area(client, &own(surface), surface).await?;
    }
    make_session(client, SHARED, "").await?;
    for surface in SURFACES {
        make_area(client, SHARED, surface).await?;
    }
    write(client, SHARED, "/log").await?;
    let repository = home.join("repository");
    make_repository(&repository);
    let git = api::GitSpec { url: repository.to_str().unwrap().to_owned(), ..Default::default() };
    let spec = Some(api::SourceSpec { spec: Some(api::source_spec::Spec::Git(git)) });
    let source = client.create_source(api::CreateSourceRequest { spec, ..Default::default() }).await?;
    let source_id = source.source_id.clone();
    let wait = api::GetSourceRequest { source_id, wait_seconds: 60, import_number: 0 };
    client.get_source(wait).await?;
    make_session(client, GIT, &source.source_id).await?;
    make_area(client, GIT, "life").await
}

async fn make_session(client: &Client, id: &str, source: &str) -> Result<(), Error> {
    let (session_id, source_id) = (id.to_owned(), source.to_owned());
    client.create_session(api::CreateSessionRequest { session_id, source_id, ..Default::default() }).await?;
    write(client, id, "/held").await
}

async fn make_area(client: &Client, session: &str, area: &str) -> Result<(), Error> {
    let (session_id, path) = (session.to_owned(), format!("/{area}"));
    client
        .create_directory(api::CreateDirectoryRequest { session_id, path, ..Default::default() })
        .await
        .map(drop)
}

async fn write(client: &Client, session: &str, path: &str) -> Result<(), Error> {
    let header =
        api::WriteFileHeader { session_id: session.to_owned(), path: path.to_owned(), ..Default::default() };
    client.upload(header, &mut &b""[..], &mut |_| {}).await.map(drop)
}

fn make_repository(at: &Path) {
    std::fs::create_dir_all(at.join("src")).unwrap();
    std::fs::write(at.join("README.md"), "# Hello\n").unwrap();
    std::fs::write(at.join("src/main.rs"), "fn main() {}\n").unwrap();
    for arguments in [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-q", "-m", "first"]] {
        git(at, arguments);
    }
}

/// Runs git and returns what it prints.
pub(super) fn git(at: &Path, arguments: &[&str]) -> String {
    let author = ["-c", "user.name=T", "-c", "user.email=t@example.invalid"];
    let output = Command::new("git").current_dir(at).args(author).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits for a random part of `most`.
pub(super) fn pause_at_random(chance: &mut Chance, most: Duration) {
    let part = chance.below(1 + most.as_micros() as usize);
    pause(Duration::from_micros(part as u64));
}
