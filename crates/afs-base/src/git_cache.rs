//! Two extensions of git's index with which `git status` in a fresh session looks at nothing: `FSMN` says that all entries are as the
//! index has them as of the base (the session tells what changed since, see `core.fsmonitor` in `git_dir`), `UNTR` that no directory
//! holds anything untracked.
//!
//! Guarantees: git that does not get an answer, or does not believe it, ignores both and looks for itself; `UNTR` counts only
//! where its first field names the work tree, which is left open ([`PLACE_BYTES`] that are NUL) because a base does not know where
//! it will be mounted: the mount fills it in. Deliberately absent: the files in that state (attributes that convert `.gitignore` make git read anew).

use crate::git_import::{Node, Tree};
use crate::git_index::{Stat, offset_varint};
use crate::object::{Mode, Oid};

/// Room for the name of the work tree: `Location PATH, system Linux`, the path at most PATH_MAX, and a NUL.
const PLACE_BYTES: usize = 4096 + 32;
/// What `git status` asks directories for: other directories are shown, empty ones are not.
const SHOW_OTHER_HIDE_EMPTY: u32 = 6;
/// The blob without a byte: what `.git/info/exclude` of a session holds.
const EMPTY_BLOB: Oid = [
    0xe6, 0x9d, 0xe2, 0x9b, 0xb2, 0xd1, 0xd6, 0x43, 0x4b, 0x8b, 0x29, 0xae, 0x77, 0x5a, 0xd8, 0xc2, 0xe4,
    0x8c, 0x53, 0x91,
];
const NO_BLOB: Oid = [0; 20];

/// The content of `FSMN`: as of `instant`, every entry is as it is in the index.
pub(crate) fn monitor(instant: &str) -> Vec<u8> {
    let nothing = Bits::default().encode();
    let mut out = 2u32.to_be_bytes().to_vec();
    out.extend_from_slice(instant.as_bytes());
    out.push(0);
    out.extend_from_slice(&(nothing.len() as u32).to_be_bytes());
    out.extend_from_slice(&nothing);
    out
}

/// The content of `UNTR`: the directories of a tree, none of which holds anything untracked. `ino` is the number of a
/// directory, by node; none is the root.
pub(crate) fn untracked(tree: &Tree, ino: impl Fn(Option<u32>) -> u32, stat: &Stat) -> Vec<u8> {
    let mut walk =
        Walk { tree, ino: &ino, stat, dirs: 0, names: Vec::new(), stats: Vec::new(), ignores: Vec::new() };
    walk.directory(b"", None, 0, tree.root);
    let mut bytes: Vec<u8> = offset_varint(PLACE_BYTES as u64).collect();
    bytes.resize(bytes.len() + PLACE_BYTES + 2 * STAT_BYTES, 0);
    bytes.extend_from_slice(&SHOW_OTHER_HIDE_EMPTY.to_be_bytes());
    bytes.extend_from_slice(&EMPTY_BLOB);
    bytes.extend_from_slice(&NO_BLOB); // no excludes of the user's own: git checks
    bytes.extend_from_slice(b".gitignore\0");
    bytes.extend(offset_varint(walk.dirs));
    bytes.append(&mut walk.names);
    let all = (0..walk.dirs).fold(Bits::default(), Bits::with);
    let ignored = walk.ignores.iter().fold(Bits::default(), |bits, (dir, _)| bits.with(*dir));
    bytes.extend(all.encode());
    bytes.extend(Bits::default().encode());
    bytes.extend(ignored.encode());
    bytes.append(&mut walk.stats);
    walk.ignores.iter().for_each(|(_, oid)| bytes.extend_from_slice(oid));
    bytes.push(0);
    bytes
}

const STAT_BYTES: usize = 36;

struct Walk<'a> {
    tree: &'a Tree,
    /// Inode number of a directory, by node; none is the root.
    ino: &'a dyn Fn(Option<u32>) -> u32,
    stat: &'a Stat,
    dirs: u64,
    names: Vec<u8>,
    stats: Vec<u8>,
    /// Directories with a `.gitignore`, by number, and its blob.
    ignores: Vec<(u64, Oid)>,
}

