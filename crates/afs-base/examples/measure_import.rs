//! `cargo run --release -p afs-base --example measure_import -- REPOSITORY [ROUNDS]`
//!
//! Imports a git work tree as a directory and as a repository, next to `cp -a` and `git clone --local` of the same run.
//! Times are of a warm cache; ours end when everything is on disk.

#![allow(clippy::print_stdout, reason = "its output is what it measures")]

use afs_base::{ImportDirs, ImportSpec, Imported, Progress};
use afs_store::{BlobStore, Journal, SimJournal};
use afs_types::{Result, SystemRng};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

const NOW_NS: i64 = 1_800_000_000_000_000_000;

/// When each phase began.
struct Phases {
    start: Instant,
    seen: Mutex<Vec<(String, f64)>>,
}

impl Progress for Phases {
    fn update(&self, phase: &str, _: u64, _: Option<u64>) {
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        if seen.iter().all(|(known, _)| known != phase) {
            seen.push((phase.to_owned(), self.start.elapsed().as_secs_f64()));
        }
    }
    fn cancelled(&self) -> bool {
        false
    }
}

struct World {
    dir: PathBuf,
    blobs: Arc<BlobStore>,
    journal: Arc<SimJournal>,
    dirs: ImportDirs,
}

impl World {
    fn new(dir: &Path) -> Result<Self> {
        let journal = SimJournal::new()?;
        let blobs = BlobStore::open(&dir.join("blobs"), [7; 32], 64 << 20, journal.clone())?;
        let dirs = ImportDirs { mirrors: dir.join("mirrors"), temp: dir.join("temp") };
        Ok(Self { dir: dir.to_owned(), blobs, journal, dirs })
    }

    fn import(&self, what: &str, spec: &ImportSpec) -> Result<Imported> {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let phases = Phases { start, seen: Mutex::default() };
        let imported = afs_base::import(spec, &self.dirs, &self.blobs, &SystemRng, NOW_NS, &phases)?;
        let done = start.elapsed().as_secs_f64();
        self.journal.sync()?;
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let files = imported.totals.files + imported.totals.symlinks;
        let usage = self.blobs.usage();
        println!(
            "{what:<28} {seconds:>6.2} s  {:>7.0} files/s  {cpu:>5.2} s cpu  table {:.1} MB  store {:.0} MB",
            files as f64 / seconds,
            imported.table.len() as f64 / 1e6,
            (usage.pack_bytes + usage.raw_bytes) as f64 / 1e6
        );
        let phases = phases.seen.into_inner().unwrap_or_else(|e| e.into_inner());
        let phases: Vec<String> = phases.iter().map(|(phase, at)| format!("{at:.2} {phase}")).collect();
        println!("{:<28} {}, {done:.2} returned", "", phases.join(", "));
        Ok(imported)
    }
}

fn cpu_seconds() -> f64 {
    // User and system time of this process and its ended children, in ticks of 10 ms.
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    fields.iter().skip(11).take(4).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn run(what: &str, command: &mut Command) {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let status = command.status();
    println!("{what:<28} {:>6.2} s  {:>23.2} s cpu", start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    assert!(status.is_ok_and(|s| s.success()));
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let repository = PathBuf::from(args.next().expect("a repository with a work tree"));
    let rounds: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(3);
    let temp = std::env::temp_dir().join(format!("afs-measure-{}", std::process::id()));
    let url = repository.to_string_lossy().into_owned();
    for round in 0..rounds {
        let dir = temp.join(round.to_string());
        std::fs::create_dir_all(&dir).expect("make a directory");
        let only = std::env::var("ONLY").unwrap_or_default();
        if only == "local" || only == "git" {
            let world = World::new(&dir)?;
            let spec = match only.as_str() {
                "local" => ImportSpec::Local { path: repository.clone() },
                _ => ImportSpec::Git { url: url.clone(), reference: None },
            };
            world.import(&only, &spec)?;
            drop(world);
            std::fs::remove_dir_all(&dir).expect("remove a directory");
            continue;
        }
        let local = World::new(&dir.join("local"))?;
        local.import("local", &ImportSpec::Local { path: repository.clone() })?;
        local.import("local, again", &ImportSpec::Local { path: repository.clone() })?;
        let git = World::new(&dir.join("git"))?;
        let spec = ImportSpec::Git { url: url.clone(), reference: None };
        let imported = git.import("git", &spec)?;
        git.import("git, again", &spec)?;
        let full = ImportSpec::Git { url: url.clone(), reference: imported.upstream };
        let start = Instant::now();
        afs_base::resolve(&full, &git.dirs)?;
        let known = start.elapsed();
        afs_base::resolve(&spec, &git.dirs)?;
        println!("resolve: commit {known:?}, branch {:?} ({})", start.elapsed() - known, git.dir.display());
        if only == "ours" {
            std::fs::remove_dir_all(&dir).expect("remove a directory");
            continue;
        }
        run("cp -a", Command::new("cp").arg("-a").arg(&repository).arg(dir.join("copy")));
        run(
            "git clone --local",
            Command::new("git").args(["clone", "-q", "--local"]).arg(&repository).arg(dir.join("clone")),
        );
        std::fs::remove_dir_all(&dir).expect("remove a directory");
    }
    std::fs::remove_dir_all(&temp).expect("remove a directory");
    Ok(())
}
