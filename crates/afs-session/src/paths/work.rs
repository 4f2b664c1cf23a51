//! One transaction by path: the steps that every change is made of, and the loop that runs it.

use super::entry::{Entry, Precondition, etag_with, whole_blob};
use super::error::at;
use super::facts::Facts;
use super::remembered;
use super::resolve::{Links, Place, no_parent, walk};
use super::{By, Files, Written};
use crate::requests::{Attempt, Begin};
use crate::session::{Ctx, Stamp, Txn};
use afs_core::op::Op;
use afs_core::tree::plan::NewNode;
use afs_core::tree::{Attr, S_IFDIR, Tree};
use afs_types::{Error, Ino, Name, Reason, Result, SessionPath};

/// Permission bits.
pub(super) const PERMISSIONS: u32 = 0o7777;
/// Permissions of directories that are made on the way.
pub(super) const DIR_MODE: u32 = 0o755;
/// Permissions of files when nobody says.
pub(super) const FILE_MODE: u32 = 0o644;
/// How often a change starts over because what it had read was changed by others meanwhile.
const MAX_TRIES: usize = 64;

/// A transaction under way, and what it knows.
pub(super) struct Work<'t, 's, 'f, 'b> {
    txn: &'t mut Txn<'s>,
    pub(super) facts: &'f mut Facts<'b>,
}

impl Work<'_, '_, '_, '_> {
    /// The tree as it is so far.
    pub(super) fn tree(&self) -> &Tree {
        self.txn.tree()
    }
    /// The session's revision before this transaction.
    pub(super) fn revision(&self) -> u64 {
        self.txn.revision()
    }

