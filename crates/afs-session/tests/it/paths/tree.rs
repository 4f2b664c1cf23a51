//! Directories, links, moves, copies, removals, attributes.

use super::*;

#[test]
fn directories_links_moves_removals() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let me = &By::default();
    fails(f.mkdir(&p("/a/b/c"), None, false, me), Reason::NotFound);
    let made = f.mkdir(&p("/a/b/c"), Some(0o700), true, me).unwrap().entry.unwrap();
    assert_eq!((made.attr.mode, f.stat(&p("/a")).unwrap().attr.mode), (0o040_700, 0o040_755));
    f.mkdir(&p("/a/b/c"), None, true, me).unwrap();
    assert!(f.mkdir(&p("/dirlink"), None, true, me).unwrap().entry.unwrap().attr.is_dir());
    fails(f.mkdir(&p("/out"), None, false, me), Reason::AlreadyExists);
    assert!(f.mkdir(&p("/out"), None, true, me).unwrap().entry.unwrap().attr.is_dir());
    assert!(
        f.stat(&p("/etc/passwd")).unwrap().attr.is_dir(),
        "made where the link leads, inside the session"
    );
    fails(f.mkdir(&p("/README.md"), None, true, me), Reason::AlreadyExists);
    fails(f.mkdir(&SessionPath::root(), None, false, me), Reason::AlreadyExists);
    let link = f.symlink(&p("/a/l"), b"b/c", me).unwrap().entry.unwrap();
    assert_eq!(link.target.unwrap(), b"b/c");
    fails(f.symlink(&p("/a/l"), b"x", me), Reason::AlreadyExists);
    fails(f.symlink(&p("/a/m"), b"", me), Reason::InvalidArgument);
    let hard = f.hard_link(&p("/README.md"), &p("/a/readme"), me).unwrap().entry.unwrap();
    assert_eq!(hard.attr.nlink, 2);
    let error = fails(f.hard_link(&p("/src"), &p("/a/src"), me), Reason::NotPermitted);
    assert!(error.message().starts_with("/src: "), "{error}");
    let none = &Precondition::default();
    let revision = f.session().stamp().seq;
    f.move_path(&p("/src"), &p("/a/moved"), false, none, me).unwrap();
    assert_eq!(f.session().stamp().seq, revision + 1, "a directory moves in one operation");
    assert_eq!(text(&f, "/a/moved/deep/lib.rs"), "// nothing\n");
    fails(f.move_path(&p("/a"), &p("/a/b/x"), false, none, me), Reason::MoveIntoSelf);
    fails(f.move_path(&p("/README.md"), &p("/bin"), false, none, me), Reason::AlreadyExists);
    f.move_path(&p("/README.md"), &p("/bin"), true, none, me).unwrap();
    fails(f.move_path(&p("/target"), &p("/a"), true, none, me), Reason::NotEmpty);
    // The path to the destination led through what was moved: it does not any more, and the answer is there all the same.
    f.symlink(&p("/way"), b"a", me).unwrap();
    let moved = f.move_path(&p("/way"), &p("/way/by"), false, none, me).unwrap().entry.unwrap();
    assert_eq!(
        (moved.attr.ino, moved.target.unwrap()),
        (f.stat(&p("/a/by")).unwrap().attr.ino, b"a".to_vec())
    );
    fails(f.stat(&p("/way")), Reason::NotFound);
    f.remove(&p("/a/by"), false, none, me).unwrap();
    fails(f.move_path(&SessionPath::root(), &p("/x"), true, none, me), Reason::NotPermitted);
    fails(f.move_path(&p("/bin"), &p("/no/x"), true, none, me), Reason::NotFound);
    fails(f.remove(&p("/a"), false, none, me), Reason::NotEmpty);
    let before = paths(&f.view()).len();
    let done = f.remove(&p("/a"), true, none, me).unwrap();
    assert_eq!((done.entry, paths(&f.view()).len() < before), (None, true));
    assert!(!paths(&f.view()).iter().any(|x| x.starts_with("/a")));
    assert_eq!(f.stat(&p("/bin")).unwrap().attr.nlink, 1, "its other name went with the directory");
    fails(f.remove(&p("/a"), true, none, me), Reason::NotFound);
    fails(f.remove(&SessionPath::root(), true, none, me), Reason::NotPermitted);
    f.remove(&p("/dirlink"), true, none, me).unwrap();
    assert!(!exists(&f, "/dirlink"));
}

