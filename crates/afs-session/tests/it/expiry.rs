//! Sessions that were made for a time.

use crate::hooks::At;
use crate::rig::{Rig, names, put};
use afs_session::{CreateSession, Fork, ListSessions, UpdateSession};
use afs_store::Space;
use afs_types::{ROOT_INO, Reason, SessionId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_800_000_000 * SECOND;

/// Counts what expiry warns of on this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicU64>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().ends_with("expiry") && *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Whose time is over at this moment; they are deleted.
fn expired(rig: &Rig, at_ns: i64) -> Vec<SessionId> {
    rig.clock.stop_at(at_ns);
    rig.engine.delete_expired().unwrap()
}

/// The end was noted before its record was written: a look in between used the note up, and saw the record without an end.
#[test]
fn a_time_to_live_that_is_set_during_a_look_is_not_forgotten() {
    let rig = Rig::new();
    rig.clock.stop_at(START);
    let id = rig.empty("sess_a").id().clone();
    let engine = rig.engine.clone();
    rig.hooks.once(At::Submit(Space::Session), move || {
        assert!(engine.delete_expired().unwrap().is_empty());
    });
    let change = UpdateSession { ttl_ns: Some(Some(60 * SECOND)), ..UpdateSession::default() };
    let updated = rig.engine.update_session(&id, change).unwrap();
    assert!(rig.hooks.ran());
    assert_eq!(updated.record.expires_ns, Some(START + 60 * SECOND));
    assert!(expired(&rig, START + 59 * SECOND).is_empty());
    assert_eq!(expired(&rig, START + 61 * SECOND), [id]);
}

#[test]
fn a_session_in_use_outlives_its_time_and_the_log_says_so_once() {
    let rig = Rig::new();
    rig.clock.stop_at(START);
    let want = CreateSession {
        session_id: Some(Rig::id("sess_a")),
        ttl_ns: Some(SECOND),
        ..CreateSession::default()
    };
    let id = rig.engine.create_session(want).unwrap().id;
    let held = rig.get("sess_a");
    held.open(ROOT_INO).unwrap();
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        for look in 1..5 {
            assert!(expired(&rig, START + look * 60 * SECOND).is_empty());
            put(&held, &format!("f{look}"), "x");
            assert_eq!(warnings.0.load(Ordering::Relaxed), 1, "look {look}");
        }
        assert_eq!(names(&held).len(), 4);
        held.release(ROOT_INO).unwrap();
        assert_eq!(expired(&rig, START + 600 * SECOND), std::slice::from_ref(&id));
        assert_eq!(warnings.0.load(Ordering::Relaxed), 1);
    });
    assert_eq!(rig.engine.get_session(&id).unwrap_err().reason, Reason::SessionNotFound);
}

#[test]
fn a_time_that_is_over_at_once_is_refused() {
    let rig = Rig::new();
    let parent = rig.empty("sess_a").id().clone();
    let count = || rig.engine.list_sessions(&ListSessions::default()).unwrap().items.len();
    let before = count();
    for ttl in [0, -SECOND] {
        let new = CreateSession { ttl_ns: Some(ttl), ..CreateSession::default() };
        let fork = Fork { ttl_ns: Some(ttl), ..Fork::of(parent.clone()) };
        let change = UpdateSession { ttl_ns: Some(Some(ttl)), ..UpdateSession::default() };
        for error in [
            rig.engine.create_session(new).err().unwrap(),
            rig.engine.fork(&fork).err().unwrap(),
            rig.engine.fork_start(&fork).err().unwrap(),
            rig.engine.update_session(&parent, change).err().unwrap(),
        ] {
            assert_eq!(error.reason, Reason::InvalidArgument, "{error:?}");
            assert_eq!(error.metadata(), [("field", "ttl".to_owned()), ("limit", "0s".to_owned())]);
        }
    }
    assert_eq!(count(), before);
    // No end is another thing than one at once.
    let none = UpdateSession { ttl_ns: Some(None), ..UpdateSession::default() };
    assert_eq!(rig.engine.update_session(&parent, none).unwrap().record.expires_ns, None);
}

/// What stands in the way of a deletion, other than use, is told every time.
#[test]
fn a_deletion_that_fails_is_tried_again_and_told_of() {
    let rig = Rig::new();
    rig.clock.stop_at(START);
    let want = CreateSession {
        session_id: Some(Rig::id("sess_a")),
        ttl_ns: Some(SECOND),
        ..CreateSession::default()
    };
    let id = rig.engine.create_session(want).unwrap().id;
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        for look in 1..3 {
            rig.hooks.refuse(Space::Session);
            assert!(expired(&rig, START + look * 60 * SECOND).is_empty());
            assert_eq!(warnings.0.load(Ordering::Relaxed), look.unsigned_abs());
        }
        assert_eq!(expired(&rig, START + 600 * SECOND), [id]);
    });
}
