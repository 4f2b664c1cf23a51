//! Storage of AetherFS, below the engine: the [`Journal`] port, its contract, and the [`BlobStore`].
//!
//! Guarantees: a batch is committed whole or not at all, in order of submission, and never before the bytes it
//! names are on disk; every blob read back is the blob that was put, or the error says which file is damaged.
//!
//! Deliberately absent: what records mean (`afs-core`, `afs-session`), the real database (`afs-journal`), networking,
//! async. Every call blocks for a bounded time.

mod batch;
mod blobs;
pub mod contract;
pub mod git_pack;
mod group;
mod journal;
mod sim;
mod space;

pub use blobs::{
    BlobOptions, BlobStat, BlobStore, Damage, GitObject, LogRef, MAX_CHAIN, MAX_CHAIN_BYTES, MAX_DELTA_BYTES,
    PackWriter, Rebuilt, Usage, rebuild_index,
};
pub use group::{Group, GroupCommit, GroupOptions, GroupStore, OnFatal};
pub use journal::{Batch, Change, Changes, Flusher, Journal, Position, Space, Visit};
pub use sim::{SimJournal, SimSubject};
pub use space::DiskReserve;
