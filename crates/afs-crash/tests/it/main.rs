//! The crash suites: one binary.

#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod damage;
#[path = "../../../afs-fuse/tests/it/isolation.rs"]
mod isolation;
mod kill_9;
mod power_cut;
mod programs;
