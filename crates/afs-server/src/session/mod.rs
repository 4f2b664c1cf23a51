//! Sessions: the unit of work. The rules are in `afs_session`; here requests become calls and records become messages.
//!
//! Refused here: labels filters that do not parse, unknown fields in an update mask.

mod grpc;
mod rules;
mod wire;

pub(crate) use grpc::Sessions;
