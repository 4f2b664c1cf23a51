//! The Rust SDK of AetherFS.
//!
//! Guarantees:
//! - every call ends within its deadline ([`Options`]), with an [`afs_types::Error`] that keeps the server's reason, facts and
//!   next step, or says which endpoint could not be reached;
//! - a call is sent again only when that cannot have a second effect: reads, and changes with a `request_id`,
//!   which are given one here if the caller gave none;
//! - an upload that breaks off changes nothing on the server;
//! - a [`Mount`] survives the loss of its connection: calls wait for it up to a bound, then fail clearly, and everything cached
//!   is taken back after a reconnect; what a crash of the server took back is told to every handle that was open then.
//!
//! Deliberately absent: reading configuration, environment or terminal (the program does that), a kernel mount (this crate
//! knows no FUSE), and rules: those are the server's.

mod cache;
mod calls;
mod client;
mod files;
mod losses;
mod mount;
mod ops;
mod retry;
mod way;

pub use afs_proto::v1 as api;
pub use afs_proto::{Problem, duration_ns, timestamp, timestamp_ns, to_duration};
pub use client::{Client, Items, Options};
pub use mount::{Change, Mount, MountEvents, MountOptions, MountSettle, MountStatus};
pub use ops::{Applied, Directory, Since};
pub use pbjson_types::{Duration as ApiDuration, FieldMask, Timestamp};
