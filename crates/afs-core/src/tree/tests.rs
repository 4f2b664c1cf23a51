//! The tree's own rules on small cases; random histories against the reference model live in afs-testkit.
use super::plan::{NewNode, RenameMode};
use super::*;
use crate::base::{BaseBuilder, NewEntry};
use crate::delta::Delta;
use crate::diff::{ChangeKind, diff};
use crate::op::Op;
use afs_types::Result;

/// A tree over `dir/{a,b}` and `top`, with a sequence counter.
struct T {
    tree: Tree,
    seq: u64,
    next: Ino,
}

fn entry(kind: NodeKind, mode: u32) -> NewEntry {
    NewEntry {
        kind,
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        mtime_ns: 5,
        rdev: 0,
        blob: None,
        git_oid: None,
        hard_link_to: None,
    }
}

fn t() -> T {
    let mut b = BaseBuilder::new(7);
    let root = b.root(entry(NodeKind::Dir, S_IFDIR | 0o755));
    let dir = b.add(root, b"dir", entry(NodeKind::Dir, S_IFDIR | 0o755)).unwrap();
    for name in [b"a", b"b"] {
        b.add(dir, name, entry(NodeKind::File, S_IFREG | 0o644)).unwrap();
    }
    b.add(root, b"top", entry(NodeKind::File, S_IFREG | 0o644)).unwrap();
    let table = BaseTable::open(b.finish().into()).unwrap();
    let next = table.max_ino() + 1;
    T { tree: Tree::new(Arc::new(table)), seq: 0, next }
}

fn n(name: &str) -> NameRef<'_> {
    NameRef::new(name.as_bytes()).unwrap()
}

