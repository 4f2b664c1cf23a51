//! One session through several mounts and the API at once: what one has done, every other sees at its next look.

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

/// Whatever the reader's kernel has in its caches, it is not what was.
fn sees_at_once(writer: &Path, reader: &Path, case: &str) {
    let (theirs, ours) = (writer.join(case), reader.join(case));
    fs::create_dir(&theirs).unwrap();
    assert!(ours.is_dir(), "{case}");
    File::create(theirs.join("f")).unwrap();
    for n in 1..40_u64 {
        // An absent name, a size and a content, known to the reader's kernel.
        let (name, other) = (format!("g{n}"), format!("h{n}"));
        assert_eq!((len(&ours.join(&name)), len(&ours.join("f"))), (None, Some(n - 1)), "{case}: {n}");
        assert_eq!(fs::read(ours.join("f")).unwrap().len() as u64, n - 1);
        OpenOptions::new().append(true).open(theirs.join("f")).unwrap().write_all(b"x").unwrap();
        assert_eq!(len(&ours.join("f")), Some(n), "{case}: a size");
        assert_eq!(fs::read(ours.join("f")).unwrap().len() as u64, n, "{case}: a content");
        fs::write(theirs.join(&name), name.as_bytes()).unwrap();
        assert_eq!(fs::read(ours.join(&name)).unwrap(), name.as_bytes(), "{case}: a new file");
        fs::set_permissions(theirs.join(&name), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::metadata(ours.join(&name)).unwrap().mode() & 0o777, 0o600, "{case}: a mode");
        fs::rename(theirs.join(&name), theirs.join(&other)).unwrap();
        assert_eq!(
            (len(&ours.join(&name)), len(&ours.join(&other))),
            (None, Some(name.len() as u64)),
            "{case}"
        );
        fs::remove_file(theirs.join(&other)).unwrap();
        assert_eq!(len(&ours.join(&other)), None, "{case}: a file that is gone");
        assert_eq!(fs::read_dir(&ours).unwrap().count(), 1, "{case}: a listing");
    }
}

#[test]
fn mounts_of_one_session_see_each_other_at_once() {
    let real = Real::start();
    let session = real.session(None);
    let mounts = three(&real, &session);
    for (w, writer) in mounts.iter().enumerate() {
        for (r, reader) in mounts.iter().enumerate().filter(|(r, _)| *r != w) {
            sees_at_once(writer, reader, &format!("from-{w}-to-{r}"));
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
    assert!(mounts.iter().all(|dir| len(&dir.join("later")) == Some(5)));
    real.bed.run(&["checkpoint", "restore", &session, kept["checkpoint_id"].as_str().unwrap()]);
    assert!(mounts.iter().all(|dir| len(&dir.join("later")).is_none()), "a restore");
}

/// Each change holds its directory in its own kernel, and waits until the others' kernels, which need theirs, have taken note.
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
    let all = listed(&mounts[0]);
    assert_eq!(all.len(), 3 * 50 + 1);
    assert!(mounts.iter().all(|dir| listed(dir) == all));
    let sizes: Vec<_> = mounts.iter().map(|dir| len(&dir.join("shared-log"))).collect();
    assert!(sizes.iter().all(|size| *size == sizes[0] && size.is_some_and(|s| s % 5 == 0)), "{sizes:?}");
}
