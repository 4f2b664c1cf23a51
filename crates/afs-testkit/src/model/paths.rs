//! Operations by path: a path is followed to nodes, and then the operations on nodes are used.
//!
//! Symbolic links on the way are followed; an absolute target starts at the root, and `..` in a target stays at the root when it
//! is there. At the end of the path, links are followed by `Resolve` if asked, by `WriteAt`, and by `MakeDirAt` with parents.
//! What a path operation makes belongs to the owner and group of its directory: files 0644, directories 0755.
//!
//! Order of checks: `WriteAt`: the path · a directory `IS_A_DIRECTORY`, not a file `WRONG_TYPE` · missing parents
//! `NOT_FOUND`. `MakeDirAt`: the path · something there `ALREADY_EXISTS` (with parents a directory is fine) · missing parents
//! `NOT_FOUND`. `RemoveAt`: the path · the root `NOT_PERMITTED` · entries in it `NOT_EMPTY`. `MoveAt`: the path, the root
//! `NOT_PERMITTED` · the other path, the root `ALREADY_EXISTS`, missing parents `NOT_FOUND` · as `Rename`.

use super::{Body, Context, DIR, FILE, FileNode, Model, ROOT, Result};
use crate::call::{Answer, Call, Name, Node, RenameHow};
use afs_types::{Reason, limits};
use std::collections::{BTreeMap, VecDeque};

/// Where a path leads.
enum Place {
    /// To a node; by which directory and name, unless it is the root.
    There(Node, Option<(Node, Name)>),
    /// To nothing yet: the names are missing below the directory.
    Missing(Node, Vec<Name>),
}

impl Model {
    pub(super) fn by_path(&mut self, call: &Call, context: &mut Context<'_>) -> Result<Answer> {
        // A change by path is made of several steps: all of them, or none.
        let before = self.clone();
        let answer = match call {
            Call::Resolve { path, follow } => match self.walk(path, *follow)? {
                Place::There(node, _) => self.answer(node),
                Place::Missing(..) => Err(Reason::NotFound),
            },
            Call::WriteAt { path, bytes, parents } => self.write_at(path, bytes, *parents, context),
            Call::MakeDirAt { path, parents } => self.make_dir_at(path, *parents, context),
            Call::MoveAt { path, to, overwrite } => self.move_at(path, to, *overwrite, context.now_ns),
            Call::RemoveAt { path, recursive } => self.remove_at(path, *recursive, context.now_ns),
            _ => Err(Reason::Internal),
        };
        if answer.is_err() {
            *self = before;
        }
        answer
    }

