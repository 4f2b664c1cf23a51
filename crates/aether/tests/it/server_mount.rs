//! The server's own mount of all sessions, while sessions are deleted, archived and made again through the API.

use crate::bed::{eventually, pause};
use crate::real::{Real, repository};
use afs_types::Reason;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Writes through the API.
fn write(real: &Real, session: &str, path: &str, text: &str) {
    real.bed.run(&["fs", "write", "--parents", &format!("{session}:/{path}"), "--content", text]);
}

fn refused(real: &Real, args: &[&str], reason: Reason) {
    let (code, out, err) = real.bed.try_run(&[args, &["--json"]].concat());
    assert_ne!(code, 0, "{args:?}: {out}");
    let problem: serde_json::Value = serde_json::from_str(&err).unwrap_or_else(|e| panic!("{e}: {err}"));
    assert_eq!(problem["reason"], reason.as_str(), "{args:?}: {err}");
}

/// The kernel has looked at a file, and at a name that is not there. After `attempt`, which leaves the session as it is, it sees what others
/// make of both.
fn goes_on_seeing(real: &Real, session: &str, case: &str, attempt: impl FnOnce()) {
    let (dir, len) = (real.dir(session).join(case), |path: PathBuf| fs::metadata(path).map(|m| m.len()).ok());
    write(real, session, &format!("{case}/f"), "short");
    eventually(&format!("{case}: the file is there"), || len(dir.join("f")) == Some(5));
    assert_eq!(len(dir.join("g")), None, "{case}");
    attempt();
    write(real, session, &format!("{case}/f"), "much longer");
    write(real, session, &format!("{case}/g"), "new");
    eventually(&format!("{case}: the file has its new length"), || len(dir.join("f")) == Some(11));
    eventually(&format!("{case}: the new name is there"), || len(dir.join("g")) == Some(3));
}

/// Asks until somebody answers, and says then whether the directory is there.
fn is_there_at_the_first_answer(address: SocketAddr, dir: &Path) -> bool {
    for _ in 0..5_000 {
        let mut answer = Vec::new();
        let asked = TcpStream::connect(address).and_then(|mut stream| {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
            stream.read_to_end(&mut answer)
        });
        if asked.is_ok() && answer.starts_with(b"HTTP/1.1 200") {
            return dir.is_dir();
        }
        pause(Duration::from_millis(2));
    }
    panic!("nobody answers");
}

/// It answered first and mounted then: scripts that wait for an answer found an empty directory, and wrote below the mount to be.
#[test]
fn whoever_is_answered_finds_the_mount() {
    let mut real = Real::start();
    let id = real.session(None);
    let dir = real.dir(&id);
    assert!(dir.is_dir());
    for round in 0..10 {
        let address = real.running().addresses()[0];
        assert!(real.restart_beside(|| is_there_at_the_first_answer(address, &dir)), "round {round}");
    }
}

#[test]
fn a_mount_that_was_taken_away_is_there_again_after_a_restart() {
    let mut real = Real::start();
    let id = real.session(None);
    afs_fuse::unmount_path(&real.all, false).unwrap();
    assert!(!real.dir(&id).exists());
    // The end of a server that has no mount any more is in order, too.
    real.restart();
    assert!(real.dir(&id).is_dir());
}

#[test]
fn a_refused_end_of_a_session_leaves_no_mount_behind() {
    let real = Real::start();
    let id = real.session(None);
    let (delete, archive) = (["session", "delete", &id], ["session", "archive", &id]);
    goes_on_seeing(&real, &id, "etag", || {
        refused(&real, &[&delete[..], &["--etag", "999"]].concat(), Reason::RevisionMismatch);
    });
    write(&real, &id, "held", "x");
    let held = File::open(real.dir(&id).join("held")).unwrap();
    goes_on_seeing(&real, &id, "delete-open", || refused(&real, &delete, Reason::InUse));
    goes_on_seeing(&real, &id, "archive-open", || refused(&real, &archive, Reason::InUse));
    drop(held);
    let remote = real.remote(&id);
    goes_on_seeing(&real, &id, "delete-mounted", || refused(&real, &delete, Reason::InUse));
    goes_on_seeing(&real, &id, "archive-mounted", || refused(&real, &archive, Reason::InUse));
    real.bed.run(&["unmount", remote.to_str().unwrap()]);
    // That the kernel has looked at it is no use: without a file open in it, it goes.
    eventually("it can be deleted", || real.bed.try_run(&delete).0 == 0);
    eventually("its name is gone", || !real.dir(&id).exists());
}

