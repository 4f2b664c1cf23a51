//! `cargo xtask`: the project's own tools, one module per command.
//!
//! Guarantees: no command changes a tracked file unless its help says so; each exits non-zero when what it checks or makes is
//! not as it should be. Deliberately absent: dependencies on the product's crates, so that `tidy` still runs while one of
//! them does not compile. The benches live in `afs-bench`, which `cargo xtask bench` builds and starts.

mod bench;
mod corpus;
mod demo;
mod model;
mod out;
mod tidy;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own tools")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check what neither rustfmt nor clippy can: arrows between crates, headers, sizes, links, promises.
    Tidy,
    /// Make the standard corpus in DIR: a git repository of about 60,000 files from pinned packages.
    Corpus(corpus::Arguments),
    /// Build and run the benches; all arguments go to them (`--help` lists them).
    Bench(bench::Arguments),
    /// Run random histories of any length on the engine and the reference model, and compare.
    Model(model::Arguments),
    /// The guided demo: one server, one repository, a hundred sessions, one of them mounted.
    Demo(demo::Arguments),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::note!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::Tidy => tidy::run(),
        Command::Corpus(arguments) => corpus::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Model(arguments) => model::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
    }
}
