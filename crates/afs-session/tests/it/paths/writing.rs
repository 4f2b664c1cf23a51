//! Writing from streams: preconditions, retries, failures.

use super::*;

#[test]
fn writing_whole_files() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let before = f.stat(&p("/src/b.txt")).unwrap();
    write(&f, "/src/b.txt", "new\n");
    let after = f.stat(&p("/src/b.txt")).unwrap();
    assert_eq!((after.attr.ino, after.attr.mode, after.attr.nlink), (before.attr.ino, before.attr.mode, 2));
    assert_eq!(text(&f, "/src/c.txt"), "new\n", "the other name of the same file");
    assert!(!after.base && after.etag != before.etag);
    // Through a link, and through one whose target does not exist yet.
    let done = f.write_file(&p("/link"), &parents(), &By::default(), &mut &b"linked"[..]).unwrap();
    assert!(done.entry.unwrap().attr.is_file());
    assert_eq!(text(&f, "/src/main.rs"), "linked");
    write(&f, "/out", "inside");
    assert_eq!(text(&f, "/etc/passwd"), "inside", "links never leave the session");
    fails(
        f.write_file(&p("/no/x"), &WriteOptions::default(), &By::default(), &mut &b""[..]),
        Reason::NotFound,
    );
    fails(f.write_file(&p("/src"), &parents(), &By::default(), &mut &b"x"[..]), Reason::IsADirectory);
    fails(
        f.write_file(&p("/README.md/x"), &parents(), &By::default(), &mut &b"x"[..]),
        Reason::NotADirectory,
    );
    write(&f, "/empty", "");
    assert_eq!(text(&f, "/empty"), "");
    let mode = WriteOptions { mode: Some(0o100_700), ..WriteOptions::default() };
    let done = f.write_file(&p("/tool"), &mode, &By::default(), &mut &b"x"[..]).unwrap();
    assert_eq!(done.entry.unwrap().attr.mode, 0o100_700);
    let large = vec![7; 3 * limits::MAX_IO_BYTES + 5];
    f.write_file(&p("/large"), &parents(), &By::default(), &mut &large[..]).unwrap();
    assert!(bytes(&f.view(), "/large") == large);
    assert!(f.stat(&p("/large")).unwrap().etag.starts_with('v'), "written, so it is told by its revision");
    assert!(
        std::fs::read_dir(rig.dir.path().join("engine/temp")).unwrap().next().is_none(),
        "no spool is left"
    );
}

struct Breaks(Cursor<Vec<u8>>);

impl Read for Breaks {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(out)? {
            0 => Err(std::io::Error::other(Error::new(Reason::TimedOut, "the client left"))),
            n => Ok(n),
        }
    }
}

#[test]
fn a_stream_that_fails_changes_nothing() {
    let rig = Rig::new();
    rig.empty("sess_a");
    let f = files(&rig, "sess_a");
    write(&f, "/f", "old");
    let revision = f.session().stamp().seq;
    for at in [WriteAt::Whole, WriteAt::End, WriteAt::Offset(1)] {
        for len in [0, 10, 400_000] {
            let options = WriteOptions { at, ..parents() };
            for path in ["/f", "/new/g"] {
                let error = fails(
                    f.write_file(&p(path), &options, &By::default(), &mut Breaks(Cursor::new(vec![1; len]))),
                    Reason::TimedOut,
                );
                assert!(error.message().contains("the client left"), "{error}");
            }
        }
    }
    let options = WriteOptions { digest: Some([1; 32]), ..parents() };
    fails(f.write_file(&p("/f"), &options, &By::default(), &mut &b"x"[..]), Reason::DigestMismatch);
    let options = WriteOptions { digest: Some(*blake3::hash(b"x").as_bytes()), ..parents() };
    assert_eq!((f.session().stamp().seq, paths(&f.view())), (revision, vec!["/f".to_owned()]));
    f.write_file(&p("/f"), &options, &By::default(), &mut &b"x"[..]).unwrap();
    assert_eq!(text(&f, "/f"), "x");
}

