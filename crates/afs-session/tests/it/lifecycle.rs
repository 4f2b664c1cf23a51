//! Forks, checkpoints, restores, eviction, restarts and crashes.

use crate::rig::{FILE, OVERLAY_BYTES, Rig, names, put, text};
use afs_session::{CreateSession, CreateSource, Fork, ImportSpec, ListSessions, UpdateSession};
use afs_types::{CheckpointId, ROOT_INO, Reason, RequestId, SessionId};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn a_fork_is_of_one_instant_and_independent() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    put(&a, "f", "one");
    let b = rig.fork("sess_a", "sess_b");
    put(&a, "f", "two");
    put(&b, "g", "three");
    assert_eq!((text(&a, "f"), text(&b, "f")), (Some("two".into()), Some("one".into())));
    assert_eq!((names(&a), names(&b)), (vec!["f".to_string()], vec!["f".into(), "g".into()]));
    let ino = |s: &afs_session::Session, n: &str| s.lookup(ROOT_INO, n.as_bytes()).unwrap().ino;
    assert_eq!(ino(&a, "f"), ino(&b, "f"), "a fork keeps inode numbers");
    put(&a, "h", "");
    assert_ne!(ino(&a, "h"), ino(&b, "g"), "siblings never get the same new number");
}

#[test]
fn everything_comes_back_after_eviction_restart_and_crash() {
    let mut rig = Rig::new();
    let a = rig.empty("sess_a");
    for i in 0..40 {
        put(&a, &format!("f{i}"), &format!("text {i}"));
    }
    let b = rig.fork("sess_a", "sess_b");
    put(&b, "f0", "changed");
    b.unlink(ROOT_INO, b"f1", 0, 0).unwrap();
    let check = |rig: &Rig| {
        let (a, b) = (rig.get("sess_a"), rig.get("sess_b"));
        assert_eq!(names(&a).len(), 40);
        assert_eq!(names(&b).len(), 39);
        assert_eq!(text(&a, "f0").unwrap(), "text 0");
        assert_eq!(text(&b, "f0").unwrap(), "changed");
        assert_eq!(text(&b, "f39").unwrap(), "text 39");
    };
    drop((a, b));
    // The background thread holds a session for a moment when it has sealed something.
    rig.engine.settle();
    for id in ["sess_a", "sess_b"] {
        assert!(rig.engine.evict(&SessionId::parse(id).unwrap()).unwrap());
    }
    assert_eq!(rig.engine.resident_count(), 0);
    check(&rig);
    rig = rig.restart();
    check(&rig);
    rig.engine.sync().unwrap();
    rig = rig.crash(3);
    check(&rig);
    put(&rig.get("sess_b"), "after", "crash");
    rig.get("sess_b").fsync().unwrap();
    rig = rig.crash(4);
    assert_eq!(text(&rig.get("sess_b"), "after").unwrap(), "crash");
    check_after(&rig);
}

fn check_after(rig: &Rig) {
    // New inodes after a crash never reuse numbers from before it.
    let (a, b) = (rig.get("sess_a"), rig.get("sess_b"));
    let new = a.create(ROOT_INO, b"new", FILE, 0, 0).unwrap().0.ino;
    assert!(b.getattr(new).is_err());
}

#[test]
fn what_was_waited_for_survives_and_the_rest_is_a_prefix() {
    for seed in 0..40 {
        let rig = Rig::new();
        let a = rig.empty("sess_a");
        let mut durable = 0;
        for i in 0..30u64 {
            put(&a, "n", &i.to_string());
            a.create(ROOT_INO, format!("f{i:02}").as_bytes(), FILE, 0, 0).unwrap();
            if (i + seed) % 11 == 0 {
                a.fsync().unwrap();
                durable = i;
            }
        }
        drop(a);
        let rig = rig.crash(seed);
        let a = rig.get("sess_a");
        let files = names(&a).into_iter().filter(|n| n.starts_with('f')).collect::<Vec<_>>();
        let prefix: Vec<String> = (0..files.len()).map(|i| format!("f{i:02}")).collect();
        assert_eq!(files, prefix, "seed {seed}: a hole in the history");
        assert!(files.len() as u64 > durable, "seed {seed}: an acknowledged file is gone");
    }
}

