//! The server as its clients see it: each scenario once, run over gRPC and over HTTP, against a real server on a real port.

mod bridge;
mod client;
mod files;
mod harness;
mod hostile;
mod lifecycle;
mod persistence;
mod raw;
mod sessions;
mod standards;
