//! Changes by others become visible, and telling the kernel of them never deadlocks with what it is doing.

use crate::bed::{Bed, eventually};
use afs_fuse::{Caps, MountOptions};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

#[test]
fn what_nobody_changes_is_not_asked_twice() {
    let bed = Bed::new();
    bed.sh("mkdir d; for i in $(seq 100); do echo $i >d/$i; done; cat d/* >/dev/null; ls -l d >/dev/null; ls -l d >/dev/null");
    let before = bed.counters();
    bed.sh("cat d/* >/dev/null; ls -l d >/dev/null; test ! -e d/none; test ! -e d/none");
    let again = bed.counters().since(&before);
    assert_eq!(again.reads, 0, "{again:?}");
    assert_eq!(again.opens, again.opens_cached, "{again:?}");
    assert!(again.lookups <= 10 && again.readdirs <= 1, "{again:?}");
}

#[test]
fn remote_changes_become_visible() {
    let bed = Bed::new();
    let (fs_, root) = (&bed.fs, 1);
    assert!(fs::metadata(bed.path("f")).is_err()); // now a cached negative entry
    fs_.remote_write(root, b"f", b"first");
    bed.settle();
    assert_eq!(fs::read_to_string(bed.path("f")).unwrap(), "first");
    let mut open = File::open(bed.path("f")).unwrap();
    fs_.remote_write(root, b"f", b"second and longer");
    bed.settle();
    assert_eq!(fs::metadata(bed.path("f")).unwrap().len(), 17);
    assert_eq!(fs::read_to_string(bed.path("f")).unwrap(), "second and longer");
    let mut text = String::new();
    open.rewind().unwrap();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "second and longer", "an open descriptor sees it too");
    let mtime = fs::metadata(bed.path("")).unwrap().mtime_nsec();
    assert_eq!(bed.sh("ls"), "f\n");
    fs_.remote_rename(root, b"f", b"g");
    bed.settle();
    assert_eq!(bed.sh("ls"), "g\n");
    assert_ne!(fs::metadata(bed.path("")).unwrap().mtime_nsec(), mtime);
    assert!(fs::metadata(bed.path("f")).is_err());
    fs_.remote_unlink(root, b"g");
    bed.settle();
    assert!(fs::metadata(bed.path("g")).is_err());
    assert_eq!(bed.sh("ls"), "");
}

#[test]
fn an_open_sees_a_change_that_the_kernel_was_not_told_of() {
    let bed = Bed::new();
    bed.fs.remote_write(1, b"f", b"aaaa");
    assert_eq!(fs::read(bed.path("f")).unwrap(), b"aaaa");
    bed.fs.silent_write(1, b"f", b"bbbb"); // its report is still on the way
    assert_eq!(fs::read(bed.path("f")).unwrap(), b"bbbb");
}

#[test]
fn own_writes_stay_in_the_page_cache() {
    let bed = Bed::new();
    // Whole pages: the kernel does not keep a written part of a page.
    fs::write(bed.path("f"), vec![7; 75 * 4096]).unwrap();
    let before = bed.counters();
    assert_eq!(fs::read(bed.path("f")).unwrap().len(), 75 * 4096);
    assert_eq!(bed.counters().since(&before).read_bytes, 0);
}

#[test]
fn everything_can_be_taken_back_at_once() {
    let bed = Bed::new();
    bed.sh("mkdir -p a/b; for i in $(seq 50); do echo old >a/b/$i; done; cat a/b/* >/dev/null; ls -lR >/dev/null");
    assert!(fs::metadata(bed.path("a/b/absent")).is_err());
    let b = fs::metadata(bed.path("a/b")).unwrap().ino();
    let open = File::open(bed.path("a/b/7")).unwrap();
    let mut bytes = [0; 3];
    open.read_exact_at(&mut bytes, 0).unwrap();
    // Many changes without a report, then one "anything may have changed".
    for i in 1..=50 {
        bed.fs.silent_write(b, i.to_string().as_bytes(), b"new");
    }
    bed.fs.silent_write(b, b"absent", b"new");
    bed.fs.report_everything();
    bed.settle();
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"new");
    assert_eq!(fs::read_to_string(bed.path("a/b/absent")).unwrap(), "new");
    assert_eq!(bed.sh("cat a/b/* | tr -d n | grep -o ew | wc -l").trim(), "51");
    assert_eq!(bed.sh("ls a/b | wc -l").trim(), "51");
    assert_eq!(bed.counters().full_invalidations, 1);
}

