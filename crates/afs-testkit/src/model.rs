//! The reference model: the files of one session in maps and plain vectors. Nothing is shared, cached or counted:
//! a fork is a deep copy, a link count is found by looking at every directory. Slow and obvious on purpose.
//!
//! # Which error comes first
//! Taken from Linux (`fs/namei.c`, `fs/attr.c`, `fs/xattr.c`), for a caller who may do everything. Arguments that no state could
//! make right come before the state; then nodes and names in the order of the arguments.
//!
//! | call | order of checks |
//! |---|---|
//! | every name that is made, removed or moved | over 255 bytes `NAME_TOO_LONG`; empty, `.`, `..`, `/`, NUL `INVALID_NAME` |
//! | every node | a number that leads to nothing `STALE` |
//! | every directory argument | not a directory `NOT_A_DIRECTORY` |
//! | create, mkdir, symlink | (symlink: target over 4095 bytes `NAME_TOO_LONG`) · directory removed but open `NOT_FOUND` · name taken `ALREADY_EXISTS` |
//! | link | node, directory · directory removed `NOT_FOUND` · name taken `ALREADY_EXISTS` · a directory `NOT_PERMITTED` · no name left `NOT_FOUND` · too many names `TOO_MANY_LINKS` |
//! | lookup | name over 255 bytes `NAME_TOO_LONG` · nothing there `NOT_FOUND` |
//! | unlink | nothing there `NOT_FOUND` · a directory `IS_A_DIRECTORY` |
//! | rmdir | nothing there `NOT_FOUND` · not a directory `NOT_A_DIRECTORY` · entries in it `NOT_EMPTY` |
//! | rename | both names · both directories · source `NOT_FOUND` · noreplace and target there `ALREADY_EXISTS`; exchange and not there `NOT_FOUND` · source directory holds the new directory `MOVE_INTO_SELF` · target holds the source: exchange `MOVE_INTO_SELF`, else `NOT_EMPTY` · the same node: nothing happens · new directory removed but open `NOT_FOUND` · replace: directory onto other `NOT_A_DIRECTORY`, other onto directory `IS_A_DIRECTORY`, entries in it `NOT_EMPTY` |
//! | setattr with size, write, append, punch | a directory `IS_A_DIRECTORY` · not a regular file `WRONG_TYPE` · beyond 16 TiB `FILE_TOO_LARGE` |
//! | read, copy range | a directory `IS_A_DIRECTORY` · not a regular file `WRONG_TYPE` (copy: the source, then the target) |
//! | readlink | not a symbolic link `WRONG_TYPE` |
//! | readdir | not a directory `NOT_A_DIRECTORY`; one removed but open is empty |
//! | setxattr | value over 64 KiB `MESSAGE_TOO_LARGE` · must be there and is not `NO_ATTRIBUTE`, must not and is `ALREADY_EXISTS` · all names and values after it over 256 KiB `NO_SPACE` |
//! | getxattr, removexattr | not there `NO_ATTRIBUTE` |
//! | by path | left to right: nothing there `NOT_FOUND`, more names behind what is no directory `NOT_A_DIRECTORY`, over 40 links `TOO_MANY_SYMLINKS`; then as above (see `paths`) |
//!
//! A directory moved into one that was removed while open is refused, as `NOT_FOUND` here; on Linux as `MOVE_INTO_SELF` when it once
//! held that directory. Histories do not ask.
//!
//! # What changes besides
//! A new node belongs to the caller; in a directory with setgid to its group, and a directory gets the bit too. A write (not of zero
//! bytes), a punch and a copy drop setuid, and setgid if the group may execute. Times: bytes change: mtime and ctime; names in a directory: its mtime and
//! ctime; names, attributes, extended attributes of a node: its ctime. Reading changes no time. An operation that fails changes nothing.

mod nodes;
mod paths;
#[cfg(test)]
mod tests;

use crate::call::{Answer, Attr, Call, Name, Node, RenameHow, SetAttr};
use crate::spec::{BaseKind, BaseSpec};
use afs_types::{NameRef, Reason, limits};
use std::collections::BTreeMap;

