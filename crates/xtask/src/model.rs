//! `cargo xtask model`: the long run of the engine against the reference model.
//!
//! Guarantees: the same first seed and number of operations are the same histories; seeds are printed as they go, and with every difference. It
//! runs the very test that CI runs, on one thread (the test programs of other crates have no test of that name).

use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many operations, in histories of 2,500
    #[arg(long, default_value_t = 5_000_000)]
    operations: u64,
    /// Seed of the first history; the others count up from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--quiet", "--release", "--workspace", "--test", "it"])
        .args(["--", "--exact", "--nocapture", "model::the_engine_agrees_with_the_model"])
        .env("AFS_MODEL_OPERATIONS", arguments.operations.to_string())
        .env("AFS_MODEL_SEED", arguments.seed.to_string())
        .current_dir(workspace::root()?)
        .status()
        .context("start cargo test")?;
    ensure!(status.success(), "the engine and the model differ: the seeds are above");
    Ok(())
}
