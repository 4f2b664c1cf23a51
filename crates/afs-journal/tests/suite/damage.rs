//! Whatever happens to the files, the journal opens with everything that was acknowledged or refuses and names the way out.

use crate::support::{copy, keys, options, put};
use afs_journal::{JournalOptions, RocksJournal};
use afs_store::Journal;
use afs_types::{Error, Reason};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BATCHES: u64 = 300;

/// A journal as `kill -9` leaves it after `BATCHES` acknowledged batches.
fn killed(dir: &Path) -> PathBuf {
    let live = dir.join("live");
    let journal = RocksJournal::open(&live, options()).unwrap();
    let mut last = None;
    for i in 0..BATCHES {
        last = Some(put(&*journal, i, &[i as u8; 100]));
        if i % 10 == 0 {
            journal.wait(last.unwrap()).unwrap();
        }
    }
    journal.wait(last.unwrap()).unwrap();
    let dead = dir.join("dead");
    copy(&live, &dead);
    dead
}

fn open(dir: &Path) -> Result<Vec<u64>, Error> {
    let journal = RocksJournal::open(dir, options())?;
    Ok(keys(&*journal))
}

/// Opens a damaged copy; whole or refused, never less.
fn check(dead: &Path, what: &str, damage: impl FnOnce(&Path)) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("copy");
    copy(dead, &dir);
    damage(&dir);
    match open(&dir) {
        Ok(found) => {
            assert!(found.iter().copied().eq(0..BATCHES), "{what}: opened with {} of {BATCHES}", found.len());
            false
        }
        Err(error) => {
            assert_eq!(error.reason, Reason::Corrupt, "{what}: {error:?}");
            assert!(error.message().contains(dir.to_str().unwrap()), "{what}: {error:?}");
            assert!(error.next_step().contains("backup"), "{what}: {error:?}");
            // It stays refused: nothing is rolled back behind the operator's back.
            assert_eq!(open(&dir).unwrap_err().reason, Reason::Corrupt, "{what}: accepted at the second try");
            true
        }
    }
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let list = std::fs::read_dir(dir.join("rocks")).unwrap().map(|e| e.unwrap().path());
    let mut found: Vec<_> = list.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

fn wal(dir: &Path) -> PathBuf {
    files(dir, "log").pop().unwrap()
}

fn flip(path: &Path, bit: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit / 8).unwrap();
}

#[test]
fn an_undamaged_copy_opens_whole() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!check(&killed(dir.path()), "nothing", |_| {}));
}

#[test]
fn a_cut_wal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed(dir.path());
    let len = wal(&dead).metadata().unwrap().len();
    for keep in (0..len).step_by(len as usize / 40).chain([len - 1]) {
        let refused = check(&dead, &format!("WAL cut to {keep} of {len}"), |dir| {
            std::fs::File::options().write(true).open(wal(dir)).unwrap().set_len(keep).unwrap();
        });
        assert!(refused, "a WAL cut to {keep} of {len} bytes was not noticed");
    }
}

#[test]
fn a_deleted_wal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(check(&killed(dir.path()), "WAL deleted", |dir| std::fs::remove_file(wal(dir)).unwrap()));
}

#[test]
fn flipped_bits_in_the_wal_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed(dir.path());
    let bits = wal(&dead).metadata().unwrap().len() * 8;
    for bit in (3..bits).step_by(bits as usize / 60) {
        assert!(
            check(&dead, &format!("bit {bit} of {bits}"), |dir| flip(&wal(dir), bit)),
            "bit {bit} unnoticed"
        );
    }
}

/// A power cut in the middle of the last group can leave its later sectors without its earlier ones, which is a wrong checksum, not a short
/// record. Nobody was told of that group, so the journal opens without it.
#[test]
fn a_torn_last_group_that_nobody_was_told_of_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed(dir.path());
    let empty = dir.path().join("empty");
    drop(RocksJournal::open(&empty, options()).unwrap());
    std::fs::copy(empty.join("MARK"), dead.join("MARK")).unwrap();
    let log = std::fs::read(wal(&dead)).unwrap();
    let value = [(BATCHES - 1) as u8; 100];
    let last = log.windows(100).rposition(|window| window == value).unwrap();
    flip(&wal(&dead), (last as u64 + 50) * 8 + 3);
    for _ in 0..2 {
        let found = open(&dead).unwrap();
        let count = found.len() as u64;
        assert!(found.into_iter().eq(0..count), "a prefix");
        assert!((BATCHES - 10..BATCHES).contains(&count), "all but the last group: {count}");
    }
}

/// After a power cut the mark may be older than the log. Then RocksDB's own check has to hold: a flipped bit is not a torn tail.
#[test]
fn flipped_bits_are_refused_also_under_an_older_mark() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed(dir.path());
    let empty = dir.path().join("empty");
    drop(RocksJournal::open(&empty, options()).unwrap());
    let log = std::fs::read(wal(&dead)).unwrap();
    let mut tried = 0;
    for record in (20..BATCHES - 20).step_by(29) {
        // In the value of an acknowledged record, far from the tail.
        let value = [record as u8; 100];
        let Some(at) = log.windows(100).position(|window| window == value) else { continue };
        let refused = check(&dead, &format!("a bit of record {record}"), |dir| {
            std::fs::copy(empty.join("MARK"), dir.join("MARK")).unwrap();
            flip(&wal(dir), (at as u64 + 50) * 8 + 3);
        });
        assert!(refused, "a bit of record {record} unnoticed");
        tried += 1;
    }
    assert!(tried >= 5);
}