pub use nodes::{Body, FileNode};

/// What the model answers: there is nothing but the reason to an error.
pub type Result<T> = std::result::Result<T, Reason>;

const TYPE: u32 = 0o170_000;
const DIR: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const FIFO: u32 = 0o010_000;
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

/// The root directory.
pub const ROOT: Node = 1;

/// The files of one session.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: BTreeMap<Node, FileNode>,
    opens: BTreeMap<Node, u32>,
    /// Numbers of nodes that are gone, for asking about them.
    dead: Vec<Node>,
}

/// What the caller brings: the time, and numbers for new nodes, never given twice in one history.
pub struct Context<'a> {
    /// Now.
    pub now_ns: i64,
    /// The number of the next new node.
    pub next_node: &'a mut Node,
}

impl Model {
    /// The tree of a base. Owners and times are zero until [`Model::adopt`] is told them.
    pub fn new(base: &BaseSpec, next_node: &mut Node) -> Self {
        let mut model = Self { nodes: BTreeMap::new(), opens: BTreeMap::new(), dead: Vec::new() };
        let mut numbers: Vec<Node> = Vec::new();
        for (at, spec) in base.nodes.iter().enumerate() {
            let (body, kind) = match &spec.kind {
                BaseKind::Dir | BaseKind::Gitlink => (Body::Dir(BTreeMap::new()), DIR),
                BaseKind::File(bytes) => (Body::File(bytes.clone()), FILE),
                BaseKind::Symlink(target) => (Body::Symlink(target.clone()), SYMLINK),
                BaseKind::Fifo => (Body::Special(0), FIFO),
                BaseKind::HardLink(file) => {
                    let node = numbers[*file];
                    numbers.push(node);
                    model.put_name(numbers[spec.parent], &spec.name, node);
                    continue;
                }
            };
            let node = if at == 0 { ROOT } else { take(next_node) };
            numbers.push(node);
            let bits = match &spec.kind {
                BaseKind::Symlink(_) => 0o777,
                BaseKind::Gitlink => 0o755,
                _ => spec.mode,
            };
            model.nodes.insert(node, FileNode::new(kind | bits, 0, 0, body, 0));
            if at > 0 {
                model.put_name(numbers[spec.parent], &spec.name, node);
            }
        }
        model
    }

    /// Takes over what importers are free to choose for a node of the base: owner, group and times.
    pub fn adopt(&mut self, node: Node, attr: &Attr) {
        if let Some(it) = self.nodes.get_mut(&node) {
            (it.uid, it.gid) = (attr.uid, attr.gid);
            (it.atime_ns, it.mtime_ns, it.ctime_ns) = (attr.atime_ns, attr.mtime_ns, attr.ctime_ns);
        }
    }

    /// Carries out one operation.
    pub fn call(&mut self, call: &Call, context: &mut Context<'_>) -> Result<Answer> {
        match call {
            Call::Lookup { .. }
            | Call::GetAttr { .. }
            | Call::ReadLink { .. }
            | Call::ReadDir { .. }
            | Call::Read { .. }
            | Call::GetXattr { .. }
            | Call::ListXattr { .. } => self.look(call),
            Call::Create { .. }
            | Call::MakeDir { .. }
            | Call::Symlink { .. }
            | Call::Link { .. }
            | Call::Unlink { .. }
            | Call::RemoveDir { .. }
            | Call::Rename { .. } => self.change_names(call, context),
            Call::Resolve { .. }
            | Call::WriteAt { .. }
            | Call::MakeDirAt { .. }
            | Call::MoveAt { .. }
            | Call::RemoveAt { .. } => self.by_path(call, context),
            _ => self.change_node(call, context.now_ns),
        }
    }