impl T {
    fn run(&mut self, op: Op) {
        self.seq += 1;
        self.tree.apply(&op, self.seq);
    }
    fn make(&mut self, parent: Ino, name: &str, mode: u32) -> Result<Ino> {
        let new = NewNode { mode, uid: 1, gid: 2, rdev: 0, target: None };
        let ino = self.next;
        let op = self.tree.plan_create(parent, n(name), ino, &new, 10)?;
        self.next += 1;
        self.run(op);
        Ok(ino)
    }
    fn mv(&mut self, from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> Result<()> {
        let op = self.tree.plan_rename(from.0, n(from.1), to.0, n(to.1), mode, |_| false, 11)?;
        if let Some(op) = op {
            self.run(op);
        }
        Ok(())
    }
    fn rm(&mut self, dir: Ino, name: &str) -> Result<()> {
        let op = self.tree.plan_unlink(dir, n(name), |_| false, 12)?;
        self.run(op);
        Ok(())
    }
    fn rmdir(&mut self, dir: Ino, name: &str) -> Result<()> {
        let op = self.tree.plan_rmdir(dir, n(name), |_| false, 12)?;
        self.run(op);
        Ok(())
    }
    fn at(&self, path: &str) -> Option<Ino> {
        self.tree.walk(&SessionPath::parse(path.as_bytes()).unwrap())
    }
}

#[test]
fn a_directory_rename_is_one_entry_and_keeps_inodes() {
    let mut t = t();
    let (dir, a) = (t.at("/dir").unwrap(), t.at("/dir/a").unwrap());
    t.mv((ROOT_INO, "dir"), (ROOT_INO, "moved"), RenameMode::Replace).unwrap();
    assert_eq!((t.at("/moved"), t.at("/moved/a"), t.at("/dir")), (Some(dir), Some(a), None));
    assert_eq!(t.tree.dentries().len(), 2);
    assert_eq!(t.tree.path_of(a).unwrap().to_text(), "/moved/a");
    t.mv((ROOT_INO, "moved"), (ROOT_INO, "dir"), RenameMode::Replace).unwrap();
    assert_eq!(t.tree.dentries().len(), 0, "there and back leaves no trace");
}

#[test]
fn errors_are_those_of_linux() {
    let mut t = t();
    let (dir, top) = (t.at("/dir").unwrap(), t.at("/top").unwrap());
    let reason = |r: Result<()>| r.unwrap_err().reason;
    assert_eq!(t.make(ROOT_INO, "dir", S_IFREG).unwrap_err().reason, Reason::AlreadyExists);
    assert_eq!(t.make(top, "x", S_IFREG).unwrap_err().reason, Reason::NotADirectory);
    assert_eq!(reason(t.rm(ROOT_INO, "dir")), Reason::IsADirectory);
    assert_eq!(reason(t.rmdir(ROOT_INO, "top")), Reason::NotADirectory);
    assert_eq!(reason(t.rmdir(ROOT_INO, "dir")), Reason::NotEmpty);
    assert_eq!(reason(t.rm(ROOT_INO, "none")), Reason::NotFound);
    let sub = t.make(dir, "sub", S_IFDIR | 0o755).unwrap();
    assert_eq!(reason(t.mv((ROOT_INO, "dir"), (sub, "x"), RenameMode::Replace)), Reason::MoveIntoSelf);
    assert_eq!(reason(t.mv((dir, "sub"), (ROOT_INO, "dir"), RenameMode::Replace)), Reason::NotEmpty);
    assert_eq!(reason(t.mv((ROOT_INO, "top"), (dir, "a"), RenameMode::NoReplace)), Reason::AlreadyExists);
    assert_eq!(reason(t.mv((ROOT_INO, "top"), (dir, "sub"), RenameMode::Replace)), Reason::IsADirectory);
    assert_eq!(reason(t.mv((dir, "sub"), (ROOT_INO, "top"), RenameMode::Replace)), Reason::NotADirectory);
    assert_eq!(reason(t.mv((ROOT_INO, "top"), (dir, "zz"), RenameMode::Exchange)), Reason::NotFound);
    assert_eq!(t.tree.plan_link(dir, ROOT_INO, n("l"), 1).unwrap_err().reason, Reason::NotPermitted);
}

#[test]
fn link_counts_follow_names_and_subdirectories() {
    let mut t = t();
    let (dir, top) = (t.at("/dir").unwrap(), t.at("/top").unwrap());
    let nlink = |t: &T, ino| t.tree.attr(ino).map(|a| a.nlink);
    assert_eq!((nlink(&t, ROOT_INO), nlink(&t, dir)), (Some(3), Some(2)));
    let sub = t.make(dir, "sub", S_IFDIR | 0o755).unwrap();
    assert_eq!((nlink(&t, dir), nlink(&t, sub)), (Some(3), Some(2)));
    t.mv((dir, "sub"), (ROOT_INO, "sub"), RenameMode::Replace).unwrap();
    assert_eq!((nlink(&t, ROOT_INO), nlink(&t, dir)), (Some(4), Some(2)));
    t.mv((ROOT_INO, "sub"), (dir, "a"), RenameMode::Exchange).unwrap();
    assert_eq!((nlink(&t, ROOT_INO), nlink(&t, dir)), (Some(3), Some(3)));
    let op = t.tree.plan_link(top, dir, n("hard"), 20).unwrap();
    t.run(op);
    assert_eq!(nlink(&t, top), Some(2));
    t.rm(ROOT_INO, "top").unwrap();
    assert_eq!((nlink(&t, top), t.at("/dir/hard")), (Some(1), Some(top)));
    t.rm(dir, "hard").unwrap();
    assert_eq!(nlink(&t, top), None, "a dead base inode does not show again");
    t.rmdir(dir, "a").unwrap();
    t.rm(dir, "b").unwrap();
    t.rmdir(ROOT_INO, "dir").unwrap();
    assert_eq!((nlink(&t, ROOT_INO), nlink(&t, dir)), (Some(2), None));
}

#[test]
fn inodes_without_a_name_are_known_however_a_tree_came_about() {
    let mut t = t();
    let (before, top) = (t.tree.clone(), t.at("/top").unwrap());
    let made = t.make(ROOT_INO, "made", S_IFREG | 0o644).unwrap();
    let gone = t.make(ROOT_INO, "gone", S_IFREG | 0o644).unwrap();
    t.rm(ROOT_INO, "gone").unwrap();
    for name in ["top", "made"] {
        let op = t.tree.plan_unlink(ROOT_INO, n(name), |_| true, 12).unwrap();
        t.run(op);
    }
    let unnamed = |tree: &Tree| tree.unnamed().collect::<Vec<_>>();
    assert_eq!(unnamed(&t.tree), [top, made], "not {gone}, which was not open");
    let with_both = t.tree.clone();
    let mut loaded = before.clone();
    Delta::decode(&Delta::between(&before, &with_both).encode()).unwrap().apply(&mut loaded);
    assert_eq!(unnamed(&loaded), [top, made]);
    t.run(Op::Reap { ino: top });
    assert_eq!((unnamed(&t.tree), unnamed(&with_both)), (vec![made], vec![top, made]));
    t.run(Op::Reap { ino: made });
    assert!(unnamed(&t.tree).is_empty());
    Delta::between(&with_both, &t.tree).apply(&mut loaded);
    assert!(unnamed(&loaded).is_empty());
    assert!(loaded.attr(top).is_none() && loaded.attr(made).is_none());
}

#[test]
fn a_listing_survives_changes_under_it() {
    let mut t = t();
    let dir = t.at("/dir").unwrap();
    for i in 0..200 {
        t.make(dir, &format!("new{i}"), S_IFREG).unwrap();
    }
    t.rm(dir, "a").unwrap();
    t.make(dir, "a", S_IFREG).unwrap();
    let (mut cookie, mut seen) = (FIRST_COOKIE, Vec::new());
    loop {
        let mut got = 0;
        t.tree.readdir(dir, cookie, &mut |i| {
            seen.push(String::from_utf8_lossy(i.name).into_owned());
            cookie = i.next_cookie;
            got += 1;
            got < 7
        });
        if got == 0 {
            break;
        }
        let doomed = seen.last().unwrap().clone();
        t.rm(dir, &doomed).unwrap();
    }
    seen.sort();
    let before = seen.len();
    seen.dedup();
    assert_eq!((before, seen.len()), (202, 202));
}

#[test]
fn deltas_rebuild_and_diffs_explain() {
    let mut t = t();
    let (base, dir) = (t.tree.clone(), t.at("/dir").unwrap());
    t.make(dir, "new", S_IFREG | 0o644).unwrap();
    t.mv((dir, "a"), (ROOT_INO, "a2"), RenameMode::Replace).unwrap();
    let middle = t.tree.clone();
    t.rm(dir, "b").unwrap();
    t.rm(dir, "new").unwrap();
    t.rmdir(ROOT_INO, "dir").unwrap();
    let top = t.at("/top").unwrap();
    let op = t.tree.plan_replace(top, 3, Content::Blob(afs_types::BlobId([1; 32]), 3), 30).unwrap();
    t.run(op);

    let one = Delta::decode(&Delta::between(&base, &middle).encode()).unwrap();
    let two = Delta::decode(&Delta::between(&middle, &t.tree).encode()).unwrap();
    let mut rebuilt = base.clone();
    one.then(two).apply(&mut rebuilt);
    assert!(diff(&rebuilt, &t.tree).is_empty());

    let show = |a: &Tree, b: &Tree| -> Vec<String> {
        let line = |c: crate::diff::PathChange| match c.kind {
            ChangeKind::Renamed { from, .. } => format!("R {from} {}", c.path),
            kind => format!("{} {}", &format!("{kind:?}")[..1], c.path),
        };
        diff(a, b).into_iter().map(line).collect()
    };
    assert_eq!(show(&base, &t.tree), ["R /dir/a /a2", "D /dir", "D /dir/b", "M /top"]);
    assert_eq!(show(&t.tree, &base), ["A /dir", "R /a2 /dir/a", "A /dir/b", "M /top"]);
    assert_eq!(show(&base, &middle), ["R /dir/a /a2", "A /dir/new"]);
}

#[test]
fn damage_in_a_delta_is_found() {
    let mut t = t();
    let base = t.tree.clone();
    t.make(ROOT_INO, "x", S_IFREG).unwrap();
    let good = Delta::between(&base, &t.tree).encode();
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1;
        assert_eq!(Delta::decode(&bad).unwrap_err().reason, Reason::Corrupt);
    }
}

