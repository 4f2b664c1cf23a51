//! Edits, patches, change sets.

use super::*;

#[test]
fn edits() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let me = &By::default();
    let edit = |edits: Vec<Replacement>, dry_run| FileEdit { edits, dry_run, ..FileEdit::default() };
    let want = edit(vec![replacement("needle = 1", "needle = 2")], true);
    let revision = f.session().stamp().seq;
    let dry = f.edit_file(&p("/link"), &want, me).unwrap();
    assert_eq!((dry.replacements, f.session().stamp().seq), (1, revision));
    assert!(dry.diff.contains("-    let needle = 1;\n+    let needle = 2;\n"), "{}", dry.diff);
    assert!(text(&f, "/src/main.rs").contains("= 1"));
    let done = f.edit_file(&p("/link"), &FileEdit { dry_run: false, ..want }, me).unwrap();
    assert_eq!((done.diff, done.revision), (dry.diff, revision + 1));
    assert_ne!(done.entry.unwrap().etag, "");
    assert_eq!(dry.entry.unwrap().etag, "", "what was not done has none");
    let error = fails(
        f.edit_file(&p("/src/main.rs"), &edit(vec![replacement("needle = 1", "x")], false), me),
        Reason::EditNotFound,
    );
    assert!(error.message().starts_with("/src/main.rs: edits[0].old_text is not in the file"), "{error}");
    let wrong = |edits: Vec<Replacement>, reason, field: &str| {
        for dry_run in [true, false] {
            let error = fails(f.edit_file(&p("/src/main.rs"), &edit(edits.clone(), dry_run), me), reason);
            assert!(error.message().contains(field), "{error}");
            assert!(error.metadata().contains(&("field", field.to_owned())), "{error:?}");
        }
    };
    let good = replacement("needle = 2", "needle = 3");
    wrong(vec![good.clone(), replacement("gone", "x")], Reason::EditNotFound, "edits[1].old_text");
    wrong(vec![good.clone(), replacement("n", "x")], Reason::EditNotUnique, "edits[1].old_text");
    wrong(vec![good.clone(), replacement("", "x")], Reason::InvalidArgument, "edits[1].old_text");
    wrong(vec![good, replacement("same", "same")], Reason::InvalidArgument, "edits[1].new_text");
    fails(
        f.edit_file(&p("/src/main.rs"), &edit(vec![replacement("n", "x")], false), me),
        Reason::EditNotUnique,
    );
    fails(f.edit_file(&p("/none"), &edit(vec![replacement("n", "x")], false), me), Reason::NotFound);
    fails(f.edit_file(&p("/src"), &edit(vec![replacement("n", "x")], false), me), Reason::IsADirectory);
    f.session().write(f.stat(&p("/bin")).unwrap().attr.ino, 0, b"\xff", 0, 0).unwrap();
    fails(f.edit_file(&p("/bin"), &edit(vec![replacement("n", "x")], false), me), Reason::NotText);
}

#[test]
fn edits_from_many_threads_are_all_there() {
    const THREADS: usize = 3;
    const EDITS: usize = 15;
    let rig = Rig::new();
    rig.empty("sess_a");
    // Large, so that an edit takes long enough for others to come in between.
    let rest = "a line that nobody changes\n".repeat(40_000);
    let content = |n: usize| {
        let lines: String = (0..THREADS).map(|t| format!("{t}: {}\n", "x".repeat(n))).collect();
        lines + &rest
    };
    write(&files(&rig, "sess_a"), "/f", &content(0));
    std::thread::scope(|scope| {
        for t in 0..THREADS {
            let rig = &rig;
            scope.spawn(move || {
                let f = files(rig, "sess_a");
                for n in 0..EDITS {
                    let (old, new) =
                        (format!("{t}: {}\n", "x".repeat(n)), format!("{t}: {}\n", "x".repeat(n + 1)));
                    let edit = FileEdit { edits: vec![replacement(&old, &new)], ..FileEdit::default() };
                    f.edit_file(&p("/f"), &edit, &By::default()).unwrap();
                    let log = WriteOptions { at: WriteAt::End, ..WriteOptions::default() };
                    f.write_file(&p("/log"), &log, &By::default(), &mut &b"line\n"[..]).unwrap();
                }
            });
        }
    });
    let f = files(&rig, "sess_a");
    assert!(text(&f, "/f") == content(EDITS), "an edit is lost");
    assert_eq!(text(&f, "/log"), "line\n".repeat(THREADS * EDITS));
}

