//! What happens at the same time, made to happen at exactly one moment; and batches that the journal refuses.

use crate::hooks::At;
use crate::rig::{FILE, LAYER_RECORDS, MAX_OPERATIONS, Rig, names, put, text};
use afs_session::paths::{By, Change, ChangeOp, ChangeSet, FileEdit, Patch, Precondition, Replacement};
use afs_session::{CreateSession, Fork, ListSessions, Session, UpdateSession};
use afs_store::{Journal, Space};
use afs_types::{Error, ROOT_INO, Reason, RequestId, Result, SessionId, SessionPath};
use parking_lot::Mutex;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

fn named(id: &str, display_name: &str) -> CreateSession {
    CreateSession {
        session_id: Some(Rig::id(id)),
        display_name: display_name.into(),
        ..CreateSession::default()
    }
}

fn reason<T>(result: Result<T>) -> Reason {
    result.err().expect("it is refused").reason
}

/// The id was looked for, found free, and both were written: the second over the first.
#[test]
fn of_two_that_want_one_id_one_gets_it() {
    for other_forks in [false, true] {
        let rig = Rig::new();
        rig.empty("sess_parent");
        let (engine, second) = (rig.engine.clone(), Arc::new(Mutex::new(None)));
        let seen = second.clone();
        rig.hooks.once(At::Submit(Space::Session), move || {
            let made = if other_forks {
                let want = Fork { new_ids: vec![Rig::id("sess_x")], ..Fork::of(Rig::id("sess_parent")) };
                engine.fork(&want).map(drop)
            } else {
                engine.create_session(named("sess_x", "second")).map(drop)
            };
            *seen.lock() = Some(made);
        });
        rig.engine.create_session(named("sess_x", "first")).unwrap();
        assert_eq!(reason(second.lock().take().unwrap()), Reason::AlreadyExists);
        assert_eq!(rig.engine.get_session(&Rig::id("sess_x")).unwrap().record.display_name, "first");
        put(&rig.get("sess_x"), "f", "x");
        assert_eq!(reason(rig.engine.create_session(named("sess_x", "third"))), Reason::AlreadyExists);
    }
}

/// A group commits as soon as its batch is queued: the session could be loaded before the one who made it had registered it, which then
/// failed, or there were two of it.
#[test]
fn who_finds_a_session_while_it_is_made_has_the_one_there_is() {
    let rig = Rig::new();
    rig.empty("sess_parent");
    let (engine, journal, found) = (rig.engine.clone(), rig.journal.clone(), Arc::new(Mutex::new(None)));
    let seen = found.clone();
    rig.hooks.once(At::Submitted(Space::Session), move || {
        journal.sync().unwrap();
        *seen.lock() = Some(engine.session(&Rig::id("sess_x")));
    });
    rig.engine.create_session(named("sess_x", "")).unwrap();
    let found: Arc<Session> = found.lock().take().unwrap().unwrap();
    put(&found, "f", "x");
    assert!(Arc::ptr_eq(&found, &rig.get("sess_x")));
    drop(found);
    assert_eq!(text(&rig.restart().get("sess_x"), "f").unwrap(), "x");
}

