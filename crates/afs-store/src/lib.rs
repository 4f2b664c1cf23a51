//! Storage of AetherFS, below the engine: the [`Journal`] port, its contract, and the [`BlobStore`].
//!
//! Guarantees: a batch is committed whole or not at all, in order of submission, and never before the bytes it
//! names are on disk; every blob read back is the blob that was put, or the error says which file is damaged.
//!
//! Deliberately absent: what records mean (`afs-core`, `afs-session`), the real database (`afs-journal`), networking,
//! async. Every call blocks for a bounded time.

mod blobs;
pub mod contract;
mod group;
mod journal;
mod sim;
mod space;

pub use blobs::{
    BlobOptions, BlobStat, BlobStore, Damage, LogRef, PackWriter, Rebuilt, Usage, rebuild_index,
};
pub use group::{Group, GroupCommit, GroupOptions, GroupStore, OnFatal};
pub use journal::{Batch, Change, Flusher, Journal, Position, Space, Visit};
pub use sim::{SimJournal, SimSubject};
pub use space::DiskReserve;