/// Of two trees in one mount one is restored: only what the kernel knows of that one is taken back.
#[test]
fn one_of_several_trees_can_be_taken_back() {
    let bed = Bed::new();
    let len = |name: &str| fs::metadata(bed.path(name)).map(|meta| meta.len()).ok();
    let trees = ["a", "b"].map(|name| {
        fs::create_dir(bed.path(name)).unwrap();
        let dir = fs::metadata(bed.path(name)).unwrap().ino();
        bed.fs.remote_write(dir, b"f", b"old");
        bed.settle();
        let file = fs::metadata(bed.path(name).join("f")).unwrap().ino();
        assert!(len(&format!("{name}/new")).is_none());
        (dir, file)
    });
    for (dir, _) in trees {
        bed.fs.silent_write(dir, b"f", b"longer");
        bed.fs.silent_write(dir, b"new", b"x");
    }
    assert_eq!((len("a/f"), len("b/f")), (Some(3), Some(3)), "the kernel trusts what it was told");
    let (first, last) = trees[0];
    bed.fs.report_range(first, last, false);
    bed.settle();
    assert_eq!((len("a/f"), len("b/f"), len("a/new")), (Some(6), Some(3), None));
    bed.fs.report_range(first, last, true);
    bed.settle();
    assert_eq!(len("a/new"), Some(1));
    assert_eq!(bed.counters().full_invalidations, 0);
}

#[test]
fn more_changes_than_the_queue_holds() {
    let bed = Bed::new();
    bed.fs.remote_write(1, b"seen", b"old");
    assert_eq!(fs::read(bed.path("seen")).unwrap(), b"old");
    let d = {
        fs::create_dir(bed.path("d")).unwrap();
        fs::metadata(bed.path("d")).unwrap().ino()
    };
    // A request that holds the directory stops the notifier, so that the queue really fills.
    let total = 200_000;
    for i in 0..total {
        bed.fs.remote_write(d, format!("f{}", i % 100_000).as_bytes(), b"x");
        if i == total / 2 {
            bed.fs.remote_write(1, b"seen", b"new");
        }
    }
    bed.settle();
    assert_eq!(fs::read(bed.path("seen")).unwrap(), b"new");
    assert_eq!(fs::read_dir(bed.path("d")).unwrap().count(), 100_000);
}