    fn walk(&self, path: &[Name], follow: bool) -> Result<Place> {
        // The directories from the root to where we are, for `..`.
        let mut way = vec![ROOT];
        let mut named = None;
        let mut links = 0;
        let mut rest: VecDeque<Name> = path.iter().cloned().collect();
        while let Some(name) = rest.pop_front() {
            let dir = way[way.len() - 1];
            if name == b".." {
                way.truncate(way.len().max(2) - 1);
                named = None;
                continue;
            }
            let Some(node) = self.child(dir, &name) else {
                if rest.contains(&b"..".to_vec()) {
                    return Err(Reason::NotFound);
                }
                rest.push_front(name);
                return Ok(Place::Missing(dir, rest.into()));
            };
            match &self.node(node)?.body {
                Body::Symlink(target) if follow || !rest.is_empty() => {
                    links += 1;
                    if links > limits::MAX_SYMLINKS {
                        return Err(Reason::TooManySymlinks);
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    let parts = target.split(|byte| *byte == b'/');
                    for part in parts.rev().filter(|part| !part.is_empty() && *part != b".") {
                        rest.push_front(part.to_vec());
                    }
                    named = None;
                }
                Body::Dir(_) => {
                    way.push(node);
                    named = Some((dir, name));
                }
                _ if rest.is_empty() => return Ok(Place::There(node, Some((dir, name)))),
                _ => return Err(Reason::NotADirectory),
            }
        }
        Ok(Place::There(way[way.len() - 1], named))
    }

    /// Makes the missing directories, or finds that they may not be missing. The last name is left.
    fn make_parents(
        &mut self,
        mut dir: Node,
        mut names: Vec<Name>,
        parents: bool,
        context: &mut Context<'_>,
    ) -> Result<(Node, Name)> {
        let last = names.pop().ok_or(Reason::Internal)?;
        if !names.is_empty() && !parents {
            return Err(Reason::NotFound);
        }
        for name in names {
            dir = self.make(dir, &name, DIR | 0o755, Body::Dir(BTreeMap::new()), context)?;
        }
        Ok((dir, last))
    }

    /// A node that belongs to whom its directory belongs.
    fn make(
        &mut self,
        dir: Node,
        name: &Name,
        mode: u32,
        body: Body,
        context: &mut Context<'_>,
    ) -> Result<Node> {
        let FileNode { uid, gid, .. } = *self.node(dir)?;
        self.create(dir, name, FileNode::new(mode, uid, gid, body, 0), context)
    }

    fn write_at(
        &mut self,
        path: &[Name],
        bytes: &[u8],
        parents: bool,
        context: &mut Context<'_>,
    ) -> Result<Answer> {
        let node = match self.walk(path, true)? {
            Place::There(node, _) => {
                self.file(node)?;
                *self.file_mut(node, context.now_ns)? = bytes.to_vec();
                self.node_mut(node)?.drop_privileges();
                node
            }
            Place::Missing(dir, names) => {
                let (dir, name) = self.make_parents(dir, names, parents, context)?;
                self.make(dir, &name, FILE | 0o644, Body::File(bytes.to_vec()), context)?
            }
        };
        self.answer(node)
    }

    fn make_dir_at(&mut self, path: &[Name], parents: bool, context: &mut Context<'_>) -> Result<Answer> {
        let node = match self.walk(path, parents)? {
            Place::There(node, _) if parents && self.node(node)?.is_dir() => node,
            Place::There(..) => return Err(Reason::AlreadyExists),
            Place::Missing(dir, names) => {
                let (dir, name) = self.make_parents(dir, names, parents, context)?;
                self.make(dir, &name, DIR | 0o755, Body::Dir(BTreeMap::new()), context)?
            }
        };
        self.answer(node)
    }

    fn move_at(&mut self, path: &[Name], to: &[Name], overwrite: bool, now_ns: i64) -> Result<Answer> {
        let (node, dir, name) = self.find_named(path)?;
        let (to_dir, to_name) = match self.walk(to, false)? {
            Place::There(_, Some(named)) => named,
            Place::There(_, None) => return Err(Reason::AlreadyExists),
            Place::Missing(dir, names) => match &names[..] {
                [only] => (dir, only.clone()),
                _ => return Err(Reason::NotFound),
            },
        };
        let how = if overwrite { RenameHow::Replace } else { RenameHow::NoReplace };
        self.rename((dir, &name), (to_dir, &to_name), how, now_ns)?;
        self.answer(node)
    }

    fn remove_at(&mut self, path: &[Name], recursive: bool, now_ns: i64) -> Result<Answer> {
        let (node, dir, name) = self.find_named(path)?;
        if self.node(node)?.is_dir() {
            if recursive {
                self.empty(node, now_ns);
            }
            self.remove_dir(dir, &name, now_ns)
        } else {
            self.unlink(dir, &name, now_ns)
        }
    }

    fn empty(&mut self, dir: Node, now_ns: i64) {
        let entries = self.dir(dir).cloned().unwrap_or_default();
        for (name, node) in entries {
            self.empty(node, now_ns);
            self.drop_name(dir, &name, now_ns);
        }
    }

    fn find_named(&self, path: &[Name]) -> Result<(Node, Node, Name)> {
        match self.walk(path, false)? {
            Place::There(node, Some((dir, name))) => Ok((node, dir, name)),
            Place::There(_, None) => Err(Reason::NotPermitted),
            Place::Missing(..) => Err(Reason::NotFound),
        }
    }
}
