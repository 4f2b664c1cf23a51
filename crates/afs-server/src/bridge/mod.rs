//! The data plane of `aether mount`: one session by inode, for a client that may vanish at any time.
//!
//! Guarantees: an op_id is applied once per mount, however often and however concurrently it is sent; a mount that sends
//! nothing for [`LEASE`] ends and releases what it held open; an operation that an earlier start of the server did not answer is
//! applied once over both ([`resent`]); every change by others reaches its Sync stream, or an
//! `all` does when the stream was too slow ([`events`]); what waits for all mounts together is bounded in bytes ([`share`]).
//!
//! Refused here: changes through a read-only mount, calls of a mount that ended, a renewal for a session that was deleted (also when
//! its id is used again), and "durable" of what is gone with its session.
//! Deliberately absent: permissions (the client's kernel checks them), locks across mounts.

mod apply;
mod events;
mod grpc;
mod registry;
mod replies;
mod resent;
mod share;
mod sync;
mod tree;
mod wire;

pub(crate) use grpc::Bridge;
pub(crate) use registry::Registry;

use std::time::Duration;

/// How long a silent mount lives.
pub(crate) const LEASE: Duration = Duration::from_millis(afs_types::limits::MOUNT_LEASE_MS);