    fn look(&self, call: &Call) -> Result<Answer> {
        match call {
            Call::Lookup { dir, name } => {
                self.dir(*dir)?;
                if name.len() > limits::MAX_NAME_BYTES {
                    return Err(Reason::NameTooLong);
                }
                let found = self.child(*dir, name).ok_or(Reason::NotFound)?;
                self.answer(found)
            }
            Call::GetAttr { node } => self.answer(*node),
            Call::ReadLink { node } => match &self.node(*node)?.body {
                Body::Symlink(target) => Ok(Answer::Bytes(target.clone())),
                _ => Err(Reason::WrongType),
            },
            Call::ReadDir { dir } => {
                let names = self.dir(*dir)?;
                Ok(Answer::Entries(names.iter().map(|(name, node)| (name.clone(), *node)).collect()))
            }
            Call::Read { node, offset, len } => {
                let bytes = self.file(*node)?;
                let from = (*offset).min(bytes.len() as u64) as usize;
                Ok(Answer::Bytes(bytes[from..bytes.len().min(from.saturating_add(*len))].to_vec()))
            }
            Call::GetXattr { node, name } => {
                let value = self.node(*node)?.xattrs.get(name).ok_or(Reason::NoAttribute)?;
                Ok(Answer::Bytes(value.clone()))
            }
            Call::ListXattr { node } => Ok(Answer::Names(self.node(*node)?.xattrs.keys().cloned().collect())),
            _ => Err(Reason::Internal),
        }
    }

    fn change_names(&mut self, call: &Call, context: &mut Context<'_>) -> Result<Answer> {
        match call {
            Call::Create { dir, name, mode, uid, gid, rdev } => {
                let is_file = mode & TYPE == FILE;
                let body = if is_file { Body::File(Vec::new()) } else { Body::Special(*rdev) };
                let node = self.create(*dir, name, FileNode::new(*mode, *uid, *gid, body, 0), context)?;
                self.answer(node)
            }
            Call::MakeDir { dir, name, mode, uid, gid } => {
                let new = FileNode::new(DIR | mode & 0o7777, *uid, *gid, Body::Dir(BTreeMap::new()), 0);
                let node = self.create(*dir, name, new, context)?;
                self.answer(node)
            }
            Call::Symlink { dir, name, target, uid, gid } => {
                check_name(name)?;
                if target.len() > limits::MAX_SYMLINK_BYTES {
                    return Err(Reason::NameTooLong);
                }
                let new = FileNode::new(SYMLINK | 0o777, *uid, *gid, Body::Symlink(target.clone()), 0);
                let node = self.create(*dir, name, new, context)?;
                self.answer(node)
            }
            Call::Link { node, dir, name } => self.link(*node, *dir, name, context.now_ns),
            Call::Unlink { dir, name } => self.unlink(*dir, name, context.now_ns),
            Call::RemoveDir { dir, name } => self.remove_dir(*dir, name, context.now_ns),
            Call::Rename { dir, name, to_dir, to_name, how } => {
                self.rename((*dir, name), (*to_dir, to_name), *how, context.now_ns).map(|()| Answer::Done)
            }
            _ => Err(Reason::Internal),
        }
    }

    fn change_node(&mut self, call: &Call, now_ns: i64) -> Result<Answer> {
        match call {
            Call::SetAttr { node, set } => self.set_attr(*node, set, now_ns),
            Call::Write { node, offset, bytes } => self.write(*node, *offset, bytes, now_ns),
            Call::Append { node, bytes } => {
                let end = self.file(*node)?.len() as u64;
                self.write(*node, end, bytes, now_ns)
            }
            Call::Punch { node, offset, len } => {
                let size = self.file(*node)?.len();
                let from = (*offset).min(size as u64) as usize;
                let to = offset.saturating_add(*len).min(size as u64) as usize;
                self.file_mut(*node, now_ns)?[from..to].fill(0);
                self.node_mut(*node)?.drop_privileges();
                self.answer(*node)
            }
            Call::CopyRange { node, offset, to, to_offset, len } => {
                let bytes = self.file(*node)?;
                let from = (*offset).min(bytes.len() as u64) as usize;
                let end = offset.saturating_add(*len).min(bytes.len() as u64) as usize;
                let piece = bytes[from..end.max(from)].to_vec();
                self.file(*to)?;
                self.write(*to, *to_offset, &piece, now_ns)?;
                Ok(Answer::Count(piece.len() as u64))
            }
            Call::SetXattr { node, name, value, must } => self.set_xattr(*node, name, value, *must, now_ns),
            Call::RemoveXattr { node, name } => {
                self.node(*node)?.xattrs.get(name).ok_or(Reason::NoAttribute)?;
                let it = self.node_mut(*node)?;
                it.xattrs.remove(name);
                it.ctime_ns = now_ns;
                Ok(Answer::Done)
            }
            Call::Open { node } => {
                self.node(*node)?;
                *self.opens.entry(*node).or_insert(0) += 1;
                Ok(Answer::Done)
            }
            Call::Release { node } => {
                self.node(*node)?;
                if let Some(count) = self.opens.get_mut(node) {
                    *count -= 1;
                    if *count == 0 {
                        self.opens.remove(node);
                        self.bury_if_unused(*node);
                    }
                }
                Ok(Answer::Done)
            }
            _ => Err(Reason::Internal),
        }
    }

