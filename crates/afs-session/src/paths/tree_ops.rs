//! Directories, links, moves, removals, attributes: each one transaction.

use super::entry::Precondition;
use super::error::{at, of_field, shown_name};
use super::resolve::{Place, no_parent};
use super::work::{DIR_MODE, PERMISSIONS, Work};
use super::{By, Files, Written};
use afs_core::op::AttrSet;
use afs_core::tree::plan::RenameMode;
use afs_core::tree::{FIRST_COOKIE, S_IFDIR, S_IFLNK};
use afs_types::{Error, Ino, Name, Reason, Result, SessionPath};

/// Attributes to set; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Mode, owner, size, times.
    pub set: AttrSet,
    /// Extended attributes to set.
    pub set_xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Extended attributes to remove.
    pub remove_xattrs: Vec<Vec<u8>>,
    /// On the path.
    pub precondition: Precondition,
}

impl Files<'_> {
    /// Makes a directory. With `parents` also the missing ones above it, and one that is there already is fine; a symbolic
    /// link at the end of the path is followed then.
    pub fn mkdir(&self, path: &SessionPath, mode: Option<u32>, parents: bool, by: &By) -> Result<Written> {
        let print = format!("{mode:?} {parents}");
        self.change_entry(
            "CreateDirectory",
            by,
            &[&path.to_bytes(), print.as_bytes()],
            (path, parents),
            |work| make_dir(work, path, mode, parents),
        )
    }

    /// Makes a symbolic link. Its target is data and need not exist.
    pub fn symlink(&self, path: &SessionPath, target: &[u8], by: &By) -> Result<Written> {
        self.change_entry("CreateSymlink", by, &[&path.to_bytes(), target], (path, false), |work| {
            make_symlink(work, path, target)
        })
    }

    /// Gives a file one more name.
    pub fn hard_link(&self, source: &SessionPath, path: &SessionPath, by: &By) -> Result<Written> {
        self.change_entry(
            "CreateHardLink",
            by,
            &[&source.to_bytes(), &path.to_bytes()],
            (path, false),
            |work| {
                let (attr, _) = work.find(source, false).map_err(at(source))?;
                let (dir, name) = work.free_name(path, false).map_err(at(path))?;
                let link = work.run(|c| c.tree.plan_link(attr.ino, dir, name.as_ref(), c.now_ns).map(Some));
                link.map_err(at(source))
            },
        )
    }

    /// Moves a file or a directory, in one step whatever its size. With `overwrite` it replaces a file, or a directory
    /// an empty directory.
    pub fn move_path(
        &self,
        source: &SessionPath,
        destination: &SessionPath,
        overwrite: bool,
        precondition: &Precondition,
        by: &By,
    ) -> Result<Written> {
        let print = format!("{overwrite} {precondition:?}");
        let parts = [&source.to_bytes()[..], &destination.to_bytes(), print.as_bytes()];
        self.change_shown("MovePath", by, &parts, (destination, false), |work| {
            work.check(precondition, source, false).map_err(at(source))?;
            // The path to the destination may have led through what was moved.
            let moved = rename(work, source, destination, overwrite)?;
            work.entry_at(destination, moved).map_err(at(destination))
        })
    }

    /// Removes a file, an empty directory, or with `recursive` a directory with all that is in it.
    pub fn remove(
        &self,
        path: &SessionPath,
        recursive: bool,
        precondition: &Precondition,
        by: &By,
    ) -> Result<Written> {
        let print = format!("{recursive} {precondition:?}");
        self.change_entry("RemovePath", by, &[&path.to_bytes(), print.as_bytes()], (path, false), |work| {
            work.check(precondition, path, false).map_err(at(path))?;
            remove(work, path, recursive)
        })
    }

    /// Sets attributes. A symbolic link at the end of the path is followed.
    pub fn set_attributes(&self, path: &SessionPath, want: &SetAttributes, by: &By) -> Result<Written> {
        let print = format!("{want:?}");
        self.change_entry("SetAttributes", by, &[&path.to_bytes(), print.as_bytes()], (path, true), |work| {
            want.apply(work, path).map_err(at(path))
        })
    }
}

impl SetAttributes {
    fn apply(&self, work: &mut Work<'_, '_, '_, '_>, path: &SessionPath) -> Result<()> {
        let (attr, _) = work.find(path, true)?;
        self.precondition.check((work.tree(), work.revision()), Some(&attr), path)?;
        for (name, value) in &self.set_xattrs {
            work.run(|c| c.tree.plan_xattr(attr.ino, name, Some(value), c.now_ns).map(Some))
                .map_err(|e| of_field(&e, &format!("set_xattrs[{:?}]", shown_name(name))))?;
        }
        for (n, name) in self.remove_xattrs.iter().enumerate() {
            work.run(|c| c.tree.plan_xattr(attr.ino, name, None, c.now_ns).map(Some))
                .map_err(|e| of_field(&e, &format!("remove_xattrs[{n}]")))?;
        }
        if self.set == AttrSet::default() {
            return Ok(());
        }
        work.run(|c| c.tree.plan_setattr(attr.ino, self.set.clone(), c.now_ns).map(Some))
    }
}

