//! The engine of AetherFS: sessions over immutable bases, their files, forks, checkpoints and commits.
//!
//! Guarantees are in docs/semantics.md; the shape is in docs/design/0001-one-session.md. All calls block and are
//! thread-safe; time, chance and ids are injected. Deliberately absent: transports, authorisation, tokio.

mod attributes;
mod background;
mod checkpoints;
mod commits;
mod content;
mod engine;
mod expiry;
mod family;
mod fs;
mod ignores;
mod imports;
mod instants;
mod layers;
mod leftovers;
mod lifecycle;
mod memory;
mod overlays;
mod past;
pub mod paths;
pub mod records;
mod registry;
mod requests;
mod room;
mod seal;
mod segments;
mod session;
mod shared;
mod sources;
#[cfg(test)]
mod test_git;
mod trees;

pub use afs_base::{ImportSpec, Progress, without_password};
pub use afs_core::diff::{ChangeKind, PathChange};
pub use afs_core::op::AttrSet;
pub use afs_core::tree::plan::RenameMode;
pub use afs_core::tree::{Attr, Tree};
pub use checkpoints::{CheckpointInfo, Restored};
pub use commits::{CommitInfo, CommitRequest, DiffScope, PromoteRequest, Promoted};
pub use content::read_content;
pub use engine::Engine;
pub use family::{Family, map_file};
pub use fs::{DirEntry, FsUsage, NewFile, Seek};
pub use ignores::Ignores;
pub use imports::ImportProgress;
pub use instants::Since;
pub use lifecycle::{CreateSession, Fork, Forked, ListSessions, Page, SessionInfo, UpdateSession};
pub use past::{Before, Did};
pub use session::{Invalidation, Session, Settle, Stamp, WatchGuard, Who};
pub use shared::{EngineConfig, Ports};
pub use sources::{CreateSource, ImportRun, SourceInfo, SourceState};