#[test]
fn ids_that_the_server_could_make_cannot_be_chosen() {
    let rig = Rig::new();
    let made = rig.engine.create_session(CreateSession::default()).unwrap().id;
    rig.engine.delete_session(&made, false, None).unwrap();
    let fields = |error: &Error| {
        let field = error.metadata().iter().find(|(key, _)| *key == "field").unwrap().1.clone();
        assert!(error.message().starts_with(&format!("{field}: ")), "{error}");
        (error.reason, field)
    };
    let refused = rig.engine.create_session(named(made.as_str(), "")).unwrap_err();
    assert_eq!(fields(&refused), (Reason::InvalidId, "session_id".to_owned()));
    let parent = rig.empty("sess_parent").id().clone();
    let next = SessionId::from_ulid(1 << 100);
    let want = Fork { count: 2, new_ids: vec![Rig::id("sess_free"), next], ..Fork::of(parent.clone()) };
    let refused = rig.engine.fork(&want).unwrap_err();
    assert_eq!(fields(&refused), (Reason::InvalidId, "new_session_ids[1]".to_owned()));
    // What was reserved for a request that failed is free again.
    rig.fork("sess_parent", "sess_free");
    let twice = vec![Rig::id("sess_twice"); 2];
    let refused =
        rig.engine.fork(&Fork { count: 2, new_ids: twice, ..Fork::of(parent.clone()) }).unwrap_err();
    assert_eq!(fields(&refused), (Reason::AlreadyExists, "new_session_ids[1]".to_owned()));
    rig.fork("sess_parent", "sess_twice");
    let known = vec![Rig::id("sess_new"), Rig::id("sess_twice")];
    let refused = rig.engine.fork(&Fork { count: 3, new_ids: known, ..Fork::of(parent) }).unwrap_err();
    assert_eq!(fields(&refused), (Reason::AlreadyExists, "new_session_ids[1]".to_owned()));
    let refused = rig.engine.create_session(named("sess_twice", "")).unwrap_err();
    assert_eq!(fields(&refused), (Reason::AlreadyExists, "session_id".to_owned()));
}

fn refuses(held: &Session, want: Reason) {
    let ino = ROOT_INO;
    assert_eq!(reason(held.create(ino, b"late", FILE, 0, 0)), want);
    assert_eq!(reason(held.lookup(ino, b"f")), want);
    assert_eq!(reason(held.getattr(ino)), want);
    assert_eq!(reason(held.readdir(ino, 0, &mut |_| true)), want);
    assert_eq!(reason(held.open(ino)), want);
    assert_eq!(reason(held.copy_range((ino, 0), (ino, 9), 1, 0)), want);
    assert_eq!(reason(held.fsync()), want, "nothing of it is on disk any more, or not for its holders");
}

/// Whoever still held a deleted session wrote records and a head behind its end.
#[test]
fn a_deleted_session_stays_deleted_whoever_holds_it() {
    let rig = Rig::new();
    let held = rig.empty("sess_a");
    put(&held, "f", "x");
    let ino = held.lookup(ROOT_INO, b"f").unwrap().ino;
    held.open(ino).unwrap();
    held.unlink(ROOT_INO, b"f", 0, 0).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let watch = held.watch(7, Arc::new(move |event| sink.lock().push(event.clone())), Arc::new(|_| true));
    assert_eq!(reason(rig.engine.delete_session(held.id(), false, None)), Reason::InUse);
    rig.engine.delete_session(held.id(), true, None).unwrap();
    assert!(told.lock().last().unwrap().all, "watchers forget what they have");
    refuses(&held, Reason::SessionNotFound);
    held.release(ino).unwrap();
    assert_eq!(reason(rig.engine.fork(&Fork::of(held.id().clone()))), Reason::SessionNotFound);
    assert_eq!(reason(rig.engine.checkpoint(held.id(), "", "", None)), Reason::SessionNotFound);
    drop(watch);
    // The id is free, and the old one has nothing to do with the new one.
    let new = rig.empty("sess_a");
    put(&new, "g", "y");
    refuses(&held, Reason::SessionNotFound);
    drop((held, new));
    let rig = rig.restart();
    assert_eq!(names(&rig.get("sess_a")), ["g"]);
    rig.engine.delete_session(&Rig::id("sess_a"), false, None).unwrap();
    let mut left = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        left += 1;
        Ok(ControlFlow::Continue(()))
    };
    rig.journal.scan(Space::Session, b"", None, &mut count).unwrap();
    rig.journal.scan(Space::Checkpoint, b"", None, &mut count).unwrap();
    assert_eq!(left, 0, "no head, no record, no checkpoint is left");
}