#[test]
fn checkpoints_restore_and_fork() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let id = a.id().clone();
    put(&a, "f", "one");
    let one = rig.engine.checkpoint(&id, "first", "", None).unwrap();
    put(&a, "f", "two");
    put(&a, "extra", "x");
    let before = a.stamp().seq;
    let done = rig.engine.restore(&id, &one.id, Some(before), None).unwrap();
    assert_eq!((text(&a, "f").unwrap().as_str(), names(&a).len(), done.files_changed), ("one", 1, 2));
    assert!(done.revision > before, "revisions never go back");
    put(&a, "f", "three");
    let rig = {
        drop(a);
        rig.restart()
    };
    let a = rig.get("sess_a");
    assert_eq!(text(&a, "f").unwrap(), "three");
    rig.engine.restore(&id, &done.safety_checkpoint, None, None).unwrap();
    assert_eq!((text(&a, "f").unwrap().as_str(), names(&a).len()), ("two", 2));
    let want = Fork { checkpoint: Some(one.id.clone()), ..Fork::of(id.clone()) };
    let fork = rig.engine.fork(&want).unwrap().remove(0);
    assert_eq!(text(&rig.engine.session(&fork.id).unwrap(), "f").unwrap(), "one");
    assert_eq!(rig.engine.list_checkpoints(&id, 0, None, false).unwrap().items.len(), 1);
    assert_eq!(rig.engine.list_checkpoints(&id, 0, None, true).unwrap().items.len(), 3);
    let stale = rig.engine.restore(&id, &one.id, Some(1), None).unwrap_err();
    assert_eq!(stale.reason, Reason::RevisionMismatch);
    let other = CheckpointId::parse("ckpt_none").unwrap();
    assert_eq!(rig.engine.restore(&id, &other, None, None).unwrap_err().reason, Reason::CheckpointNotFound);
}

#[test]
fn checkpoints_of_fresh_sessions_of_two_bases_show_each_its_own() {
    let rig = Rig::new();
    let session_of = |name: &str| {
        let dir = rig.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join(name), name).unwrap();
        let spec = ImportSpec::Local { path: dir };
        let want = CreateSource {
            source_id: None,
            display_name: String::new(),
            spec,
            labels: BTreeMap::new(),
            request_id: None,
        };
        let source = rig.engine.create_source(want).unwrap().id;
        rig.engine.wait_source(&source, Duration::from_secs(60)).unwrap();
        let want = CreateSession { source: Some(source), ..CreateSession::default() };
        rig.engine.create_session(want).unwrap().id
    };
    for name in ["one", "two"] {
        let session = session_of(name);
        let checkpoint = rig.engine.checkpoint(&session, "", "", None).unwrap().id;
        // Neither has a layer of its own yet.
        let (_, tree) = rig.engine.tree_named(&session, "base", checkpoint.as_str()).unwrap();
        assert!(tree.lookup(ROOT_INO, name.as_bytes()).is_some(), "{name} shows the other base");
        let fork = Fork { checkpoint: Some(checkpoint), ..Fork::of(session) };
        let fork = rig.engine.fork(&fork).unwrap().remove(0).id;
        assert!(rig.engine.session(&fork).unwrap().lookup(ROOT_INO, name.as_bytes()).is_ok());
    }
}

#[test]
fn what_a_crash_took_back_is_known_also_when_its_numbers_are_used_again() {
    // Some crashes keep what nobody waited for.
    assert!((0..8).any(loses_and_knows), "no crash has lost anything");
}

fn loses_and_knows(seed: u64) -> bool {
    let rig = Rig::new();
    let session = rig.empty("sess_a");
    put(&session, "kept", "1");
    session.fsync().unwrap();
    let (epoch, kept) = (rig.engine.epoch(), session.stamp().seq);
    put(&session, "lost", "2");
    let seen = session.stamp().seq;
    drop(session);
    let rig = rig.crash(seed);
    let session = rig.get("sess_a");
    if session.stamp().seq != kept {
        return false;
    }
    assert!(rig.engine.has_lost(&session, epoch, seen).unwrap());
    assert!(!rig.engine.has_lost(&session, epoch, kept).unwrap());
    // No number is given twice, so a revision or an etag from before never passes for another change.
    put(&session, "first", "3");
    assert!(session.stamp().seq > seen);
    assert!(rig.engine.has_lost(&session, 0, seen).unwrap(), "also while the journal does not have it yet");
    // Now others go beyond it, also over an eviction and a clean restart.
    (0..10).for_each(|n| put(&session, &format!("other-{n}"), "3"));
    assert!(session.stamp().seq > seen);
    session.fsync().unwrap();
    let (later, now) = (rig.engine.epoch(), session.stamp().seq);
    drop(session);
    assert!(rig.engine.evict(&SessionId::parse("sess_a").unwrap()).unwrap());
    put(&rig.get("sess_a"), "more", "4");
    rig.get("sess_a").fsync().unwrap();
    let rig = rig.restart();
    let session = rig.get("sess_a");
    let questions = [(epoch, seen, true), (epoch, kept, false), (later, now, false), (later, now + 1, false)];
    for (epoch, revision, is_lost) in questions {
        assert_eq!(rig.engine.has_lost(&session, epoch, revision).unwrap(), is_lost, "{epoch} {revision}");
    }
    true
}

