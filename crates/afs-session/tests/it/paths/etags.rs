//! Etags: what changes them, and what never does.

use super::*;
use crate::rig::put;

const ALL: [&str; 8] =
    ["/README.md", "/mounted", "/appended", "/large", "/copy", "/empty", "/src/b.txt", "/src/c.txt"];

fn etags(f: &Files<'_>) -> [String; 8] {
    ALL.map(|path| f.stat(&p(path)).unwrap().etag)
}

fn is_sealed(f: &Files<'_>) -> bool {
    f.session().tree().overlay_inodes().all(|(_, inode)| !inode.content.is_unsealed())
}

fn if_etag(etag: &str) -> WriteOptions {
    let precondition = Precondition { if_etag: Some(etag.to_owned()), if_absent: false };
    WriteOptions { precondition, ..WriteOptions::default() }
}

/// Files of a base, written through a mount, by the API as a whole and in pieces, copied, empty, and with two names.
fn written(f: &Files<'_>) {
    put(f.session(), "mounted", "x\n");
    let end = WriteOptions { at: WriteAt::End, ..parents() };
    f.write_file(&p("/appended"), &end, &By::default(), &mut &b"one\n"[..]).unwrap();
    let large = vec![7; limits::MAX_IO_BYTES + 5];
    f.write_file(&p("/large"), &parents(), &By::default(), &mut &large[..]).unwrap();
    let from = CopyFrom { session: None, path: p("/mounted"), recursive: false, overwrite: false };
    f.copy_path(&from, &p("/copy"), &By::default()).unwrap();
    write(f, "/empty", "");
    let ino = f.stat(&p("/src/b.txt")).unwrap().attr.ino;
    f.session().write(ino, 0, b"B", 0, 0).unwrap();
}

/// Nobody writes, and the server closes layers, seals, folds, drops and loads: a client that kept an etag has kept the right one.
#[test]
fn an_etag_changes_with_the_content_and_never_by_itself() {
    let mut rig = Rig::new();
    let f = based(&rig, "sess_a");
    written(&f);
    let before = etags(&f);
    assert!(!is_sealed(&f), "or the test shows nothing");
    let id = f.session().id().clone();
    let point = rig.engine.checkpoint(&id, "", "", None).unwrap().id;
    assert_eq!(etags(&f), before, "a checkpoint");
    drop(rig.fork("sess_a", "sess_b"));
    rig.engine.settle();
    rig.engine.seal(f.session()).unwrap();
    assert!(is_sealed(&f));
    assert_eq!(etags(&f), before, "sealed");
    assert_eq!(etags(&files(&rig, "sess_b")), before, "a fork");

    // A write changes the etag of that file, also one that puts the same bytes there.
    put(f.session(), "mounted", "x\n");
    let mut after = etags(&f);
    assert_ne!(after[1], before[1]);
    rig.engine.seal(f.session()).unwrap();
    assert!(is_sealed(&f));
    assert_eq!(etags(&f), after, "sealed again");
    let written = after[1].clone();
    after[1].clone_from(&before[1]);
    assert_eq!(after, before, "the others");

    drop(f);
    rig.engine.settle();
    assert!(rig.engine.evict(&id).unwrap());
    assert_eq!(etags(&files(&rig, "sess_a"))[1], written, "evicted");
    rig = rig.restart();
    let f = files(&rig, "sess_a");
    assert_eq!(etags(&f)[1], written, "restarted");
    put(f.session(), "mounted", "y\n");
    rig.engine.restore(&id, &point, None, None).unwrap();
    assert_eq!((etags(&f), text(&f, "/mounted")), (before.clone(), "x\n".into()), "restored");

    // What a client kept from the beginning is good for exactly that content.
    for stale in [&written, "v1-1", "b3-00000000000000000000000000000000"] {
        fails(
            f.write_file(&p("/mounted"), &if_etag(stale), &By::default(), &mut &b"z"[..]),
            Reason::EtagMismatch,
        );
    }
    for (path, etag) in ALL.iter().zip(&before).take(6) {
        f.write_file(&p(path), &if_etag(etag), &By::default(), &mut &b"z"[..]).unwrap();
        fails(f.write_file(&p(path), &if_etag(etag), &By::default(), &mut &b"z"[..]), Reason::EtagMismatch);
    }
}

