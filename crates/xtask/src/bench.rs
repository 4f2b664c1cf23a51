//! `cargo xtask bench`: builds `afs-bench` and hands every argument to it.

use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::process::Command;

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Names of benches, and options of `afs-bench`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = workspace::root()?;
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // The workspace's features, not the package's own: what `make test` built serves here, too.
        .args(["build", "--quiet", "--release", "--workspace", "--bin", "afs-bench"])
        .current_dir(&root)
        .status()
        .context("start cargo build")?;
    ensure!(built.success(), "afs-bench does not build");
    // Beside this program, wherever cargo was told to build.
    let program = std::env::current_exe().context("find this program")?.with_file_name("afs-bench");
    let status = Command::new(&program)
        .args(&arguments.rest)
        // A relative --json is relative to where the user is, so the directory stays.
        .env("AFS_WORKSPACE", root)
        .status()
        .with_context(|| format!("start {}", program.display()))?;
    std::process::exit(status.code().unwrap_or(1))
}
