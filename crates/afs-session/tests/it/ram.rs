//! RAM for what all sessions together changed is bounded, and comes back.

use crate::rig::{ALL_OVERLAYS_BYTES, FILE, Rig, put, text};
use afs_session::Session;
use afs_types::{Error, ROOT_INO, Reason};
use std::sync::Arc;

/// About 240 KB of RAM.
fn grow(session: &Session, name: &str) -> Result<(), Error> {
    let (attr, _) = session.create(ROOT_INO, name.as_bytes(), FILE, 0, 0)?;
    for n in 0..4 {
        session.setxattr(attr.ino, format!("user.{n}").as_bytes(), &[1; 60_000], None, 0, 0)?;
    }
    Ok(())
}

/// Who was used before is idle now.
fn wait_a_minute(rig: &Rig) {
    rig.clock.stop_at(rig.clock.stopped() + 60_000_000_000);
}

fn filled(rig: &Rig, id: &str, files: usize) -> Arc<Session> {
    let session = rig.empty(id);
    (0..files).for_each(|n| grow(&session, &format!("f{n}")).unwrap());
    session
}

#[test]
fn idle_sessions_make_room_and_come_back_as_they_were() {
    let rig = Rig::new();
    let most = ALL_OVERLAYS_BYTES;
    for n in 0..20 {
        let session = filled(&rig, &format!("sess_{n}"), 15);
        put(&session, "who", &n.to_string());
        drop(session);
        wait_a_minute(&rig);
        rig.engine.make_room().unwrap();
        assert_eq!(rig.engine.overlay_bytes().1, most);
        assert!(rig.engine.overlay_bytes().0 < most, "after session {n}");
    }
    assert!(rig.engine.resident_count() < 20, "20 times 3.6 MB are more than 40");
    for n in 0..20 {
        let session = rig.get(&format!("sess_{n}"));
        assert_eq!(text(&session, "who").unwrap(), n.to_string());
        let ino = session.lookup(ROOT_INO, b"f14").unwrap().ino;
        assert_eq!(session.getxattr(ino, b"user.3").unwrap().len(), 60_000);
        drop(session);
        wait_a_minute(&rig);
        rig.engine.make_room().unwrap();
        assert!(rig.engine.overlay_bytes().0 < most);
    }
}

#[test]
fn when_nobody_can_leave_growth_is_refused_and_room_is_not() {
    let rig = Rig::new();
    filled(&rig, "sess_away", 2);
    assert!(rig.engine.evict(&Rig::id("sess_away")).unwrap());
    let mut held = Vec::new();
    let refused = loop {
        let id = format!("sess_{}", held.len());
        let session = rig.empty(&id);
        let grown = (0..30).try_for_each(|n| grow(&session, &format!("f{n}")));
        held.push(session);
        match grown {
            Ok(()) => assert!(held.len() < 9, "nine times 7 MB are more than 40"),
            Err(error) => break error,
        }
        // All are held by this test, so none leaves.
        rig.engine.make_room().unwrap();
    };
    assert_eq!(refused.reason, Reason::QuotaExceeded);
    assert!(refused.message().contains(&ALL_OVERLAYS_BYTES.to_string()), "{refused}");
    assert!(refused.next_step().contains("all_overlays_bytes"), "{refused:?}");
    // Nobody else can come in either, and no RAM is taken to find that out.
    let away = rig.engine.session(&Rig::id("sess_away")).map(drop).unwrap_err();
    assert_eq!(away.reason, Reason::QuotaExceeded);
    // What makes room goes on, in whichever session.
    let first = &held[0];
    first.mkdir(ROOT_INO, b"d", FILE, 0, 0).unwrap_err();
    first.unlink(ROOT_INO, b"f0", 0, 0).unwrap();
    first.unlink(ROOT_INO, b"f1", 0, 0).unwrap();
    first.mkdir(ROOT_INO, b"d", FILE, 0, 0).unwrap();
    // And with whoever lets go, all is well.
    held.truncate(1);
    wait_a_minute(&rig);
    // A layer that is being folded has its tree until it is.
    rig.engine.settle();
    rig.engine.make_room().unwrap();
    let left = rig.engine.overlay_bytes().0;
    assert!(left < ALL_OVERLAYS_BYTES / 2 + (8 << 20), "{left} bytes stayed");
    assert!(rig.get("sess_away").lookup(ROOT_INO, b"f1").is_ok());
}

#[test]
fn a_thousand_forks_are_counted_once_and_in_the_end_nothing_is() {
    let rig = Rig::new();
    let parent = filled(&rig, "sess_p", 10);
    let whole = rig.engine.overlay_bytes().0;
    let want = afs_session::Fork { count: 1_000, ..afs_session::Fork::of(Rig::id("sess_p")) };
    let forks = rig.engine.fork(&want).unwrap();
    assert_eq!(rig.engine.overlay_bytes().0, whole);
    let changed = rig.engine.session(&forks[7].id).unwrap();
    put(&changed, "more", "of one");
    let checkpoint = rig.engine.checkpoint(&Rig::id("sess_p"), "kept", "", None).unwrap();
    put(&parent, "later", "than the checkpoint");
    rig.engine.restore(&Rig::id("sess_p"), &checkpoint.id, None, None).unwrap();
    assert!(rig.engine.overlay_bytes().0 < whole + (64 << 10), "one overlay and a few small changes");
    drop((parent, changed));
    for fork in &forks {
        rig.engine.delete_session(&fork.id, false, None).unwrap();
    }
    rig.engine.delete_session(&Rig::id("sess_p"), false, None).unwrap();
    rig.engine.settle();
    rig.engine.forget_instants();
    assert_eq!(rig.engine.overlay_bytes().0, 0);
}

#[test]
fn sealing_counts_nothing_twice() {
    let rig = Rig::new();
    let parent = filled(&rig, "sess_p", 10);
    let forks: Vec<_> = (0..50)
        .map(|n| {
            let fork = rig.fork("sess_p", &format!("sess_{n}"));
            put(&fork, "more", &n.to_string());
            fork
        })
        .collect();
    let whole = rig.engine.overlay_bytes().0;
    for fork in &forks {
        rig.engine.seal(fork).unwrap();
    }
    rig.engine.seal(&parent).unwrap();
    rig.engine.settle();
    let sealed = rig.engine.overlay_bytes().0;
    assert!(sealed < whole + 50 * (16 << 10), "{whole} before, {sealed} afterwards");
    for fork in &forks {
        put(fork, "again", "x");
    }
    assert!(rig.engine.overlay_bytes().0 < whole + 50 * (32 << 10));
}

/// The state at the start of the layer that a session is writing to is in RAM until the layer is closed.
#[test]
fn what_a_session_has_deleted_counts_as_long_as_it_is_kept() {
    let rig = Rig::new();
    let session = filled(&rig, "sess_a", 10);
    let whole = rig.engine.overlay_bytes().0;
    rig.engine.checkpoint(&Rig::id("sess_a"), "", "", None).unwrap();
    for n in 0..10 {
        session.unlink(ROOT_INO, format!("f{n}").as_bytes(), 0, 0).unwrap();
    }
    rig.engine.settle();
    rig.engine.forget_instants();
    put(&session, "g", "x");
    assert!(rig.engine.overlay_bytes().0 >= whole);
    rig.engine.checkpoint(&Rig::id("sess_a"), "", "", None).unwrap();
    rig.engine.settle();
    rig.engine.forget_instants();
    put(&session, "g", "y");
    assert!(rig.engine.overlay_bytes().0 < whole / 10, "{}", rig.engine.overlay_bytes().0);
}
