//! Copying without copying bytes: the copy shares the source's extents, also across sessions.
//!
//! Guarantees: one instant of the source becomes one transaction of the destination; content, mode, owner, times, extended
//! attributes and symbolic links are those of the source, and names that were hard links of one another in the copied part are again.
//! Deliberately absent: merging into a directory that has entries.

use super::error::at;
use super::resolve::{Links, Place, walk};
use super::tree_ops::remove;
use super::work::Work;
use super::{By, Files, Written};
use afs_core::op::AttrSet;
use afs_core::tree::plan::NewNode;
use afs_core::tree::{Attr, FIRST_COOKIE, Tree};
use afs_types::{Error, Ino, Name, Reason, Result, SessionId, SessionPath};
use std::collections::HashMap;

/// What to copy from where.
#[derive(Clone, Debug)]
pub struct CopyFrom {
    /// Another session of the same server; none: the same one.
    pub session: Option<SessionId>,
    /// The path there.
    pub path: SessionPath,
    /// Copy a directory with what is in it.
    pub recursive: bool,
    /// Replace a file, or an empty directory by a directory.
    pub overwrite: bool,
}

impl Files<'_> {
    /// Copies a file or a directory. A symbolic link is copied as one.
    pub fn copy_path(&self, from: &CopyFrom, destination: &SessionPath, by: &By) -> Result<Written> {
        let other = match &from.session {
            Some(id) if id != self.session.id() => Some(self.engine.session(id)?.tree()),
            _ => None,
        };
        let print = format!("{from:?}");
        self.change_entry(
            "CopyPath",
            by,
            &[&destination.to_bytes(), print.as_bytes()],
            (destination, false),
            |work| copy(work, other.as_ref(), from, destination),
        )
    }
}

/// Copies from another session's tree, or from the one that is being changed as it is so far.
pub(super) fn copy(
    work: &mut Work<'_, '_, '_, '_>,
    other: Option<&Tree>,
    from: &CopyFrom,
    destination: &SessionPath,
) -> Result<()> {
    let source = other.unwrap_or(work.tree()).clone();
    let place = walk(&source, work.facts, &from.path, false).map_err(at(&from.path))?;
    let top = *place.attr().ok_or(Reason::NotFound).map_err(|r| at(&from.path)(r.into()))?;
    if top.is_dir() && !from.recursive {
        return Err(at(&from.path)(
            Error::bare(Reason::IsADirectory).next("set recursive to copy a directory"),
        ));
    }
    let (dir, name) = make_free(work, &top, from, destination, other.is_none()).map_err(at(destination))?;
    Copier { source: &source, made: HashMap::new() }.run(work, &top, dir, &name).map_err(at(destination))
}

/// Where the copy goes. What it replaces is removed.
fn make_free(
    work: &mut Work<'_, '_, '_, '_>,
    top: &Attr,
    from: &CopyFrom,
    destination: &SessionPath,
    same_session: bool,
) -> Result<(Ino, Name)> {
    let place = work.walk(destination, false)?;
    let dir = match &place {
        Place::There { named, .. } => named.as_ref().map(|(dir, _)| *dir),
        Place::Missing { dir, .. } => Some(*dir),
    };
    if same_session && top.is_dir() && dir.is_some_and(|dir| is_at_or_below(work.tree(), dir, top.ino)) {
        return Err(Reason::MoveIntoSelf.into());
    }
    match place {
        Place::Missing { dir, names } => work.make_room(destination, dir, names, false),
        Place::There { attr, .. } if same_session && attr.ino == top.ino => {
            Err(Error::new(Reason::AlreadyExists, format!("it is the same file as {}", from.path)))
        }
        Place::There { attr, named: Some(named) } if from.overwrite => {
            match (top.is_dir(), attr.is_dir()) {
                (true, false) => return Err(Reason::NotADirectory.into()),
                (false, true) => return Err(Reason::IsADirectory.into()),
                _ => remove(work, destination, false)?,
            }
            Ok(named)
        }
        Place::There { .. } => Err(Reason::AlreadyExists.into()),
    }
}

