//! Git's index file for a fresh session: version 4, with a cache of tree ids, what `git_cache` adds, and the stat data that a
//! mount shows.
//!
//! Guarantees: `git status` in an untouched session reads no file and no tree; the bytes depend on the tree, the inode
//! numbers, [`Stat`] and the mark of the table alone. Deliberately absent: reading an index ([`crate::index_reader`] does).

use crate::git_cache;
use crate::git_import::{Contents, Node, Tree};
use crate::object::{Mode, Oid, sha1};
use afs_types::Result;

/// What all entries have in common.
pub(crate) struct Stat {
    /// Modification and change time.
    pub(crate) seconds: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

struct Writer<'a> {
    tree: &'a Tree,
    /// Low 32 bits of the inode number, by node.
    inos: &'a [u32],
    contents: &'a Contents,
    stat: &'a Stat,
    entries: Vec<u8>,
    count: u32,
    path: Vec<u8>,
    last: Vec<u8>,
    /// The `TREE` extension. It stands in order of directories while entries are counted bottom-up, so each record is
    /// put in its place when its directory is done.
    cache: Vec<u8>,
}

/// The index of a whole tree. `instant` is the name under which a session knows its unchanged base.
pub(crate) fn encode(
    tree: &Tree,
    inos: &[u32],
    contents: &Contents,
    stat: &Stat,
    instant: &str,
) -> Result<Vec<u8>> {
    let mut writer = Writer {
        tree,
        inos,
        contents,
        stat,
        entries: Vec::with_capacity(tree.nodes.len() * 80),
        count: 0,
        path: Vec::new(),
        last: Vec::new(),
        cache: Vec::new(),
    };
    writer.cache = writer.directory(b"", 0, tree.root, &tree.root_oid);
    let mut out = b"DIRC".to_vec();
    out.extend_from_slice(&4u32.to_be_bytes());
    out.extend_from_slice(&writer.count.to_be_bytes());
    out.append(&mut writer.entries);
    let root_ino = 1;
    let ino = |node: Option<u32>| node.map_or(root_ino, |i| inos[i as usize]);
    let untracked = git_cache::untracked(tree, ino, stat);
    let monitor = git_cache::monitor(instant);
    let start = out.len() as u32;
    let mut headers = Vec::new();
    for (name, content) in [(b"TREE", &writer.cache), (b"FSMN", &monitor), (b"UNTR", &untracked)] {
        let header = [&name[..], &(content.len() as u32).to_be_bytes()].concat();
        out.extend_from_slice(&header);
        out.extend_from_slice(content);
        headers.extend(header);
    }
    // Where the extensions begin: for readers that start from the end, among them the mount.
    let end = [&start.to_be_bytes()[..], &sha1(&[&headers])?].concat();
    out.extend_from_slice(b"EOIE");
    out.extend_from_slice(&(end.len() as u32).to_be_bytes());
    out.extend_from_slice(&end);
    let hash = sha1(&[&out])?;
    out.extend_from_slice(&hash);
    Ok(out)
}

impl Writer<'_> {
    /// Writes the entries below a directory, which stand in the tree in the order that the index wants, and returns
    /// its record in the cache of tree ids: name, entries below it, directories in it, id, then those directories.
    fn directory(&mut self, name: &[u8], first: u32, count: u32, oid: &Oid) -> Vec<u8> {
        let before = self.count;
        let mut below: Vec<(&[u8], Vec<u8>)> = Vec::new();
        for i in first..first + count {
            let node = &self.tree.nodes[i as usize];
            let keep = self.path.len();
            if keep > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&node.name);
            if node.mode.is_tree() {
                below.push((&node.name, self.directory(&node.name, node.first, node.count, &node.oid)));
            } else {
                self.entry(i, node);
            }
            self.path.truncate(keep);
        }
        // Git keeps directories of the cache by length, then by bytes.
        below.sort_unstable_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        let mut record = name.to_vec();
        record.extend_from_slice(format!("\0{} {}\n", self.count - before, below.len()).as_bytes());
        record.extend_from_slice(oid);
        below.iter().for_each(|(_, sub)| record.extend_from_slice(sub));
        record
    }

    fn entry(&mut self, i: u32, node: &Node) {
        let size = match node.mode {
            Mode::Gitlink => 0,
            _ => self.contents.get(&node.oid).map_or(0, |(_, size)| *size),
        };
        let stat = self.stat;
        let time = [stat.seconds, 0, stat.seconds, 0];
        let rest = [0, self.inos[i as usize], node.mode as u32, stat.uid, stat.gid, index_size(size)];
        time.iter().chain(&rest).for_each(|n| self.entries.extend_from_slice(&n.to_be_bytes()));
        self.entries.extend_from_slice(&node.oid);
        self.entries.extend_from_slice(&(self.path.len().min(0xfff) as u16).to_be_bytes());
        let common = self.path.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        self.entries.extend(offset_varint((self.last.len() - common) as u64));
        self.entries.extend_from_slice(&self.path[common..]);
        self.entries.push(0);
        self.last.clone_from(&self.path);
        self.count += 1;
    }
}

/// An index holds the low 32 bits of a size, but 0 only for empty files.
fn index_size(size: u64) -> u32 {
    match size as u32 {
        0 if size > 0 => 0x8000_0000,
        low => low,
    }
}

/// Git's variable-length number of pack offsets: big-endian groups of 7 bits, each one less than it says.
pub(crate) fn offset_varint(mut value: u64) -> impl Iterator<Item = u8> {
    let mut bytes = [0; 10];
    let mut at = 9;
    bytes[at] = (value & 0x7f) as u8;
    while value > 0x7f {
        value = (value >> 7) - 1;
        at -= 1;
        bytes[at] = 0x80 | (value & 0x7f) as u8;
    }
    bytes.into_iter().skip(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gits() {
        let bytes = |n| offset_varint(n).collect::<Vec<_>>();
        assert_eq!(bytes(0), [0]);
        assert_eq!(bytes(127), [127]);
        assert_eq!(bytes(128), [0x80, 0]);
        assert_eq!(bytes(16_511), [0xff, 0x7f]);
        assert_eq!(bytes(16_512), [0x80, 0x80, 0]);
        assert_eq!(
            [index_size(0), index_size(5), index_size(1 << 32), index_size((1 << 32) + 1)],
            [0, 5, 0x8000_0000, 1]
        );
    }
}
