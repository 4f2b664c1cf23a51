//! The mount for real: an in-memory file system behind the kernel, ordinary tools in front of it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bed;
mod coherence;
mod isolation;
mod life_cycle;
mod mem_fs;
mod semantics;
mod tools;