#[test]
fn n_forks_are_one_batch_and_retries_have_one_effect() {
    let rig = Rig::new();
    put(&rig.empty("sess_a"), "f", "x");
    let want = Fork {
        count: 100,
        request_id: RequestId::parse("r1").unwrap(),
        labels: BTreeMap::from([("k".into(), "v".into())]),
        ..Fork::of(SessionId::parse("sess_a").unwrap())
    };
    let first: Vec<_> = rig.engine.fork(&want).unwrap().into_iter().map(|s| s.id).collect();
    let again: Vec<_> = rig.engine.fork(&want).unwrap().into_iter().map(|s| s.id).collect();
    assert_eq!(first, again);
    let rig = rig.restart();
    let again: Vec<_> = rig.engine.fork(&want).unwrap().into_iter().map(|s| s.id).collect();
    assert_eq!(first, again, "also after a restart");
    let other = Fork { count: 2, ..want };
    assert_eq!(rig.engine.fork(&other).unwrap_err().reason, Reason::RequestIdReused);
    let query = ListSessions {
        page_size: 60,
        labels: BTreeMap::from([("k".into(), "v".into())]),
        ..Default::default()
    };
    let page = rig.engine.list_sessions(&query).unwrap();
    let rest = rig.engine.list_sessions(&ListSessions { after: page.next.clone(), ..query }).unwrap();
    assert_eq!((page.items.len(), rest.items.len(), rest.next), (60, 40, None));
}

#[test]
fn who_uses_a_session_is_told() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let id = a.id().clone();
    let archived = || rig.engine.archive_session(&id).unwrap_err();
    let deleted = || rig.engine.delete_session(&id, false, None).unwrap_err();
    a.open(ROOT_INO).unwrap();
    for error in [archived(), deleted()] {
        assert!(error.message().contains("files open in the server's own mount: 1"), "{error}");
        assert!(error.next_step().starts_with("close them"), "{}", error.next_step());
    }
    let watches = [7, 8].map(|who| a.watch(who, std::sync::Arc::new(|_| ()), std::sync::Arc::new(|_| true)));
    for error in [archived(), deleted()] {
        assert!(error.message().contains("attached mounts: 2"), "{error}");
        assert!(error.next_step().contains("aether unmount DIR"), "{}", error.next_step());
    }
    assert!(deleted().next_step().contains("force") && !archived().next_step().contains("force"));
    drop(watches);
    a.release(ROOT_INO).unwrap();
    rig.engine.archive_session(&id).unwrap();
}

#[test]
fn archive_resume_update_delete() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let id = a.id().clone();
    put(&a, "f", "x");
    rig.fork("sess_a", "sess_b");
    a.open(ROOT_INO).unwrap();
    assert_eq!(rig.engine.archive_session(&id).unwrap_err().reason, Reason::InUse);
    a.release(ROOT_INO).unwrap();
    drop(a);
    assert!(rig.engine.archive_session(&id).unwrap().record.archived);
    assert!(rig.engine.resident(&id).is_none());
    assert_eq!(rig.engine.session(&id).err().unwrap().reason, Reason::SessionArchived);
    rig.engine.resume_session(&id).unwrap();
    assert_eq!(text(&rig.get("sess_a"), "f").unwrap(), "x");
    let etag = rig.engine.get_session(&id).unwrap().record.generation;
    let named =
        UpdateSession { display_name: Some("n".into()), if_generation: Some(etag), ..Default::default() };
    assert_eq!(rig.engine.update_session(&id, named.clone()).unwrap().record.display_name, "n");
    assert_eq!(rig.engine.update_session(&id, named).unwrap_err().reason, Reason::RevisionMismatch);
    rig.engine.delete_session(&id, false, None).unwrap();
    assert_eq!(rig.engine.get_session(&id).unwrap_err().reason, Reason::SessionNotFound);
    let rig = rig.restart();
    assert_eq!(rig.engine.session(&id).err().unwrap().reason, Reason::SessionNotFound);
    assert_eq!(text(&rig.get("sess_b"), "f").unwrap(), "x", "a fork outlives its parent");
}