/// Going back does not make an etag mean something else: of all that one path ever had, no two contents share one.
#[test]
fn no_etag_of_a_session_ever_stands_for_two_contents() {
    let mut rig = Rig::new();
    rig.empty("sess_a");
    let id = Rig::id("sess_a");
    let mut known: std::collections::BTreeMap<String, String> = Default::default();
    let mut points = Vec::new();
    for round in 0..6 {
        let f = files(&rig, "sess_a");
        for n in 0..3 {
            put(f.session(), "f", &format!("{round} {n}"));
            let (etag, content) = (f.stat(&p("/f")).unwrap().etag, text(&f, "/f"));
            assert_eq!(known.entry(etag.clone()).or_insert_with(|| content.clone()), &content, "{etag}");
        }
        points.push(rig.engine.checkpoint(&id, "", "", None).unwrap().id);
        rig.engine.restore(&id, &points[round / 2], None, None).unwrap();
        let (etag, content) = (f.stat(&p("/f")).unwrap().etag, text(&f, "/f"));
        assert_eq!(known.get(&etag), Some(&content), "{etag}: restored");
        // Not waited for: the crash may take this one back, and its number is not used again.
        put(f.session(), "f", &format!("{round} lost"));
        known.insert(f.stat(&p("/f")).unwrap().etag, text(&f, "/f"));
        drop(f);
        rig = if round % 2 == 0 { rig.crash(round as u64) } else { rig.restart() };
    }
    assert!(known.len() >= 6 * 4, "{known:?}");
}

/// What is not done has no revision, so it has no etag either: the next change could get the same one.
#[test]
fn what_was_not_done_has_no_etag() {
    let rig = Rig::new();
    rig.empty("sess_a");
    let f = files(&rig, "sess_a");
    let me = &By::default();
    let old = write(&f, "/f", "one\n");
    let edit = FileEdit { edits: vec![replacement("one", "two")], dry_run: true, ..FileEdit::default() };
    assert_eq!(f.edit_file(&p("/f"), &edit, me).unwrap().entry.unwrap().etag, "");
    let diff = b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-one\n+two\n".to_vec();
    let patch = Patch { text: diff, dry_run: true, ..Patch::default() };
    let dry = f.apply_patch(&patch, me).unwrap().files;
    assert_eq!((&dry[0].old_etag, &dry[0].new_etag), (&Some(old.clone()), &None));
    let op = |text: &str| ChangeOp::Write {
        path: p("/f"),
        content: text.as_bytes().to_vec().into(),
        mode: None,
        create_parents: false,
    };
    let set = ChangeSet { changes: vec![change(op("two"))], dry_run: true, ..ChangeSet::default() };
    let dry = f.submit_changes(&set, me).unwrap();
    assert_eq!(dry.entries[0].1.as_ref().unwrap().etag, "");

    // A set that fails on what it changed itself says no etag either; one that fails on what was there does.
    let stale = Precondition { if_etag: Some("v1-1".into()), if_absent: false };
    let second = Change { op: op("three"), precondition: stale.clone() };
    let set = |changes| ChangeSet { changes, ..ChangeSet::default() };
    let error =
        fails(f.submit_changes(&set(vec![change(op("two")), second.clone()]), me), Reason::EtagMismatch);
    assert!(error.metadata().iter().all(|(key, _)| *key != "etag"), "{error:?}");
    let error = fails(f.submit_changes(&set(vec![second]), me), Reason::EtagMismatch);
    assert!(error.metadata().contains(&("etag", old.clone())), "{error:?}");
    assert_eq!(f.stat(&p("/f")).unwrap().etag, old);
}
