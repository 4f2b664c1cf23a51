//! Checkpoints, differences, commits, promotion. The rules are in `afs_session`; here requests become calls, and pairs
//! of trees become patches.
//!
//! Refused here: a context beyond `limits::MAX_DIFF_CONTEXT` lines. Files beyond `limits::MAX_DIFF_FILE_BYTES` are told as binary.

mod diff;
mod grpc;
mod wire;

pub(crate) use grpc::Persistence;