/// Entries that lie in one node of the map with one that changed are not written again.
#[test]
fn a_delta_holds_what_changed_and_no_neighbours() {
    let mut t = t();
    let made: Vec<Ino> =
        (0..12).map(|i| t.make(ROOT_INO, &format!("file-{i}"), S_IFREG | 0o644).unwrap()).collect();
    let before = t.tree.clone();
    let set = crate::op::AttrSet { mode: Some(0o600), ..Default::default() };
    let op = t.tree.plan_setattr(made[5], set, 30).unwrap();
    t.run(op);
    assert_eq!(Delta::between(&before, &t.tree).len(), 1);
    assert!(Delta::between(&t.tree, &t.tree.clone()).is_empty());
}

/// What the limit of a session's overlay is held against.
#[test]
fn the_bytes_of_an_overlay_follow_every_change() {
    let mut t = t();
    let empty = t.tree.overlay_bytes();
    let long = "x".repeat(200);
    let a = t.make(ROOT_INO, &long, S_IFREG | 0o644).unwrap();
    let with_file = t.tree.overlay_bytes();
    assert!(with_file >= empty + 80 + 64 + 200, "a record, a dentry and a long name");
    let value = vec![1; 10_000];
    let op = t.tree.plan_xattr(a, b"user.big", Some(&value), 20).unwrap();
    t.run(op);
    assert!(t.tree.overlay_bytes() >= with_file + 10_000);
    let op = t.tree.plan_xattr(a, b"user.big", None, 20).unwrap();
    t.run(op);
    assert_eq!(t.tree.overlay_bytes(), with_file);
    let op = t.tree.plan_unlink(ROOT_INO, n(&long), |_| false, 30).unwrap();
    t.run(op);
    // The root's own record stays: its times changed.
    assert_eq!(t.tree.overlay_bytes(), empty + 80);
    let mut loaded = Tree::new(t.tree.base().clone());
    Delta::between(&Tree::new(t.tree.base().clone()), &t.tree).apply(&mut loaded);
    assert_eq!(loaded.overlay_bytes(), t.tree.overlay_bytes());
}