    /// Plans and applies one operation.
    pub(super) fn run(&mut self, plan: impl FnOnce(&mut Ctx<'_>) -> Result<Option<Op>>) -> Result<()> {
        self.txn.run(plan)
    }

    /// Where a path leads.
    pub(super) fn walk(&mut self, path: &SessionPath, follow: bool) -> Result<Place> {
        walk(self.txn.tree(), self.facts, path, follow)
    }

    /// What a path leads to, with the name it was found by.
    pub(super) fn find(&mut self, path: &SessionPath, follow: bool) -> Result<(Attr, Option<(Ino, Name)>)> {
        match self.walk(path, follow)? {
            Place::There { attr, named } => Ok((attr, named)),
            Place::Missing { .. } => Err(Reason::NotFound.into()),
        }
    }

    /// What a path leads to, which must have a name that can be removed or moved.
    pub(super) fn find_named(&mut self, path: &SessionPath) -> Result<(Attr, Ino, Name)> {
        match self.find(path, false)? {
            (attr, Some((dir, name))) => Ok((attr, dir, name)),
            _ => Err(Error::new(Reason::NotPermitted, "the root stays where it is")),
        }
    }

    /// The directory and name for something new; its missing parents are made if `parents`.
    pub(super) fn make_room(
        &mut self,
        path: &SessionPath,
        mut dir: Ino,
        mut names: Vec<Name>,
        parents: bool,
    ) -> Result<(Ino, Name)> {
        let last = names.pop().ok_or(Reason::Internal)?;
        if !names.is_empty() && !parents {
            return Err(no_parent(path, names.len() + 1));
        }
        for name in names {
            dir = self.create(dir, &name, S_IFDIR | DIR_MODE, None)?;
        }
        Ok((dir, last))
    }

    /// The directory and name for something new at a path where nothing may be.
    pub(super) fn free_name(&mut self, path: &SessionPath, parents: bool) -> Result<(Ino, Name)> {
        match self.walk(path, false)? {
            Place::There { .. } => Err(Reason::AlreadyExists.into()),
            Place::Missing { dir, names } => self.make_room(path, dir, names, parents),
        }
    }

    /// A new inode that belongs to whom its directory belongs. `mode` has the type.
    pub(super) fn create(&mut self, dir: Ino, name: &Name, mode: u32, target: Option<&[u8]>) -> Result<Ino> {
        let owner = self.tree().attr(dir).ok_or(Reason::NotFound)?;
        self.create_node(dir, name, &NewNode { mode, uid: owner.uid, gid: owner.gid, rdev: 0, target })
    }

    /// A new inode.
    pub(super) fn create_node(&mut self, dir: Ino, name: &Name, new: &NewNode<'_>) -> Result<Ino> {
        let mut made = 0;
        self.run(|c| {
            let mut op = c.tree.plan_create(dir, name.as_ref(), 0, new, c.now_ns)?;
            if let Op::Create { ino, .. } = &mut op {
                // Only now, so that failing creates do not use numbers up.
                made = c.new_ino()?;
                *ino = made;
            }
            Ok(Some(op))
        })?;
        Ok(made)
    }

    /// Removes a name of something that is not a directory, or is an empty one.
    pub(super) fn remove_name(&mut self, dir: Ino, name: &Name) -> Result<()> {
        self.run(|c| {
            let ino = c.tree.lookup(dir, name.as_bytes()).ok_or(Reason::NotFound)?;
            let is_dir = c.tree.attr(ino).is_some_and(|a| a.is_dir());
            let open = |i| c.is_open(i);
            let op = if is_dir {
                c.tree.plan_rmdir(dir, name.as_ref(), open, c.now_ns)
            } else {
                c.tree.plan_unlink(dir, name.as_ref(), open, c.now_ns)
            };
            op.map(Some)
        })
    }

    /// Checks a precondition on a path.
    pub(super) fn check(
        &mut self,
        precondition: &Precondition,
        path: &SessionPath,
        follow: bool,
    ) -> Result<()> {
        if *precondition == Precondition::default() {
            return Ok(());
        }
        let place = self.walk(path, follow)?;
        precondition.check((self.tree(), self.revision()), place.attr(), path)
    }

    /// The entry of an inode that was put at a path, also when the path does not lead there any more.
    pub(super) fn entry_at(&mut self, path: &SessionPath, ino: Ino) -> Result<Option<Entry>> {
        let attr = self.txn.tree().attr(ino).ok_or(Reason::Internal)?;
        entry_of(self.txn.tree(), self.facts, path.clone(), attr).map(Some)
    }

    /// The entry of a path as it is so far; a symbolic link at its end is shown itself unless `follow`.
    pub(super) fn entry(&mut self, path: &SessionPath, follow: bool) -> Result<Option<Entry>> {
        match self.walk(path, follow)? {
            Place::There { attr, .. } => entry_of(self.txn.tree(), self.facts, path.clone(), attr).map(Some),
            Place::Missing { .. } => Ok(None),
        }
    }
}

/// The entry of an inode under a path.
pub(super) fn entry_of(tree: &Tree, links: &mut dyn Links, path: SessionPath, attr: Attr) -> Result<Entry> {
    let target = attr.is_symlink().then(|| links.target(tree, attr.ino).map(|t| t.to_vec())).transpose()?;
    let base = !tree.is_overlaid(attr.ino);
    let blob = whole_blob(tree, &attr);
    Ok(Entry { etag: etag_with(tree, &attr, blob), blob, path, attr, target, base })
}

/// The entry that a change leaves, as its answer keeps it.
pub(super) fn kept(entry: &Option<Entry>) -> Vec<String> {
    vec![remembered::to_word(entry.as_ref())]
}

/// None, too, where the way to a path has gone with what the same request did later.
pub(super) fn if_there(found: Result<Option<Entry>>) -> Result<Option<Entry>> {
    match found {
        Err(error)
            if matches!(error.reason, Reason::NotFound | Reason::NotADirectory | Reason::TooManySymlinks) =>
        {
            Ok(None)
        }
        other => other,
    }
}

/// A change and how its answer is kept for retries.
pub(super) struct Task<'a> {
    pub(super) by: &'a By,
    pub(super) attempt: Option<Attempt<'a>>,
}

