//! Directories become bases.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use afs_base::{ImportSpec, NoProgress, Progress};
use afs_core::base::{BaseTable, NodeKind};
use afs_types::{ROOT_INO, Reason, SystemRng};
use common::*;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Compares a base with the directory that it was made of.
fn assert_same(world: &World, table: &BaseTable, dir: u64, path: &Path) {
    let mut names: Vec<Vec<u8>> =
        fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().as_bytes().to_vec()).collect();
    names.sort();
    let found: Vec<Vec<u8>> = table.children(dir).map(|e| e.name.to_vec()).collect();
    assert_eq!(found, names, "{path:?}");
    for entry in table.children(dir) {
        let path = path.join(OsStr::from_bytes(entry.name));
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!(entry.mode, meta.mode(), "{path:?}");
        assert_eq!((entry.uid, entry.gid), (meta.uid(), meta.gid()));
        assert_eq!(entry.mtime_ns, meta.mtime() * 1_000_000_000 + meta.mtime_nsec(), "{path:?}");
        assert!(entry.git_oid.is_none());
        if meta.is_dir() {
            assert_same(world, table, entry.ino, &path);
        } else if meta.is_file() {
            assert_eq!(world.content(&entry), fs::read(&path).unwrap(), "{path:?}");
            assert_eq!(u64::from(entry.nlink), meta.nlink(), "{path:?}");
        } else if meta.is_symlink() {
            assert_eq!(world.content(&entry), fs::read_link(&path).unwrap().as_os_str().as_bytes());
        } else {
            assert_eq!((entry.kind, u64::from(entry.rdev)), (NodeKind::Special, meta.rdev()));
        }
    }
}

