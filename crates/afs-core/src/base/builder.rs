//! Collects a tree, numbers it, and writes it as a table.
//!
//! What importers find is hostile: names, types, depth, sizes and counts are checked when they are added, and
//! the error names the path.

use super::NodeKind;
use super::index::Index;
use crate::hash::NameKey;
use afs_types::{BlobId, Error, Ino, Name, NameRef, Reason, Result, limits};
use std::collections::HashMap;

mod write;

/// A node of a tree being built. Belongs to the builder that made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NodeHandle(u32);

impl NodeHandle {
    /// The root directory, in every builder.
    pub const ROOT: Self = Self(0);
}

/// What an importer knows about an entry.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// What it is; [`NodeKind::HardLink`] needs `hard_link_to` and ignores all else.
    pub kind: NodeKind,
    /// Permission bits. The type bits matter for [`NodeKind::Special`] alone and follow from the kind else.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of the content, or of a symbolic link's target.
    pub size: u64,
    /// Time of the last change of the content, ns since 1970.
    pub mtime_ns: i64,
    /// Device number of a [`NodeKind::Special`].
    pub rdev: u32,
    /// The content; must be there when a file's or symbolic link's size is not 0.
    pub blob: Option<BlobId>,
    /// The object in the git repository it comes from.
    pub git_oid: Option<[u8; 20]>,
    /// The inode that this is one more name of: a file, symbolic link or special.
    pub hard_link_to: Option<NodeHandle>,
}

impl NewEntry {
    /// An entry of this kind and these permission bits, everything else zero.
    pub fn new(kind: NodeKind, mode: u32) -> Self {
        Self {
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime_ns: 0,
            rdev: 0,
            blob: None,
            git_oid: None,
            hard_link_to: None,
        }
    }
    /// One more name of an inode.
    pub fn hard_link(to: NodeHandle) -> Self {
        Self { hard_link_to: Some(to), ..Self::new(NodeKind::HardLink, 0) }
    }
}

/// Builds a table. Nodes come in any order in which a directory comes before its entries.
pub struct BaseBuilder {
    seed: u64,
    key: NameKey,
    nodes: Vec<Node>,
    siblings: Index,
    names: Names,
    contents: Contents,
    classes: Classes,
    numbers: Option<Numbers>,
}

struct Node {
    size: u64,
    mtime_ns: i64,
    parent: u32,
    name: u32,
    class: u32,
    content: Option<u32>,
    /// Device number; for a hard link, the node of the inode.
    link: u32,
    /// Directory: directories in it. Else: further names.
    links: u32,
    depth: u16,
    path_bytes: u16,
    kind: NodeKind,
}

/// Inode numbers, once the structure is final.
struct Numbers {
    /// Node by position.
    order: Vec<u32>,
    /// Position by node.
    position: Vec<u32>,
    /// Number of children by node.
    children: Vec<u32>,
    /// The lowest position among the names of an inode that has several, by node: there its row goes, so
    /// that the table does not depend on which name an importer met first.
    home: HashMap<u32, u32>,
}

impl BaseBuilder {
    /// The root directory.
    pub const ROOT: NodeHandle = NodeHandle::ROOT;

    /// A tree of an empty root directory. `seed` must be random: it keys the name hash.
    pub fn new(seed: u64) -> Self {
        let key = NameKey::new(seed);
        let mut builder = Self {
            seed,
            key,
            nodes: Vec::new(),
            siblings: Index::new(),
            names: Names::new(key),
            contents: Contents::new(key),
            classes: Classes::default(),
            numbers: None,
        };
        let root = builder.node(&NewEntry::new(NodeKind::Dir, 0o755));
        builder.nodes.push(root);
        builder
    }

    /// The name of the table that will be made: [`super::BaseTable::mark`].
    pub fn mark(&self) -> String {
        super::mark_of(self.seed)
    }

    /// Sets the attributes of the root directory, whose kind is given, and returns it.
    pub fn root(&mut self, attrs: NewEntry) -> NodeHandle {
        let links = self.nodes[0].links;
        let root = self.node(&NewEntry { kind: NodeKind::Dir, hard_link_to: None, ..attrs });
        self.nodes[0] = Node { links, ..root };
        Self::ROOT
    }

