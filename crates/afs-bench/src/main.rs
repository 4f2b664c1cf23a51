//! The benches: every figure that README, docs and issues promise, as value, unit, bar and whether it is met.
//!
//! Guarantees: a bench measures the real thing on this machine, in a scratch directory of its own; beside its figures stand the raw limits (an
//! fdatasync, a memcpy) measured right before it, because a figure without them says more about the machine than about us. The exit code is non-zero
//! when a bench fails, and with `--strict` when a bar is missed. Deliberately absent: statistics beyond percentiles of enough rounds.

mod alloc;
mod benches;
mod limits;
mod report;
mod rounds;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use limits::Limits;
use report::{Bar, Report};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    about = "Every promised figure, with its bar and the raw limit of the same run"
)]
struct Arguments {
    /// Which benches; all of them when none is named
    names: Vec<String>,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// List the benches and what they measure
    #[arg(long)]
    list: bool,
    /// Fail when a bar is missed
    #[arg(long)]
    strict: bool,
    /// The standard corpus, as `cargo xtask corpus DIR` makes it; made there when missing
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Scratch space, on the file system to be measured
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// One bench: some figures that belong together.
struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Context) -> Result<()>,
}

/// What a bench gets.
struct Context {
    scratch: tempfile::TempDir,
    corpus: PathBuf,
    limits: Limits,
    report: Report,
}

impl Context {
    /// A directory of this bench's own; gone afterwards.
    fn dir(&self) -> &Path {
        self.scratch.path()
    }
    /// The standard corpus, made when it is not there.
    fn corpus(&self) -> Result<&Path> {
        if !self.corpus.join(".git/aetherfs-corpus").exists() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let made = std::process::Command::new(cargo).args(["xtask", "corpus"]).arg(&self.corpus).status();
            ensure!(made.context("start cargo xtask corpus")?.success(), "cargo xtask corpus failed");
        }
        Ok(&self.corpus)
    }
    /// One figure.
    fn figure(&mut self, name: &str, value: f64, unit: &'static str, bar: Bar, rounds: usize) {
        self.report.figure(name, value, unit, bar, rounds, &self.limits);
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.list {
        for bench in benches::ALL {
            report::line(format_args!("{:<12} {}", bench.name, bench.about));
        }
        return Ok(());
    }
    let chosen = choose(&arguments.names)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let scratch = arguments.scratch.unwrap_or_else(|| target.join("bench"));
    std::fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
    let corpus = arguments.corpus.unwrap_or_else(|| target.join("corpus"));
    let mut report = Report::new();
    let mut failed = Vec::new();
    for bench in chosen {
        let own = tempfile::tempdir_in(&scratch)?;
        let limits = Limits::measure(own.path())?;
        report.begin(bench.name, &limits);
        let mut context = Context { scratch: own, corpus: corpus.clone(), limits, report };
        if let Err(error) = (bench.run)(&mut context) {
            report::note(format_args!("{}: {error:#}", bench.name));
            failed.push(bench.name);
        }
        report = context.report;
    }
    report.finish(arguments.json.as_deref())?;
    ensure!(failed.is_empty(), "these benches failed: {}", failed.join(", "));
    if arguments.strict && report.missed() > 0 {
        bail!("{} bars are missed", report.missed());
    }
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<&'static Bench>> {
    if names.is_empty() {
        return Ok(benches::ALL.iter().collect());
    }
    let find = |name: &String| {
        let known = || benches::ALL.iter().map(|bench| bench.name).collect::<Vec<_>>().join(", ");
        benches::ALL
            .iter()
            .find(|bench| bench.name == name)
            .with_context(|| format!("no bench {name}; there are {}", known()))
    };
    names.iter().map(find).collect()
}
