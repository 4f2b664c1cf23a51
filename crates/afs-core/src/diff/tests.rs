//! Differences of trees with hard links: every name of a changed file is told, and finding them is one walk, however many they are.

use super::*;
use crate::base::{BaseBuilder, BaseTable, NewEntry, NodeKind};
use crate::op::{AttrSet, Op};
use crate::tree::plan::RenameMode;
use afs_types::NameRef;
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    /// Walks of a whole tree that this thread has made.
    pub(super) static WALKS: Cell<usize> = const { Cell::new(0) };
}

fn walks(work: impl FnOnce()) -> usize {
    let before = WALKS.get();
    work();
    WALKS.get() - before
}

/// `count` files in `d`, and an empty `links`.
struct Bed {
    tree: Tree,
    seq: u64,
}

impl Bed {
    fn new(count: usize) -> Self {
        let mut b = BaseBuilder::new(7);
        let dir = |b: &mut BaseBuilder, name: &[u8]| {
            b.add(BaseBuilder::ROOT, name, NewEntry::new(NodeKind::Dir, 0o755)).unwrap()
        };
        let d = dir(&mut b, b"d");
        dir(&mut b, b"links");
        for n in 0..count {
            b.add(d, format!("{n:04}").as_bytes(), NewEntry::new(NodeKind::File, 0o644)).unwrap();
        }
        let table = BaseTable::open(b.finish().into()).unwrap();
        Self { tree: Tree::new(Arc::new(table)), seq: 0 }
    }
    fn at(&self, path: &str) -> Ino {
        self.tree.walk(&SessionPath::parse_text(path).unwrap()).unwrap()
    }
    fn run(&mut self, op: Op) {
        self.seq += 1;
        self.tree.apply(&op, self.seq);
    }
    fn link(&mut self, file: &str, name: &str) {
        let op = self.tree.plan_link(self.at(file), self.at("/links"), of(name), 20).unwrap();
        self.run(op);
    }
    fn chmod(&mut self, path: &str, mode: u32) {
        let set = AttrSet { mode: Some(mode), ..AttrSet::default() };
        let op = self.tree.plan_setattr(self.at(path), set, 30).unwrap();
        self.run(op);
    }
    fn since(&self, old: &Tree) -> Vec<String> {
        diff(old, &self.tree).iter().map(|c| format!("{} {:?}", c.path.to_text(), c.kind)).collect()
    }
}

fn of(name: &str) -> NameRef<'_> {
    NameRef::new(name.as_bytes()).unwrap()
}

#[test]
fn many_changed_files_with_several_names_are_one_walk() {
    let mut bed = Bed::new(300);
    for n in 0..300 {
        bed.link(&format!("/d/{n:04}"), &format!("l{n:04}"));
    }
    let linked = bed.tree.clone();
    for n in 0..300 {
        bed.chmod(&format!("/links/l{n:04}"), 0o600);
    }
    let mut changes = Vec::new();
    assert_eq!(walks(|| changes = bed.since(&linked)), 1, "the walks do not grow with the files");
    let want: Vec<String> = (0..300)
        .map(|n| format!("/d/{n:04} Mode"))
        .chain((0..300).map(|n| format!("/links/l{n:04} Mode")))
        .collect();
    assert_eq!(changes, want);
    let touched = walks(|| assert_eq!(crate::touched::touched(&linked, &bed.tree, 1000).unwrap().len(), 600));
    assert_eq!(touched, 1);
}

#[test]
fn files_with_one_name_need_no_walk() {
    let mut bed = Bed::new(20);
    let base = bed.tree.clone();
    (0..20).for_each(|n| bed.chmod(&format!("/d/{n:04}"), 0o600));
    assert_eq!(walks(|| assert_eq!(bed.since(&base).len(), 20)), 0);
}

