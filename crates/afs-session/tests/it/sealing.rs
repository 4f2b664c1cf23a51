//! Folding and sealing in the background: what it does to disk and RAM, and that nobody can tell.

use crate::rig::{FILE, LAYER_RECORDS, MERGED_DELTA_BYTES, Rig, put, text};
use afs_session::{Seek, Session};
use afs_store::{Journal, Space};
use afs_types::{Ino, ROOT_INO, Reason};
use std::ops::ControlFlow;
use std::sync::Arc;

fn unsealed(s: &Session) -> usize {
    s.tree().overlay_inodes().filter(|(_, i)| i.content.is_unsealed()).count()
}

fn count(rig: &Rig, space: Space) -> u64 {
    let mut n = 0;
    rig.journal.sync().unwrap();
    rig.journal
        .scan(space, b"", None, &mut |_, _| {
            n += 1;
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    n
}

/// Everything that a reader can see of a file.
fn seen(s: &Session, ino: Ino) -> impl PartialEq + std::fmt::Debug + use<> {
    let attr = s.getattr(ino).unwrap();
    let all = s.read(ino, 0, 4 << 20).unwrap();
    let some: Vec<_> = (0..20).map(|n| s.read(ino, n * 40_000, 7_000).unwrap()).collect();
    let seek =
        |what| (0..30).map(|n| s.seek(ino, n * 20_000, what).map_err(|e| e.reason)).collect::<Vec<_>>();
    (attr, all, some, seek(Seek::Data), seek(Seek::Hole), s.stamp().seq)
}

/// Files of every shape: tiny, holes at both ends, many pieces, larger than a pack takes, large with a little that is new.
fn shapes(rig: &Rig, s: &Arc<Session>) -> Vec<Ino> {
    let make = |name: &str| s.create(ROOT_INO, name.as_bytes(), FILE, 0, 0).unwrap().0.ino;
    let write = |ino, offset, bytes: &[u8]| s.write(ino, offset, bytes, 0, 0).map(drop).unwrap();
    let noise = |n: u64, len: usize| -> Vec<u8> {
        (0..len as u64).map(|i| ((i + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    };
    let (tiny, holes, pieces, large, patched, cut) =
        (make("tiny"), make("holes"), make("pieces"), make("large"), make("patched"), make("cut"));
    write(tiny, 0, b"x");
    write(holes, 50_000, &noise(1, 9_000));
    write(holes, 200_000, &noise(2, 300_000));
    s.setattr(holes, afs_session::AttrSet { size: Some(700_000), ..Default::default() }, 0, 0).unwrap();
    for n in [5, 1, 3, 0, 4, 2u64] {
        write(pieces, n * 1_000, &noise(n, 1_000 + n as usize * 100));
    }
    write(large, 0, &noise(9, 900_000));
    write(patched, 0, &noise(10, 800_000));
    rig.engine.seal(s).unwrap();
    write(patched, 300_000, &noise(11, 4_096));
    write(patched, 790_000, &noise(12, 20_000));
    write(cut, 0, &noise(13, 600_000));
    s.setattr(cut, afs_session::AttrSet { size: Some(500_001), ..Default::default() }, 0, 0).unwrap();
    s.fallocate(cut, 100_000, 50_000, true, true, 0, 0).unwrap();
    vec![tiny, holes, pieces, large, patched, cut]
}

#[test]
fn nobody_can_tell_that_files_were_sealed() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let files = shapes(&rig, &a);
    let before: Vec<_> = files.iter().map(|ino| seen(&a, *ino)).collect();
    rig.hooks.hold_folds();
    let fork = rig.fork("sess_a", "sess_b");
    assert!(unsealed(&a) > 1);
    assert_eq!(rig.engine.seal(&a).unwrap(), 0, "the fork closed the layer: the background thread has it");
    rig.hooks.release_folds();
    rig.engine.settle();
    assert_eq!(unsealed(&a), 0);
    let after: Vec<_> = files.iter().map(|ino| seen(&a, *ino)).collect();
    assert_eq!(before, after);
    drop((a, fork));
    // On disk nothing names the data log any more, for the fork neither.
    let rig = rig.restart();
    for id in ["sess_a", "sess_b"] {
        let s = rig.get(id);
        assert_eq!(unsealed(&s), 0, "{id}");
        let loaded: Vec<_> = files.iter().map(|ino| seen(&s, *ino)).collect();
        assert_eq!(before, loaded, "{id}");
    }
    assert_eq!(count(&rig, Space::Record), 0);
}

#[test]
fn what_is_idle_is_sealed_and_what_is_not_is_left_alone() {
    let rig = Rig::new();
    let (a, b) = (rig.empty("sess_a"), rig.empty("sess_b"));
    let start = 1_800_000_000_000_000_000;
    rig.clock.stop_at(start);
    put(&a, "f", "x");
    a.open(ROOT_INO).unwrap();
    let minute = 60_000_000_000;
    rig.clock.stop_at(start + minute - 1);
    put(&b, "f", "y");
    assert_eq!(rig.engine.seal_idle().unwrap(), 0, "not idle for long enough");
    let before = a.stamp();
    rig.clock.stop_at(start + minute);
    assert_eq!(rig.engine.seal_idle().unwrap(), 1, "idle, also with files open");
    rig.engine.settle();
    assert_eq!((unsealed(&a), unsealed(&b)), (0, 1));
    assert_eq!((a.stamp().seq, text(&a, "f").unwrap()), (before.seq, "x".to_owned()));
    assert_eq!(rig.engine.seal_idle().unwrap(), 0, "once is enough");
    put(&a, "f", "z");
    rig.clock.stop_at(start + 3 * minute);
    assert_eq!(rig.engine.seal_idle().unwrap(), 2);
    rig.engine.settle();
    assert_eq!((text(&a, "f").unwrap(), unsealed(&a), unsealed(&b)), ("z".to_owned(), 0, 0));
}

/// While a file is sealed somebody writes to it: what they wrote counts.
#[test]
fn a_write_during_sealing_is_kept() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    put(&a, "f", "old");
    put(&a, "g", "other");
    rig.hooks.hold_folds();
    rig.engine.checkpoint(a.id(), "", "", None).unwrap();
    put(&a, "f", "new");
    rig.hooks.release_folds();
    rig.engine.settle();
    assert_eq!((text(&a, "f").unwrap(), text(&a, "g").unwrap()), ("new".to_owned(), "other".to_owned()));
    assert_eq!(unsealed(&a), 1, "what was sealed is taken over, what is new is not");
    drop(a);
    let rig = rig.restart();
    let a = rig.get("sess_a");
    assert_eq!((text(&a, "f").unwrap(), text(&a, "g").unwrap()), ("new".to_owned(), "other".to_owned()));
}

/// The bytes are in blobs before the delta that names them is on disk, at whatever moment the power goes.
#[test]
fn a_power_cut_during_sealing_loses_nothing() {
    for seed in 0..8 {
        let rig = Rig::new();
        let a = rig.empty("sess_a");
        for n in 0..12 {
            put(&a, &format!("f{n}"), &"text ".repeat(n + 1));
        }
        a.fsync().unwrap();
        rig.engine.seal(&a).unwrap();
        put(&a, "g", "not waited for");
        drop(a);
        let rig = rig.crash(seed);
        let a = rig.get("sess_a");
        for n in 0..12 {
            assert_eq!(text(&a, &format!("f{n}")).unwrap(), "text ".repeat(n + 1), "seed {seed}");
        }
    }
}

/// A session that writes for days without a checkpoint: what loading it costs stays bounded.
#[test]
fn a_long_history_is_folded_as_it_grows() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    put(&a, "f", "");
    let ino = a.lookup(ROOT_INO, b"f").unwrap().ino;
    for n in 0..40 * LAYER_RECORDS {
        a.write(ino, n % 100, &[n as u8], 0, 0).unwrap();
    }
    rig.engine.settle();
    let seq = a.stamp().seq;
    assert!(count(&rig, Space::Record) <= 2 * LAYER_RECORDS, "{} records", count(&rig, Space::Record));
    let want = a.read(ino, 0, 100).unwrap();
    drop(a);
    let rig = rig.restart();
    let a = rig.get("sess_a");
    assert_eq!((a.read(ino, 0, 100).unwrap(), a.stamp().seq), (want, seq));
}

/// Layers that were closed and never folded (the server stopped first) are folded when they are loaded.
#[test]
fn what_was_left_unfolded_is_folded_when_it_is_loaded() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    rig.hooks.hold_folds();
    for n in 0..5 {
        put(&a, &format!("f{n}"), "x");
        rig.engine.checkpoint(a.id(), "", "", None).unwrap();
    }
    rig.engine.sync().unwrap();
    // The thread is in the middle of the first one; the journal dies, so nothing of it arrives.
    let journal = rig.journal.crash(1).unwrap();
    rig.hooks.release_folds();
    drop(a);
    let rig = rig.with_journal(journal);
    assert!(count(&rig, Space::Record) >= 15);
    let a = rig.get("sess_a");
    assert_eq!(text(&a, "f4").unwrap(), "x");
    rig.engine.settle();
    assert_eq!(count(&rig, Space::Record), 0);
    drop(a);
    assert_eq!(text(&rig.restart().get("sess_a"), "f0").unwrap(), "x");
}

/// Sealing is no copy-up either: of a large file only what is new is read and stored.
#[test]
fn a_small_write_into_a_large_file_is_sealed_small() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let ino = a.create(ROOT_INO, b"large", FILE, 0, 0).unwrap().0.ino;
    for n in 0..8u64 {
        let bytes: Vec<u8> = (0..1u64 << 20).map(|i| ((i * n) >> 7) as u8 ^ i as u8).collect();
        a.write(ino, n << 20, &bytes, 0, 0).unwrap();
    }
    rig.engine.seal(&a).unwrap();
    rig.journal.sync().unwrap();
    let used = rig.blobs.usage();
    a.write(ino, 3 << 20, &[7; 4096], 0, 0).unwrap();
    assert_eq!(rig.engine.seal(&a).unwrap(), 4096, "not the file");
    rig.journal.sync().unwrap();
    let now = rig.blobs.usage();
    assert_eq!(now.raw_bytes, used.raw_bytes);
    assert!(now.pack_bytes - used.pack_bytes < 8_192);
    assert_eq!(a.read(ino, (3 << 20) - 1, 4098).unwrap()[1..4097], [7; 4096]);
    assert_eq!(unsealed(&a), 0);
    assert_eq!(a.read(ino + 1, 0, 1).unwrap_err().reason, Reason::Stale);
}