#[test]
fn every_missing_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed(dir.path());
    assert!(check(&dead, "rocks missing", |dir| std::fs::remove_dir_all(dir.join("rocks")).unwrap()));
    assert!(check(&dead, "MARK missing", |dir| std::fs::remove_file(dir.join("MARK")).unwrap()));
    assert!(check(&dead, "CURRENT missing", |dir| std::fs::remove_file(dir.join("rocks/CURRENT")).unwrap()));
    assert!(check(&dead, "MARK emptied", |dir| std::fs::write(dir.join("MARK"), b"").unwrap()));
    for name in ["MANIFEST", "CURRENT"] {
        check(&dead, &format!("{name} emptied"), |dir| {
            for entry in std::fs::read_dir(dir.join("rocks")).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().to_str().unwrap().starts_with(name) {
                    std::fs::write(path, b"").unwrap();
                }
            }
        });
    }
}

#[test]
fn a_torn_mark_falls_back_and_both_torn_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed(dir.path());
    for slot in [0, 4096] {
        assert!(!check(&dead, "one slot torn", |dir| flip(&dir.join("MARK"), (slot + 30) * 8)));
    }
    assert!(check(&dead, "both slots torn", |dir| {
        flip(&dir.join("MARK"), 30 * 8);
        flip(&dir.join("MARK"), (4096 + 30) * 8);
    }));
}

#[test]
fn an_older_state_put_back_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let journal = RocksJournal::open(&live, options()).unwrap();
    journal.wait(put(&*journal, 0, b"x")).unwrap();
    let old = dir.path().join("old");
    copy(&live, &old);
    for i in 1..50 {
        journal.wait(put(&*journal, i, b"x")).unwrap();
    }
    let new = dir.path().join("new");
    copy(&live, &new);
    // The whole older state is consistent: it opens. Only its database under the newer mark is a rollback.
    std::fs::copy(new.join("MARK"), old.join("MARK")).unwrap();
    let error = open(&old).unwrap_err();
    assert_eq!(error.reason, Reason::Corrupt);
    assert!(error.message().contains("batch 1 ") && error.message().contains("batch 50 "), "{error:?}");
}

#[test]
fn another_history_of_the_same_length_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, value: &[u8]| {
        let path = dir.path().join(name);
        let journal = RocksJournal::open(&path, options()).unwrap();
        journal.wait(put(&*journal, 0, value)).unwrap();
        journal.close().unwrap();
        path
    };
    let (a, b) = (make("a", b"one"), make("b", b"two"));
    std::fs::copy(b.join("MARK"), a.join("MARK")).unwrap();
    let error = open(&a).unwrap_err();
    assert!(error.reason == Reason::Corrupt && error.message().contains("another history"), "{error:?}");
    open(&b).unwrap();
}

#[test]
fn flipped_bits_in_tables_are_seen_when_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    // Two openings: the second writes what the first left in its WAL into a table.
    drop(RocksJournal::open(&path, options()).map(|j| {
        for i in 0..BATCHES {
            put(&*j, i, &[i as u8; 100]);
        }
    }));
    RocksJournal::open(&path, options()).unwrap().close().unwrap();
    let table = files(&path, "sst").into_iter().max_by_key(|p| p.metadata().unwrap().len()).unwrap();
    let bits = table.metadata().unwrap().len() * 8;
    assert!(bits > 100_000, "the records are not in a table");
    let mut seen = 0;
    for bit in (99..bits).step_by(bits as usize / 50) {
        flip(&table, bit);
        let whole = RocksJournal::open(&path, options()).and_then(|journal| {
            let mut found = Vec::new();
            let mut visit = |key: &[u8], value: &[u8]| {
                found.push((key.to_vec(), value.to_vec()));
                Ok(std::ops::ControlFlow::Continue(()))
            };
            journal.scan(afs_store::Space::Record, b"", None, &mut visit)?;
            Ok(found)
        });
        match whole {
            Ok(found) => {
                let right = |(i, (k, v)): (usize, &(Vec<u8>, Vec<u8>))| {
                    k[..] == (i as u64).to_be_bytes() && v[..] == [i as u8; 100]
                };
                assert!(
                    found.len() as u64 == BATCHES && found.iter().enumerate().all(right),
                    "bit {bit}: wrong data"
                );
            }
            Err(error) => {
                assert!(matches!(error.reason, Reason::Corrupt | Reason::Io), "{error:?}");
                seen += 1;
            }
        }
        flip(&table, bit);
    }
    assert!(seen > 25, "only {seen} of 50 flips were seen");
}

/// Negative control of this file's method: without comparing, RocksDB itself opens with less and says nothing.
#[test]
fn without_the_mark_the_loss_would_be_silent() {
    let dir = tempfile::tempdir().unwrap();
    let dead = killed(dir.path());
    std::fs::remove_file(wal(&dead)).unwrap();
    assert_eq!(open(&dead).unwrap_err().reason, Reason::Corrupt);
    // The mark of a new journal lets everything pass.
    let empty = dir.path().join("empty");
    drop(RocksJournal::open(&empty, JournalOptions { sync: false, ..options() }).unwrap());
    std::fs::copy(empty.join("MARK"), dead.join("MARK")).unwrap();
    let found = open(&dead);
    assert!(
        found.map_or(true, |found| (found.len() as u64) < BATCHES),
        "nothing was lost: the damage was none"
    );
}