/// The inode remembers the directory of the name that it got last, and that name is gone.
#[test]
fn a_file_whose_newest_name_went_is_still_found_by_the_other() {
    let mut bed = Bed::new(3);
    for n in 0..3 {
        bed.link(&format!("/d/{n:04}"), &format!("l{n}"));
    }
    for n in 0..3 {
        let op = bed.tree.plan_unlink(bed.at("/links"), of(&format!("l{n}")), |_| false, 25).unwrap();
        bed.run(op);
    }
    let one_name = bed.tree.clone();
    (0..3).for_each(|n| bed.chmod(&format!("/d/{n:04}"), 0o600));
    let want = ["/d/0000 Mode", "/d/0001 Mode", "/d/0002 Mode"];
    let mut changes = Vec::new();
    assert_eq!(walks(|| changes = bed.since(&one_name)), 1);
    assert_eq!(changes, want);
    let touched = crate::touched::touched(&one_name, &bed.tree, 10).unwrap();
    assert_eq!(
        touched.iter().map(SessionPath::to_text).collect::<Vec<_>>(),
        ["/d/0000", "/d/0001", "/d/0002"]
    );
}

/// What a move replaced is not what the moved file was before.
#[test]
fn a_file_moved_over_another_is_told_with_its_own_attributes() {
    let mut bed = Bed::new(2);
    bed.chmod("/d/0001", 0o755);
    let before = bed.tree.clone();
    let (moved, d) = (bed.at("/d/0001"), bed.at("/d"));
    let op = bed.tree.plan_rename(d, of("0001"), d, of("0000"), RenameMode::Replace, |_| false, 40).unwrap();
    bed.run(op.unwrap());
    let changes = diff(&before, &bed.tree);
    let [change] = &changes[..] else { panic!("{changes:?}") };
    assert!(
        matches!(&change.kind, ChangeKind::Renamed { from, .. } if from.to_text() == "/d/0001"),
        "{change:?}"
    );
    assert_eq!(change.old.map(|a| (a.ino, a.mode & 0o777)), Some((moved, 0o755)));
    assert_eq!(change.new.map(|a| a.ino), Some(moved));
}

/// Forks number on from the revision that they share: the same number says nothing about whose change it was.
#[test]
fn changes_of_two_forks_with_the_same_number_are_told_apart() {
    use crate::extent::{Content, LogRef, Source};
    let bed = Bed::new(2);
    let ino = bed.at("/d/0000");
    let fork = |offset: u64, time_ns: i64| {
        let (mut tree, source) = (bed.tree.clone(), Source::Log(LogRef { segment: 1, offset }));
        let op = tree.plan_write(ino, 0, 5, source, time_ns).unwrap();
        tree.apply(&op, 9);
        tree
    };
    let told = |a: &Tree, b: &Tree| diff(a, b).iter().map(|c| c.kind.clone()).collect::<Vec<_>>();
    // Even within one tick of the clock, and whoever looks from which side.
    for time_ns in [40, 41] {
        let (a, b) = (fork(0, 40), fork(100, time_ns));
        assert_eq!(told(&a, &b), [ChangeKind::Modified]);
        assert_eq!(told(&b, &a), [ChangeKind::Modified]);
    }
    // The same change, sealed on one side: the same bytes.
    let a = fork(0, 40);
    let mut sealed = a.clone();
    let content = Content::Blob(afs_types::BlobId([1; 32]), 5);
    sealed.apply(&Op::Seal { ino, version: 9, content }, 0);
    assert_eq!(told(&a, &sealed), []);
    assert_eq!(told(&sealed, &a), []);
    // Sealed on one side, and another change: the time tells.
    assert_eq!(told(&fork(100, 41), &sealed), [ChangeKind::Modified]);
    // The same with a time that a user set back: the kernel's own tells.
    let mut set_back = fork(100, 41);
    let set = AttrSet { mtime_ns: Some(40), ..AttrSet::default() };
    let op = set_back.plan_setattr(ino, set, 41).unwrap();
    set_back.apply(&op, 10);
    assert_eq!((set_back.attr(ino).unwrap().version, set_back.attr(ino).unwrap().mtime_ns), (9, 40));
    assert_eq!(told(&set_back, &sealed), [ChangeKind::Modified]);
}
