//! The server as its clients see it: each scenario once, run over gRPC and over HTTP, against a real server on a real port.

#![allow(clippy::too_many_lines, reason = "a scenario reads best as one")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod all_sessions;
mod attributes;
mod bridge;
mod client;
mod commits;
mod contract;
mod files;
mod fuzz;
mod harness;
mod hostile;
mod lifecycle;
mod load;
mod manners;
mod persistence;
mod raw;
mod schema;
mod sessions;
mod staged;
mod standards;
mod uploads;