#[test]
fn attributes() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let me = &By::default();
    let set =
        AttrSet { mode: Some(0o600), uid: Some(5), size: Some(3), mtime_ns: Some(77), ..AttrSet::default() };
    let want =
        SetAttributes { set, set_xattrs: vec![(b"user.k".to_vec(), b"v".to_vec())], ..Default::default() };
    let entry = f.set_attributes(&p("/link"), &want, me).unwrap().entry.unwrap();
    let a = entry.attr;
    assert_eq!((a.mode, a.uid, a.size, a.mtime_ns), (0o100_600, 5, 3, 77));
    assert_eq!(text(&f, "/src/main.rs"), "fn ");
    assert_eq!(&*f.session().getxattr(a.ino, b"user.k").unwrap(), b"v");
    let gone = SetAttributes { remove_xattrs: vec![b"user.k".to_vec()], ..Default::default() };
    f.set_attributes(&p("/src/main.rs"), &gone, me).unwrap();
    let revision = f.session().stamp().seq;
    let error = fails(f.set_attributes(&p("/src/main.rs"), &gone, me), Reason::NoAttribute);
    assert!(error.message().starts_with("/src/main.rs: "), "{error}");
    assert_eq!(f.session().stamp().seq, revision);
}

#[test]
fn copies_share_bytes_and_keep_everything() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let me = &By::default();
    let ino = f.stat(&p("/src/main.rs")).unwrap().attr.ino;
    f.session().setxattr(ino, b"user.k", b"v", None, 0, 0).unwrap();
    f.session().write(ino, 0, b"FN", 0, 0).unwrap();
    f.symlink(&p("/src/l"), b"../README.md", me).unwrap();
    let used = || {
        let usage = rig.dir.path().join("store");
        walkdir(&usage)
    };
    let before = used();
    let from = |path: &str, session: Option<&str>| CopyFrom {
        session: session.map(|s| SessionId::parse(s).unwrap()),
        path: p(path),
        recursive: true,
        overwrite: false,
    };
    f.copy_path(&from("/src", None), &p("/copy"), me).unwrap();
    let check = |f: &Files<'_>| {
        assert_eq!(text(f, "/copy/main.rs"), "FN main() {\n    let needle = 1;\n}\n");
        let (a, b) = (f.stat(&p("/copy/b.txt")).unwrap().attr, f.stat(&p("/copy/c.txt")).unwrap().attr);
        assert_eq!((a.ino, a.nlink, a.mode), (b.ino, 2, 0o100_755));
        assert_eq!(f.stat(&p("/copy/l")).unwrap().target.unwrap(), b"../README.md");
        let main = f.stat(&p("/copy/main.rs")).unwrap().attr;
        assert_eq!(&*f.session().getxattr(main.ino, b"user.k").unwrap(), b"v");
    };
    check(&f);
    let times = |path: &str| f.stat(&p(path)).unwrap().attr.mtime_ns;
    for (a, b) in [("/src", "/copy"), ("/src/deep", "/copy/deep"), ("/src/b.txt", "/copy/b.txt")] {
        assert_eq!(times(a), times(b), "{a}");
    }
    rig.empty("sess_b");
    let g = files(&rig, "sess_b");
    g.copy_path(&from("/src", Some("sess_a")), &p("/copy"), me).unwrap();
    check(&g);
    assert_eq!(used(), before, "no byte was stored");
    write(&g, "/copy/main.rs", "other");
    check(&f);
    fails(f.copy_path(&from("/src", None), &p("/copy"), me), Reason::AlreadyExists);
    fails(f.copy_path(&from("/src", None), &p("/src/deep/x"), me), Reason::MoveIntoSelf);
    fails(
        f.copy_path(&CopyFrom { recursive: false, ..from("/src", None) }, &p("/x"), me),
        Reason::IsADirectory,
    );
    let over = |path: &str| CopyFrom { overwrite: true, ..from(path, None) };
    fails(f.copy_path(&over("/src"), &p("/copy"), me), Reason::NotEmpty);
    fails(f.copy_path(&over("/bin"), &p("/copy"), me), Reason::IsADirectory);
    fails(f.copy_path(&over("/src/b.txt"), &p("/src/c.txt"), me), Reason::AlreadyExists);
    f.copy_path(&over("/README.md"), &p("/bin"), me).unwrap();
    assert_eq!(text(&f, "/bin"), text(&f, "/README.md"));
}

/// Bytes of files below a directory, but for the log that appends went to.
fn walkdir(dir: &std::path::Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap()).fold(0, |sum, e| {
        sum + if e.file_type().unwrap().is_dir() { walkdir(&e.path()) } else { e.metadata().unwrap().len() }
    })
}