    fn create(
        &mut self,
        dir: Node,
        name: &Name,
        mut new: FileNode,
        context: &mut Context<'_>,
    ) -> Result<Node> {
        check_name(name)?;
        self.dir(dir)?;
        self.check_alive(dir)?;
        if self.child(dir, name).is_some() {
            return Err(Reason::AlreadyExists);
        }
        let parent = self.node(dir)?;
        if parent.mode & SETGID != 0 {
            new.gid = parent.gid;
            new.mode |= if new.is_dir() { SETGID } else { 0 };
        }
        let now_ns = context.now_ns;
        (new.atime_ns, new.mtime_ns, new.ctime_ns) = (now_ns, now_ns, now_ns);
        let node = take(context.next_node);
        self.nodes.insert(node, new);
        self.put_name(dir, name, node);
        self.touch_dir(dir, now_ns);
        Ok(node)
    }

    fn link(&mut self, node: Node, dir: Node, name: &Name, now_ns: i64) -> Result<Answer> {
        check_name(name)?;
        let is_dir = self.node(node)?.is_dir();
        self.dir(dir)?;
        self.check_alive(dir)?;
        if self.child(dir, name).is_some() {
            return Err(Reason::AlreadyExists);
        }
        if is_dir {
            return Err(Reason::NotPermitted);
        }
        match self.nlink(node) {
            0 => return Err(Reason::NotFound),
            limits::MAX_LINKS.. => return Err(Reason::TooManyLinks),
            _ => {}
        }
        self.put_name(dir, name, node);
        self.touch_dir(dir, now_ns);
        self.node_mut(node)?.ctime_ns = now_ns;
        self.answer(node)
    }

    fn unlink(&mut self, dir: Node, name: &Name, now_ns: i64) -> Result<Answer> {
        check_name(name)?;
        self.dir(dir)?;
        let node = self.child(dir, name).ok_or(Reason::NotFound)?;
        if self.node(node)?.is_dir() {
            return Err(Reason::IsADirectory);
        }
        self.drop_name(dir, name, now_ns);
        Ok(Answer::Done)
    }

    fn remove_dir(&mut self, dir: Node, name: &Name, now_ns: i64) -> Result<Answer> {
        check_name(name)?;
        self.dir(dir)?;
        let node = self.child(dir, name).ok_or(Reason::NotFound)?;
        if !self.dir(node)?.is_empty() {
            return Err(Reason::NotEmpty);
        }
        self.drop_name(dir, name, now_ns);
        Ok(Answer::Done)
    }

