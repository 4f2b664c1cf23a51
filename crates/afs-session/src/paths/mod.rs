//! Files of a session by path: what gRPC, HTTP and the command line call.
//!
//! Guarantees: a [`View`] is one instant, so what is read through it fits together; every change is one transaction that
//! others see whole or not at all, with its preconditions checked in the same step; a change that fails leaves nothing; a retry
//! with the same request id has one effect. Paths are resolved in the session's own tree, component by component, and symbolic
//! links are followed only inside of it. No I/O happens under a session's lock: what a change must read
//! (a link's target, a text to edit) is read before, and the change starts over if that was not all.
//! Deliberately absent: waiting for durability (the surface decides, with [`Session::wait`]), authorisation, wire formats.

mod changes;
mod copy;
mod edit;
mod entry;
mod error;
mod facts;
mod glob;
mod grep;
mod lines;
mod list;
mod page;
mod patch;
mod read;
mod remembered;
mod resolve;
mod tree_ops;
mod walk;
mod work;
mod write;

pub use changes::{Change, ChangeOp, ChangeSet, Changes};
pub use copy::CopyFrom;
pub use edit::{Edited, FileEdit, Replacement};
pub use entry::{Entry, Precondition};
pub use glob::{GlobQuery, Scope};
pub use grep::{GrepDone, GrepMatch, GrepQuery};
pub use lines::LinesWindow;
pub use list::Listing;
pub use patch::{
    HunkCounts, Patch, PatchFormat, Patched, PatchedFile, differing_lines, patch_name, write_hunks,
};
pub use read::{FileBytes, Reader};
pub use tree_ops::SetAttributes;
pub use write::{WriteAt, WriteOptions};

use crate::engine::Engine;
use crate::session::{Session, Stamp, Who};
use crate::shared::Shared;
use afs_core::tree::Tree;
use afs_types::{RequestId, Result, SessionId};
use std::sync::Arc;

/// The files of one session, to read and to change.
pub struct Files<'e> {
    engine: &'e Engine,
    session: Arc<Session>,
}

/// One instant of a session, to read from. Cheap to make and to clone.
#[derive(Clone)]
pub struct View {
    tree: Tree,
    revision: u64,
    shared: Arc<Shared>,
}

/// Who makes a change, and under which request id.
#[derive(Clone, Debug, Default)]
pub struct By {
    /// A watcher is not told of its own changes; 0 is nobody in particular.
    pub who: Who,
    /// Makes retries safe.
    pub request_id: Option<RequestId>,
}

/// The answer to a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The entry after the change; none after a removal. For a repeated request, as it is now.
    pub entry: Option<Entry>,
    /// The session's revision that holds the change.
    pub revision: u64,
    /// To wait for.
    pub stamp: Stamp,
}

impl Engine {
    /// The files of a session, loaded if it is not in RAM.
    pub fn files(&self, id: &SessionId) -> Result<Files<'_>> {
        Ok(Files { engine: self, session: self.session(id)? })
    }

    /// The files of a session that is open already.
    pub fn files_of(&self, session: Arc<Session>) -> Files<'_> {
        Files { engine: self, session }
    }
}

impl Files<'_> {
    /// The session.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
    /// This instant.
    pub fn view(&self) -> View {
        self.session.view()
    }
    /// The instant that a name of [`Engine::tree_named`] stands for: a checkpoint, a commit, `base`; empty is now.
    pub fn view_at(&self, name: &str) -> Result<View> {
        if name.is_empty() {
            return Ok(self.view());
        }
        let (_, tree) = self.engine.tree_named(self.session.id(), "checkpoint_id", name)?;
        Ok(self.session.view_of(tree, 0))
    }
}

impl Session {
    /// This instant, to read from by path.
    pub fn view(&self) -> View {
        let (tree, stamp) = self.snapshot();
        self.view_of(tree, stamp.seq)
    }
    /// Any tree of this session's family, to read from by path.
    pub fn view_of(&self, tree: Tree, revision: u64) -> View {
        View { tree, revision, shared: self.shared().clone() }
    }
}

impl View {
    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }
    /// The session's revision at this instant; 0 when it is not one of the session's own time line.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}
