//! The program as people run it. Where a server is needed, it is a stand-in that speaks the real Bridge protocol over
//! an in-memory file system, and can be stopped, restarted, and made to lose answers; what scripts rely on is run against the real one.

#![allow(clippy::too_many_lines, reason = "a scenario reads best as one")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bed;
mod bridge;
mod cli;
mod coherence;
mod git;
#[path = "../../../afs-fuse/tests/it/isolation.rs"]
mod isolation;
#[path = "../../../afs-fuse/tests/it/mem_fs.rs"]
#[allow(dead_code, reason = "shared with the tests of afs-fuse, which use all of it")]
mod mem_fs;
mod mount;
mod people;
mod real;
mod scripts;
mod server_mount;
mod tools;
mod uploads;
