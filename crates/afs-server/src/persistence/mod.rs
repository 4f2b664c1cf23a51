//! Checkpoints, differences, commits, promotion. The rules are in `afs_session`; here requests become calls, and pairs
//! of trees become patches.
//!
//! Refused here: a context beyond [`diff::MAX_CONTEXT`] lines. Files beyond [`diff::MAX_TEXT_BYTES`] are told as binary.

mod diff;
mod grpc;
mod wire;

pub(crate) use grpc::Persistence;
