//! Change sets: many operations in order, one transaction, all or nothing.

use super::copy::{CopyFrom, copy};
use super::edit::{Replacement, check, edit_step};
use super::entry::{Entry, Precondition};
use super::error::{at, placed};
use super::facts::{Facts, Note};
use super::patch::check_revision;
use super::remembered::to_word;
use super::tree_ops::{make_dir, make_symlink, remove, rename};
use super::work::{PERMISSIONS, Task, Work, if_there};
use super::write::{Body, PutFile, WriteAt};
use super::{By, Files};
use crate::memory::Room;
use crate::requests::Begin;
use crate::session::Stamp;
use afs_core::extent::Content;
use afs_core::op::AttrSet;
use afs_types::{Error, Reason, Result, SessionPath, limits};
use bytes::Bytes;
use std::borrow::Cow;

/// One operation of a change set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeOp {
    /// Replaces or makes a file.
    Write {
        /// The file; symbolic links are followed.
        path: SessionPath,
        /// All of its bytes.
        content: Bytes,
        /// Permissions of a new file; none is 0644.
        mode: Option<u32>,
        /// Make missing directories.
        create_parents: bool,
    },
    /// Replaces pieces of a text file.
    Edit {
        /// The file; symbolic links are followed.
        path: SessionPath,
        /// In order.
        edits: Vec<Replacement>,
    },
    /// Removes a path.
    Remove {
        /// The path.
        path: SessionPath,
        /// A directory with all that is in it.
        recursive: bool,
    },
    /// Moves a path.
    Move {
        /// From.
        source: SessionPath,
        /// To.
        destination: SessionPath,
        /// Replace a file, or an empty directory by a directory.
        overwrite: bool,
    },
    /// Copies a path within the session, without copying bytes.
    Copy {
        /// From.
        source: SessionPath,
        /// To.
        destination: SessionPath,
        /// A directory with what is in it.
        recursive: bool,
        /// Replace a file, or an empty directory by a directory.
        overwrite: bool,
    },
    /// Makes a directory.
    Mkdir {
        /// The directory.
        path: SessionPath,
        /// Permissions; none is 0755.
        mode: Option<u32>,
        /// Make missing ones above it; one that is there already is fine.
        parents: bool,
    },
    /// Makes a symbolic link.
    Symlink {
        /// The link.
        path: SessionPath,
        /// Its target.
        target: Vec<u8>,
    },
    /// Changes permissions.
    Chmod {
        /// The path; symbolic links are followed.
        path: SessionPath,
        /// Permission bits.
        mode: u32,
    },
}

/// An operation and what must hold before it, after the operations in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The operation.
    pub op: ChangeOp,
    /// On the path it is about; the source of a move or copy.
    pub precondition: Precondition,
}

/// A request for a change set.
#[derive(Clone, Debug, Default)]
pub struct ChangeSet {
    /// In order, at most `limits::MAX_CHANGES`.
    pub changes: Vec<Change>,
    /// Only if the session is still at this revision.
    pub if_revision: Option<u64>,
    /// Check and answer as if, change nothing.
    pub dry_run: bool,
}

/// What a change set did.
#[derive(Clone, Debug)]
pub struct Changes {
    /// For each change the path it left something at, and the entry there after the whole set; none where nothing is.
    pub entries: Vec<(SessionPath, Option<Entry>)>,
    /// The session's revision that holds the changes.
    pub revision: u64,
    /// To wait for.
    pub stamp: Stamp,
}