    /// Adds an entry to a directory.
    ///
    /// `HOSTILE_TREE`, naming the path, for what no tree may hold; `QUOTA_EXCEEDED` for too many entries.
    pub fn add(&mut self, parent: NodeHandle, name: &[u8], entry: NewEntry) -> Result<NodeHandle> {
        if self.numbers.is_some() {
            return Err(Error::new(Reason::Internal, "add an entry to a base table that is numbered"));
        }
        let up = &self.nodes[parent.0 as usize];
        let (depth, path_bytes) = (usize::from(up.depth) + 1, usize::from(up.path_bytes) + 1 + name.len());
        if let Err(why) = self.check(up, name, depth, path_bytes, &entry) {
            return Err(self.hostile(parent, name, &why));
        }
        if self.nodes.len() as u64 >= limits::MAX_BASE_ENTRIES {
            let text = format!("the tree has more than {} entries", limits::MAX_BASE_ENTRIES);
            return Err(Error::new(Reason::QuotaExceeded, text).with("limit", "MAX_BASE_ENTRIES"));
        }
        let target = entry.hard_link_to.map(|to| self.inode_of(to));
        let handle = self.nodes.len() as u32;
        let name_id = self.names.intern(name)?;
        let hash = self.key.hash(u64::from(parent.0), &name_id.to_le_bytes());
        let nodes = &self.nodes;
        let same = |row: u32| (nodes[row as usize].parent, nodes[row as usize].name) == (parent.0, name_id);
        if self.siblings.find_or_insert(hash, handle, same).is_some() {
            return Err(self.hostile(parent, name, "the name is there twice"));
        }
        let mut node = self.node(&entry);
        node = Node { parent: parent.0, name: name_id, ..node };
        (node.depth, node.path_bytes) = (depth as u16, path_bytes as u16);
        if let Some(target) = target {
            node.link = target;
            self.nodes[target as usize].links += 1;
        }
        if matches!(entry.kind, NodeKind::Dir | NodeKind::Gitlink) {
            self.nodes[parent.0 as usize].links += 1;
        }
        self.nodes.push(node);
        Ok(NodeHandle(handle))
    }

    /// Makes the structure final: from now on inode numbers are known and nothing can be added.
    pub fn number(&mut self) {
        if self.numbers.is_none() {
            self.numbers = Some(Numbers::new(&self.nodes, &self.names));
        }
    }

    /// The inode number of a node, for a hard link that of its inode. Makes the structure final.
    pub fn ino_of(&mut self, node: NodeHandle) -> Ino {
        self.number();
        let inode = self.inode_of(node);
        let place = self.numbers.as_ref().map_or(0, |numbers| numbers.place(inode));
        Ino::from(place) + 1
    }

    /// Sets the content of a file, also after numbering.
    pub fn set_content(
        &mut self,
        file: NodeHandle,
        size: u64,
        blob: Option<BlobId>,
        mtime_ns: i64,
    ) -> Result<()> {
        let inode = self.inode_of(file) as usize;
        if self.nodes[inode].kind != NodeKind::File || size > limits::MAX_FILE_BYTES {
            return Err(Error::new(Reason::Internal, "set the content of what is not a file, or too much"));
        }
        let content = self.contents.intern(blob, None);
        let node = &mut self.nodes[inode];
        (node.size, node.mtime_ns, node.content) = (size, mtime_ns, content);
        Ok(())
    }

    /// Nodes so far, the root included.
    #[allow(clippy::len_without_is_empty, reason = "there always is a root")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Writes the table. The same tree and seed give the same bytes.
    pub fn finish(mut self) -> Vec<u8> {
        let numbers = self.numbers.take().unwrap_or_else(|| Numbers::new(&self.nodes, &self.names));
        write::table(&self, &numbers)
    }

    fn inode_of(&self, handle: NodeHandle) -> u32 {
        let node = &self.nodes[handle.0 as usize];
        if node.kind == NodeKind::HardLink { node.link } else { handle.0 }
    }

