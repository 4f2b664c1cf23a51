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