impl Files<'_> {
    /// Makes all changes in one step, or none. The error of a change names its index, from 0.
    pub fn submit_changes(&self, set: &ChangeSet, by: &By) -> Result<Changes> {
        if set.changes.len() > limits::MAX_CHANGES {
            return Err(Error::above("changes", limits::MAX_CHANGES, "in one set"));
        }
        for (n, change) in set.changes.iter().enumerate() {
            if let ChangeOp::Edit { edits, .. } = &change.op {
                check(edits).map_err(|e| numbered(&e, n, change.op.name()))?;
            }
        }
        let keeps = by.request_id.is_some() && !set.dry_run;
        let mut step = |work: &mut Work<'_, '_, '_, '_>| {
            check_revision(work.revision(), set.if_revision)?;
            for (n, change) in set.changes.iter().enumerate() {
                change.run(work, n)?;
            }
            // Entries are looked up in it afterwards, without the lock, unless a retry shall be told the same.
            let words = if keeps { set.kept(work)? } else { Vec::new() };
            Ok((work.tree().clone(), words))
        };
        if set.dry_run {
            let facts = &mut Facts::dry(self.session.shared());
            let (tree, _) = self.rehearse(facts, &mut step)?;
            let stamp = self.session.stamp();
            let mut done = self.changed(set, tree, stamp)?;
            done.entries = done.entries.into_iter().map(|(path, e)| (path, e.map(Entry::untold))).collect();
            return Ok(done);
        }
        let print: Vec<Cow<'_, [u8]>> = set.changes.iter().flat_map(Change::print).collect();
        let if_revision = format!("{:?}", set.if_revision);
        let parts: Vec<&[u8]> =
            [if_revision.as_bytes()].into_iter().chain(print.iter().map(|part| &**part)).collect();
        let attempt = match self.begin("SubmitChanges", by, &parts)? {
            Begin::Done(words) => {
                return self.replayed_changes(set, &words);
            }
            Begin::Go(attempt) => attempt,
        };
        let facts = &mut Facts::free(self.session.shared());
        // Reads, edits and stores before the lock is taken.
        self.rehearse(facts, &mut step)?;
        let ((tree, _), stamp) =
            self.transact(&Task { by, attempt }, facts, step, |(_, words)| words.clone())?;
        self.changed(set, tree, stamp)
    }

    fn replayed_changes(&self, set: &ChangeSet, words: &[String]) -> Result<Changes> {
        let stamp = self.replayed_stamp(words)?;
        let entry = |(n, change): (usize, &Change)| {
            let (path, follow) = change.op.result();
            Ok((path.clone(), self.replayed_entry(words.get(n + 1), path, follow)?))
        };
        let entries = set.changes.iter().enumerate().map(entry).collect::<Result<_>>()?;
        Ok(Changes { entries, revision: stamp.seq, stamp })
    }

    fn changed(&self, set: &ChangeSet, tree: afs_core::tree::Tree, stamp: Stamp) -> Result<Changes> {
        let view = self.session.view_of(tree, stamp.seq);
        let entry = |change: &Change| {
            let (path, follow) = change.op.result();
            Ok((path.clone(), if_there(view.try_stat(path, follow))?))
        };
        let entries = set.changes.iter().map(entry).collect::<Result<_>>()?;
        Ok(Changes { entries, revision: stamp.seq, stamp })
    }
}

impl ChangeSet {
    /// The entries that all of it leaves, as its answer keeps them.
    fn kept(&self, work: &mut Work<'_, '_, '_, '_>) -> Result<Vec<String>> {
        let (mut words, mut bytes) = (Vec::with_capacity(self.changes.len()), 0);
        for change in &self.changes {
            let (path, follow) = change.op.result();
            let word = to_word(if_there(work.entry(path, follow))?.as_ref());
            bytes += word.len();
            if bytes > limits::MAX_KEPT_ENTRIES_BYTES {
                return Err(too_much_to_keep());
            }
            words.push(word);
        }
        Ok(words)
    }
}

fn too_much_to_keep() -> Error {
    let most = limits::MAX_KEPT_ENTRIES_BYTES;
    let message = format!("changes: what a retry would be answered has more than {most} bytes");
    Error::new(Reason::MessageTooLarge, message)
        .with("field", "changes")
        .with("limit", most.to_string())
        .next("send fewer changes at once, or no request_id")
}

fn numbered(error: &Error, n: usize, part: &str) -> Error {
    placed(error, &format!("changes[{n}].{part}")).with("change", n.to_string())
}