const GIT_PATCH: &str = "\
diff --git a/README.md b/docs/readme.md
similarity index 50%
rename from README.md
rename to docs/readme.md
--- a/README.md
+++ b/docs/readme.md
@@ -1,3 +1,3 @@
-# Title
+# New title
 
 needle one
diff --git a/src/main.rs b/src/main.rs
old mode 100644
new mode 100755
diff --git a/src/deep/lib.rs b/src/deep/lib.rs
deleted file mode 100644
--- a/src/deep/lib.rs
+++ /dev/null
@@ -1 +0,0 @@
-// nothing
diff --git a/link b/link
--- a/link
+++ b/link
@@ -1 +1 @@
-src/main.rs
\\ No newline at end of file
+docs/readme.md
\\ No newline at end of file
diff --git a/new/run.sh b/new/run.sh
new file mode 100755
--- /dev/null
+++ b/new/run.sh
@@ -0,0 +1,2 @@
+#!/bin/sh
+true
";

#[test]
fn git_patches() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let me = &By::default();
    let patch = |text: &str| Patch { text: text.into(), ..Patch::default() };
    let dry = f.apply_patch(&Patch { dry_run: true, ..patch(GIT_PATCH) }, me).unwrap();
    assert!(exists(&f, "/README.md") && !exists(&f, "/new"));
    let done = f.apply_patch(&patch(GIT_PATCH), me).unwrap();
    let shown: Vec<_> = done
        .files
        .iter()
        .map(|x| (x.path.to_text(), x.kind.clone(), x.lines_added, x.lines_removed))
        .collect();
    let renamed = ChangeKind::Renamed { from: p("/README.md"), modified: true };
    assert_eq!(
        shown,
        [
            ("/docs/readme.md".to_owned(), renamed, 1, 1),
            ("/src/main.rs".to_owned(), ChangeKind::Mode, 0, 0),
            ("/src/deep/lib.rs".to_owned(), ChangeKind::Deleted, 0, 1),
            ("/link".to_owned(), ChangeKind::Modified, 1, 1),
            ("/new/run.sh".to_owned(), ChangeKind::Added, 2, 0),
        ]
    );
    assert_eq!(
        dry.files.iter().map(|x| &x.kind).collect::<Vec<_>>(),
        done.files.iter().map(|x| &x.kind).collect::<Vec<_>>()
    );
    assert_eq!(text(&f, "/docs/readme.md"), "# New title\n\nneedle one\n");
    assert_eq!(text(&f, "/link"), "# New title\n\nneedle one\n");
    let mode = |path: &str| f.stat(&p(path)).unwrap().attr.mode;
    assert_eq!((mode("/src/main.rs"), mode("/new/run.sh")), (0o100_755, 0o100_755));
    assert!(!exists(&f, "/README.md") && !exists(&f, "/src/deep/lib.rs"));
    let revision = f.session().stamp().seq;
    // The second file does not fit: nothing of the first is there.
    let bad = "--- a/src/main.rs\n+++ b/src/main.rs\n@@ -1 +1 @@\n-fn main() {\n+fn other() {\n--- a/src/b.txt\n+++ b/src/b.txt\n@@ -1 +1 @@\n-x\n+y\n";
    let error = fails(f.apply_patch(&patch(bad), me), Reason::PatchConflict);
    assert_eq!(error.message(), "/src/b.txt: hunk 1 does not fit: line 1: want \"x\", the file has \"b\"");
    for fact in [("path", "/src/b.txt"), ("file", "2"), ("hunk", "1"), ("line", "1")] {
        assert!(error.metadata().contains(&(fact.0, fact.1.to_owned())), "{error:?}");
    }
    fails(f.apply_patch(&patch(GIT_PATCH), me), Reason::PatchConflict);
    let other = Patch { if_revision: Some(revision - 1), ..patch(bad) };
    fails(f.apply_patch(&other, me), Reason::RevisionMismatch);
    assert_eq!(f.session().stamp().seq, revision);
}