/// The server's own mount ended its watch before it was known whether the session would go, and nobody told it of what came then.
#[test]
fn who_watches_aside_hears_of_every_change_until_the_end() {
    let rig = Rig::new();
    let id = Rig::id("sess_a");
    let told = Arc::new(Mutex::new(Vec::new()));
    let watch = |session: &Arc<Session>| {
        let sink = told.clone();
        session.watch_aside(
            7,
            Arc::new(move |event| sink.lock().push((event.all, event.gone))),
            Arc::new(|_| true),
        )
    };
    let held = rig.empty("sess_a");
    let first = watch(&held);
    let still_told = || {
        assert!(told.lock().is_empty());
        put(&held, "f", "x");
        let changes = std::mem::take(&mut *told.lock());
        assert!(!changes.is_empty() && changes.iter().all(|(all, _)| !all), "{changes:?}");
    };
    still_told();
    assert_eq!(reason(rig.engine.delete_session(&id, false, Some(99))), Reason::RevisionMismatch);
    still_told();
    held.open(ROOT_INO).unwrap();
    assert_eq!(reason(rig.engine.delete_session(&id, false, None)), Reason::InUse, "an open file is use");
    assert_eq!(reason(rig.engine.archive_session(&id)), Reason::InUse);
    held.release(ROOT_INO).unwrap();
    still_told();
    rig.hooks.refuse(Space::Session);
    assert_eq!(reason(rig.engine.delete_session(&id, false, None)), Reason::NoSpace);
    still_told();
    rig.engine.archive_session(&id).unwrap();
    assert_eq!(std::mem::take(&mut *told.lock()), [(true, false)], "a watch aside is no use");
    rig.engine.resume_session(&id).unwrap();
    let second = watch(&rig.get("sess_a"));
    assert!(!rig.engine.evict(&id).unwrap(), "what is watched stays in RAM");
    // Told before anybody can have the id again.
    let (engine, sink, seen) = (rig.engine.clone(), told.clone(), Arc::new(Mutex::new(None)));
    let made = seen.clone();
    let third = rig.get("sess_a").watch_aside(
        8,
        Arc::new(move |_| {
            let free = engine.resident(&Rig::id("sess_a")).is_none();
            made.lock().get_or_insert((free, sink.lock().len()));
        }),
        Arc::new(|_| true),
    );
    rig.engine.delete_session(&id, false, None).unwrap();
    assert_eq!((*told.lock()).as_slice(), [(true, true)]);
    assert_eq!(*seen.lock(), Some((false, 1)));
    drop((first, second, third));
}

#[test]
fn an_archived_session_refuses_whoever_holds_it() {
    let rig = Rig::new();
    let held = rig.empty("sess_a");
    put(&held, "f", "x");
    let seq = held.stamp().seq;
    rig.engine.archive_session(held.id()).unwrap();
    refuses(&held, Reason::SessionArchived);
    assert_eq!(reason(rig.engine.session(held.id())), Reason::SessionArchived);
    assert_eq!(rig.engine.get_session(held.id()).unwrap().revision, seq);
    rig.engine.resume_session(held.id()).unwrap();
    put(&rig.get("sess_a"), "g", "y");
    refuses(&held, Reason::SessionArchived);
    let rig = {
        drop(held);
        rig.restart()
    };
    assert_eq!(names(&rig.get("sess_a")), ["f", "g"]);
}

/// What a writer was told is what is there after resuming, wherever between its writes the archiving fell.
#[test]
fn archiving_under_writers_loses_nothing() {
    for _ in 0..8 {
        let rig = Rig::new();
        let held = rig.empty("sess_a");
        let writer = std::thread::spawn(move || {
            let mut last = None;
            for n in 0..1_000_000u64 {
                match held.create(ROOT_INO, format!("f{n}").as_bytes(), FILE, 0, 0) {
                    Ok((_, stamp)) => last = Some((n, stamp.seq)),
                    Err(e) => {
                        assert_eq!(e.reason, Reason::SessionArchived);
                        return last;
                    }
                }
            }
            panic!("a million writes into a session that is archived");
        });
        while rig.get("sess_a").stamp().seq < 20 {
            std::thread::yield_now();
        }
        let archived = rig.engine.archive_session(&Rig::id("sess_a")).unwrap();
        let (last, seq) = writer.join().unwrap().unwrap();
        assert_eq!(archived.revision, seq);
        rig.engine.resume_session(&Rig::id("sess_a")).unwrap();
        assert_eq!(names(&rig.get("sess_a")).len() as u64, last + 1);
    }
}

