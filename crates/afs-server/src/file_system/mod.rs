//! Files by path. The rules are in `afs_session::paths`; here requests become calls.
//!
//! Guarantees: an answer with durability `local` is on disk; a stream of bytes is bounded in memory, whatever its size.

mod changes;
mod grpc;
mod read;
mod upload;
mod wire;

pub(crate) use grpc::FileSystem;
pub(crate) use read::pieces as read_pieces;
pub(crate) use wire::mutation;
