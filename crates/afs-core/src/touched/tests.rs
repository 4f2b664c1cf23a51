//! The answers on small trees, and the property that matters on random ones: nobody who looks only at what is named misses
//! a change.

use super::*;
use crate::base::{BaseBuilder, BaseTable, NewEntry, NodeKind};
use crate::op::{AttrSet, Op};
use crate::tree::plan::{NewNode, RenameMode};
use crate::tree::{S_IFDIR, S_IFREG};
use afs_types::NameRef;
use std::collections::BTreeMap;
use std::sync::Arc;

/// `a/{one,two}`, `a/deep/x`, `b/y`, `top`, `.git/index`.
struct Bed {
    tree: Tree,
    seq: u64,
    next: Ino,
}

impl Bed {
    fn new() -> Self {
        let mut b = BaseBuilder::new(7);
        let dir = |b: &mut BaseBuilder, at, name: &[u8]| {
            b.add(at, name, NewEntry::new(NodeKind::Dir, 0o755)).unwrap()
        };
        let root = BaseBuilder::ROOT;
        let (a, other, git) = (dir(&mut b, root, b"a"), dir(&mut b, root, b"b"), dir(&mut b, root, b".git"));
        let deep = dir(&mut b, a, b"deep");
        for (at, name) in [(a, "one"), (a, "two"), (deep, "x"), (other, "y"), (root, "top"), (git, "index")] {
            b.add(at, name.as_bytes(), NewEntry::new(NodeKind::File, 0o644)).unwrap();
        }
        let table = BaseTable::open(b.finish().into()).unwrap();
        let next = table.max_ino() + 1;
        Self { tree: Tree::new(Arc::new(table)), seq: 0, next }
    }
    fn at(&self, path: &str) -> Ino {
        self.tree.walk(&SessionPath::parse_text(path).unwrap()).unwrap()
    }
    fn run(&mut self, op: Op) {
        self.seq += 1;
        self.tree.apply(&op, self.seq);
    }
    fn make(&mut self, dir: Ino, name: &str, mode: u32) -> Ino {
        let new = NewNode { mode, uid: 1, gid: 2, rdev: 0, target: None };
        let op = self.tree.plan_create(dir, of(name), self.next, &new, 10 + self.seq as i64).unwrap();
        self.next += 1;
        self.run(op);
        self.next - 1
    }
    fn rename(&mut self, from: (Ino, &str), to: (Ino, &str)) {
        let op = self.tree.plan_rename(from.0, of(from.1), to.0, of(to.1), RenameMode::Replace, |_| false, 9);
        self.run(op.unwrap().unwrap());
    }
    fn set(&mut self, ino: Ino, set: AttrSet) {
        let op = self.tree.plan_setattr(ino, set, 77 + self.seq as i64).unwrap();
        self.run(op);
    }
    fn since(&self, old: &Tree) -> Vec<String> {
        touched(old, &self.tree, 100).unwrap().iter().map(SessionPath::to_text).collect()
    }
}

fn of(name: &str) -> NameRef<'_> {
    NameRef::new(name.as_bytes()).unwrap()
}

#[test]
fn nothing_changed_is_nothing_to_look_at() {
    let mut bed = Bed::new();
    let base = bed.tree.clone();
    assert_eq!(bed.since(&base), [""; 0]);
    // Git's own files are not asked for.
    let git = bed.at("/.git");
    let objects = bed.make(git, "objects", S_IFDIR | 0o755);
    bed.make(objects, "pack", S_IFREG | 0o644);
    assert_eq!(bed.since(&base), [""; 0]);
}

#[test]
fn files_and_directories_are_named() {
    let mut bed = Bed::new();
    let base = bed.tree.clone();
    let (top, a, b) = (bed.at("/top"), bed.at("/a"), bed.at("/b"));
    bed.set(top, AttrSet { mtime_ns: Some(1234), ..AttrSet::default() });
    assert_eq!(bed.since(&base), ["/top"]);
    bed.set(b, AttrSet { mode: Some(0o700), ..AttrSet::default() });
    bed.make(a, "new", S_IFREG | 0o644);
    assert_eq!(bed.since(&base), ["/a/new", "/b", "/top"]);
    // A directory that moves: its old and new name, and everything in it under both.
    let middle = bed.tree.clone();
    bed.rename((ROOT_INO, "a"), (b, "moved"));
    let below = ["", "/deep", "/deep/x", "/new", "/one", "/two"];
    let want: Vec<String> =
        ["/a", "/b/moved"].iter().flat_map(|d| below.map(|p| format!("{d}{p}"))).collect();
    assert_eq!(bed.since(&middle), want);
    // Back again: as if nothing had been.
    bed.rename((b, "moved"), (ROOT_INO, "a"));
    assert_eq!(bed.since(&middle).iter().filter(|p| p.contains("moved")).count(), 0);
}

