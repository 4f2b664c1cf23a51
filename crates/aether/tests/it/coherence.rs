//! One session through several mounts and the API at once: what the API has done, every mount sees at its next look; what a mount has done, soon.

use crate::bed::eventually;
use crate::real::Real;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The server's mount and two over the wire.
fn three(real: &Real, session: &str) -> [PathBuf; 3] {
    let second = real.bed.path("second");
    let first = real.remote(session);
    real.bed.run(&["mount", "--session", session, "second"]);
    [real.dir(session), first, second]
}

fn len(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.len())
}

/// Whatever the reader's kernel has in its caches, it does not stay.
fn sees(writer: &Path, reader: &Path, case: &str) {
    let (theirs, ours) = (writer.join(case), reader.join(case));
    fs::create_dir(&theirs).unwrap();
    eventually("a directory", || ours.is_dir());
    File::create(theirs.join("f")).unwrap();
    for n in 1..15_u64 {
        // An absent name, a size and a content, known to the reader's kernel.
        let (name, other) = (format!("g{n}"), format!("h{n}"));
        let is_new = |path: &Path| fs::read(path).is_ok_and(|bytes| bytes == name.as_bytes());
        assert_eq!(len(&ours.join(&name)), None, "{case}: {n}");
        eventually("the size before", || len(&ours.join("f")) == Some(n - 1));
        OpenOptions::new().append(true).open(theirs.join("f")).unwrap().write_all(b"x").unwrap();
        eventually("a size", || len(&ours.join("f")) == Some(n));
        eventually("a content", || fs::read(ours.join("f")).unwrap().len() as u64 == n);
        fs::write(theirs.join(&name), name.as_bytes()).unwrap();
        eventually("a new file", || is_new(&ours.join(&name)));
        fs::set_permissions(theirs.join(&name), Permissions::from_mode(0o600)).unwrap();
        eventually("a mode", || fs::metadata(ours.join(&name)).unwrap().mode() & 0o777 == 0o600);
        fs::rename(theirs.join(&name), theirs.join(&other)).unwrap();
        eventually("a rename", || len(&ours.join(&name)).is_none() && is_new(&ours.join(&other)));
        fs::remove_file(theirs.join(&other)).unwrap();
        eventually("a removal", || len(&ours.join(&other)).is_none());
        eventually("a listing", || fs::read_dir(&ours).unwrap().count() == 1);
    }
}

#[test]
fn mounts_of_one_session_see_each_other() {
    let real = Real::start();
    let session = real.session(None);
    let mounts = three(&real, &session);
    for (w, writer) in mounts.iter().enumerate() {
        for (r, reader) in mounts.iter().enumerate().filter(|(r, _)| *r != w) {
            sees(writer, reader, &format!("from-{w}-to-{r}"));
        }
    }
}

#[test]
fn a_mount_sees_what_the_api_did_at_once() {
    let real = Real::start();
    let session = real.session(None);
    let mounts = three(&real, &session);
    for n in 0..15 {
        let name = format!("f{n}");
        assert!(mounts.iter().all(|dir| len(&dir.join(&name)).is_none() && len(&dir.join("f")) != Some(n)));
        real.bed.run(&["fs", "write", &format!("{session}:/{name}"), "--content", "new"]);
        assert!(mounts.iter().all(|dir| len(&dir.join(&name)) == Some(3)), "{name}");
        real.bed.run(&["fs", "write", &format!("{session}:/f"), "--content", &"x".repeat(n as usize)]);
        assert!(mounts.iter().all(|dir| len(&dir.join("f")) == Some(n)), "{n}");
    }
    let kept = real.bed.json(&["checkpoint", "create", &session]);
    fs::write(mounts[1].join("later"), "later").unwrap();
    eventually("what a mount wrote", || mounts.iter().all(|dir| len(&dir.join("later")) == Some(5)));
    real.bed.run(&["checkpoint", "restore", &session, kept["checkpoint_id"].as_str().unwrap()]);
    assert!(mounts.iter().all(|dir| len(&dir.join("later")).is_none()), "a restore");
}

/// Each change holds its directory in its own kernel, and is told to the others' kernels, which need theirs.
#[test]
fn mounts_that_change_one_directory_at_the_same_time_never_wait_in_a_circle() {
    let real = Real::start();
    let session = real.session(None);
    let mounts = three(&real, &session);
    std::thread::scope(|scope| {
        for (who, dir) in mounts.iter().enumerate() {
            scope.spawn(move || {
                for n in 0..150 {
                    let (mine, moved) =
                        (dir.join(format!("{who}-{n}")), dir.join(format!("{who}-{n}-moved")));
                    fs::write(&mine, "text").unwrap();
                    OpenOptions::new().append(true).open(dir.join("shared-log")).map_or_else(
                        |_| drop(File::create(dir.join("shared-log"))),
                        |mut log| log.write_all(b"line\n").unwrap(),
                    );
                    fs::rename(&mine, &moved).unwrap();
                    if n % 3 > 0 {
                        fs::remove_file(&moved).unwrap();
                    }
                }
            });
        }
    });
    let listed = |dir: &PathBuf| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    eventually("nothing is missing or left", || listed(&mounts[0]).len() == 3 * 50 + 1);
    let all = listed(&mounts[0]);
    eventually("all list the same", || mounts.iter().all(|dir| listed(dir) == all));
    let sizes = || mounts.iter().map(|dir| len(&dir.join("shared-log"))).collect::<Vec<_>>();
    eventually("all have the same log", || sizes().iter().all(|size| size.is_some() && *size == sizes()[0]));
    assert_eq!(sizes()[0].map(|size| size % 5), Some(0), "whole lines");
}