#[test]
fn envelope_patches() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let patch = "*** Begin Patch\n*** Update File: src/main.rs\n*** Move to: src/app.rs\n@@ fn main() {\n-    let needle = 1;\n\
        +    let needle = 3;\n*** Add File: src/new.rs\n+// new\n*** Delete File: src/b.txt\n*** End Patch\n";
    f.apply_patch(&Patch { text: patch.into(), ..Patch::default() }, &By::default()).unwrap();
    assert_eq!(text(&f, "/src/app.rs"), "fn main() {\n    let needle = 3;\n}\n");
    assert_eq!(text(&f, "/src/new.rs"), "// new\n");
    assert!(!exists(&f, "/src/b.txt") && exists(&f, "/src/c.txt") && !exists(&f, "/src/main.rs"));
    let error = fails(
        f.apply_patch(&Patch { text: patch.into(), ..Patch::default() }, &By::default()),
        Reason::PatchConflict,
    );
    assert!(error.message().starts_with("/src/main.rs: "), "{error}");
}

/// A text that lies in several pieces, some of them across the bounds of what is read at once.
#[test]
fn edits_of_a_file_in_pieces() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let base = "0123456789abcde\n".repeat(200_000);
    write(&f, "/p", &base);
    let mut want = base.into_bytes();
    for at in
        [5, limits::MAX_IO_BYTES - 3, limits::MAX_IO_BYTES + 10, 2 * limits::MAX_IO_BYTES, want.len() - 2]
    {
        let options = WriteOptions { at: WriteAt::Offset(at as u64), ..WriteOptions::default() };
        f.write_file(&p("/p"), &options, &By::default(), &mut &b"XYZ!"[..]).unwrap();
        want.resize(want.len().max(at + 4), 0);
        want[at..at + 4].copy_from_slice(b"XYZ!");
    }
    let edits = vec![Replacement { old: "XYZ!".into(), new: ".".into(), replace_all: true }];
    let done = f.edit_file(&p("/p"), &FileEdit { edits, ..FileEdit::default() }, &By::default()).unwrap();
    assert_eq!(done.replacements, 5);
    let want = String::from_utf8(want).unwrap().replace("XYZ!", ".");
    assert!(text(&f, "/p") == want, "another text");
    let lines = f.view().read_lines(&p("/p"), 65_535, 4, 0).unwrap();
    assert_eq!(lines.total_lines, want.lines().count() as u64);
    let shown: String = want.split_inclusive('\n').skip(65_534).take(4).collect();
    assert_eq!(lines.content, shown);
}