/// Labels that were changed while the session was deleted wrote its record again.
#[test]
fn a_record_that_changes_during_a_deletion_does_not_come_back() {
    let rig = Rig::new();
    let id = rig.empty("sess_a").id().clone();
    let (engine, other) = (rig.engine.clone(), id.clone());
    let deleter = Arc::new(Mutex::new(None));
    let thread = deleter.clone();
    rig.hooks.once(At::Submit(Space::Session), move || {
        // It has to wait until the record is written, so it runs beside.
        *thread.lock() = Some(std::thread::spawn(move || engine.delete_session(&other, true, None)));
        std::thread::yield_now();
    });
    let update = UpdateSession { display_name: Some("n".into()), ..UpdateSession::default() };
    rig.engine
        .update_session(&id, update)
        .map(drop)
        .or_else(|e| match e.reason {
            // Written, then deleted before it was read again.
            Reason::SessionNotFound => Ok(()),
            _ => Err(e),
        })
        .unwrap();
    let deleted = deleter.lock().take().unwrap();
    deleted.join().unwrap().unwrap();
    assert_eq!(reason(rig.engine.get_session(&id)), Reason::SessionNotFound);
    assert_eq!(reason(rig.restart().engine.get_session(&id)), Reason::SessionNotFound);
}

/// A layer's record was read as "not folded", the fold was committed, and then its records were looked for: a tree without them.
#[test]
fn a_session_loads_whole_while_its_layer_is_folded() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    for n in 0..10 {
        put(&a, &format!("f{n}"), "x");
    }
    rig.engine.sync().unwrap();
    rig.hooks.hold_folds();
    rig.engine.checkpoint(a.id(), "", "", None).unwrap();
    drop(a);
    // In time for the background thread to let go of it.
    while !rig.engine.evict(&Rig::id("sess_a")).unwrap() {
        std::thread::yield_now();
    }
    let (hooks, engine, journal) = (rig.hooks.clone(), rig.engine.clone(), rig.journal.clone());
    rig.hooks.once(At::Scan(Space::Record), move || {
        hooks.release_folds();
        engine.settle();
        journal.sync().unwrap();
    });
    let a = rig.get("sess_a");
    assert!(rig.hooks.ran(), "the layer was folded already: this test shows nothing");
    assert_eq!(names(&a).len(), 10);
    assert_eq!(text(&a, "f9").unwrap(), "x");
}

/// Counted opens of an inode that a restore took away stayed for ever: the session never was idle again.
#[test]
fn what_a_restore_takes_away_can_be_released() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let checkpoint = rig.engine.checkpoint(a.id(), "", "", None).unwrap().id;
    put(&a, "f", "x");
    let ino = a.lookup(ROOT_INO, b"f").unwrap().ino;
    a.open(ino).unwrap();
    rig.engine.restore(a.id(), &checkpoint, None, None).unwrap();
    a.release(ino).unwrap();
    assert_eq!(reason(a.release(ino)), Reason::Stale, "it is not open any more");
    rig.engine.archive_session(a.id()).unwrap();
}

#[test]
fn a_list_skips_what_is_deleted_meanwhile_and_loads_nothing() {
    let rig = Rig::new();
    for id in ["sess_a", "sess_b", "sess_c"] {
        put(&rig.empty(id), "f", "x");
    }
    let revision = rig.get("sess_c").stamp().seq;
    let rig = rig.restart();
    let engine = rig.engine.clone();
    rig.hooks.once(At::Scanned(Space::Session), move || {
        engine.delete_session(&Rig::id("sess_b"), false, None).unwrap();
    });
    let page = rig.engine.list_sessions(&ListSessions::default()).unwrap();
    let seen: Vec<_> = page.items.iter().map(|s| (s.id.as_str(), s.revision)).collect();
    assert_eq!(seen, [("sess_a", revision), ("sess_c", revision)]);
    assert_eq!(rig.engine.resident_count(), 0, "a list does not load what it lists");
}

