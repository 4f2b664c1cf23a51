//! `kill -9` of a process that writes: everything it acknowledged is there, in order, without holes, and so is every byte it names. The
//! child is this test binary, started again.
//!
//! A kill proves nothing about fsync (the page cache survives); power cuts are simulated elsewhere.

use crate::support::{keys, options, put};
use afs_journal::RocksJournal;
use afs_store::{BlobStore, Journal, LogRef, SimJournal, Space, rebuild_index};
use afs_types::BlobId;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const DIR: &str = "AFS_TEST_JOURNAL_DIR";
const KEY: [u8; 32] = [1; 32];

fn content(i: u64) -> Vec<u8> {
    let len = if i % 40 == 7 { 300_000 + i as usize } else { 200 + (i as usize * 37) % 5000 };
    format!("content {i} ").into_bytes().into_iter().cycle().take(len).collect()
}

/// Not a test of its own: what the child runs. Prints each number after it was acknowledged.
#[test]
fn child_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let journal = RocksJournal::open(&dir.join("journal"), options()).unwrap();
    let blobs = BlobStore::open(dir, KEY, 1 << 20, Arc::clone(&journal) as _).unwrap();
    let from = keys(&*journal).len() as u64;
    let mut out = std::io::stdout().lock();
    for i in from.. {
        // Each record names a blob, put in one of two ways, and bytes of the log: bytes first.
        let id = if i % 5 == 0 {
            let mut writer = blobs.pack_writer().unwrap();
            let id = writer.put(&content(i)).unwrap();
            writer.put(&content(i + 1)).unwrap(); // the next one finds it pending or durable
            writer.finish().unwrap();
            id
        } else {
            blobs.put(&content(i)).unwrap()
        };
        let log = blobs.append(&i.to_le_bytes()).unwrap();
        let value = [&id.0[..], &log.segment.to_le_bytes(), &log.offset.to_le_bytes()].concat();
        let at = put(&*journal, i, &value);
        if i % 3 == 0 {
            journal.wait(at).unwrap();
            writeln!(out, "ack {i}").unwrap();
            out.flush().unwrap();
        }
    }
}

fn child(dir: &Path) -> (Child, impl Iterator<Item = u64> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child_writes_until_it_is_killed", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acks = lines.filter_map(|line| line.unwrap().split("ack ").nth(1).and_then(|n| n.parse().ok()));
    (child, acks)
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..12usize {
        let (mut child, mut acks) = child(dir.path());
        acknowledged = acks.nth(20 + round * 37).unwrap();
        child.kill().unwrap();
        // What it had written before counts, too.
        acknowledged = acks.last().unwrap_or(acknowledged);
        assert_eq!(child.wait().unwrap().signal(), Some(9), "the child ended by itself");
        check(dir.path(), acknowledged);
    }
    check_rebuild(dir.path(), acknowledged);
}

fn check(dir: &Path, acknowledged: u64) {
    let journal = RocksJournal::open(&dir.join("journal"), options()).unwrap();
    let found = keys(&*journal);
    assert!(found.iter().copied().eq(0..found.len() as u64), "a hole");
    assert!(found.len() as u64 > acknowledged, "{acknowledged} was acknowledged, {} are there", found.len());
    let blobs = BlobStore::open(dir, KEY, 1 << 20, Arc::clone(&journal) as _).unwrap();
    for i in found.iter().rev().take(500) {
        let value = journal.get(Space::Record, &i.to_be_bytes()).unwrap().unwrap();
        let id = BlobId(value[..32].try_into().unwrap());
        assert_eq!(blobs.read(&id, 0, usize::MAX).unwrap(), content(*i), "the blob of record {i}");
        let segment = u32::from_le_bytes(value[32..36].try_into().unwrap());
        let offset = u64::from_le_bytes(value[36..].try_into().unwrap());
        let mut log = [0; 8];
        blobs.read_log(LogRef { segment, offset }, &mut log).unwrap();
        assert_eq!(u64::from_le_bytes(log), *i);
    }
    journal.close().unwrap();
}

fn index(journal: &dyn Journal) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        found.insert(key.to_vec(), value.to_vec());
        Ok(ControlFlow::Continue(()))
    };
    journal.scan(Space::Blob, b"", None, &mut visit).unwrap();
    found
}

/// The files alone say at least what the index says.
fn check_rebuild(dir: &Path, acknowledged: u64) {
    let journal = RocksJournal::open(&dir.join("journal"), options()).unwrap();
    let want = index(&*journal);
    journal.close().unwrap();
    assert!(want.len() as u64 > acknowledged);
    let fresh = SimJournal::new().unwrap();
    let rebuilt = rebuild_index(dir, KEY, &*fresh).unwrap();
    let have = index(&*fresh);
    assert!(want.keys().all(|id| have.contains_key(id)), "blobs are lost to a rebuild");
    assert_eq!(have.len() as u64, rebuilt.blobs);
    let blobs = BlobStore::open(dir, KEY, 1 << 20, fresh as _).unwrap();
    for i in (0..acknowledged).step_by(11) {
        assert_eq!(blobs.read(&blobs.hash(&content(i)), 0, usize::MAX).unwrap(), content(i));
    }
}

/// The mark is exact after a kill: the loss of one record at the end of the WAL is noticed.
#[test]
fn the_mark_is_exact_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, mut acks) = child(dir.path());
    acks.find(|n| *n >= 300).unwrap();
    child.kill().unwrap();
    acks.for_each(drop);
    child.wait().unwrap();
    let rocks = dir.path().join("journal").join("rocks");
    let wal = std::fs::read_dir(&rocks).unwrap().map(|e| e.unwrap().path());
    let wal = wal.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap();
    let len = wal.metadata().unwrap().len();
    let cut = std::fs::File::options().write(true).open(&wal).unwrap();
    cut.set_len(len - 20).unwrap();
    let error = RocksJournal::open(&dir.path().join("journal"), options()).map(drop).unwrap_err();
    assert!(error.message().contains("was acknowledged"), "{error:?}");
}