/// The mount tells by it whether what the kernel has is of the session that there is now.
#[test]
fn an_id_that_is_used_again_is_of_a_later_time_whatever_the_clock_says() {
    let rig = Rig::new();
    rig.empty("sess_parent");
    let id = Rig::id("sess_a");
    let start = rig.clock.stopped();
    let mut made = Vec::new();
    for n in 0..4 {
        // It stands still, goes back, and goes on.
        rig.clock.stop_at(start + [0, 0, -3_600_000_000_000, 5][n]);
        let session = if n % 2 == 0 { rig.empty("sess_a") } else { rig.fork("sess_parent", "sess_a") };
        made.push(session.created_ns());
        assert_eq!(rig.engine.get_session(&id).unwrap().record.created_ns, session.created_ns());
        rig.engine.delete_session(&id, false, None).unwrap();
    }
    assert!(made.is_sorted_by(|before, after| before < after), "{made:?}");
    let last = rig.empty("sess_a").created_ns();
    assert_eq!(rig.restart().get("sess_a").created_ns(), last, "it stays what it was");
}

#[test]
fn unlinked_open_files_live_until_closed() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    put(&a, "f", "still here");
    let ino = a.lookup(ROOT_INO, b"f").unwrap().ino;
    a.open(ino).unwrap();
    a.unlink(ROOT_INO, b"f", 0, 0).unwrap();
    assert_eq!(a.getattr(ino).unwrap().nlink, 0);
    assert_eq!(&a.read(ino, 0, 5).unwrap()[..], b"still");
    a.write(ino, 0, b"STILL", 0, 0).unwrap();
    a.release(ino).unwrap();
    assert_eq!(a.getattr(ino).unwrap_err().reason, Reason::Stale);
}

#[test]
fn deep_fork_chains_stay_shallow_on_disk() {
    let rig = Rig::new();
    put(&rig.empty("sess_0"), "f0", "0");
    for i in 1..120 {
        let s = rig.fork(&format!("sess_{}", i - 1), &format!("sess_{i}"));
        put(&s, &format!("f{i}"), &i.to_string());
    }
    let rig = rig.restart();
    let last = rig.get("sess_119");
    assert_eq!(names(&last).len(), 120);
    assert_eq!(text(&last, "f60").unwrap(), "60");
}

/// One session that makes files, extents or attributes without end must not take the memory of all others.
#[test]
fn an_overlay_is_bounded_and_what_frees_is_never_refused() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let value = vec![1; 60_000];
    let mut made = Vec::new();
    let refused = loop {
        let name = format!("file-{}", made.len());
        let done = a.create(ROOT_INO, name.as_bytes(), FILE, 0, 0).and_then(|(attr, _)| {
            made.push(name);
            (0..4).try_for_each(|n| {
                a.setxattr(attr.ino, format!("user.{n}").as_bytes(), &value, None, 0, 0).map(drop)
            })
        });
        match done {
            Ok(()) => assert!(made.len() < 100, "24 MB of attributes"),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.reason, Reason::QuotaExceeded);
    assert!(refused.message().contains(&OVERLAY_BYTES.to_string()) && made.len() > 60);
    let batch = a.mkdir(ROOT_INO, b"dir", FILE, 0, 0).unwrap_err();
    assert_eq!(batch.reason, Reason::QuotaExceeded);
    // A session that comes back is as full as it was.
    rig.engine.sync().unwrap();
    drop(a);
    let rig = rig.restart();
    let a = rig.get("sess_a");
    assert_eq!(a.mkdir(ROOT_INO, b"dir", FILE, 0, 0).unwrap_err().reason, Reason::QuotaExceeded);
    // Whatever makes room is let through, attribute by attribute, too.
    let ino = a.lookup(ROOT_INO, made[3].as_bytes()).unwrap().ino;
    a.removexattr(ino, b"user.0", 0, 0).unwrap();
    a.setxattr(ino, b"user.0", &value[..100], None, 0, 0).unwrap();
    for name in &made[..2] {
        a.unlink(ROOT_INO, name.as_bytes(), 0, 0).unwrap();
    }
    a.mkdir(ROOT_INO, b"dir", FILE, 0, 0).unwrap();
    // A fork stands on the same overlay, and is no way round.
    let b = rig.fork("sess_a", "sess_b");
    let grown = (0..20).try_for_each(|n| {
        let ino = b.create(ROOT_INO, format!("more-{n}").as_bytes(), FILE, 0, 0)?.0.ino;
        b.setxattr(ino, b"user.more", &value, None, 0, 0).map(drop)
    });
    assert_eq!(grown.unwrap_err().reason, Reason::QuotaExceeded);
}
