//! The vocabulary of AetherFS: ids, names, limits, errors, and the injected sources of time and chance.
//!
//! Guarantees: a value of a type in this crate is valid (a [`Name`] never holds `/`, an id never holds
//! a space), and every error has a [`Reason`] from which errno, gRPC code, HTTP status and the next
//! step follow by one exhaustive table each.
//!
//! Deliberately absent: I/O, threads, async, wire formats. Everything else depends on this crate and it
//! depends on nothing.

mod env;
mod error;
mod ids;
pub mod limits;
mod name;

pub use env::{Clock, IdGen, Rng, SystemClock, SystemRng, UlidGen};
pub use error::{Error, Kind, Reason, Result};
pub use ids::{
    BlobId, CheckpointId, CommitId, Ino, LayerId, MountId, ROOT_INO, RequestId, SessionId, SourceId,
    VersionId,
};
pub use name::{Name, NameRef, SessionPath, escape, is_hidden, show, unescape};

/// Where a server listens, and a client looks for it, unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:7440";