impl Walk<'_> {
    fn directory(&mut self, name: &[u8], node: Option<u32>, first: u32, count: u32) {
        let number = self.dirs;
        self.dirs += 1;
        let Stat { seconds, uid, gid } = *self.stat;
        let stat = [seconds, 0, seconds, 0, 0, (self.ino)(node), uid, gid, 0];
        stat.iter().for_each(|field| self.stats.extend_from_slice(&field.to_be_bytes()));
        let tree = self.tree;
        let children = || (first..first + count).map(|i| (i, &tree.nodes[i as usize]));
        let is_ignore =
            |n: &Node| &*n.name == b".gitignore" && matches!(n.mode, Mode::File | Mode::Executable);
        if let Some((_, ignore)) = children().find(|(_, n)| is_ignore(n)) {
            self.ignores.push((number, ignore.oid));
        }
        let mut below: Vec<(u32, &Node)> = children().filter(|(_, n)| n.mode.is_tree()).collect();
        // A tree has them as if their names ended in a slash.
        below.sort_unstable_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        self.names.extend(offset_varint(0));
        self.names.extend(offset_varint(below.len() as u64));
        self.names.extend_from_slice(name);
        self.names.push(0);
        for (i, dir) in below {
            self.directory(&dir.name, Some(i), dir.first, dir.count);
        }
    }
}

/// A set of numbers that grow, in git's compressed form (EWAH).
#[derive(Default)]
struct Bits {
    words: Vec<u64>,
    bits: u64,
}

impl Bits {
    fn with(mut self, number: u64) -> Self {
        self.words.resize((number / 64 + 1) as usize, 0);
        if let Some(word) = self.words.last_mut() {
            *word |= 1 << (number % 64);
        }
        self.bits = number + 1;
        self
    }

    /// Number of bits, number of words, the words, and which of them is the last that describes others. A describing word has one
    /// bit for the value of a run of words that are all zeros or all ones, 32 for the length of that run, and 31 for how many
    /// words follow it as they are.
    fn encode(&self) -> Vec<u8> {
        let mut words: Vec<u64> = Vec::new();
        let mut rest = &self.words[..];
        let last = loop {
            let value = rest.first().is_some_and(|w| *w == u64::MAX);
            let full = if value { u64::MAX } else { 0 };
            let run = rest.iter().take_while(|w| **w == full).count();
            rest = &rest[run..];
            let plain = rest.iter().take_while(|w| **w != 0 && **w != u64::MAX).count();
            let describing = words.len();
            words.push(u64::from(value) | (run as u64) << 1 | (plain as u64) << 33);
            words.extend_from_slice(&rest[..plain]);
            rest = &rest[plain..];
            if rest.is_empty() {
                break describing;
            }
        };
        let mut out = (self.bits as u32).to_be_bytes().to_vec();
        out.extend_from_slice(&(words.len() as u32).to_be_bytes());
        words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
        out.extend_from_slice(&(last as u32).to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(numbers: impl IntoIterator<Item = u64>) -> (u32, Vec<u64>, u32) {
        let bytes = numbers.into_iter().fold(Bits::default(), Bits::with).encode();
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let words = bytes[8..bytes.len() - 4].chunks(8).map(|w| u64::from_be_bytes(w.try_into().unwrap()));
        assert_eq!(number(4) as usize, words.len());
        (number(0), words.collect(), number(bytes.len() - 4))
    }

    #[test]
    fn sets_of_numbers_are_gits() {
        assert_eq!(words([]), (0, vec![0], 0));
        assert_eq!(words([0, 3]), (4, vec![1 << 33, 0b1001], 0));
        // Two full words, then three bits.
        assert_eq!(words(0..131), (131, vec![1 | 2 << 1 | 1 << 33, 0b111], 0));
        // An empty word, one with a bit, a full one.
        assert_eq!(words([64].into_iter().chain(128..192)), (192, vec![1 << 1 | 1 << 33, 1, 1 | 1 << 1], 2));
    }

    #[test]
    fn all_entries_are_valid_as_of_an_instant() {
        assert_eq!(
            monitor("base-1"),
            [&[0, 0, 0, 2][..], b"base-1\0", &[0, 0, 0, 20], &[0, 0, 0, 0, 0, 0, 0, 1], &[0; 12]].concat()
        );
    }
}