fn segments(rig: &Rig) -> Vec<u32> {
    let files = std::fs::read_dir(rig.dir.path().join("store/log")).unwrap();
    let number = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".log")?.parse().ok();
    let mut all: Vec<u32> = files.filter_map(|f| number(f.unwrap().file_name())).collect();
    all.sort_unstable();
    all
}

/// The data log does not only grow: a segment goes at the next start once nothing names it, and not before.
#[test]
fn segments_that_nothing_names_go_at_the_next_start() {
    let rig = Rig::new();
    let (a, b) = (rig.empty("sess_a"), rig.empty("sess_b"));
    put(&a, "f", "one");
    rig.hooks.hold_folds();
    put(&b, "f", "not sealed");
    drop((a, b));
    let rig = rig.restart();
    let first = segments(&rig);
    assert_eq!(first.len(), 1, "two sessions name it");
    put(&rig.get("sess_a"), "g", "two");
    rig.engine.seal(&rig.get("sess_a")).unwrap();
    // The layer from before the restart, which the first change closed, is the background thread's.
    rig.engine.settle();
    let rig = rig.restart();
    assert_eq!(segments(&rig)[0], first[0], "sess_b names it still");
    assert_eq!(text(&rig.get("sess_b"), "f").unwrap(), "not sealed");
    rig.engine.seal(&rig.get("sess_b")).unwrap();
    assert!(segments(&rig).contains(&first[0]), "not while trees in RAM may name it");
    let rig = rig.restart();
    assert_eq!(segments(&rig), [] as [u32; 0]);
    assert_eq!(text(&rig.get("sess_a"), "f").unwrap(), "one");
    assert_eq!(text(&rig.get("sess_a"), "g").unwrap(), "two");
    assert_eq!(text(&rig.get("sess_b"), "f").unwrap(), "not sealed");
    assert_eq!(rig.blobs.usage().log_bytes, 0);
}