#[test]
fn patches_are_bounded_in_lines() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let me = &By::default();
    let add = |lines: usize| {
        let text = format!("*** Begin Patch\n*** Add File: n\n{}*** End Patch\n", "+\n".repeat(lines));
        Patch { text: text.into_bytes(), dry_run: true, ..Patch::default() }
    };
    let error = fails(f.apply_patch(&add(limits::MAX_PATCH_LINES - 2), me), Reason::MessageTooLarge);
    assert!(error.metadata().contains(&("limit", limits::MAX_PATCH_LINES.to_string())), "{error}");
    let done = f.apply_patch(&add(limits::MAX_PATCH_LINES - 3), me).unwrap();
    assert_eq!(done.files[0].lines_added, limits::MAX_PATCH_LINES as u64 - 3);
    write(&f, "/lines", &"\n".repeat(limits::MAX_PATCHED_LINES + 1));
    let text = b"*** Begin Patch\n*** Update File: lines\n@@\n+x\n*** End Patch\n".to_vec();
    let error = fails(f.apply_patch(&Patch { text, ..Patch::default() }, me), Reason::FileTooLarge);
    assert!(error.metadata().contains(&("limit", limits::MAX_PATCHED_LINES.to_string())), "{error}");
    // What a dry run would write is bounded for all of them together, and given back.
    let large = "x".repeat(limits::MAX_DRY_RUN_BYTES / 2);
    let write = |n: usize| {
        change(ChangeOp::Write {
            path: p(&format!("/w{n}")),
            content: large.clone().into(),
            mode: None,
            create_parents: false,
        })
    };
    for _ in 0..3 {
        let set =
            |n| ChangeSet { changes: (0..n).map(write).collect(), dry_run: true, ..ChangeSet::default() };
        f.submit_changes(&set(2), me).unwrap();
        fails(f.submit_changes(&set(3), me), Reason::MessageTooLarge);
    }
}

#[test]
fn change_sets_are_all_or_nothing() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let me = &By::default();
    let write = |path: &str, text: &str| ChangeOp::Write {
        path: p(path),
        content: text.to_owned().into(),
        mode: None,
        create_parents: true,
    };
    let changes = vec![
        change(write("/n/a", "one two")),
        change(ChangeOp::Edit { path: p("/n/a"), edits: vec![replacement("two", "three")] }),
        change(ChangeOp::Copy { source: p("/n"), destination: p("/m"), recursive: true, overwrite: false }),
        change(ChangeOp::Edit { path: p("/n/a"), edits: vec![replacement("one", "zero")] }),
        change(ChangeOp::Move { source: p("/src"), destination: p("/s"), overwrite: false }),
        change(ChangeOp::Symlink { path: p("/s/l"), target: b"main.rs".to_vec() }),
        change(ChangeOp::Chmod { path: p("/s/l"), mode: 0o600 }),
        change(ChangeOp::Mkdir { path: p("/x/y"), mode: Some(0o700), parents: true }),
        change(ChangeOp::Remove { path: p("/target"), recursive: true }),
    ];
    let set = ChangeSet { changes: changes.clone(), ..ChangeSet::default() };
    let revision = f.session().stamp().seq;
    let dry = f.submit_changes(&ChangeSet { dry_run: true, ..set.clone() }, me).unwrap();
    assert_eq!((f.session().stamp().seq, exists(&f, "/n")), (revision, false));
    let bad = [
        changes.clone(),
        vec![change(ChangeOp::Edit { path: p("/m/a"), edits: vec![replacement("zero", "x")] })],
    ]
    .concat();
    let error = fails(
        f.submit_changes(&ChangeSet { changes: bad, ..ChangeSet::default() }, me),
        Reason::EditNotFound,
    );
    assert!(
        error.message().starts_with("changes[9].edit: /m/a: edits[0].old_text is not in the file"),
        "{error}"
    );
    for fact in [("change", "9"), ("field", "changes[9].edit.edits[0].old_text"), ("path", "/m/a")] {
        assert!(error.metadata().contains(&(fact.0, fact.1.to_owned())), "{error:?}");
    }
    assert_eq!((f.session().stamp().seq, exists(&f, "/n")), (revision, false));
    let stale = ChangeSet { if_revision: Some(revision + 1), ..set.clone() };
    fails(f.submit_changes(&stale, me), Reason::RevisionMismatch);
    let done = f.submit_changes(&set, me).unwrap();
    let shown = |c: &afs_session::paths::Changes| {
        c.entries
            .iter()
            .map(|(path, e)| (path.to_text(), e.as_ref().map(|e| e.attr.mode)))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&done), shown(&dry));
    assert_eq!((text(&f, "/n/a"), text(&f, "/m/a")), ("zero three".into(), "one three".into()));
    assert_eq!(f.stat(&p("/s/main.rs")).unwrap().attr.mode, 0o100_600);
    assert_eq!(done.entries[8], (p("/target"), None));
    let guarded = Change {
        precondition: Precondition { if_absent: true, ..Precondition::default() },
        op: write("/n/a", "x"),
    };
    let error = fails(
        f.submit_changes(&ChangeSet { changes: vec![guarded], ..ChangeSet::default() }, me),
        Reason::EtagMismatch,
    );
    assert!(error.message().starts_with("changes[0].precondition: /n/a exists already"), "{error}");
    assert!(error.metadata().contains(&("field", "changes[0].precondition".to_owned())), "{error:?}");
}