fn is_at_or_below(tree: &Tree, mut at: Ino, top: Ino) -> bool {
    while at != top {
        match tree.parent_of(at) {
            Some(parent) if parent != at => at = parent,
            _ => return false,
        }
    }
    true
}

struct Copier<'a> {
    source: &'a Tree,
    /// Copies of inodes with several names.
    made: HashMap<Ino, Ino>,
}

/// A directory whose entries are being copied.
struct Level {
    from: Attr,
    to: Ino,
    names: Vec<(Name, Ino)>,
}

impl Copier<'_> {
    /// Copies `top` and all that is in it. Its own stack, since a tree can be deeper than a thread's.
    fn run(&mut self, work: &mut Work<'_, '_, '_, '_>, top: &Attr, dir: Ino, name: &Name) -> Result<()> {
        let mut stack = Vec::new();
        stack.extend(self.node(work, top, dir, name)?);
        while let Some(level) = stack.last_mut() {
            let Some((name, ino)) = level.names.pop() else {
                // Last, since new entries change a directory's times.
                finish(work, &level.from, level.to)?;
                stack.pop();
                continue;
            };
            let to = level.to;
            let attr = self.source.attr(ino).ok_or(Reason::Internal)?;
            stack.extend(self.node(work, &attr, to, &name)?);
        }
        Ok(())
    }

    /// Copies one inode; a directory comes back to be filled.
    fn node(
        &mut self,
        work: &mut Work<'_, '_, '_, '_>,
        from: &Attr,
        dir: Ino,
        name: &Name,
    ) -> Result<Option<Level>> {
        if let Some(made) = self.made.get(&from.ino) {
            work.run(|c| c.tree.plan_link(*made, dir, name.as_ref(), c.now_ns).map(Some))?;
            return Ok(None);
        }
        let target = if from.is_symlink() { Some(work.facts.target(self.source, from.ino)?) } else { None };
        let Attr { mode, uid, gid, rdev, .. } = *from;
        let to = work.create_node(dir, name, &NewNode { mode, uid, gid, rdev, target: target.as_deref() })?;
        for (key, value) in self.source.xattrs(from.ino).iter().flat_map(|x| x.iter()) {
            work.run(|c| c.tree.plan_xattr(to, key, Some(value), c.now_ns).map(Some))?;
        }
        if from.is_dir() {
            return Ok(Some(Level { from: *from, to, names: entries(self.source, from.ino) }));
        }
        if from.nlink > 1 {
            self.made.insert(from.ino, to);
        }
        if from.is_file() && from.size > 0 {
            let (content, size) = self.source.content(from.ino).ok_or(Reason::Internal)?;
            work.run(|c| c.tree.plan_replace(to, size, content, c.now_ns).map(Some))?;
        }
        finish(work, from, to)?;
        Ok(None)
    }
}

/// Gives a copy what making it has changed: the group and mode (setgid directories, setuid bits) and the times.
fn finish(work: &mut Work<'_, '_, '_, '_>, from: &Attr, to: Ino) -> Result<()> {
    let set = AttrSet {
        mode: Some(from.mode),
        uid: None,
        gid: Some(from.gid),
        size: None,
        atime_ns: Some(from.atime_ns),
        mtime_ns: Some(from.mtime_ns),
    };
    work.run(|c| c.tree.plan_setattr(to, set, c.now_ns).map(Some))
}

/// The entries of a directory, last name first.
fn entries(tree: &Tree, dir: Ino) -> Vec<(Name, Ino)> {
    let mut names = Vec::new();
    tree.readdir(dir, FIRST_COOKIE, &mut |item| {
        names.extend(Name::new(item.name).ok().map(|name| (name, item.ino)));
        true
    });
    names.sort_unstable_by(|a, b| b.cmp(a));
    names
}