impl ChangeOp {
    /// What it is called in a request.
    fn name(&self) -> &'static str {
        match self {
            Self::Write { .. } => "write",
            Self::Edit { .. } => "edit",
            Self::Remove { .. } => "remove",
            Self::Move { .. } => "move",
            Self::Copy { .. } => "copy",
            Self::Mkdir { .. } => "mkdir",
            Self::Symlink { .. } => "symlink",
            Self::Chmod { .. } => "chmod",
        }
    }

    /// The path the operation is about, and whether a link at its end is followed.
    fn subject(&self) -> (&SessionPath, bool) {
        match self {
            Self::Write { path, .. } | Self::Edit { path, .. } | Self::Chmod { path, .. } => (path, true),
            Self::Remove { path, .. } | Self::Mkdir { path, .. } | Self::Symlink { path, .. } => {
                (path, false)
            }
            Self::Move { source, .. } | Self::Copy { source, .. } => (source, false),
        }
    }

    /// The path where the operation leaves something.
    fn result(&self) -> (&SessionPath, bool) {
        match self {
            Self::Move { destination, .. } | Self::Copy { destination, .. } => (destination, false),
            Self::Mkdir { path, parents, .. } => (path, *parents),
            other => other.subject(),
        }
    }
}

impl Change {
    /// What makes the request what it is. Contents and texts stand alone: printing them would be slow, and take several times their
    /// memory.
    fn print(&self) -> Vec<Cow<'_, [u8]>> {
        let words = |words: String| Cow::Owned(words.into_bytes());
        match &self.op {
            ChangeOp::Write { path, content, mode, create_parents } => {
                let rest = format!("write {path} {mode:?} {create_parents} {:?}", self.precondition);
                vec![words(rest), Cow::Borrowed(&content[..])]
            }
            ChangeOp::Edit { path, edits } => {
                let rest = format!("edit {path} {} {:?}", edits.len(), self.precondition);
                [words(rest)].into_iter().chain(edits.iter().flat_map(Replacement::print)).collect()
            }
            op => vec![words(format!("{op:?} {:?}", self.precondition)), Cow::Borrowed(&[])],
        }
    }

    fn run(&self, work: &mut Work<'_, '_, '_, '_>, n: usize) -> Result<()> {
        let (subject, follow) = self.op.subject();
        work.check(&self.precondition, subject, follow)
            .map_err(at(subject))
            .map_err(|e| numbered(&e, n, "precondition"))?;
        self.op.run(work, n).map_err(|e| numbered(&e, n, self.op.name()))
    }
}

impl ChangeOp {
    fn run(&self, work: &mut Work<'_, '_, '_, '_>, n: usize) -> Result<()> {
        match self {
            Self::Write { path, content, mode, create_parents } => {
                // Stored outside of the lock, once.
                let make = |_: &[u8], _: &mut Room<'_>| Ok((content.clone(), Note::default()));
                let made = work.facts.rewrite(n, (&Content::Empty, 0), 0, make)?;
                let put = PutFile {
                    path,
                    precondition: &Precondition::default(),
                    mode: *mode,
                    create_parents: *create_parents,
                    at: WriteAt::Whole,
                    body: &Body::Whole(made.content.clone(), made.size),
                };
                put.run(work).map_err(at(path))
            }
            Self::Edit { path, edits } => edit_step(work, n, path, edits).map(drop).map_err(at(path)),
            Self::Remove { path, recursive } => remove(work, path, *recursive),
            Self::Move { source, destination, overwrite } => {
                rename(work, source, destination, *overwrite).map(drop)
            }
            Self::Copy { source, destination, recursive, overwrite } => {
                let path = source.clone();
                let from = CopyFrom { session: None, path, recursive: *recursive, overwrite: *overwrite };
                copy(work, None, &from, destination)
            }
            Self::Mkdir { path, mode, parents } => make_dir(work, path, *mode, *parents),
            Self::Symlink { path, target } => make_symlink(work, path, target),
            Self::Chmod { path, mode } => chmod(work, path, *mode).map_err(at(path)),
        }
    }
}

fn chmod(work: &mut Work<'_, '_, '_, '_>, path: &SessionPath, mode: u32) -> Result<()> {
    let (attr, _) = work.find(path, true)?;
    let set = AttrSet { mode: Some(mode & PERMISSIONS), ..AttrSet::default() };
    work.run(|c| c.tree.plan_setattr(attr.ino, set, c.now_ns).map(Some))
}
