//! From a path to an inode.
//!
//! Guarantees: component by component, by inode, in one tree; symbolic links are followed only inside the session: an absolute
//! target starts at the session's root, and `..` never leaves it. The host's file system is never asked anything.
//! Pure: whoever calls brings the targets of links ([`Links`]), which for a base's links are blobs.

use super::View;
use super::error::at;
use super::facts::Facts;
use afs_core::tree::{Attr, Tree};
use afs_types::{Error, Ino, Name, NameRef, ROOT_INO, Reason, Result, SessionPath, limits};
use std::sync::Arc;

/// Where the targets of symbolic links come from.
pub(super) trait Links {
    /// The target of a link.
    fn target(&mut self, tree: &Tree, ino: Ino) -> Result<Arc<[u8]>>;
}

/// Where a path leads.
#[derive(Debug)]
pub(super) enum Place {
    /// To something.
    There {
        /// What it is.
        attr: Attr,
        /// The directory and name by which it was found; none for the root and for links that end in `..`.
        named: Option<(Ino, Name)>,
    },
    /// To nothing yet: `names[0]` is not in `dir`, and the rest would be below it.
    Missing {
        /// The last directory on the way that exists.
        dir: Ino,
        /// What is missing; at least one.
        names: Vec<Name>,
    },
}

impl Place {
    /// What is there.
    pub(super) fn attr(&self) -> Option<&Attr> {
        match self {
            Self::There { attr, .. } => Some(attr),
            Self::Missing { .. } => None,
        }
    }
}

enum Step {
    Down(Name),
    Up,
}

/// Follows `path`; a symbolic link at its end only if `follow`. Errors do not name the path.
pub(super) fn walk(tree: &Tree, links: &mut dyn Links, path: &SessionPath, follow: bool) -> Result<Place> {
    let mut way = vec![ROOT_INO];
    let mut steps: Vec<Step> = path.names().iter().rev().map(|n| Step::Down(n.clone())).collect();
    let mut followed = 0;
    let mut named = None;
    while let Some(step) = steps.pop() {
        let dir = way.last().copied().unwrap_or(ROOT_INO);
        let Step::Down(name) = step else {
            way.truncate(way.len().max(2) - 1);
            named = None;
            continue;
        };
        let Some(attr) = tree.lookup(dir, name.as_bytes()).and_then(|ino| tree.attr(ino)) else {
            return missing(dir, name, steps);
        };
        if attr.is_symlink() && (follow || !steps.is_empty()) {
            followed += 1;
            if followed > limits::MAX_SYMLINKS {
                return Err(Reason::TooManySymlinks.into());
            }
            let target = links.target(tree, attr.ino)?;
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            named = None;
            push_target(&mut steps, &target)?;
        } else if attr.is_dir() {
            way.push(attr.ino);
            named = Some((dir, name));
        } else if steps.is_empty() {
            return Ok(Place::There { attr, named: Some((dir, name)) });
        } else {
            return Err(Reason::NotADirectory.into());
        }
    }
    let ino = way.last().copied().unwrap_or(ROOT_INO);
    let attr = tree.attr(ino).ok_or(Reason::Stale)?;
    Ok(Place::There { attr, named })
}

fn missing(dir: Ino, name: Name, steps: Vec<Step>) -> Result<Place> {
    let mut names = vec![name];
    for step in steps.into_iter().rev() {
        match step {
            Step::Down(name) => names.push(name),
            // A link's target goes up from a directory that is not there.
            Step::Up => return Err(Reason::NotFound.into()),
        }
    }
    Ok(Place::Missing { dir, names })
}

fn push_target(steps: &mut Vec<Step>, target: &[u8]) -> Result<()> {
    let parts: Vec<&[u8]> = target.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    for part in parts.into_iter().rev() {
        steps.push(match part {
            b".." => Step::Up,
            name => Step::Down(NameRef::new(name)?.to_name()),
        });
    }
    Ok(())
}

impl View {
    /// The attributes of what a path leads to; a symbolic link at its end is followed if `follow`.
    pub fn resolve(&self, path: &SessionPath, follow: bool) -> Result<Attr> {
        match walk(&self.tree, &mut self.facts(), path, follow).map_err(at(path))? {
            Place::There { attr, .. } => Ok(attr),
            Place::Missing { .. } => Err(at(path)(Reason::NotFound.into())),
        }
    }

    /// Facts that are read as they are needed.
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts::free(&self.shared)
    }
}

/// The error for a path whose parents are not all there.
pub(super) fn no_parent(path: &SessionPath, missing: usize) -> Error {
    let have = path.names().len().saturating_sub(missing) + 1;
    let parent = SessionPath::from(path.names()[..have.min(path.names().len())].to_vec());
    Error::new(Reason::NotFound, format!("{path}: the directory {parent} does not exist"))
        .with("path", path.to_text())
        .next("make the parent directories first, or set create_parents")
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