#[test]
fn append_and_offset() {
    let rig = Rig::new();
    rig.empty("sess_a");
    let f = files(&rig, "sess_a");
    let at = |at| WriteOptions { at, ..WriteOptions::default() };
    let put = |path: &str, where_, text: &[u8]| {
        f.write_file(&p(path), &at(where_), &By::default(), &mut &text[..]).map(|w| w.entry.unwrap())
    };
    put("/log", WriteAt::End, b"one\n").unwrap();
    let entry = put("/log", WriteAt::End, b"two\n").unwrap();
    assert!(entry.etag.starts_with('v'), "{}", entry.etag);
    put("/log", WriteAt::Offset(1), b"NE").unwrap();
    put("/log", WriteAt::Offset(10), b"!").unwrap();
    assert_eq!(text(&f, "/log"), "oNE\ntwo\n\0\0!");
    put("/new", WriteAt::Offset(2), b"x").unwrap();
    assert_eq!(text(&f, "/new"), "\0\0x");
    f.mkdir(&p("/d"), None, false, &By::default()).unwrap();
    for bytes in [&b""[..], b"x"] {
        fails(put("/d", WriteAt::End, bytes), Reason::IsADirectory);
    }
    let big = vec![3; 2 * limits::MAX_IO_BYTES + 1];
    put("/big", WriteAt::End, &big).unwrap();
    put("/big", WriteAt::End, &big).unwrap();
    assert_eq!(bytes(&f.view(), "/big"), [&big[..], &big].concat());
    // An etag stays what it is when the content is sealed into a blob.
    let want = f.stat(&p("/big")).unwrap().etag;
    rig.engine.seal(f.session()).unwrap();
    assert_eq!(f.stat(&p("/big")).unwrap().etag, want);
    let precondition = Precondition { if_etag: Some(want), if_absent: false };
    let options = WriteOptions { precondition, ..WriteOptions::default() };
    f.write_file(&p("/big"), &options, &By::default(), &mut &b"x"[..]).unwrap();
    fails(f.write_file(&p("/big"), &options, &By::default(), &mut &b"y"[..]), Reason::EtagMismatch);
}

#[test]
fn preconditions() {
    let rig = Rig::new();
    rig.empty("sess_a");
    let f = files(&rig, "sess_a");
    let put = |etag: Option<&str>, if_absent, text: &str| {
        let precondition = Precondition { if_etag: etag.map(str::to_owned), if_absent };
        let options = WriteOptions { precondition, ..WriteOptions::default() };
        f.write_file(&p("/f"), &options, &By::default(), &mut text.as_bytes()).map(|w| w.entry.unwrap().etag)
    };
    fails(put(Some("*"), false, "x"), Reason::EtagMismatch);
    let one = put(None, true, "one").unwrap();
    let error = fails(put(None, true, "x"), Reason::EtagMismatch);
    assert!(error.metadata().contains(&("etag", one.clone())));
    let two = put(Some(&one), false, "two").unwrap();
    fails(put(Some(&one), false, "x"), Reason::EtagMismatch);
    put(Some(&format!("\"{one}\", \"{two}\"")), false, "three").unwrap();
    put(Some("*"), false, "four").unwrap();
    assert_eq!(text(&f, "/f"), "four");
    let stale = Precondition { if_etag: Some(one), if_absent: false };
    fails(f.remove(&p("/f"), false, &stale, &By::default()), Reason::EtagMismatch);
    fails(f.move_path(&p("/f"), &p("/g"), false, &stale, &By::default()), Reason::EtagMismatch);
}

#[test]
fn retries_have_one_effect_and_the_same_answer() {
    let rig = Rig::new();
    rig.empty("sess_a");
    let f = files(&rig, "sess_a");
    let append = WriteOptions { at: WriteAt::End, ..WriteOptions::default() };
    let send = |f: &Files<'_>, text: &str| f.write_file(&p("/log"), &append, &by("r1"), &mut text.as_bytes());
    let first = send(&f, "a").unwrap();
    assert_eq!(send(&f, "a").unwrap().revision, first.revision);
    fails(send(&f, "b"), Reason::RequestIdReused);
    let edit = FileEdit { edits: vec![replacement("a", "b")], ..FileEdit::default() };
    let edited = f.edit_file(&p("/log"), &edit, &by("r2")).unwrap();
    let patch = Patch {
        text: b"--- a/log\n+++ b/log\n@@ -1 +1 @@\n-b\n\\ No newline at end of file\n+c\n".to_vec(),
        ..Patch::default()
    };
    let patched = f.apply_patch(&patch, &by("r3")).unwrap();
    let set = ChangeSet {
        changes: vec![change(ChangeOp::Remove { path: p("/log"), recursive: false })],
        ..ChangeSet::default()
    };
    let changed = f.submit_changes(&set, &by("r4")).unwrap();
    f.mkdir(&p("/d"), None, false, &by("r5")).unwrap();
    drop(f);
    // All of it was on disk when it was answered, since a retry must find it.
    let rig = rig.crash(1);
    let f = files(&rig, "sess_a");
    assert_eq!(send(&f, "a").unwrap().revision, first.revision);
    assert_eq!(send(&f, "a").unwrap().entry, first.entry, "as it was then: the file is gone since");
    let again = f.edit_file(&p("/log"), &edit, &by("r2")).unwrap();
    assert_eq!((again.revision, again.replacements, &again.diff), (edited.revision, 1, &edited.diff));
    assert_eq!(again.entry, edited.entry);
    let again = f.apply_patch(&patch, &by("r3")).unwrap();
    assert_eq!((again.revision, again.files), (patched.revision, patched.files));
    assert_eq!(f.submit_changes(&set, &by("r4")).unwrap().revision, changed.revision);
    f.mkdir(&p("/d"), None, false, &by("r5")).unwrap();
    fails(f.mkdir(&p("/d"), None, false, &By::default()), Reason::AlreadyExists);
}