#[test]
fn a_directory_is_copied_as_it_is() {
    let world = World::new();
    let root = world.path("tree");
    fs::create_dir_all(root.join("a/b/empty dir")).unwrap();
    for i in 0..500 {
        fs::create_dir_all(root.join(format!("d{}", i % 13))).unwrap();
        fs::write(root.join(format!("d{}/f{i}", i % 13)), format!("{i} ").repeat(i * 7)).unwrap();
    }
    fs::write(root.join("big"), vec![b'z'; 3 << 20]).unwrap();
    fs::write(root.join("edge-1"), vec![1; (256 << 10) - 1]).unwrap();
    fs::write(root.join("edge"), vec![2; 256 << 10]).unwrap();
    fs::write(root.join("edge+1"), vec![3; (256 << 10) + 1]).unwrap();
    fs::write(root.join("none"), b"").unwrap();
    for name in [&b"\xff\xfe"[..], b"new\nline", b" ", b"...", b"-x"] {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(root.join("run"), b"#!").unwrap();
    fs::set_permissions(root.join("run"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("a"), PermissionsExt::from_mode(0o1700)).unwrap();
    symlink("../../etc/passwd", root.join("a/out")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    fs::hard_link(root.join("big"), root.join("a/b/same-big")).unwrap();
    fs::hard_link(root.join("none"), root.join("a/none2")).unwrap();
    fs::hard_link(root.join("none"), root.join("d1/none3")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o640),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    if rustix::process::geteuid().is_root() {
        let null = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("null"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::from(0o666),
            null,
        )
        .unwrap();
        rustix::fs::chown(
            root.join("run"),
            Some(rustix::fs::Uid::from_raw(1234)),
            Some(rustix::fs::Gid::from_raw(99)),
        )
        .unwrap();
        fs::set_permissions(root.join("run"), PermissionsExt::from_mode(0o4751)).unwrap();
    }
    set_mtime(&root.join("d0/f0"), -1_500_000_001);
    set_mtime(&root.join("d0/f13"), 4_102_444_800_123_456_789);
    let repo = Repo::new(root.join("nested"));
    repo.write("x", b"x");
    repo.commit_all("x");
    for _ in 0..3 {
        let imported = world.import_local(&root).unwrap();
        let table = table_of(&imported);
        assert_same(&world, &table, ROOT_INO, &root);
        let (a, b) = (table.lookup(ROOT_INO, b"big"), find(&table, "a/b/same-big").unwrap().ino);
        assert_eq!(a, Some(b), "hard links are one inode");
        assert!(imported.upstream.is_none() && imported.git.is_none());
    }
    let again = world.import_local(&root).unwrap();
    assert_eq!(again.stored_bytes, 0);
    assert_eq!(afs_base::resolve(&ImportSpec::Local { path: root }, &world.dirs).unwrap(), "");
}

#[test]
fn empty_directories_and_the_empty_source() {
    let world = World::new();
    let root = world.path("nothing");
    fs::create_dir(&root).unwrap();
    for imported in [world.import_local(&root).unwrap(), world.import(&ImportSpec::Empty).unwrap()] {
        let table = table_of(&imported);
        assert_eq!((table.len(), imported.totals.dirs, imported.totals.files), (1, 1, 0));
    }
}

#[test]
fn what_is_no_directory_is_refused() {
    let world = World::new();
    let file = world.path("file");
    fs::write(&file, "x").unwrap();
    for path in [file, world.path("nope")] {
        assert_eq!(world.import_local(&path).unwrap_err().reason, Reason::SourceUnavailable);
    }
    let above = world.dir.path();
    fs::create_dir_all(&world.dirs.temp).unwrap();
    let error = world.import_local(above).unwrap_err();
    assert_eq!(error.reason, Reason::InvalidArgument, "{error:?}");
}

/// Runs one test of this file in a process of its own, as another user if need be; true in that process.
fn alone(test: &str, uid: Option<u32>) -> bool {
    if std::env::var_os("AFS_ALONE").is_some() {
        return true;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    // Another user may not reach the build directory.
    let copy = dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = std::process::Command::new(copy);
    if let Some(uid) = uid {
        std::os::unix::process::CommandExt::uid(&mut command, uid);
    }
    command.args(["--exact", test]).env("AFS_ALONE", "1").env("TMPDIR", dir.path());
    let out = loop {
        match command.output() {
            // A process that another test is starting still has our copy open for writing.
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            out => break out.unwrap(),
        }
    };
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    false
}

#[test]
fn an_unreadable_file_is_named() {
    // Root reads everything: become nobody.
    let uid = rustix::process::geteuid().is_root().then_some(65_534);
    if !alone("an_unreadable_file_is_named", uid) {
        return;
    }
    let world = World::new();
    let root = world.path("tree");
    fs::create_dir_all(root.join("sub/dir")).unwrap();
    fs::write(root.join("sub/secret"), "x").unwrap();
    fs::set_permissions(root.join("sub/secret"), PermissionsExt::from_mode(0o0)).unwrap();
    let error = world.import_local(&root).unwrap_err();
    assert_eq!(error.reason, Reason::PermissionDenied);
    assert!(error.message().contains("tree/sub/secret"), "{error:?}");
    fs::remove_file(root.join("sub/secret")).unwrap();
    fs::set_permissions(root.join("sub/dir"), PermissionsExt::from_mode(0o0)).unwrap();
    let error = world.import_local(&root).unwrap_err();
    assert!(
        error.reason == Reason::PermissionDenied && error.message().contains("tree/sub/dir"),
        "{error:?}"
    );
    fs::set_permissions(root.join("sub/dir"), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn names_swapped_during_the_walk_never_lead_outside() {
    let world = World::new();
    let (root, outside) = (world.path("tree"), world.path("outside"));
    for dir in [&root, &outside] {
        for i in 0..20 {
            let sub = dir.join(format!("d{i}/e"));
            fs::create_dir_all(&sub).unwrap();
            let text = if *dir == outside { "OUTSIDE" } else { "inside" };
            (0..10).for_each(|j| fs::write(sub.join(format!("f{j}")), text).unwrap());
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0usize;
            while !stop.load(Ordering::Relaxed) {
                let (dir, aside) = (root.join(format!("d{}", round % 20)), root.join("aside"));
                let _ = fs::rename(&dir, &aside);
                let _ = symlink(outside.join(format!("d{}", round % 20)), &dir);
                let _ = fs::remove_file(&dir);
                let _ = fs::rename(&aside, &dir);
                let file = dir.join("e/f3");
                let _ = fs::rename(&file, dir.join("e/aside"));
                let _ = symlink(outside.join("d0/e/f3"), &file);
                let _ = fs::remove_file(&file);
                let _ = rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &file,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::from(0o600),
                    0,
                );
                let _ = fs::remove_file(&file);
                let _ = fs::rename(dir.join("e/aside"), &file);
                round += 1;
            }
        });
        for _ in 0..60 {
            let imported = match world.import_local(&root) {
                Ok(imported) => imported,
                Err(e) => {
                    assert_eq!(e.reason, Reason::Unavailable, "{e:?}");
                    continue;
                }
            };
            let table = table_of(&imported);
            for (path, entry) in paths(&table) {
                if entry.kind == NodeKind::File {
                    assert_eq!(world.content(&entry), b"inside", "{path:?}");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_file_that_grows_is_stored_as_it_was_at_some_moment() {
    let world = World::new();
    let root = world.path("tree");
    fs::create_dir(&root).unwrap();
    let file = root.join("log");
    fs::write(&file, "").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write;
            let mut log = fs::File::options().append(true).open(&file).unwrap();
            while !stop.load(Ordering::Relaxed) {
                log.write_all(&[b'l'; 1000]).unwrap();
                if log.metadata().unwrap().len() > 4 << 20 {
                    log.set_len(0).unwrap();
                }
            }
        });
        for _ in 0..50 {
            // Cut in the very moment: a copy would have failed too.
            let Ok(imported) = world.import_local(&root) else { continue };
            let table = table_of(&imported);
            let entry = find(&table, "log").unwrap();
            assert!(world.content(&entry).iter().all(|b| *b == b'l'));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn deep_and_wide_directories_need_few_descriptors() {
    // The limit is the whole process's.
    if !alone("deep_and_wide_directories_need_few_descriptors", None) {
        return;
    }
    let world = World::new();
    let root = world.path("tree");
    fs::create_dir(&root).unwrap();
    (0..2500).for_each(|i| fs::create_dir(root.join(format!("w{i}"))).unwrap());
    let mut deep = root.clone();
    for _ in 0..600 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("end"), "x").unwrap();
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let small = rustix::process::Rlimit { current: Some(512), maximum: limits.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, small).unwrap();
    let imported = afs_base::import(
        &ImportSpec::Local { path: root },
        &world.dirs,
        &world.blobs,
        &SystemRng,
        NOW_NS,
        &NoProgress,
    );
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).unwrap();
    assert_eq!(imported.unwrap().totals.dirs, 3101);
}

#[test]
fn too_deep_is_refused_by_name() {
    let world = World::new();
    let root = world.path("tree");
    fs::create_dir(&root).unwrap();
    // Deeper than one path can say: made step by step.
    let mut dir = fs::File::open(&root).unwrap();
    for _ in 0..1100 {
        rustix::fs::mkdirat(&dir, "d", rustix::fs::Mode::from(0o755)).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
        dir = fs::File::from(rustix::fs::openat(&dir, "d", flags, rustix::fs::Mode::empty()).unwrap());
    }
    hostile(world.import_local(&root), "/d/d/d");
}

/// Notes how many bytes it is told of, and cancels when there are more than `most`.
struct Counted {
    most: u64,
    last: AtomicU64,
    told: Mutex<Vec<u64>>,
}

impl Progress for Counted {
    fn update(&self, _: &str, _: u64, _: Option<u64>) {}
    fn bytes(&self, _: &str, done: u64) {
        self.last.store(done, Ordering::SeqCst);
        self.told.lock().unwrap().push(done);
    }
    fn cancelled(&self) -> bool {
        self.last.load(Ordering::SeqCst) > self.most
    }
}

#[test]
fn one_large_file_is_no_silence_and_can_be_stopped_in_the_middle() {
    const LEN: u64 = 64 << 20;
    let world = World::new();
    let root = world.path("tree");
    fs::create_dir(&root).unwrap();
    fs::File::create(root.join("large")).unwrap().set_len(LEN).unwrap();
    let spec = ImportSpec::Local { path: root };
    let run = |most| {
        let progress = Counted { most, last: AtomicU64::new(0), told: Mutex::default() };
        let ended = afs_base::import(&spec, &world.dirs, &world.blobs, &SystemRng, NOW_NS, &progress).err();
        (ended, progress.told.into_inner().unwrap())
    };
    let (error, told) = run(LEN / 4);
    assert_eq!(error.map(|e| e.reason), Some(Reason::Unavailable));
    assert!(told.iter().max().is_some_and(|n| *n < LEN / 2), "stopped late: {told:?}");
    let (error, told) = run(u64::MAX);
    assert!(error.is_none(), "{error:?}");
    let between: Vec<_> = told.iter().filter(|n| (1..LEN).contains(n)).collect();
    assert!(between.len() >= 4 && told.is_sorted(), "{told:?}");
}