/// What README and docs/semantics.md say of deletions: a record goes, and no bytes. What nobody had sealed of a deleted session keeps its segment.
#[test]
fn a_deletion_removes_records_and_no_bytes() {
    let rig = Rig::new();
    put(&rig.empty("sess_a"), "f", "never sealed");
    let (log, layers) = (segments(&rig), count(&rig, Space::Layer));
    assert!(log.len() == 1 && layers > 0, "{log:?} {layers}");
    rig.engine.delete_session(&Rig::id("sess_a"), false, None).unwrap();
    let is_left = |rig: &Rig| segments(rig).contains(&log[0]) && count(rig, Space::Layer) == layers;
    assert!(is_left(&rig));
    let rig = rig.restart();
    assert!(is_left(&rig), "not at the next start either");
    assert_eq!(rig.engine.get_session(&Rig::id("sess_a")).unwrap_err().reason, Reason::SessionNotFound);
}

/// Extents that were copied name the segment they came from, whoever wrote it and however long ago.
#[test]
fn a_copied_extent_keeps_its_segment() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    put(&a, "f", "text");
    let ino = |s: &Session, name: &str| s.lookup(ROOT_INO, name.as_bytes()).unwrap().ino;
    drop(a);
    let rig = rig.restart();
    // Folding the first layer before the copy is made would give the copy a blob to stand on.
    rig.hooks.hold_folds();
    let a = rig.get("sess_a");
    put(&a, "other", "in the next segment");
    let copy = a.create(ROOT_INO, b"copy", FILE, 0, 0).unwrap().0.ino;
    a.copy_range((ino(&a, "f"), 0), (copy, 0), 4, 0).unwrap();
    a.unlink(ROOT_INO, b"f", 0, 0).unwrap();
    rig.hooks.release_folds();
    drop(a);
    let rig = rig.restart();
    assert_eq!(segments(&rig).len(), 2);
    assert_eq!(text(&rig.get("sess_a"), "copy").unwrap(), "text");
}