pub(super) fn make_dir(
    work: &mut Work<'_, '_, '_, '_>,
    path: &SessionPath,
    mode: Option<u32>,
    parents: bool,
) -> Result<()> {
    let mode = S_IFDIR | (mode.unwrap_or(DIR_MODE) & PERMISSIONS);
    let make = |work: &mut Work<'_, '_, '_, '_>| match work.walk(path, parents)? {
        Place::There { attr, .. } if parents && attr.is_dir() => Ok(()),
        Place::There { .. } => Err(Reason::AlreadyExists.into()),
        Place::Missing { dir, names } => {
            let (dir, name) = work.make_room(path, dir, names, parents)?;
            work.create(dir, &name, mode, None).map(drop)
        }
    };
    make(work).map_err(at(path))
}

pub(super) fn make_symlink(work: &mut Work<'_, '_, '_, '_>, path: &SessionPath, target: &[u8]) -> Result<()> {
    if target.is_empty() || target.contains(&0) {
        return Err(Error::invalid("target", "1 byte or more, without NUL"));
    }
    let make = |work: &mut Work<'_, '_, '_, '_>| {
        let (dir, name) = work.free_name(path, false)?;
        work.create(dir, &name, S_IFLNK | 0o777, Some(target))
    };
    make(work).map(drop).map_err(at(path))
}

pub(super) fn rename(
    work: &mut Work<'_, '_, '_, '_>,
    source: &SessionPath,
    destination: &SessionPath,
    overwrite: bool,
) -> Result<Ino> {
    let (attr, dir, name) = work.find_named(source).map_err(at(source))?;
    let mode = if overwrite { RenameMode::Replace } else { RenameMode::NoReplace };
    let (new_dir, new_name) = match work.walk(destination, false).map_err(at(destination))? {
        Place::There { named: Some(named), .. } => named,
        Place::There { .. } => return Err(at(destination)(Reason::AlreadyExists.into())),
        Place::Missing { dir, mut names } => match names.pop() {
            Some(name) if names.is_empty() => (dir, name),
            _ => return Err(no_parent(destination, names.len() + 1)),
        },
    };
    let plan = work.run(|c| {
        let open = |ino| c.is_open(ino);
        c.tree.plan_rename(dir, name.as_ref(), new_dir, new_name.as_ref(), mode, open, c.now_ns)
    });
    plan.map(|()| attr.ino).map_err(at(destination))
}

pub(super) fn remove(work: &mut Work<'_, '_, '_, '_>, path: &SessionPath, recursive: bool) -> Result<()> {
    let (attr, dir, name) = work.find_named(path).map_err(at(path))?;
    if attr.is_dir() && recursive {
        remove_tree(work, attr.ino).map_err(at(path))?;
    }
    work.remove_name(dir, &name).map_err(at(path))
}

/// Removes everything in a directory. Its own stack, since a tree can be deeper than a thread's.
fn remove_tree(work: &mut Work<'_, '_, '_, '_>, top: Ino) -> Result<()> {
    let mut stack = vec![Level::open(work, top)];
    while let Some(level) = stack.last_mut() {
        let Some((name, is_dir)) = level.names.pop() else {
            let done = stack.pop();
            if let (Some(done), Some(above)) = (done, stack.last()) {
                let name = done.name.ok_or(Reason::Internal)?;
                work.remove_name(above.dir, &name)?;
            }
            continue;
        };
        let dir = level.dir;
        if is_dir {
            let ino = work.tree().lookup(dir, name.as_bytes()).ok_or(Reason::Internal)?;
            stack.push(Level { name: Some(name), ..Level::open(work, ino) });
        } else {
            work.remove_name(dir, &name)?;
        }
    }
    Ok(())
}

/// A directory that is being emptied.
struct Level {
    dir: Ino,
    /// Its name in the level above; none at the top.
    name: Option<Name>,
    names: Vec<(Name, bool)>,
}

impl Level {
    fn open(work: &Work<'_, '_, '_, '_>, dir: Ino) -> Self {
        let (tree, mut names) = (work.tree(), Vec::new());
        tree.readdir(dir, FIRST_COOKIE, &mut |item| {
            let is_dir = tree.attr(item.ino).is_some_and(|a| a.is_dir());
            names.extend(Name::new(item.name).ok().map(|name| (name, is_dir)));
            true
        });
        Self { dir, name: None, names }
    }
}