#[test]
fn what_is_wrong_in_a_list_is_named_by_its_place() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let me = &By::default();
    let good = ChangeOp::Mkdir { path: p("/new"), mode: None, parents: false };
    let edit = |edits| ChangeOp::Edit { path: p("/src/main.rs"), edits };
    let link = |target: &[u8]| ChangeOp::Symlink { path: p("/l"), target: target.to_vec() };
    let change_of =
        |op| ChangeSet { changes: vec![change(good.clone()), change(op)], ..ChangeSet::default() };
    for (op, reason, field) in [
        (link(b""), Reason::InvalidArgument, "changes[1].symlink.target"),
        (link(b"a\0b"), Reason::InvalidArgument, "changes[1].symlink.target"),
        (edit(vec![]), Reason::InvalidArgument, "changes[1].edit.edits"),
        (
            edit(vec![replacement("needle", "x"), replacement("", "x")]),
            Reason::InvalidArgument,
            "changes[1].edit.edits[1].old_text",
        ),
        (ChangeOp::Remove { path: p("/none"), recursive: false }, Reason::NotFound, "changes[1].remove"),
        (ChangeOp::Chmod { path: p("/none"), mode: 0o600 }, Reason::NotFound, "changes[1].chmod"),
    ] {
        for dry_run in [true, false] {
            let set = ChangeSet { dry_run, ..change_of(op.clone()) };
            let error = fails(f.submit_changes(&set, me), reason);
            assert!(error.message().starts_with(field), "{error}");
            for fact in [("change", "1"), ("field", field)] {
                assert!(error.metadata().contains(&(fact.0, fact.1.to_owned())), "{error:?}");
            }
        }
    }
    let long = link(&[b'x'; limits::MAX_SYMLINK_BYTES + 1]);
    let error = f.submit_changes(&change_of(long), me).unwrap_err();
    assert!(error.metadata().contains(&("field", "changes[1].symlink.target".to_owned())), "{error:?}");
    assert!(!exists(&f, "/new"), "all or nothing");

    let remove = |names: &[&str]| SetAttributes {
        set_xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())],
        remove_xattrs: names.iter().map(|name| name.as_bytes().to_vec()).collect(),
        ..SetAttributes::default()
    };
    let error =
        fails(f.set_attributes(&p("/src/main.rs"), &remove(&["user.a", "user.b"]), me), Reason::NoAttribute);
    assert!(error.message().starts_with("/src/main.rs: remove_xattrs[1]: "), "{error}");
    assert!(error.metadata().contains(&("field", "remove_xattrs[1]".to_owned())), "{error:?}");
    let nameless = SetAttributes { set_xattrs: vec![(vec![], vec![])], ..SetAttributes::default() };
    let error = fails(f.set_attributes(&p("/src/main.rs"), &nameless, me), Reason::InvalidArgument);
    assert!(error.metadata().contains(&("field", "set_xattrs[\"\"]".to_owned())), "{error:?}");

    let globs = vec!["*.rs".to_owned(), "a{".to_owned()];
    let query = GrepQuery { pattern: "x".into(), globs, ..GrepQuery::default() };
    let found = f.view().grep(&query, &mut |_| Ok(ControlFlow::Continue(())));
    let error = fails(found, Reason::InvalidArgument);
    assert!(error.message().starts_with("globs[1]: "), "{error}");
}
