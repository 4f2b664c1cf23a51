//! Git objects as bytes: strict parsing of trees and commits from outside, writing of our own.
//!
//! Guarantees: a tree that parses has only known modes, unique names in git's order, and no name that
//! [`crate::hostile`] refuses. Deliberately absent: where objects are kept.

use crate::hostile::{hostile, is_dot_gitmodules, refuse_git_name};
use afs_types::{Error, Reason, Result};
use std::cmp::Ordering;
use std::io::Read;

/// SHA-1 name of a git object.
pub type Oid = [u8; 20];

/// What a tree entry is. Numbers are git's modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Tree = 0o40000,
    File = 0o100_644,
    Executable = 0o100_755,
    Symlink = 0o120_000,
    Gitlink = 0o160_000,
}

impl Mode {
    fn parse(octal: &[u8]) -> Option<Self> {
        // Old writers padded trees with a zero, and kept the group's write bit: git reads both.
        Some(match octal {
            b"40000" | b"040000" => Self::Tree,
            b"100644" | b"100664" => Self::File,
            b"100755" => Self::Executable,
            b"120000" => Self::Symlink,
            b"160000" => Self::Gitlink,
            _ => return None,
        })
    }
    pub(crate) fn is_tree(self) -> bool {
        self == Self::Tree
    }
    /// Whether its object is a blob.
    pub(crate) fn is_blob(self) -> bool {
        matches!(self, Self::File | Self::Executable | Self::Symlink)
    }
}

/// One entry of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) mode: Mode,
    pub(crate) name: &'a [u8],
    pub(crate) oid: Oid,
}

/// Reads a whole tree; `path` (of the tree, without a leading slash) is for errors.
pub(crate) fn parse_tree<'a>(bytes: &'a [u8], path: &dyn Fn() -> Vec<u8>) -> Result<Vec<Entry<'a>>> {
    let mut entries: Vec<Entry<'a>> = Vec::with_capacity(bytes.len() / 40);
    let at = |name: &[u8]| join(&path(), name);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (entry, tail) = split_entry(rest).map_err(|why| hostile(&at(b"?"), why))?;
        let (octal, name, oid) = entry;
        if let Some(why) = refuse_git_name(name) {
            return Err(hostile(&at(name), why));
        }
        let Some(mode) = Mode::parse(octal) else {
            return Err(hostile(&at(name), "a mode that git does not know"));
        };
        if mode == Mode::Symlink && is_dot_gitmodules(name) {
            return Err(hostile(&at(name), "a symbolic link named .gitmodules"));
        }
        if mode == Mode::Gitlink && name.iter().any(u8::is_ascii_control) {
            return Err(hostile(&at(name), "a submodule with control characters in its name"));
        }
        let entry = Entry { mode, name, oid };
        if let Some(last) = entries.last() {
            match tree_order(last, &entry) {
                Ordering::Less => {}
                Ordering::Equal => return Err(hostile(&at(name), "a second entry of this name")),
                Ordering::Greater => return Err(hostile(&at(name), "entries out of order")),
            }
        }
        if entry.mode.is_tree() && has_file_named(&entries, name) {
            return Err(hostile(&at(name), "a file and a directory of the same name"));
        }
        entries.push(entry);
        rest = tail;
    }
    Ok(entries)
}

/// A directory sorts as `name/`, so a file of the same name stands earlier, with only names between them that
/// start with it and go on with a byte below '/'.
fn has_file_named(entries: &[Entry<'_>], name: &[u8]) -> bool {
    entries.iter().rev().take_while(|e| e.name.starts_with(name)).any(|e| e.name == name)
}

type RawEntry<'a> = (&'a [u8], &'a [u8], Oid);

fn split_entry(bytes: &[u8]) -> Result<(RawEntry<'_>, &[u8]), &'static str> {
    const CUT: &str = "a tree that ends in the middle of an entry";
    let space = bytes.iter().take(8).position(|b| *b == b' ').ok_or(CUT)?;
    let (octal, rest) = (&bytes[..space], &bytes[space + 1..]);
    let nul = rest.iter().position(|b| *b == 0).ok_or(CUT)?;
    let oid = rest.get(nul + 1..nul + 21).and_then(|o| o.try_into().ok()).ok_or(CUT)?;
    Ok(((octal, &rest[..nul], oid), &rest[nul + 21..]))
}

/// Git's order of tree entries: by bytes, a directory as if its name ended in '/'.
pub(crate) fn tree_order(a: &Entry<'_>, b: &Entry<'_>) -> Ordering {
    name_order(a.name, a.mode.is_tree(), b.name, b.mode.is_tree())
}

/// The same for bare names.
pub(crate) fn name_order(a: &[u8], a_dir: bool, b: &[u8], b_dir: bool) -> Ordering {
    let common = a.len().min(b.len());
    let end = |name: &[u8], dir: bool| name.get(common).copied().unwrap_or(if dir { b'/' } else { 0 });
    a[..common].cmp(&b[..common]).then_with(|| end(a, a_dir).cmp(&end(b, b_dir)))
}

/// Writes a tree; entries must be in git's order.
pub(crate) fn encode_tree<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        out.extend_from_slice(format!("{:o} ", entry.mode as u32).as_bytes());
        out.extend_from_slice(entry.name);
        out.push(0);
        out.extend_from_slice(&entry.oid);
    }
    out
}