    fn rename(&mut self, from: (Node, &Name), to: (Node, &Name), how: RenameHow, now_ns: i64) -> Result<()> {
        check_name(from.1)?;
        check_name(to.1)?;
        self.dir(from.0)?;
        self.dir(to.0)?;
        let source = self.child(from.0, from.1).ok_or(Reason::NotFound)?;
        let target = self.child(to.0, to.1);
        match (how, target) {
            (RenameHow::NoReplace, Some(_)) => return Err(Reason::AlreadyExists),
            (RenameHow::Exchange, None) => return Err(Reason::NotFound),
            _ => {}
        }
        if self.is_at_or_below(to.0, source) {
            return Err(Reason::MoveIntoSelf);
        }
        if target.is_some_and(|target| self.is_at_or_below(from.0, target)) {
            let exchange = how == RenameHow::Exchange;
            return Err(if exchange { Reason::MoveIntoSelf } else { Reason::NotEmpty });
        }
        if target == Some(source) {
            return Ok(());
        }
        self.check_alive(to.0)?;
        if let (RenameHow::Replace, Some(target)) = (how, target) {
            match (self.node(source)?.is_dir(), self.node(target)?.is_dir()) {
                (true, false) => return Err(Reason::NotADirectory),
                (false, true) => return Err(Reason::IsADirectory),
                (true, true) if !self.dir(target)?.is_empty() => return Err(Reason::NotEmpty),
                _ => {}
            }
        }
        self.take_name(from.0, from.1);
        match target {
            Some(target) if how == RenameHow::Exchange => {
                self.put_name(from.0, from.1, target);
                self.node_mut(target)?.ctime_ns = now_ns;
            }
            Some(_) => self.drop_name(to.0, to.1, now_ns),
            None => {}
        }
        self.put_name(to.0, to.1, source);
        self.node_mut(source)?.ctime_ns = now_ns;
        self.touch_dir(from.0, now_ns);
        self.touch_dir(to.0, now_ns);
        Ok(())
    }

    fn set_attr(&mut self, node: Node, set: &SetAttr, now_ns: i64) -> Result<Answer> {
        if let Some(size) = set.size {
            self.file_of_size(node, size)?;
            self.file_mut(node, now_ns)?.resize(size as usize, 0);
        }
        let it = self.node_mut(node)?;
        it.mode = set.mode.map_or(it.mode, |mode| it.mode & TYPE | mode & 0o7777);
        it.uid = set.uid.unwrap_or(it.uid);
        it.gid = set.gid.unwrap_or(it.gid);
        it.atime_ns = set.atime_ns.unwrap_or(it.atime_ns);
        it.mtime_ns = set.mtime_ns.unwrap_or(it.mtime_ns);
        it.ctime_ns = now_ns;
        self.answer(node)
    }

    fn write(&mut self, node: Node, offset: u64, bytes: &[u8], now_ns: i64) -> Result<Answer> {
        self.file(node)?;
        let end = offset.checked_add(bytes.len() as u64).ok_or(Reason::FileTooLarge)?;
        self.file_of_size(node, end)?;
        if !bytes.is_empty() {
            let file = self.file_mut(node, now_ns)?;
            file.resize(file.len().max(end as usize), 0);
            file[offset as usize..end as usize].copy_from_slice(bytes);
            self.node_mut(node)?.drop_privileges();
        }
        self.answer(node)
    }

    fn set_xattr(
        &mut self,
        node: Node,
        name: &Name,
        value: &[u8],
        must: Option<bool>,
        now_ns: i64,
    ) -> Result<Answer> {
        let have = &self.node(node)?.xattrs;
        if value.len() > limits::MAX_XATTR_VALUE_BYTES {
            return Err(Reason::MessageTooLarge);
        }
        match (must, have.contains_key(name)) {
            (Some(true), false) => return Err(Reason::NoAttribute),
            (Some(false), true) => return Err(Reason::AlreadyExists),
            _ => {}
        }
        let others = have.iter().filter(|(other, _)| *other != name);
        let total: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if total + name.len() + value.len() > limits::MAX_XATTRS_BYTES {
            return Err(Reason::NoSpace);
        }
        let it = self.node_mut(node)?;
        it.xattrs.insert(name.clone(), value.to_vec());
        it.ctime_ns = now_ns;
        Ok(Answer::Done)
    }
}

fn check_name(name: &[u8]) -> Result<()> {
    NameRef::new(name).map(drop).map_err(|e| e.reason)
}

fn take(next: &mut Node) -> Node {
    *next += 1;
    *next - 1
}