/// Everything that submits, refused once: nothing has changed, in RAM or on disk, and the same call works afterwards.
#[test]
fn a_batch_that_the_journal_refuses_changes_nothing() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    put(&a, "f", "one");
    let checkpoint = rig.engine.checkpoint(a.id(), "", "", None).unwrap().id;
    let fork = Fork { new_ids: vec![Rig::id("sess_b")], ..Fork::of(a.id().clone()) };
    let engine = rig.engine.clone();
    type Call<'a> = Box<dyn Fn() -> Result<()> + 'a>;
    let calls: Vec<(Space, Call<'_>)> = vec![
        // Opens a layer.
        (Space::Record, Box::new(|| a.mkdir(ROOT_INO, b"d", FILE, 0, 0).map(drop))),
        (Space::Record, Box::new(|| a.create(ROOT_INO, b"e", FILE, 0, 0).map(drop))),
        (Space::Session, Box::new(|| engine.fork(&fork).map(drop))),
        (Space::Record, Box::new(|| a.copy_range((3, 0), (4, 0), 2, 0).map(drop))),
        (Space::Checkpoint, Box::new(|| engine.checkpoint(a.id(), "", "", None).map(drop))),
        (Space::Checkpoint, Box::new(|| engine.restore(a.id(), &checkpoint, None, None).map(drop))),
        (Space::Session, Box::new(|| engine.create_session(named("sess_c", "")).map(drop))),
        (Space::Session, Box::new(|| engine.delete_session(&Rig::id("sess_b"), false, None))),
        (Space::Session, Box::new(|| engine.archive_session(a.id()).map(drop))),
    ];
    for (n, (space, call)) in calls.iter().enumerate() {
        let before = (a.stamp(), names(&a), text(&a, "f"));
        rig.hooks.refuse(*space);
        if n == 3 {
            // Two inodes made above, found by name: numbers are the family's business.
            let ino = |name: &str| a.lookup(ROOT_INO, name.as_bytes()).unwrap().ino;
            let copy = || a.copy_range((ino("f"), 0), (ino("e"), 0), 2, 0);
            assert_eq!(reason(copy()), Reason::NoSpace, "call {n}");
            assert_eq!((a.stamp(), names(&a), text(&a, "f")), before, "call {n}");
            copy().unwrap();
            continue;
        }
        assert_eq!(reason(call()), Reason::NoSpace, "call {n}");
        assert_eq!((a.stamp(), names(&a), text(&a, "f")), before, "call {n}");
        call().unwrap_or_else(|e| panic!("call {n}: {e}"));
    }
    drop(calls);
    drop(a);
    let rig = rig.restart();
    rig.engine.resume_session(&Rig::id("sess_a")).unwrap();
    assert_eq!(names(&rig.get("sess_a")), ["f"]);
    assert_eq!(reason(rig.engine.session(&Rig::id("sess_b"))), Reason::SessionNotFound);
    rig.get("sess_c");
}

/// A full disk at the moment when a session begins a new layer because the old one is long.
#[test]
fn a_refused_new_layer_leaves_the_old_one_open() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    while a.stamp().seq < LAYER_RECORDS {
        let n = a.stamp().seq;
        a.create(ROOT_INO, format!("f{n}").as_bytes(), FILE, 0, 0).unwrap();
    }
    for _ in 0..2 {
        rig.hooks.refuse(Space::Layer);
        assert_eq!(reason(a.create(ROOT_INO, b"more", FILE, 0, 0)), Reason::NoSpace);
    }
    a.create(ROOT_INO, b"more", FILE, 0, 0).unwrap();
    a.create(ROOT_INO, b"and more", FILE, 0, 0).unwrap();
    drop(a);
    assert_eq!(names(&rig.restart().get("sess_a")).len() as u64, LAYER_RECORDS + 2);
}

