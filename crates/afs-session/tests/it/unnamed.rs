//! Files that lost their last name while they were open, when the release that would reap them can never come.

use crate::rig::{FILE, Rig, put};
use afs_session::Session;
use afs_session::paths::By;
use afs_store::Space;
use afs_types::{Ino, ROOT_INO, Reason, SessionId, SessionPath, limits};

/// A file with bytes that is open, and has no name any more.
fn open_without_a_name(s: &Session, name: &str) -> Ino {
    let ino = s.create(ROOT_INO, name.as_bytes(), FILE, 0, 0).unwrap().0.ino;
    s.write(ino, 0, name.as_bytes(), 0, 0).unwrap();
    s.open(ino).unwrap();
    s.unlink(ROOT_INO, name.as_bytes(), 0, 0).unwrap();
    assert_eq!(s.getattr(ino).unwrap().nlink, 0);
    ino
}

#[track_caller]
fn assert_gone(s: &Session, ino: Ino) {
    assert_eq!(s.getattr(ino).map_err(|e| e.reason), Err(Reason::Stale));
    assert!(s.tree().unnamed().next().is_none());
}

#[test]
fn a_fork_reaps_what_only_its_parent_had_open() {
    let mut rig = Rig::new();
    let a = rig.empty("sess_a");
    let ino = open_without_a_name(&a, "f");
    let (b, c) = (rig.fork("sess_a", "sess_b"), rig.fork("sess_a", "sess_c"));
    assert_eq!(b.getattr(ino).unwrap().nlink, 0, "as of the instant of the fork");
    let stamp = b.create(ROOT_INO, b"new", FILE, 0, 0).unwrap().1;
    assert_gone(&b, ino);
    assert_eq!(b.stamp(), stamp, "it is part of that change");
    let dir = SessionPath::parse(b"/dir").unwrap();
    let done = rig.engine.files_of(c.clone()).mkdir(&dir, None, false, &By::default()).unwrap();
    assert_gone(&c, ino);
    assert_eq!(c.stamp().seq, done.revision);
    assert_eq!(&a.read(ino, 0, 10).unwrap()[..], b"f", "the parent has it still");

    drop((b, c));
    rig.engine.settle();
    for id in ["sess_b", "sess_c"] {
        assert!(rig.engine.evict(&SessionId::parse(id).unwrap()).unwrap());
        assert_gone(&rig.get(id), ino);
    }
    a.release(ino).unwrap();
    assert_gone(&a, ino);
    drop(a);
    rig = rig.restart();
    for id in ["sess_a", "sess_b", "sess_c"] {
        assert_gone(&rig.get(id), ino);
    }
}

#[test]
fn what_was_open_in_a_crash_is_reaped_unless_its_mount_comes_back() {
    let mut rig = Rig::new();
    let a = rig.empty("sess_a");
    let [back, left] = ["back", "left"].map(|name| open_without_a_name(&a, name));
    a.fsync().unwrap();
    drop(a);
    rig = rig.crash(1);
    let a = rig.get("sess_a");
    put(&a, "early", "a change by somebody else");
    assert_eq!(a.getattr(left).unwrap().nlink, 0, "its mount may still come back");
    a.open(back).unwrap();
    let lease_ns = limits::MOUNT_LEASE_MS as i64 * 1_000_000;
    rig.clock.stop_at(rig.clock.stopped() + lease_ns + 1_000_000);
    put(&a, "late", "another");
    assert_eq!(a.getattr(left).map_err(|e| e.reason), Err(Reason::Stale));
    assert_eq!(&a.read(back, 0, 10).unwrap()[..], b"back");
    a.release(back).unwrap();
    assert_gone(&a, back);
    drop(a);
    rig = rig.restart();
    let a = rig.get("sess_a");
    assert_gone(&a, back);
    assert_gone(&a, left);
}

#[test]
fn a_restored_file_without_a_name_goes_with_the_next_change() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let [held, left] = ["held", "left"].map(|name| open_without_a_name(&a, name));
    let checkpoint = rig.engine.checkpoint(a.id(), "both", "", None).unwrap();
    a.release(left).unwrap();
    put(&a, "since", "x");
    rig.engine.restore(a.id(), &checkpoint.id, None, None).unwrap();
    assert_eq!(a.getattr(left).unwrap().nlink, 0, "as it was");
    put(&a, "since", "y");
    assert_eq!(a.getattr(left).map_err(|e| e.reason), Err(Reason::Stale));
    assert_eq!(&a.read(held, 0, 10).unwrap()[..], b"held");
    a.release(held).unwrap();
    assert_gone(&a, held);
}

#[test]
fn a_last_release_that_fails_is_made_up_for() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let ino = open_without_a_name(&a, "f");
    rig.hooks.refuse(Space::Record);
    assert_eq!(a.release(ino).unwrap_err().reason, Reason::NoSpace);
    assert_eq!(a.getattr(ino).unwrap().nlink, 0);
    put(&a, "other", "when there is room again");
    assert_gone(&a, ino);
}