/// Readers and writers with slow reads, against a stream of changes to the same files and names: the deadlocks that
/// a notification from inside a handler would cause (page lock, directory lock) have every chance here.
#[test]
fn invalidation_never_deadlocks_with_readers() {
    let bed = Bed::new();
    bed.fs.read_delay_ms.store(2, Ordering::Relaxed);
    for i in 0..20 {
        bed.fs.remote_write(1, format!("f{i}").as_bytes(), &vec![0; 100_000]);
    }
    let stop = AtomicBool::new(false);
    let operations = AtomicU64::new(0);
    thread::scope(|scope| {
        for worker in 0..6u64 {
            let (bed, stop, operations) = (&bed, &stop, &operations);
            scope.spawn(move || {
                let mut i = worker;
                while !stop.load(Ordering::Relaxed) {
                    let path = bed.path(&format!("f{}", i % 20));
                    if let Ok(bytes) = fs::read(&path) {
                        // Several reads make no snapshot, here as on a local disk; but only what was written is seen.
                        assert!(bytes.len() <= 100_000 && bytes.iter().all(|b| *b <= 2));
                    }
                    let own = bed.path(&format!("own{worker}"));
                    fs::write(&own, "x").unwrap();
                    fs::read_dir(bed.path("")).unwrap().for_each(drop);
                    fs::remove_file(&own).unwrap();
                    i += 1;
                    operations.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..1500usize {
            let name = format!("f{}", round % 20);
            match round % 7 {
                0 => {
                    bed.fs.remote_unlink(1, name.as_bytes());
                    bed.fs.remote_write(1, name.as_bytes(), &vec![1; 50_000]);
                }
                1 => {
                    bed.fs.remote_rename(1, name.as_bytes(), b"moved");
                    bed.fs.remote_rename(1, b"moved", name.as_bytes());
                }
                6 if round % 5 == 0 => bed.fs.report_everything(),
                n => bed.fs.remote_write(1, name.as_bytes(), &vec![2; 1000 * (50 + n)]),
            }
            crate::bed::pause(std::time::Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
    });
    bed.settle();
    assert!(operations.load(Ordering::Relaxed) > 50);
    for i in 0..20 {
        let name = format!("f{i}");
        bed.fs.remote_write(1, name.as_bytes(), b"final");
        bed.settle();
        assert_eq!(fs::read(bed.path(&name)).unwrap(), b"final");
    }
}

/// Attributes that were read before a change must not be trusted after it, even when the kernel first
/// learns of the inode from that very answer.
#[test]
fn no_stale_attributes_from_a_lookup_that_races_with_a_change() {
    let bed = Bed::new();
    let (fs_, root) = (&bed.fs, 1u64);
    thread::scope(|scope| {
        for i in 0..300 {
            let name = format!("n{i}");
            fs_.remote_write(root, name.as_bytes(), b"1");
            let path = bed.path(&name);
            let looker = scope.spawn(move || fs::metadata(&path).map(|m| m.len()));
            fs_.remote_write(root, name.as_bytes(), b"22");
            let _ = looker.join().unwrap();
        }
    });
    bed.settle();
    // The repeated invalidations come a little later.
    eventually("all sizes are the new ones", || {
        (0..300).all(|i| fs::metadata(bed.path(&format!("n{i}"))).unwrap().len() == 2)
    });
}

#[test]
fn listing_ten_thousand_entries_while_they_come_and_go() {
    let bed = Bed::new();
    fs::create_dir(bed.path("d")).unwrap();
    let d = fs::metadata(bed.path("d")).unwrap().ino();
    for i in 0..10_000 {
        bed.fs.silent_write(d, format!("stay{i:05}").as_bytes(), b"");
    }
    bed.fs.report_everything();
    bed.settle();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 0..2 {
            let (bed, stop) = (&bed, &stop);
            scope.spawn(move || {
                let mut i = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("come{worker}-{}", i % 50);
                    if worker == 0 {
                        fs::write(bed.path("d").join(&name), "").unwrap();
                        fs::remove_file(bed.path("d").join(&name)).unwrap();
                    } else {
                        bed.fs.remote_write(d, name.as_bytes(), b"");
                        bed.fs.remote_unlink(d, name.as_bytes());
                        crate::bed::pause(std::time::Duration::from_micros(200));
                    }
                    i += 1;
                }
            });
        }
        for round in 0..10 {
            let mut seen = HashSet::new();
            for entry in fs::read_dir(bed.path("d")).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let is_new = seen.insert(name.clone());
                assert!(is_new || name.starts_with("come"), "round {round}: {name} twice");
            }
            let stayed = seen.iter().filter(|n| n.starts_with("stay")).count();
            assert_eq!(stayed, 10_000, "round {round}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let out = bed.sh("ls d | grep -c stay; ls -f d | grep -c stay; find d -name 'stay*' -size 0 | wc -l");
    assert_eq!(out, "10000\n10000\n10000\n");
}

#[test]
fn a_slow_read_stops_nobody_else() {
    let bed = Bed::with(Caps { remote: true, ..Caps::default() }, MountOptions::default());
    bed.fs.remote_write(1, b"slow", &[1; 1000]);
    bed.fs.remote_write(1, b"other", b"x");
    bed.fs.read_delay_ms.store(1500, Ordering::Relaxed);
    thread::scope(|scope| {
        let path = bed.path("slow");
        let reader = scope.spawn(move || fs::read(path).unwrap().len());
        crate::bed::pause(std::time::Duration::from_millis(100));
        let begin = std::time::Instant::now();
        for i in 0..100 {
            fs::write(bed.path(&format!("w{i}")), "x").unwrap();
        }
        assert_eq!(fs::metadata(bed.path("other")).unwrap().len(), 1);
        assert!(begin.elapsed().as_millis() < 1000, "{:?}", begin.elapsed());
        // An invalidation of the file being read waits for it; others do not wait for that one.
        bed.fs.remote_write(1, b"slow", &[2; 1000]);
        bed.fs.remote_write(1, b"other", b"yy");
        eventually("the other change is visible", || fs::metadata(bed.path("other")).unwrap().len() == 2);
        assert!(begin.elapsed().as_millis() < 1400, "{:?}", begin.elapsed());
        assert_eq!(reader.join().unwrap(), 1000);
    });
}
