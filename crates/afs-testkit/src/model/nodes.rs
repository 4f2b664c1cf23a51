//! Nodes of the model and the small questions about them, each answered by looking.

use super::{DIR, GROUP_EXECUTE, Model, ROOT, Result, SETGID, SETUID, TYPE};
use crate::call::{Answer, Attr, Name, Node};
use afs_types::{Reason, limits};
use std::collections::BTreeMap;

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields of stat")]
pub struct FileNode {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime_ns: i64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub xattrs: BTreeMap<Name, Vec<u8>>,
    pub body: Body,
}

/// What is in a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// The bytes of a regular file.
    File(Vec<u8>),
    /// The entries of a directory.
    Dir(BTreeMap<Name, Node>),
    /// The target of a symbolic link.
    Symlink(Vec<u8>),
    /// The device number of all else.
    Special(u32),
}

impl FileNode {
    pub(super) fn new(mode: u32, uid: u32, gid: u32, body: Body, now_ns: i64) -> Self {
        let xattrs = BTreeMap::new();
        Self { mode, uid, gid, atime_ns: now_ns, mtime_ns: now_ns, ctime_ns: now_ns, xattrs, body }
    }
    /// A directory?
    pub fn is_dir(&self) -> bool {
        self.mode & TYPE == DIR
    }
    pub(super) fn drop_privileges(&mut self) {
        let group = if self.mode & GROUP_EXECUTE != 0 { SETGID } else { 0 };
        self.mode &= !(SETUID | group);
    }
}

impl Model {
    /// All nodes by number, those without a name but open included.
    pub fn nodes(&self) -> &BTreeMap<Node, FileNode> {
        &self.nodes
    }
    /// Nodes that are open.
    pub fn opens(&self) -> impl Iterator<Item = Node> {
        self.opens.keys().copied()
    }
    /// How often a node is open.
    pub fn open_count(&self, node: Node) -> u32 {
        self.opens.get(&node).copied().unwrap_or(0)
    }
    /// Numbers of nodes that are gone.
    pub fn dead(&self) -> &[Node] {
        &self.dead
    }
    /// The same tree for another session, or after a restart: nothing is open there, so what has no name is gone.
    pub fn without_opens(&self) -> Self {
        let mut copy = self.clone();
        let open: Vec<Node> = copy.opens.keys().copied().collect();
        copy.opens.clear();
        open.into_iter().for_each(|node| copy.bury_if_unused(node));
        // Whether a node is dead or was left behind without a name cannot be told from outside.
        copy.dead.clear();
        copy
    }

    /// Names of a node, found by looking at every directory; for a directory 2 and one for each directory in it.
    pub fn nlink(&self, node: Node) -> u32 {
        let names = self.nodes.values().map(|it| match &it.body {
            Body::Dir(names) => names.values().filter(|to| **to == node).count() as u32,
            _ => 0,
        });
        let names: u32 = names.sum();
        match self.nodes.get(&node).map(|it| &it.body) {
            Some(Body::Dir(entries)) if names > 0 || node == ROOT => {
                let is_dir = |to: &&Node| self.nodes.get(to).is_some_and(FileNode::is_dir);
                2 + entries.values().filter(is_dir).count() as u32
            }
            _ => names,
        }
    }

    pub(super) fn answer(&self, node: Node) -> Result<Answer> {
        let it = self.node(node)?;
        let (size, rdev) = match &it.body {
            Body::File(bytes) | Body::Symlink(bytes) => (bytes.len() as u64, 0),
            Body::Dir(_) => (0, 0),
            Body::Special(rdev) => (0, *rdev),
        };
        let FileNode { mode, uid, gid, atime_ns, mtime_ns, ctime_ns, .. } = *it;
        let nlink = self.nlink(node);
        Ok(Answer::Node(node, Attr { mode, nlink, uid, gid, rdev, size, atime_ns, mtime_ns, ctime_ns }))
    }

    pub(super) fn node(&self, node: Node) -> Result<&FileNode> {
        self.nodes.get(&node).ok_or(Reason::Stale)
    }
    pub(super) fn node_mut(&mut self, node: Node) -> Result<&mut FileNode> {
        self.nodes.get_mut(&node).ok_or(Reason::Stale)
    }

    /// The entries of a directory.
    pub(super) fn dir(&self, node: Node) -> Result<&BTreeMap<Name, Node>> {
        match &self.node(node)?.body {
            Body::Dir(names) => Ok(names),
            _ => Err(Reason::NotADirectory),
        }
    }
    pub(super) fn child(&self, dir: Node, name: &[u8]) -> Option<Node> {
        self.dir(dir).ok()?.get(name).copied()
    }
    /// A directory that was removed while it was open takes no new names.
    pub(super) fn check_alive(&self, dir: Node) -> Result<()> {
        if self.nlink(dir) == 0 { Err(Reason::NotFound) } else { Ok(()) }
    }

    /// The bytes of a regular file.
    pub(super) fn file(&self, node: Node) -> Result<&Vec<u8>> {
        match &self.node(node)?.body {
            Body::File(bytes) => Ok(bytes),
            Body::Dir(_) => Err(Reason::IsADirectory),
            _ => Err(Reason::WrongType),
        }
    }
    /// A regular file that may have so many bytes.
    pub(super) fn file_of_size(&self, node: Node, size: u64) -> Result<()> {
        self.file(node)?;
        if size > limits::MAX_FILE_BYTES { Err(Reason::FileTooLarge) } else { Ok(()) }
    }
    /// The bytes of a regular file, to be changed now.
    pub(super) fn file_mut(&mut self, node: Node, now_ns: i64) -> Result<&mut Vec<u8>> {
        let it = self.node_mut(node)?;
        (it.mtime_ns, it.ctime_ns) = (now_ns, now_ns);
        match &mut it.body {
            Body::File(bytes) => Ok(bytes),
            _ => Err(Reason::WrongType),
        }
    }

    /// Whether `node` is `top` or lies anywhere below it.
    pub(super) fn is_at_or_below(&self, node: Node, top: Node) -> bool {
        let below = self.dir(top).map(|names| names.values().any(|child| self.is_at_or_below(node, *child)));
        node == top || below.unwrap_or(false)
    }

    pub(super) fn put_name(&mut self, dir: Node, name: &Name, node: Node) {
        if let Some(FileNode { body: Body::Dir(names), .. }) = self.nodes.get_mut(&dir) {
            names.insert(name.clone(), node);
        }
    }
    pub(super) fn take_name(&mut self, dir: Node, name: &Name) -> Option<Node> {
        match self.nodes.get_mut(&dir) {
            Some(FileNode { body: Body::Dir(names), .. }) => names.remove(name),
            _ => None,
        }
    }
    /// Removes a name; the node goes with its last one unless it is open.
    pub(super) fn drop_name(&mut self, dir: Node, name: &Name, now_ns: i64) {
        let Some(node) = self.take_name(dir, name) else { return };
        self.touch_dir(dir, now_ns);
        if let Some(it) = self.nodes.get_mut(&node) {
            it.ctime_ns = now_ns;
        }
        self.bury_if_unused(node);
    }
    pub(super) fn bury_if_unused(&mut self, node: Node) {
        if self.nlink(node) == 0 && !self.opens.contains_key(&node) && self.nodes.remove(&node).is_some() {
            self.dead.push(node);
        }
    }
    pub(super) fn touch_dir(&mut self, dir: Node, now_ns: i64) {
        if let Some(it) = self.nodes.get_mut(&dir) {
            (it.mtime_ns, it.ctime_ns) = (now_ns, now_ns);
        }
    }
}