    fn node(&mut self, entry: &NewEntry) -> Node {
        let mode = entry.kind.mode_type(entry.mode).unwrap_or(0) | entry.mode & 0o7777;
        let content = match entry.kind {
            NodeKind::File | NodeKind::Symlink => self.contents.intern(entry.blob, entry.git_oid),
            NodeKind::Dir | NodeKind::Gitlink => self.contents.intern(None, entry.git_oid),
            NodeKind::Special | NodeKind::HardLink => None,
        };
        Node {
            size: entry.size,
            mtime_ns: entry.mtime_ns,
            parent: 0,
            name: 0,
            class: self.classes.intern([mode, entry.uid, entry.gid]),
            content,
            link: if entry.kind == NodeKind::Special { entry.rdev } else { 0 },
            links: 0,
            depth: 0,
            path_bytes: 0,
            kind: entry.kind,
        }
    }

    fn check(
        &self,
        up: &Node,
        name: &[u8],
        depth: usize,
        bytes: usize,
        new: &NewEntry,
    ) -> Result<(), String> {
        NameRef::new(name).map_err(|e| e.message().to_owned())?;
        if up.kind != NodeKind::Dir {
            return Err("it lies in what is not a directory".into());
        }
        if depth > limits::MAX_PATH_DEPTH {
            return Err(format!("it is deeper than {} directories", limits::MAX_PATH_DEPTH));
        }
        if bytes > limits::MAX_PATH_BYTES {
            return Err(format!("its path is longer than {} bytes", limits::MAX_PATH_BYTES));
        }
        match (new.kind, new.hard_link_to) {
            (NodeKind::HardLink, Some(to)) => {
                let inode = &self.nodes[self.inode_of(to) as usize];
                if matches!(inode.kind, NodeKind::Dir | NodeKind::Gitlink) {
                    return Err("it is a hard link to a directory".into());
                }
                let full = inode.links + 1 >= limits::MAX_LINKS;
                return if full { Err("its inode has too many names".into()) } else { Ok(()) };
            }
            (NodeKind::HardLink, None) | (_, Some(_)) => return Err("it is half a hard link".into()),
            (_, None) => {}
        }
        if new.kind.mode_type(new.mode).is_none() {
            return Err(format!("its type {:o} is not known", new.mode & super::MODE_TYPE));
        }
        if new.size > limits::MAX_FILE_BYTES {
            return Err(format!("it is larger than {} bytes", limits::MAX_FILE_BYTES));
        }
        if new.kind == NodeKind::Symlink && !(1..=limits::MAX_SYMLINK_BYTES as u64).contains(&new.size) {
            return Err(format!("its target is not 1 to {} bytes long", limits::MAX_SYMLINK_BYTES));
        }
        if new.kind == NodeKind::Symlink && new.blob.is_none() {
            return Err("it is a symbolic link without a target".into());
        }
        Ok(())
    }

    fn hostile(&self, parent: NodeHandle, name: &[u8], why: &str) -> Error {
        let mut names = vec![Name::lossy(&name[..name.len().min(2 * limits::MAX_NAME_BYTES)])];
        let mut at = parent.0 as usize;
        while at != 0 {
            names.push(Name::lossy(self.names.get(self.nodes[at].name)));
            at = self.nodes[at].parent as usize;
        }
        names.reverse();
        let path = format!("/{}", names.join("/"));
        Error::new(Reason::HostileTree, format!("{path}: {why}")).with("path", path)
    }
}

