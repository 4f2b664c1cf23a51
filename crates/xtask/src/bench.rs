//! `cargo xtask bench`: builds `afs-bench` and hands every argument to it.

use crate::workspace;
use anyhow::{Context, Result};
use std::process::Command;

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Names of benches, and options of `afs-bench`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--quiet", "--release", "--package", "afs-bench", "--"])
        .args(&arguments.rest)
        // A relative --json is relative to where the user is, so the directory stays.
        .env("AFS_WORKSPACE", workspace::root()?)
        .status()
        .context("start afs-bench")?;
    std::process::exit(status.code().unwrap_or(1))
}
