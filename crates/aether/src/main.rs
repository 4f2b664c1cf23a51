//! `aether`: the command line of AetherFS.
//!
//! Guarantees: stdout is data, stderr is talk; with `--json` stdout is JSON (one value, or one per line where results
//! stream) and a failure is an RFC 9457 problem object on stderr; exit codes are stable ([`failure`]); nothing here decides what
//! the server decides.

mod cli;
mod commands;
mod config;
mod context;
mod failure;
mod hints;
mod imports;
mod mount;
mod output;
mod paths;
mod text;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}