/// Notes that cannot be read, and segments from before there were notes: nothing is removed.
#[test]
fn when_in_doubt_no_segment_is_removed() {
    let rig = Rig::new();
    put(&rig.empty("sess_a"), "f", "x");
    rig.engine.seal(&rig.get("sess_a")).unwrap();
    let mut batch = afs_store::Batch::new();
    batch.put(Space::Name, *b"log\0short", b"");
    rig.journal.submit(batch).unwrap();
    let rig = rig.restart();
    assert_eq!(segments(&rig).len(), 1);
    let mut batch = afs_store::Batch::new();
    batch.delete(Space::Name, *b"log\0short").delete(Space::Meta, *b"log_notes_since");
    rig.journal.submit(batch).unwrap();
    let rig = rig.restart();
    assert_eq!(segments(&rig).len(), 1, "the server that wrote it noted nothing");
    let rig = rig.restart();
    assert_eq!(segments(&rig).len(), 1);
}

/// A value that the journal does not take must never come up: what is in the layers' records would be gone with them.
#[test]
fn deltas_are_not_merged_without_end() {
    let rig = Rig::new();
    let a = rig.empty("sess_a");
    let value = |n: usize| vec![n as u8; 3_000];
    for n in 0..16 {
        let ino = a.create(ROOT_INO, format!("file-{n}").as_bytes(), FILE, 0, 0).unwrap().0.ino;
        a.setxattr(ino, b"user.big", &value(n), None, 0, 0).unwrap();
        rig.engine.seal(&a).unwrap();
    }
    drop(a);
    let mut sizes = Vec::new();
    rig.journal.sync().unwrap();
    let mut note = |_: &[u8], value: &[u8]| {
        sizes.push(value.len());
        Ok(ControlFlow::Continue(()))
    };
    rig.journal.scan(Space::Delta, b"", None, &mut note).unwrap();
    assert!(sizes.iter().all(|bytes| *bytes <= MERGED_DELTA_BYTES), "{sizes:?}");
    assert!(sizes.iter().any(|bytes| *bytes > MERGED_DELTA_BYTES / 2), "nothing was merged: {sizes:?}");
    let rig = rig.restart();
    let a = rig.get("sess_a");
    for n in 0..16 {
        let ino = a.lookup(ROOT_INO, format!("file-{n}").as_bytes()).unwrap().ino;
        assert_eq!(*a.getxattr(ino, b"user.big").unwrap(), value(n)[..]);
    }
}
