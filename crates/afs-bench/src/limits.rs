//! The raw limits of this machine in this run: what an fdatasync and a memcpy cost when nothing of ours is in the way.

use crate::rounds::Rounds;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs::OpenOptions;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

const SYNC_ROUNDS: usize = 300;
const COPY_BYTES: usize = 64 << 20;

/// Measured right before a bench.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Limits {
    /// Appending 4 KiB to a file and `fdatasync`, median, in microseconds.
    pub(crate) fdatasync_p50_us: f64,
    /// The same, 99th percentile.
    pub(crate) fdatasync_p99_us: f64,
    /// Copying 64 MiB in memory, in gigabytes a second.
    pub(crate) memcpy_gb_s: f64,
}

impl Limits {
    /// Measures on the file system of `dir`.
    pub(crate) fn measure(dir: &Path) -> Result<Self> {
        let path = dir.join("raw-limit");
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .context("make the file of the raw limit")?;
        let block = [7u8; 4096];
        let mut failure = None;
        let mut offset = 0;
        let syncs = Rounds::of(SYNC_ROUNDS, |_| {
            let result = file.write_all_at(&block, offset).and_then(|()| file.sync_data());
            offset += block.len() as u64;
            failure = failure.take().or(result.err());
        });
        if let Some(error) = failure {
            return Err(error).context("measure the raw fdatasync");
        }
        std::fs::remove_file(&path)?;
        Ok(Self {
            fdatasync_p50_us: syncs.p50() / 1e3,
            fdatasync_p99_us: syncs.p99() / 1e3,
            memcpy_gb_s: memcpy_gb_s(),
        })
    }
}

fn memcpy_gb_s() -> f64 {
    let from = vec![1u8; COPY_BYTES];
    let mut to = vec![0u8; COPY_BYTES];
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let started = Instant::now();
        black_box(&mut to).copy_from_slice(black_box(&from));
        best = best.min(started.elapsed().as_secs_f64());
    }
    COPY_BYTES as f64 / best / 1e9
}