/// What an import needs of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Commit {
    pub(crate) tree: Oid,
    /// Committer's time, seconds since 1970.
    pub(crate) time: i64,
}

/// Reads a commit's tree and time.
pub(crate) fn parse_commit(bytes: &[u8]) -> Result<Commit> {
    let bad = || Error::new(Reason::HostileTree, "the commit does not parse");
    let mut lines = bytes.split(|b| *b == b'\n');
    let tree = lines.next().and_then(|l| l.strip_prefix(b"tree ")).and_then(parse_hex).ok_or_else(bad)?;
    let committer = lines.take_while(|l| !l.is_empty()).find_map(|l| l.strip_prefix(b"committer "));
    // A broken date is git's year 1970, not a refused import.
    let time = committer.and_then(|l| {
        let tail = &l[l.iter().rposition(|b| *b == b'>')? + 1..];
        std::str::from_utf8(tail).ok()?.split_whitespace().next()?.parse().ok()
    });
    Ok(Commit { tree, time: time.unwrap_or(0) })
}

/// 40 hexadecimal digits.
pub fn parse_hex(text: &[u8]) -> Option<Oid> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let mut oid = [0; 20];
    if text.len() != 40 {
        return None;
    }
    for (out, pair) in oid.iter_mut().zip(text.chunks_exact(2)) {
        *out = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(oid)
}

/// Lowercase hexadecimal.
pub(crate) fn hex(oid: &Oid) -> String {
    oid.iter().fold(String::with_capacity(40), |text, b| text + &format!("{b:02x}"))
}

/// `dir/name`; the root is empty.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// SHA-1 of bytes, with git's detection of collision attacks.
pub(crate) fn sha1(parts: &[&[u8]]) -> Result<Oid> {
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    parts.iter().for_each(|p| hasher.update(p));
    finish_sha1(hasher)
}

/// Adds the next `len` bytes of a file to a hash, or all that is left of it.
pub(crate) fn hash_file(
    hasher: &mut gix::hash::Hasher,
    file: &mut impl Read,
    len: Option<u64>,
) -> std::io::Result<()> {
    let (mut left, mut piece) = (len.unwrap_or(u64::MAX), vec![0; 1 << 20]);
    while left > 0 {
        let most = left.min(piece.len() as u64) as usize;
        match file.read(&mut piece[..most]) {
            Ok(0) if len.is_some() => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&piece[..n]);
                left -= n as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends a hash.
pub(crate) fn finish_sha1(hasher: gix::hash::Hasher) -> Result<Oid> {
    let id = hasher.try_finalize().map_err(|e| Error::new(Reason::Corrupt, e.to_string()))?;
    id.as_slice().try_into().map_err(|_| Error::new(Reason::Internal, "SHA-1 of another length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let one = |(mode, name): &(&str, &[u8])| [mode.as_bytes(), b" ", name, b"\0", &[7; 20]].concat();
        entries.iter().flat_map(one).collect()
    }

    fn parse(bytes: &[u8]) -> Result<Vec<Entry<'_>>> {
        parse_tree(bytes, &|| b"dir".to_vec())
    }

    #[test]
    fn good_trees_parse_and_are_written_back() {
        let bytes = raw(&[
            ("100644", b"a"),
            ("100755", b"a.b"),
            ("40000", b"a0"),
            ("120000", b"b\xff"),
            ("160000", b"c"),
        ]);
        let entries = parse(&bytes).unwrap();
        assert_eq!(entries.len(), 5);
        assert_eq!(encode_tree(entries.into_iter()), bytes);
        assert_eq!(parse(&raw(&[("040000", b"x"), ("100664", b"y")])).unwrap()[1].mode, Mode::File);
    }

    #[test]
    fn bad_trees_are_named() {
        let cases: &[&[(&str, &[u8])]] = &[
            &[("100644", b"a"), ("100644", b"a")],
            &[("100644", b"b"), ("100644", b"a")],
            &[("100644", b"a"), ("100644", b"a.b"), ("40000", b"a")],
            &[("120000", b"a"), ("40000", b"a")],
            &[("100600", b"a")],
            &[("0", b"a")],
            &[("40000", b".git")],
            &[("100644", b"..")],
            &[("120000", b".gitmodules")],
            &[("160000", b"a\r")],
            &[("100644", b"")],
        ];
        for case in cases {
            let bytes = raw(case);
            let error = parse(&bytes).expect_err("hostile");
            assert_eq!(error.reason, Reason::HostileTree, "{case:?}");
            assert!(error.message().starts_with("dir/"), "{error:?}");
        }
        let whole = raw(&[("100644", b"a")]);
        for cut in 1..whole.len() {
            assert_eq!(parse(&whole[..cut]).unwrap_err().reason, Reason::HostileTree);
        }
    }

    #[test]
    fn commits_parse() {
        let text = format!(
            "tree {}\nparent {}\nauthor A <a> 1 +0000\ncommitter B > <b> 1700000000 -0130\n\nm",
            "0a".repeat(20),
            "0b".repeat(20)
        );
        assert_eq!(parse_commit(text.as_bytes()).unwrap(), Commit { tree: [10; 20], time: 1_700_000_000 });
        assert!(parse_commit(b"tree 12\n").is_err());
        assert_eq!(hex(&parse_hex("0a".repeat(20).as_bytes()).unwrap()), "0a".repeat(20));
    }
}