/// The sealer looked at sessions with a shard locked, a fork registers sessions with its parent locked: each waited for the other.
#[test]
fn forks_and_the_idle_sealer_do_not_wait_for_each_other() {
    let rig = Rig::new();
    let parent = rig.empty("sess_parent");
    std::thread::scope(|threads| {
        let forks = threads.spawn(|| {
            for n in 0..200 {
                put(&parent, "f", &n.to_string());
                rig.engine.fork(&Fork { count: 40, ..Fork::of(parent.id().clone()) }).unwrap();
            }
        });
        while !forks.is_finished() {
            rig.engine.seal_idle().unwrap();
        }
    });
    assert_eq!(rig.engine.resident_count(), 1 + 200 * 40);
}

/// One call with a small path may mean any number of inodes.
#[test]
fn what_one_call_changes_is_bounded() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let dir = a.mkdir(ROOT_INO, b"dir", FILE, 0, 0).unwrap().0.ino;
    for n in 0..MAX_OPERATIONS {
        a.create(dir, format!("f{n}").as_bytes(), FILE, 0, 0).unwrap();
    }
    let before = a.stamp();
    let path = SessionPath::parse(b"/dir").unwrap();
    let removed = rig
        .engine
        .files(a.id())
        .and_then(|f| f.remove(&path, true, &Precondition::default(), &By::default()));
    let error = removed.err().unwrap();
    assert_eq!(error.reason, Reason::MessageTooLarge);
    assert!(error.message().contains(&MAX_OPERATIONS.to_string()), "{error}");
    assert_eq!((a.stamp(), names(&a)), (before, vec!["dir".to_owned()]), "all or nothing");
}

#[test]
fn retries_at_the_same_time_have_one_effect() {
    let rig = Rig::new();
    let parent = rig.empty("sess_a").id().clone();
    let want = Fork { count: 3, request_id: RequestId::parse("r").unwrap(), ..Fork::of(parent) };
    let ids = |forks: Vec<afs_session::SessionInfo>| forks.into_iter().map(|s| s.id).collect::<Vec<_>>();
    let answers: Vec<_> = std::thread::scope(|threads| {
        let all: Vec<_> = (0..8).map(|_| threads.spawn(|| ids(rig.engine.fork(&want).unwrap()))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(rig.engine.list_sessions(&ListSessions::default()).unwrap().items.len(), 4);
}

/// Writers that look their session up for each write, and somebody who evicts it all the time.
#[test]
fn eviction_under_use_loses_nothing() {
    const WRITES: u64 = 400;
    let rig = Rig::new();
    rig.empty("sess_a");
    std::thread::scope(|threads| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let rig = &rig;
                threads.spawn(move || {
                    for n in 0..WRITES {
                        let name = format!("f{writer}-{n}");
                        rig.get("sess_a").create(ROOT_INO, name.as_bytes(), FILE, 0, 0).unwrap();
                    }
                })
            })
            .collect();
        let mut evicted = 0;
        while !writers.iter().all(|w| w.is_finished()) {
            evicted += u32::from(rig.engine.evict(&Rig::id("sess_a")).unwrap());
        }
        assert!(evicted > 0, "nothing was shown");
    });
    assert_eq!(rig.get("sess_a").stamp().seq, 2 * WRITES);
    assert_eq!(names(&rig.restart().get("sess_a")).len() as u64, 2 * WRITES);
}

