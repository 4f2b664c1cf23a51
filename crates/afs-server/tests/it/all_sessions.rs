//! The directory of all sessions as the kernel uses it, call by call.

use crate::harness::{Server, git_session};
use afs_fuse::{Invalidation, InvalidationSink, OpenMode, SetAttr, Vfs, WriteMode};
use afs_server::AllSessions;
use afs_types::{Ino, NameRef, ROOT_INO, Reason, Result, SessionId};
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

fn name(text: &str) -> NameRef<'_> {
    NameRef::new(text.as_bytes()).unwrap()
}

fn reason<T>(result: Result<T>) -> Reason {
    result.err().expect("it is refused").reason
}

/// Everything that a kernel can ask about a file and its directory says that there is nothing any more.
fn nothing_left(all: &AllSessions, dir: Ino, file: Ino) {
    let set = SetAttr { size: Some(0), ..SetAttr::default() };
    let answers = [
        // First: what comes after it finds the session gone because this has.
        reason(all.fsync(file, 0, false)),
        reason(all.write(file, 0, 0, b"OVERWRITTEN", WriteMode::default())),
        reason(all.read(file, 0, 0, 10, &mut |_| {})),
        reason(all.setattr(file, set)),
        reason(all.getattr(file)),
        reason(all.open(file, OpenMode { read: true, ..OpenMode::default() })),
        reason(all.lookup(dir, name("README.md"))),
        reason(all.unlink(dir, name("README.md"))),
        reason(all.getattr(dir)),
    ];
    assert_eq!(answers, [Reason::Stale; 9]);
    all.release(file, 0);
}

/// The mount resolved a slot by the session's id each time, so what was open of a deleted session wrote into the next one with that id.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_of_a_deleted_session_never_reaches_the_next_with_its_id() {
    let server = Server::start().await;
    let [client, _] = server.both().await;
    let source = git_session(&client, &server.repository()).await["source_id"].clone();
    let id = SessionId::parse("sess_used_again").unwrap();
    let make = json!({"session_id": id.as_str(), "source_id": source});
    let app = server.running().app();
    // Beside the server's own, which is not mounted here: what it is told of sessions, the test says to this one.
    let who = Arc::new(AtomicU64::new(1 << 40));
    let all = AllSessions::new(app.engine.clone(), app.data_dir().to_owned(), app.clock.clone(), who);
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let _watch = all.watch(InvalidationSink::new(move |change| sink.lock().push(change), |_| true));
    let entry = Invalidation::Entry { parent: ROOT_INO, name: id.as_str().as_bytes().into() };

    client.ok("Session.CreateSession", make.clone()).await;
    let dir = all.lookup(ROOT_INO, name(id.as_str())).unwrap().ino;
    let file = all.lookup(dir, name("README.md")).unwrap().ino;
    all.open(file, OpenMode { read: true, write: true, ..OpenMode::default() }).unwrap();
    let delete = |force| json!({"session_id": id.as_str(), "force": force});
    assert_eq!(client.refused("Session.DeleteSession", delete(false)).await.reason, "IN_USE");
    told.lock().clear();
    client.ok("Session.DeleteSession", delete(true)).await;
    let slot = dir >> 32 << 32;
    let whole = Invalidation::Range { first: slot, last: slot | u64::from(u32::MAX), names: false };
    assert_eq!(*told.lock(), [whole], "all of this session, and nothing of others");

    // The new one is there before anybody has told of the end of the old one.
    client.ok("Session.CreateSession", make).await;
    nothing_left(&all, dir, file);
    told.lock().clear();
    all.sessions_changed(std::slice::from_ref(&id));
    assert!(told.lock().contains(&entry), "the name leads elsewhere now");
    let new_dir = all.lookup(ROOT_INO, name(id.as_str())).unwrap().ino;
    let new_file = all.lookup(new_dir, name("README.md")).unwrap().ino;
    assert_ne!(new_dir, dir);
    assert_eq!(new_file & u64::from(u32::MAX), file & u64::from(u32::MAX), "both are one file of one base");
    told.lock().clear();
    all.sessions_changed(std::slice::from_ref(&id));
    assert!(!told.lock().contains(&entry), "it leads where the kernel has it already");
    nothing_left(&all, dir, file);
    // The kernel gives the old one back.
    all.forget(file);
    all.forget(dir);
    nothing_left(&all, dir, file);
    all.write(new_file, 0, 0, b"# HELLO", WriteMode::default()).unwrap();
    assert_eq!(client.read(id.as_str(), "/README.md").await.unwrap(), b"# HELLO\n\nworld\n");
    // The old one's file was open; the new one's is not, so it goes without force.
    client.ok("Session.DeleteSession", delete(false)).await;
    nothing_left(&all, new_dir, new_file);
}