#[test]
fn a_refusal_says_what_uses_the_session() {
    let real = Real::start();
    let id = real.session(None);
    write(&real, &id, "held", "x");
    let archive = || real.bed.try_run(&["session", "archive", &id]).2;
    let held = File::open(real.dir(&id).join("held")).unwrap();
    let said = archive();
    assert!(said.contains("next: close them") && !said.contains("unmount"), "{said}");
    drop(held);
    let remote = real.remote(&id);
    let said = archive();
    assert!(said.contains("attached mounts: 1") && said.contains("aether unmount DIR"), "{said}");
    assert!(!said.contains("--all"), "{said}");
    real.bed.run(&["unmount", remote.to_str().unwrap()]);
}

#[test]
fn a_session_that_outlives_its_time_leaves_no_mount_behind() {
    let real = Real::start();
    let id = real.session(None);
    write(&real, &id, "held", "x");
    let held = File::open(real.dir(&id).join("held")).unwrap();
    goes_on_seeing(&real, &id, "ttl", || {
        real.bed.run(&["session", "update", &id, "--ttl", "1s"]);
        // The server looks every second.
        pause(Duration::from_secs(4));
    });
    drop(held);
}

#[test]
fn an_archived_session_that_comes_back_is_seen_as_it_is_then() {
    let real = Real::start();
    let id = real.session(None);
    write(&real, &id, "d/f", "short");
    let open = File::open(real.dir(&id).join("d")).unwrap(); // keeps what the kernel knows of it
    let below = |name: &str| {
        let path = format!("/proc/self/fd/{}/{name}", open.as_raw_fd());
        fs::metadata(path).map(|meta| meta.len()).ok()
    };
    let changed = || open.metadata().map(|meta| (meta.mtime(), meta.mtime_nsec())).ok();
    assert_eq!((below("f"), below("g")), (Some(5), None));
    let before = changed();
    assert!(before.is_some());
    real.bed.run(&["session", "archive", &id]);
    eventually("what is open of it is refused", || changed().is_none());
    real.bed.run(&["session", "resume", &id]);
    write(&real, &id, "d/f", "much longer");
    write(&real, &id, "d/g", "new");
    eventually("the directory has its new time", || changed().is_some_and(|now| Some(now) != before));
    eventually("names are what they are now", || (below("f"), below("g")) == (Some(11), Some(3)));
    assert_eq!(fs::read_to_string(real.dir(&id).join("d/g")).unwrap(), "new");
}

#[test]
fn an_old_handle_never_reaches_a_new_session_with_the_same_id() {
    let real = Real::start();
    let repo = repository(&real.bed.path("repo"), 3);
    let (repo, id) = (repo.to_str().unwrap(), "sess_used_twice");
    let make = || drop(real.bed.json(&["session", "create", "--git", repo, "--id", id]));
    let file = real.dir(id).join("run.sh");
    make();
    let old = OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let old_ino = old.metadata().unwrap().ino();
    refused(&real, &["session", "delete", id], Reason::InUse);
    real.bed.run(&["session", "delete", "--force", id]);
    make();
    // Before the kernel has seen the new one, and after.
    for _ in 0..2 {
        let error = old.write_all_at(b"overwritten", 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Reason::Stale.errno()), "{error}");
        let error = old.set_len(0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Reason::Stale.errno()), "{error}");
        eventually("the new one is there", || fs::metadata(&file).is_ok_and(|meta| meta.ino() != old_ino));
        let low = |ino: u64| ino & u64::from(u32::MAX);
        assert_eq!(low(fs::metadata(&file).unwrap().ino()), low(old_ino), "both are one file of one base");
        assert_eq!(fs::read_to_string(&file).unwrap(), "echo hi\n");
    }
    assert_eq!(real.bed.run(&["fs", "cat", &format!("{id}:/run.sh")]), "echo hi\n");
    // The new one works, and is not the old one's.
    fs::write(&file, "new\n").unwrap();
    drop(old);
    assert_eq!(real.bed.run(&["fs", "cat", &format!("{id}:/run.sh")]), "new\n");
}