impl<'e> Files<'e> {
    /// Looks a request up; the session and the method are part of what it is.
    pub(super) fn begin(&self, method: &'static str, by: &By, parts: &[&[u8]]) -> Result<Begin<'e>> {
        let session = self.session.id().as_str().as_bytes();
        let parts: Vec<&[u8]> = [session].into_iter().chain(parts.iter().copied()).collect();
        self.engine.begin(method, by.request_id.as_ref(), &parts)
    }

    /// Runs a change as one transaction. `answer` is what a retry is told, besides the revision. With a request id it
    /// returns when the change is on disk.
    pub(super) fn transact<R>(
        &self,
        task: &Task<'_>,
        facts: &mut Facts<'_>,
        mut change: impl FnMut(&mut Work<'_, '_, '_, '_>) -> Result<R>,
        answer: impl Fn(&R) -> Vec<String>,
    ) -> Result<(R, Stamp)> {
        for _ in 0..MAX_TRIES {
            facts.allow_reading(false);
            let done = self.session.many(
                task.by.who,
                |txn| change(&mut Work { txn, facts: &mut *facts }),
                |made, revision, batch| {
                    if let Some(attempt) = &task.attempt {
                        let words = [vec![revision.to_string()], answer(made)].concat();
                        attempt.remember(&words, batch);
                    }
                },
            );
            if !facts.take_missing() {
                let (made, stamp) = done?;
                if task.attempt.is_some() {
                    // The journal shows only what is on disk: a retry that comes before that must go on waiting for this attempt.
                    self.session.wait(stamp)?;
                }
                return Ok((made, stamp));
            }
            self.rehearse(facts, &mut change)?;
        }
        Err(Error::new(Reason::Unavailable, format!("the files kept changing during {MAX_TRIES} attempts"))
            .next("try again, or write the whole file"))
    }

    /// Runs a change on a copy, without lock and effect: it finds out what it must know, or fails.
    pub(super) fn rehearse<R>(
        &self,
        facts: &mut Facts<'_>,
        change: &mut impl FnMut(&mut Work<'_, '_, '_, '_>) -> Result<R>,
    ) -> Result<R> {
        facts.allow_reading(true);
        self.session.dry(|txn| change(&mut Work { txn, facts }))
    }

    /// A change whose answer is the entry of one path, of a symbolic link's target if `follow`.
    pub(super) fn change_entry(
        &self,
        method: &'static str,
        by: &By,
        parts: &[&[u8]],
        (path, follow): (&SessionPath, bool),
        mut change: impl FnMut(&mut Work<'_, '_, '_, '_>) -> Result<()>,
    ) -> Result<Written> {
        self.change_shown(method, by, parts, (path, follow), |work| {
            change(work)?;
            work.entry(path, follow).map_err(at(path))
        })
    }

    /// A change that says itself which entry is its answer.
    pub(super) fn change_shown(
        &self,
        method: &'static str,
        by: &By,
        parts: &[&[u8]],
        (path, follow): (&SessionPath, bool),
        change: impl FnMut(&mut Work<'_, '_, '_, '_>) -> Result<Option<Entry>>,
    ) -> Result<Written> {
        let attempt = match self.begin(method, by, parts)? {
            Begin::Done(words) => return self.replayed(&words, path, follow),
            Begin::Go(attempt) => attempt,
        };
        let facts = &mut Facts::free(self.session.shared());
        let (entry, stamp) = self.transact(&Task { by, attempt }, facts, change, kept)?;
        Ok(Written { entry, revision: stamp.seq, stamp })
    }

    /// The answer to a repeated request.
    pub(super) fn replayed(&self, words: &[String], path: &SessionPath, follow: bool) -> Result<Written> {
        let stamp = self.replayed_stamp(words)?;
        let entry = self.replayed_entry(words.get(1), path, follow)?;
        Ok(Written { entry, revision: stamp.seq, stamp })
    }

    /// The entry in a remembered answer; in one from before they were kept, that of now, whose etag may be of another's bytes.
    pub(super) fn replayed_entry(
        &self,
        word: Option<&String>,
        path: &SessionPath,
        follow: bool,
    ) -> Result<Option<Entry>> {
        match word {
            Some(word) => remembered::from_word(word, path),
            None => Ok(if_there(self.view().try_stat(path, follow))?.map(Entry::untold)),
        }
    }

    /// The revision in a remembered answer. Everything so far is waited for, so that the answer is as durable as the first was.
    pub(super) fn replayed_stamp(&self, words: &[String]) -> Result<Stamp> {
        let revision = words.first().and_then(|w| w.parse().ok());
        let seq =
            revision.ok_or_else(|| Error::new(Reason::Corrupt, "a remembered answer has no revision"))?;
        Ok(Stamp { seq, at: self.session.stamp().at })
    }

    pub(super) fn blobs(&self) -> &afs_store::BlobStore {
        &self.session.shared().ports.blobs
    }
}