#[test]
fn a_file_with_several_names_is_named_by_all_of_them() {
    let mut bed = Bed::new();
    let (top, a) = (bed.at("/top"), bed.at("/a"));
    let op = bed.tree.plan_link(top, a, of("again"), 20).unwrap();
    bed.run(op);
    let linked = bed.tree.clone();
    bed.set(top, AttrSet { mtime_ns: Some(4321), ..AttrSet::default() });
    assert_eq!(bed.since(&linked), ["/a/again", "/top"]);
}

#[test]
fn too_many_and_the_root_itself_are_everything() {
    let mut bed = Bed::new();
    let base = bed.tree.clone();
    for number in 0..10 {
        bed.make(ROOT_INO, &format!("n{number}"), S_IFREG | 0o644);
    }
    assert_eq!(touched(&base, &bed.tree, 10).map(|found| found.len()), Some(10));
    assert_eq!(touched(&base, &bed.tree, 9), None);
    bed.set(ROOT_INO, AttrSet { mode: Some(0o700), ..AttrSet::default() });
    assert_eq!(touched(&base, &bed.tree, 100), None);
}

/// All of a tree: path to attributes, without access times.
fn look(tree: &Tree) -> BTreeMap<Vec<u8>, Attr> {
    let (mut all, mut todo) = (BTreeMap::new(), vec![(ROOT_INO, SessionPath::root())]);
    while let Some((dir, path)) = todo.pop() {
        tree.readdir(dir, FIRST_COOKIE, &mut |item| {
            let at = path.join(Name::new(item.name).unwrap());
            let attr = tree.attr(item.ino).unwrap();
            if attr.is_dir() {
                todo.push((item.ino, at.clone()));
            }
            all.insert(at.to_bytes(), Attr { atime_ns: 0, ..attr });
            true
        });
    }
    all
}

#[test]
fn nobody_who_looks_only_there_misses_a_change() {
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut roll = |n: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % n
    };
    let mut bed = Bed::new();
    let mut before = vec![(bed.tree.clone(), look(&bed.tree))];
    for step in 0..1500 {
        let all = look(&bed.tree);
        let dirs: Vec<Ino> =
            std::iter::once(ROOT_INO).chain(all.values().filter(|a| a.is_dir()).map(|a| a.ino)).collect();
        let dir = dirs[roll(dirs.len())];
        let name = format!("n{}", roll(6));
        match roll(6) {
            0 if bed.tree.lookup(dir, name.as_bytes()).is_none() => _ = bed.make(dir, &name, S_IFREG | 0o644),
            1 if bed.tree.lookup(dir, name.as_bytes()).is_none() => _ = bed.make(dir, &name, S_IFDIR | 0o755),
            2 => {
                if let Ok(op) = bed.tree.plan_unlink(dir, of(&name), |_| false, 30) {
                    bed.run(op);
                }
            }
            3 => {
                let to = dirs[roll(dirs.len())];
                let target = format!("n{}", roll(6));
                let plan =
                    bed.tree.plan_rename(dir, of(&name), to, of(&target), RenameMode::Replace, |_| false, 31);
                if let Ok(Some(op)) = plan {
                    bed.run(op);
                }
            }
            _ => {
                let files: Vec<Ino> = all.values().filter(|a| a.is_file()).map(|a| a.ino).collect();
                let ino = files[roll(files.len())];
                bed.set(ino, AttrSet { mtime_ns: Some(roll(1_000_000) as i64), ..AttrSet::default() });
            }
        }
        let now = look(&bed.tree);
        let (old, seen) = &before[roll(before.len())];
        let named = touched(old, &bed.tree, 100_000).unwrap();
        let named: BTreeSet<Vec<u8>> = named.iter().map(SessionPath::to_bytes).collect();
        for path in seen.keys().chain(now.keys()).filter(|path| !path.starts_with(b"/.git")) {
            let differs = match (seen.get(path), now.get(path)) {
                (Some(a), Some(b)) => a != b && !(a.is_dir() && b.is_dir() && a.mode == b.mode),
                _ => true,
            };
            assert!(!differs || named.contains(path), "step {step}: {}", String::from_utf8_lossy(path));
        }
        if step % 100 == 0 {
            before.push((bed.tree.clone(), now));
        }
    }
}
