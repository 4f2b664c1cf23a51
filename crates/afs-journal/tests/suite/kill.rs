//! `kill -9` of a process that writes: everything it acknowledged is there, in order, without holes, and the mark agrees.
//! The child is this test binary, started again.

use crate::support::{keys, options, put};
use afs_journal::RocksJournal;
use afs_store::{BlobStore, Journal};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const DIR: &str = "AFS_TEST_JOURNAL_DIR";

/// Not a test of its own: what the child runs. Prints each number after it was acknowledged.
#[test]
fn child_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let journal = RocksJournal::open(&dir.join("journal"), options()).unwrap();
    let blobs = BlobStore::open(dir, [1; 32], 1 << 20, Arc::clone(&journal) as _).unwrap();
    let from = keys(&*journal).len() as u64;
    let mut out = std::io::stdout().lock();
    for i in from.. {
        // Each record names a blob: bytes first.
        let id = blobs.put(format!("content {i}").repeat(20).as_bytes()).unwrap();
        let at = put(&*journal, i, &id.0);
        if i % 3 == 0 {
            journal.wait(at).unwrap();
            writeln!(out, "ack {i}").unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = None;
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_writes_until_it_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stop = 20 + round * 37;
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            if let Some(n) = line.split("ack ").nth(1) {
                acknowledged = Some(n.parse::<u64>().unwrap());
                seen += 1;
                if seen == stop {
                    child.kill().unwrap(); // and read on: what it wrote before counts
                }
            }
        }
        assert_eq!(child.wait().unwrap().signal(), Some(9), "the child ended by itself");
        check(dir.path(), acknowledged.expect("the child acknowledged something"));
    }
}

fn check(dir: &Path, acknowledged: u64) {
    let journal = RocksJournal::open(&dir.join("journal"), options()).unwrap();
    let found = keys(&*journal);
    assert!(found.iter().copied().eq(0..found.len() as u64), "a hole");
    assert!(found.len() as u64 > acknowledged, "{acknowledged} was acknowledged, {} are there", found.len());
    let blobs = BlobStore::open(dir, [1; 32], 1 << 20, Arc::clone(&journal) as _).unwrap();
    for i in found.iter().rev().take(300) {
        let id = journal.get(afs_store::Space::Record, &i.to_be_bytes()).unwrap().unwrap();
        let id = afs_types::BlobId(id.try_into().unwrap());
        assert_eq!(blobs.read(&id, 0, 1000).unwrap(), format!("content {i}").repeat(20).as_bytes());
    }
    journal.close().unwrap();
}

/// The mark is exact after a kill: cutting the WAL by one record is noticed (a kill leaves it in the page cache).
#[test]
fn the_mark_is_exact_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child_writes_until_it_is_killed", "--nocapture"])
        .env(DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("ack 300")).unwrap().unwrap();
    child.kill().unwrap();
    for _ in lines {}
    child.wait().unwrap();
    let rocks = dir.path().join("journal").join("rocks");
    let wal = std::fs::read_dir(&rocks).unwrap().map(|e| e.unwrap().path());
    let wal = wal.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap();
    let len = wal.metadata().unwrap().len();
    // Less than the last record of the last group.
    std::fs::File::options().write(true).open(&wal).unwrap().set_len(len - 20).unwrap();
    let error = RocksJournal::open(&dir.path().join("journal"), options()).map(drop).unwrap_err();
    assert!(error.message().contains("was acknowledged"), "{error:?}");
}