impl Numbers {
    fn new(nodes: &[Node], names: &Names) -> Self {
        let mut children = vec![0; nodes.len()];
        for node in &nodes[1..] {
            children[node.parent as usize] += 1;
        }
        // All nodes, grouped by directory: `free[d]` is where the next child of `d` goes.
        let mut free: Vec<u32> = children
            .iter()
            .scan(0, |end, count| {
                *end += count;
                Some(*end - count)
            })
            .collect();
        let mut groups = vec![0; nodes.len() - 1];
        for (node, it) in nodes.iter().enumerate().skip(1) {
            let at = &mut free[it.parent as usize];
            groups[*at as usize] = node as u32;
            *at += 1;
        }
        let mut order = Vec::with_capacity(nodes.len());
        order.push(0);
        let mut sorted: Vec<(u64, u32)> = Vec::new();
        for at in 0..nodes.len() {
            let dir = order[at] as usize;
            let end = free[dir] as usize;
            let group = &groups[end - children[dir] as usize..end];
            sorted.clear();
            sorted.extend(group.iter().map(|node| (prefix(names.get(nodes[*node as usize].name)), *node)));
            let name = |node: u32| names.get(nodes[node as usize].name);
            sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| name(a.1).cmp(name(b.1))));
            order.extend(sorted.iter().map(|(_, node)| *node));
        }
        let mut position = vec![0; nodes.len()];
        for (place, node) in order.iter().enumerate() {
            position[*node as usize] = place as u32;
        }
        let mut home = HashMap::new();
        for (node, it) in nodes.iter().enumerate().filter(|(_, it)| it.kind == NodeKind::HardLink) {
            let lowest = home.entry(it.link).or_insert(position[it.link as usize]);
            *lowest = position[node].min(*lowest);
        }
        Self { order, position, children, home }
    }

    /// The position of an inode's row.
    fn place(&self, inode: u32) -> u32 {
        self.home.get(&inode).copied().unwrap_or(self.position[inode as usize])
    }
}

/// The first bytes of a name as a number that sorts like them: most comparisons need no more.
fn prefix(name: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = name.len().min(8);
    bytes[..len].copy_from_slice(&name[..len]);
    u64::from_be_bytes(bytes)
}

/// Distinct names, one behind the other.
struct Names {
    key: NameKey,
    bytes: Vec<u8>,
    /// `ends[id]` is where name `id` ends and the next one starts.
    ends: Vec<u32>,
    index: Index,
}

impl Names {
    fn new(key: NameKey) -> Self {
        // Name 0 is the root's, empty.
        Self { key, bytes: Vec::new(), ends: vec![0], index: Index::new() }
    }

    fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let from = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        &self.bytes[from..self.ends[id] as usize]
    }

    fn intern(&mut self, name: &[u8]) -> Result<u32> {
        let id = self.ends.len() as u32;
        if self.bytes.len() + name.len() > u32::MAX as usize {
            let text = "the names of the tree have more than 4 GiB";
            return Err(Error::new(Reason::QuotaExceeded, text).with("limit", "4 GiB of names"));
        }
        let mut index = std::mem::replace(&mut self.index, Index::new());
        let found = index.find_or_insert(self.key.hash(0, name), id, |row| self.get(row) == name);
        self.index = index;
        if let Some(found) = found {
            return Ok(found);
        }
        self.bytes.extend_from_slice(name);
        self.ends.push(self.bytes.len() as u32);
        Ok(id)
    }
}

/// Distinct pairs of blob and git id; zeros for none.
struct Contents {
    key: NameKey,
    rows: Vec<([u8; 32], [u8; 20])>,
    index: Index,
}

impl Contents {
    fn new(key: NameKey) -> Self {
        Self { key, rows: Vec::new(), index: Index::new() }
    }

    fn intern(&mut self, blob: Option<BlobId>, oid: Option<[u8; 20]>) -> Option<u32> {
        if blob.is_none() && oid.is_none() {
            return None;
        }
        let row = (blob.map_or([0; 32], |id| id.0), oid.unwrap_or_default());
        let mut both = [0; 52];
        both[..32].copy_from_slice(&row.0);
        both[32..].copy_from_slice(&row.1);
        let new = self.rows.len() as u32;
        let rows = &self.rows;
        let hash = self.key.hash(1, &both);
        let found = self.index.find_or_insert(hash, new, |at| rows[at as usize] == row);
        if found.is_none() {
            self.rows.push(row);
        }
        Some(found.unwrap_or(new))
    }
}

/// Distinct (mode, uid, gid).
#[derive(Default)]
struct Classes {
    rows: Vec<[u32; 3]>,
    ids: HashMap<[u32; 3], u32>,
    last: u32,
}

impl Classes {
    fn intern(&mut self, class: [u32; 3]) -> u32 {
        if self.rows.get(self.last as usize) != Some(&class) {
            let new = self.rows.len() as u32;
            self.last = *self.ids.entry(class).or_insert(new);
            if self.last == new {
                self.rows.push(class);
            }
        }
        self.last
    }
}
