//! What forks share is counted once, and nothing stays counted.

use super::*;
use afs_core::base::{BaseBuilder, BaseTable, NewEntry, NodeKind};
use afs_core::op::Op;
use afs_types::{Ino, ROOT_INO};

/// A session as far as it is counted.
struct Counted {
    tree: Tree,
    own: Own,
    next: Ino,
    all: Arc<Overlays>,
}

impl Counted {
    fn new(all: &Arc<Overlays>) -> Self {
        let mut builder = BaseBuilder::new(7);
        builder.root(NewEntry::new(NodeKind::Dir, 0o755));
        let tree = Tree::new(Arc::new(BaseTable::open(builder.finish().into()).unwrap()));
        Self { tree, own: Own::default(), next: 100, all: all.clone() }
    }
    fn make(&mut self, files: u64) {
        for _ in 0..files {
            let name = format!("file-{}", self.next).into_bytes().into();
            let (mode, target) = (0o100_644, None);
            let (uid, gid, rdev, time_ns) = (0, 0, 0, 0);
            let op =
                Op::Create { parent: ROOT_INO, name, ino: self.next, mode, uid, gid, rdev, target, time_ns };
            self.tree.apply(&op, 1);
            self.next += 1;
            self.own.changed(&self.tree, 1, &self.all);
        }
    }
    fn touch(&mut self, times: u64) {
        for n in 0..times {
            let op = Op::SetAttr { ino: 100 + n % (self.next - 100), set: Default::default(), time_ns: 1 };
            self.tree.apply(&op, 1);
            self.own.changed(&self.tree, 1, &self.all);
        }
    }
    fn fork(&mut self) -> Self {
        self.own.share(&self.tree, &self.all);
        let own = Own::on(self.own.shared().cloned(), &self.tree);
        Self { tree: self.tree.clone(), own, next: self.next, all: self.all.clone() }
    }
    fn bytes(&self) -> u64 {
        self.tree.overlay_bytes()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.own.end(&self.all);
    }
}

#[test]
fn forks_cost_what_they_change() {
    let all = Overlays::new(1 << 30);
    let mut parent = Counted::new(&all);
    parent.make(10_000);
    let whole = parent.bytes();
    assert_eq!(all.used(), whole);
    let mut forks: Vec<Counted> = (0..1_000).map(|_| parent.fork()).collect();
    assert_eq!(all.used(), whole, "a fork that changed nothing is free");
    forks[0].make(10);
    let grown = all.used() - whole;
    assert!(grown >= forks[0].bytes() - whole && grown < 100 * COPIED_BYTES, "{grown}");
    // The parent goes: what the forks have of it stays.
    drop(parent);
    assert_eq!(all.used(), whole + grown);
    let last = forks.pop();
    drop(forks);
    assert_eq!(all.used(), whole);
    drop(last);
    assert_eq!(all.used(), 0);
}

#[test]
fn who_writes_over_all_that_it_shares_pays_for_all_of_it_and_no_more() {
    let all = Overlays::new(1 << 30);
    let mut parent = Counted::new(&all);
    parent.make(1_000);
    let whole = parent.bytes();
    let mut fork = parent.fork();
    fork.touch(5_000);
    assert_eq!(all.used(), 2 * whole);
    drop(parent);
    // Nobody shares anything with it any more.
    fork.touch(1);
    assert_eq!(all.used(), whole);
}

#[test]
fn a_long_line_of_shares_ends_without_a_deep_stack() {
    let all = Overlays::new(1 << 30);
    let mut line = Counted::new(&all);
    let mut forks = Vec::new();
    for _ in 0..2_000 {
        line.make(30);
        forks.push(line.fork());
    }
    // All but what is too little to be shared, once.
    assert!(all.used() >= line.bytes() - GRAIN, "{} of {}", all.used(), line.bytes());
    let mut depth = 0;
    let mut at = line.own.shared();
    while let Some(share) = at {
        (depth, at) = (depth + 1, share.below.as_ref());
    }
    assert!(depth > 1_000, "{depth}");
    let small = std::thread::Builder::new().stack_size(64 << 10);
    small.spawn(move || drop((line, forks))).unwrap().join().unwrap();
    assert_eq!(all.used(), 0);
}

#[test]
fn a_session_that_goes_elsewhere_pays_for_nothing_of_where_it_was() {
    let all = Overlays::new(1 << 30);
    let mut session = Counted::new(&all);
    session.make(100);
    session.own.share(&session.tree, &all);
    let kept = (session.tree.clone(), session.own.shared().cloned());
    let there = all.used();
    session.make(100);
    session.tree = kept.0.clone();
    session.own.moved(kept.1.clone(), &session.tree, &all);
    assert_eq!(all.used(), there);
    session.make(1);
    drop(kept);
    drop(session);
    assert_eq!(all.used(), 0);
}

#[test]
fn the_marks() {
    let all = Overlays::new(100);
    for (used, tight, room, full) in [
        (0, false, true, false),
        (50, false, false, false),
        (75, true, false, false),
        (100, true, false, true),
    ] {
        all.set(0, used);
        assert_eq!((all.is_tight(), all.has_room(), all.is_full()), (tight, room, full), "{used}");
        all.set(used, 0);
    }
}