/// One id, made, written, forked and deleted by many at once: what is left in the end is one whole session, or nothing.
#[test]
fn one_id_made_and_deleted_by_many_is_whole_or_gone() {
    let rig = Rig::new();
    let id = Rig::id("sess_x");
    let expected = [Reason::AlreadyExists, Reason::SessionNotFound, Reason::InUse];
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let (rig, id) = (&rig, &id);
            threads.spawn(move || {
                for n in 0..60 {
                    let done = match (n + thread) % 4 {
                        0 => rig.engine.create_session(named("sess_x", "")).map(drop),
                        1 => rig.engine.session(id).and_then(|s| {
                            s.create(ROOT_INO, format!("{thread}-{n}").as_bytes(), FILE, 0, 0).map(drop)
                        }),
                        2 => rig.engine.fork(&Fork::of(id.clone())).map(drop),
                        _ => rig.engine.delete_session(id, true, None),
                    };
                    if let Err(e) = done {
                        assert!(expected.contains(&e.reason), "{e}");
                    }
                }
            });
        }
    });
    let rig = rig.restart();
    let listed = rig.engine.list_sessions(&ListSessions { page_size: 1000, ..Default::default() }).unwrap();
    for session in &listed.items {
        rig.engine.session(&session.id).unwrap();
    }
    let mut heads = 0;
    rig.journal
        .scan(Space::Session, b"h", Some(b"i"), &mut |_, _| {
            heads += 1;
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    assert_eq!(heads, listed.items.len(), "every head has its session");
}

/// Two that ask for the same source at once get one: it is not imported twice, and no record is written over another.
#[test]
fn one_source_is_made_once() {
    let rig = Rig::new();
    let want = |id: Option<&str>| afs_session::CreateSource {
        source_id: id.map(|id| afs_types::SourceId::parse(id).unwrap()),
        display_name: String::new(),
        spec: afs_session::ImportSpec::Empty,
        labels: Default::default(),
        request_id: None,
    };
    let made: Vec<_> = std::thread::scope(|threads| {
        let all: Vec<_> =
            (0..8).map(|_| threads.spawn(|| rig.engine.create_source(want(None)).unwrap().id)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(made.iter().all(|id| *id == made[0]), "{made:?}");
    let named: Vec<_> = std::thread::scope(|threads| {
        let all: Vec<_> =
            (0..8).map(|_| threads.spawn(|| rig.engine.create_source(want(Some("src_x"))).is_ok())).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(named.iter().filter(|ok| **ok).count(), 1);
    rig.engine.wait_source(&made[0], Duration::from_secs(60)).unwrap();
}

/// Changes of texts wait for memory while they hold the turn of their request id; a call that waits for none must not wait for that.
#[test]
fn changes_of_texts_keep_no_other_call_waiting_for_its_request_id() {
    let rig = Rig::new();
    rig.empty("sess_a");
    let files = rig.engine.files(&Rig::id("sess_a")).unwrap();
    let path = SessionPath::parse(b"/f").unwrap();
    let write = || {
        let op =
            ChangeOp::Write { path: path.clone(), content: "old\n".into(), mode: None, create_parents: true };
        ChangeSet {
            changes: vec![Change { op, precondition: Precondition::default() }],
            ..ChangeSet::default()
        }
    };
    files.submit_changes(&write(), &By::default()).unwrap();
    let edits = vec![Replacement { old: "old".into(), new: "new".into(), replace_all: false }];
    let edit = FileEdit { edits, ..FileEdit::default() };
    let patch = Patch { text: b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-new\n+newer\n".to_vec(), ..Patch::default() };
    type Call<'a> = (&'a str, &'a dyn Fn(&By));
    let calls: [Call<'_>; 3] = [
        ("edit", &|by| drop(files.edit_file(&path, &edit, by).unwrap())),
        ("patch", &|by| drop(files.apply_patch(&patch, by).unwrap())),
        ("submit", &|by| drop(files.submit_changes(&write(), by).unwrap())),
    ];
    for (name, call) in calls {
        let request_id = RequestId::parse(name).unwrap();
        let (engine, id) = (rig.engine.clone(), request_id.clone());
        let (made, is_made) = std::sync::mpsc::channel();
        let in_time = Arc::new(Mutex::new(false));
        let seen = in_time.clone();
        // The change is under way, and its turn is taken.
        rig.hooks.once(At::Submit(Space::Request), move || {
            std::thread::spawn(move || {
                let want = CreateSession { request_id: id, ..CreateSession::default() };
                // Nobody is there to hear it if it came too late.
                let _ = made.send(engine.create_session(want).map(drop));
            });
            *seen.lock() = matches!(is_made.recv_timeout(Duration::from_secs(20)), Ok(Ok(())));
        });
        call(&By { who: 0, request_id });
        assert!(rig.hooks.ran() && *in_time.lock(), "{name}: a session waited for it");
    }
}
